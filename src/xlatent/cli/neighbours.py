"""``xlatent neighbours``: the sources of a table that are nearest to others in latent space."""

from pathlib import Path
from typing import Annotated

import typer

from xlatent.cli.ui import print_table, progress_bar
from xlatent.core.outputs import RESULTS, check_output

_SHOWN = 20


def neighbours(
    table: Annotated[Path, typer.Argument(metavar="T", help="Table of latents to search.", show_default=False)],
    query: Annotated[
        Path, typer.Argument(help="Table of latents of the sources whose neighbours are wanted.", show_default=False)
    ],
    output: Annotated[
        Path | None, typer.Option(help=f"Table to write, one row a neighbour: {', '.join(RESULTS)}.")
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Table with name and class; T's own class if not given."),
    ] = None,
    index: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Index of T: read if it is there, or else built and kept.")
    ] = None,
    k: Annotated[int, typer.Option("--number", "-k", min=1, help="Neighbours of each.")] = 5,
) -> None:
    """Find the nearest sources to each source of QUERY, by a distance that respects the errors of both.

    Ordered by log_odds: ln of how much more likely the data are with the neighbour's z than with that of any source.
    distance is in standard deviations. Rows of one name are no neighbours. Of millions of rows, keep T as .parquet and
    its index with --index: then only what is shown is read.
    """
    if output is not None:
        check_output(output, RESULTS)
    from xlatent.formats.catalogue_tables import write_results
    from xlatent.workflows.neighbours import find_neighbours

    with progress_bar("searches") as show:
        found = find_neighbours(table, query, labels=labels, index=index, k=k, progress=show)
    print_table(found[:_SHOWN])
    if len(found) > _SHOWN:
        typer.echo(f"and {len(found) - _SHOWN} more")
    if output is not None:
        write_results(found, output)
        typer.echo(f"written to {output}")
