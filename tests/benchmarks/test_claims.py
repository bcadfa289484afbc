"""The paper's claims beside what an evaluation finds, where it is known what there is to find."""

import importlib
import json
from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table

from xlatent.core.bundle import DEFAULT_MODEL, locate, read_info
from xlatent.core.latents import LatentTable
from xlatent.core.spectrum import Spectrum
from xlatent.formats import latent_tables, store
from xlatent.science import classifier_training, formulas, information
from xlatent.simulate import acis
from xlatent.simulate.continuum import powerlaw
from xlatent.workflows.evaluation import classification, sections
from xlatent.workflows.evaluation.run import Evaluation, evaluate

pytestmark = pytest.mark.slow

pytest.importorskip("sklearn")
KINDS = ("AGN", "LMXB", "YSO")
EACH = 24


@pytest.fixture(scope="module", autouse=True)
def small():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classifier_training, "_LANDMARKS", 30)
        patch.setattr(classification, "_N_TREES", 10)
        patch.setattr(information, "N_PERMUTATIONS", 20)
        patch.setattr(formulas, "_EVALUATIONS", 2000)
        patch.setattr(sections, "_MAX_FORMULA_TARGETS", 1)
        yield


@pytest.fixture(scope="module")
def claims():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).resolve().parents[2] / "benchmarks")
        yield importlib.import_module("claims")


def by_claim(found):
    """The first row of each claim."""
    return {str(row["claim"]): row for row in reversed(list(found))}


def test_the_numbers_are_those_of_what_went_in(claims, tmp_path):
    rng = np.random.default_rng(0)
    kinds = np.repeat(KINDS, EACH)
    z = 0.4 * rng.standard_normal((len(kinds), 8))
    for k in range(len(KINDS)):
        z[k * EACH : (k + 1) * EACH, k] += 4.0
    names = [f"2CXO J{i:04d}" for i in range(len(z))]
    ratio = {name: np.tanh(0.3 * z[:, 0]) for name in ("hard_hm", "hard_hs", "hard_ms")}
    meta = {"model": DEFAULT_MODEL, "model_sha256": read_info(locate(DEFAULT_MODEL)).fingerprint}
    columns = {"name": names, "flags": ["from_fluxes"] * len(z), **ratio}
    table = LatentTable.from_posterior(z, np.tile(0.04 * np.eye(8), (len(z), 1, 1)), columns, meta)
    latent_tables.write(table, tmp_path / "good.parquet")
    labels = {"name": names, "class": kinds, "powlaw_gamma": 2.0 * z[:, 1], "var_prob_b": rng.random(len(z))}
    Table(labels).write(tmp_path / "labels.csv")
    done = []
    found = evaluate(
        tmp_path / "good.parquet", labels=tmp_path / "labels.csv", progress=lambda *numbers: done.append(numbers)
    )
    assert found.page is None and not list(tmp_path.glob("*.html"))
    assert done == [(i + 1, len(found.sections)) for i in range(len(found.sections))]
    compared = claims.compare(found)
    claim = by_claim(compared)
    assert claim["clusters: 3 classes"]["z"] > 0.95 and np.isfinite(claim["clusters: 3 classes"]["hardness ratios"])
    by_bic = compared[compared["how"] == "mixture, BIC, balanced accuracy"]
    by_bic = by_bic[by_bic["claim"] == "clusters: 3 classes"]
    assert by_bic["z"] > 0.5 and np.isnan(by_bic["hardness ratios"])  # baselines are clustered in one way
    assert claim["classifier: all classes"]["z"] > 0.95 > claim["classifier: all classes"]["hardness ratios"]
    assert claim["regression: photon index"]["z"] > 0.7
    assert np.isnan(claim["classifier: all classes"]["PCA-8"])
    assert "var_prob_b" in claim["variability"]["how"]
    assert set(compared["from"]) == {"good, band fluxes"}
    # The ratios are those that the latents decode to: their formulas are no claim.
    assert not [name for name in claim if name.startswith("formulas: hardness")]
    claims.write(compared, tmp_path / "claims.json")
    written = by_claim(json.loads((tmp_path / "claims.json").read_text()))
    assert written["classifier: all classes"]["PCA-8"] is None
    assert written["clusters: 3 classes"]["z_lolim"] == pytest.approx(claim["clusters: 3 classes"]["z_lolim"])


def test_a_store_is_embedded_and_has_all_baselines(claims, tmp_path):
    response = acis.response("BI", 2005.0)
    edges = np.append(response.energy_lo, response.energy_hi[-1])
    rng = np.random.default_rng(0)
    kinds = np.repeat(["AGN", "YSO"], 26)
    spectra = []
    for i, kind in enumerate(kinds):
        shape = response.fold(powerlaw(edges, 0.5 if kind == "AGN" else 3.0))
        counts = rng.poisson(300 * shape / shape.sum()).astype(float)
        spectra.append(Spectrum(counts, 1e4, response=response, meta={"name": f"s{i}"}))
    store.write(spectra, tmp_path / "store", {"class": list(kinds), "powlaw_gamma": list(rng.random(len(kinds)))})
    found = evaluate(tmp_path / "store")
    claim = by_claim(claims.compare(found))
    for baseline in ("z", "hardness ratios", "PCA-8", "paper preset"):
        assert claim["classifier: all classes"][baseline] > 0.9
    assert np.isfinite(claim["reconstruction"]["paper preset"])
    assert [data.origin for data in found.datasets] == ["spectra"]


def test_reconstruction_counts_spectra(claims, latent_table):
    excess = np.array([-1.0, 0.0, 1.0, 2.0, 9.0])
    table = latent_table(np.zeros((5, 8)), cstat=100 + 10 * excess, cstat_expected=[100.0] * 5, cstat_sigma=[10.0] * 5)
    section = sections.Section("reconstruction", "Reconstruction", "made")
    sections.reconstruction_section({"z": table}, "here", section)
    data = sections.Dataset("made", table, table, (), np.full(5, ""), {})
    compared = claims.compare(Evaluation([data], [section]))
    assert list(compared["z"]) == [1.0, 0.8] and np.isnan(compared["hardness ratios"]).all()


def test_without_labels_there_is_nothing_to_claim(claims, latent_table, tmp_path):
    table = latent_table(np.random.default_rng(0).standard_normal((10, 8)), flags=["from_fluxes"] * 10)
    latent_tables.write(table, tmp_path / "ten.parquet")
    assert len(claims.compare(evaluate(tmp_path / "ten.parquet"))) == 0
