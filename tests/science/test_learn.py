"""Every command and every piece of Python of docs/learn.md, as it is written there, on fewer sources."""

import re
import shlex
from itertools import pairwise
from pathlib import Path

import pytest
from typer.testing import CliRunner

from xlatent.cli.classify import CLASSIFIER
from xlatent.cli.main import app
from xlatent.core.bundle import DEFAULT_MODEL, locate
from xlatent.infer import photometry_sampler
from xlatent.science import formulas, information

PAGE = Path(__file__).parents[2] / "docs" / "learn.md"
EVERY = {"csc2_labelled_sources.csv": 3, "csc2_source_properties.csv": 20}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_page_runs_as_written(shared_data, tmp_path, monkeypatch):
    pytest.importorskip("pyoperon")
    for name, every in EVERY.items():
        head, *rows = (shared_data / "catalogues" / name).read_text().splitlines(keepends=True)
        (tmp_path / name).write_text("".join([head, *rows[::every]]))
    (tmp_path / "spectra").symlink_to(shared_data / "spectra")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(photometry_sampler, "_MANY", 2**14)
    monkeypatch.setattr(information, "N_PERMUTATIONS", 10)
    monkeypatch.setattr(formulas, "_EVALUATIONS", 4000)
    commands = []
    for kind, block in re.findall(r"```(console|python)\n(.*?)```", PAGE.read_text(), re.DOTALL):
        if kind == "python":
            exec(block, {})
        for line in block.splitlines():
            if kind == "console" and line.startswith("$ xlatent "):
                commands.append(shlex.split(line)[2:])
                _run(commands[-1])
    assert {command[0] for command in commands} >= {
        "classify", "cluster", "regress", "information", "formulas", "neighbours", "outliers", "tracks", "accretion",
    }  # fmt: skip


def _run(arguments):
    if arguments[0] == "classify" and not (locate(DEFAULT_MODEL) / CLASSIFIER).is_file():
        return
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, f"{' '.join(arguments)}\n{result.output}\n{result.exception!r}"
    for option, path in pairwise(arguments):
        if option in ("--output", "--save", "--figure"):
            assert Path(path).is_file(), f"{' '.join(arguments)} wrote no {path}"
