"""``xlatent export``: a bundle that inference can use from a training run."""

from pathlib import Path
from typing import Annotated

import typer

from xlatent.cli.ui import progress_bar


def export(
    run: Annotated[Path, typer.Argument(help="Folder of a training run.", show_default=False)],
    output: Annotated[Path, typer.Option(help="Folder of the bundle; made if absent.", show_default=False)],
    name: Annotated[str, typer.Option(help="Name of the model.", show_default=False)],
    distil: Annotated[
        int,
        typer.Option(
            min=0,
            help="Steps in which a narrow decoder learns to stand for the trained one, 60 a second: 100000 for "
            "catalogues, which are embedded half as fast again with it.",
        ),
    ] = 0,
    proposal: Annotated[
        int,
        typer.Option(
            min=0,
            help="Spectra from which it learns to propose draws from exact posteriors, about 250 a second; 0 leaves "
            "these slow.",
        ),
    ] = 100_000,
) -> None:
    """Write the weights of a training run as a bundle: ONNX graphs, weights, what they are, how far they hold."""
    from xlatent.workflows.export import export_model

    with progress_bar("learning") as show:
        export_model(run, output, name=name, distil=distil, proposal=proposal, progress=show)
    typer.echo(f"{output} written; use it with --model {output}")
