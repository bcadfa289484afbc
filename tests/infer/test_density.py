"""The density that weights draws is the one whose mode refinement finds."""

import numpy as np
import pytest

from xlatent.core.spectrum import Spectrum
from xlatent.infer import refine as refinement
from xlatent.infer.density import ExactDensity
from xlatent.infer.embed import load_model
from xlatent.infer.observation import prepare
from xlatent.simulate import acis


@pytest.fixture(scope="module")
def model():
    return load_model(threads=1)


@pytest.mark.parametrize("counts", [0.0, 30.0, 3e4])
@pytest.mark.parametrize("background", [None, 0.0, 40.0, 4000.0])
def test_it_differs_from_the_objective_by_a_constant(model, counts, background):
    rng = np.random.default_rng(int(counts))
    response = acis.response("BI", 2008.0, 1.0)
    rate = response.fold(response.energy_lo**-1.7 * (response.energy_hi - response.energy_lo))
    off = None
    if background is not None:
        off = Spectrum(rng.poisson(np.full(1024, background / 514)).astype(float), 1e4, backscale=7.0)
    on = rng.poisson(counts * rate / rate.sum() + (background or 0.0) / 514 / 7.0).astype(float)
    observation = prepare(Spectrum(on, 1e4, backscale=1.0, background=off, response=response), model.projector)

    theta = 0.5 * rng.standard_normal((300, 9))
    theta[:, -1] += refinement.amplitude_centre(model._decoder, [observation], 8)
    source = refinement.source_counts(observation, theta, model._decoder.log_flux(theta[:, :8]))
    prior_mean = np.append(np.zeros(8), refinement.amplitude_centre(model._decoder, [observation], 8))
    precision = np.append(np.ones(8), refinement.AMPLITUDE_WIDTH**-2)
    expected = -0.5 * refinement.objective(observation, theta, source, prior_mean, precision)

    points = np.column_stack([theta[:, :8], np.log(source.sum(axis=1))])
    found, log_amplitude = ExactDensity(model._decoder, observation, 8)(points)
    np.testing.assert_allclose(log_amplitude, theta[:, -1], atol=1e-5)
    apart = found - expected
    # Single precision: a millionth of what the density itself varies by, and of the counts.
    assert np.ptp(apart) < 1e-3 + 1e-6 * (np.ptp(expected) + on.sum())
