"""``xlatent embed --scheduler`` on a Dask cluster of real processes, some of which are killed."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_array

from xlatent.core.spectrum import Spectrum
from xlatent.formats import latent_tables
from xlatent.formats import store as stores
from xlatent.formats.partitions import PartitionedTable
from xlatent.simulate import acis

psutil = pytest.importorskip("psutil")
pytest.importorskip("distributed")
pytestmark = pytest.mark.cluster

XLATENT = str(Path(sysconfig.get_path("scripts")) / "xlatent")
LIGHT, IN_SHARD, HEAVY = 8, 32, 40  # shards that fit any worker, their spectra, and spectra of the one that does not
SMALL = "650MB"  # memory of a worker that embeds a light shard with 400 MB and would need over 900 for the heavy one


def spectra(responses, rng):
    """Faint spectra, one for each response."""
    for i, response in enumerate(responses):
        on, off = (rng.poisson(rate, response.chan_lo.size).astype(float) for rate in (0.3, 0.1))
        background = Spectrum(off, 1e4, backscale=10.0)
        yield Spectrum(on, 1e4, background=background, response=response, meta={"name": f"s{i}"})


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Shards whose spectra share a response."""
    path = tmp_path_factory.mktemp("light") / "store"
    responses = [acis.response(chip, 2005.0) for chip in ("BI", "FI")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stores, "SHARD_ROWS", IN_SHARD)
        stores.write(spectra(responses * (LIGHT * IN_SHARD // 2), np.random.default_rng(1)), path)
    return path


@pytest.fixture(scope="module")
def heavy(tmp_path_factory):
    """One shard in which each spectrum has a response of its own, none of them sparse: 13 MB each."""
    path = tmp_path_factory.mktemp("heavy") / "store"
    narrow = acis.response("BI", 2005.0)
    dense = narrow.redistribution.toarray() + 1e-9
    responses = (replace(narrow, redistribution=csr_array(dense * (1.0 - 1e-3 * i))) for i in range(HEAVY))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stores, "SHARD_ROWS", HEAVY)
        stores.write(spectra(responses, np.random.default_rng(2)), path)
    return path


@pytest.fixture(scope="module")
def alone(store, tmp_path_factory):
    """The table that one process makes."""
    output = tmp_path_factory.mktemp("alone") / "t.parquet"
    subprocess.run([XLATENT, "embed", str(store), "--output", str(output)], check=True, capture_output=True)
    return latent_tables.read(output)


class Cluster:
    """A scheduler and workers, each a process."""

    def __init__(self, folder):
        self.folder = folder
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            self.port = one.getsockname()[1]
        self.address = f"tcp://127.0.0.1:{self.port}"
        self.processes = []
        self.workers = []

    def start(self, *arguments):
        # A task is given up after two workers instead of four, to save time.
        options = {"env": os.environ | {"DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "1"}, "cwd": self.folder}
        with (self.folder / "log").open("a") as log:
            process = psutil.Popen([sys.executable, "-m", "dask", *arguments], stdout=log, stderr=log, **options)
        self.processes.append(process)
        return process

    def start_scheduler(self):
        address = "--host", "127.0.0.1", "--port", str(self.port), "--dashboard-address", "127.0.0.1:0"
        self.scheduler = self.start("scheduler", *address)

    def start_worker(self, memory="0"):
        options = "--nthreads", "1", "--no-dashboard", "--memory-limit", memory, "--death-timeout", "60"
        self.workers.append(self.start("worker", self.address, *options, "--local-directory", str(self.folder)))

    def stop_workers(self):
        for worker in self.workers:
            end(worker)
        self.workers = []

    def embed(self, *inputs, output):
        command = [XLATENT, "embed", *map(str, inputs), "--scheduler", self.address, "--output", f"{output}/"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.processes.append(psutil.Process(process.pid))
        return process


def end(process):
    """Kill a process and those it started."""
    try:
        family = [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for one in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()
    psutil.wait_procs(family, 10)


@pytest.fixture
def cluster(tmp_path):
    folder = tmp_path / "cluster"
    folder.mkdir()
    cluster = Cluster(folder)
    try:
        cluster.start_scheduler()
        yield cluster
    finally:
        for process in reversed(cluster.processes):
            end(process)


def wait_for(condition, seconds=90):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it takes too long"
        time.sleep(0.05)


def told(stderr):
    """What was said beside the dashboard and, perhaps, that workers are still starting."""
    first, *lines = stderr.splitlines()
    assert first.startswith("xlatent: dashboard: http://127.0.0.1:")
    return [line for line in lines if "no workers yet" not in line]


def parts_in(folder):
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("[!.]*.parquet")}


def assert_same(folder, expected):
    found = latent_tables.read(folder)
    assert list(found["name"]) == list(expected["name"])
    assert found.meta == expected.meta
    for name in expected.colnames:
        assert found[name].tolist() == expected[name].tolist() or np.array_equal(
            np.asarray(found[name]), np.asarray(expected[name]), equal_nan=True
        ), name
    assert not list(folder.glob(".*.part"))


def test_a_worker_that_is_killed(cluster, store, alone, tmp_path):
    output = tmp_path / "parts"
    for _ in range(2):
        cluster.start_worker()
    run = cluster.embed(store, output=output)
    wait_for(lambda: parts_in(output))
    (worker,) = cluster.workers[0].children()[-1:]  # the other one is the nanny, which starts it again
    worker.kill()
    assert len(parts_in(output)) < LIGHT - 2
    stdout, stderr = run.communicate(timeout=120)
    assert run.returncode == 0, stderr
    assert f"{len(alone)} spectra in {LIGHT} of {LIGHT} parts" in stdout
    assert told(stderr) == []
    assert "Worker process" in (cluster.folder / "log").read_text()  # says the nanny
    assert_same(output, alone)


def test_a_scheduler_that_is_killed_and_comes_back(cluster, store, alone, tmp_path):
    output = tmp_path / "parts"
    for _ in range(2):
        cluster.start_worker()
    run = cluster.embed(store, output=output)
    wait_for(lambda: parts_in(output))
    end(cluster.scheduler)
    before = parts_in(output)
    assert len(before) < LIGHT - 2
    wait_for(lambda: not any(worker.is_running() and worker.children() for worker in cluster.workers))
    # Workers leave with their scheduler; what supervises them starts both again.
    cluster.start_scheduler()
    for _ in range(2):
        cluster.start_worker()
    stdout, stderr = run.communicate(timeout=120)
    assert run.returncode == 0, stderr
    assert f"{len(alone)} spectra in {LIGHT} of {LIGHT} parts" in stdout
    assert told(stderr) == [f"xlatent: the scheduler at {cluster.address} is gone; waiting for it"]
    after = parts_in(output)
    assert {name: after[name] for name in before} == before  # what was there is not done again
    assert_same(output, alone)


def test_workers_out_of_memory(cluster, store, heavy, alone, tmp_path):
    output = tmp_path / "parts"
    for _ in range(2):
        cluster.start_worker(SMALL)
    run = cluster.embed(heavy, store, output=output)
    stdout, stderr = run.communicate(timeout=180)
    assert run.returncode == 1, stderr
    assert f"{len(alone)} spectra in {LIGHT} of {LIGHT + 1} parts" in stdout
    failed, error = told(stderr)
    assert failed.startswith(f"xlatent: failed: row 0 and {HEAVY - 1} more: ") and "for want of memory" in failed
    assert f"{HEAVY} of {HEAVY + len(alone)} spectra could not be embedded" in error
    before = parts_in(output)
    # With a worker that is large enough the same command does what is missing.
    cluster.stop_workers()
    cluster.start_worker()
    run = cluster.embed(heavy, store, output=output)
    stdout, stderr = run.communicate(timeout=120)
    assert run.returncode == 0, stderr
    after = parts_in(output)
    assert {name: after[name] for name in before} == before and len(after) == LIGHT + 1
    both = tmp_path / "both.parquet"
    subprocess.run([XLATENT, "embed", str(heavy), str(store), "--output", str(both)], check=True, capture_output=True)
    assert_same(output, latent_tables.read(both))


def test_an_interrupt(cluster, store, tmp_path):
    """A command that is interrupted takes its tasks back."""
    output = tmp_path / "parts"
    cluster.start_worker()
    run = cluster.embed(store, output=output)
    wait_for(lambda: parts_in(output))
    run.send_signal(signal.SIGINT)
    stdout, stderr = run.communicate(timeout=30)
    assert run.returncode == 130 and stdout == "" and "Traceback" not in stderr
    n_parts = len(parts_in(output))
    time.sleep(3)
    assert len(parts_in(output)) <= n_parts + 2 < LIGHT  # what was being done is finished
    assert PartitionedTable(output).info().parts
