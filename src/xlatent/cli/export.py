"""``xlatent export``: a bundle that inference can use from a training run."""

from pathlib import Path
from typing import Annotated

import typer

from xlatent.cli import torch_needed

_TRAINING = (
    "Simulated spectra only (xlatent.simulate.population, seen through simulated ACIS responses of 1999 to 2026)."
)


def export(
    run: Annotated[Path, typer.Argument(help="Folder of a training run.", show_default=False)],
    output: Annotated[Path, typer.Option(help="Folder of the bundle; made if absent.", show_default=False)],
    name: Annotated[str, typer.Option(help="Name of the model.", show_default=False)],
) -> None:
    """Write the weights of a training run as a bundle: ONNX graphs, weights and what they are."""
    with torch_needed():
        from xlatent.model import export as exporting
    exporting.export(run, output, name=name, training=_TRAINING)
    typer.echo(f"{output} written; use it with --model {output}")
