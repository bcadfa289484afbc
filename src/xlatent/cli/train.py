"""``xlatent train``: a model from simulated spectra, and from real ones."""

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from xlatent.cli.ui import progress_bar, torch_needed
from xlatent.core.errors import XlatentWarning


def train(
    preset: Annotated[str, typer.Option(help="What to train: response-aware or paper.", show_default=False)],
    output: Annotated[Path, typer.Option(help="Folder for checkpoints and log.", show_default=False)],
    steps: Annotated[int | None, typer.Option(min=1, help="Length of the training in steps.")] = None,
    minutes: Annotated[float | None, typer.Option(min=0.0, help="Length of the training in minutes.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint in --output.")] = False,
    start: Annotated[
        str | None, typer.Option("--from", metavar="BUNDLE", help="Model whose weights to start from.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(metavar="STORE", help="Real spectra to train on as well, from xlatent build.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of simulated spectra and initial weights.")] = 0,
    batches: Annotated[
        int | None, typer.Option(min=1, help="Batches averaged over in a step; one for each process if not given.")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Of torch; its own choice if not given.")] = None,
) -> None:
    """Train a model, on the GPU if there is one; give --steps or --minutes.

    Spectra are simulated; with --data half of each batch are real ones, known by their counts alone, and the score of
    held-out counts is told before and after. Several processes share the batches of a step where torchrun starts them:
    torchrun --standalone --nproc-per-node 2 --no-python xlatent train ...
    """
    if threads is not None:
        os.environ.update(OMP_NUM_THREADS=str(threads), MKL_NUM_THREADS=str(threads))  # read when torch is loaded
    with torch_needed():
        from xlatent.model import train as training
        from xlatent.model.distributed import joined
        from xlatent.model.observed import Observed
        from xlatent.model.preset import load_preset
    from xlatent.core.bundle import locate
    from xlatent.core.grid import ModelGrid

    with joined(output) as processes, _bars() as progress:
        say = typer.echo if processes.first else lambda text: None
        weights = None if start is None else locate(start) / "weights.safetensors"
        observed = None if data is None else Observed(data, ModelGrid(), progress)
        if observed is not None:
            say(f"{data}: {len(observed.train)} spectra to train on, {len(observed.validation)} to judge by")
            if observed.passed_over and processes.first:
                passed = f"{observed.passed_over.total()} spectra are passed over: {observed.reasons}"
                warnings.warn(f"{data}: {passed}", XlatentWarning, stacklevel=2)
        checkpoint = training.train(
            load_preset(preset), output, steps=steps, minutes=minutes, resume=resume, weights=weights, seed=seed,
            data=observed, report=_held_out, batches=batches, processes=processes,
        )  # fmt: skip
        say(f"{checkpoint} written; make a model of it with: xlatent export {output} --output BUNDLE --name NAME")


@contextmanager
def _bars() -> Iterator[Callable[[str, int, int], None]]:
    """Show one progress bar after the other, each for as long as it is not full."""
    with ExitStack() as shown:
        bars: dict[str, Callable[..., None]] = {}

        def show(what: str, done: int, total: int) -> None:
            if what not in bars:
                bars[what] = shown.enter_context(progress_bar(what, total))
            bars[what](done)
            if done == total:
                bars.clear()
                shown.close()

        yield show


def _held_out(line: dict[str, Any]) -> None:
    """Tell the score of held-out counts, where a line of the log has one."""
    score = line.get("held_out", {})
    if "end" in score:
        by, error = score["better_by"], score["standard_error"]
        typer.echo(
            f"held-out deviance at the end {score['end']:.2f}, {abs(by):.2f} +- {error:.2f} "
            f"{'better' if by > 0 else 'worse'} than at the start ({score['start']:.2f}); "
            f"better for {score['share_better']:.0%} of {score['spectra']} spectra"
        )
    elif score:
        typer.echo(f"held-out deviance at the start {score['start']:.2f}, per spectrum")
