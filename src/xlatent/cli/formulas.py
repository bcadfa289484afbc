"""``xlatent formulas``: closed expressions of latents and of physical quantities, found by symbolic regression."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xlatent.cli.results import RESULTS, names_of, write
from xlatent.cli.ui import print_table, progress_bar
from xlatent.core.errors import ParameterError
from xlatent.core.outputs import check_output

if TYPE_CHECKING:
    from astropy.table import Table

OUTPUTS = (*RESULTS, ".tex")


def formulas(
    table: Annotated[Path, typer.Argument(help="Table of latents.", show_default=False)],
    target: Annotated[
        str,
        typer.Option(
            metavar="COLUMN,...",
            help="Latents, to be written in band fluxes, and other columns of numbers, to be written in latents. "
            "Fluxes and hardness ratios of the table itself are those that the latents decode to.",
        ),
    ] = "z0,z1,hard_hm,hard_hs,hard_ms",
    join: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Another table with name and columns; its values before the table's own."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help=f"File to write of the results: {', '.join(OUTPUTS)} (LaTeX).")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the held-out part, the search and resampling.")] = 0,
) -> None:
    """Find formulas that tie latents to band fluxes and physical quantities to latents.

    For each target from the short and coarse to the long and accurate, with R² of sources that the search has not seen.
    """
    if output is not None:
        check_output(output, OUTPUTS)
    from xlatent.formats.catalogue_tables import read_joined
    from xlatent.science import formulas as science

    targets = names_of(target)
    if not targets:
        raise ParameterError("--target names no column; give one or more, separated by commas")
    latents = read_joined(table, join, [name for name in targets if name not in science.LATENTS])
    with progress_bar("targets", len(targets)) as advance:
        found = science.find_formulas(latents, targets, seed, advance)
    print_table(found["target", "length", "r2", "r2_lolim", "r2_hilim", "formula"])
    if output is None:
        return
    if output.suffix != ".tex":
        return write(found, output)
    unfinished = output.with_name(f".{output.stem}.{os.getpid()}{output.suffix}")
    unfinished.write_text(_latex(found))
    unfinished.replace(output)


def _latex(found: "Table") -> str:
    rows = [rf"${row['latex']}$ & {row['length']} & {row['r2']:.3f} \\" for row in found]
    return "\n".join([r"\begin{tabular}{lrr}", r"Formula & Length & $R^2$ \\", r"\hline", *rows, r"\end{tabular}", ""])
