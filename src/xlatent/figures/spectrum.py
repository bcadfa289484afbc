"""One spectrum and what a model makes of it: counts, residuals, photon spectrum, latents and numbers in one figure."""

from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullFormatter
from scipy.special import gammaincinv

from xlatent.core.bands import BANDS, HARDNESS_RATIOS
from xlatent.core.errors import ResponseError
from xlatent.core.spectrum import Spectrum
from xlatent.figures.style import BLACK, BLUE, GREY, ORANGE, SKY, VERMILION, style
from xlatent.infer.embed import Reconstruction

MIN_SIGNIFICANCE = 3.0
"""Of the points drawn: counts above background over their error."""
# In ln(energy): points are no narrower than about a third of ACIS's resolution at 1.5 keV, and no wider than a quarter.
_NARROWEST, _WIDEST = 0.025, 0.25
_ENERGY_TICKS = (0.3, 0.5, 1, 2, 5, 10)
_LOW, _HIGH = 0.15865, 0.84135
_BANDS = {name: BANDS[name] for name in "bsmh"}


def draw(spectrum: Spectrum, reconstruction: Reconstruction) -> Figure:
    """Draw a spectrum with its reconstruction.

    Parameters
    ----------
    spectrum : Spectrum
        With the response it was reconstructed with.
    reconstruction : Reconstruction
        Of this spectrum.

    Returns
    -------
    Figure
        Counts s⁻¹ keV⁻¹ against energy, with channels joined for display until the net counts are
        `MIN_SIGNIFICANCE` errors above zero (or a quarter of the energy is reached); residuals; E² times the photon
        spectrum; the latents on their prior, a unit normal distribution; fluxes, hardness ratios and the fit
        statistic in words.
    """
    with style():
        figure = Figure(figsize=(9.6, 6.6))
        grid = figure.add_gridspec(
            3, 2, width_ratios=(1.55, 1), height_ratios=(3.1, 1.1, 1.55),
            left=0.075, right=0.985, top=0.915, bottom=0.015, hspace=0.0, wspace=0.2,
        )  # fmt: skip
        left = grid[:2, 0].subgridspec(2, 1, height_ratios=(3.0, 1.0), hspace=0.0)
        right = grid[:2, 1].subgridspec(2, 1, height_ratios=(1.25, 1.0), hspace=0.36)
        counts = figure.add_subplot(left[0])
        residuals = figure.add_subplot(left[1], sharex=counts)
        _draw_counts(counts, residuals, spectrum, reconstruction)
        _draw_photons(figure.add_subplot(right[0]), spectrum, reconstruction)
        _draw_latents(figure.add_subplot(right[1]), reconstruction)
        words = figure.add_subplot(grid[2, :])
        _write_numbers(words, spectrum, reconstruction)
        figure.text(0.075, 0.962, _title(spectrum), fontsize=10.5, fontweight="bold", parse_math=False)
    return figure


def fit_in_words(reconstruction: Reconstruction, with_background: bool) -> str:
    """Say what the fit statistic means, in one sentence.

    Parameters
    ----------
    reconstruction : Reconstruction
    with_background : bool
        Whether the statistic is W (or C).
    """
    row = reconstruction.table.to_astropy()[0]
    found, expected, sigma = (float(row[name]) for name in ("cstat", "cstat_expected", "cstat_sigma"))
    n_channels = int(np.count_nonzero(reconstruction.channels))
    excess = (found - expected) / sigma
    if float(row["counts"]) < 10:
        verdict = "too few counts to judge the fit"
    elif excess < -3.0:
        verdict = "lower than noise alone should give"
    elif excess < 2.0:
        verdict = "a good fit"
    elif excess < 3.0:
        verdict = "an acceptable fit"
    else:
        verdict = f"a poor fit, {excess:.0f} standard deviations off" if excess < 100 else "the model fails"
    kind = "W" if with_background else "C"
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
        First channel of each group, for ``np.add.reduceat``; what is left at the end joins the last group.
    """
    starts, first = [0], 0
    net_sum = variance_sum = 0.0
    for k in range(counts.size):
        net_sum += float(counts[k] - background[k])
        variance_sum += float(variance[k])
        width = np.log(energy_hi[k] / energy_lo[first])
        significant = net_sum > 0 and net_sum**2 >= MIN_SIGNIFICANCE**2 * variance_sum
        if width >= _NARROWEST and (significant or width >= _WIDEST):
            first, net_sum, variance_sum = k + 1, 0.0, 0.0
            starts.append(first)
    if len(starts) > 1:
        starts.pop()
    return np.array(starts)


def _draw_counts(ax: Axes, below: Axes, spectrum: Spectrum, made: Reconstruction) -> None:
    """Counts with the reconstruction, and the residuals under them."""
    use = made.channels
    lo, hi = _channel_edges(spectrum)
    time = np.broadcast_to(spectrum.exposure * np.asarray(spectrum.areascale), use.shape)
    scale = np.broadcast_to(np.asarray(spectrum.background_scale, dtype=np.float64), use.shape)[use]
    exposed = time * (hi - lo)  # s keV: turns counts into a density

    counts = spectrum.counts[use]
    off = spectrum.background.counts[use] if spectrum.background is not None else np.zeros(counts.size)
    starts = group_channels(counts, scale * off, counts + scale**2 * off, lo[use], hi[use])
    n, expected, background, area = (
        np.add.reduceat(values, starts) for values in (counts, made.counts, scale * made.background, exposed[use])
    )
    noise = np.sqrt(expected + background)  # the counts' own, and that of the scaled background
    left, right = lo[use][starts], hi[use][np.append(starts[1:], counts.size) - 1]
    energy = np.sqrt(left * right)
    across = [energy - left, right - energy]
    n_lo = np.where(n > 0, gammaincinv(np.maximum(n, 1e-9), _LOW), 0.0)
    n_hi = gammaincinv(n + 1.0, _HIGH)

    # A sparse background has no shape from channel to channel: its level is drawn as its mean over each point.
    members = np.diff(np.append(starts, counts.size))
    smooth = np.repeat(np.add.reduceat(made.background, starts) / area, members)
    middle = 0.5 * (lo + hi)
    model, model_lo, model_hi = (
        _on_all((values - made.background) / exposed[use] + smooth, use)
        for values in (made.counts, made.counts_lo, made.counts_hi)
    )
    ax.fill_between(middle, model_lo, model_hi, color=SKY, alpha=0.55, linewidth=0, label="68 %")
    ax.plot(middle, model, color=BLUE, label="reconstruction")
    if np.any(made.background > 0):
        ax.plot(middle, _on_all(smooth, use), color=ORANGE, linestyle="--", label="background")
    seen = n > 0
    bars: dict[str, Any] = {"color": BLACK, "elinewidth": 0.8, "linestyle": "none", "zorder": 3}
    ax.errorbar(
        energy[seen], (n / area)[seen], [((n - n_lo) / area)[seen], ((n_hi - n) / area)[seen]],
        [across[0][seen], across[1][seen]], marker="o", markersize=2.2, label="counts", **bars,
    )  # fmt: skip
    if not seen.all():
        top, down = (n_hi / area)[~seen], 0.6 * (n_hi / area)[~seen]
        ax.errorbar(energy[~seen], top, [down, 0 * down], [a[~seen] for a in across], uplims=True, capsize=2, **bars)
    ax.set(xscale="log", yscale="log", xlim=(lo[use][0], hi[use][-1]), ylabel="counts s$^{-1}$ keV$^{-1}$")
    values = np.concatenate([expected / area, (n / area)[seen], (n_hi / area)[~seen]])
    lowest = min(values.min(), np.median(smooth)) if np.median(smooth) > 0 else values.min()
    _log_range(ax, 0.4 * lowest, 2.0 * values.max())
    ax.tick_params(labelbottom=False)
    handles, labels = ax.get_legend_handles_labels()
    order = [labels.index(x) for x in ("counts", "reconstruction", "68 %", "background") if x in labels]
    ax.legend([handles[i] for i in order], [labels[i] for i in order], loc="best")

    below.axhline(0.0, color=BLUE, linewidth=0.9)
    below.errorbar(energy, (n - expected) / noise, 1.0, across, marker="o", markersize=2.2, **bars)
    reach = max(3.4, 1.15 * float(np.max(np.abs((n - expected) / noise))) + 1.0)
    below.set(ylim=(-reach, reach), ylabel="(data − model) / σ", xlabel="energy (keV)")
    below.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    _plain_energy(below)


def _draw_photons(ax: Axes, spectrum: Spectrum, made: Reconstruction) -> None:
    """The photon spectrum before the telescope; fainter where no channel was compared."""
    lo, hi = (edges[made.channels] for edges in _channel_edges(spectrum))
    energy = np.sqrt(made.energy[1:] * made.energy[:-1])
    best, low, high = (energy**2 * values for values in (made.photons, made.photons_lo, made.photons_hi))
    inside = (energy >= lo[0]) & (energy <= hi[-1])
    for part, strength in ((np.ones_like(inside), 0.35), (inside, 1.0)):
        ax.fill_between(energy[part], low[part], high[part], color=SKY, alpha=0.55 * strength, linewidth=0)
        ax.plot(energy[part], best[part], color=BLUE, alpha=strength)
    ax.set(xscale="log", yscale="log", xlim=(made.energy[0], made.energy[-1]))
    top = high[inside].max()
    _log_range(ax, 0.7 * low[inside].min(), 1.6 * top)
    ax.set(xlabel="energy (keV)", ylabel="$E^2 f(E)$  (keV cm$^{-2}$ s$^{-1}$)")
    ax.set_title("photon spectrum, median and 68 %", loc="left")
    _plain_energy(ax)


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
    lines = [0.72 - 0.125 * i for i in range(5)]

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
    ax.text(0.0, 0.06, fit_in_words(made, spectrum.background is not None), va="center", fontweight="bold")
    if row["flags"]:
        ax.text(1.0, 0.06, f"flags: {str(row['flags']).replace(',', ', ')}", va="center", ha="right", color=VERMILION)


def _with_error(rate: float, error: float) -> str:
    """A count rate with two digits of its error, in mathtext."""
    power = int(np.floor(np.log10(max(abs(rate), error)))) if error > 0 else 0
    rate, error = rate / 10.0**power, error / 10.0**power
    digits = int(np.clip(1 - np.floor(np.log10(error)), 1, 4)) if error > 0 else 1
    return rf"$({rate:.{digits}f} \pm {error:.{digits}f}) \times 10^{{{power}}}$ s$^{{-1}}$"


def _value(row: Any, name: str) -> str:
    """A quantity with its 68 % limits, in mathtext."""
    best, low, high = (float(row[column]) for column in (name, f"{name}_lolim", f"{name}_hilim"))
    up, down = high - best, best - low
    if name.startswith("hard"):
        digits = 2 if min(up, down) >= 0.01 else 3
        return f"${best:.{digits}f}^{{+{up:.{digits}f}}}_{{-{down:.{digits}f}}}$"
    if low <= 0 or high > 30 * low:
        # An interval over more than a decade says that there is an upper limit.
        power = int(np.floor(np.log10(high)))
        return rf"$< {high / 10.0**power:.1f} \times 10^{{{power}}}$"
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


def _log_range(ax: Axes, low: float, high: float) -> None:
    """Set the range of a logarithmic y axis: at most four decades, and down to a second labelled power of ten."""
    low = max(low, 1e-4 * high)
    if np.floor(np.log10(high)) - np.ceil(np.log10(low)) < 1:
        low = 10.0 ** min(np.floor(np.log10(low)), np.floor(np.log10(high)) - 1)
    ax.set_ylim(low, high)
    ax.yaxis.set_minor_formatter(NullFormatter())


def _plain_energy(ax: Axes) -> None:
    """Label a logarithmic energy axis 0.5, 1, 2, 5 and not with powers of ten."""
    low, high = ax.get_xlim()
    ax.xaxis.set_major_locator(FixedLocator([e for e in _ENERGY_TICKS if low <= e <= high]))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda e, _: f"{e:g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())
