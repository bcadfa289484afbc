"""How well clusters of sources agree with known classes."""

import warnings
from collections.abc import Callable, Iterator

import numpy as np
from astropy.table import Table
from jaxtyping import Float, Int, Shaped

from xlatent.core.errors import ParameterError, XlatentWarning
from xlatent.core.extras import requires_extra
from xlatent.core.taxonomy import COMPACT
from xlatent.science.resampling import N_FOLDS, assign_folds, bootstrap_interval, half_sample_error, source_weights
from xlatent.science.weighted_scores import balanced_accuracy


def score_clustering(
    label: Int[np.ndarray, " n"],
    classes: Shaped[np.ndarray, " n"],
    sources: Int[np.ndarray, " n"],
    seed: int = 0,
) -> Table:
    """Score clusters against classes: all of them, and AGN against `xlatent.core.taxonomy.COMPACT`.

    In turn for each fifth of the sources, clusters are named by the majority of the other four fifths. Rows in no
    cluster are a cluster for this purpose. Every source counts once.

    Parameters
    ----------
    label : array of int [n]
        As of `Clustering`.
    classes : array of str [n]
        Empty where unknown. Classes of fewer than five sources are left out.
    sources : array of int [n]
        Number of the source of each row.
    seed : int
        Of folds and resampling.

    Returns
    -------
    Table
        ``task``; ``score``; ``value``; ``lolim`` and ``hilim`` (68 %, sources resampled, clusters and their names held
        fixed; for the Rand index from halves of the sources); ``n_sources``. Scores: ``balanced accuracy``, clusters
        named by the majority when classes are of equal weight; ``balanced accuracy, plain majority``; ``purity``, the
        share of sources in a cluster of their own class by plain majority; ``adjusted Rand index`` (Hubert & Arabie
        1985, Journal of Classification 2, 193).

    Raises
    ------
    ParameterError
        If not two classes have five sources each.

    Warns
    -----
    XlatentWarning
        Of classes left out.

    Examples
    --------
    >>> classes = np.repeat(["AGN", "CV"], [30, 10])
    >>> table = score_clustering(np.repeat([0, 1], [30, 10]), classes, np.arange(40))
    >>> table["score"][0], float(table["value"][0])
    (np.str_('balanced accuracy'), 1.0)
    """
    known = _without_small_classes(np.char.strip(classes.astype(str)), sources)
    if len(np.unique(known[known != ""])) < 2:
        raise ParameterError("clusters are judged by two or more classes of five sources each; the labels have fewer")
    pair = np.where(np.isin(known, COMPACT), "compact", np.where(known == "AGN", "AGN", ""))
    tasks = {f"{len(np.unique(known[known != '']))} classes": known}
    if {"AGN", "compact"} <= set(pair.tolist()):
        tasks["AGN against compact"] = pair
    results = [
        (task, *score)
        for task, truth in tasks.items()
        for score in _scores(label[truth != ""], truth[truth != ""], sources[truth != ""], seed)
    ]
    return Table(rows=results, names=("task", "score", "value", "lolim", "hilim", "n_sources"))


def _scores(
    label: Int[np.ndarray, " n"], truth: Shaped[np.ndarray, " n"], sources: Int[np.ndarray, " n"], seed: int
) -> Iterator[tuple[str, float, float, float, int]]:
    """Name, value, limits and number of sources of each score."""
    with requires_extra("science", "sklearn"):
        from sklearn.metrics import adjusted_rand_score

    n_sources = len(np.unique(sources))
    classes, truth = np.unique(truth, return_inverse=True)
    fold = assign_folds(sources, truth, seed)
    weights = source_weights(sources)
    balanced = weights / np.bincount(truth, weights)[truth]

    correct, correct_by_number = (
        _majority_class(label, truth, len(classes), fold, vote) == truth for vote in (balanced, weights)
    )
    statistics: dict[str, Callable[[np.ndarray], float]] = {
        "balanced accuracy": lambda w: balanced_accuracy(correct, truth, w),
        "balanced accuracy, plain majority": lambda w: balanced_accuracy(correct_by_number, truth, w),
        "purity": lambda w: float(np.average(correct_by_number, weights=w)),
    }
    for name, statistic in statistics.items():
        yield name, statistic(weights), *bootstrap_interval(statistic, sources, seed), n_sources

    def rand_index(rows: np.ndarray) -> float:
        return float(adjusted_rand_score(truth[rows], label[rows]))

    whole, error = rand_index(np.arange(len(truth))), half_sample_error(rand_index, sources, seed)
    yield "adjusted Rand index", whole, whole - error, whole + error, n_sources


def _majority_class(
    label: Int[np.ndarray, " n"],
    truth: Int[np.ndarray, " n"],
    n_classes: int,
    fold: Int[np.ndarray, " n"],
    weights: Float[np.ndarray, " n"],
) -> Int[np.ndarray, " n"]:
    """Class of each row by the majority of its cluster's rows in the other folds; of all of them if it has none."""
    named = np.empty(len(truth), int)
    for k in range(N_FOLDS):
        held_out = fold == k
        table = np.zeros((label.max() + 2, n_classes))  # the last row is that of label -1
        np.add.at(table, (label[~held_out], truth[~held_out]), weights[~held_out])
        table[table.sum(axis=1) == 0] = table.sum(axis=0)
        named[held_out] = table.argmax(axis=1)[label[held_out]]
    return named


def _without_small_classes(
    classes: Shaped[np.ndarray, " n"], sources: Int[np.ndarray, " n"]
) -> Shaped[np.ndarray, " n"]:
    """Classes, empty where a class has too few sources for one in every fold."""
    small = [kind for kind in np.unique(classes) if len(np.unique(sources[classes == kind])) < N_FOLDS]
    if named := [str(kind) for kind in small if kind]:
        warnings.warn(
            f"too few sources to judge clusters by ({N_FOLDS} are needed), left out: {', '.join(named)}",
            XlatentWarning,
            stacklevel=3,
        )
    return np.where(np.isin(classes, small), "", classes)
