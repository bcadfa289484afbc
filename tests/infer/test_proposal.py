"""The learnt proposal's maps are a density, its frame is the Gaussian posterior, and bundles without it go on."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from xlatent.core.spectrum import Spectrum
from xlatent.infer.density import ExactDensity
from xlatent.infer.embed import load_model
from xlatent.infer.observation import prepare
from xlatent.infer.proposal import Frame, TriangularMaps, context, n_coefficients, probes
from xlatent.infer.sample import sample
from xlatent.simulate import acis


@pytest.fixture(scope="module")
def model():
    return load_model(threads=1)


def observation_of(model, counts):
    rng = np.random.default_rng(4)
    response = acis.response("FI", 2012.0, 2.0)
    rate = response.fold(response.energy_lo**-1.7 * (response.energy_hi - response.energy_lo))
    off = Spectrum(rng.poisson(np.full(1024, 0.1)).astype(float), 1e4, backscale=8.0)
    on = rng.poisson(counts * rate / rate.sum() + 0.0125).astype(float)
    return prepare(Spectrum(on, 1e4, backscale=1.0, background=off, response=response), model.projector)


def test_without_coefficients_the_maps_are_a_normal_distribution():
    maps = TriangularMaps(np.zeros(n_coefficients(9)), 9)
    normal = np.random.default_rng(0).standard_normal((50, 9))
    white, log_density = maps.transform(normal)
    np.testing.assert_allclose(white, normal, atol=1e-12)
    np.testing.assert_allclose(log_density, multivariate_normal(np.zeros(9)).logpdf(normal))


def test_the_maps_are_a_density():
    maps = TriangularMaps(0.15 * np.random.default_rng(1).standard_normal(n_coefficients(2)), 2)
    white, log_density = maps.transform(np.random.default_rng(2).standard_normal((4000, 2)))
    np.testing.assert_allclose(maps.log_density(white), log_density, atol=1e-9)
    # On a grid the density sums to one and has the mean of the draws.
    steps = np.linspace(-12.0, 12.0, 481)
    grid = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)
    density = np.exp(maps.log_density(grid)) * (steps[1] - steps[0]) ** 2
    assert density.sum() == pytest.approx(1.0, abs=2e-3)
    assert np.abs(density @ grid - white.mean(axis=0)).max() < 0.1
    assert np.abs(white.mean(axis=0)).max() > 0.1  # not the normal distribution they were made of


@pytest.mark.parametrize("counts", [0.0, 20.0, 5e4])
def test_a_context_is_finite_and_knows_the_gaussian(model, counts):
    observation = observation_of(model, counts)
    fits = model._posterior([observation], True)
    density = ExactDensity(model._decoder, observation, 8)
    frame = Frame.of(density, fits, 0)
    described = context(frame, density, observation)
    assert described.shape == (219,) and np.isfinite(described).all()
    white = np.random.default_rng(5).standard_normal((20, 9))
    np.testing.assert_allclose(frame.whitened(frame.points(white)), white, atol=1e-9)
    np.testing.assert_allclose(frame.points(white)[:, :8] - fits.z[0], white @ frame.root[:8].T, atol=1e-12)
    # What lies beyond the parabola is small where there are many counts.
    beyond = np.abs(np.sinh(described[-2 * ((len(probes(9)) - 1) // 2) :]))
    assert counts < 1e4 or np.median(beyond) < 0.1


def test_a_learnt_proposal_changes_the_way_and_not_the_end(model):
    # Coefficients of zero propose the Gaussian at the mode.
    observation = observation_of(model, 300.0)
    fits = model._posterior([observation], True)
    gaussian = SimpleNamespace(run=lambda _, inputs: [np.zeros((1, n_coefficients(9)), dtype=np.float32)])
    (one,), (ess,) = sample(model._decoder, [observation], fits, 2000)
    (other,), (with_it,) = sample(model._decoder, [observation], fits, 2000, gaussian)
    assert ess > 1000 and with_it > 1000 and not np.array_equal(one, other)
    assert np.abs(one.mean(axis=0) - other.mean(axis=0)).max() < 0.15 * one.std(axis=0).max()
    assert np.abs(one.std(axis=0) / other.std(axis=0) - 1.0).max() < 0.15
