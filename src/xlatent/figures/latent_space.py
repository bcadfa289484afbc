"""Where sources lie in latent space, how they move there, and what a direction there does to a spectrum."""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import matplotlib
import numpy as np
from jaxtyping import Float, Shaped
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import is_color_like
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from xlatent.core.errors import ParameterError
from xlatent.core.latents import N_LATENTS, LatentTable
from xlatent.figures.style import BLACK, BLUE, GREY, MARKS, ORANGE, SKY, VERMILION, label_decades, style

MAX_ELLIPSES = 200
"""Rows whose errors are drawn; of more, the median error stands for all."""
MAX_POINTS = 20_000
"""Rows of one colour that are drawn as points; more are counted in hexagons."""
_ELLIPSE = np.sqrt(-2.0 * np.log(1.0 - 0.6827))
"""Radius, in standard deviations, of the ellipse that holds 68 % of a normal distribution in two dimensions."""
_NO_CLASS = "#B8B8B8"
_BAND = (0.5, 8.0)  # keV


def plot_latents(
    table: LatentTable,
    dims: tuple[int, int] = (0, 1),
    ax: Axes | None = None,
    colour: Any = None,
    labels: str | Sequence[str] | None = None,
) -> Axes:
    """Plot two latents of each row against each other, with their errors.

    Parameters
    ----------
    table : LatentTable
    dims : pair of int
        Which latents, 0 to 7, along x and y.
    ax : Axes, optional
        Where to draw, over what is there; axes of a new figure (``ax.figure``) if not given.
    colour : str or array [n], optional
        A column of the table or one value a row: numbers are told apart by a colour bar, words (such as classes) by
        colour and marker, the rarest on top, what is missing in grey. Or one colour of Matplotlib for all rows.
    labels : str or sequence of str, optional
        A column of the table or one text a row, written beside the points.

    Returns
    -------
    Axes
        Posterior means, each with the ellipse that holds 68 % of its posterior. Of more than `MAX_ELLIPSES` rows, the
        median error stands in a corner; more than `MAX_POINTS` rows of one colour are counted in hexagons. Rows without
        finite latents are left out.

    Raises
    ------
    ParameterError
        If ``dims`` are not two different latents, or ``colour`` or ``labels`` are neither a column nor one value a row
        nor (``colour``) a colour.

    Examples
    --------
    >>> import numpy as np
    >>> table = LatentTable.from_posterior(np.zeros((2, 8)), np.tile(0.1 * np.eye(8), (2, 1, 1)), {"name": ["a", "b"]})
    >>> ax = plot_latents(table, dims=(2, 5), labels="name")
    >>> ax.get_xlabel(), [text.get_text() for text in ax.texts]
    ('$z_2$', ['a', 'b'])
    """
    i, j = _checked(dims)
    z, covariance = table.z[:, [i, j]], table.covariance[:, [[i], [j]], [[i, j]]]
    rows = np.isfinite(z).all(axis=1) & np.isfinite(covariance).all(axis=(1, 2))
    plain = isinstance(colour, str) and colour not in table.colnames
    if plain and not is_color_like(colour):
        raise ParameterError(f"colour is {colour!r}, which is neither a column of the table nor a colour of Matplotlib")
    values = None if colour is None or plain else _values(table, colour, "colour")
    texts = None if labels is None else _values(table, labels, "labels").astype(str)
    with style() if ax is None else nullcontext():
        if ax is None:
            ax = Figure(figsize=(5.2, 4.2), layout="constrained").add_subplot()
        bar = str(colour) if isinstance(colour, str) else ""
        if values is None:
            _draw_one_colour(ax, z[rows], covariance[rows], colour if plain else BLUE)
        elif values.dtype.kind in "fiub":
            _draw_numbers(ax, z[rows], covariance[rows], values[rows].astype(float), bar)
        else:
            _draw_classes(ax, z[rows], covariance[rows], values[rows].astype(str))
        if texts is not None:
            for place, text in zip(z[rows], texts[rows], strict=True):
                ax.annotate(
                    str(text), place, xytext=(4, 3), textcoords="offset points", fontsize="small", parse_math=False
                )
        if rows.sum() > MAX_ELLIPSES:
            _draw_median_error(ax, covariance[rows])
        ax.set(xlabel=f"$z_{i}$", ylabel=f"$z_{j}$")
        ax.autoscale_view()
    return ax


def plot_track(
    table: LatentTable,
    time: Shaped[np.ndarray, " n"] | None = None,
    dims: tuple[int, int] | None = None,
    ax: Axes | None = None,
    title: str | None = None,
) -> Axes:
    """Plot how one source moves through latent space from observation to observation.

    Parameters
    ----------
    table : LatentTable
        Its observations.
    time : array [n], optional
        When each was made, in any unit; the order of rows if not given.
    dims : pair of int, optional
        Which latents, 0 to 7; the two that move most for their errors if not given.
    ax : Axes, optional
        Where to draw; axes of a new figure (``ax.figure``) if not given.
    title : str, optional
        Such as the source's name.

    Returns
    -------
    Axes
        Posterior means as numbers in order of time, joined by a line, each in the ellipse that holds 68 % of its
        posterior.

    Raises
    ------
    ParameterError
        If ``dims`` are not two different latents, or no row has finite latents.

    Examples
    --------
    >>> import numpy as np
    >>> z = np.zeros((2, 8)); z[1, [3, 6]] = 1.0
    >>> table = LatentTable.from_posterior(z, np.tile(0.1 * np.eye(8), (2, 1, 1)), {"name": ["a", "a"]})
    >>> plot_track(table, title="a").get_xlabel()
    '$z_3$'
    """
    order = np.arange(len(table)) if time is None else np.argsort(time, kind="stable")
    order = order[np.isfinite(table.z[order]).all(axis=1) & np.isfinite(table.covariance[order]).all(axis=(1, 2))]
    if not order.size:
        raise ParameterError("a track needs rows with finite latents, and none of these has them")
    z, covariance = table.z[order], table.covariance[order]
    if dims is None:
        moved = np.ptp(z, axis=0) / np.median(table.z_err[order], axis=0)
        i, j = (int(k) for k in np.sort(np.argsort(moved, kind="stable")[-2:]))
    else:
        i, j = _checked(dims)
    z, covariance = z[:, [i, j]], covariance[:, [[i], [j]], [[i, j]]]
    with style() if ax is None else nullcontext():
        if ax is None:
            ax = Figure(figsize=(4.4, 4.0), layout="constrained").add_subplot()
        ax.plot(z[:, 0], z[:, 1], color=GREY, linewidth=0.8)
        ax.add_collection(_ellipses(z, covariance, edgecolors=BLUE, facecolors="none", linewidths=0.9))
        for number, place in enumerate(z, start=1):
            number_at = ax.annotate(str(number), place, color=VERMILION, ha="center", va="center")
            number_at.set_path_effects([withStroke(linewidth=2.0, foreground="white")])
        ax.set(xlabel=f"$z_{i}$", ylabel=f"$z_{j}$")
        ax.autoscale_view()
        if title is not None:
            ax.set_title(title, parse_math=False)
    return ax


def plot_direction(
    energy: Float[np.ndarray, " n_edges"],
    photons: Float[np.ndarray, "n_values n_energy"],
    values: Float[np.ndarray, " n_values"],
    ax: Axes | None = None,
    symbol: str = "a",
) -> Axes:
    """Plot what a direction in latent space does to a photon spectrum.

    Parameters
    ----------
    energy : array [n_energy + 1]
        Edges of the bins, keV.
    photons : array [n_values, n_energy]
        Photons cm⁻² s⁻¹ in each bin, up to a factor, for each of ``values``.
    values : array [n_values]
        Places along the direction, ascending.
    ax : Axes, optional
        Where to draw; axes of a new figure (``ax.figure``) if not given.
    symbol : str
        What the coordinate is called in the legend.

    Returns
    -------
    Axes
        E² times the photon spectrum at each place, its highest point in 0.5-8 keV at one.

    Raises
    ------
    ParameterError
        If the shapes do not fit each other.

    Examples
    --------
    >>> import numpy as np
    >>> energy = np.geomspace(0.5, 8.0, 33)
    >>> slope = np.array([-1.0, 0.0, 1.0])
    >>> ax = plot_direction(energy, energy[:-1] ** slope[:, None] * np.diff(energy), slope)
    >>> [text.get_text() for text in ax.get_legend().get_texts()]
    ['a = −1', 'a = +0', 'a = +1']
    """
    if photons.shape != (values.size, energy.size - 1):
        raise ParameterError(
            f"photons have shape {photons.shape} where {values.size} values and {energy.size - 1} bins were given"
        )
    middle = np.sqrt(energy[1:] * energy[:-1])
    inside = (middle > _BAND[0]) & (middle < _BAND[1])
    shape = middle**2 * photons / np.diff(energy)
    shape = shape / shape[:, inside].max(axis=1, keepdims=True)
    colours: Any = (BLUE, SKY, BLACK, ORANGE, VERMILION)
    if values.size != len(colours):
        colours = matplotlib.colormaps["cividis"](np.linspace(0.0, 0.95, values.size))
    with style() if ax is None else nullcontext():
        if ax is None:
            ax = Figure(figsize=(4.8, 3.6), layout="constrained").add_subplot()
        for value, line, colour in zip(values, shape, colours, strict=True):
            ax.plot(middle, line, color=colour, label=f"{symbol} = {value:+.3g}".replace("-", "−"))
        ax.set(xscale="log", yscale="log", xlim=_BAND, ylim=(1e-3, 2.0))
        label_decades(ax.yaxis)
        ax.set_xticks([0.5, 1.0, 2.0, 5.0], ["0.5", "1", "2", "5"])
        ax.minorticks_off()
        ax.set(xlabel="energy (keV)", ylabel="$E^2 f(E)$, highest point at 1")
        ax.legend(loc="best")
    return ax


def _checked(dims: tuple[int, int]) -> tuple[int, int]:
    try:
        i, j = (int(k) for k in dims)
    except (TypeError, ValueError):
        i = j = -1
    if i == j or not (0 <= i < N_LATENTS and 0 <= j < N_LATENTS):
        raise ParameterError(f"dims should be two different latents from 0 to {N_LATENTS - 1}, and it is {dims!r}")
    return i, j


def _values(table: LatentTable, given: Any, what: str) -> Shaped[np.ndarray, " n"]:
    """One value a row, by the name of a column or as they are; missing numbers are NaN, missing words empty."""
    if isinstance(given, str) and given not in table.colnames:
        raise ParameterError(f"{what} is {given!r}, and the table has no such column")
    found = np.ma.asarray(table[given] if isinstance(given, str) else given)
    if found.shape != (len(table),):
        raise ParameterError(f"{what} should have one value for each of {len(table)} rows, found shape {found.shape}")
    if found.dtype.kind in "fiub":
        return np.ma.filled(found.astype(float), np.nan)
    return np.ma.filled(found.astype(str), "")


def _ellipses(z: Float[np.ndarray, "n 2"], covariance: Float[np.ndarray, "n 2 2"], **how: Any) -> PolyCollection:
    """Ellipses that hold 68 % of normal distributions."""
    turn = np.linspace(0.0, 2.0 * np.pi, 60)
    size, axes = np.linalg.eigh(covariance)
    root = axes * (_ELLIPSE * np.sqrt(np.maximum(size, 0.0)))[:, None, :]
    return PolyCollection(z[:, None, :] + np.stack([np.cos(turn), np.sin(turn)], axis=1) @ root.swapaxes(1, 2), **how)


def _draw_errors(ax: Axes, z: np.ndarray, covariance: np.ndarray, few: bool, colours: Any) -> None:
    if few and len(z):
        ax.add_collection(_ellipses(z, covariance, edgecolors=colours, facecolors="none", linewidths=0.6, alpha=0.6))


def _draw_one_colour(ax: Axes, z: np.ndarray, covariance: np.ndarray, colour: Any) -> None:
    if len(z) > MAX_POINTS:
        shown = ax.hexbin(z[:, 0], z[:, 1], gridsize=80, bins="log", mincnt=1, cmap="cividis", linewidths=0.1)
        _colour_bar(ax, shown, "rows")
        return
    _draw_errors(ax, z, covariance, len(z) <= MAX_ELLIPSES, colour)
    size = 3.2 if len(z) <= MAX_ELLIPSES else 1.6
    alpha = 1.0 if len(z) <= MAX_ELLIPSES else 0.5
    ax.plot(*z.T, "o", color=colour, markersize=size, markeredgewidth=0, alpha=alpha, rasterized=len(z) > MAX_ELLIPSES)


def _draw_numbers(ax: Axes, z: np.ndarray, covariance: np.ndarray, values: np.ndarray, name: str) -> None:
    known = np.isfinite(values)
    few = len(z) <= MAX_ELLIPSES
    how: dict[str, Any] = {"s": 10.0 if few else 3.0, "linewidths": 0, "rasterized": not few}
    if not known.all():
        ax.scatter(z[~known, 0], z[~known, 1], color=_NO_CLASS, zorder=1, label="no value", **how)
        _draw_errors(ax, z[~known], covariance[~known], few, _NO_CLASS)
        ax.legend(loc="best")
    if known.any():
        shown = ax.scatter(z[known, 0], z[known, 1], c=values[known], cmap="cividis", **how)
        _draw_errors(ax, z[known], covariance[known], few, shown.to_rgba(values[known]))
        _colour_bar(ax, shown, name)


def _draw_classes(ax: Axes, z: np.ndarray, covariance: np.ndarray, values: np.ndarray) -> None:
    names, number = np.unique(values[values != ""], return_counts=True)
    few = len(z) <= MAX_ELLIPSES
    marks = {name: MARKS[k % len(MARKS)] for k, name in enumerate(names)}
    drawn = [("", values == "", _NO_CLASS, ".", "no class")] if np.any(values == "") else []
    drawn += [
        (str(names[k]), values == names[k], *marks[names[k]], f"{names[k]} ({number[k]})") for k in np.argsort(-number)
    ]
    for order, (_, members, colour, mark, label) in enumerate(drawn, start=1):
        ax.plot(
            *z[members].T, mark, color=colour, markersize=4.0 if few else 3.0, markeredgewidth=0.3,
            markeredgecolor="white", alpha=0.9, label=label, rasterized=not few, zorder=2 + 0.01 * order,
        )  # fmt: skip
        _draw_errors(ax, z[members], covariance[members], few, colour)
    legend = ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    for text in legend.get_texts():
        text.set_parse_math(False)


def _draw_median_error(ax: Axes, covariance: Float[np.ndarray, "n 2 2"]) -> None:
    """Draw the median standard deviations as a cross in the lower right corner, where the axes get room for it."""
    ax.autoscale_view()
    error = np.sqrt(np.median(covariance[:, [0, 1], [0, 1]], axis=0))
    (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    bottom -= 2.4 * error[1]
    ax.set_ylim(bottom, top)
    place = (right - 1.3 * error[0] - 0.02 * (right - left), bottom + 1.3 * error[1])
    ax.errorbar(*place, error[1], error[0], color=BLACK, elinewidth=0.9, capsize=2)
    ax.annotate(
        "median error, 1σ", (place[0] - error[0], place[1]), xytext=(-4, 0), textcoords="offset points",
        ha="right", va="center", fontsize="small",
    )  # fmt: skip


def _colour_bar(ax: Axes, shown: Any, label: str) -> None:
    figure: Any = ax.figure
    figure.colorbar(shown, ax=ax, label=label, aspect=30, pad=0.02)
