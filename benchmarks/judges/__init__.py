"""Judges from outside: sources that no code of ours made, seen through real responses, beside what a model says.

Photons come from AtomDB and from XSPEC's model library, counts from Sherpa's folding; nothing here uses
`xlatent.simulate`. Run as `python -m judges` in this folder's parent, or `make judges`.
"""
