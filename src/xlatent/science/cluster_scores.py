"""How well clusters of sources agree with known classes."""

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from astropy.table import Table
from jaxtyping import Bool, Float, Int, Shaped

from xlatent.core.errors import ParameterError, XlatentWarning
from xlatent.science.resampling import N_FOLDS, bootstrap, folds, half_sampling, sklearn_needed, source_weights

COMPACT = ("HMXB", "LMXB", "NS", "CV")
"""Stellar-mass compact objects among the classes of Yang et al. 2022 (ApJ 941, 104)."""


def judge(
    label: Int[np.ndarray, " n"],
    classes: Shaped[np.ndarray, " n"],
    sources: Int[np.ndarray, " n"],
    seed: int = 0,
) -> Table:
    """Score clusters against classes: all of them, and AGN against `COMPACT`.

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
    """
    known = _large(np.char.strip(classes.astype(str)), sources)
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
    with sklearn_needed():
        from sklearn.metrics import adjusted_rand_score

    n_sources = len(np.unique(sources))
    classes, true = np.unique(truth, return_inverse=True)
    fold = folds(sources, truth, seed)
    weights = source_weights(sources)
    even = weights / np.bincount(true, weights)[true]

    def balanced(right: Bool[np.ndarray, " n"], w: np.ndarray) -> float:
        per_class = np.bincount(true, w)
        present = per_class > 0
        return float(np.mean(np.bincount(true, w * right)[present] / per_class[present]))

    named = {way: _name(label, true, len(classes), fold, w) == true for way, w in (("even", even), ("plain", weights))}
    statistics: dict[str, Any] = {
        "balanced accuracy": lambda w: balanced(named["even"], w),
        "balanced accuracy, plain majority": lambda w: balanced(named["plain"], w),
        "purity": lambda w: float(np.average(named["plain"], weights=w)),
    }
    for name, statistic in statistics.items():
        yield name, statistic(weights), *bootstrap(statistic, sources, seed), n_sources

    def rand(rows: np.ndarray) -> float:
        return float(adjusted_rand_score(true[rows], label[rows]))

    whole, error = rand(np.arange(len(true))), half_sampling(rand, sources, seed)
    yield "adjusted Rand index", whole, whole - error, whole + error, n_sources


def _name(
    label: Int[np.ndarray, " n"],
    true: Int[np.ndarray, " n"],
    n_classes: int,
    fold: Int[np.ndarray, " n"],
    weights: Float[np.ndarray, " n"],
) -> Int[np.ndarray, " n"]:
    """Class of each row by the majority of its cluster's rows in the other folds; of all of them if it has none."""
    given = np.empty(len(true), int)
    for k in range(N_FOLDS):
        out = fold == k
        table = np.zeros((label.max() + 2, n_classes))  # the last row is that of label -1
        np.add.at(table, (label[~out], true[~out]), weights[~out])
        table[table.sum(axis=1) == 0] = table.sum(axis=0)
        given[out] = table.argmax(axis=1)[label[out]]
    return given


def _large(classes: Shaped[np.ndarray, " n"], sources: Int[np.ndarray, " n"]) -> Shaped[np.ndarray, " n"]:
    """Classes of a source in every fold; the others empty."""
    small = [kind for kind in np.unique(classes) if len(np.unique(sources[classes == kind])) < N_FOLDS]
    if named := [str(kind) for kind in small if kind]:
        warnings.warn(
            f"too few sources to judge clusters by ({N_FOLDS} are needed), left out: {', '.join(named)}",
            XlatentWarning,
            stacklevel=3,
        )
    return np.where(np.isin(classes, small), "", classes)
