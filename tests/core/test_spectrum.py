"""Laws of Spectrum and Response: folding is linear, backgrounds scale, bands take what Sherpa's notice takes."""

from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.sparse import csr_array

from xlatent.core.errors import ParameterError, ResponseError
from xlatent.core.spectrum import Response, Spectrum

N_CHAN, N_ENERGY = 8, 5
EDGES = np.linspace(0.0, 8.0, N_CHAN + 1)
ENERGY = np.linspace(0.5, 7.5, N_ENERGY + 1)
MATRIX = np.random.default_rng(3).random((N_ENERGY, N_CHAN)) / N_CHAN
AREA = np.arange(1.0, N_ENERGY + 1)

fluxes = arrays(float, N_ENERGY, elements=st.floats(0, 1e3))
counts = arrays(float, N_CHAN, elements=st.integers(0, 1000).map(float))
positive = st.floats(0.01, 100)


def response(**changes):
    values = {
        "energy_lo": ENERGY[:-1],
        "energy_hi": ENERGY[1:],
        "area": AREA,
        "redistribution": csr_array(MATRIX),
        "chan_lo": EDGES[:-1],
        "chan_hi": EDGES[1:],
        "meta": {"telescope": "CHANDRA", "instrument": "ACIS"},
    }
    return Response(**{**values, **changes})


@given(fluxes, fluxes, positive)
def test_folding_is_linear_and_is_the_matrix_product(one, two, factor):
    fold = response().fold
    np.testing.assert_allclose(fold(one), (one * AREA) @ MATRIX, rtol=1e-12)
    np.testing.assert_allclose(fold(one + factor * two), fold(one) + factor * fold(two), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(fold(np.stack([one, two])), np.stack([fold(one), fold(two)]), rtol=1e-12)


def test_folding_never_renormalises():
    flux = np.ones(N_ENERGY)
    assert response().fold(flux).sum() == pytest.approx((AREA * MATRIX.sum(1)).sum())


@given(counts, counts, positive, positive, positive, positive)
def test_background_scale(source, background, exposure, back_source, back_background, area):
    spectrum = Spectrum(
        source,
        exposure,
        backscale=back_source,
        areascale=area,
        background=Spectrum(background, 2 * exposure, backscale=back_background),
        response=response(),
    )
    assert spectrum.background_scale == pytest.approx(0.5 * back_source / back_background * area, rel=1e-12)
    band = spectrum.band_counts(0, 8)
    assert band.total == source.sum()
    assert band.background == pytest.approx(spectrum.background_scale * background.sum())
    assert band.net == pytest.approx(band.total - band.background)
    assert band.net_err**2 == pytest.approx(source.sum() + spectrum.background_scale**2 * background.sum())
    rate, error = spectrum.net_rate(0, 8)
    assert rate == pytest.approx(band.net / exposure / area, rel=1e-9, abs=1e-12)
    assert error == pytest.approx(band.net_err / exposure / area, rel=1e-9, abs=1e-12)


def test_background_scale_by_channel():
    scale = np.arange(N_CHAN, dtype=float)
    spectrum = Spectrum(np.ones(N_CHAN), 10.0, background=Spectrum(np.ones(N_CHAN), 10.0, backscale=scale))
    expected = np.concatenate([[0.0], 1 / scale[1:]])
    np.testing.assert_allclose(spectrum.background_scale, expected)


def test_without_background():
    spectrum = Spectrum(np.ones(N_CHAN), 10.0, response=response())
    assert spectrum.background_scale == 0.0
    assert spectrum.band_counts(0, 8) == (8.0, 0.0, 8.0, 8.0**0.5)


def test_select_takes_channels_that_overlap():
    quality = np.array([0, 1, 2, 5, 0, 0, 0, 0])
    spectrum = Spectrum(np.ones(N_CHAN), 10.0, quality=quality, response=response())
    np.testing.assert_array_equal(np.flatnonzero(spectrum.good), [0, 2, 4, 5, 6, 7])
    np.testing.assert_array_equal(np.flatnonzero(spectrum.select(2.5, 5.0)), [2, 4])  # 5.0 touches channel 5 only
    np.testing.assert_array_equal(np.flatnonzero(spectrum.select(0.999, 1.001)), [0])
    assert not spectrum.select(8.0, 9.0).any()


def test_acis_selects_514_channels_from_half_to_eight_kev():
    width = 0.0146
    lo = np.arange(1024) * width
    acis = response(redistribution=csr_array((N_ENERGY, 1024)), chan_lo=lo, chan_hi=lo + width)
    assert Spectrum(np.zeros(1024), 1.0, response=acis).select(0.5, 8.0).sum() == 514


def test_energies_need_a_response():
    spectrum = Spectrum(np.ones(N_CHAN), 10.0, meta={"name": "alone"})
    with pytest.raises(ResponseError, match="alone has no response"):
        spectrum.select(0.5, 7)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"counts": np.array([1.0, np.nan])}, "counts must be finite"),
        ({"counts": np.array([1.0, -1.0])}, "channel index 1 holds -1"),
        ({"counts": np.zeros(0)}, "at least one channel"),
        ({"exposure": 0.0}, "exposure must be a positive"),
        ({"exposure": float("nan")}, "exposure must be a positive"),
        ({"backscale": 0.0}, "backscale must be positive and finite, and it is 0"),
        ({"areascale": np.zeros(2)}, "areascale must be positive"),
        ({"background": Spectrum(np.ones(3), 1.0)}, "background has 3 channels where the source has 2"),
    ],
)
def test_spectrum_refuses_in_words(values, words):
    with pytest.raises(ParameterError, match=words):
        Spectrum(**{"counts": np.ones(2), "exposure": 1.0, **values})


def test_response_with_other_channels_is_refused():
    with pytest.raises(ResponseError, match="8 channels where the spectrum has 2"):
        Spectrum(np.ones(2), 1.0, response=response())


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"redistribution": csr_array((3, N_CHAN))}, "redistribution has shape"),
        ({"energy_lo": ENERGY[:-1] - 0.5}, "start above 0"),
        ({"energy_hi": ENERGY[:-1]}, "energy bins must ascend"),
        ({"area": -AREA}, "must not be negative"),
        ({"area": AREA * np.nan}, "area must be finite"),
        ({"chan_hi": EDGES[:-1] - 1}, "chan_hi must not lie below"),
        ({"redistribution": csr_array(MATRIX * np.inf)}, "not finite"),
    ],
)
def test_response_refuses_in_words(values, words):
    with pytest.raises(ParameterError, match=words):
        response(**values)


def test_reprs_can_be_read():
    background = Spectrum(np.full(N_CHAN, 2.0), 10.0, backscale=4.0)
    meta = {"name": "s1", "object": "3C 273", "telescope": "CHANDRA", "instrument": "ACIS"}
    spectrum = Spectrum(np.ones(N_CHAN), 2500.0, background=background, response=response(), meta=meta)
    text = repr(spectrum)
    for words in ("'s1'", "3C 273, CHANDRA ACIS", "7 counts in 0.5-7 keV", "2.5 ks", "16 counts", "5 energy bins"):
        assert words in text
    assert repr(response()).startswith("<Response of CHANDRA ACIS: 5 energy bins 0.5-7.5 keV, 8 channels")
    assert "response: none" in repr(background)


def test_tables_for_notebooks_say_the_same_and_are_escaped():
    meta = {"name": "s1", "object": "<b>3C 273</b> & more", "telescope": "CHANDRA"}
    table = ElementTree.fromstring(Spectrum(np.ones(N_CHAN), 2500.0, response=response(), meta=meta)._repr_html_())
    assert table.find("caption").text == "Spectrum 's1': <b>3C 273</b> & more, CHANDRA"
    rows = {row.find("th").text: row.find("td").text for row in table.iter("tr")}
    assert set(rows) == {"counts", "background", "response"}
    assert rows["background"] == "none" and rows["counts"].startswith("7 counts in 0.5-7 keV")
    (row,) = ElementTree.fromstring(response()._repr_html_()).iter("tr")
    assert "5 energy bins" in row.find("td").text


def test_a_spectrum_plots_itself():
    spectrum = Spectrum(np.full(N_CHAN, 9.0), 2500.0, response=response(), meta={"name": "s1"})
    ax = spectrum.plot()
    assert "keV" in ax.get_xlabel()
    assert spectrum.plot(ax, colour="red", label="again") is ax
    assert "channel" in replace(spectrum, response=None).plot().get_xlabel()
