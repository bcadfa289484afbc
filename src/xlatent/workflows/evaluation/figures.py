"""The figures of an evaluation, each with its caption."""

from collections.abc import Mapping, Sequence
from itertools import cycle

import numpy as np
from astropy.table import Table
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.linalg import eigh

from xlatent.core.latent_columns import N_LATENTS
from xlatent.core.latents import LatentTable
from xlatent.core.taxonomy import CLASSES
from xlatent.figures.style import BLACK, BLUE, GREEN, GREY, MARKS, ORANGE, PURPLE, VERMILION, style
from xlatent.science.accretion import GROUPS
from xlatent.science.selection import valid_rows
from xlatent.workflows.evaluation.inputs import Dataset
from xlatent.workflows.evaluation.sections import ENDS, Section, fit_excess

_BARS = (BLUE, ORANGE, GREEN, PURPLE)
_WIDTH = 6.4  # inches

Captioned = tuple[Figure, str]


def draw_figures(
    sections: Sequence[Section], datasets: Sequence[Dataset], labelled: Dataset, spectra: Mapping[str, LatentTable]
) -> dict[str, dict[str, Captioned]]:
    """Draw the figures of all sections for which there is something to draw.

    Parameters
    ----------
    sections : sequence of Section
    datasets : sequence of Dataset
    labelled : Dataset
        The one whose classes are shown.
    spectra : mapping of LatentTable
        Single spectra by representation; empty if there are none.

    Returns
    -------
    dict of dict
        By the sections' key, figures with captions by file name.
    """
    figures: dict[str, dict[str, Captioned]] = {}

    def add(key: str, name: str, figure: Figure, caption: str) -> None:
        figures.setdefault(key, {})[name] = (figure, caption)

    def of_labelled(key: str) -> Section:
        return next(one for one in sections if one.key == key and one.dataset == labelled.name)

    def tables(key: str, table: str) -> list[Table]:
        found = (one.table(table) for one in sections if one.key == key)
        return [one for one in found if one is not None]

    headings = "; ".join(one.heading for one in datasets) + "."
    heading = f"{labelled.heading}."
    if valid_rows(labelled.latents).sum() > 2:
        kinds = [kind for kind in CLASSES if (labelled.classes == kind).any()]
        kinds += sorted({str(kind) for kind in labelled.classes} - {*kinds, ""})
        caption = (
            "Sources in the two directions of latent space in which they differ most for their errors (unit vectors, "
            "larger terms); in brackets the number of sources."
        )
        add("clusters", "latents", plot_latent_map(labelled.latents, labelled.classes, kinds), f"{caption} {heading}")
    section = of_labelled("classification")
    if (by_class := section.table("by_class")) is not None:
        caption = (
            "Share recognised of each class; dashed: by chance; errors: 68 %, sources resampled; in brackets sources."
        )
        add("classification", "class_accuracy", plot_class_accuracy(by_class), f"{caption} {heading}")
        caption = "Confusion of held-out sources: shares of each confirmed class."
        figure = plot_confusion(section.values["confusion"], section.values["names"])
        add("classification", "confusion", figure, f"{caption} {heading}")
        caption = (
            "Reliability: probabilities in the sample's own mix of classes, ten bins of equal number; errors: 68 %, "
            "sources resampled."
        )
        figure = plot_reliability(section.values["reliability"])
        add("classification", "reliability", figure, f"{caption} {heading}")
    if found := tables("regression", "r2"):
        caption = "R² by boosted trees of sources left out of the fit; errors: 68 %, sources resampled. "
        add("regression", "regression", plot_r2(found), caption + headings)
    if found := tables("variability", "information"):
        caption = (
            "Mutual information with columns of variability, with the mean of values exchanged between sources (black) "
            "and what would be found at p < 0.01 in 90 % of samples (red); errors: 68 %, halves of the sources. "
        )
        add("variability", "information", plot_information(found), caption + headings)
    values = of_labelled("accretion").values
    if values and np.isfinite(values["accretion"]).any():
        figure = plot_accretion(values["accretion"], values["classes"])
        add("accretion", "accretion", figure, f"Sources along the direction, training sources. {heading}")
    stores = [one.reproducing for one in datasets if one.origin == "spectra"]
    if judged := spectra or (stores[0] if stores else {}):
        caption = "Fit statistic of each spectrum above its expected value; grey: within three standard deviations."
        add("reconstruction", "statistic", plot_fit_statistic(judged), caption)
    return figures


def plot_latent_map(table: LatentTable, classes: np.ndarray, names: Sequence[str]) -> Figure:
    """Draw sources by class in the two directions of latent space in which they differ most for their errors."""
    good = valid_rows(table)
    axes_of_z = _measured_directions(table[good])
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
            zip(cycle(MARKS), names, strict=False), key=lambda one: -members[one[1]].sum()
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


def plot_confusion(matrices: dict[str, Float[np.ndarray, "k k"]], names: Sequence[str]) -> Figure:
    """Draw the shares of each class that are taken for each, classes in rows."""
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


def plot_reliability(curves: dict[str, Float[np.ndarray, "bins 4"]]) -> Figure:
    """Draw the share that is right against the probability given to the most probable class."""
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


def plot_class_accuracy(table: Table) -> Figure:
    """Draw the share of each class that is recognised, from z and from the baselines."""
    columns = [name for name in table.colnames if name.startswith("accuracy, ") and not name.endswith(ENDS[1:])]
    with style():
        figure, axes = _figure(3.2)
        labels = [f"{row['class']}\n({row['sources']})" for row in table]
        _grouped(axes, labels, {name.removeprefix("accuracy, "): _limits(table, name) for name in columns})
        axes.axhline(1.0 / len(table), color=GREY, lw=0.8, ls="--")
        axes.set_ylim(0, 1)
        axes.set_ylabel("Share recognised")
    return figure


def plot_r2(tables: Sequence[Table]) -> Figure:
    """Draw R² of measured quantities, from z and from the baselines, by boosted trees."""
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


def plot_information(tables: Sequence[Table]) -> Figure:
    """Draw the mutual information with each column, its null, and what could have been found."""
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


def plot_accretion(values: Float[np.ndarray, " n"], classes: np.ndarray) -> Figure:
    """Draw the values along the accretion direction of the three groups it was learned from."""
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


def plot_fit_statistic(tables: Mapping[str, LatentTable]) -> Figure:
    """Draw the fit statistic above its expectation against counts, of our model and of the paper preset."""
    with style():
        figure, axes = _figure(3.4, 4.8)
        for (of, table), colour, mark in zip(tables.items(), (BLUE, ORANGE), "os", strict=False):
            excess, known = fit_excess(table)
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


def _measured_directions(table: LatentTable) -> Float[np.ndarray, "8 2"]:
    """Two directions of latent space in which sources differ most for their errors, of unit length."""
    error = table.covariance.mean(axis=0) + 1e-4 * np.eye(N_LATENTS)
    axes = eigh(np.cov(table.z.T), error)[1][:, :-3:-1]
    return axes / np.linalg.norm(axes, axis=0)


def _figure(height: float, width: float = _WIDTH) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


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
