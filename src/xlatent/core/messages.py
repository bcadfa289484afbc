"""Warnings and errors as sentences: who hears them, and what to say of an error that is ours."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from xlatent.core.errors import XlatentError, XlatentWarning


@contextmanager
def redirect_warnings(handler: Callable[[XlatentWarning], Any]) -> Iterator[None]:
    """Hand each `XlatentWarning` to ``handler``, those of one text once; other warnings go where they always go.

    The `warnings` module is not made for threads: of several, one at a time may do this.

    Parameters
    ----------
    handler : callable
        Takes the warning, whose ``str`` is its text.
    """
    heard = set()
    with warnings.catch_warnings():
        warnings.simplefilter("always", XlatentWarning)
        elsewhere = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
            if not isinstance(message, XlatentWarning):
                elsewhere(message, category, *place, **more)
            elif str(message) not in heard:
                heard.add(str(message))
                handler(message)

        warnings.showwarning = show
        yield


def first_line(error: Exception) -> str:
    """Say in one line what another library's error says."""
    text = getattr(error, "strerror", None) or str(error)
    return (text.splitlines() or [type(error).__name__])[0]


def reason(error: Exception) -> str:
    """Say in one sentence what went wrong, also where the fault is ours."""
    if isinstance(error, XlatentError):
        return str(error)
    text = " ".join(str(error).split())
    return f"unexpected {type(error).__name__} ({text}), a fault of xlatent; please report it with the file"
