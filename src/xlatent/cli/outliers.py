"""``xlatent outliers``: the sources of a table that are unlike the others, or badly reproduced."""

from typing import Annotated

import typer

from xlatent.cli.options import LatentsArgument, TableOutput
from xlatent.cli.ui import print_table, progress_bar
from xlatent.core.outputs import TABLES, check_output

_SHOWN = 10
_FALSE = 0.1


def outliers(
    table: LatentsArgument,
    output: TableOutput,
    seed: Annotated[int, typer.Option(help="Of halves, starts and draws.")] = 0,
) -> None:
    """Find sources that lie where few of the table do, errors considered, and those whose spectrum the model misses.

    Adds the columns log_density, p_density (probability of so rare a z in the population of the table), p_fit
    (probability of so high a statistic by noise alone; an excess may be the model's fault), and q_density, q_fit: the
    share of false ones among this and all rows below it.
    """
    check_output(output, TABLES)
    from xlatent.core.latents import LatentTable
    from xlatent.science.outliers import find_outliers
    from xlatent.science.selection import source_ids

    latents = LatentTable.read(table)
    with progress_bar("rows", len(latents)) as advance:
        found = find_outliers(latents, source_ids(latents), seed, advance)
    latents.with_columns({name: found[name] for name in found.colnames if name != "name"}).write(output)
    for word, what in (("density", "rare"), ("fit", "badly reproduced")):
        known = found[found[f"p_{word}"] >= 0]  # not NaN
        known.sort(f"p_{word}")
        number = int((known[f"q_{word}"] < _FALSE).sum())
        typer.echo(f"{what}: {number} of {len(known)} rows, at most {_FALSE:.0%} of them false")
        if number:
            known.rename_columns((f"p_{word}", f"q_{word}"), ("p", "q"))
            print_table(known[: min(number, _SHOWN)][["name", "log_density", "p", "q"]])
    typer.echo(f"written to {output}")
