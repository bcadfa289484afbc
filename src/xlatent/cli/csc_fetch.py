"""``xlatent csc fetch``: the spectra and responses of a selection, from the archive into a folder."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from xlatent.cli.ui import FAILED, abort, echo_status


def fetch(
    selection: Annotated[Path, typer.Argument(help="Table of detections that `xlatent csc select` has made.")],
    output: Annotated[Path, typer.Option(help="Folder for the files; made if absent.", show_default=False)],
    service: Annotated[
        str | None,
        typer.Option(
            envvar="XLATENT_CSC_RETRIEVE",
            metavar="URL",
            help="Retrieve service, if not that of the Chandra X-ray Center.",
            show_default=False,
        ),
    ] = None,
    retry_missing: Annotated[
        bool, typer.Option("--retry-missing", help="Ask again for what the archive did not have in earlier runs.")
    ] = False,
) -> None:
    """Fetch spectra, ARFs and RMFs from the Chandra Source Catalog; run again after any interruption to go on."""
    from xlatent.csc import retrieve

    with _progress() as progress:
        report = retrieve.fetch(
            selection, output, service or retrieve.SERVICE, retry_missing=retry_missing, progress=progress
        )
    typer.echo(
        f"{report.complete} of {report.detections} detections are complete in {output}: {report.files} files came "
        f"({report.n_bytes / 1e6:.1f} MB, {report.requests} requests)"
    )
    if report.missing:
        echo_status(
            f"warning: the archive does not have {_files(report.missing)}; they are not asked for again without "
            "--retry-missing"
        )
    if report.failed:
        abort(f"{_files(report.failed)} could not be had; run the command again to ask for them", FAILED)


def _files(products: dict[Any, str]) -> str:
    """Number of files, and the first of them with the reason."""
    product, reason = next(iter(products.items()))
    first = f"{product.kind} of {'.'.join(map(str, product.detection))}: {reason}"
    return f"{len(products)} {'file' if len(products) == 1 else 'files'} ({first})"


@contextmanager
def _progress() -> Iterator[Callable[[int, int, int], None] | None]:
    """Show files, bytes, rate and time left on stderr, if that is a terminal."""
    from rich.console import Console
    from rich.filesize import decimal
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    amount = TextColumn("{task.fields[amount]}")
    columns = ("files", BarColumn(), MofNCompleteColumn(), amount, TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("files", total=None, amount="")

        def show(files: int, wanted: int, n_bytes: int) -> None:
            seconds = bar.tasks[task].elapsed or 1.0
            amount = f"{decimal(n_bytes)} at {decimal(int(n_bytes / max(seconds, 0.1)))}/s"
            bar.update(task, completed=files, total=wanted, amount=amount)

        yield show
