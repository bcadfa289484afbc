"""Fluxes, hardness ratios and spectra that follow from draws of the latents."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.special import stdtrit

from xlatent.bands import FLUX_BANDS, column, energy_flux, hardness_ratios, photon_flux
from xlatent.grid import ModelGrid
from xlatent.infer.model_error import LARGEST
from xlatent.infer.refine import Decoder, Posterior

N_DRAWS = 200
LEVELS = (0.15865, 0.5, 0.84135)  # the central 68 %
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
    log_flux : array [n, k, n_energy]
        That of the posterior.
    """

    theta: Float[np.ndarray, "n n_draws latents_1"]
    errors: Float[np.ndarray, "n n_draws k"]
    log_flux: Float[np.ndarray, "n k n_energy"]

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
    return Draws(theta, np.broadcast_to(errors, (len(theta), *errors.shape)), posterior.log_flux)


def quantities(decoder: Decoder, draws: Draws, grid: ModelGrid) -> dict[str, Float[np.ndarray, "n"]]:
    """Band fluxes and hardness ratios with the 68 % limits of their posterior.

    Medians and the 15.87 and 84.13 per cent quantiles of posterior draws, as columns of `LatentTable`.

    Parameters
    ----------
    decoder : Decoder
    draws : Draws
    grid : ModelGrid

    Returns
    -------
    dict of arrays [n]
    """
    rows = []
    for i in range(len(draws.theta)):
        spectra = draws.photons(decoder, i)
        drawn = {f"photflux_{column(band)}": photon_flux(spectra, grid.energy, band) for band in FLUX_BANDS}
        drawn |= {f"flux_{column(band)}": energy_flux(spectra, grid.energy, band) for band in FLUX_BANDS}
        drawn |= hardness_ratios(spectra, grid.energy)
        row = {}
        for name, values in drawn.items():
            row[f"{name}_lolim"], row[name], row[f"{name}_hilim"] = quantiles(values)
        log_flux = np.log10(drawn["flux_b"])
        row["log_flux_b"], row["log_flux_b_err"] = float(np.mean(log_flux)), float(np.std(log_flux))
        rows.append(row)
    return {name: np.array([row[name] for row in rows]) for name in (rows[0] if rows else {})}


def quantiles(
    values: Float[np.ndarray, "*shape"], levels: tuple[float, ...] = LEVELS, axis: int = 0
) -> Float[np.ndarray, "n_levels *rest"]:
    """Quantiles of draws, between them the truth, another draw, lies as often as they say.

    Weibull's plotting positions: NumPy's own choice describes the sample, and is too narrow for the next draw.
    """
    return np.quantile(values, levels, axis=axis, method="weibull")
