"""Mutual information of the latents with any columns, and how much of it hardness ratios alone do not hold."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from astropy.table import Table
from jaxtyping import Bool, Float, Float32, Int, Shaped
from scipy import stats
from scipy.special import digamma

from xlatent.errors import ParameterError, XlatentWarning
from xlatent.latents import LatentTable
from xlatent.science.sampling import enough, half_sampling, numbers, source_of, thin, usable

K = 5
"""Neighbours of the estimator."""
MIN_SOURCES = 50
MAX_SOURCES = 2000
"""Every distance between two sources is in memory."""
N_PERMUTATIONS = 100
ALPHA, POWER = 0.01, 0.9
"""Of the stated sensitivity: found at p < `ALPHA` in this share of samples."""
_LOCAL = 10  # sources among which a conditional null exchanges values
_JITTER = 1e-5  # of a standard deviation: equal values would make distances zero

Distances = Float32[np.ndarray, "n n"]


def information(
    table: LatentTable,
    columns: Sequence[str],
    beside: Sequence[str] = (),
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> Table:
    """Estimate the mutual information between the latents' means and columns, with a test against none at all.

    The estimator is the first of Kraskov, Stögbauer & Grassberger 2004 (PRE 69, 066138) with the largest coordinate
    difference for distance; what z adds to other columns is the conditional mutual information of Frenzel & Pompe 2007
    (PRL 99, 204101). Columns enter by the normal scores of their ranks, which changes no mutual information; the
    latents are divided by the spread of the widest, so that one that was not measured stays small. The null exchanges
    the column's values between sources, for the conditional one between neighbours in the columns given (Runge 2018,
    AISTATS 84, 938). p is that of a normal null with the mean and scatter of the exchanges (Student's t), q the
    smallest false-discovery rate at which the row would be kept (Benjamini & Hochberg 1995), over all rows.

    Parameters
    ----------
    table : LatentTable
        A source counts once, by its row of smallest errors; at most `MAX_SOURCES` sources, drawn at random.
    columns : sequence of str
        Columns of numbers, or of classes in words.
    beside : sequence of str
        Columns of numbers to compare z with, taken together, such as hardness ratios.
    seed : int
        Of exchanges and resampling.
    progress : callable, optional
        Called with the number of rows of the result done.

    Returns
    -------
    Table
        ``column``; ``of``: z, the columns beside, or "z given" them; ``mi`` in nat, with ``mi_lolim`` and ``mi_hilim``
        (68 %, from halves of the sources); ``null``, the mean of the exchanges; ``p``; ``q``; ``sensitivity``, the
        information above the null that would be found at p < 0.01 in 90 % of samples; ``n_sources``.

    Raises
    ------
    ParameterError
        If a column is missing, one beside is not made of numbers, or no column has `MIN_SOURCES` sources and two
        values.

    Warns
    -----
    XlatentWarning
        Of each column, and each class too small, left out.
    """
    given = {name: numbers(table, name) for name in beside}
    good = usable(table) & np.isfinite(np.array([*given.values()])).all(axis=0) if given else usable(table)
    best = _best_rows(table, good)
    results: dict[str, list[Any]] = {
        key: [] for key in ("column", "of", "mi", "mi_lolim", "mi_hilim", "null", "p", "sensitivity", "n_sources")
    }
    for column in columns:
        rows, values = _values(table, column, best)
        rows = thin(rows, MAX_SOURCES, seed)
        values = values[rows]
        if not enough(column, values, rows, MIN_SOURCES):
            continue
        rng = np.random.default_rng(seed)
        z = table.z[rows]
        z = z / max(np.max(z.std(axis=0)), np.finfo(float).tiny)
        sets: dict[str, tuple[np.ndarray, np.ndarray | None]] = {
            "z": (_distances(z + _JITTER * rng.standard_normal(z.shape)), None)
        }
        if given:
            scores = [_scores(other[rows], rng) for other in given.values()]
            far = _distances(np.stack(scores, axis=1))
            together = ", ".join(given)
            sets |= {together: (far, None), f"z given {together}": (sets["z"][0], far)}
        y = values if values.dtype.kind == "U" else _scores(values, rng)
        for of, (x, condition) in sets.items():
            row = (column, of, *_test(x, y, condition, rng), len(rows))
            for into, value in zip(results.values(), row, strict=True):
                into.append(value)
            if progress is not None:
                progress(len(results["column"]))
    if not results["column"]:
        raise ParameterError(
            f"of {', '.join(columns)} no column has {MIN_SOURCES} sources with latents and values that differ; "
            "choose others or give more sources"
        )
    found = Table(results)
    found.add_column(stats.false_discovery_control(found["p"]), name="q", index=found.colnames.index("p") + 1)
    return found


def mutual_information(x: Distances, y: Distances, condition: Distances | None = None) -> float:
    """Mutual information (nat) of x and y, given a condition or not, from distances between the members of a sample.

    Distances in y of 0 within a class and infinity between classes make it the estimate of Ross 2014 (PLoS ONE 9,
    e87357).
    """
    joint = np.maximum(x, y) if condition is None else np.maximum(np.maximum(x, y), condition)
    # With oneself, at zero, in front, the K-th neighbour stands at K; each count holds oneself too.
    reach = np.partition(joint, K, axis=1)[:, K, None]
    if condition is None:
        both, rest = (x, y), float(digamma(len(x)))
    else:
        both = (np.maximum(x, condition), np.maximum(y, condition))
        rest = float(np.mean(digamma(np.sum(condition < reach, axis=1))))
    counts = sum(digamma(np.sum(distances < reach, axis=1)) for distances in both)
    return float(digamma(K) + rest - np.mean(counts))


def _test(
    x: Distances, y: Shaped[np.ndarray, " n"], condition: Distances | None, rng: np.random.Generator
) -> tuple[float, float, float, float, float, float]:
    """Estimate, its limits, mean of the null, probability of the null, sensitivity."""
    apart = _apart(y)
    estimate = mutual_information(x, apart, condition)

    def of_half(half: np.ndarray) -> float:
        square = np.ix_(half, half)
        return mutual_information(x[square], apart[square], None if condition is None else condition[square])

    error = half_sampling(of_half, np.arange(len(y)), seed=int(rng.integers(2**31)))
    near = None if condition is None else np.argpartition(condition, _LOCAL, axis=1)[:, :_LOCAL]
    null = np.array(
        [mutual_information(x, _apart(y[_exchange(near, len(y), rng)]), condition) for _ in range(N_PERMUTATIONS)]
    )
    mean, scatter = float(np.mean(null)), float(np.std(null, ddof=1) * np.sqrt(1.0 + 1.0 / N_PERMUTATIONS))
    p = float(stats.t.sf((estimate - mean) / scatter, N_PERMUTATIONS - 1))
    sensitivity = scatter * float(stats.t.isf(ALPHA, N_PERMUTATIONS - 1) + stats.norm.ppf(POWER))
    return estimate, estimate - error, estimate + error, mean, p, sensitivity


def _exchange(near: Int[np.ndarray, "n local"] | None, n: int, rng: np.random.Generator) -> Int[np.ndarray, " n"]:
    """A random permutation; with neighbours given, each takes one of them, and no one twice while others are left."""
    if near is None:
        return rng.permutation(n)
    taken = np.zeros(n, bool)
    chosen = np.empty(n, int)
    for i, candidates in zip(rng.permutation(n), rng.permuted(near, axis=1), strict=True):
        free = candidates[~taken[candidates]]
        chosen[i] = free[0] if len(free) else candidates[0]
        taken[chosen[i]] = True
    return chosen


def _best_rows(table: LatentTable, good: Bool[np.ndarray, " n"]) -> Int[np.ndarray, " m"]:
    """Of each source the row whose latents have the smallest errors."""
    rows = np.flatnonzero(good)
    rows = rows[np.argsort(np.sum(table.z_err[rows] ** 2, axis=1), kind="stable")]
    return np.sort(rows[np.unique(source_of(table)[rows], return_index=True)[1]])


def _values(table: LatentTable, name: str, rows: Int[np.ndarray, " m"]) -> tuple[Int[np.ndarray, " k"], np.ndarray]:
    """A column, and those of the rows in which it has a value."""
    if name in table.colnames and np.asarray(table[name]).dtype.kind in "US":
        words = np.ma.filled(np.ma.asarray(table[name]).astype(str), "")
        classes, sizes = np.unique(words[rows][words[rows] != ""], return_counts=True)
        # A half of the sources should hold K of a class.
        small = classes[sizes < 2 * K]
        if small.size:
            warnings.warn(
                f"column {name}: left out are {', '.join(small)}, with fewer than {2 * K} sources",
                XlatentWarning,
                stacklevel=3,
            )
        return rows[~np.isin(words[rows], [*small, ""])], words
    values = numbers(table, name)
    return rows[np.isfinite(values[rows])], values


def _scores(values: Float[np.ndarray, " n"], rng: np.random.Generator) -> Float[np.ndarray, " n"]:
    """Normal scores of the ranks, equal values in random order."""
    order = np.lexsort((rng.random(len(values)), values))
    scores = np.empty(len(values))
    scores[order] = stats.norm.ppf((np.arange(len(values)) + 0.5) / len(values))
    return scores


def _distances(points: Float[np.ndarray, "n d"]) -> Distances:
    from scipy.spatial.distance import cdist

    return cdist(points, points, "chebyshev").astype(np.float32)


def _apart(y: Shaped[np.ndarray, " n"]) -> Distances:
    """Distances of values: of numbers their difference, of classes infinity."""
    if y.dtype.kind == "U":
        return np.where(y[:, None] == y, np.float32(0.0), np.float32(np.inf))
    return np.abs(y[:, None] - y).astype(np.float32)
