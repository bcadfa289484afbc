"""What networks are taught by: the loss of a batch of simulated spectra, of real ones, and of points without errors."""

import numpy as np
import torch
from torch import Tensor

from xlatent.core.grid import ModelGrid
from xlatent.model.autoencoder import Autoencoder
from xlatent.model.losses import (
    aggregate_posterior_kl,
    divergence,
    energy_distance,
    expected_deviance,
    pair_difference,
    profiled_amplitude,
)
from xlatent.model.preset import Training
from xlatent.simulate.observe import SimulatedObservations

BRIGHT = 3000.0  # counts above which every latent should be known
COLOUR_BAND_EDGES = np.geomspace(
    0.5, 8.0, 13
)  # keV, edges of bands in which draws from the prior must be like the population,
FAINTEST = 1e-5  # down to this share of all photons
REACH = 45.0  # of ln(photons per bin); no spectrum of the population needs more


def poisson_loss(
    model: Autoencoder,
    grid: ModelGrid,
    photons: Tensor,
    views: SimulatedObservations,
    training: Training,
    beta: float,
    noise: Tensor,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Compute the negative evidence bound per spectrum, deviance robust, plus what pairs, latents and prior must be.

    The encoder is taught by the counts it saw, through a decoder held still: taught by expected counts it would shrink
    towards the prior twice. So is the decoder where counts are few; of bright spectra, whose latents are known, it is
    taught by the expected counts, which have none of the noise.
    """
    n = len(views.counts)
    mean, factor, z, encoder_deviance = _sampled(model, views, noise[:n])
    # Draws from the prior go through the decoder beside those from the posterior.
    unbounded = model.decoder.unbounded(torch.cat([z.detach(), noise[n:]]))
    decoded, prior_draws = model.decoder.normalised(unbounded).split([n, len(noise) - n])
    # Where bounds hold back a spectrum no other part of the loss can, and it may run away.
    beyond = (unbounded.abs() - REACH).clamp(min=0.0).mean()
    truth = views.source + views.background
    bright = views.source.sum(dim=1) > BRIGHT
    taught = torch.where(bright[:, None], truth, views.counts)
    decoder_deviance = _deviance(views, decoded, taught)
    # Data have a deviance of their own even under the truth; only what exceeds it says anything of z.
    floor, taught_floor = expected_deviance(views.counts, truth), expected_deviance(taught, truth)
    misfit = _deviance(views, decoded.detach(), truth)
    weight = training.robust_scale / (training.robust_scale + misfit)  # the slope of scale * ln(1 + misfit / scale)
    whole = divergence(mean, factor)
    empty = aggregate_posterior_kl(mean[bright]) if bright.sum() > 2 * mean.shape[1] else torch.zeros_like(whole.mean())
    half = n // 2
    pair = pair_difference(mean.reshape(2, half, -1), factor.reshape(2, half, *factor.shape[1:]))
    apart = energy_distance(_colours(torch.exp(prior_draws), grid), _colours(photons[:half], grid))
    loss = (
        0.5 * (weight * (encoder_deviance - floor)).mean()
        + 0.5 * (weight * (decoder_deviance - taught_floor)).mean()
        + 0.5 * _sharp_deviance(views, decoded, photons, training.sharp_counts).mean()
        + beta * whole.mean()
        + training.spread_weight * empty
        + training.pair_weight * pair.mean()
        + training.prior_weight * apart
        + beyond
    )
    with torch.no_grad():
        remaining = torch.linalg.eigvalsh((factor[bright] @ factor[bright].transpose(1, 2)).mean(dim=0).cpu())
    return loss, {
        "deviance": misfit.median(),
        "deviance_mean": misfit.mean(),
        "kl": whole.mean(),
        "pair": pair.mean(),
        "collapse": empty,
        "prior": apart,
        "beyond": beyond,
        "active": (remaining < 0.5).sum(),
    }


def observed_loss(
    model: Autoencoder, views: SimulatedObservations, training: Training, beta: float, noise: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """Compute the negative evidence bound per real spectrum, whose counts teach both halves: the truth is unknown."""
    mean, factor, z, encoder_deviance = _sampled(model, views, noise)
    decoder_deviance = _deviance(views, model.decoder(z.detach()), views.counts)
    # Noise makes about one for each bin of a bright spectrum; a faint one has no misfit worth the name.
    misfit = (decoder_deviance.detach() - views.counts.shape[1]).clamp(min=0.0)
    weight = training.robust_scale / (training.robust_scale + misfit)
    loss = 0.5 * (weight * (encoder_deviance + decoder_deviance)).mean() + beta * divergence(mean, factor).mean()
    return loss, {"observed": decoder_deviance.mean(), "observed_median": decoder_deviance.median()}


def _sampled(model: Autoencoder, views: SimulatedObservations, noise: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Posterior, a draw from it, and the draw's deviance through a decoder held still, which teaches the encoder."""
    mean, factor = _encode(model, views)
    z = mean + (factor @ noise[:, :, None])[:, :, 0]
    still = {name: p.detach() for name, p in model.decoder.named_parameters()}
    return mean, factor, z, _deviance(views, torch.func.functional_call(model.decoder, still, (z,)), views.counts)


def _colours(photons: Tensor, grid: ModelGrid) -> Tensor:
    """Logarithms of the photons in broad bands: what even a faint spectrum shows of a source."""
    band = np.searchsorted(COLOUR_BAND_EDGES, grid.energy_mid) - 1
    members = torch.as_tensor(
        band[:, None] == np.arange(len(COLOUR_BAND_EDGES) - 1), dtype=photons.dtype, device=photons.device
    )
    return torch.log(photons @ members + FAINTEST)


def _sharp_deviance(views: SimulatedObservations, log_flux: Tensor, photons: Tensor, most: float) -> Tensor:
    """Deviance that a detector of perfect resolution would see, with few counts.

    What no CCD can resolve the likelihood leaves free, and the decoded spectrum would be jagged there.
    """
    counts = (0.3 * views.source.sum(dim=1, keepdim=True)).clamp(max=most)
    truth, made = photons * views.area, torch.exp(log_flux) * views.area
    return expected_deviance(
        counts * truth / truth.sum(dim=1, keepdim=True), counts * made / made.sum(dim=1, keepdim=True) + 1e-9
    )


def _encode(model: Autoencoder, views: SimulatedObservations) -> tuple[Tensor, Tensor]:
    # Only the encoder runs in bf16 on a GPU: folding and likelihood need every digit.
    with torch.autocast(views.counts.device.type, dtype=torch.bfloat16, enabled=views.counts.is_cuda):
        mean, factor = model.encoder(*views.encoder_inputs)
    return mean.float(), factor.float()


def _deviance(views: SimulatedObservations, log_flux: Tensor, truth: Tensor) -> Tensor:
    shape = views.fold(torch.exp(log_flux)) + 1e-12
    amplitude = profiled_amplitude(truth, shape, views.background)
    mean = amplitude * shape + views.background
    return expected_deviance(truth, mean)


def mse_loss(model: Autoencoder, grid: ModelGrid, views: SimulatedObservations) -> tuple[Tensor, dict[str, Tensor]]:
    """Compute the mean squared error between flux-like spectra, each of mean one on the detector grid; z is a point."""
    mean, _ = _encode(model, views)
    target = model.encoder.features(*views.encoder_inputs)[0][:, :, 0]
    made = on_detector(torch.exp(model.decoder(mean)), grid)
    made = made / made.mean(dim=1, keepdim=True)
    error = ((made - target) ** 2).mean(dim=1)
    spread = 1e-3 * (mean**2).sum(dim=1)  # keeps the code from drifting; its scale has no other meaning
    active = mean.std(dim=0) > 0.1
    zero = torch.zeros(())
    named = {
        "deviance": error.median(),
        "deviance_mean": error.mean(),
        "kl": zero,
        "pair": zero,
        "active": active.sum(),
    }
    return (error + spread).mean(), named


def on_detector(photons: Tensor, grid: ModelGrid) -> Tensor:
    """Average photons per intrinsic bin, relative to the reference spectrum, into detector bins (no response)."""
    lo, hi = grid.chan[:-1], grid.chan[1:]
    common = np.minimum(hi, grid.energy[1:, None]) - np.maximum(lo, grid.energy[:-1, None])
    weights = common.clip(0.0) / (hi - lo)
    ratio = photons / torch.as_tensor(grid.reference, dtype=photons.dtype, device=photons.device)
    return ratio @ torch.as_tensor(weights, dtype=photons.dtype, device=photons.device)
