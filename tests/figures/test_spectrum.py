"""Figures of a spectrum: how channels are joined, what is said of the fit, and what stands on the page."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xlatent.core.errors import WriteError
from xlatent.core.latents import LatentTable
from xlatent.core.spectrum import Spectrum
from xlatent.figures.spectrum import MIN_SIGNIFICANCE, describe_fit, group_channels, plot_reconstruction
from xlatent.figures.style import save
from xlatent.infer.embed import load_model
from xlatent.simulate import acis
from xlatent.simulate.continuum import powerlaw


@pytest.fixture(scope="module")
def model():
    return load_model(threads=1)


@pytest.fixture(scope="module")
def response():
    return acis.response("BI", 2005.0)


def observed(response, counts, background=True):
    rng = np.random.default_rng(1)
    edges = np.append(response.energy_lo, response.energy_hi[-1])
    folded = response.fold(powerlaw(edges, 1.8))
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
        (570.0, 400, "an acceptable fit"),
        (650.0, 400, "a poor fit, 5 standard deviations off"),
        (9000.0, 400, "the model fails"),
        (300.0, 400, "lower than noise alone should give"),
        (500.0, 3, "too few counts to judge the fit"),
    ],
)
def test_the_statistic_in_words(model, response, cstat, counts, words):
    made = model.reconstruct(observed(response, 300))
    columns = {name: made.table[name] for name in made.table.colnames}
    columns |= {"cstat": [cstat], "cstat_expected": [500.0], "cstat_sigma": [30.0], "counts": [float(counts)]}
    changed = dataclasses.replace(made, table=LatentTable(columns))
    n = int(made.channels.sum())
    expected = f"= {cstat:.1f} on {n} channels; 500 ± 30 expected if the model is right: {words}"
    assert describe_fit(changed, True) == f"W {expected}"
    assert describe_fit(changed, False) == f"C {expected}"


def texts(figure):
    return [text.get_text() for axes in figure.axes for text in axes.texts] + [text.get_text() for text in figure.texts]


@pytest.mark.parametrize("counts", [0, 4, 300, 100000])
@pytest.mark.parametrize("background", [True, False])
def test_a_figure_has_units_numbers_and_all_counts(model, response, counts, background):
    spectrum = observed(response, counts, background)
    made = model.reconstruct(spectrum)
    figure = plot_reconstruction(made, spectrum)
    top, residuals, photons, latents, _ = figure.axes
    assert top.get_ylabel() == "counts s$^{-1}$ keV$^{-1}$"
    assert residuals.get_xlabel() == photons.get_xlabel() == "energy (keV)"
    assert "keV cm$^{-2}$ s$^{-1}$" in photons.get_ylabel()
    assert [label.get_text() for label in latents.get_xticklabels()] == [f"$z_{i}$" for i in range(8)]
    figure.draw_without_rendering()
    labels = [label.get_text() for label in residuals.get_xticklabels()]
    assert labels == ["0.5", "1", "2", "5"]
    said = texts(figure)
    assert describe_fit(made, background) in said
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


def test_unknown_suffix_is_refused(model, response, tmp_path):
    spectrum = observed(response, 50)
    figure = plot_reconstruction(model.reconstruct(spectrum), spectrum)
    with pytest.raises(WriteError, match="suffix"):
        save(figure, tmp_path / "f.jpg")
    with pytest.raises(WriteError, match="there is no folder"):
        save(figure, tmp_path / "nowhere" / "f.png")


def test_no_global_state_of_matplotlib():
    code = "import sys, xlatent.figures.spectrum; assert 'matplotlib.pyplot' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
