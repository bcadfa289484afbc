"""``xlatent information``: mutual information of the latents with other columns."""

from typing import Annotated

import typer

from xlatent.cli.options import JoinOption, LatentsArgument, ResultsOutput, require_names, split_names
from xlatent.cli.ui import print_table, progress_bar
from xlatent.core.outputs import RESULTS, check_output


def information(
    table: LatentsArgument,
    columns: Annotated[
        str,
        typer.Option("--with", metavar="COLUMN,...", help="Columns of numbers or of classes.", show_default=False),
    ],
    beside: Annotated[
        str,
        typer.Option(metavar="COLUMN,...", help="Columns to compare the latents with, together; '' for none."),
    ] = "hard_hm,hard_hs,hard_ms",
    join: JoinOption = None,
    output: ResultsOutput = None,
    seed: Annotated[int, typer.Option(help="Of exchanges and resampling.")] = 0,
) -> None:
    """Estimate the mutual information of the latents with columns, and what of it hardness ratios do not hold.

    For each column three rows: of the latents, of the columns beside, and of the latents once those are given. p is the
    probability of as much without any relation, q the same corrected for the number of rows.
    """
    if output is not None:
        check_output(output, RESULTS)
    from xlatent.formats.catalogue_tables import read_columns, read_joined, write_results
    from xlatent.science.information import estimate_information
    from xlatent.science.selection import warn_of_decoded

    wanted, compared = require_names(columns, "--with"), split_names(beside)
    latents = read_joined(table, join, wanted + compared)
    warn_of_decoded(wanted, [] if join is None else read_columns(join).colnames)
    with progress_bar("estimates", len(wanted) * (3 if compared else 1)) as advance:
        results = estimate_information(latents, wanted, compared, seed, advance)
    print_table(results)
    if output is not None:
        write_results(results, output)
