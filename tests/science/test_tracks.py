"""Sources that move in z and sources that do not, seen by data of very different quality."""

import numpy as np
import pytest
from astropy.table import Table

from xlatent.core.absorption import cross_section
from xlatent.core.errors import ParameterError
from xlatent.core.latents import LatentTable
from xlatent.science.tracks import find_tracks, physical_directions

ENERGY = np.geomspace(0.3, 10.0, 120)


def decode(z):
    """Photons of a spectrum with slope, column and temperature along known directions, and lines in the rest."""
    shapes = [-np.log(ENERGY), -0.3 * cross_section(ENERGY), -0.2 * ENERGY]
    shapes += [0.2 * np.exp(-0.5 * ((ENERGY - centre) / 0.15) ** 2) for centre in (0.8, 1.2, 1.8, 2.5, 6.4)]
    return np.exp(-1.5 * np.log(ENERGY) + z @ np.stack(shapes))


def observed(z, seed, counts=(1.0, 4.0)):
    """Posteriors, under the unit normal prior, of linear measurements of z of every quality."""
    rng = np.random.default_rng(seed)
    n = len(z)
    information = 10 ** rng.uniform(*counts, (n, 1)) * np.array([3, 1, 0.3, 0.1, 0.05, 0.03, 0.02, 0.01])
    axes = np.linalg.qr(np.eye(8) + 0.15 * rng.standard_normal((n, 8, 8)))[0]
    slopes = np.sqrt(information)[:, :, None] * axes.transpose(0, 2, 1)
    values = np.einsum("nij,nj->ni", slopes, z) + rng.standard_normal((n, 8))
    covariance = np.linalg.inv(slopes.transpose(0, 2, 1) @ slopes + np.eye(8))
    return np.einsum("nij,nkj,nk->ni", covariance, slopes, values), covariance


def table(z, covariance, names):
    return LatentTable.from_posterior(z, covariance, {"name": [str(name) for name in names]})


@pytest.mark.parametrize(("rows", "size"), [(2, 1.0), (4, 1.8)])
def test_constant_sources_raise_no_more_alarms_than_they_may(rows, size):
    rng = np.random.default_rng(rows)
    z = np.repeat(size * rng.standard_normal((300, 8)), rows, axis=0)
    found = find_tracks(table(*observed(z, 1), np.repeat(np.arange(300), rows)))
    assert len(found) > 270
    for level in (0.2, 0.05, 0.01):
        allowed = level + 3.0 * np.sqrt(level * (1 - level) / len(found))
        assert np.mean(found["p"] < level) <= allowed
    assert np.mean(found["p"] < 0.5) > 0.15  # and it is no test that never speaks
    assert not np.any(found["q"] < 0.01)


def test_the_pull_of_the_prior_is_no_motion():
    # One source far out, seen well and badly: its posterior means differ by far more than their errors.
    z = np.zeros((2, 8))
    z[:, 0] = 4.0
    covariance = np.stack([np.eye(8) * 0.01, np.eye(8) * 0.45])
    means = np.einsum("nij,nj->ni", np.eye(8) - covariance, z)
    assert abs(means[0, 0] - means[1, 0]) > 1.7
    assert find_tracks(table(means, covariance, ["a", "a"]))["p"][0] > 0.9


def test_sources_that_move_are_found_and_their_direction_named():
    rng = np.random.default_rng(4)
    z = np.repeat(0.7 * rng.standard_normal((60, 8)), 3, axis=0)
    moves = {"hardening": (0, -1.0), "absorbing": (1, 3.0), "cooling": (2, 3.0), "heating": (2, -3.0)}
    truth = [list(moves)[i % 5] if i % 5 < 4 else "" for i in range(60)]
    for i, word in enumerate(truth):
        if word:
            axis, step = moves[word]
            z[3 * i + 1, axis] += step / 2
            z[3 * i + 2, axis] += step
    found = find_tracks(table(*observed(z, 5, (3.5, 4.5)), np.repeat(np.arange(60), 3)), decode=decode, energy=ENERGY)
    word_of = {int(row["source"]): row["direction"] for row in found}
    changed = {int(row["source"]) for row in found if row["q"] < 0.01}
    moved = {i for i in range(60) if truth[i]}
    assert moved <= changed and len(changed - moved) <= 2
    right = [word_of[i] == truth[i] for i in moved]
    assert np.mean(right) > 0.9
    hardening = found[[truth[int(row["source"])] == row["direction"] == "hardening" for row in found]]
    # A direction is found to a few per cent, see the next test.
    assert len(hardening) > 8 and np.all(hardening["explained"] > 0.7)
    assert np.median(np.abs(hardening["amount"] - 1.0)) < 0.12


def test_directions_are_those_of_the_decoder():
    found = physical_directions(decode, ENERGY, np.zeros(8))
    inside = (ENERGY > 0.5) & (ENERGY < 8)
    weight = decode(np.zeros((1, 8)))[0, inside]
    wanted = {"slope": np.log(ENERGY), "column": -cross_section(ENERGY), "temperature": -ENERGY}
    for axis, (name, change) in enumerate(wanted.items()):
        assert np.argmax(np.abs(found[name])) == axis
        made = np.log(decode(found[name][None]) / decode(np.zeros((1, 8))))[0]
        left = (made - change)[inside]
        scatter = np.cov(np.stack([left, change[inside]]), aweights=weight)
        assert scatter[0, 0] < 0.01 * scatter[1, 1]


def test_order_of_time_and_units_of_the_table():
    z = np.zeros((3, 8))
    z[1, 0] = -2.0
    means, covariance = z * 0.99, np.tile(np.eye(8) * 0.01, (3, 1, 1))
    rows = table(means, covariance, ["a", "a", "a"])
    found = find_tracks(rows, time=np.array([3.0, 1.0, 2.0]), decode=decode, energy=ENERGY)
    assert (found["first"][0], found["direction"][0]) == (1, "softening")
    found = find_tracks(rows, decode=decode, energy=ENERGY)
    assert (found["last"][0], found["direction"][0]) == (1, "hardening")
    assert found["shift"][0] == pytest.approx(1.98) and found["shift_err"][0] == pytest.approx(np.sqrt(0.02))
    assert isinstance(found, Table) and found["n"][0] == 3


def test_what_cannot_be_tested_is_said():
    z, covariance = observed(np.zeros((4, 8)), 1)
    with pytest.raises(ParameterError, match="no source has two rows"):
        find_tracks(table(z, covariance, "abcd"))
    with pytest.raises(ParameterError, match="energies"):
        find_tracks(table(z, covariance, "aabb"), decode=decode)
    z[0] = np.nan
    found = find_tracks(table(z, covariance, "aabb"))
    assert list(found["source"]) == ["b"]
