"""One report on what a table of latents says."""
