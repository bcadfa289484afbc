"""Figures of a spectrum: how channels are joined, what is said of the fit, and what stands on the page."""

import csv
import dataclasses
import subprocess
import sys
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from scipy.sparse import csr_array

from xlatent.core.errors import ParameterError, WriteError
from xlatent.core.flags import fit_verdict
from xlatent.core.latents import LatentTable
from xlatent.core.spectrum import Spectrum
from xlatent.figures.spectrum import (
    MIN_SIGNIFICANCE,
    describe_fit,
    group_channels,
    plot_reconstruction,
    plot_spectrum,
)
from xlatent.figures.style import save, set_log_range
from xlatent.formats.ogip_spectrum import read
from xlatent.infer.embed import load_model
from xlatent.simulate import acis
from xlatent.simulate.continuum import powerlaw


@pytest.fixture(scope="module")
def model():
    return load_model(threads=1)


@pytest.fixture(scope="module")
def response():
    return acis.response("BI", 2005.0)


def observed(response, counts, background=True, shape=1.0):
    rng = np.random.default_rng(1)
    edges = np.append(response.energy_lo, response.energy_hi[-1])
    folded = response.fold(shape * powerlaw(edges, 1.8))
    on = rng.poisson(counts * folded / folded.sum()).astype(float)
    off = Spectrum(rng.poisson(0.2, on.size).astype(float), 1e4, backscale=10.0) if background else None
    return Spectrum(on, 1e4, background=off, response=response, meta={"name": "a $strange_name", "object": "b"})


@given(st.lists(st.tuples(st.integers(0, 30), st.floats(0, 5)), min_size=1, max_size=300))
def test_joined_channels_are_significant_or_wide(rows):
    counts, background = np.array(rows, dtype=float).T
    edges = np.geomspace(0.5, 8.0, counts.size + 1)
    variance = counts + 0.1 * background
    starts = group_channels(counts, background, variance, edges[:-1], edges[1:])
    assert starts[0] == 0 and (np.diff(starts) > 0).all() and starts[-1] < counts.size
    net = np.add.reduceat(counts - background, starts)
    noise = np.sqrt(np.add.reduceat(variance, starts))
    width = np.diff(np.log(np.append(edges[:-1][starts], edges[-1])))
    enough = (net >= MIN_SIGNIFICANCE * noise * (1 - 1e-9)) | (width >= 0.25 * (1 - 1e-9))
    assert enough[:-1].all()  # the last one takes what is left


@pytest.mark.parametrize(
    ("cstat", "counts", "words"),
    [
        (500.0, 400, "a good fit"),
        (570.0, 400, "a good fit"),
        (650.0, 400, "a poor fit, 5 standard deviations off"),
        (9000.0, 400, "the model fails, 283 standard deviations off"),
        (300.0, 400, "a good fit, lower than noise alone should give"),
        (500.0, 3, "too few counts to judge the fit"),
    ],
)
def test_the_statistic_in_words(model, response, cstat, counts, words):
    made = model.reconstruct(observed(response, 300))
    columns = {name: made.table[name] for name in made.table.colnames}
    columns |= {"cstat": [cstat], "cstat_expected": [500.0], "cstat_sigma": [30.0], "counts": [float(counts)]}
    columns |= {"fit_sigma": [(cstat - 500.0) / 30.0], "fit": [fit_verdict((cstat - 500.0) / 30.0, float(counts))]}
    changed = dataclasses.replace(made, table=LatentTable(columns))
    n = int(made.channels.sum())
    expected = f"= {cstat:.1f} on {n} channels; 500 ± 30 expected if the model is right: {words}"
    assert describe_fit(changed) == f"W {expected}"
    alone = dataclasses.replace(made.spectrum, background=None)
    assert describe_fit(dataclasses.replace(changed, spectrum=alone)) == f"C {expected}"


def texts(figure):
    return [text.get_text() for axes in figure.axes for text in axes.texts] + [text.get_text() for text in figure.texts]


@pytest.mark.parametrize("counts", [0, 4, 300, 100000])
@pytest.mark.parametrize("background", [True, False])
def test_a_figure_has_units_numbers_and_all_counts(model, response, counts, background):
    spectrum = observed(response, counts, background)
    made = model.reconstruct(spectrum)
    figure = plot_reconstruction(made)
    top, residuals, photons, latents, _ = figure.axes
    assert top.get_ylabel() == "counts s$^{-1}$ keV$^{-1}$"
    assert residuals.get_xlabel() == photons.get_xlabel() == "energy (keV)"
    assert "keV cm$^{-2}$ s$^{-1}$" in photons.get_ylabel()
    assert [label.get_text() for label in latents.get_xticklabels()] == [f"$z_{i}$" for i in range(8)]
    figure.draw_without_rendering()
    labels = [label.get_text() for label in residuals.get_xticklabels()]
    assert labels == ["0.5", "1", "2", "5"]
    said = texts(figure)
    assert describe_fit(made) in said
    band = spectrum.band_counts(0.5, 8.0)
    assert f"{band.total:.6g}" in said
    if counts == 0:
        assert any(text.startswith("$<") for text in said)  # limits, not values, where nothing was seen
    low, high = top.get_ylim()
    assert 0 < low < high <= low * 1.01e4


def test_the_band_of_a_bright_source_is_narrower(model, response):
    widths = []
    for counts in (100, 10000):
        made = model.reconstruct(observed(response, counts))
        widths.append(float(np.median(np.log(made.photons_hi / made.photons_lo))))
    assert widths[1] < 0.5 * widths[0]


@pytest.mark.parametrize("counts", [12, 300, 30000])
def test_the_line_lies_in_its_band(model, response, counts):
    made = model.reconstruct(observed(response, counts))
    for line, low, high in (
        (made.counts, made.counts_lo, made.counts_hi),
        (made.photons, made.photons_lo, made.photons_hi),
    ):
        assert np.all((low <= line * (1 + 1e-9)) & (line <= high * (1 + 1e-9)))


def test_unknown_suffix_is_refused(model, response, tmp_path):
    spectrum = observed(response, 50)
    figure = plot_reconstruction(model.reconstruct(spectrum))
    with pytest.raises(WriteError, match="suffix"):
        save(figure, tmp_path / "f.jpg")
    with pytest.raises(WriteError, match="cannot be written"):
        save(figure, tmp_path / "nowhere" / "f.png")


def test_no_global_state_of_matplotlib():
    code = "import sys, xlatent.figures.spectrum; assert 'matplotlib.pyplot' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def boxes(figure):
    """What is written in a figure and where, a pixel smaller on every side."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw_without_rendering()
    written = list(figure.texts)
    for ax in figure.axes:
        written += [*ax.texts, ax.title, ax._left_title]
        if ax.axison:
            written += [ax.xaxis.label, ax.yaxis.label, *ax.get_xticklabels(), *ax.get_yticklabels()]
        written += ax.get_legend().get_texts() if ax.get_legend() else []
    for text in written:
        if text.get_visible() and text.get_text():
            yield text.get_text(), text.get_window_extent(renderer).padded(-1.0)


def bars_under(legend, ax):
    """Points and error bars that a legend covers."""
    box = legend.get_window_extent()
    points = [line.get_xydata() for line in ax.lines if line.get_marker() not in ("None", "")]
    points += [np.concatenate(lines.get_segments()) for lines in ax.collections if isinstance(lines, LineCollection)]
    shown = ax.transData.transform(np.concatenate(points))
    return shown[(box.x0 < shown[:, 0]) & (shown[:, 0] < box.x1) & (box.y0 < shown[:, 1]) & (shown[:, 1] < box.y1)]


def assert_clear(figure):
    found = list(boxes(figure))
    for (one, box), (other, behind) in combinations(found, 2):
        assert not box.overlaps(behind), f"{one!r} stands on {other!r}"
    for ax in figure.axes:
        if ax.get_legend() is not None:
            assert not len(bars_under(ax.get_legend(), ax))


CASES = ("five decades", "one decade", "no counts", "few counts", "no area at 2-3 keV", "no exposure in channels")


def case(response, name):
    energy = np.sqrt(response.energy_lo * response.energy_hi)
    if name == "five decades":
        return observed(response, 3e6, shape=energy * np.exp(-energy / 0.5))
    if name == "one decade":
        return observed(response, 6e4, False, shape=energy**1.5 / np.maximum(response.area, 30.0))
    if name == "no area at 2-3 keV":
        # No photon of these energies is counted and none of others falls there: channels that expect nothing.
        place = np.searchsorted(response.chan_hi, energy).clip(max=response.chan_lo.size - 1)
        sharp = csr_array((np.ones(energy.size), (np.arange(energy.size), place)), response.redistribution.shape)
        area = np.where((energy > 2) & (energy < 3), 0.0, response.area)
        return observed(dataclasses.replace(response, area=area, redistribution=sharp), 3000, False)
    if name == "no exposure in channels":
        areascale = np.ones(response.chan_lo.size)
        areascale[100:200] = 0.0
        return dataclasses.replace(observed(response, 3000), areascale=areascale)
    return observed(response, {"no counts": 0, "few counts": 6}[name])


@pytest.mark.parametrize("name", CASES)
def test_nothing_written_stands_on_something_else(model, response, name):
    spectrum = case(response, name)
    assert_clear(plot_reconstruction(model.reconstruct(spectrum)))
    assert_clear(plot_spectrum(spectrum).figure)


@pytest.mark.parametrize("name", ["3c-273__3c273", "pks-1127-145__q1127_src1", "m33__source", "4c19-44__obs2"])
def test_real_spectra_are_drawn_clear_of_each_other(model, shared_data, name):
    with (shared_data / "spectra" / "manifest.csv").open() as file:
        [row] = [row for row in csv.DictReader(file) if row["name"] == name]
    spectrum = read(shared_data / "spectra" / row["pha"])
    figure = plot_reconstruction(model.reconstruct(spectrum))
    assert_clear(figure)
    ax = plot_spectrum(spectrum)
    assert_clear(ax.figure)
    # All counts of the energies shown are in the points.
    low, high = ax.get_xlim()
    [counted] = [c for c in ax.containers if c.get_label() == spectrum.name]
    across = np.array([segment[:, 0] for segment in counted[2][0].get_segments()])
    density = counted[0].get_ydata()
    counts = (density * np.diff(across)[:, 0]).sum() * spectrum.exposure
    inside = spectrum.good & (spectrum.response.chan_lo >= low - 1e-9) & (spectrum.response.chan_hi <= high + 1e-9)
    assert counts == pytest.approx(spectrum.counts[inside].sum(), rel=1e-3)


def test_every_point_of_five_decades_is_in_sight(model, response):
    spectrum = case(response, "five decades")
    for ax in (plot_reconstruction(model.reconstruct(spectrum)).axes[0], plot_spectrum(spectrum)):
        low, high = ax.get_ylim()
        [points] = [c[0].get_ydata() for c in ax.containers if c.get_label() in ("counts", spectrum.name)]
        assert points.max() > 1e4 * points.min() and low < points.min() and points.max() < high


@pytest.mark.parametrize("low", [0.011, 0.3, 2e-7, 4e5, 0.99])
@pytest.mark.parametrize("width", [1.3, 4.0, 9.0, 60.0, 2e3, 1e4])
def test_a_logarithmic_axis_has_two_labels_or_more(low, width):
    ax = Figure().add_subplot()
    set_log_range(ax, low, low * width)
    ax.figure.draw_without_rendering()
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert 2 <= len([label for label in labels if label]) <= 7 and len(set(labels)) == len(labels)


def test_limits_say_their_level(model, response):
    spectrum = observed(response, 0)
    ax = plot_spectrum(spectrum)
    assert any("upper limits, 84 %" in text.get_text() for text in ax.get_legend().get_texts())
    figure = plot_reconstruction(model.reconstruct(spectrum))
    assert any("84 %" in text.get_text() for text in figure.axes[0].get_legend().get_texts())
    assert all(text.endswith("(84 %)") for text in texts(figure) if text.startswith("$<"))


def test_channels_are_not_joined_over_a_gap():
    lo = np.array([0.5, 0.51, 0.52, 2.0, 2.01, 2.02])
    starts = group_channels(np.ones(6), np.zeros(6), np.ones(6), lo, lo + 0.01)
    assert starts.tolist() == [0, 3]


def test_a_spectrum_is_drawn_over_another_in_the_axes_given(response):
    bright, faint = observed(response, 30000), observed(response, 300)
    ax = Figure().add_subplot()
    assert plot_spectrum(bright, ax, colour="C0", label="bright") is ax
    high = ax.get_ylim()[1]
    plot_spectrum(faint, ax, colour="C1", label="faint")
    assert ax.get_ylim()[1] == high
    assert {"bright", "faint"} <= {text.get_text() for text in ax.get_legend().get_texts()}


def test_without_response_counts_stand_against_channels():
    counts = np.arange(300.0)
    ax = plot_spectrum(Spectrum(counts, 10.0, quality=np.repeat([0, 5], [200, 100]), channels=np.arange(300)))
    assert ax.get_xlim() == (-0.5, 199.5)
    [points] = [c for c in ax.containers if c.get_label() == "counts"]
    assert points[0].get_ydata().max() == 198.5  # two channels to a point
    with pytest.raises(ParameterError, match="no good channel"):
        plot_spectrum(Spectrum(counts, 10.0, quality=np.full(300, 5)))


def test_no_area_at_all_is_no_obstacle_to_a_look_at_the_counts(response):
    nothing = dataclasses.replace(response, area=np.zeros_like(response.area))
    ax = plot_spectrum(dataclasses.replace(observed(response, 100), response=nothing))
    assert ax.get_xlabel() == "energy (keV)"
