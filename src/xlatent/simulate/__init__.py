"""Simulated X-ray spectra: emission models, the ACIS response from numbers, and the training population."""
