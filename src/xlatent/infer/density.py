"""The exact posterior of one spectrum at many points: what draws are weighted with."""

from typing import Any

import numpy as np
from jaxtyping import Float

from xlatent.infer.observation import Observation
from xlatent.infer.refine import AMPLITUDE_WIDTH, COUNT_FLOOR, Decoder, averaged_background, net_counts

_AT_ONCE = 128  # points whose channels fit into a processor's cache
_SINGLE = 3e5  # counts up to which rounding in single precision stays below a tenth in the ln of the density
_LEAST_SCALE = 1e-6  # of a background, below which it is as good as none
_TINY = 1e-30  # so that the ratio of nothing to nothing is one


class ExactDensity:
    """Density of (z, ln counts) given the counts of one spectrum, "counts" being those expected of the source.

    It is the density of (z, ln amplitude) whose mode refinement finds (`xlatent.infer.refine.objective`), in
    coordinates that hardly depend on each other: counts fix the sum of the expected ones, whatever the shape of the
    spectrum is. Of spectra that are not too bright it is computed in single precision.

    Channels without counts lower the likelihood by the source counts expected in them and by nothing else, with and
    without a background, so that all of them take part as one.

    Parameters
    ----------
    decoder : Decoder
    observation : Observation
    latents : int
    """

    def __init__(self, decoder: Decoder, observation: Observation, latents: int) -> None:
        o = observation
        self._decoder = decoder
        seen = np.flatnonzero(o.n_on > 0)
        kind: Any = np.float32 if o.n_on.sum() < _SINGLE else np.float64
        self.area = o.area.sum(axis=1, dtype=kind) * kind(o.exposure)
        self._area = np.column_stack([o.area[:, seen] * kind(o.exposure), self.area])
        self._n_on = o.n_on[seen].astype(kind)
        self._background = None
        if o.has_background:
            off, alpha = (part[seen].astype(kind) for part in averaged_background(o))
            self._background = _Background(self._n_on, off, np.maximum(alpha, kind(_LEAST_SCALE)))
        typical = np.exp(decoder.log_flux(np.zeros((1, latents)))[0])
        self._amplitude_centre = np.log(net_counts(o) / float(typical @ self.area))

    def __call__(
        self, points: Float[np.ndarray, "m latents_1"]
    ) -> tuple[Float[np.ndarray, " m"], Float[np.ndarray, " m"]]:
        """Compute the ln of the density up to a constant, and ln(amplitude).

        Parameters
        ----------
        points : array [m, latents + 1]
            z, and the ln of the expected source counts.

        Returns
        -------
        log_density, log_amplitude : arrays [m]
        """
        log_density, log_amplitude = np.empty(len(points)), np.empty(len(points))
        for begin in range(0, len(points), _AT_ONCE):
            now = slice(begin, begin + _AT_ONCE)
            z, log_counts = points[now, :-1], points[now, -1]
            log_flux, _ = self._decoder._run(z, np.empty((0, z.shape[1])))
            folded = np.exp(log_flux, dtype=self._area.dtype) @ self._area
            log_amplitude[now] = log_counts - np.log(folded[:, -1])
            amplitude = np.exp(log_amplitude[now, None]).astype(folded.dtype)
            source = folded[:, :-1] * amplitude + COUNT_FLOOR
            prior = np.sum(z**2, axis=1) + ((log_amplitude[now] - self._amplitude_centre) / AMPLITUDE_WIDTH) ** 2
            log_density[now] = self._log_likelihood(source) - np.exp(log_counts) - 0.5 * prior
        return log_density, log_amplitude

    def _log_likelihood(self, source: Float[np.ndarray, "m n_seen"]) -> Float[np.ndarray, " m"]:
        """Half the statistic, its sign turned, of the channels with counts, but for the source's own counts."""
        if self._background is not None:
            return self._background.log_likelihood(source)
        return np.sum(self._n_on * np.log(source / self._n_on), axis=1, dtype=float)


class _Background:
    """The part of the W statistic that a background adds, with what does not change from point to point."""

    def __init__(self, n_on: Any, off: Any, alpha: Any) -> None:
        self._n_on, self._off, self._alpha = n_on, off, alpha
        # The background that is most likely is h + (h² + k source)^½ with h = constant - slope source: the larger root
        # in xlatent.core.statistics.wstat_background.
        self._constant, self._slope = 0.5 * (n_on + off) / (1.0 + alpha), 0.5 / alpha
        self._k = off / (alpha * (1.0 + alpha))
        self._per_on, self._per_off = 1.0 / n_on, 1.0 / (off + _TINY)

    def log_likelihood(self, source: Float[np.ndarray, "m n_seen"]) -> Float[np.ndarray, " m"]:
        """As `ExactDensity` wants it; in place, as arrays that are written once take longer than their arithmetic."""
        h = self._constant - self._slope * source
        product = self._k * source
        background = h * h
        background += product
        np.sqrt(background, out=background)
        background += np.abs(h)
        np.divide(product, background, out=background, where=h < 0)  # the same root, without cancellation
        value = self._alpha * background
        value += source
        value *= self._per_on
        np.log(value, out=value)
        value *= self._n_on
        ratio = background + _TINY
        ratio *= self._per_off
        np.log(ratio, out=ratio)
        ratio *= self._off
        value += ratio
        background *= 1.0 + self._alpha
        value -= background
        return np.sum(value, axis=1, dtype=float)
