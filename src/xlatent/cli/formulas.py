"""``xlatent formulas``: closed expressions of latents and of physical quantities, found by symbolic regression."""

from pathlib import Path
from typing import Annotated

import typer

from xlatent.cli.options import JoinOption, LatentsArgument, require_names
from xlatent.cli.ui import print_table, progress_bar
from xlatent.core.outputs import RESULTS, check_output

OUTPUTS = (*RESULTS, ".tex")


def formulas(
    table: LatentsArgument,
    target: Annotated[
        str,
        typer.Option(
            metavar="COLUMN,...",
            help="Latents, to be written in band fluxes, and other columns of numbers, to be written in latents. "
            "Fluxes and hardness ratios of the table itself are those that the latents decode to.",
        ),
    ] = "z0,z1,hard_hm,hard_hs,hard_ms",
    join: JoinOption = None,
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
    from xlatent.core.atomic import atomic
    from xlatent.formats.catalogue_tables import read_joined, write_results
    from xlatent.science.formulas import LATENTS, find_formulas, to_latex

    targets = require_names(target, "--target")
    latents = read_joined(table, join, [name for name in targets if name not in LATENTS])
    with progress_bar("targets", len(targets)) as advance:
        found = find_formulas(latents, targets, seed, advance)
    print_table(found["target", "length", "r2", "r2_lolim", "r2_hilim", "formula"])
    if output is None:
        return
    if output.suffix != ".tex":
        write_results(found, output)
        return
    with atomic(output) as temporary:
        temporary.write_text(to_latex(found))
