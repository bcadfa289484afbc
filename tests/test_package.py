"""The package as installed: its face, what it imports, and what it says about itself."""

import ast
import subprocess
import sys
import tomllib
from importlib.metadata import metadata, requires, version
from pathlib import Path

import pytest
import yaml

import xlatent

ROOT = Path(__file__).resolve().parents[1]


def run(code, *options):
    return subprocess.run([sys.executable, "-W", "error", *options, "-c", code], capture_output=True, text=True)


def test_import_is_light_and_free_of_torch():
    done = run("import sys, xlatent; print(sorted({'torch', 'numpy', 'astropy', 'onnxruntime'} & set(sys.modules)))")
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_the_face_never_imports_torch():
    done = run(
        "import sys, xlatent; [getattr(xlatent, name) for name in xlatent.__all__]; print('torch' in sys.modules)",
        "-Wignore::DeprecationWarning",  # of what other packages use of one another
    )
    assert (done.stdout.strip(), done.stderr) == ("False", "")


def test_names():
    assert xlatent.__version__ == version("xlatent")
    assert dir(xlatent) == sorted(xlatent.__all__)
    assert xlatent.LatentTable.__module__ == "xlatent.core.latents"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = xlatent.nothing


def test_lazy_names_and_those_for_type_checkers_are_the_same():
    tree = ast.parse((ROOT / "src/xlatent/__init__.py").read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    typed = {alias.name: node.module for node in imports for alias in node.names if node.module.startswith("xlatent.")}
    assert typed == xlatent._HOME | {"register": "xlatent.core.hooks"}


def test_metadata():
    about = metadata("xlatent")
    assert about["License-Expression"] == "BSD-3-Clause"
    assert about["Requires-Python"] == ">=3.11"
    assert not [need for need in requires("xlatent") if need.startswith("torch") and "extra ==" not in need]
    assert (ROOT / "src/xlatent/py.typed").is_file()


def test_versions_agree():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert project["version"] == citation["version"] == xlatent.__version__
    assert f"## {project['version']}" in (ROOT / "CHANGELOG.md").read_text()
