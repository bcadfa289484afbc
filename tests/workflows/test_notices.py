"""Warnings of many files, told by kind, and the list of failures."""

import csv
import warnings

from xlatent.core.errors import XlatentWarning
from xlatent.workflows.notices import Failure, Notice, Notices, write_failures


def test_a_kind_of_several_files_is_one_warning_and_others_stay_as_they_are():
    notices = Notices()
    for name in ("a", "b", "a"):
        with notices.collect(name, f"{name}.pha"):
            warnings.warn(XlatentWarning(f"{name} lacks a response", kind="no response"), stacklevel=1)
    with notices.collect("a", "a.pha"):
        for quality in ("bad", "worse"):
            warnings.warn(XlatentWarning(f"a is {quality}", kind="quality"), stacklevel=1)
        warnings.warn("without a kind", XlatentWarning, stacklevel=1)
    assert [str(warning) for warning in notices.digest()] == [
        "a lacks a response (the first of 2 such warnings)",
        "a is bad",
        "a is worse",
        "without a kind",
    ]
    assert [(notice.name, notice.file) for notice in notices][:2] == [("a", "a.pha"), ("b", "b.pha")]


def test_a_warning_that_knows_its_file_is_told_of_that(tmp_path):
    notices = Notices()
    with notices.collect("a", "a.pha"):
        warnings.warn(XlatentWarning("a.arf is of another telescope", kind="telescope", file="a.arf"), stacklevel=1)
    write_failures([Failure("b", "b.pha", "b.pha does not exist")], tmp_path / "f.csv", notices)
    with (tmp_path / "f.csv").open() as stream:
        assert list(csv.DictReader(stream)) == [
            {"name": "b", "file": "b.pha", "reason": "b.pha does not exist"},
            {"name": "a", "file": "a.arf", "reason": "warning: a.arf is of another telescope"},
        ]


def test_the_same_text_is_kept_once():
    notices = Notices()
    notices.extend([Notice("a", "x.pha", "text", "kind"), Notice("b", "x.pha", "text", "kind")])
    assert [notice.name for notice in notices] == ["a"]
