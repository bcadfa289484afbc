"""Where else a fit may start: of spectra drawn from the prior, those that the counts like best."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32

from xlatent.infer.observation import Observation

_SEED = 20261128
_DRAWS = 1024  # with eight times as many the first is right in 0.75 instead of 0.65 of the spectra that need one
_COUNT_FLOOR = 1e-9  # counts in every detector bin, so that no count is impossible


@dataclass(frozen=True, eq=False)
class PriorSpectra:
    """Spectra drawn from the prior of a decoder, kept to be compared with counts.

    Attributes
    ----------
    z : array [k, latents]
    photons : array [k, n_energy]
        Photons per bin of the intrinsic grid, of any amplitude.
    """

    z: Float[np.ndarray, "k latents"]
    photons: Float32[np.ndarray, "k n_energy"]

    @classmethod
    def draw(cls, log_flux: Callable[[np.ndarray], np.ndarray], latents: int) -> "PriorSpectra":
        """Draw the same 1,024 of a decoder every time.

        Parameters
        ----------
        log_flux : callable
            From z [k, latents] to ln(photons per bin) [k, n_energy].
        latents : int
        """
        z = np.random.default_rng(_SEED).standard_normal((_DRAWS, latents))
        return cls(z, np.exp(log_flux(z)).astype(np.float32))

    def likeliest(self, observations: list[Observation], n: int) -> Float[np.ndarray, "m n latents"]:
        """Find for each of ``m`` spectra the ``n`` draws with the largest posterior density, the largest first.

        Counts are compared in detector bins, with the amplitude that the net counts ask for, the measured background
        smoothed: near enough to tell the basin of one minimum from that of another.

        Parameters
        ----------
        observations : list of Observation
        n : int
            At most the number of draws.
        """
        found = np.empty((len(observations), n, self.z.shape[1]))
        shapes: dict[int, Float32[np.ndarray, "k n_chan"]] = {}
        against = 0.5 * np.sum(self.z**2, axis=1)
        for i, o in enumerate(observations):
            if id(o.on_grid) not in shapes:
                folded = self.photons @ o.on_grid
                shapes = {id(o.on_grid): folded / folded.sum(axis=1, keepdims=True)}  # neighbours share one
            counts = o.features["counts"]
            behind = np.bincount(o.bins, o.alpha * o.mean_off, len(counts) + 1)[1:]
            net = max(float(counts.sum() - behind.sum()), 1.0)
            expected = np.float32(net) * shapes[id(o.on_grid)] + (behind + _COUNT_FLOOR).astype(np.float32)
            value = np.log(expected) @ counts.astype(np.float32) - against
            found[i] = self.z[np.argsort(-value)[:n]]
        return found
