"""Errors of the decoder: found where there are some and not where there are none, and what they do to a posterior."""

import numpy as np
import pytest

from xlatent.core.bundle import DEFAULT_MODEL
from xlatent.infer.calibrate import model_errors
from xlatent.infer.decoder_errors import ModelErrors
from xlatent.infer.embed import LatentModel, load_model
from xlatent.infer.observation import prepare
from xlatent.simulate.reference import reference_spectra


@pytest.fixture(scope="module")
def model():
    return load_model(DEFAULT_MODEL, threads=1)


@pytest.fixture(scope="module")
def bright(model):
    return reference_spectra(model.grid, 96, (4.0, 5.0))


def with_errors(model, errors):
    return LatentModel(model.info, model._encoder, model._decoder._session, errors)


@pytest.mark.slow
def test_a_truth_further_off_gives_larger_errors(model, bright):
    spectra, photons = bright
    ripple = np.sin(6.0 * np.log(model.grid.energy_mid))
    found = [model_errors(model, spectra, photons * np.exp(size * ripple)) for size in (0.0, 0.5, 1.5)]
    assert found[0].typical < found[1].typical < found[2].typical


@pytest.mark.slow
def test_none_where_the_decoder_is_right(model, bright):
    spectra, _ = bright
    observations = [prepare(s, model.projector) for s in spectra]
    fitted = model._posterior(observations, True)
    made = np.exp(model._decoder.log_flux(fitted.z) + fitted.log_amplitude[:, None])
    assert model_errors(model, spectra, made).typical < 1e-6


@pytest.mark.slow
def test_errors_widen_bright_posteriors_and_leave_faint_ones(model):
    assert model.errors is not None
    bare = with_errors(model, None)
    for counts, least, most in ((1.5, 1.0, 1.05), (5.0, 1.2, 10.0)):
        spectra, _ = reference_spectra(model.grid, 32, (counts, counts + 0.01))
        wide, narrow = (np.asarray(m.embed(spectra)["z0_err"]) for m in (model, bare))
        assert least - 1e-9 <= np.median(wide / narrow) < most
        np.testing.assert_array_equal(model.embed(spectra)["z0"], bare.embed(spectra)["z0"])


@pytest.mark.slow
def test_no_latent_gets_wider_than_its_prior(model, bright):
    huge = ModelErrors(model.errors.shapes, 1e3, model.errors.spread, model.errors.largest)
    table = with_errors(model, huge).embed(bright[0])
    assert np.linalg.eigvalsh(table.covariance).max() < 1.0 + 1e-6


def test_a_statistic_above_expectation_tells_of_larger_errors(model):
    one = np.ones(3)
    small, usual, large = model.errors.size(np.array([0.0, 100.0, 1e4]), 30.0 * one, 5e3 * one, 1e6 * one)
    assert small < usual < large
    # A statistic that sees nothing of the errors says nothing of their size.
    above, below = model.errors.size(np.array([90.0, -90.0]), 30.0 * one[:2], 1e-6 * one[:2], 0.0 * one[:2])
    assert above == pytest.approx(below)


def test_the_file_keeps_everything(model, tmp_path):
    model.errors.save(tmp_path / "model_errors.npz")
    found = ModelErrors.load(tmp_path / "model_errors.npz")
    np.testing.assert_array_equal(found.shapes, model.errors.shapes)
    assert (found.typical, found.spread, found.largest) == (
        model.errors.typical, model.errors.spread, model.errors.largest,
    )  # fmt: skip
