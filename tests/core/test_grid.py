import numpy as np
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st

from xlatent.core.errors import ParameterError
from xlatent.core.grid import ModelGrid, reference_response_moments
from xlatent.core.spectrum import Response
from xlatent.formats import ogip_spectrum
from xlatent.simulate import acis, continuum

GRID = ModelGrid()
OLD_CHIP = acis.response("FI", 2004.0)


@pytest.fixture(scope="module")
def response():
    return acis.response("BI", 2010.0, 2.0)


def smooth_spectra(edges):
    return {
        "power law": continuum.powerlaw(edges, 1.7),
        "steep": continuum.powerlaw(edges, 4.0),
        "blackbody": continuum.blackbody(edges, 0.5),
        "plasma continuum": continuum.bremsstrahlung(edges, 3.0),
    }


def compare_folding(response, exact_to):
    """Folding on the grid against folding on native energies, both rebinned to detector bins."""
    native_edges = np.append(response.energy_lo, response.energy_hi[-1])
    everything = np.ones(len(response.chan_lo), dtype=bool)
    matrix = GRID.project(response)
    for name, on_grid in smooth_spectra(GRID.energy).items():
        ours = on_grid @ matrix
        native = response.fold(smooth_spectra(native_edges)[name])
        theirs = GRID.rebin_counts(native, response, everything)
        # The total, and every bin that holds a fair share of it, within half a per cent of the larger.
        assert ours.sum() == pytest.approx(theirs.sum(), rel=exact_to), name
        bright = theirs > 0.2 * theirs.max()
        np.testing.assert_allclose(ours[bright], theirs[bright], rtol=exact_to, err_msg=name)


def test_flux_is_conserved(response):
    compare_folding(response, 0.005)


@pytest.mark.parametrize(
    "folder,pha,arf,rmf",
    [
        ("3c-273__3c273", "3c273.pi", "3c273.arf", "3c273.rmf"),
        ("pks-1127-145__q1127_src1", "q1127_src1.pi.gz", "q1127_src1.warf", "q1127_src1.wrmf.gz"),
    ],
)
def test_flux_is_conserved_on_real_responses(shared_data, folder, pha, arf, rmf):
    where = shared_data / "spectra" / folder
    spectrum = ogip_spectrum.read(where / pha, arf=where / arf, rmf=where / rmf)
    compare_folding(spectrum.response, 0.005)


@pytest.mark.parametrize("n", [1, 7, 300, 2000])
@pytest.mark.parametrize("seed", range(3))
def test_projection_is_what_its_definition_says(n, seed):
    """Bins finer and coarser than the grid's, with holes and overlaps, beyond its ends, without area in places."""
    rng = np.random.default_rng(seed)
    lo = np.sort(rng.uniform(0.05, 12.0, n))
    hi = lo + rng.uniform(0.2, 2.0, n) * 12.0 / n
    area = rng.uniform(0.0, 500.0, n) * (rng.random(n) > 0.1)
    edges = np.linspace(0.0, 11.0, 91)
    redistribution = scipy.sparse.csr_array(rng.random((n, 90)) * (rng.random((n, 90)) < 0.3))
    response = Response(lo, hi, area, redistribution, edges[:-1], edges[1:])
    mask = rng.random(90) > 0.3
    common = np.minimum(hi, GRID.energy[1:, None]) - np.maximum(lo, GRID.energy[:-1, None])
    share = np.maximum(common, 0.0) / GRID.energy_width[:, None]
    expected = (share * area) @ redistribution.toarray()[:, mask]
    native = GRID.native_response(response, mask)
    np.testing.assert_allclose(native, expected, rtol=1e-12, atol=1e-13 * max(expected.max(), 1.0))
    centre = 0.5 * (edges[1:] + edges[:-1])[mask]
    inside = (centre >= GRID.chan[:-1, None]) & (centre < GRID.chan[1:, None])
    np.testing.assert_allclose(GRID.project(response, mask), native @ inside.T, rtol=1e-12, atol=1e-9)


def test_detector_widths_grow_with_energy():
    assert np.all(np.diff(np.diff(GRID.chan)) > 0)
    assert GRID.chan[0] == pytest.approx(0.5) and GRID.chan[-1] == pytest.approx(8.0)


@given(st.integers(0, 2**32 - 1))
def test_counts_are_kept_whole(seed):
    rng = np.random.default_rng(seed)
    response = OLD_CHIP
    counts = rng.poisson(2.0, len(response.chan_lo)).astype(float)
    mask = rng.random(len(counts)) < 0.8
    rebinned = GRID.rebin_counts(counts, response, mask)
    centre = 0.5 * (response.chan_lo + response.chan_hi)
    assert rebinned.sum() == counts[mask & (centre >= 0.5) & (centre < 8.0)].sum()
    assert np.all(rebinned == np.round(rebinned))


def test_masked_channels_are_masked_in_the_response_too(response):
    mask = np.ones(len(response.chan_lo), dtype=bool)
    centre = 0.5 * (response.chan_lo + response.chan_hi)
    mask[(centre > 2.0) & (centre < 3.0)] = False
    matrix = GRID.project(response, mask)
    inside = (GRID.chan[:-1] > 2.02) & (GRID.chan[1:] < 2.98)
    assert np.all(matrix[:, inside] == 0) and matrix.sum() < GRID.project(response).sum()


def test_sensitivity_tells_sharp_from_blurred(response):
    energy = np.log(GRID.energy_mid)
    matrix = GRID.project(response)
    _, spread = reference_response_moments(GRID.reference[None], matrix, energy)
    blurred = np.apply_along_axis(lambda row: np.convolve(row, np.ones(9) / 9, mode="same"), 1, matrix)
    _, wider = reference_response_moments(GRID.reference[None], blurred, energy)
    assert np.mean(wider > spread) > 0.95
    # At 6 keV ACIS-S3 has a full width of about 150 eV: 1.1 per cent of the energy in standard deviation.
    at_six = np.searchsorted(GRID.chan, 6.0)
    assert 0.005 < spread[0, at_six] < 0.02


def test_a_grid_in_disorder_is_refused():
    with pytest.raises(ParameterError, match="energy_lo <= chan_lo"):
        ModelGrid(energy_lo=1.0)
