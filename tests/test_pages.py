"""Every code block of README and docs: commands and Python run as they stand, and type checkers pass the Python."""

import gzip
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
import tomllib
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from astropy.table import Table
from typer.testing import CliRunner

from xlatent.cli.main import app
from xlatent.core.bundle import DEFAULT_MODEL, locate, read_info

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# Commands that want a service, and the test that runs them against one on loopback.
ELSEWHERE = {
    "xlatent csc ": "tests/csc/end_to_end.py",
    "xlatent train ": "tests/csc/end_to_end.py",
    "xlatent build csc --catalog": "tests/csc/end_to_end.py",
    "--scheduler": "tests/cluster/test_cluster.py",
    "--format hats": "tests/cluster/test_cluster.py",
    "torchrun": "tests/model/test_distributed.py",
    "dask ": "tests/cluster/test_cluster.py",
    "import lsdb": "tests/cluster/test_cluster.py",
}


class Block(NamedTuple):
    page: str
    line: int
    language: str
    text: str

    def __str__(self):
        return f"{self.page}:{self.line}"


def _blocks():
    for page in PAGES:
        text = page.read_text()
        for found in re.finditer(r"^```(\w+)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
            line = text.count("\n", 0, found.start()) + 1
            yield Block(page.name, line, found[1], found[2])


BLOCKS = list(_blocks())
PYTHON = [block for block in BLOCKS if block.language == "python"]
SHELL = [block for block in BLOCKS if block.language in ("sh", "console")]


def _commands(block):
    """Commands of a block, without prompts, comments and what they print."""
    text = block.text.replace("\\\n", " ")
    for line in text.splitlines():
        if block.language == "console":
            if not line.startswith("$ "):
                continue
            line = line.removeprefix("$ ")
        command = shlex.split(line, comments=True)
        if command:
            yield shlex.join(command), command


def _elsewhere(text):
    return next((place for words, place in ELSEWHERE.items() if words in text), None)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """What the pages speak of, small: a spectrum with its companions, a folder of them, a store, tables."""
    folder = tmp_path_factory.mktemp("pages")
    sample = folder / "spectra"
    shutil.copytree(resources.files("xlatent") / "sample", sample)
    (sample / "truth.ecsv").unlink()
    for file in sample.iterdir():
        shutil.copy(file, folder)
    (folder / "source.pi").write_bytes(gzip.decompress((sample / "sim17_000.pha.gz").read_bytes()))
    shutil.copytree(sample, folder / "csc")
    names = [f"sim17_{k:03d}" for k in range(6)]
    classes, indices = ["AGN", "AGN", "CV", "CV", "YSO", "YSO"], np.linspace(1.0, 2.0, 6)
    Table({"name": names, "class": classes, "powlaw_gamma": indices}).write(folder / "labels.csv")
    ends = {"": 1.0, "_lolim": 0.9, "_hilim": 1.1}
    flux = {f"flux_aper{end}_{band}": np.full(6, 1e-14 * scale) for band in "smh" for end, scale in ends.items()}
    Table({"name": names, **flux}).write(folder / "selection.ecsv")
    published = {
        f"{prefix}F{band}": np.full(6, value) for band in "smh" for prefix, value in {"": 1e-14, "e_": 1e-15}.items()
    }
    Table({"name": names, **published}).write(folder / "csc2_labelled_sources.csv")
    for arguments in (
        ["build", "spectra", "--output", "store"],
        ["build", "spectra", "--catalog", "labels.csv", "--output", "online"],
        ["embed", "spectra", "--output", "query.parquet"],
        ["embed", "spectra", "--output", "spectra.parquet"],
    ):
        _run(folder, arguments)
    return folder


def _run(folder, arguments):
    before = Path.cwd()
    os.chdir(folder)
    try:
        result = CliRunner().invoke(app, arguments)
    finally:
        os.chdir(before)
    assert result.exit_code == 0, f"xlatent {shlex.join(arguments)}\n{result.output}\n{result.exception!r}"
    return result.output


@pytest.mark.parametrize("block", [block for block in SHELL if block.page != "learn.md"], ids=str)
@pytest.mark.filterwarnings("ignore")
def test_commands_run(block, workspace):
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for text, (program, *arguments) in _commands(block):
        if place := _elsewhere(text):
            assert (ROOT / place).is_file()
        elif program == "make":
            assert set(arguments) <= set(targets), text
        elif program == "pip":
            asked = re.findall(r"\[([\w,]+)\]", text)
            assert arguments[0] == "install" and set(",".join(asked).split(",")) <= {*extras, ""}, text
        else:
            assert program == "xlatent", text
            if "selection.ecsv" in text or "chandra" not in arguments:
                _run(workspace, arguments)


@pytest.mark.parametrize("block", [block for block in PYTHON if block.page != "learn.md"], ids=str)
@pytest.mark.filterwarnings("ignore")
def test_python_runs(block, workspace, monkeypatch):
    if place := _elsewhere(block.text):
        assert (ROOT / place).is_file()
        return
    monkeypatch.chdir(workspace)
    if not (workspace / "latents").is_dir():
        _run(workspace, ["embed", "store", "--output", "latents/"])
    exec(compile(block.text.replace("https://example.org/store", "online"), str(block), "exec"), {})


@pytest.mark.slow
@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_type_checkers_pass_every_block(checker, tmp_path):
    pytest.importorskip(checker)
    for number, block in enumerate(PYTHON):
        body = textwrap.indent(block.text, "    ")
        heading = f"# {block}\n# pyright: reportMissingImports=false, reportPrivateImportUsage=false\n"
        (tmp_path / f"block_{number}.py").write_text(f"{heading}def page() -> None:\n{body}")
    settings = {
        "mypy": ["--config-file", str(ROOT / "pyproject.toml"), str(tmp_path)],
        "pyright": ["--pythonpath", sys.executable, str(tmp_path)],
    }
    done = subprocess.run([sys.executable, "-m", checker, *settings[checker]], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


_NUMBER = re.compile(r"[-+]?\d+\.?\d*(?:e[-+]?\d+)?")


def _is_printed(line, output):
    """Whether a line of a page is in what a command prints; its numbers may differ by a tenth, or by 0.05."""
    words, numbers = _NUMBER.sub("#", line).split(), [float(number) for number in _NUMBER.findall(line)]
    for printed in output.splitlines():
        found = [float(number) for number in _NUMBER.findall(printed)]
        if _NUMBER.sub("#", printed).split() == words and np.allclose(found, numbers, rtol=0.1, atol=0.05):
            return True
    return False


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_learn_prints_what_stands_there(shared_data, tmp_path, monkeypatch):
    for needed in ("sklearn", "pyoperon", "sympy"):
        pytest.importorskip(needed)
    for name in ("csc2_labelled_sources.csv", "csc2_source_properties.csv"):
        (tmp_path / name).symlink_to(shared_data / "catalogues" / name)
    (tmp_path / "spectra").symlink_to(shared_data / "spectra")
    monkeypatch.chdir(tmp_path)
    missing, given = [], []
    for block in (block for block in BLOCKS if block.page == "learn.md"):
        if block.language == "python":
            exec(compile(block.text, str(block), "exec"), {})
            continue
        commands = [arguments for _, (_, *arguments) in _commands(block)]
        output = "".join(_run(tmp_path, arguments) for arguments in commands)
        for option, path in (pair for arguments in commands for pair in pairwise(arguments)):
            assert option not in ("--output", "--save", "--figure") or (tmp_path / path).is_file(), path
        given += [arguments[0] for arguments in commands]
        expected = [line for line in block.text.splitlines() if not line.startswith("$ ") and line != "..."]
        missing += [f"{block}: {line}\n{output}" for line in expected if not _is_printed(line, output)]
    # Ties, such as two neighbours almost as near, may fall otherwise on another processor.
    assert len(missing) <= 3, "\n".join(missing)
    assert set(given) >= {
        "classify", "cluster", "regress", "information", "formulas", "neighbours", "outliers", "tracks", "accretion",
    }  # fmt: skip


def test_figures_of_pages_are_those_of_the_shipped_model():
    shipped = read_info(locate(DEFAULT_MODEL)).fingerprint
    benchmark = json.loads((ROOT / "docs" / "benchmark.json").read_text())
    assert benchmark["sha256"] == shipped
    for page in (ROOT / "docs" / "benchmark.md", locate(DEFAULT_MODEL) / "CLASSIFIER.md"):
        assert shipped[:12] in page.read_text(), page
    found = {what: value for _, what, _, value, _ in benchmark["targets"]}
    readme = (ROOT / "README.md").read_text()
    within = found["real spectra within best fit + 5, of 20"].replace("%", " %")
    below = found["real spectra, median of refined - best fit"].removeprefix("-")
    gap = float(found["amortised - refined below 10,000 counts, median"])
    widest = float(found["amortised - refined below 10,000 counts, 90th percentile"])
    assert f"{within} of 20; median {below} below it" in readme
    assert f"{gap:.1f} (90th percentile {widest:.0f})" in readme
    heat, index, column = (
        float(found[f"R² of {what}"])
        for what in (
            "log kT from z, plasmas",
            "Γ from z, power laws",
            "log N_H from z, foreground absorption only, above 10^21",
        )
    )
    assert f"{column:.2f}, {index:.2f}, {heat:.2f}" in readme
