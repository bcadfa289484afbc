import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xlatent.core.absorption import ABUNDANCES, bin_transmission, cross_section, transmission
from xlatent.core.errors import ParameterError

ENERGY = np.geomspace(0.3, 10.0, 200)


# From tbabs of XSPEC's library (HEASOFT 6.35): -ln of what a column of 1e19 cm-2 lets through in bins 0.01 % wide.
XSPEC_ENERGY = np.array([0.1, 0.3, 1.0, 2.0, 5.0, 10.0, 50.0])
XSPEC = {
    "wilm": np.array([609.28, 27.313, 1.7373, 0.29203, 0.023899, 0.0070769, 6.4555e-5]),
    "angr": np.array([618.70, 29.681, 2.5320, 0.44886, 0.037059, 0.011723, 1.0811e-4]),
}


@pytest.mark.parametrize("abundances", ABUNDANCES)
def test_cross_section_is_xspecs(abundances):
    np.testing.assert_allclose(cross_section(XSPEC_ENERGY, abundances), XSPEC[abundances], rtol=1e-3)


@pytest.mark.parametrize("abundances", ABUNDANCES)
def test_cross_section_is_xspecs_everywhere(xspec, abundances):
    energy = np.exp(np.arange(np.log(0.05), np.log(80.0), 3.3e-3))
    edges = np.stack([energy, energy * (1.0 + 1e-10)], axis=1).ravel()  # every second bin is a point
    wanted = -np.log(xspec("TBabs", edges, [1e-3], abundances))[::2] / 1e-3
    np.testing.assert_allclose(cross_section(energy, abundances), wanted, rtol=1e-3)


@pytest.mark.parametrize("abundances", ABUNDANCES)
def test_transmission_of_bins_is_xspecs_at_any_redshift(xspec, abundances):
    # XSPEC gives a bin the mean of the cross-sections at its edges, and something between that and a mean over the bin
    # beside the resonances of oxygen, so that up to three bins at 0.53-0.56 keV may be off. Its zTBabs has no grains: a
    # redshifted absorber is tbabs at the absorber's energies.
    edges = np.geomspace(0.3, 10.0, 257)
    for redshift in (0.0, 0.5, 2.0, 6.0):
        for nh in (0.01, 0.3, 10.0, 300.0):
            wanted = xspec("TBabs", edges * (1.0 + redshift), [nh], abundances)
            sigma = cross_section(edges * (1.0 + redshift), abundances)
            found = np.exp(-0.5 * nh * (sigma[1:] + sigma[:-1]))
            seen = wanted > 1e-3
            assert np.sum(np.abs(found[seen] / wanted[seen] - 1.0) > 5e-3) <= 3


def test_oxygen_edge():
    below, above = cross_section(np.array([0.538, 0.552]))
    assert above / below > 1.3


def test_iron_edge_is_where_verner_has_it():
    below, above = cross_section(np.array([7.115, 7.130]))
    assert above / below > 1.8


def test_outside_the_table_the_cross_section_falls_as_the_cube():
    low, at, high = cross_section(np.array([0.025, 0.05, 200.0]))
    assert low / at == pytest.approx(8.0, rel=1e-3)
    assert high == pytest.approx(cross_section(np.array([100.0]))[0] / 8.0, rel=1e-3)


def test_unknown_abundances_are_an_error():
    with pytest.raises(ParameterError, match="choose one of wilm, angr"):
        cross_section(ENERGY, "solar")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_torch_agrees(dtype):
    torch = pytest.importorskip("torch")
    energy = ENERGY * np.array([[1.0], [3.0]])
    nh = np.array([0.1, 2.0])
    found = transmission(torch.as_tensor(energy, dtype=getattr(torch, dtype)), torch.as_tensor(nh), 0.9)
    assert found.shape == (2, 200)
    np.testing.assert_allclose(found.numpy(), transmission(energy, nh, 0.9), rtol=2e-3)


@given(st.floats(0.0, 100.0), st.floats(0.0, 100.0))
def test_columns_add(a, b):
    both = transmission(ENERGY, a + b)
    np.testing.assert_allclose(both, transmission(ENERGY, a) * transmission(ENERGY, b), rtol=1e-9, atol=1e-300)


@given(st.floats(0.01, 100.0), st.floats(0.0, 1.0))
def test_partial_covering_lets_the_rest_through(nh, covering):
    passed = transmission(ENERGY, nh, covering)
    assert np.all(passed >= 1.0 - covering - 1e-12) and np.all(passed <= 1.0)


@pytest.mark.parametrize("nh", [0.02, 0.1, 0.3])
@pytest.mark.parametrize("redshift", [0.0, 0.15, 1.0])
def test_wide_bins_are_means_of_fine_ones_as_a_ccd_sees_them(nh, redshift):
    edges = np.geomspace(0.3, 10.0, 257)
    fine = np.geomspace(0.3, 10.0, 256 * 200 + 1) * (1.0 + redshift)
    wanted = transmission(0.5 * (fine[1:] + fine[:-1]), nh).reshape(256, 200).mean(axis=1)
    mid = 0.5 * (edges[1:] + edges[:-1])
    sigma = np.sqrt(0.05**2 + 0.05**2 * mid) / 2.355  # 60 eV full width at 0.5 keV, 130 eV at 6
    blur = np.exp(-0.5 * ((mid[:, None] - mid) / sigma[:, None]) ** 2) * np.diff(edges)
    found = bin_transmission(edges * (1.0 + redshift), nh)
    np.testing.assert_allclose(blur @ found, blur @ wanted, rtol=0.016)


def test_batches():
    assert bin_transmission(ENERGY, np.array([0.1, 1.0])).shape == (2, 199)
    assert transmission(ENERGY, np.array([0.1, 1.0])).shape == (2, 200)
