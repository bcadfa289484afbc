"""The table of expected statistics against the exact averages that it stands for."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from xlatent.core.statistics import expected_wstat
from xlatent.infer.expected import _read, expected_statistic, tabulate


@given(st.integers(0, 2**31))
def test_sums_over_channels_are_right(seed):
    # To a twentieth of the standard deviation: nobody judges a fit more finely than that.
    rng = np.random.default_rng(seed)
    source = 10 ** rng.uniform(-5.0, 2.0) * rng.gamma(1.0, 1.0, 300)
    background, alpha = (
        10 ** rng.uniform(-4.0, 1.0) * rng.gamma(2.0, 1.0, 300),
        np.full(300, 10 ** rng.uniform(-3, 0.5)),
    )
    mean, variance = expected_statistic(source, background, alpha)
    wanted_mean, wanted_variance = expected_wstat(source, background / alpha, alpha)
    sigma = np.sqrt(wanted_variance.sum())
    assert abs(mean.sum() - wanted_mean.sum()) < 0.05 * sigma + 0.01
    assert abs(np.sqrt(variance.sum()) - sigma) < 0.05 * sigma + 0.01


@given(st.integers(0, 2**31))
def test_without_background_it_is_the_c_statistic(seed):
    rng = np.random.default_rng(seed)
    source = 10 ** rng.uniform(-5.0, 3.0) * rng.gamma(1.0, 1.0, 300)
    mean, variance = expected_statistic(source, np.zeros(300), np.zeros(300))
    wanted_mean, wanted_variance = expected_wstat(source, np.zeros(300), 0.0)
    sigma = np.sqrt(wanted_variance.sum())
    assert abs(mean.sum() - wanted_mean.sum()) < 0.05 * sigma + 0.01
    assert abs(np.sqrt(variance.sum()) - sigma) < 0.05 * sigma + 0.01


def test_no_counts_no_statistic():
    nothing = np.zeros(5)
    mean, variance = expected_statistic(nothing, nothing, nothing)
    np.testing.assert_array_equal([mean, variance], 0.0)


def test_the_file_is_what_the_code_makes():
    for kept, made in zip(_read(), tabulate(), strict=True):
        np.testing.assert_allclose(kept, made, atol=1e-4)
