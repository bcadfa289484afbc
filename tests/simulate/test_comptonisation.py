import numpy as np
import pytest

from xlatent.simulate.comptonisation import escaping_photons

ENERGY = np.geomspace(0.3, 10.0, 200)


@pytest.mark.parametrize("gamma", [1.2, 1.8, 3.0])
def test_index_between_seeds_and_electrons(gamma):
    # From a hundred times the seeds' energy to a hundredth of the electrons'.
    low, high = escaping_photons(np.array([0.3, 0.6]), gamma, 0.003, 100.0)
    assert np.log2(low / high) == pytest.approx(gamma, abs=0.03)


def test_seeds_are_a_blackbody_below_their_peak():
    low, high = escaping_photons(np.array([0.02, 0.04]), 4.0, 3.0, 30.0)
    assert high / low == pytest.approx(2.0, rel=0.02)  # photons per keV of Rayleigh and Jeans go with E


def test_electrons_end_the_spectrum():
    # Beyond them photons fall as E² exp(-E/kT_e), as in equilibrium, where they have stayed long enough.
    energy = np.array([5.0, 8.0])
    low, high = escaping_photons(energy, 1.05, 0.05, 1.0)
    assert np.log(high / low) == pytest.approx(2.0 * np.log(8.0 / 5.0) - 3.0, rel=0.05)


def test_one_at_one_kev_and_nothing_above_forty_electron_temperatures():
    found = escaping_photons(np.array([1.0, 85.0]), 2.0, 0.1, 2.0)
    assert found == pytest.approx([1.0, 0.0])


def test_batch_scalars_and_redshifts():
    gamma, seed, kt = np.array([1.5, 2.5]), np.array([0.1, 0.2]), np.array([50.0, 5.0])
    both = escaping_photons(ENERGY, gamma, seed, kt)
    assert both.shape == (2, 200)
    np.testing.assert_allclose(both[1], escaping_photons(ENERGY, 2.5, 0.2, 5.0), rtol=1e-12)
    shifted = escaping_photons(ENERGY * np.array([[1.0], [2.0]]), gamma, 0.1, 50.0)
    np.testing.assert_allclose(shifted[0], escaping_photons(ENERGY, 1.5, 0.1, 50.0), rtol=1e-12)
