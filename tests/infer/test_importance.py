"""What importance samplers share, against what it must be: moments, ratios of weights, shares of draws."""

import numpy as np
import pytest
from scipy.stats import multivariate_t

from xlatent.infer.importance import (
    DOF,
    StudentComponents,
    effective_number,
    normalised_weights,
    student_stretch,
    systematic_indices,
)


def test_systematic_draws_follow_the_weights():
    rng = np.random.default_rng(8)
    weights = rng.dirichlet(np.full(50, 0.3))
    for offset in (rng.random(), 0.5):
        times = np.bincount(systematic_indices(weights, 1000, offset), minlength=50)
        assert times.sum() == 1000 and np.all(np.abs(times - 1000 * weights) < 1.0)


def test_weights_are_tempered_no_more_than_it_takes():
    log_weights = 30.0 * np.random.default_rng(1).standard_normal(2000)
    plain = normalised_weights(log_weights)
    assert plain.sum() == pytest.approx(1.0) and effective_number(plain) < 50
    np.testing.assert_allclose(np.log(plain[:9] / plain[0]), log_weights[:9] - log_weights[0], rtol=1e-9)
    tempered = normalised_weights(log_weights, 100.0)
    power = np.log(tempered[1] / tempered[0]) / (log_weights[1] - log_weights[0])
    assert effective_number(tempered) >= 100.0
    assert effective_number(normalised_weights(power / 0.8 * log_weights)) < 100.0
    np.testing.assert_allclose(normalised_weights(np.array([0.0, -1e9]), 2.0), [1.0, 0.0])  # it ends


def test_components_have_the_density_of_their_draws():
    rng = np.random.default_rng(2)
    root = np.tril(rng.standard_normal((3, 3))) + 2.0 * np.eye(3)
    components = StudentComponents(np.array([[1.0, 0.0, -1.0]]), root[None])
    draws = components.means[0] + student_stretch(rng, 500) * (rng.standard_normal((500, 3)) @ root.T)
    expected = multivariate_t(components.means[0], root @ root.T, df=DOF)
    density, distance = components.log_densities(draws)
    np.testing.assert_allclose(density[0], expected.logpdf(draws), rtol=1e-10)
    # Squared distances over the dimension follow F(3, 5), whose median is 0.9071.
    assert np.median(distance / 3.0) == pytest.approx(0.9071, abs=0.15)
