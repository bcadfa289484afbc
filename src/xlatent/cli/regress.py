"""``xlatent regress``: how much of measured quantities the latents hold."""

import warnings
from pathlib import Path
from typing import Annotated

import typer

from xlatent.cli.results import RESULTS, names_of, write
from xlatent.cli.ui import print_table, progress_bar
from xlatent.core.errors import ParameterError, XlatentWarning
from xlatent.core.outputs import check_output

_FROM_LATENTS = ("flux_", "photflux_", "hard_")


def regress(
    table: Annotated[Path, typer.Argument(help="Table of latents.", show_default=False)],
    target: Annotated[
        str, typer.Option(metavar="COLUMN,...", help="Columns to predict from the latents.", show_default=False)
    ],
    join: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Another table with name and the columns; its values before the table's own."
        ),
    ] = None,
    output: Annotated[Path | None, typer.Option(help=f"Table to write of the results: {', '.join(RESULTS)}.")] = None,
    seed: Annotated[int, typer.Option(help="Of folds, trees and resampling.")] = 0,
) -> None:
    """Say how much of a column the latents explain: R² of sources left out of the fit, by three regressors."""
    if output is not None:
        check_output(output, RESULTS)
    from xlatent.formats.catalogue_tables import read_joined
    from xlatent.science import regress as regression

    targets = names_of(target)
    if not targets:
        raise ParameterError("--target names no column; give one or more, separated by commas")
    latents = read_joined(table, join, targets)
    warn_derived(targets, join)
    with progress_bar("columns", len(targets)) as advance:
        results = regression.regress(latents, targets, seed, advance)
    print_table(results)
    if output is not None:
        write(results, output)


def warn_derived(columns: list[str], join: Path | None) -> None:
    """Warn of fluxes and hardness ratios that were computed from the latents themselves."""
    from xlatent.core.latent_columns import COLUMNS
    from xlatent.formats.catalogue_tables import read_columns

    there = [] if join is None else read_columns(join).colnames
    own = {info.name for info in COLUMNS if info.name.startswith(_FROM_LATENTS)}
    if derived := [name for name in columns if name in own and name not in there]:
        warnings.warn(
            f"{', '.join(derived)}: computed from the same latents, which they then follow closely; give measured "
            "values with --join",
            XlatentWarning,
            stacklevel=3,
        )
