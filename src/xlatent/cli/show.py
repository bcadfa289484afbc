"""``xlatent show``: one spectrum with its reconstruction, latents and fluxes as a figure."""

from pathlib import Path
from typing import Annotated

import typer

from xlatent.cli.options import (
    FigureOutput,
    ModelOption,
    OneArfOption,
    OneBackgroundOption,
    OneRmfOption,
    PosteriorKind,
)
from xlatent.core.outputs import FIGURES, check_output


def show(
    pha: Annotated[Path, typer.Argument(help="PHA file.", show_default=False)],
    output: FigureOutput,
    arf: OneArfOption = None,
    rmf: OneRmfOption = None,
    background: OneBackgroundOption = None,
    posterior: Annotated[
        PosteriorKind, typer.Option(help="Normal distribution at the mode, or draws from the exact one.")
    ] = PosteriorKind.GAUSSIAN,
    model: ModelOption = None,
) -> None:
    """Draw a spectrum with its reconstruction, residuals, photon spectrum, latents and fluxes."""
    check_output(output, FIGURES)
    from xlatent.workflows.show import DEFAULT_MODEL, draw_file

    name = DEFAULT_MODEL if model is None else model
    fit = draw_file(pha, output, model=name, posterior=posterior, arf=arf, rmf=rmf, background=background)
    typer.echo(f"{fit}\nwritten to {output}")
