"""Clusters: known ones found, errors respected, labels not peeked at."""

import numpy as np
import pytest
from astropy.table import Table

from xlatent.cli.cluster import cluster as command
from xlatent.core.errors import ParameterError, ReadError, XlatentWarning
from xlatent.formats import latent_tables
from xlatent.science import cluster as module
from xlatent.science.cluster import find_clusters
from xlatent.science.cluster_scores import score_clustering
from xlatent.science.resampling import assign_folds
from xlatent.science.selection import source_ids


def blobs(sizes=(120, 90, 60), distance=2.0, seed=0):
    """Groups apart in the first two latents, and which each row is of; the other latents are not measured."""
    rng = np.random.default_rng(seed)
    truth = np.repeat(np.arange(len(sizes)), sizes)
    z = 0.01 * rng.standard_normal((len(truth), 8))
    angle = 2 * np.pi * truth / len(sizes)
    z[:, 0] += distance * np.cos(angle) + 0.2 * rng.standard_normal(len(truth))
    z[:, 1] += distance * np.sin(angle) + 0.2 * rng.standard_normal(len(truth))
    return z, truth


ERRORS = np.array([0.1, 0.1, 1, 1, 1, 1, 1, 1])


@pytest.mark.parametrize("method", ["mixture", "hdbscan"])
def test_known_clusters(latent_table, method):
    z, truth = blobs()
    found = find_clusters(latent_table(z, ERRORS), method)
    inside = found.label >= 0
    assert found.membership.shape == (270, 3)  # of the lowest criterion, or as HDBSCAN sees it
    assert np.mean(inside) > 0.9
    np.testing.assert_array_equal(found.label[inside], truth[inside])  # numbered by size
    np.testing.assert_array_equal(found.probability, found.membership.max(axis=1))
    if method == "mixture":
        np.testing.assert_allclose(found.membership.sum(axis=1), 1.0)
        assert min(found.bic, key=found.bic.get) == 3


@pytest.mark.parametrize("method", ["mixture", "hdbscan"])
def test_what_was_not_measured_parts_nothing(latent_table, method):
    # Means of unmeasured latents are functions of the others: they clump, far within their errors.
    rng = np.random.default_rng(1)
    z = np.zeros((300, 8))
    z[:, 0] = rng.standard_normal(300)
    z[:, 5] = np.where(np.arange(300) < 150, -0.1, 0.1) + 0.002 * rng.standard_normal(300)
    found = find_clusters(latent_table(z, np.array([0.1, 1, 1, 1, 1, 1, 1, 1])), method)
    halves = [np.bincount(found.label[part] + 1, minlength=4) for part in (slice(150), slice(150, None))]
    assert np.abs(halves[0] - halves[1]).max() < 40
    measured = find_clusters(latent_table(z, np.array([0.1, 1, 1, 1, 1, 0.005, 1, 1])), "mixture", 2)
    assert len(set(measured.label[:150])) == len(set(measured.label[150:])) == 1


def test_large_errors_blur_membership(latent_table):
    z, _ = blobs((100, 100), 1.0)
    z[0], errors = [0.6, 0, 0, 0, 0, 0, 0, 0], np.tile(ERRORS, (200, 1))
    sharp = find_clusters(latent_table(z, errors), "mixture", 2).membership[0]
    errors[0] = 1.0
    blurred = find_clusters(latent_table(z, errors), "mixture", 2).membership[0]
    assert sharp.max() > 0.99
    assert 0.4 < blurred.max() < 0.95


def test_clusters_do_not_depend_on_the_day(latent_table):
    table = latent_table(blobs()[0], ERRORS)
    once, again = (find_clusters(table, "mixture", 3, seed=3).membership for _ in range(2))
    np.testing.assert_array_equal(once, again)


@pytest.mark.parametrize("method", ["mixture", "hdbscan"])
def test_many_rows_are_given_to_the_clusters_of_some(latent_table, monkeypatch, method):
    monkeypatch.setattr(module, "MAX_ROWS", 120)
    monkeypatch.setattr(module, "_CHUNK", 100)
    z, truth = blobs((600, 300))
    found = find_clusters(latent_table(z, ERRORS), method, 2 if method == "mixture" else None)
    inside = found.label >= 0
    assert np.mean(inside) > 0.9
    np.testing.assert_array_equal(found.label[inside], truth[inside])


def test_rows_without_latents_are_in_none(latent_table):
    z, _ = blobs()
    z[7, 3] = np.nan
    found = find_clusters(latent_table(z, ERRORS, flags=["", "no_data", *[""] * 268]), "mixture", 3)
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(found.probability)), [1, 7])
    np.testing.assert_array_equal(found.label[[1, 7]], -1)
    assert np.isfinite(found.membership[8]).all()


def test_few_and_equal_rows(latent_table):
    ten = find_clusters(latent_table(blobs((5, 5))[0], ERRORS))
    assert ten.membership.shape == (10, 1)  # no more than ten rows can bear out
    equal = find_clusters(latent_table(np.zeros((30, 8)), 0.0), "mixture", 4)
    assert np.isfinite(equal.membership).all()
    assert set(find_clusters(latent_table(np.zeros((30, 8)), 0.0), "hdbscan").label) <= {0, -1}
    with pytest.raises(ParameterError, match="need 5 rows with latents, the table has 3"):
        find_clusters(latent_table(np.zeros((3, 8))))
    with pytest.raises(ParameterError, match="need 11 rows"):
        find_clusters(latent_table(np.zeros((10, 8))), "mixture", 11)
    with pytest.raises(ParameterError, match="HDBSCAN finds the number"):
        find_clusters(latent_table(np.zeros((10, 8))), "hdbscan", 2)


def scored(label, classes, sources=None):
    table = score_clustering(
        np.asarray(label), np.asarray(classes), np.arange(len(label)) if sources is None else sources
    )
    return {(row["task"].split()[0], row["score"]): row for row in table}


def test_scores_of_perfect_and_of_random_clusters():
    classes = np.repeat(["AGN", "YSO", "NS", "CV"], [200, 100, 40, 20])
    label = np.unique(classes, return_inverse=True)[1]
    perfect = scored(label, classes)
    assert {row["value"] for row in perfect.values() if row["task"] == "4 classes"} == {1.0}
    # Two clusters of compact objects make no difference between them and AGN, but to the Rand index.
    assert perfect["AGN", "balanced accuracy"]["value"] == 1.0
    assert 0.5 < perfect["AGN", "adjusted Rand index"]["value"] < 1.0
    random = scored(np.random.default_rng(0).permutation(label), classes)
    assert abs(random["4", "balanced accuracy"]["value"] - 0.25) < 0.08
    assert abs(random["4", "adjusted Rand index"]["value"]) < 0.05
    for row in random.values():
        assert row["lolim"] <= row["value"] <= row["hilim"]


def test_naming_of_small_classes():
    # A tenth of the AGN share a cluster with all NS: nine AGN to five NS.
    classes = np.repeat(["AGN", "NS"], [90, 5])
    result = scored([0] * 81 + [1] * 14, classes)
    assert result["2", "balanced accuracy"]["value"] == pytest.approx((0.9 + 1.0) / 2)
    assert result["2", "balanced accuracy, plain majority"]["value"] == 0.5
    assert result["2", "purity"]["value"] == pytest.approx(90 / 95)


def test_no_peeking():
    rng = np.random.default_rng(2)
    sources = np.repeat(np.arange(100), 3)
    classes = rng.permutation(np.repeat(["AGN", "NS"], 50))[sources]
    # Every source its own cluster: with its own label, or that of its other rows, the score would be 1.
    result = scored(sources, classes, sources)
    assert result["2", "balanced accuracy"]["value"] < 0.6
    fold = assign_folds(sources, classes)
    assert all(len(set(fold[sources == source])) == 1 for source in range(100))
    assert np.ptp(np.bincount(fold)) <= 3
    np.testing.assert_array_equal(np.unique(fold[classes == "NS"], return_counts=True)[1], 30)


def test_a_source_counts_once():
    # One NS seen 90 times in the wrong cluster weighs as much as each of the nine others.
    sources = np.concatenate([np.arange(19), np.full(90, 19)])
    classes = np.array(["AGN"] * 10 + ["NS"] * 99)
    result = scored([0] * 10 + [1] * 9 + [0] * 90, classes, sources)
    assert result["2", "balanced accuracy"]["value"] == pytest.approx((1.0 + 0.9) / 2)


def test_classes_too_small_to_judge():
    classes = np.array(["AGN"] * 20 + ["YSO"] * 20 + ["CV"] * 2 + [""] * 5)
    with pytest.warns(XlatentWarning, match="CV"):
        result = scored(np.arange(47) // 20, classes)
    assert {task for task, _ in result} == {"2"}
    assert result["2", "purity"]["n_sources"] == 40
    with pytest.raises(ParameterError, match="two or more classes"):
        scored([0] * 20, ["AGN"] * 20)


@pytest.mark.slow
def test_real_sources(labelled):
    classes, sources = np.asarray(labelled["class"]), source_ids(labelled)
    found = find_clusters(labelled, "mixture", 10)
    rows = {
        (row["task"].split()[0], row["score"]): row["value"] for row in score_clustering(found.label, classes, sources)
    }
    assert rows["8", "balanced accuracy"] > 0.2  # chance is 0.125
    assert rows["AGN", "balanced accuracy"] > 0.6
    assert rows["8", "adjusted Rand index"] > 0.05


def test_command(latent_table, run, tmp_path):
    z, truth = blobs((40, 30))
    table, output, scores = tmp_path / "t.parquet", tmp_path / "clusters.fits", tmp_path / "scores.csv"
    latent_tables.write(latent_table(z, ERRORS), table)
    labels = tmp_path / "labels.csv"
    names = [f"source{i}" for i in range(69)]  # one is not labelled, and spaces do not count
    Table({"name": names, "class": np.where(truth[:69] == 0, "AGN", "CV")}).write(labels)
    result = run(command, table, "--output", output, "--number", 2, "--labels", labels, "--scores", scores)
    assert result.exit_code == 0, result.output
    assert "clusters of 40, 30 rows, 0 rows in none" in result.output
    written = latent_tables.read(output)
    np.testing.assert_array_equal(written["cluster"], truth)
    assert {"cluster_prob", "p_cluster0", "p_cluster1", "class"} <= set(written.colnames)
    assert written.meta["model"] == "none"
    assert set(Table.read(scores)["value"]) == {1.0}
    assert set(Table.read(scores)["n_sources"]) == {69}


def test_command_says_what_is_wrong(latent_table, run, tmp_path):
    table, labels = tmp_path / "t.parquet", tmp_path / "labels.csv"
    latent_tables.write(latent_table(blobs((40, 30))[0]), table)
    call = (table, "--output", tmp_path / "o.parquet", "--labels", labels)
    for rows, message in (
        ({"name": ["x"], "class": ["AGN"]}, "none of its names is in"),
        ({"name": ["source 1"], "kind": ["AGN"]}, "no column class"),
        ({"name": ["source 1", "source 1"], "class": ["AGN", "CV"]}, "several rows for source1"),
    ):
        Table(rows).write(labels, overwrite=True)
        error = run(command, *call).exception
        assert isinstance(error, ReadError)
        assert message in str(error)
    other = tmp_path / "no-latents.ecsv"
    Table({"name": ["a"]}).write(other)
    assert "expected a table of latents" in str(run(command, other, *call[1:3]).exception)
    assert not (tmp_path / "o.parquet").exists()
