"""``xlatent accretion``: how much like an accreting compact object each source of a table is."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xlatent.core.errors import ModelError, ParameterError
from xlatent.core.outputs import FIGURES, TABLES, check_output

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from xlatent.infer.embed import LatentModel
    from xlatent.science.accretion import Direction


def accretion(
    table: Annotated[Path, typer.Argument(help="Table of latents.", show_default=False)],
    output: Annotated[Path, typer.Option(help=f"Table to write: {', '.join(TABLES)}.", show_default=False)],
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

    from xlatent.core.latents import LatentTable
    from xlatent.formats import latent_tables
    from xlatent.formats.catalogue_tables import read_joined
    from xlatent.science.accretion import Direction, learn_direction
    from xlatent.science.selection import source_ids, valid_rows

    latents = read_joined(table, labels, ["class"] if direction is None else [])
    origin = latents.meta.get("model_sha256", "")
    if direction is not None:
        line = Direction.load(direction)
        if line.model != origin:
            raise ParameterError(
                f"{direction} is for latents of model {line.model[:12] or 'unknown'} and {table} has those of "
                f"{origin[:12] or 'an unknown one'}; learn a direction for this model with --labels"
            )
    else:
        classes = np.ma.filled(np.ma.asarray(latents["class"]).astype(str), "")
        classes = np.where(valid_rows(latents), classes, "")
        line = learn_direction(latents.z, latents.covariance, classes, source_ids(latents), origin, seed)
        if keep is not None:
            line.save(keep)
    value, error = line.project(latents.z, latents.covariance)
    columns = {name: latents[name] for name in latents.colnames} | {"accretion": value, "accretion_err": error}
    latent_tables.write(LatentTable(columns, latents.meta), output)
    typer.echo(line.formula())
    for name, area in line.auc.items():
        typer.echo(
            f"compact objects above {name}: {area:.3f} ± {line.auc_err[name]:.3f} (AUC, sources left out of the fit)"
        )
    typer.echo(f"written to {output}")
    if figure is not None:
        from xlatent.core.bundle import DEFAULT_MODEL
        from xlatent.figures.style import save
        from xlatent.infer.embed import load_model

        loaded = load_model(model or DEFAULT_MODEL, threads=1)
        if origin not in ("", loaded.info.fingerprint):
            raise ModelError(
                f"{table} has latents of model {origin[:12]}, and {loaded.info.name} is "
                f"{loaded.info.fingerprint[:12]}: name the model that made it with --model"
            )
        save(_draw(line, loaded), figure)
        typer.echo(f"drawn to {figure}")


def _draw(line: "Direction", loaded: "LatentModel") -> "Figure":
    """Photon spectra at five places along the direction, E² times the density, the highest point of each at one."""
    import numpy as np
    from matplotlib.figure import Figure

    from xlatent.figures.style import BLACK, BLUE, ORANGE, SKY, VERMILION, style

    values = np.array([-2.0, -1.0, 0.0, 1.0, 2.0])
    energy = loaded.grid.energy_mid
    spectra = line.decode_along(loaded.decode, values) / loaded.grid.energy_width
    with style():
        figure = Figure(figsize=(4.8, 3.6), layout="constrained")
        axes = figure.add_subplot()
        for value, spectrum, colour in zip(values, spectra, (BLUE, SKY, BLACK, ORANGE, VERMILION), strict=True):
            shape = energy**2 * spectrum
            shape /= shape[(energy > 0.5) & (energy < 8.0)].max()
            axes.loglog(energy, shape, color=colour, label=f"a = {value:+.0f}")
        axes.set_xlim(0.5, 8.0)
        axes.set_ylim(1e-3, 2.0)
        axes.set_xticks([0.5, 1.0, 2.0, 5.0], ["0.5", "1", "2", "5"])
        axes.minorticks_off()
        axes.set_xlabel("Energy (keV)")
        axes.set_ylabel("E² × photon spectrum, at most 1")
        axes.legend()
    return figure
