"""``xlatent simulate``: observations of simulated sources, as OGIP files with a table of the truth."""

from pathlib import Path
from typing import Annotated

import typer

from xlatent.cli.ui import progress_bar


def simulate(
    output: Annotated[Path, typer.Option(help="Folder for the files; made if absent.", show_default=False)],
    n: Annotated[int, typer.Option("--n", min=1, help="Number of sources.")] = 12,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same simulation.")] = 1,
) -> None:
    """Simulate Chandra ACIS observations: PHA, background, ARF and RMF of each source, and what went in."""
    from xlatent.workflows import simulate as simulation

    with progress_bar("sources", n) as show:
        paths = simulation.simulate(n, seed, output, show)
    typer.echo(f"{len(paths)} {'source' if n == 1 else 'sources'} and {simulation.TRUTH} written to {output}")
