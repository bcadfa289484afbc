"""The classes that spectra are simulated of: what was published of them, and ratios that are right."""

import importlib
from pathlib import Path

import numpy as np
import pytest

from xlatent.core.bands import hardness_ratios
from xlatent.core.grid import ModelGrid
from xlatent.core.taxonomy import CLASSES
from xlatent.simulate import population

N = 300


@pytest.fixture(scope="module")
def classes():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).resolve().parents[2] / "benchmarks")
        yield importlib.import_module("classes")


@pytest.fixture(scope="module")
def drawn(classes):
    return {name: make(np.random.default_rng(3), N) for name, make in classes.POPULATIONS.items()}


def test_every_class_has_spectra(drawn):
    assert tuple(drawn) == CLASSES
    grid = ModelGrid()
    ratios = {}
    for name, rows in drawn.items():
        assert all(len(values) == N and np.isfinite(values).all() for values in rows.values())
        photons = population.spectra(grid.energy, rows)
        assert np.isfinite(photons).all() and (photons > 0).all()
        ratios[name] = hardness_ratios(photons, grid.energy)["hard_hs"]
    middle = {name: np.median(values) for name, values in ratios.items()}
    assert middle["LM-STAR"] < middle["HM-STAR"] < middle["YSO"] < middle["HMXB"]
    # None is set apart from the others by hand: within three classes lie the middle of five and more.
    for name in ("AGN", "NS", "LMXB"):
        low, high = np.quantile(ratios[name], (0.02, 0.98))
        assert sum(low < value < high for value in middle.values()) >= 5


def test_parameters_are_those_cited(drawn):
    agn, cv = drawn["AGN"], drawn["CV"]
    assert np.mean(agn["gamma_1"]) == pytest.approx(1.8, abs=0.06)
    assert np.mean(agn["nh_1"] > 1.0) == pytest.approx(0.53, abs=0.09)
    assert np.mean(agn["nh_1"] > 100.0) == pytest.approx(0.08, abs=0.05)
    assert np.median(drawn["YSO"]["nh"]) == pytest.approx(0.63, rel=0.35)
    assert np.mean(drawn["HMXB"]["gamma_1"][drawn["HMXB"]["family_1"] == 0]) == pytest.approx(1.0, abs=0.08)
    assert 5.0 < np.median(cv["kt_1"]) < 30.0 and np.mean(cv["covering_1"] < 1.0) == pytest.approx(0.5, abs=0.09)
    assert np.all(drawn["LM-STAR"]["nh"] <= 0.1)


@pytest.mark.slow
def test_ratios_of_counts_are_those_of_the_photons(classes):
    grid, rng = ModelGrid(), np.random.default_rng(5)
    responses = classes.simulated.unseen_responses(grid)
    rows = classes.high_mass_binary(rng, 8)
    seen = classes.simulated.observe(grid, rng, rows, np.full(8, 1e5), responses, np.arange(8))
    found = np.stack([classes.count_ratios(spectrum) for spectrum in seen.spectra])
    truth = np.stack([*hardness_ratios(seen.photons, grid.energy).values()], axis=1)
    assert np.abs(found[:, 0] - truth[:, 0]).max() < 0.12  # the area of one spectrum stands for all
    assert np.corrcoef(found[:, 0], truth[:, 0])[0, 1] > 0.98
    assert (np.exp(found[:, 3]) < 0.05).all()
