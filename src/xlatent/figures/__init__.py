"""Figures: Matplotlib objects, in colours that all eyes tell apart; nothing is shown, and `style.save` alone writes."""
