"""What all figures share: colours, type, and files that are the same whenever they are drawn."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from xlatent.core.errors import WriteError

# Okabe & Ito 2008, Color Universal Design (jfly.uni-koeln.de/color): told apart by the colour-blind too.
BLACK, ORANGE, SKY, GREEN, BLUE, VERMILION = "#000000", "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00"
GREY = "#6E6E6E"

STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 8.0,
    "axes.titlesize": 9.0,
    "axes.linewidth": 0.7,
    "lines.linewidth": 1.1,
    "mathtext.fontset": "dejavusans",
    "legend.frameon": False,
    "legend.fontsize": 7.5,
    "xtick.direction": "in",
    "ytick.direction": "in",
    "xtick.top": True,
    "ytick.right": True,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    # Text stays text in PDF and SVG, and SVG's identifiers do not change from run to run.
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
    "svg.hashsalt": "xlatent",
}
# The date of drawing would make two drawings of one spectrum differ.
_UNDATED: dict[str, dict[str, Any]] = {".png": {}, ".pdf": {"CreationDate": None}, ".svg": {"Date": None}}


@contextmanager
def style() -> Iterator[None]:
    """Context in which figures look as ours do, whatever the user's matplotlibrc says."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        yield


def save(figure: Figure, path: str | Path) -> Path:
    """Write a figure, whole or not at all.

    Parameters
    ----------
    figure : Figure
    path : str or Path
        ``.png``, ``.pdf`` or ``.svg``.

    Raises
    ------
    WriteError
        If the suffix is another one or the file cannot be written.
    """
    path = Path(path)
    if path.suffix not in _UNDATED:
        raise WriteError(f"{path}: cannot write a figure with suffix {path.suffix!r}; use {', '.join(_UNDATED)}")
    unfinished = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        FigureCanvasAgg(figure)
        with style():
            figure.savefig(unfinished, dpi=200, metadata=_UNDATED[path.suffix])
        unfinished.replace(path)
    except OSError as error:
        raise WriteError(f"{path} cannot be written: {error.strerror or error}; choose another folder") from error
    finally:
        unfinished.unlink(missing_ok=True)
    return path
