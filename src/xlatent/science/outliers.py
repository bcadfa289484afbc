"""Sources unlike the others of a table: where few of them lie, or badly reproduced by the model."""

from collections.abc import Callable
from typing import Any

import numpy as np
from astropy.table import Table
from jaxtyping import Float, Shaped

from xlatent.core.errors import ParameterError
from xlatent.core.latents import LatentTable
from xlatent.science.deconvolution import Population, select_population
from xlatent.science.measurement import GaussianLikelihood, remove_prior

MIN_SOURCES = 50
"""Fewest rows that make a population."""
_FITTED = 4000  # rows of each half that its mixture is fitted to
_DRAWS = (100, 1_000, 10_000)
_MIN_BEYOND = 10  # draws beyond a source after which its probability is known well enough
_CHUNK = 200_000  # draws at a time
_ROWS = 1000  # at a time


def find_outliers(
    table: LatentTable,
    sources: Shaped[np.ndarray, " n"] | None = None,
    seed: int = 0,
    progress: Callable[[int], Any] | None = None,
) -> Table:
    """Find the rows that are improbable under the population of the table, and those that are badly reproduced.

    The population is a mixture of Gaussians with the errors taken out, fitted to one half of the sources and used on
    the other, so that no row helps to make itself likely.

    Parameters
    ----------
    table : LatentTable
        At least `MIN_SOURCES` rows with a direction of z that the data measure.
    sources : array [n], optional
        Source of each row; rows of one source are in one half. ``source``, or else ``name``, if not given.
    seed : int
        Of the halves and draws.
    progress : callable, optional
        Called with the number of rows finished so far.

    Returns
    -------
    Table
        One row a row: ``name``; ``log_density`` under the population, per unit noise; ``p_density``, the probability
        that a source of the population with the same errors lies where they are as rare or rarer, by at most 10,000
        draws; ``p_fit``, that its statistic exceeds its expectation as far by noise alone (normal limit of [1]_);
        ``q_density`` and ``q_fit``, the share of false ones among rows up to this one [2]_. NaN where nothing is known.

    Raises
    ------
    ParameterError
        If too few rows have measured latents.

    References
    ----------
    .. [1] Kaastra 2017, A&A 605, A51.
    .. [2] Benjamini & Hochberg 1995, JRSSB 57, 289.

    Examples
    --------
    >>> z = 0.3 * np.random.default_rng(0).standard_normal((60, 8))
    >>> z[0, 0] = 4.0
    >>> covariance = np.tile(np.diag([0.01] * 2 + [1.0] * 6), (60, 1, 1))
    >>> found = find_outliers(LatentTable.from_posterior(z, covariance, {"name": [f"s{i}" for i in range(60)]}))
    >>> found["name"][found["q_density"] < 0.05].tolist()
    ['s0']
    """
    from scipy.stats import norm

    data = remove_prior(table.z, table.covariance)
    measured = data.constrained.any(axis=1)
    if measured.sum() < MIN_SOURCES:
        raise ParameterError(
            f"outliers are judged against a population of {MIN_SOURCES} or more rows whose latents the data measure, "
            f"found {int(measured.sum())}; give a longer table"
        )
    rng = np.random.default_rng(seed)
    _, number = np.unique(table.source_names if sources is None else sources, return_inverse=True)
    half = rng.permutation(number.max() + 1)[number] % 2
    log_density, p_density = np.full(len(table), np.nan), np.full(len(table), np.nan)
    done = 0
    for side in (0, 1):
        others, rows = (np.flatnonzero(measured & (half == part)) for part in (1 - side, side))
        if not len(others):  # all rows are of one source
            others = rows
        population = select_population(data[rng.permutation(others)[:_FITTED]], seed=seed)
        for begin in range(0, len(rows), _ROWS):
            part = rows[begin : begin + _ROWS]
            log_density[part] = np.logaddexp.reduce(population.component_log_densities(data[part]), axis=1)
            p_density[part] = density_p_values(population, data[part], rng)
            done += len(part)
            if progress is not None:
                progress(done)
    cstat, expected, sigma = (np.asarray(table[name], float) for name in ("cstat", "cstat_expected", "cstat_sigma"))
    with np.errstate(divide="ignore", invalid="ignore"):
        p_fit = norm.sf((cstat - expected) / sigma)
    columns = {"name": np.asarray(table["name"]), "log_density": log_density}
    for name, p in (("density", p_density), ("fit", p_fit)):
        columns |= {f"p_{name}": p, f"q_{name}": _correct_for_number(p)}
    return Table(columns)


def density_p_values(
    population: Population, data: GaussianLikelihood, rng: np.random.Generator
) -> Float[np.ndarray, " n"]:
    """Compute the probability that a source of the population, measured as each of these was, has no higher density.

    By draws, more of them where few lie beyond.

    References
    ----------
    Besag & Clifford 1991, Biometrika 78, 301 (when to stop).

    Examples
    --------
    The probability of 2 standard deviations or more, 0.046, from 10,000 draws at most:

    >>> population = Population(np.ones(1), np.zeros((1, 8)), np.eye(8)[None])
    >>> covariance = np.diag([0.001] + [1.0] * 7)[None]
    >>> likelihood = remove_prior(2.0 * np.eye(8)[:1], covariance)
    >>> bool(0.02 < density_p_values(population, likelihood, np.random.default_rng(0))[0] < 0.08)
    True
    """
    white, log_size = population.whiten(data)
    roots = np.linalg.cholesky(population.covariances)
    centre = np.einsum("nij,kj->nki", data.slopes, population.means)
    threshold = np.logaddexp.reduce(population.component_log_densities(data), axis=1)
    beyond, drawn = np.zeros(len(data)), np.zeros(len(data))
    n_measurements, d = data.slopes.shape[1:]
    for total in _DRAWS:
        waiting = np.flatnonzero(beyond < _MIN_BEYOND)
        step = max(1, _CHUNK // total)
        for begin in range(0, len(waiting), step):
            rows = waiting[begin : begin + step]
            kind = rng.choice(len(population.weights), total, p=population.weights)
            z = population.means[kind] + np.einsum("mij,mj->mi", roots[kind], rng.standard_normal((total, d)))
            noise = rng.standard_normal((len(rows), total, n_measurements)) * data.constrained[rows, None]
            values = np.einsum("nij,mj->nmi", data.slopes[rows], z) + noise
            density = np.full((len(rows), total), -np.inf)
            for k in range(len(population.weights)):
                residual = (values - centre[rows, k, None]) @ white[rows, k].transpose(0, 2, 1)
                density = np.logaddexp(density, log_size[rows, k, None] - 0.5 * np.sum(residual**2, axis=-1))
            beyond[rows] = np.sum(density <= threshold[rows, None], axis=1)
            drawn[rows] = total
    return (beyond + 1.0) / (drawn + 1.0)


def _correct_for_number(p: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """False-discovery rates of tests of probabilities p; NaN is no test."""
    from scipy.stats import false_discovery_control

    corrected, tested = np.full(len(p), np.nan), np.isfinite(p)
    if tested.any():
        corrected[tested] = false_discovery_control(p[tested])
    return corrected
