"""Classes of X-ray sources, as Yang et al. 2022 (ApJ 941, 104) name them."""

CLASSES = ("AGN", "YSO", "LM-STAR", "HM-STAR", "NS", "LMXB", "CV", "HMXB")
"""The eight classes, in the order of every table and figure."""

COMPACT = ("HMXB", "LMXB", "NS", "CV")
"""Stellar-mass compact objects among them, which are told from AGN."""
