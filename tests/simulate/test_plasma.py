import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

from xlatent.core.errors import ParameterError
from xlatent.simulate.plasma import ELEMENTS, plasma

FINE = np.geomspace(0.1, 12.0, 8001)
CENTRE = np.sqrt(FINE[1:] * FINE[:-1])


def spectrum(kt, kt_ion=None, **abundance):
    """Photons per fine bin; elements named are set, the others solar."""
    row = np.array([[abundance.get(name, 1.0) for name in ELEMENTS]])
    return plasma(FINE, kt, row, kt_ion)[0]


def lines_of(element, kt, kt_ion=None):
    return spectrum(kt, kt_ion) - spectrum(kt, kt_ion, **{element: 0.0})


def between(low, high):
    return (low < CENTRE) & (high > CENTRE)


def equivalent_width(element, low, high, kt):
    """Photons of one element in a band over the density of everything else in its middle, eV."""
    others = spectrum(kt, **{element: 0.0}) / np.diff(FINE)
    return 1e3 * lines_of(element, kt)[between(low, high)].sum() / np.interp((low + high) / 2, CENTRE, others)


def line_peak(element, low, high):
    """Temperature of the greatest emissivity of a line, keV."""
    kt = np.geomspace(0.08, 15.0, 80)
    rows = np.zeros((80, len(ELEMENTS)))
    without = plasma(np.array([low, high]), kt, rows)
    rows[:, ELEMENTS.index(element)] = 1.0
    return kt[np.argmax((plasma(np.array([low, high]), kt, rows) - without)[:, 0])]


# Shapes, namespaces, arithmetic


def test_shapes():
    energy = np.geomspace(0.3, 10.0, 41)
    assert plasma(energy, 1.0, 1.0).shape == (40,)
    assert plasma(energy, np.ones(3), 1.0).shape == (3, 40)
    assert plasma(energy, 1.0, np.ones(3)).shape == (3, 40)
    assert plasma(energy, 1.0, np.ones((3, len(ELEMENTS))), np.ones(3)).shape == (3, 40)
    assert plasma(energy * np.ones((3, 1)), 1.0, 1.0).shape == (3, 40)


def test_wrong_number_of_elements():
    with pytest.raises(ParameterError, match="5 columns; give 1 or 12"):
        plasma(FINE, 1.0, np.ones((2, 5)))


def test_equal_edges_given_once_or_for_each():
    energy, kt = np.geomspace(0.3, 10.0, 41), np.array([0.3, 1.0, 5.0])
    np.testing.assert_allclose(plasma(energy * np.ones((3, 1)), kt, 0.5), plasma(energy, kt, 0.5), rtol=1e-12)


def test_edges_from_zero_and_beyond_all_emission():
    flux = plasma(np.array([0.0, 0.04, 1.0, 99.0, 150.0, 300.0]), 5.0, 1.0)
    assert np.all(np.isfinite(flux)) and np.all(flux >= 0)
    assert flux[0] == flux[4] == 0.0
    assert flux[1] > flux[2] > 0.0


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("each", [False, True], ids=["common edges", "edges for each"])
def test_torch_equals_numpy(precision, each):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(1)
    kt, kt_ion = np.geomspace(0.08, 15.0, 30), np.geomspace(0.08, 15.0, 30) * rng.uniform(0.2, 1.5, 30)
    abundance = rng.uniform(0, 3, (30, len(ELEMENTS)))
    energy = np.geomspace(0.3, 10.0, 257) * (1 + rng.uniform(0, 6, (30, 1)) if each else 1.0)
    expected = plasma(energy, kt, abundance, kt_ion)
    dtype = getattr(torch, precision)
    flux = plasma(*(torch.tensor(a, dtype=dtype) for a in (energy, kt, abundance, kt_ion)))
    assert flux.dtype == dtype
    np.testing.assert_allclose(
        flux.numpy(), expected, rtol=1e-9 if precision == "float64" else 5e-3, atol=1e-9 * expected.max()
    )


def test_float32_stays_float32():
    assert plasma(FINE.astype(np.float32), 1.0, 1.0).dtype == np.float32


@settings(deadline=None, max_examples=50)
@given(
    kt=st.floats(0.08, 15.0),
    kt_ion=st.floats(0.08, 15.0),
    abundance=st.floats(0.0, 10.0),
    inner=st.lists(st.floats(0.1, 12.0), min_size=1, max_size=30, unique=True),
)
def test_coarse_bins_are_sums_of_fine_ones(kt, kt_ion, abundance, inner):
    edges = np.sort(np.concatenate([inner, [0.1, 12.0]]))
    fine, coarse = plasma(edges, kt, abundance, kt_ion), plasma(edges[[0, -1]], kt, abundance, kt_ion)
    assert np.all(np.isfinite(fine)) and np.all(fine >= 0)
    assert fine.sum() == pytest.approx(coarse[0], rel=1e-10)


@settings(deadline=None, max_examples=50)
@given(kt=st.floats(0.08, 15.0), kt_ion=st.floats(0.08, 15.0), abundance=st.floats(0.0, 10.0))
def test_positive_and_linear_in_abundance(kt, kt_ion, abundance):
    energy = np.geomspace(0.3, 10.0, 129)
    none, solar, some = (plasma(energy, kt, a, kt_ion) for a in (0.0, 1.0, abundance))
    assert np.all(none[energy[1:] < 25 * kt] > 0)
    # Bins are differences of running sums: what is 1e-15 of the brightest is rounding.
    np.testing.assert_allclose(some, none + abundance * (solar - none), rtol=1e-8, atol=1e-14 * some.max())


@settings(deadline=None, max_examples=30)
@given(shift=st.floats(-1e-4, 1e-4))
def test_flux_varies_smoothly_with_the_edges(shift):
    edges = np.linspace(6.0, 7.4, 29)  # across the Fe K lines, keV
    here, there = plasma(edges, 5.0, 1.0), plasma(edges + shift, 5.0, 1.0)
    assert np.max(np.abs(there - here)) < 0.01 * here.max()


# Continuum


def test_bremsstrahlung_of_hot_hydrogen_and_helium():
    # Born approximation, right for kT far above 54 eV: g = sqrt(3)/pi exp(u/2) K0(u/2); norm of XSPEC's bremss.
    kt = 10.0
    gaunt = np.sqrt(3) / np.pi * special.k0e(CENTRE / kt / 2)
    expected = 0.302 * (1 + 4 * 0.0977) * gaunt * np.exp(-CENTRE / kt) / (CENTRE * np.sqrt(kt))
    np.testing.assert_allclose(plasma(FINE, kt, 0.0) / np.diff(FINE), expected, rtol=0.15)


def test_slope_of_the_hot_continuum():
    flux = plasma(FINE, 10.0, 0.0) / np.diff(FINE)
    low, high = np.interp([1.0, 2.0], CENTRE, flux)
    assert np.log(low / high) / np.log(2) == pytest.approx(1.43, abs=0.07)  # photon index of 10 keV bremsstrahlung


@pytest.mark.parametrize("kt", [0.1, 0.5, 2.0, 8.0])
def test_no_lines_without_metals(kt):
    energy = np.geomspace(0.15, min(10 * kt, 10.0), 81)
    log_density = np.log(plasma(energy, kt, 0.0) / np.diff(energy))
    assert np.all(np.diff(log_density) < 0)
    assert np.max(np.abs(np.diff(log_density, 2))) < 0.03  # a line of 0.03 of the continuum would show


# Lines


@pytest.mark.parametrize(
    ("element", "energy", "kt"),
    [("O", 0.6536, 0.3), ("Ne", 1.0215, 0.5), ("Mg", 1.4723, 0.9), ("Si", 2.0056, 1.5), ("S", 2.6212, 2.5)],
)
def test_centroids_of_lyman_alpha(element, energy, kt):
    band = between(0.985 * energy, 1.015 * energy)
    flux = lines_of(element, kt)[band]
    assert np.average(CENTRE[band], weights=flux) == pytest.approx(energy, rel=2e-3)


@pytest.mark.parametrize(("kt", "low", "high"), [(2.0, 6.63, 6.69), (6.0, 6.66, 6.70)])
def test_centroid_of_iron_k_alpha(kt, low, high):
    band = between(6.35, 6.8)
    assert low < np.average(CENTRE[band], weights=lines_of("Fe", kt)[band]) < high


@pytest.mark.parametrize(
    ("element", "low", "high", "expected"),
    [
        ("O", 0.555, 0.580, 0.17),  # O VII
        ("O", 0.648, 0.659, 0.27),
        ("Ne", 1.015, 1.028, 0.50),
        ("Mg", 1.462, 1.482, 0.85),
        ("Si", 1.825, 1.880, 0.85),  # Si XIII
        ("Si", 1.995, 2.016, 1.40),
        ("S", 2.600, 2.640, 2.10),
        ("Fe", 6.600, 6.720, 5.50),  # Fe XXV
        ("Fe", 6.930, 7.000, 11.0),
    ],
)
def test_temperature_of_greatest_emissivity(element, low, high, expected):
    assert line_peak(element, low, high) == pytest.approx(expected, rel=0.15)


@pytest.mark.parametrize(
    ("element", "low", "high", "kt", "expected"),
    [
        ("Fe", 6.2, 6.8, 5.0, 1000),
        ("Si", 1.78, 1.92, 1.0, 220),
        ("Si", 1.94, 2.08, 1.5, 170),
        ("S", 2.35, 2.52, 1.5, 170),
    ],
)
def test_equivalent_widths_at_solar_abundance(element, low, high, kt, expected):
    assert expected / 1.5 < equivalent_width(element, low, high, kt) < expected * 1.5


def test_hydrogen_like_iron_overtakes_helium_like_iron():
    ratio = [
        equivalent_width("Fe", 6.85, 7.1, kt) / equivalent_width("Fe", 6.2, 6.8, kt) for kt in (3.0, 5.0, 8.0, 12.0)
    ]
    assert np.all(np.diff(ratio) > 0)
    assert ratio[0] < 0.1 and 0.1 < ratio[1] < 0.25 and 0.35 < ratio[2] < 0.8 and ratio[3] > 1.0


def test_iron_l_complex_moves_to_higher_energy():
    band = between(0.6, 1.7)
    kt = (0.4, 0.7, 1.0, 1.2, 1.5)
    centroid = [np.average(CENTRE[band], weights=lines_of("Fe", t)[band]) for t in kt]
    assert np.all(np.diff(centroid) > 0)
    np.testing.assert_allclose(centroid, [0.79, 0.85, 0.96, 1.03, 1.10], atol=0.04)


@pytest.mark.parametrize("kt", [0.6, 0.9])
def test_iron_l_dominates_at_intermediate_temperature(kt):
    band = between(0.7, 1.3)
    assert lines_of("Fe", kt)[band].sum() > 0.5 * spectrum(kt)[band].sum()


def test_oxygen_dominates_cool_plasma():
    flux = spectrum(0.2)
    oxygen = lines_of("O", 0.2)
    band = between(0.5, 0.7)
    assert oxygen[band].sum() > 0.8 * flux[band].sum()
    assert CENTRE[between(0.6, 2.0)][np.argmax(flux[between(0.6, 2.0)])] == pytest.approx(0.6536, rel=2e-3)


@pytest.mark.parametrize(("kt", "low", "high"), [(0.3, 0.85, 1.0), (1.0, 0.5, 0.85), (3.0, 0.2, 0.4), (8.0, 0.1, 0.25)])
def test_share_of_metals_in_the_energy_flux(kt, low, high):
    # At 8 keV about 0.09 of this is the bremsstrahlung of the metals' nuclei.
    band = between(0.5, 7.0)
    with_metals, without = spectrum(kt) * CENTRE, plasma(FINE, kt, 0.0) * CENTRE
    assert low < 1 - without[band].sum() / with_metals[band].sum() < high


# Ionising plasma


def test_ionising_plasma_keeps_helium_like_silicon_at_high_electron_temperature():
    ionising, equilibrium = lines_of("Si", 2.5, 0.7), lines_of("Si", 2.5)
    helium_like, hydrogen_like = between(1.80, 1.90), between(1.98, 2.03)
    assert ionising[helium_like].sum() > 5 * ionising[hydrogen_like].sum()
    assert equilibrium[helium_like].sum() < equilibrium[hydrogen_like].sum()


def test_ionising_iron_k_lies_below_the_helium_like_line():
    band = between(6.3, 6.8)
    centroid = [np.average(CENTRE[band], weights=lines_of("Fe", 4.0, t)[band]) for t in (0.3, 0.8, 1.5, 4.0)]
    assert np.all(np.diff(centroid) > 0)
    assert centroid[0] < 6.45 and centroid[-1] > 6.65


@pytest.mark.parametrize("kt", [0.2, 0.45, 0.9, 2.5, 6.0])
def test_almost_equilibrium_is_almost_that_of_equilibrium(kt):
    # One side is interpolated as a whole, the other as fractions and as rates of each ion.
    bands = np.array([0.3, 0.5, 0.7, 0.9, 1.2, 1.6, 2.1, 3.0, 4.5, 7.0])
    equilibrium, almost = plasma(bands, kt, 1.0), plasma(bands, kt, 1.0, kt)
    counted = equilibrium > 0.01 * equilibrium.sum()
    np.testing.assert_allclose(almost[counted], equilibrium[counted], rtol=0.12)


def test_ions_of_an_ionising_plasma_shine_in_their_order():
    # Silicon K moves from the neutral atom's 1.740 keV to 1.86 keV with the charge of its ions.
    band = between(1.72, 1.88)
    kt_ion = (0.08, 0.12, 0.2, 0.4, 1.0)
    centroid = [np.average(CENTRE[band], weights=lines_of("Si", 3.0, t)[band]) for t in kt_ion]
    assert np.all(np.diff(centroid) > 0)
    assert centroid[0] < 1.84 < 1.852 < centroid[-1]


def test_a_batch_is_fast():
    energy, kt = np.geomspace(0.3, 10.0, 257), np.geomspace(0.1, 12.0, 128)
    plasma(energy, kt, 1.0)  # builds the tables
    seconds = []
    for _ in range(5):
        start = time.process_time()
        plasma(energy, kt, 1.0)
        seconds.append(time.process_time() - start)
    assert min(seconds) < 0.2  # 0.03 s on one core; the margin is for a busy machine
