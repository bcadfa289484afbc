"""Nearest sources in z: the search against brute force, and what errors do to a distance."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xlatent.core.errors import ParameterError, ReadError, WriteError
from xlatent.science import neighbours
from xlatent.science.neighbours import Index


def posteriors(n, seed, counts=(1.3, 4.0)):
    """Posteriors of n sources of a clumpy population, whose data differ in how much they say."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(7).standard_normal((12, 8)) * 0.7
    z = centres[rng.integers(0, 12, n)] + 0.3 * rng.standard_normal((n, 8))
    information = 10 ** rng.uniform(*counts, (n, 1)) * np.array([3, 1, 0.3, 0.1, 0.05, 0.03, 0.02, 0.01])
    axes = np.linalg.qr(np.eye(8) + 0.15 * rng.standard_normal((n, 8, 8)))[0]
    slopes = np.sqrt(information)[:, :, None] * axes.transpose(0, 2, 1)
    values = np.einsum("nij,nj->ni", slopes, z) + rng.standard_normal((n, 8))
    covariance = np.linalg.inv(slopes.transpose(0, 2, 1) @ slopes + np.eye(8))
    return np.einsum("nij,nkj,nk->ni", covariance, slopes, values), covariance


@pytest.fixture(scope="module", autouse=True)
def small():
    """Blocks so small that a search of 20,000 rows chooses among groups, blocks and rows as it does among millions."""
    with pytest.MonkeyPatch.context() as patch:
        for name, size in {"_BLOCK": 32, "_GROUP": 8, "_CANDIDATES": 1024}.items():
            patch.setattr(neighbours, name, size)
        patch.setattr(neighbours, "_GROUPS", (30,) * 9)
        patch.setattr(neighbours, "_BLOCKS", (160,) * 9)
        yield


@pytest.fixture(scope="module")
def index(small):
    return Index.build(*posteriors(20_000, 1))


@pytest.mark.parametrize("counts", [(1.0, 2.0), (2.5, 4.0)])
def test_the_search_finds_what_brute_force_finds(index, counts):
    z, covariance = posteriors(20, 2, counts)
    found = [
        len(set(index.search(a, b).rows) & set(index.search(a, b, exact=True).rows))
        for a, b in zip(z, covariance, strict=True)
    ]
    assert np.mean(found) >= 9.8


def test_elimination_is_what_lapack_finds():
    rng = np.random.default_rng(0)
    root, left = rng.standard_normal((50, 5, 5)), rng.standard_normal((50, 5))
    matrix = root @ root.transpose(0, 2, 1) + np.eye(5)
    distance, size = neighbours._eliminate(matrix.transpose(1, 2, 0).copy(), left.T.copy())
    np.testing.assert_allclose(size, np.linalg.slogdet(matrix)[1], rtol=1e-10)
    np.testing.assert_allclose(distance, np.sum(left * np.linalg.solve(matrix, left[..., None])[..., 0], axis=1))


def test_a_search_reads_a_fifth_of_the_blocks_and_judges_a_twentieth_of_the_rows(index, monkeypatch):
    judged = []
    whole = neighbours._Query.log_density
    monkeypatch.setattr(
        neighbours._Query,
        "log_density",
        lambda self, z, *others: judged.append(z.shape[1]) or whole(self, z, *others),
    )
    z, covariance = posteriors(1, 2)
    index.search(z[0], covariance[0])
    assert judged == [79, 240, 1024, 1]  # groups, blocks of 30 of them, rows of 160 of these, and the prior


def test_brute_force_ranks_by_the_formula():
    z, covariance = posteriors(200, 3, (3.5, 4.0))
    # Of well measured queries the prior says little: ln N(z_q - z_i; 0, C_q + C_i) is what it comes to.
    z_q, c_q = z[0], np.eye(8) * 1e-4
    both = c_q + covariance
    move = z_q - z
    expected = -0.5 * np.einsum("ni,nij,nj->n", move, np.linalg.inv(both), move) - 0.5 * np.linalg.slogdet(both)[1]
    found = Index.build(z, covariance).search(z_q, c_q, 10, exact=True)
    assert list(found.rows[:5]) == list(np.argsort(-expected)[:5])
    distance = np.sqrt(np.einsum("ni,nij,nj->n", move, np.linalg.inv(both), move))
    np.testing.assert_allclose(found.distance, distance[found.rows], rtol=1e-4, atol=1e-4)


def test_a_source_of_which_nothing_is_known_is_near_nothing():
    z = np.zeros((3, 8))
    z[0, 0], z[1, 0] = 1.0, -1.0
    covariance = np.stack([np.eye(8) * 0.01, np.eye(8) * 0.01, np.eye(8)])
    found = Index.build(z, covariance).search(z[0], np.eye(8) * 0.01, 3)
    assert list(found.rows) == [0, 2, 1]
    assert found.log_odds[0] > 5 and abs(found.log_odds[1]) < 3 and found.log_odds[2] < -50
    # To a query that says nothing all are alike.
    vague = Index.build(z, covariance).search(np.zeros(8), np.eye(8), 3)
    np.testing.assert_allclose(vague.log_odds, 0.0, atol=0.01)


def test_an_index_comes_back_from_disk_as_it_was(index, tmp_path):
    folder = index.save(tmp_path / "index")
    again = Index.load(folder)
    z, covariance = posteriors(1, 4)
    before, after = index.search(z[0], covariance[0]), again.search(z[0], covariance[0])
    assert np.array_equal(before.rows, after.rows) and np.array_equal(before.log_odds, after.log_odds)
    assert isinstance(again._arrays["z"], np.memmap)
    again.check(posteriors(20_000, 1)[0][:, 0], "")
    with pytest.raises(ParameterError, match="another table"):
        again.check(posteriors(20_000, 5)[0][:, 0], "")
    with pytest.raises(ParameterError, match="another model"):
        again.check(posteriors(20_000, 1)[0][:, 0], "other")
    with pytest.raises(WriteError, match="there already"):
        index.save(folder)
    (folder / "z.npy").write_bytes(b"damaged")
    with pytest.raises(ReadError, match="not an index"):
        Index.load(folder)


@settings(max_examples=15)
@given(st.integers(1, 40), st.integers(1, 50), st.integers(0, 100))
def test_small_tables_give_every_row_they_have(n, k, seed):
    z, covariance = posteriors(n, seed)
    found = Index.build(z, covariance).search(z[0], covariance[0], k)
    assert len(found.rows) == min(n, k) == len(set(found.rows))
    assert np.all(np.diff(found.log_odds) <= 0)


def test_rows_and_queries_that_are_not_finite():
    z, covariance = posteriors(50, 6)
    z[7, 3] = np.nan
    index = Index.build(z, covariance)
    assert 7 not in index.search(z[0], covariance[0], 50).rows and len(index.search(z[0], covariance[0], 50).rows) == 49
    with pytest.raises(ParameterError, match="query has no latents"):
        index.search(z[7], covariance[7])
    with pytest.raises(ParameterError, match="no row"):
        Index.build(z[7:8], covariance[7:8])
