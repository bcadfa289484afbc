"""What all figures share: colours and marks, type, logarithmic axes, and files that are the same whenever drawn."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import Formatter, Locator, NullFormatter

from xlatent.core.atomic import atomic
from xlatent.core.errors import WriteError

# Okabe & Ito 2008, Color Universal Design (jfly.uni-koeln.de/color): told apart by the colour-blind too.
BLACK, ORANGE, SKY, GREEN, BLUE, VERMILION = "#000000", "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00"
PURPLE, GREY = "#CC79A7", "#6E6E6E"
MARKS = (
    (BLUE, "o"), (ORANGE, "s"), (SKY, "^"), (VERMILION, "v"), (BLACK, "D"), (GREEN, "P"), (PURPLE, "X"), (GREY, "*"),
)  # fmt: skip
"""Colour and marker of each of several classes: told apart by shape as well, for the eye has fewer colours."""

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
_MOST_DECADES, _LEAST_RANGE = 4, 4.0
_MOST_LABELS = 7


@contextmanager
def style() -> Iterator[None]:
    """Make figures look as ours do within a block, whatever the user's matplotlibrc says."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        yield


def save(drawn: Figure | Axes, path: str | Path) -> Path:
    """Write a figure, whole or not at all.

    Parameters
    ----------
    drawn : Figure or Axes
        A figure, or any axes in it.
    path : str or Path
        ``.png``, ``.pdf`` or ``.svg``.

    Raises
    ------
    WriteError
        If the suffix is another one or the file cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> save(Figure(), Path(tempfile.mkdtemp()) / "empty.pdf").suffix
    '.pdf'
    """
    path = Path(path)
    if path.suffix not in _UNDATED:
        raise WriteError(f"{path}: cannot write a figure with suffix {path.suffix!r}; use {', '.join(_UNDATED)}")
    figure: Any = drawn
    while not isinstance(figure, Figure):  # axes may stand in figures within figures
        figure = figure.figure
    with atomic(path) as temporary, style():
        figure.savefig(temporary, dpi=200, metadata=_UNDATED[path.suffix])
    return path


def set_log_range(
    ax: Axes, low: float, high: float, *, keep: Float[np.ndarray, " n"] | None = None, headroom: float = 0.0
) -> None:
    """Set the range of a logarithmic y axis: at most four decades, at least a factor of four, and few labels.

    Parameters
    ----------
    ax : Axes
    low, high : float
        Least and greatest value to be seen.
    keep : array [n], optional
        Values that stay in sight, however many decades they take; those of zero cannot.
    headroom : float
        Share of the axis that stays free at its top, for a legend.
    """
    if not (np.isfinite(high) and high > 0):
        low, high = 0.1, 1.0  # nothing to be seen
    low = max(low, 10.0 ** (-_MOST_DECADES * (1.0 - headroom)) * high)
    if keep is not None and np.any(seen := keep > 0):
        low = min(low, 0.6 * float(keep[seen].min()))
    if high < _LEAST_RANGE * low:
        middle = np.sqrt(low * high)
        low, high = middle / np.sqrt(_LEAST_RANGE), middle * np.sqrt(_LEAST_RANGE)
    ax.set(yscale="log", ylim=(low, low * (high / low) ** (1.0 / (1.0 - headroom))))
    label_decades(ax.yaxis)


def label_decades(axis: Axis, clear: float = 0.0) -> None:
    """Label a logarithmic axis so that there are two labels or more, and none that crowd.

    Parameters
    ----------
    axis : Axis
        ``ax.xaxis`` or ``ax.yaxis``.
    clear : float
        Share of the axis at its lower end where labels are left out, because another panel begins there.
    """
    axis.set_major_locator(_DecadeLocator())
    axis.set_major_formatter(_DecadeFormatter(clear))
    axis.set_minor_formatter(NullFormatter())


class _DecadeLocator(Locator):
    """Powers of ten; where they are fewer than three, multiples of them as well."""

    def __call__(self) -> Any:
        return self.tick_values(*self.axis.get_view_interval())  # type: ignore[union-attr]

    def tick_values(self, vmin: float, vmax: float) -> Any:
        low, high = sorted((vmin, vmax))
        powers = 10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
        ticks = powers
        for factors, enough in (((1,), 3), ((1, 3), 3), ((1, 2, 5), 2), (range(1, 10), 1)):
            ticks = np.outer(powers, factors).ravel()
            ticks = ticks[(ticks >= low * (1 - 1e-9)) & (ticks <= high * (1 + 1e-9))]
            if ticks.size >= enough:
                break
        return ticks[:: int(np.ceil(ticks.size / _MOST_LABELS)) or 1]


class _DecadeFormatter(Formatter):
    """Plain numbers on an axis between a hundredth and a few thousand, powers of ten on others."""

    def __init__(self, clear: float) -> None:
        self._clear = clear

    def __call__(self, x: float, pos: int | None = None) -> str:
        low, high = sorted(self.axis.get_view_interval())  # type: ignore[union-attr]
        if np.log(x / low) < self._clear * np.log(high / low):
            return ""
        if low >= 0.009 and high <= 9000:
            return f"{x:g}"
        power = int(np.floor(np.log10(x) + 1e-9))
        factor = round(x / 10.0**power)
        times = "" if factor == 1 else rf"{factor} \times "
        return rf"$\mathdefault{{{times}10^{{{power}}}}}$"
