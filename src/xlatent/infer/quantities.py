"""Fluxes, hardness ratios and spectra that follow from draws of the latents."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32
from scipy.special import stdtrit

from xlatent.bands import FLUX_BANDS, HARDNESS_RATIOS, column, flux_weights, hardness
from xlatent.grid import ModelGrid
from xlatent.infer.model_error import LARGEST
from xlatent.infer.refine import Decoder, Posterior

N_DRAWS = 200
LEVELS = (0.15865, 0.5, 0.84135)  # the central 68 %
FLUX_COLUMNS = tuple(f"{kind}_{column(band)}" for kind in ("photflux", "flux") for band in FLUX_BANDS)
_STEP = 0.05  # in z, of a derivative
_SMALL = 0.3  # share of the variance of any latent that errors of the decoder may make where draws are not decoded
_DEGREES = 5.0  # of freedom of Student's t


@dataclass(frozen=True, eq=False)
class Draws:
    """Draws from ``n`` posteriors, with errors of the decoder.

    Attributes
    ----------
    theta : array [n, n_draws, latents + 1]
        z and ln amplitude.
    errors : array [n, n_draws, k]
        What `Posterior.log_flux` is multiplied by.
    moved : array [n, latents + 1, k]
        By which the errors have moved theta.
    log_flux : array [n, k, n_energy]
        That of the posterior.
    """

    theta: Float[np.ndarray, "n n_draws latents_1"]
    errors: Float[np.ndarray, "n n_draws k"]
    moved: Float[np.ndarray, "n latents_1 k"]
    log_flux: Float[np.ndarray, "n k n_energy"]

    def __getitem__(self, rows: Bool[np.ndarray, "n"]) -> "Draws":
        """Draws from some of the posteriors."""
        return Draws(self.theta[rows], self.errors[rows], self.moved[rows], self.log_flux[rows])

    def photons(self, decoder: Decoder, i: int) -> Float[np.ndarray, "n_draws n_energy"]:
        """Photon spectra of the draws for spectrum ``i``, photons cm⁻² s⁻¹ per bin."""
        theta = self.theta[i]
        wrong = np.clip(self.errors[i] @ self.log_flux[i], -LARGEST, LARGEST)
        return np.exp(decoder.log_flux(theta[:, :-1]) + theta[:, -1:] + wrong)


def posterior_draws(
    posterior: Posterior, n: int = N_DRAWS, exact: Float[np.ndarray, "n n_draws latents_1"] | None = None
) -> Draws:
    """Draws of z and ln amplitude from the Gaussian posterior, or exact ones, with errors of the decoder added.

    How wrong the decoder is differs from spectrum to spectrum, and its statistic says so only roughly: its errors are
    drawn from Student's t distribution, as wide as the Gaussian between its 68 % limits and heavier beyond. Draws are
    the same in every call, so that a table made twice is the same table; those of the Gaussian come in antithetic
    pairs, which makes their mean the mode.

    Parameters
    ----------
    posterior : Posterior
    n : int
        Number of draws, even.
    exact : array [n, n_draws, latents + 1], optional
        Draws without errors of the decoder (`xlatent.infer.sample`); their number stands for ``n``.
    """
    rng = np.random.default_rng(20251015)
    n = n if exact is None else exact.shape[1]
    k = posterior.statistical.shape[-1]
    half = rng.standard_normal((n // 2, k))
    if exact is None:
        values, vectors = np.linalg.eigh(posterior.statistical)
        # This square root stands semi-definite matrices, as those of a point-like posterior.
        root = vectors * np.sqrt(np.maximum(values, 0.0))[:, None, :]
        centre = np.column_stack([posterior.z, posterior.log_amplitude])
        exact = np.concatenate([half, -half]) @ root.transpose(0, 2, 1) + centre[:, None, :]
    heavy = np.sqrt(_DEGREES / rng.chisquare(_DEGREES, (n // 2, 1))) / stdtrit(_DEGREES, LEVELS[2])
    half = rng.standard_normal((n // 2, posterior.moved.shape[-1])) * heavy
    errors = np.concatenate([half, -half])
    theta = exact + errors @ posterior.moved.transpose(0, 2, 1)
    return Draws(theta, np.broadcast_to(errors, (len(theta), *errors.shape)), posterior.moved, posterior.log_flux)


def drawn_fluxes(
    decoder: Decoder, draws: Draws, grid: ModelGrid, head: Any | None = None
) -> Float[np.ndarray, "n n_draws n_fluxes"]:
    """Band fluxes of draws, at the distances of `xlatent.bands.flux_weights`.

    Parameters
    ----------
    decoder : Decoder
    draws : Draws
    grid : ModelGrid
    head : onnxruntime.InferenceSession, optional
        Of ``fluxes.onnx``: ln(fluxes) from z at a hundredth of the cost, for spectra so faint that errors of the
        decoder are small beside noise.

    Returns
    -------
    array [n, n_draws, n_fluxes]
        Photons cm⁻² s⁻¹, then erg cm⁻² s⁻¹, in `xlatent.bands.FLUX_BANDS`.
    """
    weights = flux_weights(grid.energy)
    out = np.empty((*draws.theta.shape[:2], weights.shape[1]))
    spread = np.var(draws.theta, axis=1)
    noisy = np.all(np.sum(draws.moved**2, axis=2) < _SMALL * spread, axis=1) & (head is not None)
    for i in np.flatnonzero(~noisy).tolist():
        out[i] = draws.photons(decoder, i) @ weights
    if noisy.any():
        out[noisy] = _from_head(decoder, head, draws[noisy], weights.astype(np.float32))
    return out


def _from_head(
    decoder: Decoder, head: Any, draws: Draws, weights: Float32[np.ndarray, "n_energy n_fluxes"]
) -> Float[np.ndarray, "n n_draws n_fluxes"]:
    """Fluxes of the mean of the draws, decoded, and by how much the head says that each draw differs."""
    n, n_draws, dim = draws.theta.shape
    centre = draws.theta.mean(axis=1)
    log_flux, jacobian = decoder(centre[:, :-1])
    photons = np.exp(log_flux)
    base = photons @ weights
    # To first order the decoder itself says how fluxes change, and the head only what lies beyond.
    slopes = (photons[:, :, None] * jacobian).transpose(0, 2, 1) @ weights / base[:, None]
    steps = _STEP * np.concatenate([np.zeros((1, dim - 1)), np.eye(dim - 1), -np.eye(dim - 1)])
    errors = draws.errors.astype(np.float32)
    moved = draws.moved.transpose(0, 2, 1).astype(np.float32)
    away = draws.theta - centre[:, None] - errors @ moved
    points = np.concatenate([np.broadcast_to(steps, (n, *steps.shape)), away[:, :, :-1]], axis=1)
    points = (points + centre[:, None, :-1]).reshape(-1, dim - 1).astype(np.float32)
    logs = head.run(["log_fluxes"], {"z": points})[0].reshape(n, len(steps) + n_draws, -1)
    own = (logs[:, 1:dim] - logs[:, dim : len(steps)]) / (2.0 * _STEP)
    change = logs[:, len(steps) :] - logs[:, :1] + away[:, :, :-1].astype(np.float32) @ (slopes - own)
    # Where the fit has followed an error, the two largely cancel in each bin: they belong in one exponential.
    wrong = errors @ draws.log_flux.astype(np.float32)
    np.clip(wrong, -LARGEST, LARGEST, out=wrong)
    wrong += errors @ (moved[:, :, :-1] @ jacobian.transpose(0, 2, 1) + moved[:, :, -1:])
    with_errors = (np.exp(wrong, out=wrong) * photons[:, None]) @ weights
    return np.exp(change + away[:, :, -1:] + centre[:, None, -1:]) * with_errors


def quantities(fluxes: Float[np.ndarray, "n n_draws n_fluxes"]) -> dict[str, Float[np.ndarray, "n"]]:
    """Band fluxes and hardness ratios with the 68 % limits of their posterior, from `drawn_fluxes`.

    Medians and the 15.87 and 84.13 per cent quantiles of the draws, as columns of `LatentTable`.
    """
    per_draw = dict(zip(FLUX_COLUMNS, np.moveaxis(fluxes, 2, 0), strict=True))
    photons = {band: per_draw[f"photflux_{column(band)}"] for band in FLUX_BANDS}
    per_draw |= {name: hardness(photons[hard], photons[soft]) for name, (hard, soft) in HARDNESS_RATIOS.items()}
    lolim, median, hilim = quantiles(np.stack(list(per_draw.values())), axis=2)
    columns: dict[str, np.ndarray] = {}
    for i, name in enumerate(per_draw):
        columns |= {f"{name}_lolim": lolim[i], name: median[i], f"{name}_hilim": hilim[i]}
    log_flux = np.log10(per_draw["flux_b"])
    return columns | {"log_flux_b": log_flux.mean(axis=1), "log_flux_b_err": log_flux.std(axis=1)}


def quantiles(
    values: Float[np.ndarray, "*shape"], levels: tuple[float, ...] = LEVELS, axis: int = 0
) -> Float[np.ndarray, "n_levels *rest"]:
    """Quantiles of draws, between them the truth, another draw, lies as often as they say.

    Weibull's plotting positions: NumPy's own choice describes the sample, and is too narrow for the next draw.
    """
    return np.quantile(values, levels, axis=axis, method="weibull")
