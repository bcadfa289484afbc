"""One spectrum: its counts alone, or with what a model makes of them (residuals, photon spectrum, latents, numbers)."""

from contextlib import nullcontext
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullFormatter
from scipy.special import gammaincinv

from xlatent.core.bands import BANDS, HARDNESS_RATIOS
from xlatent.core.errors import ParameterError, ResponseError
from xlatent.core.flags import describe_verdict
from xlatent.core.spectrum import Spectrum
from xlatent.figures.style import BLACK, BLUE, GREY, ORANGE, SKY, VERMILION, label_decades, set_log_range, style
from xlatent.infer.reconstruction import Reconstruction

MIN_SIGNIFICANCE = 3.0
"""Of the points drawn: counts above background over their error."""
# In ln(energy): points are no narrower than about a third of ACIS's resolution at 1.5 keV, and no wider than a quarter.
_NARROWEST, _WIDEST = 0.025, 0.25
_MOST_POINTS = 128  # of a spectrum whose channels have no energies
_LEAST_AREA = 0.01  # of the largest effective area: where a spectrum is worth a look
_ENERGY_TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)
_LOW, _HIGH = 0.15865, 0.84135  # ends of the central 68.27 %
_HEADROOM = 0.14  # of an axis, for the legend
_BANDS = {name: BANDS[name] for name in "bsmh"}


class _Points(NamedTuple):
    """Channels joined for display.

    Edges in keV (channel numbers without a response), exposure in s keV (channels), counts, and the interval of their
    Poisson mean that holds 68 % (Garwood 1936, Biometrika 28, 437).
    """

    left: Float[np.ndarray, " n"]
    right: Float[np.ndarray, " n"]
    exposed: Float[np.ndarray, " n"]
    counts: Float[np.ndarray, " n"]
    low: Float[np.ndarray, " n"]
    high: Float[np.ndarray, " n"]
    middle: Float[np.ndarray, " n"]


def plot_spectrum(
    spectrum: Spectrum, ax: Axes | None = None, *, colour: str | None = None, label: str | None = None
) -> Axes:
    """Plot the counts of a spectrum and of its background against energy.

    Parameters
    ----------
    spectrum : Spectrum
    ax : Axes, optional
        Where to draw, over what is there; axes of a new figure (``ax.figure``) if not given.
    colour : str, optional
        Of counts and background, in any of Matplotlib's ways; black and orange if not given.
    label : str, optional
        In the legend; the spectrum's name if not given.

    Returns
    -------
    Axes
        Counts s⁻¹ keV⁻¹, background included, against energy in keV, where the effective area is at least a hundredth
        of its largest; and the counts of the background, scaled to the source region. Good channels are joined for
        display until the net counts are `MIN_SIGNIFICANCE` errors above zero (or a quarter of the energy is reached).
        Bars are the central 68 % intervals of Poisson means; where nothing was counted, their upper end is a limit at
        84 %. Without a response: counts per channel against channel numbers.

    Raises
    ------
    ParameterError
        If no channel is good.

    Examples
    --------
    >>> import numpy as np
    >>> from xlatent.core.spectrum import Spectrum
    >>> ax = plot_spectrum(Spectrum(np.array([3.0, 9.0, 4.0]), exposure=1000.0))
    >>> ax.get_xlabel(), ax.get_ylabel()
    ('channel', 'counts channel$^{-1}$')
    """
    use, lo, hi, exposed = _drawable(spectrum)
    counts, scale = spectrum.counts[use], np.broadcast_to(spectrum.background_scale, spectrum.counts.shape)[use]
    off = spectrum.background.counts[use] if spectrum.background is not None else np.zeros(use.size)
    if spectrum.response is None:
        starts = np.arange(0, use.size, -(-use.size // _MOST_POINTS))
    else:
        starts = group_channels(counts, scale * off, counts + scale**2 * off, lo, hi)
    points = _join(starts, counts, lo, hi, exposed, logarithmic=spectrum.response is not None)
    background = np.add.reduceat(scale * off, starts) / points.exposed
    with style() if ax is None else nullcontext():
        if ax is None:
            ax = Figure(figsize=(5.2, 3.6), layout="constrained").add_subplot()
        before = (ax.get_xlim(), ax.get_ylim()) if ax.has_data() else None
        density = _draw_points(ax, points, colour or BLACK, label if label is not None else spectrum.name or "counts")
        if np.any(background > 0):
            across = [points.middle - points.left, points.right - points.middle]
            ax.errorbar(
                points.middle, background, xerr=across, color=colour or ORANGE, alpha=0.5 if colour else 1.0,
                linestyle="none", elinewidth=1.1, label="background" if colour is None else None,
            )  # fmt: skip
        seen = np.concatenate([density, points.high / points.exposed, background])
        low = 0.4 * seen[seen > 0].min(initial=np.inf)
        set_log_range(ax, low, 1.1 * seen.max(), keep=density, headroom=_HEADROOM)
        ax.set_xlim(points.left[0], points.right[-1])
        if before is not None:
            ax.set_xlim(min(before[0][0], points.left[0]), max(before[0][1], points.right[-1]))
            ax.set_ylim(min(before[1][0], ax.get_ylim()[0]), max(before[1][1], ax.get_ylim()[1]))
        if spectrum.response is None:
            ax.set(xlabel="channel", ylabel="counts channel$^{-1}$")
        else:
            _label_energies(ax)
            ax.set_ylabel("counts s$^{-1}$ keV$^{-1}$")
        legend = ax.legend(loc="upper right", ncols=3)
        for text in legend.get_texts():
            text.set_parse_math(False)
    return ax


def plot_reconstruction(reconstruction: Reconstruction, fig: Figure | None = None) -> Figure:
    """Plot a spectrum with its reconstruction.

    Parameters
    ----------
    reconstruction : Reconstruction
    fig : Figure, optional
        An empty figure to draw in, of about 9.6 by 6.6 inches; a new one if not given.

    Returns
    -------
    Figure
        Counts s⁻¹ keV⁻¹ against energy, with channels joined for display until the net counts are
        `MIN_SIGNIFICANCE` errors above zero (or a quarter of the energy is reached); residuals; E² times the photon
        spectrum; the latents on their prior, a unit normal distribution; fluxes, hardness ratios and the fit
        statistic in words.

    Examples
    --------
    >>> from pathlib import Path
    >>> import xlatent as xl
    >>> spectrum = xl.read(Path(xl.__file__).parent / "sample" / "sim17_000.pha.gz")
    >>> plot_reconstruction(xl.load_model().reconstruct(spectrum))
    <Figure size 960x660 with 5 Axes>
    """
    spectrum = reconstruction.spectrum
    with style():
        figure = Figure(figsize=(9.6, 6.6)) if fig is None else fig
        grid = figure.add_gridspec(
            3, 2, width_ratios=(1.55, 1), height_ratios=(3.1, 1.1, 1.55),
            left=0.08, right=0.985, top=0.915, bottom=0.015, hspace=0.0, wspace=0.22,
        )  # fmt: skip
        left = grid[:2, 0].subgridspec(2, 1, height_ratios=(3.0, 1.0), hspace=0.0)
        right = grid[:2, 1].subgridspec(2, 1, height_ratios=(1.25, 1.0), hspace=0.36)
        counts = figure.add_subplot(left[0])
        residuals = figure.add_subplot(left[1], sharex=counts)
        _draw_counts(counts, residuals, spectrum, reconstruction)
        _draw_photons(figure.add_subplot(right[0]), spectrum, reconstruction)
        _draw_latents(figure.add_subplot(right[1]), reconstruction)
        numbers = figure.add_subplot(grid[2, :])
        _write_numbers(numbers, spectrum, reconstruction)
        figure.align_ylabels([counts, residuals])
        figure.text(0.08, 0.962, _title(spectrum), fontsize=10.5, fontweight="bold", parse_math=False)
    return figure


def describe_fit(reconstruction: Reconstruction) -> str:
    """Say what the fit statistic means, in one sentence.

    Parameters
    ----------
    reconstruction : Reconstruction
        Its statistic is W with a background spectrum and C without.

    Examples
    --------
    >>> from pathlib import Path
    >>> import xlatent as xl
    >>> spectrum = xl.read(Path(xl.__file__).parent / "sample" / "sim17_000.pha.gz")
    >>> describe_fit(xl.load_model().reconstruct(spectrum))
    'W = ... on ... channels; ... expected if the model is right: a good fit'
    """
    row = reconstruction.table[0]
    found, expected, sigma = (row[name] for name in ("cstat", "cstat_expected", "cstat_sigma"))
    n_channels = int(np.count_nonzero(reconstruction.channels))
    verdict = describe_verdict(row["fit"], row["fit_sigma"])
    kind = "W" if reconstruction.spectrum.background is not None else "C"
    return (
        f"{kind} = {found:.1f} on {n_channels} channels; {expected:.0f} ± {sigma:.0f} expected if the model is right: "
        f"{verdict}"
    )


def group_channels(
    counts: Float[np.ndarray, " n_chan"],
    background: Float[np.ndarray, " n_chan"],
    variance: Float[np.ndarray, " n_chan"],
    energy_lo: Float[np.ndarray, " n_chan"],
    energy_hi: Float[np.ndarray, " n_chan"],
) -> Int[np.ndarray, " n_groups"]:
    """Join channels for display.

    Parameters
    ----------
    counts, background, variance : array [n_chan]
        Counts, expected background counts among them, and the variance of their difference.
    energy_lo, energy_hi : array [n_chan]
        Edges in keV, ascending.

    Returns
    -------
    array of int [n_groups]
        First channel of each group, for ``np.add.reduceat``. None reaches over a gap between channels, and what is left
        at the end joins the last group.
    """
    gap = np.append(energy_lo[1:] - energy_hi[:-1] > 0.5 * (energy_hi - energy_lo)[:-1], False)
    starts, first = [0], 0
    net_sum = variance_sum = 0.0
    for k in range(counts.size):
        net_sum += float(counts[k] - background[k])
        variance_sum += float(variance[k])
        width = np.log(energy_hi[k] / energy_lo[first])
        significant = net_sum > 0 and net_sum**2 >= MIN_SIGNIFICANCE**2 * variance_sum
        if gap[k] or (width >= _NARROWEST and (significant or width >= _WIDEST)):
            first, net_sum, variance_sum = k + 1, 0.0, 0.0
            starts.append(first)
    if len(starts) > 1 and not gap[first - 1]:
        starts.pop()
    return np.array(starts)


def _drawable(
    spectrum: Spectrum,
) -> tuple[Int[np.ndarray, " n"], Float[np.ndarray, " n"], Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Channels worth a look, in order of energy: their indices, edges, and exposure times width."""
    response, good = spectrum.response, spectrum.good
    lo: Any = np.asarray(spectrum.channels) - 0.5
    hi: Any = lo + 1.0
    exposed: Any = np.ones(good.size)
    if response is not None:
        lo, hi = response.chan_lo, response.chan_hi
        exposed = spectrum.exposure * np.asarray(spectrum.areascale) * (hi - lo)
        there = response.area >= _LEAST_AREA * response.area.max()
        inside = (hi > response.energy_lo[there].min()) & (lo < response.energy_hi[there].max())
        good = good & (lo > 0) & (exposed > 0)
        good = good & inside if np.any(good & inside) else good
    use = np.flatnonzero(good)
    if not use.size:
        raise ParameterError(f"{spectrum.name or 'the spectrum'} has no good channel that could be drawn")
    use = use[np.argsort(lo[use], kind="stable")]
    return use, lo[use], hi[use], exposed[use]


def _join(
    starts: Int[np.ndarray, " n"],
    counts: Float[np.ndarray, " n_chan"],
    lo: Float[np.ndarray, " n_chan"],
    hi: Float[np.ndarray, " n_chan"],
    exposed: Float[np.ndarray, " n_chan"],
    logarithmic: bool = True,
) -> _Points:
    """Join channels from each of ``starts`` to the next."""
    n, area = np.add.reduceat(counts, starts), np.add.reduceat(exposed, starts)
    left, right = lo[starts], hi[np.append(starts[1:], counts.size) - 1]
    low = np.where(n > 0, gammaincinv(np.maximum(n, 1e-9), _LOW), 0.0)
    middle = np.sqrt(left * right) if logarithmic else 0.5 * (left + right)
    return _Points(left, right, area, n, low, gammaincinv(n + 1.0, _HIGH), middle)


def _draw_points(ax: Axes, points: _Points, colour: str, label: str) -> Float[np.ndarray, " n"]:
    """Draw densities of counts with their intervals, and limits where nothing was counted; returns either."""
    density = points.counts / points.exposed
    bars = np.abs(np.stack([points.low, points.high]) / points.exposed - density)
    across = np.stack([points.middle - points.left, points.right - points.middle])
    line: dict[str, Any] = {"color": colour, "elinewidth": 0.8, "linestyle": "none", "zorder": 3}
    seen = points.counts > 0
    if seen.any():
        ax.errorbar(
            points.middle[seen], density[seen], bars[:, seen], across[:, seen],
            marker="o", markersize=2.2, label=label, **line,
        )  # fmt: skip
    if not seen.all():
        top = (points.high / points.exposed)[~seen]
        ax.errorbar(
            points.middle[~seen], top, [0.4 * top, 0.0 * top], across[:, ~seen], uplims=True, capsize=2,
            label="upper limit, 84 %" if seen.any() else f"{label}: upper limits, 84 %", **line,
        )  # fmt: skip
    return np.where(seen, density, points.high / points.exposed)


def _draw_counts(ax: Axes, below: Axes, spectrum: Spectrum, made: Reconstruction) -> None:
    """Counts with the reconstruction, and the residuals under them."""
    lo, hi = _channel_edges(spectrum)
    # s keV: turns counts into a density.
    exposed: Any = spectrum.exposure * np.asarray(spectrum.areascale) * (hi - lo)
    use = made.channels & (exposed > 0)
    inside = exposed[made.channels] > 0
    expected, expected_lo, expected_hi, mean_off = (
        values[inside] for values in (made.counts, made.counts_lo, made.counts_hi, made.background)
    )
    scale = np.broadcast_to(np.asarray(spectrum.background_scale, dtype=np.float64), use.shape)[use]
    counts = spectrum.counts[use]
    off = spectrum.background.counts[use] if spectrum.background is not None else np.zeros(counts.size)
    starts = group_channels(counts, scale * off, counts + scale**2 * off, lo[use], hi[use])
    points = _join(starts, counts, lo[use], hi[use], exposed[use])

    # A sparse background has no shape from channel to channel: its level is drawn as its mean over each point.
    members = np.diff(np.append(starts, counts.size))
    smooth = np.repeat(np.add.reduceat(mean_off, starts) / points.exposed, members)
    middle = 0.5 * (lo + hi)
    model, model_lo, model_hi = (
        _on_all((values - mean_off) / exposed[use] + smooth, use) for values in (expected, expected_lo, expected_hi)
    )
    ax.fill_between(middle, model_lo, model_hi, color=SKY, alpha=0.55, linewidth=0, label="68 %")
    ax.plot(middle, model, color=BLUE, label="reconstruction")
    if np.any(mean_off > 0):
        ax.plot(middle, _on_all(smooth, use), color=ORANGE, linestyle="--", label="background")
    density = _draw_points(ax, points, BLACK, "counts")
    mean = np.add.reduceat(expected, starts)
    values = np.concatenate([mean / points.exposed, density, points.high / points.exposed])
    lowest = min(values[values > 0].min(initial=np.inf), np.median(smooth) or np.inf)
    set_log_range(ax, 0.4 * lowest, 1.1 * values.max(), keep=density, headroom=_HEADROOM)
    label_decades(ax.yaxis, clear=0.06)
    ax.set(xscale="log", xlim=(points.left[0], points.right[-1]), ylabel="counts s$^{-1}$ keV$^{-1}$")
    ax.tick_params(labelbottom=False)
    handles, labels = ax.get_legend_handles_labels()
    first = [i for i, text in enumerate(labels) if "counts" in text or "limit" in text]
    order = first + [labels.index(text) for text in ("reconstruction", "68 %", "background") if text in labels]
    ax.legend(
        [handles[i] for i in order], [labels[i] for i in order], loc="upper right", ncols=len(order), columnspacing=1.4
    )

    noise = np.sqrt(mean + np.add.reduceat(scale * mean_off, starts))  # the counts' own and the scaled background's
    known = noise > 0
    sigma = (points.counts[known] - mean[known]) / noise[known]
    across = np.stack([points.middle - points.left, points.right - points.middle])[:, known]
    below.axhline(0.0, color=BLUE, linewidth=0.9)
    below.errorbar(
        points.middle[known], sigma, 1.0, across,
        color=BLACK, elinewidth=0.8, linestyle="none", zorder=3, marker="o", markersize=2.2,
    )  # fmt: skip
    reach = max(3.4, 1.15 * float(np.max(np.abs(sigma), initial=0.0)) + 1.0)
    below.set(ylim=(-reach, reach), ylabel="residual (σ)")
    below.yaxis.set_major_locator(MaxNLocator(4, integer=True, prune="both"))
    _label_energies(below)


def _draw_photons(ax: Axes, spectrum: Spectrum, made: Reconstruction) -> None:
    """The photon spectrum before the telescope; fainter where no channel was compared."""
    lo, hi = (edges[made.channels] for edges in _channel_edges(spectrum))
    energy = np.sqrt(made.energy[1:] * made.energy[:-1])
    best, low, high = (energy**2 * values for values in (made.photons, made.photons_lo, made.photons_hi))
    inside = (energy >= lo[0]) & (energy <= hi[-1])
    for part, strength in ((np.ones_like(inside), 0.35), (inside, 1.0)):
        ax.fill_between(energy[part], low[part], high[part], color=SKY, alpha=0.55 * strength, linewidth=0)
        ax.plot(energy[part], best[part], color=BLUE, alpha=strength)
    set_log_range(ax, 0.7 * low[inside].min(), 1.6 * high[inside].max())
    ax.set(xlim=(made.energy[0], made.energy[-1]), ylabel="$E^2 f(E)$  (keV cm$^{-2}$ s$^{-1}$)")
    ax.set_title("photon spectrum, median and 68 %", loc="left")
    _label_energies(ax)


def _draw_latents(ax: Axes, made: Reconstruction) -> None:
    """The latents with their errors, on one and two standard deviations of their prior."""
    z, err = made.table.z[0], made.table.z_err[0]
    place = np.arange(z.size)
    ax.axhspan(-2, 2, color=GREY, alpha=0.12, linewidth=0)
    ax.axhspan(-1, 1, color=GREY, alpha=0.16, linewidth=0)
    ax.axhline(0, color=GREY, linewidth=0.6)
    ax.errorbar(place, z, err, color=VERMILION, marker="o", markersize=3.5, linestyle="none", elinewidth=1.2, capsize=2)
    reach = max(3.0, float(np.max(np.abs(z) + err)) + 0.4)
    ax.set(xlim=(-0.6, z.size - 0.4), ylim=(-reach, reach), ylabel="latent variable")
    ax.set_xticks(place, [f"$z_{i}$" for i in place])
    ax.tick_params(axis="x", length=0)
    ax.yaxis.set_major_locator(MaxNLocator(6, integer=True))
    ax.set_title("latents, on 1σ and 2σ of their prior", loc="left")


def _write_numbers(ax: Axes, spectrum: Spectrum, made: Reconstruction) -> None:
    """Fluxes, hardness ratios and the observation as a small table, with the fit statistic under it."""
    row = made.table.to_astropy()[0]
    ax.set_axis_off()
    ax.set(xlim=(0, 1), ylim=(0, 1))
    lines = [0.73 - 0.118 * i for i in range(5)]

    def column(x: float, head: str, texts: list[str]) -> None:
        ax.text(x, lines[0], head, va="center", color=GREY, fontweight="bold")
        for y, text in zip(lines[1:], texts, strict=False):
            ax.text(x, y, text, va="center")

    band = spectrum.band_counts(0.5, 8.0)
    rate, rate_err = spectrum.net_rate(0.5, 8.0)
    column(0.0, "0.5–8 keV", ["counts", "background", "net rate", "exposure"])
    net = _with_error(rate, rate_err)
    background = f"{band.background:.4g}" if spectrum.background is not None else "none"
    column(0.10, "", [f"{band.total:.6g}", background, net, f"{spectrum.exposure / 1e3:.4g} ks"])
    column(0.31, "band (keV)", [f"{name}  {limits[0]:g}–{limits[1]:g}" for name, limits in _BANDS.items()])
    column(0.42, "energy flux (erg cm$^{-2}$ s$^{-1}$)", [_value(row, f"flux_{name}") for name in _BANDS])
    column(0.635, "photon flux (cm$^{-2}$ s$^{-1}$)", [_value(row, f"photflux_{name}") for name in _BANDS])
    column(0.84, "hardness ratios", list(HARDNESS_RATIOS))
    column(0.92, "", [_value(row, name) for name in HARDNESS_RATIOS])
    ax.text(0.0, 0.13, describe_fit(made), va="center", fontweight="bold")
    if row["flags"]:
        ax.text(0.0, 0.02, f"flags: {str(row['flags']).replace(',', ', ')}", va="center", color=VERMILION)


def _with_error(rate: float, error: float) -> str:
    """A count rate with two digits of its error, in mathtext."""
    power = int(np.floor(np.log10(max(abs(rate), error)))) if error > 0 else 0
    rate, error = rate / 10.0**power, error / 10.0**power
    digits = int(np.clip(1 - np.floor(np.log10(error)), 1, 4)) if error > 0 else 1
    return rf"$({rate:.{digits}f} \pm {error:.{digits}f}) \times 10^{{{power}}}$ s$^{{-1}}$"


def _value(row: Any, name: str) -> str:
    """A quantity with its 68 % limits, in mathtext."""
    best, low, high = (float(row[column]) for column in (name, f"{name}_lolim", f"{name}_hilim"))
    if np.isnan(best):
        return "not covered"
    up, down = high - best, best - low
    if name.startswith("hard"):
        digits = 2 if min(up, down) >= 0.01 else 3
        return f"${best:.{digits}f}^{{+{up:.{digits}f}}}_{{-{down:.{digits}f}}}$"
    if low <= 0 or high > 30 * low:
        # An interval over more than a decade says that there is an upper limit.
        power = int(np.floor(np.log10(high)))
        return rf"$< {high / 10.0**power:.1f} \times 10^{{{power}}}$ (84 %)"
    power = int(np.floor(np.log10(best)))
    # Two digits of the smaller error.
    smallest = max(min(up, down) / 10.0**power, 1e-3)
    digits = int(np.clip(1 - np.floor(np.log10(smallest)), 1, 3))
    best, up, down = (value / 10.0**power for value in (best, up, down))
    return rf"${best:.{digits}f}^{{+{up:.{digits}f}}}_{{-{down:.{digits}f}}} \times 10^{{{power}}}$"


def _title(spectrum: Spectrum) -> str:
    meta = spectrum.meta
    words = [spectrum.name, str(meta.get("object", ""))]
    if str(meta.get("object", "")).lower() == spectrum.name.lower():
        words.pop()
    words.append(" ".join(str(meta[key]) for key in ("telescope", "instrument") if meta.get(key)))
    if meta.get("obsid"):
        words.append(f"ObsID {meta['obsid']}")
    words.append(str(meta.get("date", ""))[:10])
    return "  ·  ".join(word for word in words if word)


def _channel_edges(spectrum: Spectrum) -> tuple[Float[np.ndarray, " n_chan"], Float[np.ndarray, " n_chan"]]:
    if spectrum.response is None:
        raise ResponseError(f"{spectrum.name} has no response, so its channels have no energies: give an RMF")
    return spectrum.response.chan_lo, spectrum.response.chan_hi


def _on_all(values: Float[np.ndarray, " n_selected"], use: Bool[np.ndarray, " n_chan"]) -> Float[np.ndarray, " n_chan"]:
    """Values of the selected channels among all, NaN in the others: a gap in a line."""
    whole = np.full(use.shape, np.nan)
    whole[use] = values
    return whole


def _label_energies(ax: Axes) -> None:
    """Make the x axis one of energies, labelled 0.5, 1, 2, 5 and not with powers of ten."""
    low, high = ax.get_xlim()
    ax.set(xscale="log", xlabel="energy (keV)")
    if sum(low <= energy <= high for energy in _ENERGY_TICKS) < 2:
        label_decades(ax.xaxis)
        return
    ax.xaxis.set_major_locator(FixedLocator([e for e in _ENERGY_TICKS if low <= e <= high]))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda e, _: f"{e:g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())
