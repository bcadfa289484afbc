"""Files in and out: OGIP spectra and responses, lists of inputs, latent tables."""
