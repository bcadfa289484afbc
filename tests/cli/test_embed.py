"""``xlatent embed``: what is written, what is told, and the exit status."""

import csv
import shutil
import subprocess
import sysconfig
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from xlatent.core.errors import ModelError, ReadError
from xlatent.formats import catalogue_tables, latent_tables, ogip_spectrum
from xlatent.formats import store as stores
from xlatent.formats.partitions import read as parts_of
from xlatent.infer import embed
from xlatent.workflows import tasks


def errors(result):
    """What was said on stderr as errors, one sentence each."""
    return [line for line in result.stderr.splitlines() if line.startswith("xlatent: error: ")]


@pytest.mark.parametrize("suffix", [".parquet", ".fits", ".vot", ".ecsv"])
def test_every_format_holds_the_same_latents(xlatent, drawers, tmp_path, suffix):
    output = tmp_path / f"latents{suffix}"
    result = xlatent("embed", drawers / "bright.pha", drawers / "faint.pha", "--output", output)
    assert result.exit_code == 0, result.stderr
    assert result.stderr == ""
    table = latent_tables.read(output)
    assert list(table["name"]) == ["bright", "faint"]
    assert np.isfinite(table.z).all() and (table.z_err > 0).all()
    assert table.meta["model"] == "chandra-acis-8" and len(table.meta["model_sha256"]) == 64
    # The summary shows the same rows.
    assert [line.split()[0] for line in result.stdout.splitlines()[1:3]] == ["bright", "faint"]
    assert f"2 spectra written to {output}" in result.stdout


def test_a_folder_gives_every_source_and_no_background(xlatent, drawers, tmp_path):
    result = xlatent("embed", drawers, "--output", tmp_path / "t.parquet")
    assert result.exit_code == 0, result.stderr
    assert sorted(latent_tables.read(tmp_path / "t.parquet")["name"]) == ["bright", "empty", "faint"]


def test_a_spectrum_without_counts_gets_a_row(xlatent, drawers, tmp_path):
    result = xlatent("embed", drawers / "empty.pha", "--output", tmp_path / "t.parquet")
    assert result.exit_code == 0, result.stderr
    table = latent_tables.read(tmp_path / "t.parquet")
    assert table["counts"][0] == 0
    assert "no_counts" in table["flags"][0].split(",")
    assert (table.z_err[0] > 0.7).all() and (np.abs(table.z[0]) < 0.7).all()  # little but the prior
    for name in table.colnames:
        if name not in ("ra", "dec", "mjd", "ess") and np.asarray(table[name]).dtype.kind == "f":
            assert np.isfinite(table[name][0]), name


def test_refining_improves_the_posterior(xlatent, drawers, tmp_path):
    found = {}
    for option in ("--refine", "--no-refine"):
        output = tmp_path / f"{option}.parquet"
        assert xlatent("embed", drawers / "bright.pha", option, "--output", output).exit_code == 0
        table = latent_tables.read(output)
        found[option] = float(table["cstat"][0]) + float(np.sum(table.z[0] ** 2))
    assert found["--refine"] <= found["--no-refine"] + 1e-3


def test_a_bad_file_fails_alone(xlatent, drawers, spoilt, tmp_path):
    output, failures = tmp_path / "t.parquet", tmp_path / "f.csv"
    good = drawers / "bright.pha", drawers / "faint.pha"
    result = xlatent("embed", good[0], spoilt, good[1], "--output", output, "--failures", failures)
    assert result.exit_code == 1
    assert list(latent_tables.read(output)["name"]) == ["bright", "faint"]
    with failures.open() as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["name"], row["file"]) for row in rows] == [(spoilt.stem, str(spoilt))]
    reason = rows[0]["reason"]
    assert spoilt.name in reason and "fault of xlatent" not in reason
    told = [line for line in result.stderr.splitlines() if "failed: " in line]
    assert told == [f"xlatent: failed: {spoilt.stem}: {reason}"]
    assert errors(result) == ["xlatent: error: 1 of 3 spectra could not be embedded; the others were written"]


def test_without_failures_the_list_of_failures_is_empty(xlatent, drawers, tmp_path):
    failures = tmp_path / "f.csv"
    arguments = "--output", tmp_path / "t.parquet", "--failures", failures
    assert xlatent("embed", drawers / "faint.pha", *arguments).exit_code == 0
    assert failures.read_text().splitlines() == ["name,file,reason"]


def test_if_all_fail_an_older_table_stays(xlatent, spoil, tmp_path):
    output = tmp_path / "t.parquet"
    output.write_text("older")
    result = xlatent("embed", spoil("text"), "--output", output)
    assert result.exit_code == 1
    assert output.read_text() == "older"
    assert "was not written" in errors(result)[0]
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_a_missing_file_of_a_manifest_fails_alone(xlatent, data, tmp_path):
    (data / "list.csv").write_text("name,pha\none,bright.pha\ntwo,gone.pha\n")
    result = xlatent("embed", data / "list.csv", "--output", tmp_path / "t.ecsv")
    assert result.exit_code == 1
    assert list(latent_tables.read(tmp_path / "t.ecsv")["name"]) == ["one"]
    assert "gone.pha does not exist" in result.stderr


def test_companions_can_be_given(xlatent, spoil, data, tmp_path):
    pha = spoil("no-response")
    given = "--arf", data / "bright.arf", "--rmf", data / "bright.rmf", "--background", "none"
    assert xlatent("embed", pha, "--output", tmp_path / "t.parquet").exit_code == 1
    assert xlatent("embed", pha, *given, "--output", tmp_path / "t.parquet").exit_code == 0
    assert "no_background" in latent_tables.read(tmp_path / "t.parquet")["flags"][0]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["bright.pha", "--output", "t.csv"], ["'.csv'", ".parquet, .fits, .vot, .ecsv"]),
        (["bright.pha", "--output", "t"], ["no suffix"]),
        (["bright.pha", "--output", "nowhere/t.fits"], ["there is no folder"]),
        (["bright.pha", "--output", "t.fits", "--failures", "f.txt"], ["f.txt", ".csv"]),
        (["gone.pha", "--output", "t.fits"], ["gone.pha does not exist"]),
        (["*.gone", "--output", "t.fits"], ["matches none"]),
        (["bright.pha", "--output", "t.fits", "--model", "chandra-acis-9"], ["chandra-acis-9", "chandra-acis-8"]),
    ],
)
def test_usage_errors_are_one_sentence_and_write_nothing(xlatent, data, monkeypatch, arguments, words):
    monkeypatch.chdir(data)
    before = sorted(p.name for p in data.iterdir())
    result = xlatent("embed", *arguments)
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1 and len(errors(result)) == 1
    assert all(word in result.stderr for word in words), result.stderr
    assert sorted(p.name for p in data.iterdir()) == before


def test_a_damaged_bundle_is_refused(xlatent, drawers, damaged_bundle, tmp_path):
    result = xlatent("embed", drawers / "faint.pha", "--output", tmp_path / "t.fits", "--model", damaged_bundle)
    assert result.exit_code == 2
    assert "decoder.onnx: sha256 is" in result.stderr and result.stderr.count("\n") == 1


def test_a_warning_is_one_line_told_once(xlatent, data, tmp_path):
    (data / "bright_bkg.pha").unlink()
    (data / "list.csv").write_text("name,pha\na,bright.pha\nb,bright.pha\n")
    result = xlatent("embed", data / "list.csv", "--output", tmp_path / "t.fits")
    assert result.exit_code == 0
    lines = result.stderr.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("xlatent: warning: ") and "bright_bkg.pha" in lines[0]


def test_warnings_of_many_files_are_one_line_and_listed(xlatent, data, tmp_path):
    for name in ("bright", "faint"):
        (data / f"{name}_bkg.pha").unlink()
    failures = tmp_path / "f.csv"
    result = xlatent("embed", data, "--no-refine", "--output", tmp_path / "t.fits", "--failures", failures)
    assert result.exit_code == 0
    (line,) = result.stderr.splitlines()
    assert line.startswith("xlatent: warning: ") and line.endswith("(the first of 2 such warnings)")
    with failures.open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["name"] for row in rows] == ["bright", "faint"]
    assert all(row["reason"].startswith("warning: ") and f"{row['name']}_bkg.pha" in row["reason"] for row in rows)


def test_many_rows_are_told_as_a_digest(xlatent, data, tmp_path):
    (data / "list.csv").write_text("name,pha\n" + "".join(f"s{i},faint.pha\n" for i in range(41)))
    result = xlatent("embed", data / "list.csv", "--no-refine", "--output", tmp_path / "t.fits")
    assert result.exit_code == 0
    labels = [line.split()[0] for line in result.stdout.splitlines()]
    assert labels == ["embedded", "counts", "cstat", "flags", "41"]


def test_workers_give_the_same_table_in_the_same_order(data, tmp_path):
    # Real processes: more spectra than are embedded together, one of them bad.
    names = ["bright.pha" if i % 2 else "faint.pha" for i in range(70)]
    names[37] = "gone.pha"
    (data / "list.csv").write_text("name,pha\n" + "".join(f"s{i},{name}\n" for i, name in enumerate(names)))
    command = [str(Path(sysconfig.get_path("scripts")) / "xlatent"), "embed", str(data / "list.csv")]
    found = []
    for workers, output in (("1", "1.parquet"), ("2", "2.parquet"), ("2", "parts/")):
        options = ["--no-refine", "--workers", workers, "--output", f"{tmp_path}/{output}"]
        done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
        assert done.returncode == 1 and "failed: s37: " in done.stderr, done.stderr
        found.append(latent_tables.read(tmp_path / output))
    for table in found:
        assert list(table["name"]) == [f"s{i}" for i in range(70) if i != 37]
        np.testing.assert_array_equal(table.z, found[0].z)


@pytest.fixture
def store(drawers, tmp_path, monkeypatch):
    """A store of 40 spectra in shards of 16, 16 and 8."""
    monkeypatch.setattr(stores, "SHARD_ROWS", 16)
    spectra = [ogip_spectrum.read(drawers / f"{name}.pha") for name in ("bright", "faint")]
    numbered = (replace(spectra[i % 2], meta=spectra[i % 2].meta | {"name": f"s{i}"}) for i in range(40))
    stores.write(numbered, tmp_path / "store")
    return tmp_path / "store"


PARTS = [f"spectra-0000{i}.parquet" for i in range(3)]


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def times_of(folder):
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


def test_parts_make_up_the_table(xlatent, store, tmp_path):
    folder, output = tmp_path / "parts", tmp_path / "t.parquet"
    result = xlatent("embed", store, "--no-refine", "--output", f"{folder}/")
    assert result.exit_code == 0, result.stderr
    assert result.stdout == f"40 spectra in 3 of 3 parts of {folder}\n"
    assert names_in(folder) == ["_embedding.json", *PARTS]
    assert xlatent("embed", store, "--no-refine", "--output", output).exit_code == 0
    one, parts = pq.read_table(output), parts_of(folder)
    assert parts.schema.equals(one.schema, check_metadata=True)
    for name in one.column_names:
        np.testing.assert_array_equal(parts.column(name).to_numpy(), one.column(name).to_numpy())
    assert len(catalogue_tables.read_columns(folder, ["name"])) == 40


def test_given_again_it_does_what_is_missing(xlatent, store, tmp_path):
    folder = tmp_path / "parts"
    folder.mkdir()
    command = "embed", store, "--no-refine", "--output", folder
    assert xlatent(*command).exit_code == 0
    before, table = times_of(folder), latent_tables.read(folder)
    (folder / PARTS[1]).unlink()
    (folder / PARTS[2]).write_bytes((folder / PARTS[2]).read_bytes()[:3000])
    (folder / f".{PARTS[1]}.0123.part").write_bytes(b"half")
    with pytest.raises(ReadError, match="1 of its 3 parts are missing"):
        latent_tables.read(folder)
    result = xlatent(*command)
    assert result.exit_code == 0 and "(1 of them were there already)" in result.stdout
    after = times_of(folder)
    assert sorted(name for name in before if before[name] == after[name]) == ["_embedding.json", PARTS[0]]
    np.testing.assert_array_equal(latent_tables.read(folder).z, table.z)
    assert names_in(folder) == ["_embedding.json", *PARTS]


def test_another_run_is_refused(xlatent, store, drawers, tmp_path):
    folder = tmp_path / "parts"
    assert xlatent("embed", store, "--no-refine", "--output", f"{folder}/").exit_code == 0
    before = times_of(folder)
    for arguments, word in (((store,), "other refine (False, now True)"), ((drawers, "--no-refine"), "other inputs")):
        result = xlatent("embed", *arguments, "--output", folder)
        assert result.exit_code == 2 and word in errors(result)[0] and result.stderr.count("\n") == 1
    result = xlatent("embed", store, "--output", drawers)
    assert result.exit_code == 2 and "should be empty or hold an embedding" in errors(result)[0]
    assert times_of(folder) == before


def test_failures_of_parts_are_told_again(xlatent, data, tmp_path):
    (data / "list.csv").write_text("name,pha\none,bright.pha\ntwo,gone.pha\n")
    folder, told = tmp_path / "parts", []
    for number in range(2):
        failures = tmp_path / f"{number}.csv"
        command = "embed", data / "list.csv", "--no-refine", "--output", f"{folder}/", "--failures", failures
        result = xlatent(*command)
        assert result.exit_code == 1 and "failed: two: " in result.stderr
        told.append((failures.read_text(), result.stderr, times_of(folder)))
    assert told[0] == told[1] and "gone.pha" in told[0][0]
    assert names_in(folder) == ["_embedding.json", "files-00000.parquet"]


def test_a_shard_that_is_mended_is_tried_again(xlatent, store, tmp_path):
    folder, shard = tmp_path / "parts", store / PARTS[1]
    whole = shard.read_bytes()
    shard.write_bytes(whole[:5000])
    command = "embed", store, "--no-refine", "--output", f"{folder}/"
    result = xlatent(*command)
    assert result.exit_code == 1 and "failed: row 16 and 15 more: " in result.stderr
    assert "16 of 40 spectra could not be embedded" in errors(result)[0]
    assert len(latent_tables.read(folder)) == 24
    shard.write_bytes(whole)
    assert xlatent(*command).exit_code == 0
    assert list(latent_tables.read(folder)["name"]) == [f"s{i}" for i in range(40)]


def test_several_inputs_and_a_place_elsewhere(xlatent, store, drawers, tmp_path):
    import fsspec

    other = tmp_path / "more" / "store"
    shutil.copytree(store, other)
    try:
        result = xlatent("embed", store, drawers, other, store, "--no-refine", "--output", "memory://embedded/here")
        assert result.exit_code == 0, result.stderr
        table = latent_tables.read(Path("memory://embedded/here"))  # as commands give it
        memory = fsspec.filesystem("memory")
        found = sorted(name.rpartition("/")[2] for name in memory.ls("/embedded/here", detail=False))
        of_stores = [f"{prefix}{name}" for prefix in ("0-store-", "1-store-") for name in PARTS]
        assert found == sorted(["_embedding.json", "files-00000.parquet", *of_stores])
        names = [f"s{i}" for i in range(40)]
        assert list(table["name"]) == [*names, "bright", "empty", "faint", *names]
        assert xlatent("embed", store, "--output", "nowhere://x").exit_code == 2
    finally:
        fsspec.filesystem("memory").rm("/embedded", recursive=True)


def test_a_worker_that_has_something_else_says_so(drawers):
    # As one on another machine may; here it is this process.
    from xlatent.formats.inputs import find
    from xlatent.workflows.embedder import Embedder
    from xlatent.workflows.tasks import check_settings, tasks_for_parts

    settings = check_settings("chandra-acis-8", False, "gaussian")
    (task,) = tasks_for_parts(find([drawers]), exact=False)
    assert Embedder(settings).embed(task).rows.num_rows == 3
    for change, word in (({"software": "xlatent 9.9"}, "xlatent 9.9"), ({"model_sha256": "0" * 64}, "000000000000")):
        with pytest.raises(ModelError, match=word):
            Embedder(settings._replace(**change)).embed(task)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--output", "t.parquet", "--scheduler", "tcp://127.0.0.1:1"], ["folder or URL", "end it with /"]),
        (["--output", "t/", "--scheduler", "tcp://127.0.0.1:1", "--workers", "2"], ["--workers", "--scheduler"]),
        (["--output", "s3://bucket/t.parquet"], ["leave the suffix away"]),
        (["--output", "nowhere/t/"], ["cannot be made"]),
    ],
)
def test_usage_errors_of_folders(xlatent, data, monkeypatch, arguments, words):
    monkeypatch.chdir(data)
    before = names_in(data)
    result = xlatent("embed", "faint.pha", *arguments)
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1 and all(word in errors(result)[0] for word in words), result.stderr
    assert names_in(data) == before


def test_the_real_spectra(xlatent, shared_data, tmp_path):
    spectra, other = shared_data / "spectra" / "manifest.csv", shared_data / "other-missions"
    for given, number in ((spectra, 24), (other, 3)):
        output = tmp_path / f"{number}.parquet"
        result = xlatent("embed", given, "--output", output)
        assert result.exit_code == 0, result.stderr
        table = latent_tables.read(output)
        assert len(table) == number
        assert np.isfinite(table.z).all() and np.isfinite(table.z_err).all() and (table.z_err > 0).all()


def test_tasks_hold_whole_groups():
    assert tasks.TOGETHER == embed.TOGETHER
