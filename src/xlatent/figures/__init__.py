"""Figures: Matplotlib objects, in colours that all eyes tell apart."""
