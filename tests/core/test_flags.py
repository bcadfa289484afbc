"""The one list of flags: documented, complete; and the one rule of the verdict."""

import ast
from pathlib import Path

import pytest

import xlatent
from xlatent.core.flags import FLAGS, describe_verdict, fit_verdict

SOURCE = Path(xlatent.__file__).parent
PAGE = Path(__file__).resolve().parents[2] / "docs" / "flags.md"
# Where flags are raised: literals that look like one there are flags.
RAISING = ("infer/flags.py", "core/spectrum_flags.py", "infer/photometry.py", "formats/spectrum_table.py")


def test_the_page_has_every_flag_as_the_code_says_it():
    rows = [line for line in PAGE.read_text().partition("## Flags")[2].splitlines() if line.startswith("| `")]
    assert rows == [f"| `{flag.name}` | {flag.meaning} | {flag.remedy} |" for flag in FLAGS]
    assert len({flag.name for flag in FLAGS}) == len(FLAGS)


@pytest.mark.parametrize("file", RAISING)
def test_flags_that_are_raised_are_in_the_list(file):
    names = {flag.name for flag in FLAGS}
    raised = set()
    for node in ast.walk(ast.parse((SOURCE / file).read_text())):
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "append":
            raised |= {a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)}
    assert raised and raised <= names


@pytest.mark.parametrize(
    ("sigma", "counts", "fit", "words"),
    [
        (-4.0, 400.0, "good", "a good fit, lower than noise alone should give"),
        (2.9, 400.0, "good", "a good fit"),
        (3.1, 400.0, "poor", "a poor fit, 3 standard deviations off"),
        (211.0, 400.0, "fails", "the model fails, 211 standard deviations off"),
        (0.0, 9.0, "", "too few counts to judge the fit"),
        (float("nan"), 400.0, "", "too few counts to judge the fit"),
    ],
)
def test_verdict(sigma, counts, fit, words):
    assert fit_verdict(sigma, counts) == fit
    assert describe_verdict(fit, sigma) == words
