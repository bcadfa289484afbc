"""``xlatent train``: a model from simulated spectra, and from real ones."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer


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
    from xlatent.workflows.train import train_model

    with _bar(preset) as (show, tell):

        def report(line: dict[str, Any]) -> None:
            tell(line)
            _print_score(line)

        checkpoint = train_model(
            preset, output, steps=steps, minutes=minutes, resume=resume, start=start, data=data, seed=seed,
            batches=batches, report=report, progress=show, on_status=typer.echo,
        )  # fmt: skip
    if checkpoint is not None:
        typer.echo(
            f"{checkpoint} written; make a model of it with: xlatent export {output} --output BUNDLE --name NAME"
        )


@contextmanager
def _bar(preset: str) -> Iterator[tuple[Callable[[int, int], None], Callable[[dict[str, Any]], None]]]:
    """Show progress and the last line of the log on stderr, if that is a terminal: functions that take them."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda done, total: None, lambda line: None
        return
    said = TextColumn("{task.fields[said]}")
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn(), said)
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(preset, total=None, said="")

        def show(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        def tell(line: dict[str, Any]) -> None:
            if "loss" in line:
                text = f"loss {line['loss']:.2f}  active {line['active']:.1f}  {line['spectra_per_s']:.0f} spectra/s"
                bar.update(task, said=text)

        yield show, tell


def _print_score(line: dict[str, Any]) -> None:
    """Print the score of held-out counts, where a line of the log has one."""
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
