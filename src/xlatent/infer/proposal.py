"""A learnt density close to the exact posterior: where it begins around the refined mode, and draws from it.

Draws are made and judged in whitened coordinates: those of `xlatent.infer.density.ExactDensity` minus their mode, in
units of the Gaussian posterior. What makes a posterior differ from its Gaussian there is told to a network
(``proposal.onnx``) by the exact density itself, at points around the mode, and by what the spectrum is like. The
network answers with the coefficients of two triangular maps that turn normal variates into draws (normalising flows:
Papamakarios et al. 2021, JMLR 22, 57).
"""

from dataclasses import dataclass
from functools import cache
from itertools import combinations

import numpy as np
from jaxtyping import Float, Float32, Int

from xlatent.infer.density import ExactDensity
from xlatent.infer.observation import Observation
from xlatent.infer.refine import RefinedFits, net_counts

PROPOSAL = "proposal.onnx"
"""Of a bundle: ``context`` [n, n_context] to ``coefficients`` [n, n_coefficients]."""

LAYERS = 2
BEND = 4.0
"""Standard deviations over which a coordinate bends the others; beyond, it hardly bends them more."""

SQUEEZE = 2.0
"""Largest logarithm of the width of a coordinate given the others, in units of the Gaussian's."""

_ALONG, _ACROSS = 1.5, 1.2  # standard deviations of probes along an axis, and along each of two axes


@dataclass(frozen=True, eq=False)
class Frame:
    """The Gaussian posterior of one spectrum in (z, ln counts).

    Attributes
    ----------
    centre : array [latents + 1]
    root : array [latents + 1, latents + 1]
        Cholesky factor of the covariance.
    """

    centre: Float[np.ndarray, " dim"]
    root: Float[np.ndarray, "dim dim"]

    @classmethod
    def of(cls, density: ExactDensity, fits: RefinedFits, i: int) -> "Frame":
        """Turn the refined posterior of (z, ln amplitude) of spectrum ``i`` into one of (z, ln counts)."""
        seen = np.exp(fits.decoded[i]).astype(np.float64) * density.area
        total = seen.sum()
        turn = np.eye(fits.z.shape[1] + 1)
        turn[-1, :-1] = fits.jacobian[i] @ seen / total
        centre = np.append(fits.z[i], np.log(total) + fits.log_amplitude[i])
        return cls(centre, np.linalg.cholesky(turn @ fits.statistical[i] @ turn.T))

    def points(self, white: Float[np.ndarray, "m dim"]) -> Float[np.ndarray, "m dim"]:
        """Turn whitened coordinates into (z, ln counts)."""
        return self.centre + white @ self.root.T

    def whitened(self, points: Float[np.ndarray, "m dim"]) -> Float[np.ndarray, "m dim"]:
        """Turn (z, ln counts) into whitened coordinates."""
        return np.linalg.solve(self.root, (points - self.centre).T).T


def context(frame: Frame, density: ExactDensity, observation: Observation) -> Float32[np.ndarray, " n_context"]:
    """Describe a spectrum and its posterior to the network.

    Parameters
    ----------
    frame : Frame
    density : ExactDensity
    observation : Observation

    Returns
    -------
    array [n_context]
        Mode, logarithms of the widths and the rest of the whitening; logarithms of counts, of their background and of
        what its measurement adds to the noise; by how much half the objective differs from a parabola at points on
        either side of the mode, even and odd parts, along each axis and between each two.
    """
    dim = len(frame.centre)
    white = probes(dim)
    log_density, _ = density(frame.points(white))
    pairs = (log_density[0] - log_density[1:] - 0.5 * np.sum(white[1:] ** 2, axis=1)).reshape(-1, 2)
    differences = 0.5 * np.concatenate([pairs[:, 0] + pairs[:, 1], pairs[:, 0] - pairs[:, 1]])
    o = observation
    noise = float(np.sum(o.alpha * o.n_off))
    more = float(np.sum(o.alpha**2 * o.mean_off / o.averaged))
    widths = np.diagonal(frame.root)
    rest = (frame.root / widths[:, None])[np.tril_indices(dim, -1)]
    numbers = np.log([net_counts(o), 1.0 + noise, 1.0 + more])
    return np.concatenate([
        frame.centre, np.log(widths), np.arcsinh(rest), numbers, np.arcsinh(differences),
    ]).astype(np.float32)  # fmt: skip


@cache
def probes(dim: int) -> Float[np.ndarray, "m dim"]:
    """Give the mode, and points around it where the density is asked for: one and its opposite, by turns."""
    unit = np.eye(dim)
    steps = [_ALONG * axis for axis in unit]
    for i, j in combinations(range(dim), 2):
        steps += [_ACROSS * (unit[i] + unit[j]), _ACROSS * (unit[i] - unit[j])]
    return np.concatenate([np.zeros((1, dim)), np.stack([np.stack(steps), -np.stack(steps)], axis=1).reshape(-1, dim)])


def n_terms(i: int) -> int:
    """Count the terms of a polynomial of second degree in ``i`` coordinates."""
    return (i + 1) * (i + 2) // 2


@cache
def places(dim: int) -> tuple[Int[np.ndarray, " k"], Int[np.ndarray, " l"]]:
    """List which terms a shift and a width have, as places in arrays [dim, n_terms(dim - 1)] laid out as one.

    A shift has all terms in the coordinates before its own, a width those without products of two of them.
    """
    shifts, widths = [], []
    for i in range(dim):
        alone = [0, *(n_terms(k) + step for k in range(i) for step in (0, k + 1))]
        shifts += [i * n_terms(dim - 1) + term for term in range(n_terms(i))]
        widths += [i * n_terms(dim - 1) + term for term in alone]
    return np.array(shifts), np.array(widths)


def n_coefficients(dim: int) -> int:
    """Count what the network answers with: shifts and widths of each coordinate in each map, asymmetry and tails."""
    return LAYERS * (sum(map(len, places(dim))) + 2 * dim)


class TriangularMaps:
    """A density in whitened coordinates made of normal variates by maps in which each coordinate follows the former.

    In a map, coordinate i is ``shift + exp(width) * sinh((arcsinh(v) + asymmetry) / tail)`` of a variate v, with shift
    and width polynomials of second degree (`places`) in the coordinates before it (the hyperbolic functions: Jones and
    Pewsey 2009, Biometrika 96, 761). The second map runs through the coordinates in reverse.

    Parameters
    ----------
    coefficients : array [n_coefficients]
    dim : int
    """

    def __init__(self, coefficients: Float[np.ndarray, " k"], dim: int) -> None:
        self._dim = dim
        self._layers = [self._parsed(part) for part in np.split(coefficients.astype(np.float64), LAYERS)]

    def _parsed(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Polynomials of shift and width [dim, 2, terms], filled up with zeros; asymmetry; tail."""
        used = places(self._dim)
        ends = np.cumsum([*map(len, used), self._dim])
        *polynomials, asymmetry, tail = np.split(numbers, ends)
        padded = np.zeros((2, self._dim * n_terms(self._dim - 1)))
        for whole, where, some in zip(padded, used, polynomials, strict=True):
            whole[where] = some
        return padded.reshape(2, self._dim, -1).transpose(1, 0, 2), asymmetry[:, None], np.exp(tail)[:, None]

    def transform(
        self, normal: Float[np.ndarray, "m dim"]
    ) -> tuple[Float[np.ndarray, "m dim"], Float[np.ndarray, " m"]]:
        """Turn standard normal variates into draws, and give the ln of their density."""
        x = normal.T
        log_density = -0.5 * np.sum(x**2, axis=0) - 0.5 * self._dim * np.log(2.0 * np.pi)
        for polynomials, asymmetry, tail in reversed(self._layers):
            x = x[::-1]
            stretched = (np.arcsinh(x) + asymmetry) / tail
            out = np.sinh(stretched)
            log_density += 0.5 * np.log1p(x**2).sum(axis=0) - np.log(np.cosh(stretched) / tail).sum(axis=0)
            terms = np.ones((polynomials.shape[2], x.shape[1]))
            for i in range(self._dim):
                shift, width = polynomials[i, :, : n_terms(i)] @ terms[: n_terms(i)]
                width = SQUEEZE * np.tanh(width / SQUEEZE)
                out[i] = shift + np.exp(width) * out[i]
                log_density -= width
                if i < self._dim - 1:
                    _add_terms(terms, i, out[i])
            x = out
        return x.T, log_density

    def log_density(self, white: Float[np.ndarray, "m dim"]) -> Float[np.ndarray, " m"]:
        """Evaluate the ln of the density of draws."""
        x = white.T
        log_density = np.full(len(white), -0.5 * self._dim * np.log(2.0 * np.pi))
        for polynomials, asymmetry, tail in self._layers:
            terms = np.ones((polynomials.shape[2], x.shape[1]))
            for i in range(self._dim - 1):
                _add_terms(terms, i, x[i])
            shift, width = np.moveaxis(polynomials @ terms, 1, 0)
            width = SQUEEZE * np.tanh(width / SQUEEZE)
            scaled = (x - shift) * np.exp(-width)
            out = np.sinh(tail * np.arcsinh(scaled) - asymmetry)
            log_density += np.sum(0.5 * np.log1p(out**2) - 0.5 * np.log1p(scaled**2) + np.log(tail) - width, axis=0)
            x = out[::-1]
        return log_density - 0.5 * np.sum(x**2, axis=0)


def _add_terms(terms: Float[np.ndarray, "k m"], i: int, x: Float[np.ndarray, " m"]) -> None:
    """Write the terms of a polynomial that coordinate ``i`` adds: itself, bent, and its products with those so far."""
    first = n_terms(i)
    terms[first] = BEND * np.tanh(x / BEND)
    terms[first + 1 : first + 1 + i] = terms[[n_terms(k) for k in range(i)]] * terms[first]
    terms[first + 1 + i] = terms[first] ** 2
