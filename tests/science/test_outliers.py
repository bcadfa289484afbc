"""Rare sources among clumps that are known, with errors of every size."""

import numpy as np
import pytest

from xlatent.core.errors import ParameterError
from xlatent.core.latents import LatentTable
from xlatent.science.deconvolution import Population, fit_population, select_population
from xlatent.science.measurement import remove_prior
from xlatent.science.outliers import density_p_values, find_outliers

CLUMPS = Population(
    np.array([0.7, 0.3]),
    np.array([[0.5, 0.8, 0, 0, 0, 0, 0, 0], [-1.0, -0.5, 0.3, 0, 0, 0, 0, 0]], float),
    np.stack([np.diag([0.04, 0.09] + [0.05] * 6), np.diag([0.09, 0.04] + [0.1] * 6)]),
)


def drawn(n, seed, population=CLUMPS):
    rng = np.random.default_rng(seed)
    kind = rng.choice(2, n, p=population.weights)
    roots = np.linalg.cholesky(population.covariances)
    return population.means[kind] + np.einsum("nij,nj->ni", roots[kind], rng.standard_normal((n, 8))), kind


def observed(z, seed):
    """Posteriors under the unit normal prior from data of very different quality."""
    rng = np.random.default_rng(seed)
    information = 10 ** rng.uniform(1.0, 3.5, (len(z), 1)) * np.array([3, 1, 0.3, 0.1, 0.05, 0.03, 0.02, 0.01])
    covariance = np.zeros((len(z), 8, 8))
    covariance[:, range(8), range(8)] = 1.0 / (1.0 + information)
    noisy = z + rng.standard_normal(z.shape) / np.sqrt(information)
    return noisy * information / (1.0 + information), covariance


def table(z, covariance, **more):
    return LatentTable.from_posterior(z, covariance, {"name": [f"s{i}" for i in range(len(z))], **more})


def test_probabilities_of_the_population_itself_are_even():
    z, _ = drawn(400, 1)
    p = density_p_values(CLUMPS, remove_prior(*observed(z, 2)), np.random.default_rng(3))
    counts = np.histogram(p, np.linspace(0, 1, 6))[0]
    assert np.sum((counts - 80) ** 2 / 80) < 18.5  # chi-squared of 4 degrees, one in a thousand


def test_the_mixture_takes_the_errors_out():
    z, _ = drawn(1000, 4)
    found = fit_population(remove_prior(*observed(z, 5)), 2)
    order = np.argsort(-found.weights)
    np.testing.assert_allclose(found.weights[order], CLUMPS.weights, atol=0.05)
    np.testing.assert_allclose(found.means[order][:, :2], CLUMPS.means[:, :2], atol=0.06)
    spread = np.diagonal(found.covariances[order], axis1=1, axis2=2)[:, :2]
    np.testing.assert_allclose(spread, [[0.04, 0.09], [0.09, 0.04]], atol=0.025)
    # The scatter of what was measured is larger than that: errors were there to be taken out.
    assert len(select_population(remove_prior(*observed(z[:400], 5))).weights) == 2


def test_rare_sources_are_found_and_faint_ones_forgiven():
    z, _ = drawn(400, 6)
    z[:4, 0] = [3.0, -3.5, 0.5, 0.5]
    z[2:4, 1] = [4.0, -4.0]
    means, covariance = observed(z, 7)
    information = np.array([100.0] * 3 + [0.5] * 5)
    covariance[:3] = np.diag(1.0 / (1.0 + information))
    means[:3] = z[:3] * information / (1.0 + information)
    covariance[3], means[3] = np.eye(8) * 0.9, z[3] * 0.1  # as far out, and hardly seen
    found = find_outliers(table(means, covariance))
    assert np.all(found["p_density"][:3] < 2e-4) and np.all(found["q_density"][:3] < 0.05)
    assert not found["p_density"][3] < 0.01
    rest = np.asarray(found["p_density"])[4:]
    assert np.mean(rest < 0.05) < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 396) + 0.02  # of a population that was fitted
    assert np.all(np.isnan(found["p_fit"]))


def test_bad_fits_have_the_probability_of_their_statistic():
    z, covariance = observed(drawn(60, 8)[0], 9)
    cstat = np.full(60, 500.0)
    cstat[0], cstat[1] = 600.0, np.nan
    given = {"cstat": cstat, "cstat_expected": np.full(60, 500.0), "cstat_sigma": np.full(60, 20.0)}
    found = find_outliers(table(z, covariance, **given))
    assert found["p_fit"][0] == pytest.approx(2.87e-7, rel=0.01) and found["p_fit"][2] == pytest.approx(0.5)
    assert np.isnan(found["p_fit"][1]) and found["q_fit"][0] == pytest.approx(59 * 2.87e-7, rel=0.01)


def test_the_same_call_gives_the_same_answer_and_rows_that_are_not_finite_none():
    z, covariance = observed(drawn(80, 10)[0], 11)
    z[5] = np.nan
    first, second = find_outliers(table(z, covariance)), find_outliers(table(z, covariance))
    np.testing.assert_array_equal(first["p_density"], second["p_density"])
    assert np.isnan(first["p_density"][5]) and np.isfinite(np.delete(first["p_density"], 5)).all()


def test_ten_rows_are_no_population():
    with pytest.raises(ParameterError, match=r"50 or more rows .* found 10"):
        find_outliers(table(*observed(drawn(10, 12)[0], 13)))
