"""Poisson fit statistics per channel (C, W), what they should be, and how far they scatter.

All functions are vectorised over any shape and return one value a channel; the statistic of a spectrum is their
sum. They agree with Sherpa 4.19's ``cstat`` and ``wstat``, but for one thing: a negative model, which Sherpa
lets through to W, counts as no source at all everywhere here.
"""

from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from scipy.special import gammaln, xlogy

if TYPE_CHECKING:
    from scipy.interpolate import CubicSpline

# A model that predicts nothing where counts were seen is held at this value, as Sherpa does (its trunc_value).
TRUNCATION = 1e-25

# Below this mean a Poisson average is summed term by term, above it Gaussian quadrature is used.
_SUMMED_BELOW = 12.0
_N_NODES = 10


def cstat(counts: Float[np.ndarray, " ..."], model: Float[np.ndarray, " ..."]) -> Float[np.ndarray, " ..."]:
    """Compute the C statistic, ``2 (mu - n + n ln(n / mu))``, of each channel; ``2 mu`` where n = 0.

    Parameters
    ----------
    counts : array
        Observed counts n; shapes broadcast.
    model : array
        Expected counts mu; values <= 0 are held at 1e-25.

    Returns
    -------
    array
        The statistic per channel, never negative, zero where mu = n.

    References
    ----------
    Cash 1979, ApJ 228, 939; Castor's form as in the XSPEC manual, appendix B, "Poisson data (cstat)".

    Examples
    --------
    >>> cstat(np.array([4.0, 0.0]), np.array([4.0, 1.5])).tolist()
    [0.0, 3.0]
    """
    return 2.0 * _divergence(counts, np.maximum(model, TRUNCATION))


def wstat_background(
    n_on: Float[np.ndarray, " ..."],
    n_off: Float[np.ndarray, " ..."],
    model: Float[np.ndarray, " ..."],
    alpha: float | Float[np.ndarray, " ..."],
) -> Float[np.ndarray, " ..."]:
    """Find the background mean in the OFF spectrum that makes a source model most likely, channel by channel.

    Parameters
    ----------
    n_on, n_off : array
        Counts of the source and of the background spectrum; shapes broadcast.
    model : array
        Expected source counts mu_s in the source spectrum, background not included.
    alpha : float or array
        Background scale: ``alpha * b`` background counts are expected in the source spectrum when b are expected in
        the background spectrum.

    Returns
    -------
    array
        b >= 0, the larger root of ``alpha (1 + alpha) b^2 - c b - n_off mu_s = 0`` with
        ``c = alpha (n_on + n_off) - (1 + alpha) mu_s``, which is where the derivative of the likelihood in b vanishes.
        The same root also serves n_on = 0 (``n_off / (1 + alpha)``) and n_off = 0 (``n_on / (1 + alpha) - mu_s /
        alpha``, or 0 where that is negative).

    References
    ----------
    XSPEC manual, appendix B, "Poisson data with Poisson background (cstat)".

    Examples
    --------
    Without source counts in the model, the background takes its share of all counts:

    >>> wstat_background(np.array([2.0]), np.array([10.0]), np.array([0.0]), 0.5).tolist()
    [8.0]
    """
    mu = np.maximum(model, TRUNCATION)
    c = alpha * (n_on + n_off) - (1.0 + alpha) * mu
    quadratic = alpha * (1.0 + alpha)
    root = np.sqrt(c * c + 4.0 * quadratic * n_off * mu)
    # Of the two equal forms of the root, the one that adds numbers of equal sign: no cancellation.
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(c >= 0, (c + root) / (2.0 * quadratic), 2.0 * n_off * mu / (root - c))


def wstat(
    n_on: Float[np.ndarray, " ..."],
    n_off: Float[np.ndarray, " ..."],
    model: Float[np.ndarray, " ..."],
    alpha: float | Float[np.ndarray, " ..."],
) -> Float[np.ndarray, " ..."]:
    """Compute the W statistic of each channel: C of source and background together, background mean profiled out.

    Parameters
    ----------
    n_on, n_off : array
        Counts of the source and of the background spectrum; shapes broadcast.
    model : array
        Expected source counts mu_s in the source spectrum; values <= 0 are held at 1e-25.
    alpha : float or array
        Background scale, as in `wstat_background`; 0 gives the C statistic.

    Returns
    -------
    array
        ``2 [mu_s + (1 + alpha) b - n_on + n_on ln(n_on / (mu_s + alpha b)) - n_off + n_off ln(n_off / b)]`` with b from
        `wstat_background`; never negative.

    References
    ----------
    XSPEC manual, appendix B, "Poisson data with Poisson background (cstat)".

    Examples
    --------
    >>> wstat(np.array([9.0]), np.array([10.0]), np.array([4.0]), 0.5).round(6).tolist()
    [0.0]
    """
    return wstat_given_background(n_on, n_off, model, alpha, wstat_background(n_on, n_off, model, alpha))


def wstat_given_background(
    n_on: Float[np.ndarray, " ..."],
    n_off: Float[np.ndarray, " ..."],
    model: Float[np.ndarray, " ..."],
    alpha: float | Float[np.ndarray, " ..."],
    background: Float[np.ndarray, " ..."],
) -> Float[np.ndarray, " ..."]:
    """Compute `wstat` with what `wstat_background` has found already."""
    seen = np.maximum(model, TRUNCATION) + alpha * background
    return 2.0 * (_divergence(n_on, seen) + _divergence(n_off, background))


def _divergence(counts: Float[np.ndarray, " ..."], mean: Float[np.ndarray, " ..."]) -> Float[np.ndarray, " ..."]:
    """Return n ln(n / mean) - n + mean, held at 0 where rounding leaves it below; 0 if both are 0."""
    nothing = np.finfo(mean.dtype).tiny  # so that the ratio of nothing to nothing is one
    return np.maximum(counts * np.log((counts + nothing) / (mean + nothing)) - counts + mean, 0.0)


def expected_wstat(
    model: Float[np.ndarray, " *#shape"],
    background: Float[np.ndarray, " *#shape"],
    alpha: float | Float[np.ndarray, " *#shape"],
) -> tuple[Float[np.ndarray, " ..."], Float[np.ndarray, " ..."]]:
    """Compute mean and variance of the W statistic of each channel if source and background model are true.

    Parameters
    ----------
    model : array
        Expected source counts mu_s in the source spectrum; values <= 0 count as 0.
    background : array
        Expected counts b of the background spectrum. At few counts a channel this should be a smooth estimate, say the
        background counts averaged over 15 channels: `wstat_background` follows the fluctuations of its channel and
        makes the summed mean too low, by up to 0.4 standard deviations at one count a channel.
    alpha : float or array
        Background scale, as in `wstat_background`.

    Returns
    -------
    mean, variance : array
        Of W over ``n_on ~ Poisson(mu_s + alpha b)`` and ``n_off ~ Poisson(b)``, independent of each other: a double
        Poisson average of `wstat` itself, by sums at small means and by quadrature at large ones. Near 1 and 2 for many
        counts in both spectra, where one of two data a channel is spent on the background. With a background
        and a scale of 0 they are those of the C statistic, which Kaastra 2017 (A&A 605, A51) tabulates and fits.

    Examples
    --------
    >>> mean, variance = expected_wstat(np.array([1000.0]), np.array([1000.0]), 1.0)
    >>> mean.round(2).tolist(), variance.round(2).tolist()
    ([1.0], [2.0])
    """
    shape = np.broadcast_shapes(model.shape, background.shape, np.shape(alpha))
    mu = np.maximum(np.broadcast_to(model, shape), 0.0).ravel()
    off = np.maximum(np.broadcast_to(background, shape), 0.0).ravel()
    scale = np.broadcast_to(np.asarray(alpha, dtype=float), shape).ravel()
    on = mu + scale * off
    mean, variance = np.zeros(mu.shape), np.zeros(mu.shape)
    for group_on in _groups(on):
        for group_off in _groups(off):
            group = group_on & group_off
            if not group.any():
                continue
            n_on, weight_on = _poisson_nodes(on[group])
            n_off, weight_off = _poisson_nodes(off[group])
            value = wstat(n_on[:, :, None], n_off[:, None, :], mu[group][:, None, None], scale[group][:, None, None])
            weight = weight_on[:, :, None] * weight_off[:, None, :]
            mean[group], variance[group] = _moments(value.reshape(len(value), -1), weight.reshape(len(value), -1))
    return mean.reshape(shape), variance.reshape(shape)


def _moments(
    value: Float[np.ndarray, "n k"], weight: Float[np.ndarray, "n k"]
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    mean = np.sum(weight * value, axis=1)
    return mean, np.sum(weight * (value - mean[:, None]) ** 2, axis=1)


def _groups(mean: Float[np.ndarray, " n"]) -> list[np.ndarray]:
    """Masks of channels that are averaged with the same number of terms; empty groups are left out."""
    edges = (-np.inf, 0.3, 3.0, _SUMMED_BELOW, np.inf)
    masks = [(mean >= lo) & (mean < hi) for lo, hi in pairwise(edges)]
    return [mask for mask in masks if mask.any()]


def _poisson_nodes(mean: Float[np.ndarray, " n"]) -> tuple[Float[np.ndarray, "n k"], Float[np.ndarray, "n k"]]:
    """Counts and weights whose weighted sum is the average over a Poisson distribution, for means of one group."""
    top = float(mean.max())
    if top < _SUMMED_BELOW:
        # Six standard deviations and a few counts: what is left out has a probability below 1e-7.
        counts = np.arange(np.ceil(top + 6.0 * np.sqrt(top)) + 6.0)[None, :]
        weight = np.exp(xlogy(counts, mean[:, None]) - mean[:, None] - gammaln(counts + 1.0))
        return np.broadcast_to(counts, weight.shape), weight
    nodes = _charlier_quadrature()(1.0 / np.sqrt(mean))
    return mean[:, None] + np.sqrt(mean)[:, None] * nodes[:, 0], nodes[:, 1]


@cache
def _charlier_quadrature() -> "CubicSpline":
    """Gaussian quadrature for the Poisson distribution as a function of s = 1 / sqrt(mean).

    The Charlier polynomials, orthogonal under a Poisson distribution, have in the standardised variable
    (n - mean) / sqrt(mean) the Jacobi matrix of Hermite's plus ``s diag(0, 1, 2, ...)`` (NIST DLMF 18.22); its
    eigenvalues are the nodes, the squared first components of its eigenvectors the weights (Golub & Welsch 1969).
    Smooth in s, so tabulated once. The result of a call has shape [n, 2, n_nodes].
    """
    from scipy.interpolate import CubicSpline  # with half of SciPy behind it, for what is seldom wanted

    order = np.arange(_N_NODES)
    off_diagonal = np.sqrt(order[1:])
    table_s = np.linspace(0.0, 1.0 / np.sqrt(_SUMMED_BELOW), 65)
    table = np.empty((table_s.size, 2, _N_NODES))
    for row, s in zip(table, table_s, strict=True):
        jacobi = np.diag(s * order) + np.diag(off_diagonal, 1) + np.diag(off_diagonal, -1)
        row[0], vectors = np.linalg.eigh(jacobi)
        row[1] = vectors[0] ** 2
    return CubicSpline(table_s, table)
