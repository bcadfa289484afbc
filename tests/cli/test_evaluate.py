"""``xlatent evaluate``: one report with everything in itself, and mistakes in one sentence."""

import importlib.util
import json
import re

import numpy as np
import pytest
import typer
from astropy.table import Table
from typer.testing import CliRunner

from xlatent.cli import main
from xlatent.cli.evaluate import evaluate
from xlatent.core.bundle import DEFAULT_MODEL, locate, read_info
from xlatent.core.latents import LatentTable
from xlatent.formats import latent_tables
from xlatent.science import classifier_training, formulas, information
from xlatent.workflows.evaluation import classification, sections

for needed in ("sklearn", "jinja2"):
    if importlib.util.find_spec(needed) is None:
        pytest.skip(f"{needed} is not installed", allow_module_level=True)
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
def run():
    app = typer.Typer(cls=main._Plain, pretty_exceptions_enable=False)
    app.command()(evaluate)
    app.command()(lambda: None)  # so that the command has a name

    def call(*arguments):
        result = CliRunner().invoke(app, ["evaluate", *(str(a) for a in arguments)])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    return call


def latents(z, sha256="", **columns):
    names = {"name": [f"2CXO J{i:04d}" for i in range(len(z))]}
    ratio = np.tanh(0.3 * z[:, 0])
    own = {name: ratio for name in ("hard_hm", "hard_hs", "hard_ms")} | {"flags": ["from_fluxes"] * len(z)}
    meta = {"model": DEFAULT_MODEL, "model_sha256": sha256 or read_info(locate(DEFAULT_MODEL)).fingerprint}
    return LatentTable.from_posterior(z, np.tile(0.04 * np.eye(8), (len(z), 1, 1)), names | own | columns, meta)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Latents with holes, and a catalogue with a class of two, a constant column and missing values."""
    folder = tmp_path_factory.mktemp("evaluate")
    rng = np.random.default_rng(0)
    kinds = np.repeat(KINDS, EACH).astype("U8")
    z = 0.4 * rng.standard_normal((len(kinds), 8))
    for k in range(len(KINDS)):
        z[k * EACH : (k + 1) * EACH, k] += 4.0
    kinds[:2] = "CV"
    z[3] = np.nan
    latent_tables.write(latents(z), folder / "good.parquet")
    gamma = np.where(np.arange(len(z)) < 5, np.nan, 2.0 * z[:, 1])
    catalogue = {"name": [f"2CXOJ{i:04d}" for i in range(len(z))], "class": kinds, "powlaw_gamma": gamma}
    catalogue |= {"bb_kt": np.ones(len(z)), "var_prob_b": rng.random(len(z))}
    Table(catalogue).write(folder / "labels.csv")
    latent_tables.write(latents(z[10:20]), folder / "ten.parquet")
    latent_tables.write(latents(z, "0" * 64), folder / "other.parquet")
    Table({"name": ["nobody"], "class": ["AGN"]}).write(folder / "strangers.csv")
    return folder


@pytest.fixture(scope="module")
def report(run, files, tmp_path_factory):
    folder = tmp_path_factory.mktemp("out") / "report"
    result = run("--data", files / "good.parquet", "--labels", files / "labels.csv", "--output", folder)
    assert result.exit_code == 0 and "left out" in result.stdout
    return folder


@pytest.mark.slow
def test_the_page_needs_nothing_else(report):
    html = (report / "report.html").read_text()
    assert not re.findall(r'(?:src|href)="(?!data:)|url\(|@import|<link|<script', html)
    assert html.count("data:image/png;base64,") == len(list((report / "figures").glob("*.png"))) >= 5
    assert {path.stem for path in (report / "figures").glob("*.png")} == {
        path.stem for path in (report / "figures").glob("*.pdf")
    }


@pytest.mark.slow
def test_every_table_says_where_its_latents_come_from(report):
    parts = json.loads((report / "report.json").read_text())["parts"]
    captions = [table["caption"] for part in parts for table in part["tables"]]
    assert len(captions) > 6 and all("from catalogue band fluxes, not from spectra" in text for text in captions)


@pytest.mark.slow
def test_the_numbers_are_those_of_what_went_in(report):
    found = json.loads((report / "report.json").read_text())
    table = {(part["key"], table["key"]): table["rows"] for part in found["parts"] for table in part["tables"]}
    by_method = {(row["task"], row["of"], row["method"]): row for row in table["clusters", "scores"]}
    assert by_method["3 classes", "z", "mixture of 8"]["balanced accuracy"] > 0.95
    by_source = {row["from"]: row for row in table["classification", "scores"]}
    assert by_source["z"]["balanced accuracy"] > 0.95 > by_source["hardness ratios"]["balanced accuracy"]
    (gamma,) = [row for row in table["regression", "r2"] if (row["target"], row["of"]) == ("powlaw_gamma", "z")]
    assert gamma["boosting"] > 0.7
    facts = {row["what"]: row["value"] for row in table["contents", "facts"]}
    assert facts["rows"] == "72" and facts["rows with latents"] == "71"
    assert facts["sha256 of the model"] == found["model_sha256"] == read_info(locate(DEFAULT_MODEL)).fingerprint


def test_what_was_left_out_is_said(report):
    notes = " ".join(
        note for part in json.loads((report / "report.json").read_text())["parts"] for note in part["notes"]
    )
    for text in ("CV (2)", "bb_kt is 1.0 everywhere", "no source has two rows", "principal components"):
        assert text in notes


def test_ten_rows_without_labels_make_a_short_report(run, files, tmp_path):
    result = run("--data", files / "ten.parquet", "--output", tmp_path / "out")
    assert result.exit_code == 0
    found = json.loads((tmp_path / "out" / "report.json").read_text())
    left_out = [note for part in found["parts"] for note in part["notes"] if "Left out" in note]
    assert len(left_out) >= 6


@pytest.mark.parametrize(
    "options, text",
    [
        (("--data", "labels.csv"), "cannot read a table with suffix '.csv'"),
        (("--data", "no.ecsv"), "expected a table of latents with columns z0 to z7"),
        (("--data", "missing.parquet"), "there is no such file"),
        (("--data", "good.parquet", "--data", "other.parquet"), "embed both with one model"),
        (("--data", "good.parquet", "--labels", "strangers.csv"), "none of its names is in"),
        (("--data", "good.parquet", "--labels", "nolabel.csv"), "should have a column class"),
        (("--data", "good.parquet", "--join", "twice.csv"), "several rows for a"),
        (("--data", "other.parquet", "--spectra", "spectra"), "name the model that made it with --model"),
    ],
)
def test_mistakes_are_one_sentence(run, files, tmp_path, options, text):
    Table({"name": ["a"], "ra": [1.0]}).write(files / "no.ecsv", overwrite=True)
    Table({"name": ["a"], "ra": [1.0]}).write(files / "nolabel.csv", overwrite=True)
    Table({"name": ["a", "a"], "ra": [1.0, 2.0]}).write(files / "twice.csv", overwrite=True)
    given = [files / option if not option.startswith("--") else option for option in options]
    result = run(*given, "--output", tmp_path / "out")
    assert result.exit_code in (1, 2) and result.stderr.count("\n") == 1 and text in result.stderr, result.stderr


def test_a_folder_that_cannot_be_is_told_before_the_work(run, files, tmp_path):
    (tmp_path / "file").write_text("")
    result = run("--data", files / "good.parquet", "--output", tmp_path / "file" / "out")
    assert result.exit_code == 2 and "choose another folder" in result.stderr
