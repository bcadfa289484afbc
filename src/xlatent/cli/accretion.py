"""``xlatent accretion``: how much like an accreting compact object each source of a table is."""

from pathlib import Path
from typing import Annotated

import typer

from xlatent.cli.options import LatentsArgument, TableOutput
from xlatent.core.errors import ParameterError
from xlatent.core.outputs import FIGURES, TABLES, check_output

_PLACES = (-2.0, -1.0, 0.0, 1.0, 2.0)  # along the direction, that are drawn


def accretion(
    table: LatentsArgument,
    output: TableOutput,
    labels: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Table with name and class, to learn from; the table's own class if not given."
        ),
    ] = None,
    direction: Annotated[
        Path | None,
        typer.Option(metavar="JSON", help="Use this direction, learned before, instead of learning one."),
    ] = None,
    keep: Annotated[
        Path | None, typer.Option("--save", metavar="JSON", help="File to keep the learned direction in.")
    ] = None,
    figure: Annotated[
        Path | None, typer.Option(help=f"What the direction does to a spectrum: {', '.join(FIGURES)}.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Model to decode the figure with: name or folder; the shipped one if not given.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of folds and resamples.")] = 0,
) -> None:
    """Give each source its place on the line in latent space that sets accreting compact objects apart.

    Adds accretion and accretion_err, in standard deviations of a group of sources: larger for HMXB, LMXB and CV than
    for AGN and for coronal sources (YSO, LM-STAR), 0 halfway to the nearer of the two.
    """
    check_output(output, TABLES)
    for path, suffixes in ((keep, (".json",)), (figure, FIGURES)):
        if path is not None:
            check_output(path, suffixes)
    if direction is not None and (labels is not None or keep is not None):
        raise ParameterError("--direction uses a direction learned before; leave out --labels and --save")
    import numpy as np

    from xlatent.core.latents import check_same_model
    from xlatent.formats.catalogue_tables import read_joined
    from xlatent.science.accretion import Direction, learn_direction
    from xlatent.science.selection import class_labels, source_ids, valid_rows

    latents = read_joined(table, labels, ["class"] if direction is None else [])
    if direction is not None:
        found = Direction.load(direction)
        remedy = "learn a direction for this model with --labels"
        check_same_model({str(direction): found.model, str(table): latents}, remedy)
    else:
        model_of_table = latents.meta.get("model_sha256", "")
        classes = np.where(valid_rows(latents), class_labels(latents), "")
        found = learn_direction(latents.z, latents.covariance, classes, source_ids(latents), model_of_table, seed)
        if keep is not None:
            found.save(keep)
    latents.with_columns(found.columns(latents)).write(output)
    typer.echo(found.formula())
    for name, area in found.auc.items():
        typer.echo(
            f"compact objects above {name}: {area:.3f} ± {found.auc_err[name]:.3f} (AUC, sources left out of the fit)"
        )
    typer.echo(f"written to {output}")
    if figure is not None:
        from xlatent.core.bundle import DEFAULT_MODEL
        from xlatent.figures.latent_space import plot_direction
        from xlatent.figures.style import save
        from xlatent.infer.embed import load_model

        loaded = load_model(model or DEFAULT_MODEL, threads=1)
        check_same_model(
            {str(table): latents, loaded.info.name: loaded.info.fingerprint},
            "name the model that made it with --model",
            unknown_passes=True,
        )
        places = np.array(_PLACES)
        save(plot_direction(loaded.grid.energy, found.decode_along(loaded.decode, places), places), figure)
        typer.echo(f"drawn to {figure}")
