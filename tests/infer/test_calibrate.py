"""Errors of the model: found where there are some, and not where there are none."""

import numpy as np
import pytest

from xlatent.bundle import DEFAULT_MODEL
from xlatent.infer.calibrate import model_error_counts
from xlatent.infer.embed import LatentModel, load_model
from xlatent.simulate.reference import reference_spectra


@pytest.fixture(scope="module")
def model():
    shipped = load_model(DEFAULT_MODEL, threads=1)
    assert shipped.info.model_error_counts > 0
    bare = shipped.info.model_copy(update={"model_error_counts": None})
    return LatentModel(bare, shipped._encoder, shipped._decoder._session)


def test_larger_errors_matter_from_fewer_counts(model):
    spectra, photons = reference_spectra(model.grid, 96)
    tilt = np.log(model.grid.energy_mid / 2.0)
    found = [model_error_counts(model, spectra, photons * np.exp(0.1 * size * tilt)) for size in (0.3, 1.0)]
    assert found[0] > found[1]


def test_none_where_intervals_hold_what_they_should(model):
    spectra, _ = reference_spectra(model.grid, 32)
    made = np.stack([model.reconstruct(s).photons * model.grid.energy_width for s in spectra])
    assert model_error_counts(model, spectra, made) is None
