"""How much of a measured quantity the latents hold: R² of sources left out of the fit."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from astropy.table import Table
from jaxtyping import Float, Int

from xlatent.core.errors import ParameterError
from xlatent.core.latents import LatentTable
from xlatent.science.resampling import (
    N_FOLDS,
    bootstrap,
    enough,
    folds,
    numbers,
    sklearn_needed,
    source_of,
    source_weights,
    thin,
    usable,
)

REGRESSORS = ("linear", "neighbours", "boosting")
MIN_SOURCES = 20
MAX_ROWS = 100_000
_NEIGHBOURS = 10
_LEAVES = 8  # of each tree: three splits deep, as if of three latents
_DECADES = 2.0


def regress(
    table: LatentTable,
    targets: Sequence[str],
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> Table:
    """Predict columns from the latents' means, each fifth of the sources from the others.

    The means are taken as they are: the prior pulls a latent that was not measured to zero, where it does no harm.

    Parameters
    ----------
    table : LatentTable
        At most `MAX_ROWS` rows with a value are used, drawn at random.
    targets : sequence of str
        Columns of numbers. One that is positive and spans two decades (1st to 99th percentile) is predicted in
        logarithms.
    seed : int
        Of folds, trees and resampling.
    progress : callable, optional
        Called with the number of targets done.

    Returns
    -------
    Table
        Columns ``target`` (``log10 flux_b`` for logarithms), ``regressor`` (one of `REGRESSORS`: least squares, mean of
        the ten nearest, gradient-boosted trees), ``r2`` (every source with weight one), ``r2_lolim``, ``r2_hilim``
        (68 %, sources resampled with the predictions held fixed), ``n_rows``, ``n_sources``.

    Raises
    ------
    ParameterError
        If a column is missing or not made of numbers, or no column has `MIN_SOURCES` sources and two values.
    XlatentError
        If scikit-learn is missing.

    Warns
    -----
    XlatentWarning
        Of each column left out.
    """
    columns = {target: numbers(table, target) for target in targets}
    good, every_source, z = usable(table), source_of(table), table.z
    results: dict[str, list[Any]] = {
        key: [] for key in ("target", "regressor", "r2", "r2_lolim", "r2_hilim", "n_rows", "n_sources")
    }
    for done, (target, values) in enumerate(columns.items(), start=1):
        rows = thin(np.flatnonzero(good & np.isfinite(values)), MAX_ROWS, seed)
        sources, y = every_source[rows], values[rows]
        if enough(target, y, sources, MIN_SOURCES):
            logarithmic = y.min() > 0 and np.ptp(np.log10(np.percentile(y, [1, 99]))) > _DECADES
            y = np.log10(y) if logarithmic else y
            for regressor, predicted in _predict(z[rows], y, sources, seed).items():

                def r2(weights: np.ndarray, y: np.ndarray = y, predicted: np.ndarray = predicted) -> float:
                    mean = np.average(y, weights=weights)
                    return float(1.0 - np.sum(weights * (y - predicted) ** 2) / np.sum(weights * (y - mean) ** 2))

                low, high = bootstrap(r2, sources, seed)
                name = f"log10 {target}" if logarithmic else target
                row = (name, regressor, r2(source_weights(sources)), low, high, len(rows), len(np.unique(sources)))
                for column, value in zip(results.values(), row, strict=True):
                    column.append(value)
        if progress is not None:
            progress(done)
    if not results["target"]:
        raise ParameterError(
            f"of {', '.join(targets)} no column has {MIN_SOURCES} sources with latents and values that differ; "
            "choose others or give more sources"
        )
    return Table(results)


def _predict(
    z: Float[np.ndarray, "n 8"], y: Float[np.ndarray, " n"], sources: Int[np.ndarray, " n"], seed: int
) -> dict[str, Float[np.ndarray, " n"]]:
    """Prediction of each row by each regressor, fitted to the sources of the other folds."""
    with sklearn_needed():
        from sklearn.ensemble import HistGradientBoostingRegressor
        from sklearn.linear_model import LinearRegression
        from sklearn.neighbors import KNeighborsRegressor

    fold = folds(sources, seed=seed)
    predicted = {name: np.empty(len(y)) for name in REGRESSORS}
    for k in range(N_FOLDS):
        out = fold == k
        models = (
            LinearRegression(),
            KNeighborsRegressor(_NEIGHBOURS),
            # Without early stopping, for that would set rows aside, not sources.
            HistGradientBoostingRegressor(max_leaf_nodes=_LEAVES, early_stopping=False, random_state=seed),
        )
        for name, model in zip(REGRESSORS, models, strict=True):
            predicted[name][out] = model.fit(z[~out], y[~out]).predict(z[out])
    return predicted
