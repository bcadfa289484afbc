"""The direction that sets compact objects apart, where it is known."""

import numpy as np
import pytest

from xlatent.core.errors import ParameterError, ReadError
from xlatent.science.accretion import Direction, learn_direction

CLASSES = np.array(["HMXB", "LMXB", "CV", "AGN", "YSO", "LM-STAR", "HM-STAR"])


def catalogue(n, seed, apart=2.0):
    """Compact objects are higher in z0, coronal sources and AGN on either side of them in z1; z7 nobody measures."""
    rng = np.random.default_rng(seed)
    label = CLASSES[rng.integers(0, 7, n)]
    z = 0.5 * rng.standard_normal((n, 8))
    z[:, 0] += 0.5 * apart * np.isin(label, CLASSES[:3])
    z[:, 1] += 2.0 * np.isin(label, CLASSES[4:6]) - 2.0 * (label == "AGN")
    error = np.array([0.1, 0.1, 0.2, 0.3, 0.3, 0.3, 0.5, 0.995])
    z = (z + error / np.sqrt(1 - error**2) * rng.standard_normal((n, 8))) * (1 - error**2)
    return z, np.tile(np.diag(error**2), (n, 1, 1)), label, np.arange(n)


def test_the_direction_and_its_separation_are_those_put_in():
    found = learn_direction(*catalogue(1500, 1))
    assert found.vector[0] / np.linalg.norm(found.vector) > 0.97 and found.vector[0] > 5 * found.vector_err[0]
    assert abs(found.vector[7]) < 0.1  # nobody knows it
    # Separation 0.99 of two Gaussians of about 0.5: area Φ(2 × 0.5 × .../...) by the normal model.
    from scipy.stats import norm

    expected = norm.cdf(1.0 / np.sqrt(2 * (0.25 + 0.01)))
    for name in ("AGN", "coronal"):
        assert found.auc[name] == pytest.approx(expected, abs=3.5 * found.auc_err[name])


def test_where_there_is_nothing_to_tell_apart_no_skill_is_claimed():
    z, covariance, label, source = catalogue(600, 2)
    found = learn_direction(np.random.default_rng(3).permutation(z), covariance, label, source)
    for name in ("AGN", "coronal"):
        assert abs(found.auc[name] - 0.5) < 3.5 * found.auc_err[name]


def test_rows_of_one_source_do_not_judge_themselves():
    # Each source many times over, classes at random: a fold that parted them would know its answers.
    rng = np.random.default_rng(4)
    label = np.repeat(CLASSES[rng.permutation(np.arange(70) % 7)], 20)
    source = np.repeat(np.arange(70), 20)
    z = np.repeat(rng.standard_normal((70, 8)), 20, axis=0) + 0.01 * rng.standard_normal((1400, 8))
    with pytest.raises(ParameterError, match="AGN with latents, found 10"):
        learn_direction(z, np.tile(np.eye(8) * 1e-4, (1400, 1, 1)), label, source)
    label = np.repeat(np.array(["HMXB", "AGN", "YSO"])[rng.permutation(np.arange(75) % 3)], 20)
    source, z = np.repeat(np.arange(75), 20), np.repeat(rng.standard_normal((75, 8)), 20, axis=0)
    found = learn_direction(z, np.tile(np.eye(8) * 1e-4, (1500, 1, 1)), label, source)
    assert max(found.auc.values()) < 0.85


def test_values_have_the_error_of_their_posterior():
    z, covariance, label, source = catalogue(600, 5)
    line = learn_direction(z, covariance, label, source)
    value, error = line.project(z, covariance)
    draws = np.random.default_rng(6).multivariate_normal(z[0], covariance[0], 20_000) @ line.vector + line.offset
    assert value[0] == pytest.approx(draws.mean(), abs=0.05) and error[0] == pytest.approx(draws.std(), rel=0.03)
    compact = np.isin(label, CLASSES[:3])
    assert value[compact].mean() > 0 > value[label == "AGN"].mean()
    # Half a group's width apart is the unit.
    assert np.sqrt(np.var(value[label == "AGN"]) + np.mean(error**2)) == pytest.approx(1.0, abs=0.15)


def test_a_direction_is_kept_said_and_decoded(tmp_path):
    line = learn_direction(*catalogue(400, 7), model="abc")
    again = Direction.load(line.save(tmp_path / "d.json"))
    np.testing.assert_array_equal(again.vector, line.vector)
    assert (again.offset, again.auc, again.model) == (line.offset, line.auc, "abc")
    assert line.formula().startswith(f"a = {line.vector[0]:+.3f} z0")
    values = np.array([-1.0, 2.0])
    spectra = line.decode_along(lambda z: z, values)  # a decoder that shows z itself
    np.testing.assert_allclose(spectra @ line.vector + line.offset, values)
    (tmp_path / "bad.json").write_text("{}")
    for name in ("bad.json", "absent.json"):
        with pytest.raises(ReadError, match="is not a direction"):
            Direction.load(tmp_path / name)


def test_too_few_of_a_class_or_none_at_all():
    z, covariance, label, source = catalogue(400, 8)
    with pytest.raises(ParameterError, match=r"20 or more sources of AGN .* found 2"):
        learn_direction(z, covariance, np.where((label == "AGN") & (np.cumsum(label == "AGN") > 2), "", label), source)
    z[:] = np.nan
    with pytest.raises(ParameterError, match="found 0"):
        learn_direction(z, covariance, label, source)
