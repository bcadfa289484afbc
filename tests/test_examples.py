"""Every ``>>>`` of a docstring, run as it stands there."""

import ast
import doctest
from importlib import import_module
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src"


def _with_examples():
    for path in sorted(SOURCE.rglob("*.py")):
        if ">>>" in path.read_text():
            parts = path.relative_to(SOURCE).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@pytest.mark.parametrize("name", list(_with_examples()))
def test_examples_of(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    for test in doctest.DocTestFinder(exclude_empty=True).find(import_module(name)):
        said = []
        runner.run(test, out=said.append)
        assert not said, "".join(said)
    # Decorators may hide a function from the finder, and its examples with it.
    tree = ast.parse((SOURCE / (name.replace(".", "/") + ".py")).read_text() if name != "xlatent" else "")
    nodes = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    written = sum((ast.get_docstring(node) or "").count(">>>") for node in ast.walk(tree) if isinstance(node, nodes))
    assert runner.tries == written
