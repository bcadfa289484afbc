"""Axes of latent space by rule: turned to where spectra carry information, ordered by it, signed by hardness."""

import torch
from jaxtyping import Float
from torch import Tensor

from xlatent.core.grid import ModelGrid
from xlatent.model.autoencoder import Autoencoder
from xlatent.model.batches import simulated_batches
from xlatent.model.preset import Preset, Training

# The reference set: drawn like the training's, from a seed of its own, in the range of counts that most science is done
# in. Axes found from either half of it agree to better than 1 %.
_SEED, _SOURCES, _BATCH, _COUNTS = 8128, 1024, 128, (1e3, 1e5)
_HARD = 6.0  # keV; above it the sign of every axis found so far is clear, iron's lines included


def canonical_axes(
    model: Autoencoder, preset: Preset, grid: ModelGrid
) -> tuple[Float[Tensor, "latents latents"], Float[Tensor, " latents"]]:
    """Find the directions of the network's own latent space that a bundle's latents are measured along.

    Prior, posterior and losses are the same in every rotated frame, so that a network's own axes are an accident of its
    training. These are not, as long as networks learn alike:

    - Directions and order: a Gaussian posterior of covariance Σ under the prior N(0, 1) carries -½ ln Σ nats about the
      source, as a matrix whose trace is the information in all. Axes are the eigenvectors of its mean over a reference
      set of 2,048 simulated spectra of 10³ to 10⁵ counts, the direction best known first; eigenvalues sum to the mean
      information.
    - Sign: along every axis the share of photons above 6 keV rises, in the logarithm and on average over the same
      spectra.

    Parameters
    ----------
    model : Autoencoder
        Trained.
    preset : Preset
        Which it was trained with. Where its latents are points, there is no information to order by, and the axes are
        left as they are.
    grid : ModelGrid

    Returns
    -------
    axes : Tensor [latents, latents]
        Orthogonal; row ``i`` is the direction of latent ``i``.
    information : Tensor [latents]
        Mean information in nats along each, falling; NaN for latents that are points.
    """
    unit = torch.eye(model.encoder.latents)
    if preset.loss != "poisson":
        return unit, torch.full((len(unit),), torch.nan)
    low, high = _COUNTS
    training = Training(batch=_BATCH, min_counts=low, max_counts=high)
    energy = torch.as_tensor(grid.energy, dtype=torch.float32)
    batches = simulated_batches(grid, training, _SEED, 0, energy)
    hard = torch.as_tensor((grid.energy_mid > _HARD) & (grid.energy_mid < 8.0))
    information, hardening = torch.zeros(unit.shape, dtype=torch.float64), torch.zeros(len(unit))
    n_batches = _SOURCES // _BATCH
    with torch.no_grad():
        for _ in range(n_batches):
            _, views = next(batches)
            mean, factor = model.encoder(*views.encoder_inputs)
            inverse = torch.linalg.inv(factor.double())  # of the root: its square may be singular
            learnt = inverse.mT @ inverse
            # The posterior under the whole prior: see xlatent.infer.observation.undo_beta_weighting.
            precision = unit + preset.training.beta_end * (learnt - unit)
            values, vectors = torch.linalg.eigh(precision)
            information += ((0.5 * vectors * torch.log(values)[:, None, :]) @ vectors.mT).mean(dim=0) / n_batches
            log_flux, slopes = model.decoder.with_slopes(mean, unit)
            share = torch.softmax(log_flux[:, hard], dim=1)
            hardening += (share[:, :, None] * slopes[:, hard]).sum(dim=1).mean(dim=0) / n_batches
    values, vectors = torch.linalg.eigh(information)
    axes = vectors.flip(1).T.float()
    sign = torch.where(axes @ hardening < 0, -1.0, 1.0)
    return sign[:, None] * axes, values.flip(0).float()
