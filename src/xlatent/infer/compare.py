"""How the latents of two models relate: the linear map from one to the other, and how much of them it holds."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from xlatent.core.errors import ParameterError

_FOLDS = 5
MIN_SPECTRA = 50  # five to each coefficient that is fitted for a latent


@dataclass(frozen=True, eq=False)
class Comparison:
    """Latents of model B as a linear function of those of model A, ``z_b = matrix @ z_a + offset``.

    Attributes
    ----------
    matrix : array [latents_b, latents_a]
    offset : array [latents_b]
    r2 : array [latents_b]
        Share of the variance of each latent of B that the map holds, on spectra left out of its fit.
    r2_back : array [latents_a]
        The same of each latent of A, from all of B.
    match : array of int [latents_b]
        The latent of A that goes with each of B: pairs are chosen one to one, for the largest sum of |correlation|.
        -1 where A has none left.
    correlation : array [latents_b]
        Pearson's, of each pair; NaN where there is none.
    """

    matrix: Float[np.ndarray, "latents_b latents_a"]
    offset: Float[np.ndarray, " latents_b"]
    r2: Float[np.ndarray, " latents_b"]
    r2_back: Float[np.ndarray, " latents_a"]
    match: Int[np.ndarray, " latents_b"]
    correlation: Float[np.ndarray, " latents_b"]


def compare(a: Float[np.ndarray, "n latents_a"], b: Float[np.ndarray, "n latents_b"]) -> Comparison:
    """Fit the linear map between two models' latents of the same spectra by least squares.

    Parameters
    ----------
    a, b : arrays [n, latents]
        Posterior means of the same spectra, in the same order.

    Raises
    ------
    ParameterError
        If there are fewer than 50 spectra.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> a = rng.standard_normal((100, 3))
    >>> found = compare(a, 2.0 * a[:, ::-1])
    >>> found.r2.round(3).tolist(), found.match.tolist()
    ([1.0, 1.0, 1.0], [2, 1, 0])
    """
    from scipy.optimize import linear_sum_assignment

    if len(a) < MIN_SPECTRA:
        raise ParameterError(
            f"two models are compared by their latents of {MIN_SPECTRA} or more spectra, found {len(a)}"
        )
    coefficients = _fit(a, b)
    correlation = np.corrcoef(b.T, a.T)[: b.shape[1], b.shape[1] :]
    rows, columns = linear_sum_assignment(-np.abs(correlation))
    match = np.full(b.shape[1], -1)
    match[rows] = columns
    paired = np.full(b.shape[1], np.nan)
    paired[rows] = correlation[rows, columns]
    return Comparison(coefficients[:-1].T, coefficients[-1], _held_out(a, b), _held_out(b, a), match, paired)


def _fit(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Fit y as a linear function of x; the constant is the last coefficient."""
    return np.linalg.lstsq(np.column_stack([x, np.ones(len(x))]), y, rcond=None)[0]


def _held_out(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """R² of y from x, each fifth of the spectra predicted from the others."""
    fold = np.arange(len(x)) % _FOLDS
    left = np.empty_like(y)
    for k in range(_FOLDS):
        out = fold == k
        coefficients = _fit(x[~out], y[~out])
        left[out] = y[out] - x[out] @ coefficients[:-1] - coefficients[-1]
    return 1.0 - np.sum(left**2, axis=0) / np.sum((y - y.mean(axis=0)) ** 2, axis=0)
