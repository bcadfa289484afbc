"""The report of an evaluation: its figures, one HTML page that needs nothing else, and the numbers as JSON."""

import base64
import json
import os
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import Table
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from xlatent.core.errors import WriteError, XlatentError
from xlatent.core.latents import LatentTable
from xlatent.figures.style import BLACK, BLUE, GREEN, GREY, ORANGE, SKY, VERMILION, save, style
from xlatent.science.accretion import GROUPS
from xlatent.science.selection import valid_rows
from xlatent.workflows.evaluation.sections import ENDS, Part, excess_of, measured_directions

PURPLE = "#CC79A7"
# Told apart by shape as well, for the eye has fewer colours than there are classes.
_MARKS = (
    (BLUE, "o"), (ORANGE, "s"), (SKY, "^"), (VERMILION, "v"), (BLACK, "D"), (GREEN, "P"), (PURPLE, "X"), (GREY, "*"),
)  # fmt: skip
_BARS = (BLUE, ORANGE, GREEN, PURPLE)
_WIDTH = 6.4  # inches
_ROWS_SHOWN = 60
_HEADS = {"n_sources": "sources", "n_rows": "rows", "n_spectra": "spectra", "r2": "R²", "mi": "information"}


def z_map(table: LatentTable, classes: np.ndarray, names: Sequence[str]) -> Figure:
    """Sources by class in the two directions of latent space in which they differ most for their errors."""
    good = valid_rows(table)
    axes_of_z = measured_directions(table[good])
    axes_of_z = axes_of_z * np.sign(axes_of_z[np.argmax(np.abs(axes_of_z), axis=0), [0, 1]])
    along = table.z @ axes_of_z
    with style():
        figure, axes = _figure(4.6)
        unknown = good & ~np.isin(classes, names)
        if unknown.any():
            axes.plot(*along[unknown].T, ".", color="#C8C8C8", ms=2.0, label="no class", zorder=1, rasterized=True)
        # The rare ones on top.
        members = {name: good & (classes == name) for name in names}
        for (colour, mark), name in sorted(
            zip(_marks(len(names)), names, strict=True), key=lambda one: -members[one[1]].sum()
        ):
            axes.plot(
                *along[members[name]].T, mark, color=colour, ms=3.6, mew=0.3, mec="white", alpha=0.8,
                label=f"{name} ({members[name].sum()})", rasterized=True,
            )  # fmt: skip
        axes.set_xlabel(_direction(axes_of_z[:, 0]))
        axes.set_ylabel(_direction(axes_of_z[:, 1]))
        low, high = np.percentile(along[good], (0.3, 99.7), axis=0)
        axes.set_xlim(low[0] - 0.2, high[0] + 0.2)
        axes.set_ylim(low[1] - 0.2, high[1] + 0.2)
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), markerscale=1.4)
    return figure


def confusion(matrices: dict[str, Float[np.ndarray, "k k"]], names: Sequence[str]) -> Figure:
    """Shares of each class that are taken for each, classes in rows."""
    with style():
        figure = Figure(figsize=(3.6 * len(matrices) + 0.4, 3.7), layout="constrained")
        for place, (of, matrix) in enumerate(matrices.items(), start=1):
            axes = figure.add_subplot(1, len(matrices), place)
            axes.imshow(matrix, cmap="Blues", vmin=0.0, vmax=1.0)
            for i, j in np.ndindex(*matrix.shape):
                if matrix[i, j] >= 0.005:
                    axes.text(
                        j, i, f"{matrix[i, j]:.2f}", ha="center", va="center", fontsize=6.5,
                        color="white" if matrix[i, j] > 0.55 else "black",
                    )  # fmt: skip
            axes.set_xticks(range(len(names)), names, rotation=60, ha="right", rotation_mode="anchor")
            axes.set_yticks(range(len(names)), names if place == 1 else [])
            axes.tick_params(length=0)
            axes.set_xlabel("Most probable class")
            axes.set_title(of, fontsize=8.0)
            if place == 1:
                axes.set_ylabel("Confirmed class")
    return figure


def reliability(curves: dict[str, Float[np.ndarray, "bins 4"]]) -> Figure:
    """Share that is right against the probability given to the most probable class."""
    with style():
        figure, axes = _figure(3.6, 4.2)
        axes.plot([0, 1], [0, 1], color=GREY, lw=0.8, ls="--", label="perfect")
        for (of, bins), colour in zip(curves.items(), _BARS, strict=False):
            axes.errorbar(
                bins[:, 0], bins[:, 1], np.abs(bins[:, 2:].T - bins[:, 1]), fmt="o-", color=colour, ms=3.5, lw=0.9,
                label=of,
            )  # fmt: skip
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        axes.set_aspect("equal")
        axes.set_xlabel("Probability of the most probable class")
        axes.set_ylabel("Share of sources that are of it")
        axes.legend(loc="upper left")
    return figure


def class_accuracy(table: Table) -> Figure:
    """Share of each class that is recognised, from z and from the baselines."""
    columns = [name for name in table.colnames if name.startswith("accuracy, ") and not name.endswith(ENDS[1:])]
    with style():
        figure, axes = _figure(3.2)
        labels = [f"{row['class']}\n({row['sources']})" for row in table]
        _grouped(axes, labels, {name.removeprefix("accuracy, "): _limits(table, name) for name in columns})
        axes.axhline(1.0 / len(table), color=GREY, lw=0.8, ls="--")
        axes.set_ylim(0, 1)
        axes.set_ylabel("Share recognised")
    return figure


def r2_bars(tables: Sequence[Table]) -> Figure:
    """R² of measured quantities, from z and from the baselines, by boosted trees."""
    values: dict[str, dict[str, np.ndarray]] = {}
    for table in tables:
        for row in table:
            values.setdefault(str(row["target"]), {})[str(row["of"])] = np.array(
                [row[f"boosting{end}"] for end in ENDS]
            )
    every = list(dict.fromkeys(of for one in values.values() for of in one))
    missing = np.full(3, np.nan)
    with style():
        figure, axes = _figure(3.4)
        bars = {of: np.stack([one.get(of, missing) for one in values.values()]) for of in every}
        _grouped(axes, [name.replace("log10 ", "log ") for name in values], bars, slanted=True)
        axes.axhline(0.0, color=BLACK, lw=0.6)
        axes.set_ylim(max(-0.3, min(0.0, float(np.nanmin([one[:, 1] for one in bars.values()])))), 1.02)
        axes.set_ylabel("R² of sources left out")
    return figure


def information_bars(tables: Sequence[Table]) -> Figure:
    """Mutual information with each column, its null, and what could have been found."""
    columns = list(dict.fromkeys((number, str(row["column"])) for number, table in enumerate(tables) for row in table))
    of_each = list(dict.fromkeys(str(row["of"]) for table in tables for row in table))
    with style():
        figure, axes = _figure(3.4)
        bars: dict[str, np.ndarray] = {}
        step = 0.8 / len(of_each)
        for k, of in enumerate(of_each):
            rows = [next(r for r in tables[n] if r["column"] == c and r["of"] == of) for n, c in columns]
            bars[of] = np.array([[row[f"mi{end}"] for end in ENDS] for row in rows])
            place = np.arange(len(columns)) + (k - 0.5 * (len(of_each) - 1)) * step
            null = np.array([[row["null"], row["null"] + row["sensitivity"]] for row in rows])
            told = ("mean of the null", "found in 90 % of samples") if k == 0 else ("", "")
            axes.hlines(null[:, 0], place - step / 2, place + step / 2, color=BLACK, lw=1.0, zorder=4, label=told[0])
            axes.hlines(
                null[:, 1], place - step / 2, place + step / 2, color=VERMILION, lw=1.0, zorder=4, label=told[1]
            )
        _grouped(axes, [name for _, name in columns], bars, slanted=True)
        axes.axhline(0.0, color=BLACK, lw=0.6)
        axes.set_ylabel("Mutual information (nat)")
    return figure


def accretion(values: Float[np.ndarray, " n"], classes: np.ndarray) -> Figure:
    """Values along the accretion direction of the three groups it was learned from."""
    with style():
        figure, axes = _figure(3.0, 4.8)
        edges = np.linspace(np.nanpercentile(values, 0.5), np.nanpercentile(values, 99.5), 36).tolist()
        for (group, kinds), colour, dash in zip(
            GROUPS.items(), (VERMILION, BLUE, ORANGE), ("-", "--", ":"), strict=True
        ):
            own = values[np.isin(classes, kinds) & np.isfinite(values)]
            axes.hist(
                own, edges, density=True, histtype="step", color=colour, ls=dash, lw=1.3,
                label=f"{group}: {', '.join(kinds)} ({len(own)})" if group != "AGN" else f"AGN ({len(own)})",
            )  # fmt: skip
        axes.set_xlabel("Accretion value a (standard deviations of a group)")
        axes.set_ylabel("Density of sources")
        axes.set_ylim(0, 1.35 * axes.get_ylim()[1])
        axes.legend(loc="upper left")
    return figure


def statistics(tables: dict[str, LatentTable]) -> Figure:
    """Fit statistic above its expectation against counts, of our model and of the paper preset."""
    with style():
        figure, axes = _figure(3.4, 4.8)
        for (of, table), colour, mark in zip(tables.items(), (BLUE, ORANGE), "os", strict=False):
            excess, known = excess_of(table)
            counts = np.asarray(table["counts"], float)
            axes.plot(
                counts[known], excess[known], mark, color=colour, ms=4, mfc="none" if mark == "s" else colour, label=of
            )
        axes.axhspan(-3, 3, color="#EEEEEE", zorder=0)
        axes.axhline(0, color=GREY, lw=0.7)
        axes.set_xscale("log")
        axes.set_yscale("symlog", linthresh=5.0, linscale=2.0)
        ticks = [-10, -5, -3, 0, 3, 5, 10, 20, 50, 100]
        axes.set_yticks(ticks, [str(tick).replace("-", "−") for tick in ticks])
        axes.minorticks_off()
        axes.set_xlabel("Counts in 0.5–8 keV")
        axes.set_ylabel("(statistic − expected) / σ")
        axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=2)
    return figure


def prepare(folder: Path) -> None:
    """Make sure, before any work, that a report can be written.

    Raises
    ------
    WriteError
        If the folder cannot be made or written to.
    XlatentError
        If jinja2 is missing.
    """
    try:
        import jinja2  # noqa: F401
    except ModuleNotFoundError:
        raise XlatentError('jinja2 is not installed, and the report needs it: pip install "xlatent[science]"') from None
    try:
        (folder / "figures").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError(f"{folder} cannot be made ({error.strerror or error}); choose another folder") from error
    if not os.access(folder, os.W_OK):
        raise WriteError(f"{folder} is read-only; choose another folder")


def write(
    folder: Path,
    title: str,
    claims: Table,
    notes: Sequence[str],
    sections: Sequence[tuple[str, Sequence[Part], dict[str, tuple[Figure, str]]]],
    about: dict[str, Any],
) -> Path:
    """Write ``report.html``, ``report.json`` and the figures, each as PNG and PDF, into a folder.

    Parameters
    ----------
    folder : Path
        That `prepare` made.
    title : str
    claims : Table
        The first page.
    notes : sequence of str
        Sentences below it.
    sections : sequence of (title, parts, figures)
        Figures by file name, each with its caption.
    about : dict
        Origin of the numbers: ``model``, ``model_sha256``, ``software``, ``seed``, ``data``.

    Returns
    -------
    Path
        The HTML page. It has everything in itself.

    Raises
    ------
    WriteError
        If a file cannot be written.
    """
    import jinja2

    drawn, said = [], []
    for heading, parts, figures in sections:
        shown = []
        for name, (figure, caption) in figures.items():
            save(figure, folder / "figures" / f"{name}.pdf")
            picture = save(figure, folder / "figures" / f"{name}.png").read_bytes()
            shown.append((base64.b64encode(picture).decode(), caption, round(96 * figure.get_figwidth())))
        tables = [(caption, *_cells(table)) for part in parts for caption, table in part.tables.items()]
        remarks = [f"{part.of}: {note}" for part in parts for note in part.notes]
        drawn.append((heading, tables, shown, remarks))
        said.append(
            {
                "title": heading,
                "tables": [
                    {"caption": caption, "rows": _plain(table)}
                    for part in parts
                    for caption, table in part.tables.items()
                ],
                "notes": remarks,
                "figures": list(figures),
            }
        )
    template = resources.files("xlatent.workflows.evaluation").joinpath("report.html").read_text(encoding="utf-8")
    page = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(template)
    html = page.render(title=title, claims=_cells(claims), notes=notes, sections=drawn, about=about)
    numbers = about | {"claims": _plain(claims), "notes": list(notes), "parts": said}
    _write(folder / "report.json", json.dumps(numbers, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    return _write(folder / "report.html", html)


def _write(path: Path, text: str) -> Path:
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(path)
    except OSError as error:
        raise WriteError(f"{path} cannot be written: {error.strerror or error}; choose another folder") from error
    finally:
        unfinished.unlink(missing_ok=True)
    return path


def _plain(table: Table) -> list[dict[str, Any]]:
    """Rows for JSON, what is missing as null."""

    def plain(value: Any) -> Any:
        value = value.item() if isinstance(value, np.generic) else value
        return None if isinstance(value, float) and not np.isfinite(value) else value

    return [{name: plain(row[name]) for name in table.colnames} for row in table]


def _cells(table: Table) -> tuple[list[str], list[list[tuple[str, str]]], int]:
    """Heads, rows of (value, limits), and how many rows were left out; limits stand with their value."""
    heads = [name for name in table.colnames if not (name.endswith(ENDS[1:]) and name[:-6] in table.colnames)]
    rows = []
    for row in table[:_ROWS_SHOWN]:
        cells = []
        for name in heads:
            limits = ""
            if f"{name}_lolim" in table.colnames and np.isfinite(row[f"{name}_lolim"]):
                limits = f"{_said(name, row[f'{name}_lolim'])} to {_said(name, row[f'{name}_hilim'])}"
            cells.append((_said(name, row[name]), limits))
        rows.append(cells)
    return [_HEADS.get(name, name) for name in heads], rows, len(table) - len(rows)


def _said(name: str, entry: Any) -> str:
    if not isinstance(entry, float | np.floating):
        return str(entry)
    value = float(entry)
    if not np.isfinite(value):
        return "–"
    if name in ("p", "q") and value < 0.01:
        return f"{value:.1g}"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}" if abs(value) < 1000 else f"{value:.0f}"


def _figure(height: float, width: float = _WIDTH) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def _marks(n: int) -> list[tuple[str, str]]:
    return [_MARKS[i % len(_MARKS)] for i in range(n)]


def _direction(vector: np.ndarray) -> str:
    """A direction in words: its largest terms."""
    order = [i for i in np.argsort(-np.abs(vector)) if abs(vector[i]) >= 0.2][:4]
    return " ".join(f"{vector[i]:+.2f} z{i}" for i in order).replace("-", "−").removeprefix("+")


def _limits(table: Table, name: str) -> Float[np.ndarray, "n 3"]:
    return np.stack([np.asarray(table[name + end], float) for end in ENDS], axis=1)


def _grouped(
    axes: Axes, labels: Sequence[str], bars: dict[str, Float[np.ndarray, "n 3"]], slanted: bool = False
) -> None:
    """Groups of bars with errors."""
    width = 0.8 / len(bars)
    for k, (of, values) in enumerate(bars.items()):
        place = np.arange(len(labels)) + (k - 0.5 * (len(bars) - 1)) * width
        axes.bar(place, values[:, 0], width, color=_BARS[k % len(_BARS)], label=of, edgecolor="white", lw=0.5)
        error = np.abs(values[:, 1:].T - values[:, 0])
        axes.errorbar(place, values[:, 0], error, fmt="none", ecolor=BLACK, elinewidth=0.7, zorder=3)
    axes.set_xticks(range(len(labels)), labels)
    if slanted:
        axes.set_xticks(range(len(labels)), labels, rotation=35, ha="right", rotation_mode="anchor")
    axes.tick_params(axis="x", length=0)
    axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=3)
