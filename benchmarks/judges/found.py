"""What a model says of many spectra, in the arrays that judges compare with the truth."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Float

from embedding import flux_values
from judges.score_tests import gain_and_line
from xlatent.core.spectrum import Spectrum
from xlatent.infer.embed import LatentModel
from xlatent.infer.observation import prepare
from xlatent.infer.quantities import quantiles

CENTRAL = {68: (0.15865, 0.84135), 95: (0.025, 0.975)}
"""Levels of the limits of central intervals."""
_TOGETHER = 64


@dataclass(frozen=True, eq=False)
class Found:
    """Of ``n`` spectra, by the fast posterior.

    Attributes
    ----------
    values : array [n, n_draws, 9]
        Draws of six energy fluxes and three hardness ratios, in the order of `families.QUANTITIES`.
    photons : array [n, 3, n_energy]
        Median photon spectrum between its 68 % limits, photons cm⁻² s⁻¹ per bin of the model's grid; where it was
        asked for, else of no bins.
    z, covariance : arrays [n, latents], [n, latents, latents]
    statistic : array [n, 3]
        C or W, its expectation and its standard deviation.
    gain, line : arrays [n]
        `score_tests.gain_and_line`, where asked for, else NaN.
    flags : array of str [n]
    """

    values: Float[np.ndarray, "n n_draws 9"]
    photons: Float[np.ndarray, "n 3 n_energy"]
    z: Float[np.ndarray, "n latents"]
    covariance: Float[np.ndarray, "n latents latents"]
    statistic: Float[np.ndarray, "n 3"]
    gain: Float[np.ndarray, " n"]
    line: Float[np.ndarray, " n"]
    flags: np.ndarray

    @property
    def misfit(self) -> Float[np.ndarray, " n"]:
        """(statistic - expected) / sigma."""
        return (self.statistic[:, 0] - self.statistic[:, 1]) / self.statistic[:, 2]

    @property
    def median(self) -> Float[np.ndarray, "n 9"]:
        """Medians of the quantities."""
        return quantiles(self.values, (0.5,), axis=1)[0]

    def within(self, known: Float[np.ndarray, "n 9"], level: int) -> np.ndarray:
        """Whether central intervals of ``level`` per cent, a key of `CENTRAL`, hold what is known [n, 9]."""
        low, high = quantiles(self.values, CENTRAL[level], axis=1)
        return (known >= low) & (known <= high)

    def flagged(self, *flags: str) -> np.ndarray:
        """Which spectra carry any of the flags [n]."""
        return np.array([bool(set(flags) & set(said.split(","))) for said in self.flags])


def joined(parts: Sequence[Found]) -> Found:
    """Put spectra of several parts one after the other."""
    return Found(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(Found)))


def embedded(model: LatentModel, spectra: Sequence[Spectrum], *, closely: bool = False) -> Found:
    """Embed spectra; neighbours that share a response go through it together.

    ``closely`` asks for photon spectra and score tests, which take as long again.
    """
    parts = []
    for begin in range(0, len(spectra), _TOGETHER):
        some = list(spectra[begin : begin + _TOGETHER])
        n = len(some)
        observations = [prepare(s, model.projector) for s in some]
        fits = model._posterior(observations, True)
        described, draws, ess, _ = model._draw(observations, fits, "gaussian")
        columns = model._columns(some, observations, described, draws, ess)
        latents = fits.z.shape[1]
        photons, scores = np.empty((n, 3, 0)), np.full((n, 2), np.nan)
        if closely:
            photons = np.stack([quantiles(draws.photons(model._decoder, i)) for i in range(n)])
            scores = np.array([gain_and_line(some[i], observations[i], fits, i) for i in range(n)])
        parts.append(Found(
            flux_values(model._drawn_fluxes(draws, True)),
            photons,
            described.z,
            described.covariance[:, :latents, :latents],
            np.stack([fits.statistic, fits.expected, fits.sigma], axis=1),
            *scores.T,
            np.array(columns["flags"], dtype=object),
        ))  # fmt: skip
    return joined(parts)
