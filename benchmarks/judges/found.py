"""What a model says of many spectra, in the arrays that judges compare with the truth."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Float

from embedding import flux_limits
from judges.misfit_scores import gain_score
from xlatent.core.spectrum import Spectrum
from xlatent.infer.embed import LatentModel
from xlatent.infer.observation import prepare
from xlatent.infer.quantities import LEVELS, quantiles

LIMITS = (0.025, *LEVELS, 0.975)  # of the central 95 and 68 %, and the median
_TOGETHER = 64


@dataclass(frozen=True, eq=False)
class Found:
    """Of ``n`` spectra, from the posterior that is the fast one.

    Attributes
    ----------
    limits : array [n, 9, 5]
        Quantiles at `LIMITS` of six energy fluxes and three hardness ratios, in the order of `families.truth`.
    photons : array [n, 3, n_energy]
        Median photon spectrum between its 68 % limits, photons cm⁻² s⁻¹ per bin of the model's grid.
    z, covariance : arrays [n, latents], [n, latents, latents]
    misfit : array [n]
        (statistic - expected) / sigma.
    gain : array [n]
        `misfit_scores.gain_score`.
    flags : array of str [n]
    """

    limits: Float[np.ndarray, "n 9 5"]
    photons: Float[np.ndarray, "n 3 n_energy"]
    z: Float[np.ndarray, "n latents"]
    covariance: Float[np.ndarray, "n latents latents"]
    misfit: Float[np.ndarray, " n"]
    gain: Float[np.ndarray, " n"]
    flags: np.ndarray

    def __getitem__(self, chosen: np.ndarray | slice) -> "Found":
        """Return some of the spectra."""
        return Found(**{f.name: getattr(self, f.name)[chosen] for f in fields(self)})

    def flagged(self, flag: str) -> np.ndarray:
        """Which spectra carry a flag."""
        return np.array([flag in flags.split(",") for flags in self.flags])


def embedded(model: LatentModel, spectra: Sequence[Spectrum]) -> Found:
    """Embed spectra; neighbours that share a response go through it together."""
    parts = []
    for begin in range(0, len(spectra), _TOGETHER):
        some = list(spectra[begin : begin + _TOGETHER])
        observations = [prepare(s, model.projector) for s in some]
        fits = model._posterior(observations, True)
        described, draws, ess, _ = model._draw(observations, fits, "gaussian")
        columns = model._columns(some, observations, described, draws, ess)
        latents = fits.z.shape[1]
        parts.append((
            flux_limits(model._drawn_fluxes(draws, True), LIMITS),
            np.stack([quantiles(draws.photons(model._decoder, i)) for i in range(len(some))]),
            described.z,
            described.covariance[:, :latents, :latents],
            (fits.statistic - fits.expected) / fits.sigma,
            np.array([gain_score(some[i], o, fits, i) for i, o in enumerate(observations)]),
            np.array(columns["flags"], dtype=object),
        ))  # fmt: skip
    return Found(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
