"""What latents say of sources: functions on latent tables, which know no FITS."""
