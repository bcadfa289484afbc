"""Fluxes, hardness ratios and spectra that follow from draws of the latents."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Float32
from scipy.special import stdtrit

from xlatent.core.bands import BANDS, FLUX_BANDS, HARDNESS_RATIOS, column_suffix, flux_weights, hardness
from xlatent.core.grid import ModelGrid
from xlatent.core.spectrum_flags import covers
from xlatent.infer.decoder_errors import LARGEST
from xlatent.infer.refine import Decoder, RefinedFits

N_DRAWS = 100
LEVELS = (0.15865, 0.5, 0.84135)  # the central 68 %
FLUX_COLUMNS = tuple(f"{kind}_{column_suffix(band)}" for kind in ("photflux", "flux") for band in FLUX_BANDS)
_PARTS = {"b": ("s", "m", "h"), "0.5-2": ("s", "m")}  # bands that narrower ones make up
_STEP = 0.05  # in z, of a derivative
# Draws are decoded where ln(flux) is known to this in any band, and where errors of the decoder, which are not linear
# then, are more than this share of the variance of any latent.
_KNOWN, _BEYOND = 0.02, 0.9
_DEGREES = 5.0  # of freedom of Student's t
_FARTHEST = 30.0  # of ln(photons), where single precision still holds the square
_AT_ONCE = 8  # spectra whose draws fit into a processor's cache


@dataclass(frozen=True, eq=False)
class Draws:
    """Draws from ``n`` posteriors, with errors of the decoder.

    Attributes
    ----------
    posterior : RefinedFits
    theta : array [n, n_draws, latents + 1]
        z and ln amplitude.
    errors : array [n_draws, k]
        What the posterior's ``error_modes``, which is in theta, and ``log_flux``, which is not, are multiplied by.
    """

    posterior: RefinedFits
    theta: Float[np.ndarray, "n n_draws latents_1"]
    errors: Float[np.ndarray, "n_draws k"]

    def photons(self, decoder: Decoder, i: int) -> Float[np.ndarray, "n_draws n_energy"]:
        """Photon spectra of the draws for spectrum ``i``, photons cm⁻² s⁻¹ per bin."""
        theta = self.theta[i].astype(np.float32)
        log_photons = self.errors.astype(np.float32) @ self.posterior.log_flux[i].astype(np.float32)
        np.clip(log_photons, -LARGEST, LARGEST, out=log_photons)
        log_photons += decoder._run(theta[:, :-1], np.empty((0, theta.shape[1] - 1)))[0]
        log_photons += theta[:, -1:]
        return np.exp(log_photons, out=log_photons)


def posterior_draws(
    posterior: RefinedFits, n: int = N_DRAWS, exact: Float[np.ndarray, "n n_draws latents_1"] | None = None
) -> Draws:
    """Draw z and ln amplitude from the Gaussian posterior, or exact ones, with errors of the decoder added.

    How wrong the decoder is differs from spectrum to spectrum, and its statistic says so only roughly: its errors are
    drawn from Student's t distribution, as wide as the Gaussian between its 68 % limits and heavier beyond. Draws are
    the same in every call, so that a table made twice is the same table; those of the Gaussian have its mean and its
    covariance exactly, so that a hundred give limits as good as two hundred independent ones (to 0.09 sigma).

    Parameters
    ----------
    posterior : RefinedFits
    n : int
        Number of draws, even.
    exact : array [n, n_draws, latents + 1], optional
        Draws without errors of the decoder (`xlatent.infer.sample`); their number stands for ``n``.
    """
    rng = np.random.default_rng(20251015)
    n = n if exact is None else exact.shape[1]
    k = posterior.statistical.shape[-1]
    normal = _standard_draws(rng, n, k)
    if exact is None:
        values, vectors = np.linalg.eigh(posterior.statistical)
        # This square root stands semi-definite matrices, as those of a point-like posterior.
        root = vectors * np.sqrt(np.maximum(values, 0.0))[:, None, :]
        centre = np.column_stack([posterior.z, posterior.log_amplitude])
        exact = normal @ root.transpose(0, 2, 1) + centre[:, None, :]
    heavy = np.sqrt(_DEGREES / rng.chisquare(_DEGREES, (n // 2, 1))) / stdtrit(_DEGREES, LEVELS[2])
    errors = _standard_draws(rng, n, posterior.error_modes.shape[-1]) * np.concatenate([heavy, heavy])
    theta = exact + errors @ posterior.error_modes.transpose(0, 2, 1)
    return Draws(posterior, theta, errors)


def _standard_draws(rng: np.random.Generator, n: int, k: int) -> Float[np.ndarray, "n k"]:
    """Draw from a normal distribution in ``k`` dimensions whose mean is 0 and whose covariance is 1 exactly."""
    half = rng.standard_normal((n // 2, k))
    if n // 2 > k:
        half = np.linalg.solve(np.linalg.cholesky(half.T @ half / len(half)), half.T).T
    return np.concatenate([half, -half])


def drawn_fluxes(
    decoder: Decoder, draws: Draws, grid: ModelGrid, head: Any | None = None
) -> Float[np.ndarray, "n n_draws n_fluxes"]:
    """Compute the band fluxes of draws, at the distances of `xlatent.core.bands.flux_weights`.

    Parameters
    ----------
    decoder : Decoder
    draws : Draws
    grid : ModelGrid
    head : onnxruntime.InferenceSession, optional
        Of ``fluxes.onnx``: ln(fluxes) from z at a hundredth of the cost and to about 1 %, for spectra whose fluxes are
        not known as well, and draws around the mode.

    Returns
    -------
    array [n, n_draws, n_fluxes]
        Photons cm⁻² s⁻¹, then erg cm⁻² s⁻¹, in `xlatent.core.bands.FLUX_BANDS`. In each draw b is the sum of s, m and
        h, and 0.5-2 that of s and m.
    """
    weights = flux_weights(grid.energy)
    if head is None:
        out = np.empty((*draws.theta.shape[:2], weights.shape[1]))
        known = np.ones(len(out), dtype=bool)
    else:
        out = _from_head(head, draws, weights.astype(np.float32))
        of_decoder = np.sum(draws.posterior.error_modes**2, axis=2) / np.var(draws.theta, axis=1)
        known = (np.log(out).std(axis=1).min(axis=1) < _KNOWN) | (of_decoder.max(axis=1) > _BEYOND)
    for i in np.flatnonzero(known).tolist():
        out[i] = draws.photons(decoder, i) @ weights
    return out


def _from_head(
    head: Any, draws: Draws, weights: Float32[np.ndarray, "n_energy n_fluxes"]
) -> Float[np.ndarray, "n n_draws n_fluxes"]:
    """Take the fluxes of the mode, decoded, and by how much the head says that each draw differs."""
    posterior, z = draws.posterior, draws.posterior.z
    n, n_draws, dim = draws.theta.shape
    errors, modes = draws.errors.astype(np.float32), posterior.error_modes.transpose(0, 2, 1).astype(np.float32)
    away = draws.theta - np.column_stack([z, posterior.log_amplitude])[:, None] - errors @ modes
    steps = _STEP * np.concatenate([np.zeros((1, dim - 1)), np.eye(dim - 1), -np.eye(dim - 1)])
    points = np.concatenate([np.broadcast_to(steps, (n, *steps.shape)), away[:, :, :-1]], axis=1) + z[:, None]
    logs = head.run(["log_fluxes"], {"z": points.reshape(-1, dim - 1).astype(np.float32)})[0]
    logs = logs.reshape(n, len(steps) + n_draws, -1)
    photons, jacobian = np.exp(posterior.decoded), posterior.jacobian
    # To first order the decoder itself says how fluxes change, and the head only what lies beyond.
    slopes = (photons[:, None] * jacobian) @ weights / (photons @ weights)[:, None]
    slopes -= (logs[:, 1:dim] - logs[:, dim : len(steps)]) / np.float32(2.0 * _STEP)
    change = logs[:, len(steps) :] - logs[:, :1] + away[:, :, :-1].astype(np.float32) @ slopes
    fluxes = np.exp(change + away[:, :, -1:] + posterior.log_amplitude[:, None, None])
    # Where the fit has followed an error, the two largely cancel in each bin: they belong in one exponential.
    followed = modes[:, :, :-1] @ jacobian + modes[:, :, -1:]
    shapes = posterior.log_flux.astype(np.float32)
    for first in range(0, n, _AT_ONCE):
        now = slice(first, first + _AT_ONCE)
        wrong = errors @ shapes[now]
        np.clip(wrong, -LARGEST, LARGEST, out=wrong)
        wrong += errors @ followed[now]
        np.clip(wrong, -_FARTHEST, _FARTHEST, out=wrong)
        np.exp(wrong, out=wrong)
        wrong *= photons[now, None]
        fluxes[now] *= wrong @ weights
    # The head makes each band by itself, to about 1 %: in every draw the whole is the sum of its parts.
    for whole, parts in _PARTS.items():
        for kind in (0, len(FLUX_BANDS)):  # photons, then energy
            members = [kind + FLUX_BANDS.index(band) for band in parts]
            fluxes[:, :, kind + FLUX_BANDS.index(whole)] = fluxes[:, :, members].sum(axis=2)
    return fluxes


def quantities(fluxes: Float[np.ndarray, "n n_draws n_fluxes"]) -> dict[str, Float[np.ndarray, " n"]]:
    """Summarise band fluxes and hardness ratios with the 68 % limits of their posterior, from `drawn_fluxes`.

    Medians and the 15.87 and 84.13 per cent quantiles of the draws, as columns of `LatentTable`.
    """
    per_draw = dict(zip(FLUX_COLUMNS, np.moveaxis(fluxes, 2, 0), strict=True))
    photons = {band: per_draw[f"photflux_{column_suffix(band)}"] for band in FLUX_BANDS}
    per_draw |= {name: hardness(photons[hard], photons[soft]) for name, (hard, soft) in HARDNESS_RATIOS.items()}
    lolim, median, hilim = quantiles(np.stack(list(per_draw.values())), axis=2)
    columns: dict[str, np.ndarray] = {}
    for i, name in enumerate(per_draw):
        columns |= {f"{name}_lolim": lolim[i], name: median[i], f"{name}_hilim": hilim[i]}
    log_flux = np.log10(per_draw["flux_b"])
    return columns | {"log_flux_b": log_flux.mean(axis=1), "log_flux_b_err": log_flux.std(axis=1)}


def uncovered(covered: tuple[float, float]) -> list[str]:
    """List the columns of `quantities` that a spectrum which covers only these energies, keV, says nothing of.

    Examples
    --------
    >>> uncovered((0.5, 8.0)), uncovered((3.0, 8.0))[:3]
    ([], ['photflux_b', 'photflux_b_lolim', 'photflux_b_hilim'])
    """
    bands = {band for band in FLUX_BANDS if not covers(covered, BANDS[band])}
    suffixes = {column_suffix(band) for band in bands}
    names = [name for name in FLUX_COLUMNS if name.split("_", 1)[1] in suffixes]
    names += [name for name, pair in HARDNESS_RATIOS.items() if bands & set(pair)]
    columns = [name + end for name in names for end in ("", "_lolim", "_hilim")]
    return [*columns, "log_flux_b", "log_flux_b_err"] if "b" in bands else columns


def quantiles(
    values: Float[np.ndarray, " *shape"], levels: tuple[float, ...] = LEVELS, axis: int = 0
) -> Float[np.ndarray, " n_levels *rest"]:
    """Compute quantiles of draws, between them the truth, another draw, lies as often as they say.

    Weibull's plotting positions: NumPy's own choice describes the sample, and is too narrow for the next draw.
    """
    return np.quantile(values, levels, axis=axis, method="weibull")
