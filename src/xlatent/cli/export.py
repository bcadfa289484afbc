"""``xlatent export``: a bundle that inference can use from a training run."""

from pathlib import Path
from typing import Annotated

import typer

from xlatent.cli import torch_needed

_N_CALIBRATION = 1024  # simulated spectra
_TRAINING = (
    "Simulated spectra only (xlatent.simulate.population, seen through simulated ACIS responses of 1999 to 2026)."
)


def export(
    run: Annotated[Path, typer.Argument(help="Folder of a training run.", show_default=False)],
    output: Annotated[Path, typer.Option(help="Folder of the bundle; made if absent.", show_default=False)],
    name: Annotated[str, typer.Option(help="Name of the model.", show_default=False)],
) -> None:
    """Write the weights of a training run as a bundle: ONNX graphs, weights, what they are, how far they hold."""
    with torch_needed():
        from xlatent.model import export as exporting
    from xlatent.bundle import write_info
    from xlatent.infer.calibrate import model_error_counts
    from xlatent.infer.embed import load_model
    from xlatent.simulate.reference import reference_spectra

    exporting.export(run, output, name=name, training=_TRAINING)
    model = load_model(output, threads=1)
    if model.info.probabilistic:
        counts = model_error_counts(model, *reference_spectra(model.grid, _N_CALIBRATION))
        write_info(model.info.model_copy(update={"model_error_counts": counts}), output)
    typer.echo(f"{output} written; use it with --model {output}")
