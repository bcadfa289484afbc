"""``xlatent classify`` and ``xlatent formulas`` on a table on disk, and mistakes in one sentence."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import typer
from astropy.table import Table
from typer.testing import CliRunner

from xlatent.cli import main
from xlatent.cli.classify import classify
from xlatent.cli.formulas import formulas
from xlatent.core.latents import LatentTable
from xlatent.core.taxonomy import CLASSES
from xlatent.formats import catalogue_tables, latent_tables
from xlatent.science import classifier_training
from xlatent.science import formulas as science_formulas
from xlatent.science.classify import build_features
from xlatent.science.selection import source_ids

pytest.importorskip("onnx")
pytest.importorskip("sklearn")
N = 160


@pytest.fixture
def run():
    """Run one of the commands in this process, mistakes told as `xlatent` tells them."""
    app = typer.Typer(cls=main._Plain, pretty_exceptions_enable=False)
    app.command()(classify)
    app.command()(formulas)

    def call(*arguments):
        result = CliRunner().invoke(app, [str(a) for a in arguments])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    return call


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A table of latents, a catalogue with the Galactic column, and a classifier of sky and spectrum."""
    folder = tmp_path_factory.mktemp("commands")
    rng = np.random.default_rng(0)
    kinds, z = np.arange(N) % 8, 0.5 * rng.standard_normal((N, 8))
    z[:, 0] += kinds % 4
    columns = {"name": [f"2CXO J{i}" for i in range(N)]}
    columns |= {name: np.tanh(0.7 * z[:, 0] - 1.0) for name in ("hard_hm", "hard_hs", "hard_ms")}
    covariance = np.tile(0.01 * np.eye(8), (N, 1, 1))
    table = LatentTable.from_posterior(z, covariance, columns, {"model": "m", "model_sha256": "a" * 64})
    latent_tables.write(table, folder / "z.parquet")
    nh = 10.0 ** (0.3 + (kinds > 3) + 0.1 * rng.standard_normal(N))
    Table({"name": [name.replace(" ", "") for name in columns["name"]], "nh_gal": nh}).write(folder / "sky.ecsv")
    with_sky = LatentTable(dict(table.to_astropy().columns) | {"nh_gal": nh}, table.meta)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classifier_training, "_LANDMARKS", 40)
        machines = {
            allowed: classifier_training.train_classifier(
                *build_features(with_sky, np.eye(8)[:, :2], allowed), kinds, source_ids(table)
            )
            for allowed in ((), ("nh_gal",))
        }
    path = Path(__file__).resolve().parents[2] / "benchmarks" / "classifier.py"
    spec = importlib.util.spec_from_file_location("classifier_benchmark", path)
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    benchmark.write_onnx(machines, np.eye(8)[:, :2], "a" * 64, folder / "classifier.onnx")
    return folder, kinds


def one_sentence(result, text, code=2):
    assert result.exit_code == code and result.stderr.count("\n") == 1 and text in result.stderr, result.stderr


def test_classes_go_into_the_table(run, files, tmp_path):
    folder, kinds = files
    right = {}
    for given in ((), ("--with", "nh_gal", "--join", folder / "sky.ecsv")):
        output = tmp_path / "out.fits"
        result = run(
            "classify", folder / "z.parquet", "--output", output, "--classifier", folder / "classifier.onnx", *given
        )
        assert result.exit_code == 0, result.stderr
        found = latent_tables.read(output)
        p = np.stack([found[f"p_{name.replace('-', '_')}"] for name in CLASSES], axis=1)
        np.testing.assert_allclose(p.sum(axis=1), 1.0, atol=1e-9)
        sets = [set(str(text).split(",")) for text in found["prediction_set"]]
        assert all(str(name) in names for name, names in zip(found["class"], sets, strict=True))
        assert f"160 rows written to {output}; one class left" in result.stdout
        right[bool(given)] = np.mean([CLASSES[k] == str(name) for k, name in zip(kinds, found["class"], strict=True)])
        assert np.mean([CLASSES[k] in names for k, names in zip(kinds, sets, strict=True)]) > 0.85
    assert right[True] > right[False] + 0.2


def test_mistakes_in_classification_are_one_sentence(run, files, tmp_path):
    folder, _ = files
    table, classifier = folder / "z.parquet", ("--classifier", folder / "classifier.onnx")
    output = ("--output", tmp_path / "o.parquet")
    one_sentence(run("classify", table, *output, *classifier, "--with", "nh_gal"), "needs a column nh_gal")
    one_sentence(run("classify", table, *output, *classifier, "--with", "colour"), "not 'colour'")
    one_sentence(run("classify", table, *output, "--classifier", tmp_path / "none.onnx"), "there is no classifier")
    one_sentence(run("classify", folder / "sky.ecsv", *output, *classifier), "expected a table of latents", 1)
    one_sentence(run("classify", table, "--output", tmp_path / "o.txt", *classifier), "suffix '.txt'")
    assert not (tmp_path / "o.parquet").exists()


def test_formulas_are_shown_and_written_as_latex(run, files, tmp_path, monkeypatch):
    pytest.importorskip("pyoperon")
    monkeypatch.setattr(science_formulas, "_EVALUATIONS", 3000)
    monkeypatch.setattr(science_formulas, "_POPULATION", 60)
    folder, _ = files
    for name in ("f.tex", "f.ecsv"):
        result = run("formulas", folder / "z.parquet", "--target", "hard_ms", "--output", tmp_path / name)
        assert result.exit_code == 0, result.stderr
        assert "hard_ms" in result.stdout and "z0" in result.stdout
    text = (tmp_path / "f.tex").read_text()
    assert text.startswith(r"\begin{tabular}") and r"$\mathrm{hard\_ms} = " in text and text.count(r" \\") >= 2
    found = catalogue_tables.read_columns(tmp_path / "f.ecsv")
    assert found["r2"][-1] > 0.95 and text.count("$") == 2 * len(found) + 2
    one_sentence(run("formulas", folder / "z.parquet", "--target", ","), "names no column")
    one_sentence(run("formulas", folder / "z.parquet", "--target", "kt"), "has no column kt", 1)
