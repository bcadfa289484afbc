"""Draws that quantities are made from: as wide as the covariance says, with heavier tails, always the same."""

import numpy as np
import pytest

from xlatent.infer.quantities import posterior_draws
from xlatent.infer.refine import Posterior


def posterior(covariance):
    n, k = len(covariance), covariance.shape[1]
    nothing = np.ones(n)
    return Posterior(np.full((n, k - 1), 2.0), np.full(n, -3.0), covariance, nothing, nothing, nothing, nothing)


def test_widths_centre_and_tails():
    scale = np.array([0.01, 0.1, 1.0])
    draws = posterior_draws(posterior(np.diag(scale**2)[None]), 40_000)[0] - [2.0, 2.0, -3.0]
    np.testing.assert_allclose(draws.mean(axis=0), 0.0, atol=1e-12)
    low, high, far = np.quantile(draws / scale, [0.15865, 0.84135, 0.975], axis=0)
    np.testing.assert_allclose(-low, 1.0, rtol=0.03)
    np.testing.assert_allclose(high, 1.0, rtol=0.03)
    assert (far > 2.1).all() and (far < 2.5).all()  # 1.96 if the tails were Gaussian


def test_correlations_hold_and_a_point_stays_one():
    covariance = np.zeros((2, 2, 2))
    covariance[0] = [[1.0, 0.8], [0.8, 1.0]]
    draws = posterior_draws(posterior(covariance), 4000)
    assert np.corrcoef(draws[0].T)[0, 1] == pytest.approx(0.8, abs=0.04)
    np.testing.assert_allclose(draws[1], np.tile([2.0, -3.0], (4000, 1)))
    np.testing.assert_array_equal(draws, posterior_draws(posterior(covariance), 4000))
