"""Mutual information of the latents with any columns, and how much of it hardness ratios alone do not hold."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from astropy.table import Table
from jaxtyping import Bool, Float, Int, Shaped
from scipy import stats
from scipy.spatial.distance import cdist
from scipy.special import digamma

from xlatent.core.errors import ParameterError, XlatentWarning
from xlatent.core.latents import LatentTable
from xlatent.science.resampling import enough, half_sampling, numbers, source_of, thin, usable

K = 5
"""Neighbours of the estimator."""
MIN_SOURCES = 50
MAX_SOURCES = 6000
"""Time rises a little faster than in proportion."""
N_PERMUTATIONS = 100
ALPHA, POWER = 0.01, 0.9
"""Of the stated sensitivity: found at p < `ALPHA` in this share of samples."""
_LOCAL = 10  # sources among which a conditional null exchanges values
_JITTER = 1e-5  # of a standard deviation: equal values would make distances zero
_WIDTHS = 96, 256  # neighbours that are looked at first, and that are listed; beyond those all sources are measured
_ROWS = 256  # sources at a time whose distances from all others are in memory
_WITHIN = 1.0 - 1e-9  # rounding must not count the neighbour that a distance was taken from


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
        A source counts once, by its row of smallest errors, and so do rows that are equal in latents and column to the
        last digit: they are one measurement under several names, and would tell of each other whatever they say. At
        most `MAX_SOURCES` sources, drawn at random.
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
        Of each column, each class too small and rows said twice, left out.
    """
    given = {name: numbers(table, name) for name in beside}
    good = usable(table) & np.isfinite(np.array([*given.values()])).all(axis=0) if given else usable(table)
    best = _best_rows(table, good)
    results: dict[str, list[Any]] = {
        key: [] for key in ("column", "of", "mi", "mi_lolim", "mi_hilim", "null", "p", "sensitivity", "n_sources")
    }
    for column in columns:
        rows, values = _values(table, column, best)
        rows = thin(_measured_once(column, table.z, values, rows), MAX_SOURCES, seed)
        values = values[rows]
        if not enough(column, values, rows, MIN_SOURCES):
            continue
        rng = np.random.default_rng(seed)
        z = table.z[rows]
        z = z / max(np.max(z.std(axis=0)), np.finfo(float).tiny)
        z = z + _JITTER * rng.standard_normal(z.shape)
        sets: dict[str, tuple[Near, Near | None]] = {"z": (listed(z), None)}
        if given:
            scores = np.stack([_scores(other[rows], rng) for other in given.values()], axis=1)
            near, together = listed(scores), ", ".join(given)
            sets |= {together: (near, None), f"z given {together}": (listed(np.hstack([z, scores])), near)}
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


@dataclass(frozen=True, eq=False)
class Near:
    """Sources as points, and of each its nearest, oneself first, by the largest difference of a coordinate.

    Attributes
    ----------
    points : array [n, d]
    who : array of int [n, m]
        Their numbers, nearest first.
    far : array [n, m]
        Their distances.
    """

    points: Float[np.ndarray, "n d"]
    who: Int[np.ndarray, "n m"]
    far: Float[np.ndarray, "n m"]

    def part(self, rows: Int[np.ndarray, " k"]) -> "Near":
        """Some of the sources among themselves."""
        number = np.full(len(self.points), -1, np.int32)
        number[rows] = np.arange(len(rows))
        who, far = number[self.who[rows]], self.far[rows]
        kept = who >= 0
        order = np.cumsum(kept, axis=1, dtype=np.int16)
        kept &= order <= order[:, -1].min()
        return Near(self.points[rows], who[kept].reshape(len(rows), -1), far[kept].reshape(len(rows), -1))

    def within(self, reach: Float[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        """How many, oneself included, are nearer than ``reach``."""
        count = np.sum(self.far < reach[:, None], axis=1)
        for some in _portions(np.flatnonzero(count == self.far.shape[1])):
            count[some] = np.sum(cdist(self.points[some], self.points, "chebyshev") < reach[some, None], axis=1)
        return count

    def within_both(
        self, y: Shaped[np.ndarray, " n"], reach: Float[np.ndarray, " n"], count: Int[np.ndarray, " n"]
    ) -> Int[np.ndarray, " n"]:
        """How many of the ``count`` that are nearer are so in y as well."""
        both, left = np.empty_like(count), np.arange(len(count))
        for width in _WIDTHS:
            some = left[count[left] <= min(width, self.far.shape[1])]
            near = self.far[some, :width] < reach[some, None]
            both[some] = np.sum(near & (_apart(y[some, None], y[self.who[some, :width]]) < reach[some, None]), axis=1)
            left = np.setdiff1d(left, some, assume_unique=True)
        for some in _portions(left):
            near = cdist(self.points[some], self.points, "chebyshev") < reach[some, None]
            both[some] = np.sum(near & (_apart(y[some, None], y) < reach[some, None]), axis=1)
        return both

    def reach(self, y: Shaped[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """Distance of the `K`-th neighbour in points and y together."""
        reach = np.empty(len(y))
        left = np.arange(len(y))
        for width in _WIDTHS:
            # Whoever is not among the listed is at least as far as the last of them.
            who, far = self.who[left, :width], self.far[left, :width]
            if who.shape[1] > K:
                reach[left] = _kth(np.maximum(far, _apart(y[left, None], y[who])))
                left = left[reach[left] > far[:, -1]]
        for some in _portions(left):
            far = cdist(self.points[some], self.points, "chebyshev")
            reach[some] = _kth(np.maximum(far, _apart(y[some, None], y)))
        return reach


def listed(points: Float[np.ndarray, "n d"]) -> Near:
    """List the neighbours of each point."""
    width, who, far = min(_WIDTHS[-1], len(points)), [], []
    for rows in _portions(np.arange(len(points))):
        distances = cdist(points[rows], points, "chebyshev")
        nearest = np.argpartition(distances, width - 1, axis=1)[:, :width]
        distances = np.take_along_axis(distances, nearest, axis=1)
        order = np.argsort(distances, axis=1)
        who.append(np.take_along_axis(nearest, order, axis=1).astype(np.int32))
        far.append(np.take_along_axis(distances, order, axis=1))
    return Near(points, np.concatenate(who), np.concatenate(far))


def mutual_information(x: Near, y: Shaped[np.ndarray, " n"], condition: Near | None = None) -> float:
    """Mutual information (nat) of x and y; with a condition that of x and y given it, where ``x`` holds both.

    Of classes y it is the estimate of Ross 2014 (PLoS ONE 9, e87357).
    """
    reach = x.reach(y)
    counts = digamma(x.within(reach))
    if condition is None:
        rest = float(digamma(len(y)))
        counts += digamma(_like(y, reach))
    else:
        near = condition.within(reach)
        rest = float(np.mean(digamma(near)))
        counts += digamma(condition.within_both(y, reach, near))
    return float(digamma(K) + rest - np.mean(counts))


def _test(
    x: Near, y: Shaped[np.ndarray, " n"], condition: Near | None, rng: np.random.Generator
) -> tuple[float, float, float, float, float, float]:
    """Estimate, its limits, mean of the null, probability of the null, sensitivity."""
    estimate = mutual_information(x, y, condition)

    def of_half(half: np.ndarray) -> float:
        return mutual_information(x.part(half), y[half], None if condition is None else condition.part(half))

    error = half_sampling(of_half, np.arange(len(y)), seed=int(rng.integers(2**31)))
    near = None if condition is None else condition.who[:, :_LOCAL]
    null = np.array([mutual_information(x, y[_exchange(near, len(y), rng)], condition) for _ in range(N_PERMUTATIONS)])
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


def _measured_once(
    name: str, z: Float[np.ndarray, "all 8"], values: Shaped[np.ndarray, " all"], rows: Int[np.ndarray, " k"]
) -> Int[np.ndarray, " m"]:
    """One row of those that have the same latents and value."""
    number = np.unique(values[rows], return_inverse=True)[1]
    once = np.sort(np.unique(np.column_stack([z[rows], number]), axis=0, return_index=True)[1])
    if repeated := len(rows) - len(once):
        warnings.warn(
            f"column {name}: {repeated} of {len(rows)} sources have the very latents and value of another; "
            "taken for one measurement, it counts once",
            XlatentWarning,
            stacklevel=3,
        )
    return rows[once]


def _scores(values: Float[np.ndarray, " n"], rng: np.random.Generator) -> Float[np.ndarray, " n"]:
    """Normal scores of the ranks, equal values in random order."""
    order = np.lexsort((rng.random(len(values)), values))
    scores = np.empty(len(values))
    scores[order] = stats.norm.ppf((np.arange(len(values)) + 0.5) / len(values))
    return scores


def _portions(rows: Int[np.ndarray, " n"]) -> list[Int[np.ndarray, " m"]]:
    return np.split(rows, range(_ROWS, len(rows), _ROWS)) if len(rows) else []


def _kth(distances: Float[np.ndarray, "n m"]) -> Float[np.ndarray, " n"]:
    """With oneself, at zero, in front, the K-th neighbour stands at K."""
    return np.partition(distances, K, axis=1)[:, K]


def _apart(y: Shaped[np.ndarray, " n #m"], others: Shaped[np.ndarray, "*n m"]) -> Float[np.ndarray, "n m"]:
    """Distances of values: of numbers their difference, of classes infinity."""
    return np.where(y == others, 0.0, np.inf) if y.dtype.kind == "U" else np.abs(y - others)


def _like(y: Shaped[np.ndarray, " n"], reach: Float[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """How many values, oneself included, are nearer than ``reach``."""
    if y.dtype.kind == "U":
        _, place, sizes = np.unique(y, return_inverse=True, return_counts=True)
        return sizes[place]
    ordered, reach = np.sort(y), reach * _WITHIN
    return np.searchsorted(ordered, y + reach, "right") - np.searchsorted(ordered, y - reach, "left")
