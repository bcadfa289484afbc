"""``xlatent build``: spectra in, a store out; what cannot be read is left out and listed."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xlatent.cli.options import ArfOption, BackgroundOption, RmfOption, WorkersOption
from xlatent.cli.ui import FAILED, abort, echo_status, progress_bar

if TYPE_CHECKING:
    from xlatent.workflows.build import BuildResult

_TOLD = 10  # spectra left out that are named on the terminal; the file has them all


def build(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...",
            help="PHA files, folders, patterns, manifests (CSV), or a folder that xlatent csc fetch made.",
            show_default=False,
        ),
    ],
    output: Annotated[Path, typer.Option(help="Folder of the store; made, or added to.", show_default=False)],
    catalog: Annotated[
        Path | None,
        typer.Option(
            help="Table (ECSV, FITS, VOTable, CSV) whose columns are joined by obsid, obi and region_id or, without "
            "these, by name; selection.ecsv of a fetched folder if not given."
        ),
    ] = None,
    workers: WorkersOption = 1,
    arf: ArfOption = None,
    rmf: RmfOption = None,
    background: BackgroundOption = None,
) -> None:
    """Put many spectra with their responses into one store, which embed and train take in place of files.

    Killed and given again, it goes on where it was; what is in the store already is not read again.

    Exit status: 0 all spectra stored; 1 some were left out (left_out.csv in the store says why); 2 nothing was done.
    """
    from xlatent.workflows.build import build_store

    with progress_bar("spectra") as show:
        result = build_store(
            inputs, output, catalogue=catalog, workers=workers, arf=arf, rmf=rmf, background=background, progress=show
        )
    _report(result)


def _report(result: "BuildResult") -> None:
    """Say what was done, on stdout, and what was left out, on stderr."""
    from xlatent.workflows.build import LEFT_OUT

    size = sum(file.stat().st_size for file in result.path.rglob("*.parquet"))
    known = f" ({result.n_known} of the inputs were there already)" if result.n_known else ""
    typer.echo(f"{result.n_added} spectra added to {result.path}{known}: {result.n_total} in all, {size / 1e6:.4g} MB")
    n_failed = len(result.failures)
    for failure in result.failures[:_TOLD]:
        echo_status(f"left out: {failure.name}: {failure.reason}")
    if n_failed:
        more = f"{n_failed - _TOLD} of them only there; " if n_failed > _TOLD else ""
        abort(
            f"{n_failed} of {n_failed + result.n_added} spectra were left out, for reasons in "
            f"{result.path / LEFT_OUT}; {more}{'the others were stored' if result.n_added else 'none was added'}",
            FAILED,
        )
