"""``xlatent train``: a model from simulated spectra."""

import os
from pathlib import Path
from typing import Annotated

import typer

from xlatent.cli import torch_needed


def train(
    preset: Annotated[str, typer.Option(help="What to train: response-aware or paper.", show_default=False)],
    output: Annotated[Path, typer.Option(help="Folder for checkpoints and log.", show_default=False)],
    steps: Annotated[int | None, typer.Option(min=1, help="Length of the training in steps.")] = None,
    minutes: Annotated[float | None, typer.Option(min=0.0, help="Length of the training in minutes.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint in --output.")] = False,
    start: Annotated[
        str | None, typer.Option("--from", metavar="BUNDLE", help="Model whose weights to start from.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of simulated spectra and initial weights.")] = 0,
    threads: Annotated[int | None, typer.Option(min=1, help="Of torch; its own choice if not given.")] = None,
) -> None:
    """Train a model on simulated spectra, on the GPU if there is one; give --steps or --minutes."""
    if threads is not None:
        os.environ.update(OMP_NUM_THREADS=str(threads), MKL_NUM_THREADS=str(threads))  # read when torch is loaded
    with torch_needed():
        from xlatent.model import train as training
        from xlatent.model.preset import load_preset
    from xlatent.bundle import locate

    weights = None if start is None else locate(start) / "weights.safetensors"
    checkpoint = training.train(
        load_preset(preset), output, steps=steps, minutes=minutes, resume=resume, weights=weights, seed=seed
    )
    typer.echo(f"{checkpoint} written; make a model of it with: xlatent export {output} --output BUNDLE --name NAME")
