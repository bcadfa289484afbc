"""``xlatent evaluate``: every tool on tables of latents and on spectra, as one report."""

from pathlib import Path
from typing import Annotated

import typer

from xlatent.cli.options import ModelOption
from xlatent.cli.ui import progress_bar


def evaluate(
    data: Annotated[
        list[str],
        typer.Option(help="Table of latents, or a store of spectra; may be given several times.", show_default=False),
    ],
    output: Annotated[Path, typer.Option(help="Folder for report.html, report.json and figures/.", show_default=False)],
    labels: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Table with name and class; its other columns are joined as those of --join."
        ),
    ] = None,
    join: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE", help="Table with name and measured columns, by the same names; may be given several times."
        ),
    ] = None,
    spectra: Annotated[
        list[str] | None,
        typer.Option(
            metavar="INPUT",
            help="Spectra to be judged one by one, as embed takes them; a column kind of a manifest stands beside.",
        ),
    ] = None,
    model: ModelOption = None,
    seed: Annotated[int, typer.Option(help="Of folds, starts, draws and resampling.")] = 0,
) -> None:
    """Run all tools and write one report: what the latents say, beside simpler baselines.

    What the columns at hand do not allow is left out, and the report says why. Folds are of sources, never of rows.
    """
    from xlatent.core.bundle import DEFAULT_MODEL
    from xlatent.workflows.evaluation.run import evaluate as run

    with progress_bar("sections") as show:
        found = run(
            data,
            output,
            labels=labels,
            join=join or (),
            spectra=spectra or (),
            model=model or DEFAULT_MODEL,
            seed=seed,
            progress=show,
        )
    left_out = sum(section.left_out for section in found.sections)
    typer.echo(
        f"{found.page}: {len(found.sections) - left_out} parts, {left_out} left out; "
        f"numbers in {output / 'report.json'}"
    )
