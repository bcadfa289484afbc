"""The judges from outside: what they measure with, and that each runs."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

import xlatent as xl

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
JUDGES = {"sources": 6, "powerlaws": 6, "misfits": 5, "instruments": 32, "real": 2}  # sources of each


@pytest.fixture(scope="module", autouse=True)
def importable():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        yield
    for name in [name for name in sys.modules if name.split(".")[0] == "judges"]:
        del sys.modules[name]


@pytest.fixture
def yardsticks(shared_data):
    """XSPEC, Sherpa and AtomDB, or none of these tests."""
    pytest.importorskip("xspectrampoline", reason="XSPEC's model library is not installed")
    pytest.importorskip("sherpa", reason="Sherpa is not installed")
    if importlib.import_module("judges.atomdb").folder() is None:
        pytest.skip("the environment's ATOMDB names no folder with AtomDB 3.0.9")


def test_rebinning_keeps_photons_and_their_place():
    families = importlib.import_module("judges.families")
    photons = np.random.default_rng(0).random((2, len(families.EDGES) - 1))
    coarse = families.EDGES[[0, 500, 501, 3000, -1]]
    expected = np.add.reduceat(photons, [0, 500, 501, 3000], axis=1)
    np.testing.assert_allclose(families.rebinned(photons, coarse), expected, rtol=1e-10)
    # A narrow bin is shared evenly, and there is nothing beyond the ends.
    half = families.EDGES[0] + families.WIDTH * np.array([-4.0, 0.0, 0.5, 1.0])
    np.testing.assert_allclose(families.rebinned(photons[0], half), [0.0, 0.5 * photons[0, 0], 0.5 * photons[0, 0]])


def test_truth_is_what_a_line_says():
    families = importlib.import_module("judges.families")
    line = np.zeros((1, len(families.EDGES) - 1))
    line[0, np.searchsorted(families.EDGES, 1.5) - 1] = 2.0
    known = dict(zip(families.QUANTITIES, families.truth(line)[0], strict=True))
    assert known["flux_m"] == known["flux_b"] == pytest.approx(2 * 1.5 * 1.602176634e-9, rel=2e-3)
    assert known["flux_h"] == known["flux_2_8"] == 0.0
    assert known["hard_hm"] == -1.0 and known["hard_ms"] == 1.0


def test_the_gain_score_has_unit_variance_and_sees_a_shift():
    found = importlib.import_module("judges.found")
    score_tests = importlib.import_module("judges.score_tests")
    sample = Path(xl.__file__).parent / "sample" / "sim17_000.pha.gz"
    response = xl.read(sample).response
    model = xl.load_model(threads=1)
    made = model.decode(np.zeros(8)) / model.grid.energy_width
    middle = 0.5 * (response.energy_lo + response.energy_hi)
    width = response.energy_hi - response.energy_lo
    rate = response.fold(np.interp(middle, model.grid.energy_mid, made) * width)
    expected = 10_000 * rate / rate.sum()
    rng = np.random.default_rng(1)
    means, widths = [], []
    for gain in (1.0, 1.03):
        shifted = score_tests.stretched(expected, response.chan_lo, response.chan_hi, gain)
        spectra = [xl.Spectrum(rng.poisson(shifted).astype(float), 1e4, response=response) for _ in range(60)]
        scores = found.embedded(model, spectra, closely=True).gain
        means.append(scores.mean())
        widths.append(scores.std())
    assert abs(means[0]) < 0.7 and 0.7 < widths[0] < 1.3
    assert means[1] - means[0] > 3.0


def test_summed_channels_fold_to_summed_counts():
    instruments = importlib.import_module("judges.instruments")
    spectrum = xl.read(Path(xl.__file__).parent / "sample" / "sim17_000.pha.gz")
    coarse = instruments.summed(spectrum, 16)
    assert coarse.counts.sum() == spectrum.counts.sum() and len(coarse.counts) == 64
    assert coarse.background.counts.sum() == spectrum.background.counts.sum()
    assert coarse.background_scale == spectrum.background_scale
    photons = np.random.default_rng(0).random(len(spectrum.response.energy_lo))
    expected = spectrum.response.fold(photons).reshape(64, 16).sum(axis=1)
    np.testing.assert_allclose(coarse.response.fold(photons), expected, rtol=1e-12)
    assert coarse.response.chan_hi[3] == spectrum.response.chan_hi[63]


@pytest.mark.slow
def test_plasma_at_a_redshift_is_the_plasma_moved(yardsticks):
    atomdb = importlib.import_module("judges.atomdb")
    edges = np.arange(0.5, 8.0, 0.005)
    number = int(np.argmin(np.abs(atomdb.temperatures() - 4.0)))
    here, there = atomdb.photons(edges, number, 1.0), atomdb.photons(edges, number, 1.0, 0.25)
    middle = 0.5 * (edges[1:] + edges[:-1])
    iron = (middle > 6.6) & (middle < 6.8)
    moved = (middle > 6.6 / 1.25) & (middle < 6.8 / 1.25)
    assert middle[iron][np.argmax(here[iron])] == pytest.approx(1.25 * middle[moved][np.argmax(there[moved])], abs=0.01)
    assert there[moved].sum() == pytest.approx(here[iron].sum(), rel=0.02)
    # Of hydrogen and helium alone there is no iron line.
    bare = atomdb.photons(edges, number, 0.0)
    assert bare[iron].max() < 1.1 * bare[iron].min()


@pytest.mark.slow
def test_absorption_is_xspec_s(yardsticks):
    families = importlib.import_module("judges.families")
    xspec = importlib.import_module("judges.xspec")
    for abundances in ("wilm", "angr"):
        xspec.set_abundances(abundances)
        direct = xspec.evaluate("tbabs", families.EDGES, 2.0)
        np.testing.assert_allclose(np.exp(-2.0 * families.optical_depth(abundances)), direct, rtol=1e-9, atol=1e-300)
    direct = xspec.evaluate("pcfabs", families.EDGES, 3.0, 0.7)  # angr is set
    np.testing.assert_allclose(families.partly_covered(3.0, 0.7), direct, rtol=1e-6)
    with pytest.raises(ValueError, match="no abundances 'nobody'"):
        xspec.set_abundances("nobody")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::xlatent.XlatentWarning")
@pytest.mark.parametrize("name", JUDGES)
def test_every_judge_runs(yardsticks, name, monkeypatch):
    module = importlib.import_module(f"judges.{name}")
    monkeypatch.setattr(module, "EACH_QUICK", JUDGES[name])
    found = module.judge(xl.load_model(threads=1), quick=True)
    assert found["targets"] and all(len(target) == 4 for target in found["targets"])
    assert all("nan" not in f"{target[2]}" for target in found["targets"])
    page = importlib.import_module("judges.page")
    text = page.page(xl.load_model().info, {name: {"title": module.TITLE} | found})
    assert module.TITLE in text and all(table in text for table in found["tables"])
