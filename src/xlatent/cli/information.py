"""``xlatent information``: mutual information of the latents with other columns."""

from pathlib import Path
from typing import Annotated

import typer

from xlatent.cli.regress import warn_derived
from xlatent.cli.results import RESULTS, names_of, write
from xlatent.cli.ui import print_table, progress_bar
from xlatent.core.errors import ParameterError
from xlatent.core.outputs import check_output


def information(
    table: Annotated[Path, typer.Argument(help="Table of latents.", show_default=False)],
    columns: Annotated[
        str,
        typer.Option("--with", metavar="COLUMN,...", help="Columns of numbers or of classes.", show_default=False),
    ],
    beside: Annotated[
        str,
        typer.Option(metavar="COLUMN,...", help="Columns to compare the latents with, together; '' for none."),
    ] = "hard_hm,hard_hs,hard_ms",
    join: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Another table with name and the columns; its values before the table's own."
        ),
    ] = None,
    output: Annotated[Path | None, typer.Option(help=f"Table to write of the results: {', '.join(RESULTS)}.")] = None,
    seed: Annotated[int, typer.Option(help="Of exchanges and resampling.")] = 0,
) -> None:
    """Estimate the mutual information of the latents with columns, and what of it hardness ratios do not hold.

    For each column three rows: of the latents, of the columns beside, and of the latents once those are given. p is the
    probability of as much without any relation, q the same corrected for the number of rows.
    """
    if output is not None:
        check_output(output, RESULTS)
    from xlatent.formats.catalogue_tables import read_joined
    from xlatent.science import information as shared

    wanted, compared = names_of(columns), names_of(beside)
    if not wanted:
        raise ParameterError("--with names no column; give one or more, separated by commas")
    latents = read_joined(table, join, wanted + compared)
    warn_derived(wanted, join)
    with progress_bar("estimates", len(wanted) * (3 if compared else 1)) as advance:
        results = shared.estimate_information(latents, wanted, compared, seed, advance)
    print_table(results)
    if output is not None:
        write(results, output)
