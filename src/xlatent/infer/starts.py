"""Where else a fit may start: of spectra drawn from the prior, those that the counts like best."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32

from xlatent.infer.observation import Observation

_SEED = 20261128
_DRAWS = 1024
_APART = 3.0  # distance in z; two draws of the prior are four apart
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

    def likeliest(
        self, observations: list[Observation], found: Float[np.ndarray, "m latents"], n: int
    ) -> Float[np.ndarray, "m n latents"]:
        """Choose for each of ``m`` spectra ``n`` draws, the largest posterior density first, far from where it is.

        Draws close to a place that was found, or to one another, lead to the same minimum. Counts are compared in
        detector bins, with the amplitude that the net counts ask for and the measured background smoothed: near enough
        to tell the basin of one minimum from that of another.

        Parameters
        ----------
        observations : list of Observation
        found : array [m, latents]
            Where a fit of each has ended.
        n : int
            At most the number of draws.
        """
        starts = np.empty((len(observations), n, self.z.shape[1]))
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
            starts[i] = self.z[self._far_apart(value, found[i], n)]
        return starts

    def _far_apart(self, value: Float[np.ndarray, " k"], found: Float[np.ndarray, " latents"], n: int) -> list[int]:
        """Choose draws by falling value, each far from the place found and from those chosen while there are such."""
        chosen: list[int] = []
        far = self._far_from(found)
        for _ in range(n):
            free = np.where(far, value, -np.inf) if far.any() else value.copy()
            free[chosen] = -np.inf
            chosen.append(int(np.argmax(free)))
            far &= self._far_from(self.z[chosen[-1]])
        return chosen

    def _far_from(self, place: Float[np.ndarray, " latents"]) -> Bool[np.ndarray, " k"]:
        return np.sum((self.z - place) ** 2, axis=1) > _APART**2
