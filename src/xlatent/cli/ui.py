"""The command line, and what its commands share: warnings and errors in one line, outputs checked before the work."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import typer

from xlatent.core.errors import WriteError

FAILED, USAGE, INTERRUPTED = 1, 2, 130


def echo_status(text: str) -> None:
    """Say something on stderr."""
    typer.echo(f"xlatent: {text}", err=True)


def abort(reason: object, code: int) -> NoReturn:
    """End the command with one sentence on stderr."""
    echo_status(f"error: {reason}")
    raise typer.Exit(code)


def check_output(path: Path, suffixes: Sequence[str]) -> None:
    """Make sure, before any work, that a file can be written.

    Raises
    ------
    WriteError
        If its suffix is another than those of ``suffixes``, or its folder is missing or not writable.
    """
    if path.suffix not in suffixes:
        found = f"suffix {path.suffix!r}" if path.suffix else "no suffix"
        raise WriteError(f"{path} has {found}, and the output's format is chosen by it: use {', '.join(suffixes)}")
    if not path.parent.is_dir():
        raise WriteError(f"{path}: there is no folder {path.parent}; make it first")
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise WriteError(
            f"{path} cannot be written: {'it is a folder' if path.is_dir() else 'its folder is read-only'}"
        )


@contextmanager
def progress_bar(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show progress on stderr, if that is a terminal; gives a function that takes the number done so far."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    if not console.is_terminal:
        yield lambda done: None
        return
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.update(task, completed=done)


@contextmanager
def torch_needed() -> Iterator[None]:
    """Turn a failed import of what only training needs into one sentence."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("torch", "safetensors", "onnx", "onnxscript"):
            raise
        abort(f'{error.name} is not installed, and training needs it: pip install "xlatent[train]"', USAGE)
