"""``xlatent embed``: spectra in, a table of latents out; one that fails does not stop the others."""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xlatent.cli.options import ArfOption, BackgroundOption, ModelOption, PosteriorKind, RmfOption, WorkersOption
from xlatent.cli.summary import COUNTED, MANY, SHOWN, summarise
from xlatent.cli.ui import FAILED, abort, echo_status, progress_bar
from xlatent.core.outputs import TABLES, check_output

if TYPE_CHECKING:
    from xlatent.workflows.embed import EmbeddingResult
    from xlatent.workflows.notices import Failure


class Layout(StrEnum):
    """Layouts of a folder, other than the parts that workers write."""

    HATS = "hats"


def embed(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...",
            help="PHA files, folders, patterns, manifests (CSV), or stores (folders or URLs).",
            show_default=False,
        ),
    ],
    output: Annotated[
        str,
        typer.Option(
            help=f"Table to write ({', '.join(TABLES)}); or, ending with '/', a folder or URL for one Parquet part of "
            "each shard: given again, the command does what is missing.",
            show_default=False,
        ),
    ],
    layout: Annotated[
        Layout | None,
        typer.Option("--format", help="hats: the folder becomes a HATS catalogue, which LSDB cross-matches."),
    ] = None,
    refine: Annotated[bool, typer.Option(help="Go on from the encoder's proposal to the exact posterior.")] = True,
    posterior: Annotated[
        PosteriorKind,
        typer.Option(help="Normal distribution at the mode, or draws from the exact one, many times slower."),
    ] = PosteriorKind.GAUSSIAN,
    model: ModelOption = None,
    workers: WorkersOption = 1,
    scheduler: Annotated[
        str | None,
        typer.Option(help="Address of a Dask scheduler (tcp://...), whose workers then do it; into a folder or URL."),
    ] = None,
    failures: Annotated[
        Path | None,
        typer.Option(help="CSV file for the names, files and reasons of spectra that failed, and for all warnings."),
    ] = None,
    arf: ArfOption = None,
    rmf: RmfOption = None,
    background: BackgroundOption = None,
) -> None:
    """Embed spectra: eight latents with uncertainties, fluxes and a fit statistic for each, as a table.

    Exit status: 0 all spectra embedded; 1 some failed and the others were written; 2 nothing was done.
    """
    from xlatent.workflows.embed import embed_files
    from xlatent.workflows.parallel import one_thread_each

    one_thread_each()
    if failures is not None:
        check_output(failures, (".csv",))
    with progress_bar("spectra", wait=2.0) as show:
        result = embed_files(
            inputs,
            output,
            model=model,
            refine=refine,
            posterior=posterior,
            workers=workers,
            scheduler=scheduler,
            layout=layout,
            arf=arf,
            rmf=rmf,
            background=background,
            progress=show,
            on_status=echo_status,
        )
    if failures is not None:
        from xlatent.workflows.notices import write_failures

        write_failures(result.failures, failures, result.warnings)
    _report(result, hats=layout is not None)
    _tell_failures(result.failures)
    if n_failed := len(result.failures):
        written = "the others were written" if result.n_embedded else f"{output} was not written"
        abort(f"{n_failed} of {n_failed + result.n_embedded} spectra could not be embedded; {written}", FAILED)


def _report(result: "EmbeddingResult", hats: bool) -> None:
    """Say on stdout what was written, and for one table what is in it."""
    n_rows = result.n_embedded
    spectra = "spectrum" if n_rows == 1 else "spectra"
    if result.n_parts:
        place = Path(f"{result.output}.parts").resolve() if hats else result.output
        known = f" ({result.n_parts_known} of them were there already)" if result.n_parts_known else ""
        typer.echo(f"{n_rows} {spectra} in {result.n_parts_written} of {result.n_parts} parts of {place}{known}")
        if hats and n_rows:
            typer.echo(f"HATS catalogue written to {result.output}")
    elif n_rows:
        summarise(result.columns(COUNTED if n_rows > MANY else SHOWN))
        typer.echo(f"{n_rows} {spectra} written to {result.output}")


def _tell_failures(failures: "Sequence[Failure]") -> None:
    """Say what failed, and why; what failed for one reason, such as the rows of a damaged shard, together."""
    alike: dict[tuple[str, str], list[str]] = {}
    for failure in failures:
        alike.setdefault((failure.file, failure.reason), []).append(failure.name)
    for (_, reason), names in alike.items():
        others = f" and {len(names) - 1} more" if len(names) > 1 else ""
        echo_status(f"failed: {names[0]}{others}: {reason}")
