"""Errors of the decoder: what eight numbers leave of a spectrum, how large that is in a given one, what it moves."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32

from xlatent.core.atomic import atomic

FILE = "model_errors.npz"
LARGEST = 2.0  # of ln(photons per bin): beyond lies what no counts of the spectrum say
_FLOOR = 1e-5  # share of the counts below which a bin's error grows no further
_STEPS = np.linspace(-3.0, 3.0, 25)  # standard deviations of ln(size)
_TINY = 1e-9


@dataclass(frozen=True, eq=False)
class ModelErrors:
    """The population of a decoder's errors, found at export on simulated spectra (`xlatent.infer.calibrate`).

    The true spectrum is the decoded one times exp(τ Σ bₖ eₖ), with bₖ from N(0, 1) and a size τ² that is log-normal
    over the population: power laws are drawn almost exactly, line-rich plasmas are not. Errors are large where a
    spectrum has few counts, as there nothing taught the decoder: eₖ = shapesₖ / (share of the counts)^½.

    Attributes
    ----------
    shapes : array [k, n_energy]
        Principal components on the intrinsic grid.
    typical : float
        Median of τ².
    spread : float
        Standard deviation of ln τ².
    largest : float
        By how many times what errors of size one would add to the statistic errors do add, in all but one spectrum
        of 100. The shapes do not hold narrow errors, so that this says more than the sizes.
    """

    shapes: Float32[np.ndarray, "k n_energy"]
    typical: float
    spread: float
    largest: float

    @classmethod
    def load(cls, path: Path) -> "ModelErrors":
        """Read the file of a bundle."""
        with np.load(path, allow_pickle=False) as found:
            numbers = {name: float(found[name]) for name in ("typical", "spread", "largest")}
            return cls(found["shapes"], **numbers)

    def save(self, path: Path) -> None:
        """Write the file of a bundle, whole or not at all.

        Raises
        ------
        WriteError
            If it cannot be written.
        """
        with atomic(path) as temporary:
            np.savez(temporary, shapes=self.shapes, typical=self.typical, spread=self.spread, largest=self.largest)

    @cached_property
    def _sizes(self) -> Float[np.ndarray, " steps"]:
        return self.typical * np.exp(self.spread * _STEPS)

    def size(
        self,
        excess: Float[np.ndarray, " n"],
        sigma: Float[np.ndarray, " n"],
        mean: Float[np.ndarray, " n"],
        variance: Float[np.ndarray, " n"],
    ) -> Float[np.ndarray, " n"]:
        """Estimate τ², by its posterior mean, from by how much the statistic exceeds its expected value.

        Parameters
        ----------
        excess, sigma : arrays [n]
            Statistic minus its expected value, and the standard deviation that it has by itself.
        mean, variance : arrays [n]
            Of the excess that errors of size one would make; both are proportional to powers of τ².
        """
        t = self._sizes
        spread = (sigma**2)[:, None] + t**2 * variance[:, None]
        log_p = -0.5 * ((excess[:, None] - t * mean[:, None]) ** 2 / spread + np.log(spread) + _STEPS**2)
        p = np.exp(log_p - log_p.max(axis=1, keepdims=True))
        return p @ t / p.sum(axis=1)


def weight(counts: Float[np.ndarray, "*n n_energy"]) -> Float[np.ndarray, "*n n_energy"]:
    """Compute by how much errors of ln(photons) are larger than those of evenly spread counts would be.

    Parameters
    ----------
    counts : array [..., n_energy]
        Counts that the photons of each intrinsic bin give.
    """
    return 1.0 / np.sqrt(counts / counts.sum(axis=-1, keepdims=True) + _FLOOR)


@dataclass(frozen=True, eq=False)
class DecoderErrorShift:
    """What errors of the decoder do to ``n`` posteriors, for independent errors of unit variance.

    Attributes
    ----------
    theta : array [n, latents + 1, k]
        By which the fitted (z, ln amplitude) differ from those that the source has.
    log_flux : array [n, k, n_energy]
        What they add to ln(photons per bin) of the source.
    excess : array [n]
        By which the statistic may exceed its expected value for the decoder's sake, in all but one spectrum of 100.
    """

    theta: Float[np.ndarray, "n latents_1 k"]
    log_flux: Float[np.ndarray, "n k n_energy"]
    excess: Float[np.ndarray, " n"]


def propagate_decoder_errors(
    errors: ModelErrors,
    shapes: Float[np.ndarray, "n k n_energy"],
    changes: Float[np.ndarray, "n k n_selected"],
    slopes: Float[np.ndarray, "n latents_1 n_selected"],
    variance: Float[np.ndarray, "n n_selected"],
    precision: Float[np.ndarray, " latents_1"],
    excess: Float[np.ndarray, " n"],
    sigma: Float[np.ndarray, " n"],
) -> DecoderErrorShift:
    """Propagate errors of the decoder into the fits of spectra.

    The fit minimises a statistic that knows nothing of such errors, so that each shifts it as data would that were
    wrong by as much: with J the slopes, V the variance of the counts, P the prior's precision and D the change of the
    counts, by -(JᵀV⁻¹J + P)⁻¹ JᵀV⁻¹D b. This is the "sandwich" covariance of a misspecified model (White 1982,
    Econometrica 50, 1), seen from the error's side. What the prior says against a shift it says against the error.

    Parameters
    ----------
    errors : ModelErrors
    shapes : array [n, k, n_energy]
        ``errors.shapes`` times the `weight` of each spectrum.
    changes : array [n, k, n_selected]
        What they change in the expected counts.
    slopes, variance : arrays [n, latents + 1, n_selected], [n, n_selected]
        Of the expected counts at the fit.
    precision : array [latents + 1]
        Of the prior.
    excess, sigma : arrays [n]
        As in `ModelErrors.size`.

    Returns
    -------
    Moved
    """
    whitened = (slopes / variance[:, None]).transpose(0, 2, 1)
    exact = slopes.astype(np.float64)  # single precision rounds off the prior's share in bright spectra
    information = (exact / variance[:, None]) @ exact.transpose(0, 2, 1)
    cross = (changes @ whitened).transpose(0, 2, 1).astype(np.float64)
    fitted = np.linalg.inv(information + np.diag(precision))
    shift = fitted @ cross
    # What of the errors the fit cannot take up is what the statistic sees.
    unfitted = ((changes / variance[:, None]) @ changes.transpose(0, 2, 1)).astype(np.float64)
    seen = unfitted - cross.transpose(0, 2, 1) @ shift
    mean = np.trace(seen, axis1=1, axis2=2)
    size = errors.size(excess, sigma, mean, 2.0 * np.sum(seen**2, axis=(1, 2)))
    free = np.linalg.inv(information + _TINY * np.eye(len(precision)))
    root = _root(cross, (free * precision) @ fitted, size)  # the difference of the two without loss
    return DecoderErrorShift(-shift @ root, root.astype(shapes.dtype) @ shapes, errors.largest * mean)


def _root(
    cross: Float[np.ndarray, "n latents_1 k"], against: Float[np.ndarray, "n latents_1 latents_1"], size: np.ndarray
) -> Float[np.ndarray, "n k k"]:
    """Symmetric square root of (1/size + crossᵀ against cross)⁻¹, by matrices that are not as large."""
    values, vectors = np.linalg.eigh(0.5 * (against + against.transpose(0, 2, 1)))
    half = (vectors * np.sqrt(np.maximum(values, 0.0))[:, None]).transpose(0, 2, 1) @ cross
    values, vectors = np.linalg.eigh(half @ half.transpose(0, 2, 1))
    values = np.maximum(values, _TINY)
    less = (1.0 - 1.0 / np.sqrt(1.0 + size[:, None] * values)) / values
    along = vectors.transpose(0, 2, 1) @ half
    root = np.eye(cross.shape[2]) - along.transpose(0, 2, 1) @ (less[:, :, None] * along)
    return np.sqrt(size)[:, None, None] * root
