"""Options that several commands share, each with its one text; a command gives the default."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from xlatent.core.errors import ParameterError
from xlatent.core.outputs import FIGURES, RESULTS, TABLES


class PosteriorKind(StrEnum):
    """Kinds of posterior, as `LatentModel.embed` takes them."""

    GAUSSIAN = "gaussian"
    EXACT = "exact"


ModelOption = Annotated[
    str | None, typer.Option(help="Name of a model or folder of a bundle; the shipped one if not given.")
]
LatentsArgument = Annotated[Path, typer.Argument(help="Table of latents.", show_default=False)]
WorkersOption = Annotated[int, typer.Option(min=1, help="Processes.")]
TableOutput = Annotated[Path, typer.Option(help=f"Table to write: {', '.join(TABLES)}.", show_default=False)]
ResultsOutput = Annotated[Path | None, typer.Option(help=f"Table to write of the results: {', '.join(RESULTS)}.")]
FigureOutput = Annotated[Path, typer.Option(help=f"Figure to write: {', '.join(FIGURES)}.", show_default=False)]
JoinOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Another table with name and the columns; its values before the table's own."),
]

# Companions of all spectra of a call.
ArfOption = Annotated[Path | None, typer.Option(help="ARF of every spectrum of this call, or 'none'.")]
RmfOption = Annotated[Path | None, typer.Option(help="RMF of every spectrum of this call, or 'none'.")]
BackgroundOption = Annotated[Path | None, typer.Option(help="Background of every spectrum of this call, or 'none'.")]


def split_names(text: str) -> list[str]:
    """Split names at commas, each once."""
    return list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def require_names(text: str, option: str) -> list[str]:
    """Split names at commas, of which there must be one.

    Raises
    ------
    ParameterError
        If there is none.
    """
    if not (names := split_names(text)):
        raise ParameterError(f"{option} names no column; give one or more, separated by commas")
    return names


# Companions of the one spectrum of a call.
OneArfOption = Annotated[Path | None, typer.Option(help="ARF, or 'none'.")]
OneRmfOption = Annotated[Path | None, typer.Option(help="RMF, or 'none'.")]
OneBackgroundOption = Annotated[Path | None, typer.Option(help="Background, or 'none'.")]
