"""How many spectra are embedded in one go: also what tasks are cut by, so that no cut changes a last digit."""

GROUP = 128
"""Spectra side by side: enough for matrix products at full speed, few enough for a processor's caches."""

TOGETHER = 4 * GROUP
"""Spectra that are embedded together. In single precision a latent depends in its last digits on which those are."""

DRAWN = 32
"""Spectra that are refined together where their posteriors are drawn from, which takes ten times longer."""
