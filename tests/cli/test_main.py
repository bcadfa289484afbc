"""``xlatent`` itself: help, version, start-up and interrupts; and the commands that simulate, demonstrate and train."""

import json
import signal
import subprocess
import sys
import sysconfig
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

from xlatent.formats import latent_tables, ogip_spectrum

SCRIPT = str(Path(sysconfig.get_path("scripts")) / "xlatent")


def test_help_names_every_command(xlatent):
    result = xlatent("--help")
    assert result.exit_code == 0
    for command in ("embed", "show", "info", "demo", "simulate", "train", "export"):
        assert f"  {command} " in result.stdout
        assert xlatent(command, "--help").exit_code == 0


def test_version(xlatent):
    result = xlatent("--version")
    assert result.exit_code == 0 and result.stdout == f"xlatent {version('xlatent')}\n"


@pytest.mark.parametrize("arguments", [["unknown"], ["embed"], ["embed", "a.pha"], ["embed", "a", "--workers", "0"]])
def test_wrong_usage_exits_with_2(xlatent, arguments):
    assert xlatent(*arguments).exit_code == 2


def test_a_file_where_a_folder_is_needed_is_one_sentence(xlatent, tmp_path):
    (tmp_path / "file").write_text("")
    result = xlatent("train", "--preset", "response-aware", "--steps", "1", "--output", tmp_path / "file")
    assert result.exit_code == 2 and "Traceback" not in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1 and "choose another path" in result.stderr


def test_help_starts_light():
    # Seconds depend on the machine; what is imported does not. benchmarks/speed.py measures the seconds.
    code = (
        "import sys; from typer.testing import CliRunner; from xlatent.cli.main import app; "
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0; print(*sys.modules)"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    heavy = {"numpy", "scipy", "astropy", "matplotlib", "onnxruntime", "pyarrow", "pydantic", "rich", "torch"}
    assert heavy.isdisjoint(loaded), heavy & set(loaded)


def test_an_interrupt_is_quiet(tmp_path):
    process = subprocess.Popen(
        [SCRIPT, "simulate", "--n", "500", "--output", str(tmp_path / "s")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    until = time.monotonic() + 60
    while not list(tmp_path.glob("s/*.pha")) and time.monotonic() < until:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert (output, errors) == ("", "")


def test_simulate_writes_what_can_be_read_and_repeated(xlatent, tmp_path):
    for folder in ("a", "b"):
        result = xlatent("simulate", "--n", 2, "--seed", 3, "--output", tmp_path / folder)
        assert result.exit_code == 0, result.stderr
    first, second = (
        [ogip_spectrum.read(p) for p in sorted((tmp_path / folder).glob("*.pha")) if "_bkg" not in p.name]
        for folder in "ab"
    )
    assert len(first) == 2 and (tmp_path / "a" / "truth.ecsv").is_file()
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one.counts, other.counts)
        assert one.response is not None and one.background is not None


def test_demo_writes_a_table_and_a_figure_for_each(xlatent, tmp_path):
    result = xlatent("demo", "--output", tmp_path / "demo")
    assert result.exit_code == 0, result.stderr
    table = latent_tables.read(tmp_path / "demo" / "latents.parquet")
    assert len(table) >= 4 and np.isfinite(table.z).all()
    for name in table["name"]:
        assert (tmp_path / "demo" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert f"{name}.png" in result.stdout
        # Its observations can be used by hand, as the last lines say.
        assert list((tmp_path / "demo" / "spectra").glob(f"{name}.pha*"))


def test_demo_into_a_file_is_one_sentence(xlatent, tmp_path):
    (tmp_path / "demo").write_text("")
    result = xlatent("demo", "--output", tmp_path / "demo")
    assert result.exit_code == 2 and result.stderr.count("\n") == 1


@pytest.mark.slow
def test_train_resume_and_export(xlatent, drawers, tmp_path, monkeypatch):
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(name, "1")  # what the command sets is put back
    run, bundle = tmp_path / "run", tmp_path / "bundle"
    train = "train", "--preset", "paper", "--output", run, "--threads", 1
    assert xlatent(*train, "--steps", 1).exit_code == 0
    again = xlatent(*train, "--steps", 2)
    assert again.exit_code == 2 and "--resume" in again.stderr
    assert xlatent(*train, "--steps", 2, "--resume").exit_code == 0
    assert json.loads((run / "checkpoint.json").read_text())["step"] == 2
    result = xlatent("export", run, "--output", bundle, "--name", "tiny")
    assert result.exit_code == 0, result.stderr
    assert xlatent("embed", drawers / "faint.pha", "--model", bundle, "--output", tmp_path / "t.fits").exit_code == 0
    assert latent_tables.read(tmp_path / "t.fits").meta["model"] == "tiny"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "--preset", "paper", "--output", "run"], "either steps or minutes"),
        (["train", "--preset", "papre", "--steps", "1", "--output", "run"], "known are paper, response-aware"),
        (["train", "--preset", "paper", "--steps", "1", "--output", "run", "--from", "none"], "no model 'none'"),
        (["train", "--preset", "paper", "--steps", "1", "--output", "run", "--resume"], "no checkpoint"),
        (["export", "nowhere", "--output", "b", "--name", "b"], "no training run in nowhere"),
    ],
)
def test_training_mistakes_are_one_sentence(xlatent, monkeypatch, tmp_path, arguments, words):
    monkeypatch.chdir(tmp_path)
    result = xlatent(*arguments)
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1 and words in result.stderr, result.stderr


@pytest.mark.parametrize(
    "command", [["train", "--preset", "paper", "--output", "r"], ["export", "r", "--output", "b", "--name", "n"]]
)
def test_without_torch_training_names_the_remedy(command, tmp_path):
    # None in sys.modules is how Python itself records a module that cannot be imported.
    code = f"import sys; sys.modules['torch'] = None; from xlatent.cli.main import app; app({command!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and 'pip install "xlatent[train]"' in done.stderr
