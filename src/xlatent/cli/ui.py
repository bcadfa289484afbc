"""The command line, and what its commands share: warnings and errors in one line, outputs checked before the work."""

import os
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import typer

from xlatent.core.errors import WriteError

if TYPE_CHECKING:
    from astropy.table import Table

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


def print_table(
    table: "Table | Mapping[str, Sequence[object]]",
    words: Collection[str] | None = None,
    shortened: Collection[str] = (),
    min_width: Mapping[str, int] | None = None,
) -> None:
    """Print a table on stdout for a person.

    Parameters
    ----------
    table : astropy.table.Table or mapping
        Columns by name. A float is shown with three decimals, a probability (``p`` or ``q``) with two digits; where
        others are wanted, give texts.
    words : collection of str, optional
        Columns that stand at the left and are wrapped where room is short; those of texts if not given. Others stand
        at the right, on one line.
    shortened : collection of str, optional
        Columns of words that are cut short instead.
    min_width : mapping, optional
        Least width of some columns, in characters.
    """
    from rich.console import Console
    from rich.table import Table as Shown
    from rich.text import Text

    columns = {name: list(table[name]) for name in table.keys()}  # noqa: SIM118 (a Table iterates over its rows)
    if words is None:
        words = [name for name, values in columns.items() if values and all(isinstance(v, str) for v in values)]
    shown = Shown(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        shown.add_column(
            Text(name),  # not a str, as names may hold the brackets of rich's markup
            justify="left" if name in words else "right",
            no_wrap=name not in words or name in shortened,
            overflow="ellipsis" if name in shortened else "fold",
            min_width=(min_width or {}).get(name),
        )
    for row in zip(*columns.values(), strict=True):
        shown.add_row(*(Text(_cell(name, value)) for name, value in zip(columns, row, strict=True)))
    # A pipe has no width of its own.
    Console(highlight=False, width=None if sys.stdout.isatty() else 140).print(shown)


def _cell(name: str, value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.2g}" if name in ("p", "q") else f"{value:.3f}"


@contextmanager
def progress_bar(what: str, total: int | None = None) -> Iterator[Callable[..., None]]:
    """Show progress on stderr, if that is a terminal; gives a function of the number done and, perhaps, of all."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    if not console.is_terminal:
        yield lambda done, total=None: None
        return
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done, total=None: bar.update(task, completed=done, total=total)


@contextmanager
def torch_needed() -> Iterator[None]:
    """Turn a failed import of what only training needs into one sentence."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("torch", "safetensors", "onnx", "onnxscript"):
            raise
        abort(f'{error.name} is not installed, and training needs it: pip install "xlatent[train]"', USAGE)
