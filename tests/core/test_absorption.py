import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xlatent.core.absorption import cross_section, transmission

ENERGY = np.geomspace(0.3, 10.0, 200)


def test_cross_section_by_hand():
    # Morrison & McCammon's table: at 1 keV (120.6 + 169.3 - 47.7) 1e-24 cm2.
    assert cross_section(np.array([1.0]))[0] == pytest.approx(2.422, rel=1e-6)


def test_oxygen_edge():
    below, above = cross_section(np.array([0.531, 0.533]))
    assert above / below > 1.3


@given(st.floats(0.0, 100.0), st.floats(0.0, 100.0))
def test_columns_add(a, b):
    both = transmission(ENERGY, a + b)
    np.testing.assert_allclose(both, transmission(ENERGY, a) * transmission(ENERGY, b), rtol=1e-9, atol=1e-300)


@given(st.floats(0.01, 100.0), st.floats(0.0, 1.0))
def test_partial_covering_lets_the_rest_through(nh, covering):
    passed = transmission(ENERGY, nh, covering)
    assert np.all(passed >= 1.0 - covering - 1e-12) and np.all(passed <= 1.0)


def test_batches():
    assert transmission(ENERGY, np.array([0.1, 1.0])).shape == (2, 200)
