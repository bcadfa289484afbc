"""``xlatent tracks``: sources with several observations, and whether their spectra change."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xlatent.cli.results import RESULTS, write
from xlatent.cli.ui import print_table
from xlatent.core.errors import ModelError, ParameterError, ReadError
from xlatent.core.outputs import FIGURES, check_output

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

    from xlatent.core.latents import LatentTable

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
    model: Annotated[
        str | None, typer.Option(help="Name of a model or folder of a bundle; the shipped one if not given.")
    ] = None,
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
    from xlatent.formats import latent_tables
    from xlatent.infer.embed import load_model
    from xlatent.science import tracks as science

    latents = latent_tables.read(table)
    if absent := [name for name in (by, time) if name is not None and name not in latents.colnames]:
        raise ReadError(f"{table}: has no column {absent[0]}, it has {', '.join(latents.colnames[:8])}, ...")
    names = latents.source_names if by is None else np.array([str(name).strip() for name in latents[by]])
    when = None
    if time is not None:
        try:
            when = np.ma.filled(np.ma.asarray(latents[time]).astype(float), np.nan)
        except ValueError as error:
            raise ParameterError(f"{table}: column {time} should hold numbers, found {latents[time][0]!r}") from error
    loaded = load_model(model or DEFAULT_MODEL, threads=1)
    origin = latents.meta.get("model_sha256", loaded.info.fingerprint)
    if origin != loaded.info.fingerprint:
        raise ModelError(
            f"{table} has latents of model {origin[:12]}, and {loaded.info.name} is {loaded.info.fingerprint[:12]}: "
            "name the model that made it with --model"
        )
    found = science.find_tracks(latents, names, when, loaded.decode, loaded.grid.energy_mid)
    print_table(found[:_SHOWN])
    moving = int((found["q"] < _FALSE).sum())
    typer.echo(f"{moving} of {len(found)} sources change, at most {_FALSE:.0%} of them falsely so")
    if output is not None:
        write(found, output)
        typer.echo(f"written to {output}")
    if figure is not None:
        from xlatent.figures.style import save

        best = found["source"][0]
        save(
            _draw(latents[np.flatnonzero(names == best)], str(best), when if when is None else when[names == best]),
            figure,
        )
        typer.echo(f"{best} drawn to {figure}")


def _draw(rows: "LatentTable", source: str, when: "np.ndarray | None") -> "Figure":
    """The two latents that move most for their errors, one against the other, in order of time."""
    import numpy as np
    from matplotlib.figure import Figure

    from xlatent.figures.style import BLUE, GREY, VERMILION, style

    order = np.arange(len(rows)) if when is None else np.argsort(when, kind="stable")
    z, covariance = rows.z[order], rows.covariance[order]
    i, j = np.sort(np.argsort(np.ptp(z, axis=0) / np.median(rows.z_err, axis=0))[-2:])
    turn = np.linspace(0.0, 2.0 * np.pi, 60)
    with style():
        figure = Figure(figsize=(4.4, 4.0), layout="constrained")
        axes = figure.add_subplot()
        axes.plot(z[:, i], z[:, j], color=GREY, lw=0.8)
        for number, (mean, both) in enumerate(zip(z, covariance[:, [[i], [j]], [[i, j]]], strict=True), start=1):
            ellipse = mean[[i, j], None] + np.linalg.cholesky(both) @ [np.cos(turn), np.sin(turn)]
            axes.plot(*ellipse, color=BLUE, lw=0.9)
            axes.annotate(str(number), mean[[i, j]], color=VERMILION, ha="center", va="center")
        axes.set_xlabel(f"z{i}")
        axes.set_ylabel(f"z{j}")
        axes.set_title(source, parse_math=False)
    return figure
