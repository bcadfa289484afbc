"""`xl.embed_files`: what ``xlatent embed`` does, from Python."""

import os
import pickle
import shutil
from importlib import resources
from pathlib import Path
from threading import Thread

import numpy as np
import pytest

import xlatent as xl
from xlatent.core.errors import InputError, ModelError, ParameterError, WorkerError, WriteError, XlatentWarning
from xlatent.formats import latent_tables
from xlatent.workflows import embed
from xlatent.workflows.embedder import Embedder
from xlatent.workflows.parallel import in_order
from xlatent.workflows.tasks import Task, check_settings, tasks_for_table

NAMES = [f"sim17_{i:03d}" for i in range(6)]


@pytest.fixture(scope="session")
def sample() -> Path:
    """The simulated observations that come with the package; not to be changed."""
    return Path(str(resources.files("xlatent"))) / "sample"


@pytest.fixture
def observations(sample, tmp_path) -> Path:
    """A copy of them, to be spoilt at will."""
    return Path(shutil.copytree(sample, tmp_path / "observations"))


@pytest.fixture(scope="module")
def result(sample):
    return xl.embed_files(sample, refine=False)


def test_a_table_is_returned_and_nothing_written(result, sample, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert (result.output, result.n_embedded, result.failures, result.warnings) == (None, 6, (), ())
    assert list(result.table["name"]) == NAMES
    alone = xl.load_model(threads=1).embed(xl.read_all(sample), refine=False)
    np.testing.assert_allclose(result.table.z, alone.z, atol=1e-5)
    assert repr(result) == "<EmbeddingResult: 6 embedded, 0 failed>"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("held", [100, 1])
def test_what_is_written_is_what_is_returned(sample, tmp_path, monkeypatch, result, held):
    # Many rows do not stay in memory: the table is read from its file.
    monkeypatch.setattr(embed, "_HELD", held)
    monkeypatch.setattr("xlatent.workflows.tasks._FEW", 2)
    told = []
    written = xl.embed_files([sample], tmp_path / "t.parquet", refine=False, progress=lambda *done: told.append(done))
    assert told[-1] == (6, 6) and told == sorted(told)
    assert (written._rows is None) == (held == 1)
    np.testing.assert_allclose(written.table.z, result.table.z, atol=1e-5)
    np.testing.assert_array_equal(latent_tables.read(tmp_path / "t.parquet").z, written.table.z)
    assert written.columns(["name", "counts"]) == {"name": NAMES, "counts": result.table["counts"].tolist()}
    assert repr(written) == f"<EmbeddingResult: 6 embedded, 0 failed, written to {tmp_path / 't.parquet'}>"


def test_processes_give_the_same_table_and_leave_the_environment_alone(sample, result, monkeypatch):
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    shared = xl.embed_files(sample, refine=False, workers=2)
    np.testing.assert_array_equal(shared.table.z, result.table.z)
    assert "OMP_NUM_THREADS" not in os.environ


def test_parts_are_resumed(observations, tmp_path, result):
    store, parts = tmp_path / "store", tmp_path / "parts"
    xl.build_store(observations, store)
    first = xl.embed_files([store, observations / "sim17_000.pha.gz"], f"{parts}/", refine=False)
    assert (first.n_embedded, first.n_parts, first.n_parts_written, first.n_parts_known) == (7, 2, 2, 0)
    assert list(first.table["name"]) == [*NAMES, NAMES[0]]
    np.testing.assert_allclose(first.table.z[:6], result.table.z, atol=1e-5)
    files = {path.name: path.stat().st_mtime_ns for path in parts.glob("*.parquet")}
    (gone,) = parts.glob("files-*.parquet")
    gone.unlink()
    told = []
    again = xl.embed_files(
        [store, observations / "sim17_000.pha.gz"], parts, refine=False, progress=lambda *done: told.append(done)
    )
    assert (again.n_embedded, again.n_parts_known, told) == (7, 1, [(1, 1)])
    kept = {path.name: path.stat().st_mtime_ns for path in parts.glob("*.parquet") if path.name != gone.name}
    assert kept.items() <= files.items() and gone.is_file()


def test_failures_come_back_beside_the_table(observations):
    (observations / "sim17_002.pha.gz").write_bytes(b"nothing of use")
    found = xl.embed_files([observations / f"{name}.pha.gz" for name in NAMES], refine=False)
    assert list(found.table["name"]) == [name for name in NAMES if name != "sim17_002"]
    assert [failure.name for failure in found.failures] == ["sim17_002"]
    assert "sim17_002.pha.gz" in found.failures[0].reason
    none = xl.embed_files(observations / "sim17_002.pha.gz", observations / "t.fits", refine=False)
    assert none.table is None and none.n_embedded == 0 and not (observations / "t.fits").exists()


def test_warnings_of_many_files_are_one_of_each_kind(observations):
    for name in ("sim17_001", "sim17_002", "sim17_004"):
        (observations / f"{name}_bkg.pha.gz").unlink()
    with pytest.warns(XlatentWarning) as told:
        found = xl.embed_files(observations, refine=False)
    assert len(told) == 1 and str(told[0].message).endswith("(the first of 3 such warnings)")
    assert "sim17_001" in str(told[0].message)
    assert [notice.name for notice in found.warnings] == ["sim17_001", "sim17_002", "sim17_004"]
    assert all(f"{notice.name}_bkg.pha" in notice.text for notice in found.warnings)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"inputs": "gone.pha"}, InputError, "does not exist"),
        ({"output": "t.csv"}, WriteError, "'.csv'"),
        ({"output": "nowhere/t.fits"}, WriteError, "there is no folder"),
        ({"scheduler": "tcp://127.0.0.1:1"}, WriteError, "end it with /"),
        ({"output": "t/", "scheduler": "tcp://127.0.0.1:1", "workers": 2}, ParameterError, "leave one of them out"),
        ({"layout": "tree", "output": "t"}, ParameterError, "'hats'"),
        ({"posterior": "sharp"}, ParameterError, "sharp"),
        ({"model": "chandra-acis-9"}, ModelError, "chandra-acis-9"),
    ],
)
def test_mistakes_are_told_before_any_work(sample, tmp_path, monkeypatch, arguments, error, words):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=words):
        xl.embed_files(**{"inputs": sample / "sim17_000.pha.gz"} | arguments)
    assert list(tmp_path.iterdir()) == []


def test_threads_may_share_an_embedder(sample, result):
    from xlatent.formats.inputs import find

    embedder = Embedder(check_settings("chandra-acis-8", False, "gaussian"))
    tasks = [Task((source,)) for source in find([sample])]
    made = {}

    def embed(task):
        return embedder.embed(task).rows.column("z0").to_pylist()

    whole = [embed(task) for task in tasks]
    threads = [
        Thread(target=lambda mine=mine: made.update({i: embed(tasks[i]) for i in mine}))
        for mine in (range(0, 6, 2), range(1, 6, 2))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [made[i] for i in range(6)] == whole


def test_an_embedder_travels_as_its_settings(sample):
    from xlatent.formats.inputs import find

    embedder = Embedder(check_settings("chandra-acis-8", False, "gaussian"))
    (task,) = tasks_for_table(find([sample]), exact=False, workers=1)
    assert embedder.embed(task).rows.num_rows == 6  # its model is loaded now
    sent = pickle.dumps(embedder)
    assert len(sent) < 1000 and pickle.loads(sent).settings == embedder.settings


def test_a_process_that_dies_is_told():
    with pytest.raises(WorkerError, match="died"):
        list(in_order(os._exit, [3, 3, 3], 2))


@pytest.mark.parametrize("workers", [0, -1])
def test_no_process_and_no_input_are_told(workers):
    with pytest.raises(ParameterError, match=f"workers is {workers}"):
        xl.embed_files("spectra", workers=workers)
    with pytest.raises(ParameterError, match=f"workers is {workers}"):
        xl.build_store("spectra", "store", workers=workers)
    with pytest.raises(InputError, match="no spectra to embed"):
        xl.embed_files([])
