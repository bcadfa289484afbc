"""How much of a measured quantity the latents hold: R² of sources left out of the fit."""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from astropy.table import Table
from jaxtyping import Float, Int

from xlatent.core.errors import ParameterError
from xlatent.core.extras import requires_extra
from xlatent.core.latents import LatentTable
from xlatent.science.resampling import N_FOLDS, assign_folds, bootstrap_interval, source_weights, subsample
from xlatent.science.selection import has_enough_sources, log_if_wide, numeric_column, source_ids, valid_rows
from xlatent.science.weighted_scores import r_squared

REGRESSORS = ("linear", "neighbours", "boosting")
MIN_SOURCES = 20
MAX_ROWS = 100_000
_NEIGHBOURS = 10
_LEAVES = 8  # of each tree: three splits deep, as if of three latents


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

    Examples
    --------
    >>> z = np.random.default_rng(0).standard_normal((60, 8))
    >>> columns = {"name": [f"s{i}" for i in range(60)], "slope": 2.0 - z[:, 0]}
    >>> table = LatentTable.from_posterior(z, np.tile(0.01 * np.eye(8), (60, 1, 1)), columns)
    >>> result = regress(table, ["slope"])
    >>> result["regressor"][0], round(float(result["r2"][0]), 3)
    (np.str_('linear'), 1.0)
    """
    columns = {target: numeric_column(table, target) for target in targets}
    valid, every_source, z = valid_rows(table), source_ids(table), table.z
    results: list[tuple] = []
    for done, (target, values) in enumerate(columns.items(), start=1):
        rows = subsample(np.flatnonzero(valid & np.isfinite(values)), MAX_ROWS, seed)
        sources, y = every_source[rows], values[rows]
        if has_enough_sources(target, y, sources, MIN_SOURCES):
            name, y = log_if_wide(target, y)
            weights, n_sources = source_weights(sources), len(np.unique(sources))
            for regressor, predicted in _cross_predict(z[rows], y, sources, seed).items():
                limits = bootstrap_interval(partial(r_squared, y, predicted), sources, seed)
                r2 = r_squared(y, predicted, weights)
                results.append((name, regressor, r2, *limits, len(rows), n_sources))
        if progress is not None:
            progress(done)
    if not results:
        raise ParameterError(
            f"of {', '.join(targets)} no column has {MIN_SOURCES} sources with latents and values that differ; "
            "choose others or give more sources"
        )
    return Table(rows=results, names=("target", "regressor", "r2", "r2_lolim", "r2_hilim", "n_rows", "n_sources"))


def _cross_predict(
    z: Float[np.ndarray, "n 8"], y: Float[np.ndarray, " n"], sources: Int[np.ndarray, " n"], seed: int
) -> dict[str, Float[np.ndarray, " n"]]:
    """Prediction of each row by each regressor, fitted to the sources of the other folds."""
    with requires_extra("science", "sklearn"):
        from sklearn.ensemble import HistGradientBoostingRegressor
        from sklearn.linear_model import LinearRegression
        from sklearn.neighbors import KNeighborsRegressor

    fold = assign_folds(sources, seed=seed)
    predicted = {name: np.empty(len(y)) for name in REGRESSORS}
    for k in range(N_FOLDS):
        held_out = fold == k
        models = (
            LinearRegression(),
            KNeighborsRegressor(_NEIGHBOURS),
            # Without early stopping, for that would set rows aside, not sources.
            HistGradientBoostingRegressor(max_leaf_nodes=_LEAVES, early_stopping=False, random_state=seed),
        )
        for name, model in zip(REGRESSORS, models, strict=True):
            predicted[name][held_out] = model.fit(z[~held_out], y[~held_out]).predict(z[held_out])
    return predicted
