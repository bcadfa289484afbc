"""Band fluxes against closed formulas, and hardness ratios."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from xlatent.core import bands
from xlatent.core.errors import ParameterError

EDGES = np.geomspace(0.2, 10, 2001)


def power_law(index):
    """Photons/cm2/s a bin of E^-index photons/cm2/s/keV, exactly."""
    return np.diff(EDGES ** (1 - index)) / (1 - index)


@pytest.mark.parametrize("band", bands.BANDS)
def test_fluxes_of_a_power_law(band):
    lo, hi = bands.BANDS[band]
    photons = (hi**-0.7 - lo**-0.7) / -0.7
    erg = (hi**0.3 - lo**0.3) / 0.3 * 1.602176634e-9
    assert bands.photon_flux(power_law(1.7), EDGES, band) == pytest.approx(photons, rel=1e-5)
    assert bands.energy_flux(power_law(1.7), EDGES, band) == pytest.approx(erg, rel=1e-5)
    assert bands.photon_flux(power_law(1.7), EDGES, (lo, hi)) == pytest.approx(photons, rel=1e-5)


def test_a_bin_cut_by_the_band_counts_in_part():
    edges = np.array([0.0, 1.0, 2.0])
    assert bands.photon_flux(np.array([10.0, 20.0]), edges, (0.25, 1.5)) == pytest.approx(7.5 + 10)
    expected = (7.5 * 0.625 + 10 * 1.25) * bands.KEV_IN_ERG
    assert bands.energy_flux(np.array([10.0, 20.0]), edges, (0.25, 1.5)) == pytest.approx(expected)


@given(arrays(float, (3, 4, 6), elements=st.just(0.0) | st.floats(1e-30, 1e3)))
def test_batches_and_sums_of_bands(spectrum):
    edges = np.array([0.2, 0.45, 0.9, 1.5, 2.5, 5.0, 8.0])
    parts = sum(bands.photon_flux(spectrum, edges, band) for band in "smh")
    whole = bands.photon_flux(spectrum, edges, "b")
    assert whole.shape == (3, 4)
    np.testing.assert_allclose(parts, whole, rtol=1e-12)
    one = bands.energy_flux(spectrum[1, 2], edges, "h")
    np.testing.assert_allclose(one, bands.energy_flux(spectrum, edges, "h")[1, 2], rtol=1e-12)
    for ratio in bands.hardness_ratios(spectrum, edges).values():
        assert ratio.shape == (3, 4)
        assert np.all(np.isnan(ratio) | (np.abs(ratio) <= 1))


def test_hardness_grows_with_the_harder_band():
    soft, hard = bands.hardness_ratios(power_law(3.0), EDGES), bands.hardness_ratios(power_law(0.5), EDGES)
    assert list(soft) == ["hard_hm", "hard_hs", "hard_ms"]
    assert all(hard[name] > soft[name] for name in soft)
    assert bands.hardness(np.array([3.0, 0.0]), np.array([1.0, 0.0])) == pytest.approx([0.5, np.nan], nan_ok=True)


@pytest.mark.parametrize(
    ("edges", "band", "words"),
    [
        (np.linspace(0.3, 10, 5), "x", "unknown band 'x'"),
        (np.linspace(0.3, 10, 5), "u", "0.2-0.5 keV does not lie within"),
        (np.linspace(0.3, 10, 5), (2.0, 1.0), "does not lie within"),
        (np.linspace(0.3, 10, 4), "b", "needs 5 edges, found 4"),
    ],
)
def test_errors(edges, band, words):
    with pytest.raises(ParameterError, match=words):
        bands.photon_flux(np.ones(4), edges, band)
