"""The classifier as a file: the same numbers by onnxruntime as in training, and only for the model it was made for."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from xlatent.core.errors import ModelError, ParameterError
from xlatent.core.latents import LatentTable
from xlatent.core.taxonomy import CLASSES, COMPACT
from xlatent.science import classifier_training
from xlatent.science.classifier_training import prediction_set, train_classifier
from xlatent.science.classify import ALLOWED, build_features, classify, load_classifier
from xlatent.science.selection import source_ids

pytest.importorskip("onnx")
pytest.importorskip("sklearn")
PER_CLASS = 20
DIRECTIONS = np.eye(8)[:, :2]
SUBSETS = ((), ("flux",), ("flux", "variability", "nh_gal"))


def benchmark():
    path = Path(__file__).resolve().parents[2] / "benchmarks" / "classifier.py"
    spec = importlib.util.spec_from_file_location("classifier_benchmark", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def simulated(seed=0, n=PER_CLASS) -> tuple[LatentTable, np.ndarray]:
    """Classes in a row along z0, two fluxes; NS vary; the Galactic column is of no use."""
    rng = np.random.default_rng(seed)
    classes = np.repeat(np.arange(len(CLASSES)), n)
    z = 0.3 * rng.standard_normal((len(classes), 8))
    z[:, 0] += classes % 4
    columns = {
        "name": [f"s{seed}-{i}" for i in range(len(classes))],
        "log_flux_b": -13.0 + 2.0 * (classes // 4) + 0.2 * rng.standard_normal(len(classes)),
        "P_intra": np.where(classes == 4, 0.999, rng.random(len(classes))),
        "P_inter": np.where(rng.random(len(classes)) < 0.5, np.nan, rng.random(len(classes))),
        "nh_gal": 10.0 ** rng.uniform(0, 2, len(classes)),
    }
    columns |= {name: np.tanh(z[:, 0] - 1.5 + i) for i, name in enumerate(("hard_hm", "hard_hs", "hard_ms"))}
    table = LatentTable.from_posterior(z, np.tile(0.04 * np.eye(8), (len(z), 1, 1)), columns)
    return LatentTable(dict(table.to_astropy().columns), {"model": "m", "model_sha256": "a" * 64}), classes


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    table, classes = simulated()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classifier_training, "_LANDMARKS", 40)
        machines = {
            allowed: train_classifier(*build_features(table, DIRECTIONS, allowed), classes, source_ids(table))
            for allowed in SUBSETS
        }
    path = tmp_path_factory.mktemp("classifier") / "classifier.onnx"
    benchmark().write_onnx(machines, DIRECTIONS, "a" * 64, path)
    return machines, load_classifier(path), path


def columns_of(found: LatentTable) -> np.ndarray:
    return np.stack([found[f"p_{name.replace('-', '_')}"] for name in CLASSES], axis=1)


@pytest.mark.parametrize("allowed", SUBSETS)
def test_the_file_gives_what_training_gave(trained, allowed):
    machines, classifier, _ = trained
    table, classes = simulated(1)
    found = classify(table, classifier, allowed)
    p = machines[allowed].probabilities(build_features(table, DIRECTIONS, allowed)[0])
    np.testing.assert_allclose(columns_of(found), p, atol=1e-6)
    assert [str(name) for name in found["class"]] == [CLASSES[k] for k in p.argmax(1)]
    sets = prediction_set(p, machines[allowed].thresholds)
    assert [str(names) for names in found["prediction_set"]] == [",".join(np.array(CLASSES)[row]) for row in sets]
    # Without the flux two classes stand at each place; with it one.
    assert np.mean(p.argmax(1) == classes) > (0.75 if allowed else 0.35)
    assert np.mean(sets[np.arange(len(classes)), classes]) > 0.8
    compact = p[:, [CLASSES.index(name) for name in COMPACT]].mean(axis=1)  # each has as many members
    np.testing.assert_allclose(found["p_compact"], compact / (compact + p[:, 0]), atol=1e-6)
    assert len(found) == len(table) and list(found["name"]) == list(table["name"])


def test_what_is_not_allowed_is_not_used(trained):
    _, classifier, _ = trained
    table, _ = simulated(1)
    columns = dict(table.to_astropy().columns)
    other = LatentTable(
        columns | {"log_flux_b": columns["log_flux_b"] + 3.0, "nh_gal": 5.0 + columns["nh_gal"]}, table.meta
    )
    same, with_flux = (
        (columns_of(classify(t, classifier)) for t in (table, other)),
        (columns_of(classify(t, classifier, ["flux"])) for t in (table, other)),
    )
    np.testing.assert_array_equal(*same)
    assert np.abs(np.subtract(*with_flux)).max() > 0.1


def test_errors_are_of_use_only_with_the_flux(trained):
    """They tell how bright a source is."""
    _, classifier, _ = trained
    table, _ = simulated(1)
    columns = {name: table[name] for name in table.colnames if not name.startswith("z")}
    sharper = LatentTable.from_posterior(table.z, table.covariance / 25.0, columns, table.meta)
    np.testing.assert_array_equal(*(columns_of(classify(t, classifier)) for t in (table, sharper)))
    assert np.abs(np.subtract(*(columns_of(classify(t, classifier, ["flux"])) for t in (table, sharper)))).max() > 1e-6


def test_order_and_repetition_of_what_is_allowed_do_not_matter(trained):
    _, classifier, _ = trained
    table, _ = simulated(1, 2)
    found = [
        classify(table, classifier, given) for given in (tuple(ALLOWED), ("nh_gal", "variability", "flux", "flux"))
    ]
    np.testing.assert_array_equal(*map(columns_of, found))


def test_a_row_without_data_is_of_no_class_and_may_be_of_any(trained):
    _, classifier, _ = trained
    table, _ = simulated(1, 2)
    columns = dict(table.to_astropy().columns)
    flags = np.array(["no_data", *[""] * (len(table) - 1)])
    found = classify(LatentTable(columns | {"flags": flags}, table.meta), classifier)
    assert np.isnan(columns_of(found)[0]).all() and np.isfinite(columns_of(found)[1:]).all()
    assert np.isnan(found["p_compact"][0]) and np.isfinite(found["p_compact"][1:]).all()
    assert found["class"][0] == "" and found["prediction_set"][0] == ",".join(CLASSES)


def test_no_rows_one_row_and_the_columns_of_the_csc(trained):
    _, classifier, _ = trained
    table, _ = simulated(1, 2)
    assert len(classify(table[[]], classifier)) == 0
    whole = classify(table, classifier, tuple(ALLOWED))
    one = classify(table[[5]], classifier, tuple(ALLOWED))
    np.testing.assert_allclose(columns_of(one)[0], columns_of(whole)[5], rtol=1e-12)
    columns = dict(table.to_astropy().columns)
    columns |= {"kp_prob_b_max": columns.pop("P_intra"), "var_inter_prob": columns.pop("P_inter")}
    renamed = classify(LatentTable(columns, table.meta), classifier, tuple(ALLOWED))
    np.testing.assert_array_equal(columns_of(renamed), columns_of(whole))


def test_mistakes_are_told(trained, tmp_path):
    _, classifier, path = trained
    table, _ = simulated(1, 2)
    columns = dict(table.to_astropy().columns)
    other = LatentTable(columns, {"model": "m2", "model_sha256": "b" * 64})
    with pytest.raises(ModelError, match=r"the table is of model b{12}.*embed the sources again"):
        classify(other, classifier)
    without = LatentTable({name: value for name, value in columns.items() if name != "nh_gal"}, table.meta)
    with pytest.raises(ParameterError, match="nh_gal needs a column nh_gal"):
        classify(without, classifier, tuple(ALLOWED))
    with pytest.raises(ParameterError, match="not 'colour'"):
        classify(table, classifier, ["colour"])
    with pytest.raises(ModelError, match="there is no classifier"):
        load_classifier(tmp_path / "absent.onnx")
    (tmp_path / "cut.onnx").write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ModelError, match="is damaged"):
        load_classifier(tmp_path / "cut.onnx")
