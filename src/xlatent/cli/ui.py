"""The command line, and what its commands share: errors in one line, tables and progress on a terminal."""

import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

import typer

if TYPE_CHECKING:
    from astropy.table import Table
    from rich.progress import Progress

FAILED, USAGE, INTERRUPTED = 1, 2, 130


def echo_status(text: str) -> None:
    """Say something on stderr."""
    typer.echo(f"xlatent: {text}", err=True)


def abort(reason: object, code: int) -> NoReturn:
    """End the command with one sentence on stderr."""
    echo_status(f"error: {reason}")
    raise typer.Exit(code)


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
            no_wrap=name not in words,
            overflow="fold",
            min_width=(min_width or {}).get(name),
        )
    # Cells are cut and not their column, which would take from columns of numbers too.
    cut: dict[str, dict[str, Any]] = {name: {"no_wrap": True, "overflow": "ellipsis"} for name in shortened}
    for row in zip(*columns.values(), strict=True):
        cells = zip(columns, row, strict=True)
        shown.add_row(*(Text(_cell(name, value), **cut.get(name, {})) for name, value in cells))
    # A pipe has no width of its own.
    Console(highlight=False, width=None if sys.stdout.isatty() else 140).print(shown)


def _cell(name: str, value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.2g}" if name in ("p", "q") else f"{value:.3f}"


@contextmanager
def progress_bar(what: str, total: int | None = None, wait: float = 0.0) -> Iterator[Callable[..., None]]:
    """Show progress on stderr, if that is a terminal; gives a function of the number done and, perhaps, of all.

    Parameters
    ----------
    what : str
        Name of what is counted.
    total : int, optional
        Number of all, where it is known before.
    wait : float
        Seconds before the bar is worth showing.
    """
    began = time.monotonic()
    bar: Progress | None = None
    with ExitStack() as open_bars:

        def advance(done: int, total: int | None = total) -> None:
            nonlocal bar
            if bar is None and sys.stderr.isatty() and time.monotonic() - began >= wait:
                from rich.console import Console
                from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

                columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
                bar = open_bars.enter_context(Progress(*columns, console=Console(stderr=True)))
                bar.add_task(what, total=total)
            if bar is not None:
                bar.update(bar.task_ids[0], completed=done, total=total)

        if total is not None and not wait:
            advance(0)
        yield advance
