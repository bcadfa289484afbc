"""The flag of spectra unlike those trained on: rare where nothing is odd, raised where something is."""

import csv
import warnings

import numpy as np
import pytest

from xlatent.core.errors import XlatentWarning
from xlatent.core.spectrum import Spectrum
from xlatent.formats import ogip_spectrum
from xlatent.infer.embed import load_model
from xlatent.simulate import acis
from xlatent.simulate.reference import reference_spectra


@pytest.fixture(scope="module")
def model():
    return load_model(threads=1)


def flags(table):
    return [set(str(row).split(",")) for row in table["flags"]]


def seen(photons, counts):
    response = acis.response("BI", 2008.0)
    energy = 0.5 * (response.energy_lo + response.energy_hi)
    folded = response.fold(photons(energy) * (response.energy_hi - response.energy_lo))
    drawn = np.random.default_rng(4).poisson(counts * folded / folded.sum()).astype(float)
    return Spectrum(drawn, 1e4, response=response)


@pytest.mark.slow
def test_the_population_is_seldom_called_odd(model):
    raised = ["outlier" in row for row in flags(model.embed(reference_spectra(model.grid, 320)[0]))]
    assert np.mean(raised) <= 0.02  # 0.5 % are expected


def test_a_lone_line_is_odd_and_a_power_law_is_not(model):
    line = seen(lambda e: np.exp(-0.5 * ((e - 3.0) / 0.03) ** 2), 3000)
    usual = seen(lambda e: e**-1.8, 3000)
    odd, plain = flags(model.embed([line, usual]))
    assert {"outlier", "poor_fit"} <= odd
    assert not {"outlier", "poor_fit"} & plain


def test_tycho_and_the_deep_field_lie_within_what_was_trained_on(model, shared_data):
    # Odd lines are the fit's concern; the latents of these stay among those of the population.
    folder = shared_data / "spectra"
    with (folder / "manifest.csv").open() as file, warnings.catch_warnings():
        warnings.simplefilter("ignore", XlatentWarning)
        wanted = [row for row in csv.DictReader(file) if row["name"].startswith(("tycho", "cdfs"))]
        spectra = [
            ogip_spectrum.read(
                folder / row["pha"], **{key: folder / row[key] for key in ("arf", "rmf", "background") if row[key]}
            )
            for row in wanted
        ]
    assert len(spectra) >= 5
    assert not any("outlier" in row for row in flags(model.embed(spectra)))
