"""``xlatent build``: what is stored, what is left out, and that it goes on after any end."""

import csv
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import typer
from astropy.table import Table
from typer.testing import CliRunner

from xlatent.cli.build import build
from xlatent.cli.embed import embed
from xlatent.core.errors import XlatentWarning
from xlatent.formats import latent_tables
from xlatent.formats.store import open_store


@pytest.fixture
def xlatent():
    """Run build or embed in this process, as the command line does."""
    from xlatent.cli.main import _Plain

    app = typer.Typer(cls=_Plain, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    for command in (build, embed):
        app.command()(command)

    def run(*arguments):
        result = CliRunner().invoke(app, [str(a) for a in arguments])
        assert "Traceback" not in result.output
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    return run


SCRIPT = "import sys, typer; from xlatent.cli.build import build; app = typer.Typer(); app.command()(build); app()"


def started(*arguments):
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def left_out(store):
    with (store / "left_out.csv").open() as stream:
        return list(csv.DictReader(stream))


def many(data, number, bad=()):
    """A manifest of observations, some of them not there."""
    path = data / "list.csv"
    names = ["gone.pha" if i in bad else ("bright.pha", "faint.pha")[i % 2] for i in range(number)]
    path.write_text("name,pha\n" + "".join(f"s{i},{name}\n" for i, name in enumerate(names)))
    return path


def test_the_real_spectra_embed_from_a_store_as_from_files(xlatent, shared_data, tmp_path):
    manifest, store = shared_data / "spectra" / "manifest.csv", tmp_path / "store"
    result = xlatent("build", manifest, "--output", store)
    assert result.exit_code == 0, result.stderr
    assert "24 spectra added" in result.stdout and left_out(store) == []
    found = []
    for given in (manifest, store):
        output = tmp_path / f"{len(found)}.parquet"
        result = xlatent("embed", given, "--output", output)
        assert result.exit_code == 0, result.stderr
        found.append(latent_tables.read(output).to_astropy())
    files, stored = found
    assert files.colnames == stored.colnames
    for name in files.colnames:
        if files[name].dtype.kind == "f":
            np.testing.assert_allclose(stored[name], files[name], rtol=1e-6, atol=1e-6, err_msg=name)
        else:
            assert list(stored[name]) == list(files[name]), name
    # Sources: by what was observed, and where no one says, by the spectrum.
    columns = open_store(store).columns(["name", "object", "source", "split"]).to_pydict()
    assert columns["source"].count("4C19.44") == 4 and "CSC" not in columns["source"]
    assert len({s for o, s in zip(columns["source"], columns["split"], strict=True) if o == "4C19.44"}) == 1


def test_what_cannot_be_read_is_left_out(xlatent, drawers, spoilt, tmp_path):
    store = tmp_path / "store"
    result = xlatent("build", drawers / "bright.pha", spoilt, drawers / "empty.pha", "--output", store)
    if spoilt.stem == "no-response":  # it can be stored, and is a failure of embed
        assert result.exit_code == 0 and len(open_store(store)) == 3
        return
    assert result.exit_code == 1
    assert [s.name for s in open_store(store)] == ["bright", "empty"]
    assert [(row["name"], row["file"]) for row in left_out(store)] == [(spoilt.stem, str(spoilt))]
    reason = left_out(store)[0]["reason"]
    assert spoilt.name in reason and "fault of xlatent" not in reason
    assert f"left out: {spoilt.stem}: {reason}" in result.stderr
    assert "error: 1 of 3 spectra were left out" in result.stderr.splitlines()[-1]


def test_all_left_out(xlatent, spoil, tmp_path):
    result = xlatent("build", spoil("text"), "--output", tmp_path / "store")
    assert result.exit_code == 1 and "none was added" in result.stderr
    result = xlatent("embed", tmp_path / "store", "--output", tmp_path / "t.parquet")
    assert result.exit_code == 2 and "holds none" in result.stderr


@pytest.mark.slow
def test_workers_give_the_same_rows_in_the_same_order(data, tmp_path):
    manifest = many(data, 20, bad=[17])
    found = []
    for workers in (1, 2):
        process = started(manifest, "--output", tmp_path / str(workers), "--workers", workers)
        _, stderr = process.communicate()
        assert process.returncode == 1 and "left out: s17: " in stderr, stderr
        store = open_store(tmp_path / str(workers))
        found.append(store.columns(store.schema.names))
    assert found[0].column("name").to_pylist() == [f"s{i}" for i in range(20) if i != 17]
    assert found[0].equals(found[1])


def test_built_again_it_adds_what_is_new(xlatent, data, tmp_path, monkeypatch):
    store = tmp_path / "store"
    assert xlatent("build", many(data, 20, bad=[3]), "--output", store).exit_code == 1
    (data / "gone.pha").write_bytes((data / "faint.pha").read_bytes())
    monkeypatch.chdir(data)  # the same files by another path
    result = xlatent("build", many(data, 25, bad=[3]).name, "--output", store)
    assert result.exit_code == 0, result.stderr
    assert "6 spectra added" in result.stdout and "19 of the inputs were there already" in result.stdout
    names = [s.name for s in open_store(store)]
    assert names == [f"s{i}" for i in range(20) if i != 3] + ["s3"] + [f"s{i}" for i in range(20, 25)]
    assert left_out(store) == []


def test_killed_and_given_again_it_finishes(data, tmp_path, monkeypatch):
    store = tmp_path / "store"
    manifest = many(data, 100)
    script = f"from xlatent.formats import store; store.SHARD_ROWS = 16; {SCRIPT}"
    monkeypatch.setattr(sys.modules[__name__], "SCRIPT", script)
    arguments = manifest, "--output", store, "--workers", 2
    process = started(*arguments)
    wait_for(lambda: (store / "store.json").is_file() and (store / "store.json").read_text().count("sha256") >= 2)
    os.kill(process.pid, signal.SIGSTOP)
    second = started(*arguments)
    assert "another process is writing" in second.communicate()[1]
    children = children_of(process.pid)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    with pytest.warns(XlatentWarning, match="unfinished"):
        n_before = len(open_store(store))
    assert 32 <= n_before < 100
    wait_for(lambda: not any(alive(pid) for pid in children))
    process = started(*arguments)
    stdout, stderr = process.communicate()
    assert process.returncode == 0, stderr
    assert f"({n_before} of the inputs were there already): 100 in all" in stdout
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = open_store(store)
    assert found.columns(["name"]).column("name").to_pylist() == [f"s{i}" for i in range(100)]
    assert not list(store.rglob("*.part"))


def wait_for(condition):
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def children_of(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture
def detections(data):
    """Three detections of two sources, with the identity that the catalogue gives them in their headers."""
    from astropy.io import fits

    for name, obsid, region in (("bright", "459", 9), ("faint", "0460", 12), ("empty", "461", 3)):
        with fits.open(data / f"{name}.pha", mode="update") as hdus:
            hdus[1].header.update(OBS_ID=obsid, OBI_NUM=1, REGIONID=f"{region:04d}", OBJECT="a field")
    return data


def selection(path, **more):
    table = Table(
        {
            "name": ["2CXO J1", "2CXO J1", "2CXO J9"],
            "obsid": [460, 459, 4],
            "obi": [1, 1, 1],
            "region_id": [12, 9, 1],
            "ra": [10.0, 10.0, 20.0],
            "hard_ms": np.ma.MaskedArray([0.25, 0.5, 0.75], mask=[False, True, False]),
            **more,
        }
    )
    table["hard_ms"].unit, table["hard_ms"].description = "", "a hardness ratio"
    table["ra"].unit = "deg"
    table.meta.update(release="2.1")
    table.write(path, format="ascii.ecsv")
    return path


def test_the_catalogue_is_joined(xlatent, detections, tmp_path):
    store, table = tmp_path / "store", selection(tmp_path / "selection.ecsv")
    result = xlatent("build", detections, "--output", store, "--catalog", table)
    assert result.exit_code == 0, result.stderr
    assert "1 spectra have no row of their own" in result.stderr
    found = open_store(store)
    rows = {row["name"]: row for row in found.columns(found.schema.names).to_pylist()}
    assert rows["bright"]["hard_ms"] is None and rows["faint"]["hard_ms"] == 0.25
    assert rows["bright"]["source"] == rows["faint"]["source"] == "2CXO J1"
    assert rows["bright"]["split"] == rows["faint"]["split"] in ("train", "validation", "test")
    assert rows["empty"]["source"] == "a field" and rows["empty"]["catalogue_obsid"] is None
    assert rows["faint"]["catalogue_ra"] == 10.0 and rows["faint"]["obsid"] == "0460"
    assert found.schema.field("catalogue_ra").metadata == {b"unit": b"deg"}
    assert found.schema.field("hard_ms").metadata[b"description"] == b"a hardness ratio"


def test_a_fetched_folder_brings_its_catalogue(xlatent, detections, tmp_path):
    from xlatent.csc.manifest import Detection, Manifest, Product

    with Manifest(detections) as manifest:
        names = {Detection(459, 1, 9): "2CXO J1", Detection(460, 1, 12): "2CXO J1", Detection(461, 1, 3): "2CXO J5"}
        manifest.begin("2.1", names)
    result = xlatent("build", detections, "--output", tmp_path / "store")
    assert result.exit_code == 2 and "holds none" in result.stderr
    with Manifest(detections) as manifest:
        for detection, stem in zip(names, ("bright", "faint", "empty"), strict=True):
            for kind, suffix in {"spectrum": "pha", "arf": "arf", "rmf": "rmf"}.items():
                manifest.record_file(Product(detection, kind), detections / f"{stem}.{suffix}", "", 0)
    selection(detections / "selection.ecsv")
    result = xlatent("build", detections, "--output", tmp_path / "store")
    assert result.exit_code == 0, result.stderr
    found = open_store(tmp_path / "store").columns(["name", "source", "hard_ms"]).to_pylist()
    assert [tuple(row.values()) for row in found] == [
        ("2CXOJ1_459_1_9", "2CXO J1", None),
        ("2CXOJ1_460_1_12", "2CXO J1", 0.25),
        ("2CXOJ5_461_1_3", "2CXO J5", None),
    ]


def test_the_catalogue_says_the_split(xlatent, detections, tmp_path):
    table = selection(tmp_path / "selection.ecsv", split=["test", "test", "train"])
    xlatent("build", detections, "--output", tmp_path / "store", "--catalog", table)
    assert {"bright", "faint"} <= {s.name for s in open_store(tmp_path / "store").spectra("test")}


def test_without_keys_the_name_joins_and_only_if_it_is_one(xlatent, data, tmp_path):
    table = tmp_path / "properties.csv"
    table.write_text("name,kt\nfaint,0.5\nbright,1\nbright,2\n")
    result = xlatent("build", data, "--output", tmp_path / "store", "--catalog", table)
    assert result.exit_code == 0, result.stderr
    found = open_store(tmp_path / "store").columns(["name", "kt"]).to_pylist()
    assert {row["name"]: row["kt"] for row in found} == {"bright": None, "empty": None, "faint": 0.5}


def test_other_columns_need_another_store(xlatent, data, tmp_path):
    store = tmp_path / "store"
    assert xlatent("build", data / "faint.pha", "--output", store).exit_code == 0
    (tmp_path / "t.csv").write_text("name,kt\nfaint,0.5\n")
    result = xlatent("build", data / "bright.pha", "--output", store, "--catalog", tmp_path / "t.csv")
    assert result.exit_code == 2 and "differ in kt (double)" in result.stderr
    assert xlatent("build", data / "bright.pha", "--output", store).exit_code == 0
    assert [s.name for s in open_store(store)] == ["faint", "bright"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["gone.pha", "--output", "store"], ["gone.pha does not exist"]),
        (["bright.pha", "--output", "."], ["should be a store or an empty folder"]),
        (["bright.pha", "--output", "bright.pha"], ["bright.pha cannot be written"]),
        (["bright.pha", "--output", "store", "--catalog", "gone.ecsv"], ["gone.ecsv: there is no such file"]),
        (["bright.pha", "--output", "store", "--catalog", "bright.pha"], [".ecsv, .csv"]),
        (["bright.pha", "--output", "store", "--catalog", "broken.ecsv"], ["broken.ecsv", "not a readable"]),
        (["bright.pha", "--output", "store", "--catalog", "nameless.csv"], ["obsid, obi and region_id"]),
    ],
)
def test_usage_errors_are_one_sentence_and_write_nothing(xlatent, data, monkeypatch, arguments, words):
    monkeypatch.chdir(data)
    (data / "broken.ecsv").write_text("# %ECSV 1.0\n# ---\nname\n")
    (data / "nameless.csv").write_text("a,b\n1,2\n")
    before = sorted(p.name for p in data.iterdir())
    result = xlatent("build", *arguments)
    assert result.exit_code == 2, result.stderr
    assert result.stderr.startswith("xlatent: error: ") and result.stderr.count("\n") == 1
    assert all(word in result.stderr for word in words), result.stderr
    assert sorted(p.name for p in data.iterdir()) == before


def test_a_full_disk_is_told_and_nothing_is_called_bad(xlatent, drawers, tmp_path, monkeypatch):
    import errno

    from xlatent.formats import store_rows

    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(store_rows.pq, "write_table", full)
        result = xlatent("build", drawers, "--output", tmp_path / "store")
    assert result.exit_code == 2 and "No space left" in result.stderr and "make room" in result.stderr
    assert "left out" not in result.stderr
    assert xlatent("build", drawers, "--output", tmp_path / "store").exit_code == 0
    assert len(open_store(tmp_path / "store")) == 3


def test_embed_takes_stores_among_files(xlatent, data, tmp_path):
    store, output = tmp_path / "store", tmp_path / "t.parquet"
    assert xlatent("build", many(data, 20), "--output", store).exit_code == 0
    result = xlatent("embed", data / "empty.pha", store, data / "faint.pha", "--output", output, "--no-refine")
    assert result.exit_code == 0, result.stderr
    assert list(latent_tables.read(output)["name"]) == ["empty", *(f"s{i}" for i in range(20)), "faint"]
    result = xlatent("embed", store, "--rmf", "none", "--output", output)
    assert result.exit_code == 2 and "--rmf goes with files" in result.stderr


def test_a_damaged_shard_fails_and_the_others_embed(xlatent, data, tmp_path, monkeypatch):
    from xlatent.formats import store as stores

    monkeypatch.setattr(stores, "SHARD_ROWS", 16)
    store, output = tmp_path / "store", tmp_path / "t.parquet"
    assert xlatent("build", many(data, 40), "--output", store).exit_code == 0
    shard = store / "spectra-00001.parquet"
    shard.write_bytes(shard.read_bytes()[:5000])
    result = xlatent("embed", store, "--output", output, "--no-refine")
    assert result.exit_code == 1
    assert list(latent_tables.read(output)["name"]) == [f"s{i}" for i in (*range(16), *range(32, 40))]
    assert "16 of 40 spectra could not be embedded" in result.stderr and "cut off or damaged" in result.stderr
    result = xlatent("build", data / "list.csv", "--output", store)
    assert result.exit_code == 0 and "16 spectra added" in result.stdout
    assert sorted(s.name for s in open_store(store)) == sorted(f"s{i}" for i in range(40))
