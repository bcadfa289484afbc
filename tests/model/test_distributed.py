"""Processes that train together, started by torchrun as a user would: what they make is what one alone makes."""

import copyreg
import functools
import importlib.util
import json
import os
import pickle
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import load_file  # noqa: E402

from xlatent.core.grid import ModelGrid  # noqa: E402
from xlatent.model import batches, train  # noqa: E402
from xlatent.model.checkpoint import read_checkpoint  # noqa: E402

pytestmark = pytest.mark.slow

STEPS = 20
SCRIPT = Path(__file__).with_name("small_train.py")
spec = importlib.util.spec_from_file_location("small_train", SCRIPT)
small_train = importlib.util.module_from_spec(spec)
spec.loader.exec_module(small_train)
PRESET = small_train.small("response-aware")
torch.set_num_threads(1)
copyreg.pickle(types.ModuleType, lambda module: (importlib.import_module, (module.__name__,)))  # an observatory has one


@pytest.fixture(scope="module")
def observatory():
    """Made once, for its making takes seconds."""
    grid = ModelGrid()
    made = batches.Observatory(grid, torch.as_tensor(grid.energy, dtype=torch.float32))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches, "Observatory", lambda grid, energy: made)
        patch.setattr(train, "LOG_EVERY", small_train.LOG_EVERY)
        yield made


@pytest.fixture
def start(tmp_path, observatory):
    """Start processes that train in ``tmp_path / "run"``; each leaves its number in the file of its rank."""
    (tmp_path / "observatory").write_bytes(pickle.dumps(observatory))
    return functools.partial(torchrun, tmp_path)


def torchrun(folder, *words, output=None, n=2, restarts=0):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={n}"]
    command += [f"--max-restarts={restarts}", SCRIPT, "train", "--preset", "response-aware", "--steps", STEPS]
    command += ["--output", output or folder / "run", *words]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "SMALL_TRAIN": str(folder)}
    return subprocess.Popen(
        list(map(str, command)), env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def kill_one(folder, rank, at):
    """Kill a process once the checkpoint has come to a step."""
    state = folder / "run" / "checkpoint.json"
    while not (state.exists() and json.loads(state.read_text())["step"] >= at):
        time.sleep(0.01)
    os.kill(int((folder / str(rank)).read_text()), signal.SIGKILL)


def said(stderr):
    return [line for line in stderr.splitlines() if line.startswith("xlatent: ")]


def curve(run):
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def same(found, expected):
    for key, value in load_file(expected).items():
        torch.testing.assert_close(load_file(found)[key], value, rtol=1e-4, atol=1e-5, msg=key)


@pytest.fixture(scope="module")
def alone(tmp_path_factory, observatory):
    """A run of one process, of two batches a step."""
    return train.train(PRESET, tmp_path_factory.mktemp("alone"), steps=STEPS, batches=2)


def test_two_processes_are_one_with_twice_the_batch(tmp_path, start, alone):
    running = start()
    out, err = running.communicate(timeout=120)
    assert running.returncode == 0, err
    assert out.count("checkpoint.safetensors written") == 1
    state, _ = read_checkpoint(tmp_path / "run")
    assert state["step"] == STEPS and state["batches"] == 2
    lines, expected = curve(tmp_path / "run"), curve(alone.parent)
    assert [line["step"] for line in lines] == [10, 20]
    for line, other in zip(lines, expected, strict=True):
        names = line.keys() - {"elapsed_s", "spectra_per_s"}
        assert {name: line[name] for name in names} == pytest.approx({name: other[name] for name in names}, rel=1e-3)
    same(tmp_path / "run" / "checkpoint.safetensors", alone)


def test_one_is_killed_and_one_goes_on_alone(tmp_path, start, alone):
    running = start()
    kill_one(tmp_path, rank=1, at=5)
    _, err = running.communicate(timeout=120)
    assert running.returncode != 0
    state, _ = read_checkpoint(tmp_path / "run")
    assert 5 <= state["step"] < STEPS
    (sentence,) = said(err)
    assert "another process of this training ended" in sentence
    assert f"is whole, at step {state['step']}: go on from it with --resume" in sentence
    same(train.train(PRESET, tmp_path / "run", steps=STEPS, resume=True), alone)


def test_the_first_is_killed_and_torchrun_starts_them_again(tmp_path, start, alone):
    running = start(restarts=1)
    kill_one(tmp_path, rank=0, at=5)
    out, err = running.communicate(timeout=120)
    assert running.returncode == 0, err
    assert len(said(err)) == 1 and out.count("checkpoint.safetensors written") == 1
    same(tmp_path / "run" / "checkpoint.safetensors", alone)


def test_a_mistake_is_said_once(tmp_path, start, alone):
    running = start("--resume", output=alone.parent, n=3)
    _, err = running.communicate(timeout=120)
    assert running.returncode != 0
    (sentence,) = said(err)
    assert "a step of this run is 2 batches, too few for 3 processes to share: use 2 at most" in sentence
