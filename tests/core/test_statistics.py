"""The Poisson statistics against hand values, Sherpa, and simulated counts."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import xlogy
from scipy.stats import poisson

from xlatent.core import statistics

# n_on, n_off, mu_s, alpha, then W, C and Cash of Sherpa 4.19 (WStat, CStat, Cash on one channel of a DataPHA).
SHERPA = [
    (7, 12, 3.0, 0.25, 0.13950449853595615, 3.862170045420852, -9.380572041353537),
    (0, 12, 3.0, 0.25, 11.355445231541033, 6.0, 6.0),
    (5, 0, 3.0, 0.25, 1.108256237659905, 1.1082562376599068, -4.986122886681098),
    (5, 0, 0.6, 0.25, 11.294379124341003, 12.402635362000911, 6.308256237659907),
    (0, 0, 2.0, 0.25, 4.0, 4.0, 4.0),
    (40, 900, 10.0, 0.05, 4.362594736468964, 50.90354888959125, -164.2068074395237),
    (3, 2, 0.0, 0.5, 1.4834174943487506, 345.97943768111554, 345.3877639491069),
    (0, 0, 0.0, 0.5, 0.0, 2e-25, 2e-25),
    (3, 0, 0.0, 0.5, 6.591673732008658, 345.97943768111554, 345.3877639491069),
    (0, 4, 0.0, 0.5, 3.2437208648653155, 2e-25, 2e-25),
    (1.5, 2.25, 0.7, 0.1, 0.29157723300865435, 0.6864201561406902, 2.4700248318161973),
    (100, 100, 50.0, 1.0, 12.138574938195006, 38.629436111989065, -682.4046010856292),
]

counts = st.integers(0, 100_000).map(float)
means = st.floats(1e-6, 1e5)
scales = st.floats(1e-4, 1e2)


def one(value):
    return np.array([float(value)])


@pytest.mark.parametrize(("n_on", "n_off", "mu", "alpha", "w", "c", "cash"), SHERPA)
def test_equal_to_sherpa(n_on, n_off, mu, alpha, w, c, cash):
    assert statistics.wstat(one(n_on), one(n_off), one(mu), alpha)[0] == pytest.approx(w, rel=1e-10, abs=1e-20)
    assert statistics.cstat(one(n_on), one(mu))[0] == pytest.approx(c, rel=1e-12)
    # Cash's own statistic lacks what does not depend on the model.
    without_model = 2.0 * (xlogy(n_on, n_on) - n_on)
    assert statistics.cstat(one(n_on), one(mu))[0] - without_model == pytest.approx(cash, rel=1e-12)


def test_by_hand():
    # n = 4, mu = 2: C = 2 (2 - 4 + 4 ln 2); n = 0: C = 2 mu.
    assert statistics.cstat(one(4), one(2))[0] == pytest.approx(8 * np.log(2) - 4)
    assert statistics.cstat(one(0), one(3.5))[0] == 7.0
    # n_on = 0: b = n_off / (1 + alpha) = 8, W = 2 [mu + 12 - 12 + 12 ln(12 / 8)].
    assert statistics.wstat_background(one(0), one(12), one(3), 0.5)[0] == pytest.approx(8)
    assert statistics.wstat(one(0), one(12), one(3), 0.5)[0] == pytest.approx(6 + 24 * np.log(1.5))
    # n_off = 0: b = n_on / (1 + alpha) - mu / alpha = 2, W = 2 [-mu / alpha + n_on ln((1 + alpha) / alpha)].
    assert statistics.wstat_background(one(6), one(0), one(1), 0.5)[0] == pytest.approx(2)
    assert statistics.wstat(one(6), one(0), one(1), 0.5)[0] == pytest.approx(-4 + 12 * np.log(3))
    # ... and no background where the source model alone explains the counts: W is C.
    assert statistics.wstat_background(one(6), one(0), one(5), 0.5)[0] == 0
    assert statistics.wstat(one(6), one(0), one(5), 0.5)[0] == pytest.approx(12 * np.log(6 / 5) - 2)


@given(n=counts, mu=means)
def test_cstat_is_never_negative_and_zero_where_the_model_fits(n, mu):
    assert statistics.cstat(one(n), one(mu))[0] >= 0
    assert statistics.cstat(one(n), one(n))[0] == pytest.approx(0, abs=1e-20)


@given(n=counts, first=means, second=means)
def test_cstat_and_cash_differ_by_a_constant(n, first, second):
    cash = 2.0 * (first - second - n * np.log(first / second))  # Cash 1979, ApJ 228, 939, equation 5
    cstat = statistics.cstat(one(n), one(first)) - statistics.cstat(one(n), one(second))
    assert cash == pytest.approx(cstat[0], rel=1e-9, abs=1e-5)


@given(n_on=counts, n_off=counts, mu=means, alpha=scales)
def test_wstat_background_is_where_the_statistic_is_least(n_on, n_off, mu, alpha):
    best = statistics.wstat_background(one(n_on), one(n_off), one(mu), alpha)[0]
    value = statistics.wstat(one(n_on), one(n_off), one(mu), alpha)[0]
    assert best >= 0
    assert value >= 0

    def at(background):
        total = statistics.cstat(one(n_on), one(mu + alpha * background)) + statistics.cstat(
            one(n_off), one(background)
        )
        return total[0]

    assert value == pytest.approx(at(best), rel=1e-6, abs=1e-6)
    for other in (best * 0.9, best * 1.1, best + 1e-3):
        assert at(other) >= value - 1e-6 * max(1.0, value)


@given(n_off=st.integers(1, 1000).map(float), alpha=scales, mu=st.floats(1e-3, 1e3))
def test_wstat_is_zero_where_both_spectra_are_met(n_off, alpha, mu):
    assert statistics.wstat(one(mu + alpha * n_off), one(n_off), one(mu), alpha)[0] == pytest.approx(0, abs=1e-6)


@given(n=st.integers(0, 100).map(float), mu=st.floats(1e-3, 100))
def test_wstat_without_background_is_cstat(n, mu):
    expected = statistics.cstat(one(n), one(mu))[0]
    assert statistics.wstat(one(n), one(7), one(mu), 0.0)[0] == pytest.approx(expected, rel=1e-9, abs=1e-9)
    assert statistics.wstat(one(n), one(7e9), one(mu), 1e-16)[0] == pytest.approx(expected, rel=1e-3, abs=1e-3)


@given(n=counts, mu=means, factor=st.floats(0.1, 10))
def test_cstat_is_homogeneous(n, mu, factor):
    scaled = statistics.cstat(one(factor * n), one(factor * mu))[0]
    assert scaled == pytest.approx(factor * statistics.cstat(one(n), one(mu))[0], rel=1e-6, abs=1e-6)


def test_shapes_broadcast():
    n_on, n_off = np.ones((3, 1, 5)), np.ones((1, 4, 5))
    assert statistics.wstat(n_on, n_off, np.ones(5), np.full(5, 0.1)).shape == (3, 4, 5)
    assert statistics.cstat(n_on, np.ones(5)).shape == (3, 1, 5)
    mean, variance = statistics.expected_wstat(np.ones((2, 5)), np.ones(5), 0.1)
    assert mean.shape == variance.shape == (2, 5)


@pytest.mark.parametrize("mu", [1e-4, 0.01, 0.29, 0.31, 1.0, 2.9, 11.9, 12.0, 15.0, 40.0, 1000.0])
def test_expected_wstat_without_background_is_the_poisson_average_of_cstat(mu):
    n = np.arange(0.0, mu + 15 * np.sqrt(mu) + 40)
    weight, value = poisson.pmf(n, mu), statistics.cstat(n, one(mu))
    mean = np.sum(weight * value)
    variance = np.sum(weight * (value - mean) ** 2)
    found = statistics.expected_wstat(one(mu), one(0.0), 0.0)
    assert found[0][0] == pytest.approx(mean, rel=1e-4)
    assert found[1][0] == pytest.approx(variance, rel=1e-3)


def test_expected_wstat_limits_without_background():
    mean, variance = statistics.expected_wstat(np.array([-1.0, 0.0, 1e-8, 1e6]), np.zeros(4), 0.0)
    assert mean[:2] == pytest.approx([0, 0], abs=1e-20)
    assert variance[:2] == pytest.approx([0, 0], abs=1e-20)
    # Few counts: n = 0 or 1, so E = 2 mu + mu (-2 - 2 ln mu) to first order in mu.
    assert mean[2] == pytest.approx(2e-8 * np.log(1e8), rel=1e-3)
    # Many counts: chi-squared of one degree of freedom, with E = 1 + 1 / (6 mu).
    assert mean[3] == pytest.approx(1 + 1 / 6e6, abs=1e-8)
    assert variance[3] == pytest.approx(2, rel=1e-5)


@pytest.mark.parametrize(
    ("mu", "background", "alpha"),
    [(0.01, 0.1, 0.1), (0.5, 2, 1), (3, 7, 0.5), (1, 50, 0.01), (20, 9, 1), (0, 100, 0.1), (9, 3, 2), (30, 60, 0.3)],
)
def test_expected_wstat_is_the_double_poisson_average(mu, background, alpha):
    on = mu + alpha * background
    n_on = np.arange(0.0, on + 12 * np.sqrt(on) + 20)[:, None]
    n_off = np.arange(0.0, background + 12 * np.sqrt(background) + 20)
    weight = poisson.pmf(n_on, on) * poisson.pmf(n_off, background)
    value = statistics.wstat(n_on, n_off, one(mu), float(alpha))
    mean = np.sum(weight * value)
    variance = np.sum(weight * (value - mean) ** 2)
    found = statistics.expected_wstat(one(mu), one(background), float(alpha))
    assert found[0][0] == pytest.approx(mean, rel=1e-3)
    assert found[1][0] == pytest.approx(variance, rel=1e-3)


@pytest.mark.parametrize(("source", "total_background", "alpha"), [(30, 20, 0.05), (500, 1000, 0.1), (1000, 5000, 0.3)])
def test_goodness_of_fit_of_simulated_spectra(source, total_background, alpha):
    """A true model gives (W - E) / sigma with mean 0 and scatter 1, over a spectrum of 514 channels."""
    rng = np.random.default_rng(20)
    energy = np.linspace(0.5, 8, 514)
    mu = energy**-1.7 * source / np.sum(energy**-1.7)
    background = (1 + 0.5 * np.sin(energy)) * total_background / np.sum(1 + 0.5 * np.sin(energy))
    n_on = rng.poisson(mu + alpha * background, (2000, 514)).astype(float)
    n_off = rng.poisson(background, (2000, 514)).astype(float)
    mean, variance = statistics.expected_wstat(mu, background, alpha)
    pull = (statistics.wstat(n_on, n_off, mu, alpha).sum(1) - mean.sum()) / np.sqrt(variance.sum())
    assert abs(pull.mean()) < 4 / np.sqrt(2000)
    assert pull.std() == pytest.approx(1, abs=4 / np.sqrt(2 * 2000))
