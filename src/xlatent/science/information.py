"""Mutual information of the latents with any columns, and how much of it hardness ratios alone do not hold."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from astropy.table import Table
from jaxtyping import Bool, Float, Int, Shaped
from scipy import stats
from scipy.spatial.distance import cdist
from scipy.special import digamma

from xlatent.core.errors import ParameterError, XlatentWarning
from xlatent.core.latents import LatentTable
from xlatent.science.resampling import half_sample_error, subsample
from xlatent.science.selection import has_enough_sources, numeric_column, source_ids, valid_rows

N_NEIGHBOURS = 5
MIN_SOURCES = 50
MAX_SOURCES = 6000
"""Time rises a little faster than in proportion."""
N_PERMUTATIONS = 100
ALPHA, POWER = 0.01, 0.9
"""Of the stated sensitivity: found at p < `ALPHA` in this share of samples."""
_N_LOCAL = 10  # sources among which a conditional null exchanges values
_JITTER = 1e-5  # of a standard deviation: equal values would make distances zero
_WIDTHS = 96, 256  # neighbours that are looked at first, and that are listed; beyond those all sources are measured
_BLOCK = 256  # sources at a time whose distances from all others are in memory
_ROUNDING = 1.0 - 1e-9  # must not count the neighbour that a distance was taken from


def estimate_information(
    table: LatentTable,
    columns: Sequence[str],
    beside: Sequence[str] = (),
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> Table:
    """Estimate the mutual information between the latents' means and columns, with a test against none at all.

    The estimator counts neighbours [1]_, with the largest coordinate difference for distance; what z adds to other
    columns is the conditional mutual information [2]_. Columns enter by the normal scores of their ranks, which changes
    no mutual information; the latents are divided by the spread of the widest, so that one that was not measured stays
    small. The null permutes the column's values between sources, for the conditional one between neighbours in the
    columns given [3]_. p is that of a normal null with the mean and scatter of the permutations (Student's t), q the
    smallest false-discovery rate at which the row would be kept [4]_, over all rows.

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
        Of permutations and resampling.
    progress : callable, optional
        Called with the number of rows of the result done.

    Returns
    -------
    Table
        ``column``; ``of``: z, the columns beside, or "z given" them; ``mi`` in nat, with ``mi_lolim`` and ``mi_hilim``
        (68 %, from halves of the sources); ``null``, the mean of the permutations; ``p``; ``q``; ``sensitivity``, the
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

    References
    ----------
    .. [1] Kraskov, Stögbauer & Grassberger 2004, PRE 69, 066138, their first estimator.
    .. [2] Frenzel & Pompe 2007, PRL 99, 204101.
    .. [3] Runge 2018, AISTATS 84, 938.
    .. [4] Benjamini & Hochberg 1995, JRSSB 57, 289.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> z = rng.standard_normal((60, 8)) * ([1.0] + [0.1] * 7)
    >>> columns = {"name": [f"s{i}" for i in range(60)], "period": z[:, 0] + 0.1 * rng.standard_normal(60)}
    >>> table = LatentTable.from_posterior(z, np.tile(0.01 * np.eye(8), (60, 1, 1)), columns)
    >>> result = estimate_information(table, ["period"])
    >>> bool(result["mi"][0] > 0.5), bool(result["p"][0] < 1e-6)
    (True, True)
    """
    given = {name: numeric_column(table, name) for name in beside}
    valid = valid_rows(table)
    for other in given.values():
        valid &= np.isfinite(other)
    best = _best_rows(table, valid)
    results: list[tuple] = []
    for column in columns:
        rows, values = _column_values(table, column, best)
        rows = subsample(_drop_repeated(column, table.z, values, rows), MAX_SOURCES, seed)
        values = values[rows]
        if not has_enough_sources(column, values, rows, MIN_SOURCES):
            continue
        rng = np.random.default_rng(seed)
        z = table.z[rows]
        z = z / max(np.max(z.std(axis=0)), np.finfo(float).tiny)
        z = z + _JITTER * rng.standard_normal(z.shape)
        sets: dict[str, tuple[NeighbourLists, NeighbourLists | None]] = {"z": (build_neighbour_lists(z), None)}
        if given:
            scores = np.stack([_normal_scores(other[rows], rng) for other in given.values()], axis=1)
            alone, together = build_neighbour_lists(scores), ", ".join(given)
            both = build_neighbour_lists(np.hstack([z, scores]))
            sets |= {together: (alone, None), f"z given {together}": (both, alone)}
        y = values if values.dtype.kind == "U" else _normal_scores(values, rng)
        for of, (x, condition) in sets.items():
            results.append((column, of, *_permutation_test(x, y, condition, rng), len(rows)))
            if progress is not None:
                progress(len(results))
    if not results:
        raise ParameterError(
            f"of {', '.join(columns)} no column has {MIN_SOURCES} sources with latents and values that differ; "
            "choose others or give more sources"
        )
    names = ("column", "of", "mi", "mi_lolim", "mi_hilim", "null", "p", "sensitivity", "n_sources")
    found = Table(rows=results, names=names)
    found.add_column(stats.false_discovery_control(found["p"]), name="q", index=found.colnames.index("p") + 1)
    return found


@dataclass(frozen=True, eq=False)
class NeighbourLists:
    """List the nearest neighbours of each point, itself first, by the largest difference of a coordinate.

    Attributes
    ----------
    points : array [n, d]
    indices : array of int [n, m]
        Neighbours of each, nearest first.
    distances : array [n, m]
        How far these are.
    """

    points: Float[np.ndarray, "n d"]
    indices: Int[np.ndarray, "n m"]
    distances: Float[np.ndarray, "n m"]

    def subset(self, rows: Int[np.ndarray, " k"]) -> "NeighbourLists":
        """List the neighbours of some of the points among themselves."""
        number = np.full(len(self.points), -1, np.int32)
        number[rows] = np.arange(len(rows))
        indices, distances = number[self.indices[rows]], self.distances[rows]
        kept = indices >= 0
        order = np.cumsum(kept, axis=1, dtype=np.int16)
        kept &= order <= order[:, -1].min()
        shape = (len(rows), -1)
        return NeighbourLists(self.points[rows], indices[kept].reshape(shape), distances[kept].reshape(shape))

    def count_within(self, radius: Float[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        """Count the points, itself included, that are nearer to each than ``radius``."""
        count = np.sum(self.distances < radius[:, None], axis=1)
        for rows in _blocks(np.flatnonzero(count == self.distances.shape[1])):
            count[rows] = np.sum(cdist(self.points[rows], self.points, "chebyshev") < radius[rows, None], axis=1)
        return count

    def count_within_both(
        self, y: Shaped[np.ndarray, " n"], radius: Float[np.ndarray, " n"], count: Int[np.ndarray, " n"]
    ) -> Int[np.ndarray, " n"]:
        """Count those of the ``count`` nearer points that are nearer in y as well."""
        both, left = np.empty_like(count), np.arange(len(count))
        for width in _WIDTHS:
            rows = left[count[left] <= min(width, self.distances.shape[1])]
            near = self.distances[rows, :width] < radius[rows, None]
            near &= _distance(y[rows, None], y[self.indices[rows, :width]]) < radius[rows, None]
            both[rows] = np.sum(near, axis=1)
            left = np.setdiff1d(left, rows, assume_unique=True)
        for rows in _blocks(left):
            near = cdist(self.points[rows], self.points, "chebyshev") < radius[rows, None]
            both[rows] = np.sum(near & (_distance(y[rows, None], y) < radius[rows, None]), axis=1)
        return both

    def joint_radius(self, y: Shaped[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """Measure the distance of the neighbour number `N_NEIGHBOURS` in points and y together."""
        radius = np.empty(len(y))
        left = np.arange(len(y))
        for width in _WIDTHS:
            # Whoever is not among the listed is at least as far as the last of them.
            indices, distances = self.indices[left, :width], self.distances[left, :width]
            if indices.shape[1] > N_NEIGHBOURS:
                radius[left] = _kth_distance(np.maximum(distances, _distance(y[left, None], y[indices])))
                left = left[radius[left] > distances[:, -1]]
        for rows in _blocks(left):
            distances = cdist(self.points[rows], self.points, "chebyshev")
            radius[rows] = _kth_distance(np.maximum(distances, _distance(y[rows, None], y)))
        return radius


def build_neighbour_lists(points: Float[np.ndarray, "n d"]) -> NeighbourLists:
    """List the neighbours of each point.

    Examples
    --------
    >>> build_neighbour_lists(np.array([[0.0], [3.0], [1.0]])).indices.tolist()
    [[0, 2, 1], [1, 2, 0], [2, 0, 1]]
    """
    width, indices, distances = min(_WIDTHS[-1], len(points)), [], []
    for rows in _blocks(np.arange(len(points))):
        of_all = cdist(points[rows], points, "chebyshev")
        nearest = np.argpartition(of_all, width - 1, axis=1)[:, :width]
        of_nearest = np.take_along_axis(of_all, nearest, axis=1)
        order = np.argsort(of_nearest, axis=1)
        indices.append(np.take_along_axis(nearest, order, axis=1).astype(np.int32))
        distances.append(np.take_along_axis(of_nearest, order, axis=1))
    return NeighbourLists(points, np.concatenate(indices), np.concatenate(distances))


def mutual_information(
    x: NeighbourLists, y: Shaped[np.ndarray, " n"], condition: NeighbourLists | None = None
) -> float:
    """Estimate the mutual information (nat) of x and y; with a condition, given that.

    Parameters
    ----------
    x : NeighbourLists
        Of the points x; with a condition, of points that hold both.
    y : array [n]
        Numbers, or classes in words.
    condition : NeighbourLists, optional

    References
    ----------
    Kraskov, Stögbauer & Grassberger 2004, PRE 69, 066138; of classes, Ross 2014, PLoS ONE 9, e87357; with a condition,
    Frenzel & Pompe 2007, PRL 99, 204101.

    Examples
    --------
    >>> x, y = np.random.default_rng(0).standard_normal((2, 500))
    >>> lists = build_neighbour_lists(x[:, None])
    >>> abs(mutual_information(lists, y)) < 0.1, mutual_information(lists, x + 0.1 * y) > 2.0
    (True, True)
    """
    radius = x.joint_radius(y)
    counts = digamma(x.count_within(radius))
    if condition is None:
        constant = float(digamma(len(y)))
        counts += digamma(_count_marginal(y, radius))
    else:
        near = condition.count_within(radius)
        constant = float(np.mean(digamma(near)))
        counts += digamma(condition.count_within_both(y, radius, near))
    return float(digamma(N_NEIGHBOURS) + constant - np.mean(counts))


def _permutation_test(
    x: NeighbourLists, y: Shaped[np.ndarray, " n"], condition: NeighbourLists | None, rng: np.random.Generator
) -> tuple[float, float, float, float, float, float]:
    """Estimate, its limits, mean of the null, probability of the null, sensitivity."""
    estimate = mutual_information(x, y, condition)

    def of_half(half: np.ndarray) -> float:
        return mutual_information(x.subset(half), y[half], None if condition is None else condition.subset(half))

    error = half_sample_error(of_half, np.arange(len(y)), seed=int(rng.integers(2**31)))
    near = None if condition is None else condition.indices[:, :_N_LOCAL]
    null = np.array([mutual_information(x, y[_permute(near, len(y), rng)], condition) for _ in range(N_PERMUTATIONS)])
    mean, scatter = float(np.mean(null)), float(np.std(null, ddof=1) * np.sqrt(1.0 + 1.0 / N_PERMUTATIONS))
    p = float(stats.t.sf((estimate - mean) / scatter, N_PERMUTATIONS - 1))
    sensitivity = scatter * float(stats.t.isf(ALPHA, N_PERMUTATIONS - 1) + stats.norm.ppf(POWER))
    return estimate, estimate - error, estimate + error, mean, p, sensitivity


def _permute(near: Int[np.ndarray, "n local"] | None, n: int, rng: np.random.Generator) -> Int[np.ndarray, " n"]:
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


def _best_rows(table: LatentTable, valid: Bool[np.ndarray, " n"]) -> Int[np.ndarray, " m"]:
    """The row of each source whose latents have the smallest errors."""
    rows = np.flatnonzero(valid)
    rows = rows[np.argsort(np.sum(table.z_err[rows] ** 2, axis=1), kind="stable")]
    return np.sort(rows[np.unique(source_ids(table)[rows], return_index=True)[1]])


def _column_values(
    table: LatentTable, name: str, rows: Int[np.ndarray, " m"]
) -> tuple[Int[np.ndarray, " k"], np.ndarray]:
    """A column, and those of the rows in which it has a value."""
    if name in table.colnames and np.asarray(table[name]).dtype.kind in "US":
        words = np.ma.filled(np.ma.asarray(table[name]).astype(str), "")
        classes, sizes = np.unique(words[rows][words[rows] != ""], return_counts=True)
        # A half of the sources should hold `N_NEIGHBOURS` of a class.
        small = classes[sizes < 2 * N_NEIGHBOURS]
        if small.size:
            warnings.warn(
                f"column {name}: left out are {', '.join(small)}, with fewer than {2 * N_NEIGHBOURS} sources",
                XlatentWarning,
                stacklevel=3,
            )
        return rows[~np.isin(words[rows], [*small, ""])], words
    values = numeric_column(table, name)
    return rows[np.isfinite(values[rows])], values


def _drop_repeated(
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


def _normal_scores(values: Float[np.ndarray, " n"], rng: np.random.Generator) -> Float[np.ndarray, " n"]:
    """Normal scores of the ranks, equal values in random order."""
    order = np.lexsort((rng.random(len(values)), values))
    scores = np.empty(len(values))
    scores[order] = stats.norm.ppf((np.arange(len(values)) + 0.5) / len(values))
    return scores


def _blocks(rows: Int[np.ndarray, " n"]) -> list[Int[np.ndarray, " m"]]:
    return np.split(rows, range(_BLOCK, len(rows), _BLOCK)) if len(rows) else []


def _kth_distance(distances: Float[np.ndarray, "n m"]) -> Float[np.ndarray, " n"]:
    """Distance of the neighbour number `N_NEIGHBOURS`; the point itself, at zero, is number 0."""
    return np.partition(distances, N_NEIGHBOURS, axis=1)[:, N_NEIGHBOURS]


def _distance(y: Shaped[np.ndarray, " n #m"], others: Shaped[np.ndarray, "*n m"]) -> Float[np.ndarray, "n m"]:
    """Distances of values: of numbers their difference, of classes infinity."""
    return np.where(y == others, 0.0, np.inf) if y.dtype.kind == "U" else np.abs(y - others)


def _count_marginal(y: Shaped[np.ndarray, " n"], radius: Float[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """Number of values, itself included, that are nearer to each than ``radius``."""
    if y.dtype.kind == "U":
        _, place, sizes = np.unique(y, return_inverse=True, return_counts=True)
        return sizes[place]
    ordered, radius = np.sort(y), radius * _ROUNDING
    return np.searchsorted(ordered, y + radius, "right") - np.searchsorted(ordered, y - radius, "left")
