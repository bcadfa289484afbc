"""What is split and resampled is sources, never rows: folds, weights, and the errors of statistics."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int, Shaped

N_FOLDS = 5
_LOW, _HIGH = 15.865, 84.135  # per cent: one standard deviation of a normal distribution


def assign_folds(
    sources: Int[np.ndarray, " n"], classes: Shaped[np.ndarray, " n"] | None = None, seed: int = 0
) -> Int[np.ndarray, " n"]:
    """Deal sources into five folds, the classes, if given, evenly.

    Scikit-learn's ``StratifiedGroupKFold`` spreads rows, not sources, so that one source with many rows fills a fold;
    its ``StratifiedKFold`` of sources splits otherwise, and scores the same (0.4527 for 0.4524 in balanced accuracy of
    labelled CSC sources, four splits that scatter by 0.009).

    Parameters
    ----------
    sources : array of int [n]
        Number of the source of each row.
    classes : array [n], optional
        The same for all rows of a source.
    seed : int
        Of the shuffling.

    Returns
    -------
    array of int [n]
        Fold of each row, 0 to 4, the same for all rows of a source.

    Examples
    --------
    >>> folds = assign_folds(np.repeat(np.arange(10), 3))
    >>> np.bincount(folds).tolist(), len(set(folds[:3]))
    ([6, 6, 6, 6, 6], 1)
    """
    _, first, place = np.unique(sources, return_index=True, return_inverse=True)
    random = np.random.default_rng(seed).random(len(first))
    order = np.lexsort((random,) if classes is None else (random, classes[first]))
    fold = np.empty(len(first), int)
    fold[order] = np.arange(len(first)) % N_FOLDS
    return fold[place]


def source_weights(sources: Int[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Weigh rows such that every source counts once.

    Examples
    --------
    >>> source_weights(np.array([7, 7, 9])).tolist()
    [0.5, 0.5, 1.0]
    """
    _, place, n_rows = np.unique(sources, return_inverse=True, return_counts=True)
    return 1.0 / n_rows[place]


def bootstrap_interval(
    statistic: Callable[[np.ndarray], float], sources: Int[np.ndarray, " n"], seed: int = 0, n_draws: int = 500
) -> tuple[float, float]:
    """Estimate the 68 % interval of a statistic of weighted rows, sources drawn with replacement.

    Parameters
    ----------
    statistic : callable
        Takes the weights of the rows [n]: a multiple of that of `source_weights`.
    sources : array of int [n]
    seed : int
    n_draws : int

    Examples
    --------
    >>> values = np.random.default_rng(0).standard_normal(100)
    >>> low, high = bootstrap_interval(lambda w: float(np.average(values, weights=w)), np.arange(100))
    >>> 0.15 < high - low < 0.25
    True
    """
    rng = np.random.default_rng(seed)
    _, place = np.unique(sources, return_inverse=True)
    n_sources, weights = place.max() + 1, source_weights(place)
    draws = [
        statistic(weights * np.bincount(rng.integers(n_sources, size=n_sources), minlength=n_sources)[place])
        for _ in range(n_draws)
    ]
    low, high = np.nanpercentile(draws, [_LOW, _HIGH])
    return float(low), float(high)


def half_sample_error(
    statistic: Callable[[np.ndarray], float], sources: Int[np.ndarray, " n"], seed: int = 0, n_draws: int = 50
) -> float:
    """Estimate the standard deviation of a statistic that repeated rows would spoil, as one of neighbours or pairs.

    The scatter over random halves of the sources, drawn without replacement, is that of the whole over new samples:
    the variance of a half is twice that of the whole, of which the choice of the half makes one part.

    Parameters
    ----------
    statistic : callable
        Takes row numbers.
    sources : array of int [n]
    seed : int
    n_draws : int

    References
    ----------
    Shao & Wu 1989, Annals of Statistics 17, 1176 (delete-d jackknife).

    Examples
    --------
    >>> values = np.random.default_rng(0).standard_normal(100)
    >>> 0.05 < half_sample_error(lambda rows: float(np.mean(values[rows])), np.arange(100)) < 0.15
    True
    """
    rng = np.random.default_rng(seed)
    unique = np.unique(sources)
    halves = (rng.permutation(unique)[: len(unique) // 2] for _ in range(n_draws))
    return float(np.std([statistic(np.flatnonzero(np.isin(sources, half))) for half in halves], ddof=1))


def subsample(rows: Int[np.ndarray, " n"], limit: int, seed: int = 0) -> Int[np.ndarray, " m"]:
    """Draw at most ``limit`` of the rows at random, in order.

    Examples
    --------
    >>> subsample(np.arange(3), 5).tolist(), len(subsample(np.arange(100), 5))
    ([0, 1, 2], 5)
    """
    if len(rows) <= limit:
        return rows
    return np.sort(np.random.default_rng(seed).choice(rows, limit, replace=False))
