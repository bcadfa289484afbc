"""What importance samplers share: Student's t proposals, weights, their effective number, and equal draws from them."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.special import gammaln

DOF = 5.0
"""Degrees of freedom of every proposal: tails heavier than those of any likelihood."""


def student_log_density(distance: Float[np.ndarray, " *n"], dim: int) -> Float[np.ndarray, " *n"]:
    """Evaluate the ln density of Student's t distribution of unit scale with `DOF` degrees of freedom.

    Parameters
    ----------
    distance : array [...]
        Squared distances from the centre.
    dim : int
        Number of dimensions.

    Examples
    --------
    >>> student_log_density(np.array([0.0, 4.0]), 1).round(3)
    array([-0.969, -2.732])
    """
    norm = gammaln((DOF + dim) / 2.0) - gammaln(DOF / 2.0) - 0.5 * dim * np.log(DOF * np.pi)
    return np.asarray(norm - 0.5 * (DOF + dim) * np.log1p(distance / DOF))


def student_stretch(rng: np.random.Generator, n: int) -> Float[np.ndarray, "n 1"]:
    """Draw the factors that make Student's t variates with `DOF` degrees of freedom of normal ones [n, dim]."""
    return np.sqrt(DOF / rng.chisquare(DOF, (n, 1)))


@dataclass(frozen=True, eq=False)
class StudentComponents:
    """Several multivariate Student's t distributions.

    Attributes
    ----------
    means : array [k, dim]
    roots : array [k, dim, dim]
        Cholesky factors of the scale matrices.
    """

    means: Float[np.ndarray, "k dim"]
    roots: Float[np.ndarray, "k dim dim"]

    def log_densities(self, theta: Float[np.ndarray, "n dim"]) -> tuple[Float[np.ndarray, "k n"], ...]:
        """Evaluate the ln density of each component, and the squared distance from it in its own scale [k, n]."""
        white = zip(self.means, np.linalg.inv(self.roots), strict=True)
        distance = np.stack([np.sum(((theta - mean) @ inverse.T) ** 2, axis=1) for mean, inverse in white])
        scale = np.log(np.diagonal(self.roots, axis1=1, axis2=2)).sum(axis=1)
        return student_log_density(distance, theta.shape[1]) - scale[:, None], distance


def effective_number(weights: Float[np.ndarray, " n"]) -> float:
    """Count the effective draws behind normalised weights, 1 / sum of squares.

    Examples
    --------
    >>> effective_number(np.array([0.5, 0.5, 0.0]))
    2.0
    """
    return float(1.0 / np.sum(weights**2))


def normalised_weights(
    log_weights: Float[np.ndarray, " n"], least: float = 0.0, least_power: float = 0.01
) -> Float[np.ndarray, " n"]:
    """Normalise weights, tempered where few draws would be effective.

    Parameters
    ----------
    log_weights : array [n]
        Up to a constant.
    least : float
        Effective number of draws below which weights are raised to a power below one.
    least_power : float
        Where that ends at the latest.

    Examples
    --------
    >>> normalised_weights(np.array([0.0, 0.0, -50.0])).round(3)
    array([0.5, 0.5, 0. ])
    >>> normalised_weights(np.array([0.0, 0.0, -50.0]), least=2.5).round(3)
    array([0.43, 0.43, 0.14])
    """
    power = 1.0
    while True:
        weights = np.exp(power * (log_weights - log_weights.max()))
        weights /= weights.sum()
        if power < least_power or effective_number(weights) >= least:
            return weights
        power *= 0.8


def systematic_indices(weights: Float[np.ndarray, " n"], n_draws: int, offset: float = 0.5) -> Int[np.ndarray, " m"]:
    """Choose equally weighted draws: each point as often as its weight says, to within one.

    Parameters
    ----------
    weights : array [n]
        Normalised.
    n_draws : int
    offset : float
        Between 0 and 1; a random one makes the choice without bias.

    Returns
    -------
    array [n_draws]
        Indices of points, in order.

    Examples
    --------
    >>> systematic_indices(np.array([0.5, 0.1, 0.4]), 4)
    array([0, 0, 2, 2])
    """
    steps = (offset + np.arange(n_draws)) / n_draws
    return np.minimum(np.searchsorted(np.cumsum(weights), steps), len(weights) - 1)
