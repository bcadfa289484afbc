"""``xlatent tracks``: sources with several observations, and whether their spectra change."""

from pathlib import Path
from typing import Annotated

import typer

from xlatent.cli.options import ModelOption
from xlatent.cli.ui import print_table
from xlatent.core.errors import ReadError
from xlatent.core.outputs import FIGURES, RESULTS, check_output

_SHOWN = 20
_FALSE = 0.05


def tracks(
    table: Annotated[Path, typer.Argument(help="Table of latents, several rows a source.", show_default=False)],
    output: Annotated[
        Path | None, typer.Option(help=f"Table to write, one row a source: {', '.join(RESULTS)}.")
    ] = None,
    by: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Which rows are of one source; source, or else name.")
    ] = None,
    time: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="When a row was observed, a number; the order of rows if none.")
    ] = None,
    figure: Annotated[
        Path | None, typer.Option(help=f"Track of the most significant source: {', '.join(FIGURES)}.")
    ] = None,
    model: ModelOption = None,
) -> None:
    """Say of each source with several rows whether its z moves, how far and along which physical direction.

    q is the share of false ones among this and all sources above it. The direction is the one that explains most:
    hardening or softening (slope), absorbing or uncovering (column density), cooling or heating (temperature).
    """
    for path, suffixes in ((output, RESULTS), (figure, FIGURES)):
        if path is not None:
            check_output(path, suffixes)
    import numpy as np

    from xlatent.core.bundle import DEFAULT_MODEL
    from xlatent.core.latents import LatentTable, check_same_model
    from xlatent.formats.catalogue_tables import write_results
    from xlatent.infer.embed import load_model
    from xlatent.science.selection import numeric_column
    from xlatent.science.tracks import find_tracks

    latents = LatentTable.read(table)
    if absent := [name for name in (by, time) if name is not None and name not in latents.colnames]:
        raise ReadError(f"{table}: has no column {absent[0]}, it has {', '.join(latents.colnames[:8])}, ...")
    names = latents.source_names if by is None else np.array([str(name).strip() for name in latents[by]])
    when = None if time is None else numeric_column(latents, time)
    if when is not None and not np.isfinite(when).any():
        raise ReadError(f"{table}: column {time} has no value in any row; leave out --time to go by the order of rows")
    loaded = load_model(model or DEFAULT_MODEL, threads=1)
    check_same_model(
        {str(table): latents, loaded.info.name: loaded.info.fingerprint},
        "name the model that made it with --model",
        unknown_passes=True,
    )
    found = find_tracks(latents, names, when, loaded.decode, loaded.grid.energy_mid)
    print_table(found[:_SHOWN])
    n_moving = int((found["q"] < _FALSE).sum())
    typer.echo(f"{n_moving} of {len(found)} sources change, at most {_FALSE:.0%} of them falsely so")
    if output is not None:
        write_results(found, output)
        typer.echo(f"written to {output}")
    if figure is not None:
        from xlatent.figures.latent_space import plot_track
        from xlatent.figures.style import save

        best = str(found["source"][0])
        rows = np.flatnonzero(names == best)
        save(plot_track(latents[rows], None if when is None else when[rows], title=best), figure)
        typer.echo(f"{best} drawn to {figure}")
