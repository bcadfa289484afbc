"""``xlatent regress``: how much of measured quantities the latents hold."""

from typing import Annotated

import typer

from xlatent.cli.options import JoinOption, LatentsArgument, ResultsOutput, require_names
from xlatent.cli.ui import print_table, progress_bar
from xlatent.core.outputs import RESULTS, check_output


def regress(
    table: LatentsArgument,
    target: Annotated[
        str, typer.Option(metavar="COLUMN,...", help="Columns to predict from the latents.", show_default=False)
    ],
    join: JoinOption = None,
    output: ResultsOutput = None,
    seed: Annotated[int, typer.Option(help="Of folds, trees and resampling.")] = 0,
) -> None:
    """Say how much of a column the latents explain: R² of sources left out of the fit, by three regressors."""
    if output is not None:
        check_output(output, RESULTS)
    from xlatent.formats.catalogue_tables import read_columns, read_joined, write_results
    from xlatent.science.regress import regress as measure
    from xlatent.science.selection import warn_of_decoded

    targets = require_names(target, "--target")
    latents = read_joined(table, join, targets)
    warn_of_decoded(targets, [] if join is None else read_columns(join).colnames)
    with progress_bar("columns", len(targets)) as advance:
        results = measure(latents, targets, seed, advance)
    print_table(results)
    if output is not None:
        write_results(results, output)
