"""A missing optional package is told in one sentence, any other failure is left alone."""

import importlib
import sys

import pytest

from xlatent.core.errors import XlatentError
from xlatent.core.extras import requires_extra


def test_a_missing_package_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.metrics", None)
    with (
        pytest.raises(XlatentError, match=r'sklearn is not installed.*pip install "xlatent\[science\]"'),
        requires_extra("science", "sklearn"),
    ):
        importlib.import_module("sklearn.metrics")


def test_another_package_is_not_blamed_on_the_extra():
    with pytest.raises(ModuleNotFoundError, match="no_such_package"), requires_extra("science", "sklearn"):
        importlib.import_module("no_such_package")
