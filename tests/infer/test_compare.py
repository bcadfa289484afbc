import numpy as np
import pytest

from xlatent.core.errors import ParameterError
from xlatent.infer.compare import compare


def test_a_linear_map_is_found():
    rng = np.random.default_rng(0)
    a = rng.standard_normal((200, 8))
    turn = np.linalg.qr(rng.standard_normal((8, 8)))[0]
    found = compare(a, a @ turn.T + 0.3)
    np.testing.assert_allclose(found.matrix, turn, atol=1e-10)
    np.testing.assert_allclose(found.offset, 0.3, atol=1e-10)
    np.testing.assert_allclose(found.r2, 1.0)
    np.testing.assert_allclose(found.r2_back, 1.0)


def test_axes_are_matched_one_to_one():
    rng = np.random.default_rng(1)
    a = rng.standard_normal((300, 3))
    b = np.column_stack([-a[:, 2], a[:, 0] + 0.5 * a[:, 2], rng.standard_normal(300)])
    found = compare(a, b)
    assert found.match.tolist() == [2, 0, 1]
    assert found.correlation[0] == pytest.approx(-1.0) and abs(found.correlation[2]) < 0.2
    assert compare(a[:, :2], b).match.tolist().count(-1) == 1


def test_noise_explains_nothing():
    # Fitted and judged on the same spectra, R² of noise would be well above zero.
    rng = np.random.default_rng(2)
    found = compare(rng.standard_normal((60, 8)), rng.standard_normal((60, 8)))
    assert found.r2.mean() < 0.0


def test_too_few_spectra_are_refused():
    with pytest.raises(ParameterError, match="50 or more spectra, found 49"):
        compare(np.zeros((49, 8)), np.zeros((49, 8)))
