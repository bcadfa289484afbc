"""Fluxes, hardness ratios and spectra that follow from a posterior of the latents."""

import numpy as np
from jaxtyping import Float

from xlatent.bands import energy_flux, hardness_ratios, photon_flux
from xlatent.grid import ModelGrid
from xlatent.infer.refine import Decoder, Posterior

N_DRAWS = 200
_LEVELS = (0.15865, 0.5, 0.84135)  # the central 68 %
_CSC_BANDS = ("b", "s", "m", "h")


def draw_photons(
    decoder: Decoder, posterior: Posterior, row: int, n: int = N_DRAWS
) -> Float[np.ndarray, "n_draws n_energy"]:
    """Photon spectra drawn from the posterior of one spectrum, photons cm⁻² s⁻¹ per bin.

    Draws are the same in every call, so that a table made twice is the same table; they come in antithetic pairs,
    which makes their mean that of the Gaussian.
    """
    rng = np.random.default_rng(20251015)
    k = posterior.covariance.shape[-1]
    half = rng.standard_normal((n // 2, k))
    normal = np.concatenate([half, -half])
    theta = normal @ _root(posterior.covariance[row]).T
    theta += np.append(posterior.z[row], posterior.log_amplitude[row])
    log_flux = decoder.log_flux(theta[:, :-1])
    return np.exp(log_flux + theta[:, -1:])


def _root(covariance: Float[np.ndarray, "k k"]) -> Float[np.ndarray, "k k"]:
    """Matrix square root that stands semi-definite matrices, as those of a point-like posterior."""
    values, vectors = np.linalg.eigh(covariance)
    return vectors * np.sqrt(np.maximum(values, 0.0))


def quantities(decoder: Decoder, posterior: Posterior, grid: ModelGrid) -> dict[str, Float[np.ndarray, "n"]]:
    """Band fluxes and hardness ratios of the CSC bands with the 68 % limits of their posterior.

    Medians and the 15.87 and 84.13 per cent quantiles of posterior draws, as columns of `LatentTable`.

    Parameters
    ----------
    decoder : Decoder
    posterior : Posterior
    grid : ModelGrid

    Returns
    -------
    dict of arrays [n]
    """
    rows = []
    for i in range(len(posterior.z)):
        photons = draw_photons(decoder, posterior, i)
        drawn = {f"photflux_{band}": photon_flux(photons, grid.energy, band) for band in _CSC_BANDS}
        drawn |= {f"flux_{band}": energy_flux(photons, grid.energy, band) for band in _CSC_BANDS}
        drawn |= hardness_ratios(photons, grid.energy)
        row = {}
        for name, values in drawn.items():
            row[f"{name}_lolim"], row[name], row[f"{name}_hilim"] = np.quantile(values, _LEVELS)
        log_flux = np.log10(drawn["flux_b"])
        row["log_flux_b"], row["log_flux_b_err"] = float(np.mean(log_flux)), float(np.std(log_flux))
        rows.append(row)
    return {name: np.array([row[name] for row in rows]) for name in (rows[0] if rows else {})}
