"""Commands that look for sources: neighbours, outliers, tracks, accretion."""

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from xlatent.cli import accretion, main, neighbours, outliers, tracks
from xlatent.core.bundle import DEFAULT_MODEL, locate, read_info
from xlatent.core.latents import LatentTable
from xlatent.formats import catalogue_tables, latent_tables


@pytest.fixture
def run():
    """Run one of the commands in this process, mistakes told as `xlatent` tells them."""
    app = typer.Typer(cls=main._Plain, pretty_exceptions_enable=False)
    for command in (neighbours.neighbours, outliers.outliers, tracks.tracks, accretion.accretion):
        app.command()(command)

    def call(*arguments):
        result = CliRunner().invoke(app, [str(a) for a in arguments])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    return call


def latents(n, seed, **columns):
    rng = np.random.default_rng(seed)
    error = np.array([0.05, 0.1, 0.3, 0.5, 0.6, 0.8, 0.9, 0.99])
    z = (rng.standard_normal((n, 8)) * np.sqrt(1 - error**2)).round(6)
    covariance = np.tile(np.diag(error**2), (n, 1, 1))
    given = {"name": [f"s{i}" for i in range(n)], **columns}
    meta = {"model": DEFAULT_MODEL, "model_sha256": read_info(locate(DEFAULT_MODEL)).fingerprint}
    return LatentTable.from_posterior(z, covariance, given, meta)


@pytest.fixture
def table(tmp_path):
    """90 sources with a class each; compact objects are drawn like the rest."""
    kinds = np.array(["HMXB", "AGN", "YSO"])[np.arange(90) % 3]
    return latent_tables.write(latents(90, 1, **{"class": kinds}), tmp_path / "t.parquet")


def one_sentence(result, text, code=2):
    assert result.exit_code == code and result.stderr.count("\n") == 1 and text in result.stderr, result.stderr


def test_neighbours_of_a_query_and_of_a_table_itself(run, table, tmp_path):
    whole = latent_tables.read(table)
    query = latent_tables.write(whole[:3], tmp_path / "q.parquet")
    result = run("neighbours", table, query, "--output", tmp_path / "n.ecsv", "--index", tmp_path / "index", "-k", 4)
    assert result.exit_code == 0, result.stderr
    found = catalogue_tables.read_columns(tmp_path / "n.ecsv")
    assert len(found) == 12 and list(found["rank"]) == [1, 2, 3, 4] * 3
    assert not np.any(found["query"] == found["name"]) and set(found["class"]) <= {"HMXB", "AGN", "YSO"}
    rows = [int(name[1:]) for name in found["name"][:4]]
    assert np.all(np.abs(whole.z[rows, 0] - whole.z[0, 0]) < 0.6)  # z0 is known far better than the rest
    assert run("neighbours", table, query, "--index", tmp_path / "index").exit_code == 0
    as_fits = latent_tables.write(whole, tmp_path / "t.fits")
    again = run("neighbours", as_fits, query, "--output", tmp_path / "again.ecsv", "-k", 4)
    assert again.exit_code == 0, again.stderr
    again = catalogue_tables.read_columns(tmp_path / "again.ecsv")
    # A table read whole and one of which only what is needed is read say the same.
    assert list(again["name"]) == list(found["name"]) and list(again["class"]) == list(found["class"])
    other = latent_tables.write(latents(90, 2), tmp_path / "other.parquet")
    one_sentence(run("neighbours", other, query, "--index", tmp_path / "index"), "another table")
    foreign = latent_tables.write(
        LatentTable(whole[:3].to_astropy(), {"model_sha256": "f" * 64}), tmp_path / "f.parquet"
    )
    one_sentence(run("neighbours", table, foreign), "one model")
    labels = tmp_path / "l.csv"
    labels.write_text("name,class\ns5,CV\n")
    assert run("neighbours", other, query, "--labels", labels, "-k", 89, "--output", tmp_path / "n.csv").exit_code == 0
    named = catalogue_tables.read_columns(tmp_path / "n.csv")
    assert set(named["name"][[str(word) == "CV" for word in named["class"]]]) == {"s5"}


def test_many_rows_of_one_name_are_no_neighbours(run, tmp_path):
    names = ["a"] * 60 + ["b"] * 3
    table = latent_tables.write(latents(63, 5, name=names), tmp_path / "t.parquet")
    query = latent_tables.write(latent_tables.read(table)[:1], tmp_path / "q.parquet")
    assert run("neighbours", table, query, "--output", tmp_path / "n.csv").exit_code == 0
    assert list(catalogue_tables.read_columns(tmp_path / "n.csv")["name"]) == ["b"] * 3
    only = latent_tables.write(latents(5, 6, name=["a"] * 5), tmp_path / "only.parquet")
    one_sentence(run("neighbours", only, query), "longer table")


def test_outliers_add_their_columns(run, table, tmp_path):
    whole = latent_tables.read(table)
    columns = {name: whole[name] for name in whole.colnames}
    columns["z0"] = np.where(np.arange(90) == 7, 9.0, whole["z0"])
    spoilt = latent_tables.write(LatentTable(columns, whole.meta), tmp_path / "spoilt.parquet")
    result = run("outliers", spoilt, "--output", tmp_path / "o.fits")
    assert result.exit_code == 0, result.stderr
    found = latent_tables.read(tmp_path / "o.fits")
    assert np.argmin(found["p_density"]) == 7 and found["p_density"][7] < 2e-4 and found.meta == whole.meta
    assert "s7" in result.stdout and "badly reproduced: 0 of 0" in result.stdout
    few = latent_tables.write(whole[:10], tmp_path / "few.parquet")
    one_sentence(run("outliers", few, "--output", tmp_path / "x.fits"), "found 10")
    one_sentence(run("outliers", table, "--output", tmp_path / "x.doc"), "suffix")


def test_tracks_are_told_written_and_drawn(run, tmp_path):
    z = latents(60, 3, source=[f"source{i // 3}" for i in range(60)], day=np.arange(60)[::-1] * 1.0)
    columns = {name: z[name] for name in z.colnames}
    for i in range(8):
        noise = (
            np.random.default_rng(i).standard_normal(60) * np.asarray(z[f"z{i}_err"]) * np.sqrt(1 - z[f"z{i}_err"] ** 2)
        )
        columns[f"z{i}"] = np.repeat(z[f"z{i}"][::3], 3) + noise
    columns["z0"][2] += 1.0
    table = latent_tables.write(LatentTable(columns, z.meta), tmp_path / "t.parquet")
    arguments = ("--output", tmp_path / "t.ecsv", "--figure", tmp_path / "t.png", "--time", "day")
    result = run("tracks", table, *arguments)
    assert result.exit_code == 0, result.stderr
    found = catalogue_tables.read_columns(tmp_path / "t.ecsv")
    assert len(found) == 20 and found["source"][0] == "source0" and found["q"][0] < 1e-3 and found["q"][1] > 0.01
    assert found["first"][0] == 2  # it is the latest row by number, the earliest by day
    assert found["direction"][0] in ("hardening", "softening", "absorbing", "uncovering", "cooling", "heating")
    assert "of 20 sources change" in result.stdout and (tmp_path / "t.png").stat().st_size > 5000
    one_sentence(run("tracks", table, "--by", "name"), "no source has two rows")
    one_sentence(run("tracks", table, "--time", "date"), "no column date", 1)
    one_sentence(run("tracks", table, "--time", "mjd"), "mjd has no value", 1)
    one_sentence(run("tracks", table, "--time", "source"), "should hold numbers")
    foreign = latent_tables.write(LatentTable(columns, {"model_sha256": "f" * 64}), tmp_path / "f.parquet")
    one_sentence(run("tracks", foreign), "name the model")


def test_accretion_is_learned_kept_and_used(run, table, tmp_path):
    kept = tmp_path / "d.json"
    drawn = tmp_path / "a.png"
    result = run("accretion", table, "--output", tmp_path / "a.parquet", "--save", kept, "--figure", drawn)
    assert drawn.stat().st_size > 5000
    assert result.exit_code == 0 and result.stdout.startswith("a = ") and "AUC" in result.stdout, result.stderr
    bare = latent_tables.write(latents(90, 1), tmp_path / "bare.parquet")
    again = run("accretion", bare, "--output", tmp_path / "b.parquet", "--direction", kept)
    assert again.exit_code == 0, again.stderr
    a, b = latent_tables.read(tmp_path / "a.parquet"), latent_tables.read(tmp_path / "b.parquet")
    np.testing.assert_array_equal(a["accretion"], b["accretion"])
    assert np.all(a["accretion_err"] > 0)
    out = ("--output", tmp_path / "c.parquet")
    one_sentence(run("accretion", bare, *out), "has no column class", 1)
    one_sentence(run("accretion", table, *out, "--direction", kept, "--save", kept), "leave out")
    columns = {name: a[name] for name in a.colnames if not name.startswith("accretion")}
    foreign = latent_tables.write(LatentTable(columns, {"model_sha256": "f" * 64}), tmp_path / "f.parquet")
    one_sentence(run("accretion", foreign, *out, "--direction", kept), "learn a direction")


def test_a_real_catalogue_goes_through(run, shared_data, tmp_path):
    """Real labelled sources, their latents a draw of hardness: names and classes join, every command finishes."""
    catalogue = catalogue_tables.read_columns(shared_data / "catalogues" / "csc2_labelled_sources.csv")
    soft, hard = np.asarray(catalogue["Fs"], float), np.asarray(catalogue["Fh"], float)
    usable = np.flatnonzero((soft > 0) & (hard > 0))[:200]
    z = latents(len(usable), 4, name=np.asarray(catalogue["name"])[usable])
    columns = {name: z[name] for name in z.colnames}
    hardness = np.log(hard / soft)[usable]
    columns["z0"] = (hardness - hardness.mean()) / hardness.std()
    table = latent_tables.write(LatentTable(columns, z.meta), tmp_path / "real.parquet")
    labels = shared_data / "catalogues" / "csc2_labelled_sources.csv"
    kinds = np.asarray(catalogue["class"])[usable]
    result = run("accretion", table, "--labels", labels, "--output", tmp_path / "a.parquet")
    few = np.isin(kinds, ["HMXB", "LMXB", "CV"]).sum()
    one_sentence(result, f"found {few}") if few < 20 else result.stdout.index("AUC")
    result = run(
        "neighbours",
        table,
        latent_tables.write(latent_tables.read(table)[:5], tmp_path / "q.parquet"),
        "--labels",
        labels,
    )
    assert result.exit_code == 0 and "AGN" in result.stdout, result.stderr
