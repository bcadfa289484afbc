import numpy as np
import pytest

from xlatent.core.grid import ModelGrid
from xlatent.simulate import population
from xlatent.simulate.observe import Observatory

GRID = ModelGrid()


@pytest.fixture(scope="module")
def observatory():
    return Observatory(GRID, GRID.energy)


def views_of(observatory, seed, counts=1000.0, n=64):
    rng = np.random.default_rng(seed)
    photons = population.spectra(GRID.energy, population.draw(rng, n))
    return photons, observatory.observe(rng, photons, np.full(n, counts))


def test_the_same_seed_sees_the_same(observatory):
    (_, a), (_, b) = views_of(observatory, 1), views_of(observatory, 1)
    assert np.array_equal(a.counts, b.counts) and np.array_equal(a.background_counts, b.background_counts)


def test_counts_are_poisson_about_their_mean(observatory):
    _, views = views_of(observatory, 2)
    mean = views.source + views.background
    np.testing.assert_allclose(views.source.sum(axis=1), 1000.0, rtol=1e-6)
    pulls = (views.counts.sum(axis=1) - mean.sum(axis=1)) / np.sqrt(mean.sum(axis=1))
    assert abs(pulls.mean()) < 4 / np.sqrt(64) and 0.6 < pulls.std() < 1.4


def test_the_background_is_measured_without_bias(observatory):
    _, views = views_of(observatory, 3)
    seen = views.scale > 0
    expected = views.background[seen].sum(axis=1)
    error = np.sqrt(views.scale[seen] * expected)
    pulls = (views.background_counts[seen].sum(axis=1) - expected) / np.maximum(error, 1e-9)
    assert abs(pulls[expected > 1].mean()) < 0.6
    assert np.all(views.background_counts[~seen] == 0)


def test_fold_is_the_way_the_source_was_seen(observatory):
    photons, views = views_of(observatory, 4)
    folded = views.fold(photons)
    np.testing.assert_allclose(folded / folded.sum(axis=1, keepdims=True), views.source / 1000.0, rtol=1e-9)


def test_torch_sees_the_same(observatory):
    torch = pytest.importorskip("torch")
    other = Observatory(GRID, torch.as_tensor(GRID.energy))
    rng = np.random.default_rng(5)
    photons = population.spectra(GRID.energy, population.draw(rng, 16))
    ours = observatory.observe(np.random.default_rng(6), photons, np.full(16, 500.0))
    theirs = other.observe(np.random.default_rng(6), torch.as_tensor(photons), np.full(16, 500.0))
    np.testing.assert_allclose(theirs.source.numpy(), ours.source, rtol=1e-8)
    np.testing.assert_allclose(theirs.reference_counts.numpy(), ours.reference_counts, rtol=1e-8)


def test_wide_channels_hold_what_the_bins_they_span_would(observatory):
    # In one redistribution of five, bins in the middle of a channel hold its counts and the others none.
    photons, views = views_of(observatory, 7, n=512)
    empty = views.reference_counts < 1e-9 * views.reference_counts.max(axis=1, keepdims=True)
    assert 0.02 < empty.any(axis=1).mean() < 0.6
    assert np.all(views.counts[empty] == 0)
    np.testing.assert_allclose(views.source.sum(axis=1), 1000.0, rtol=1e-6)
    folded = views.fold(photons)
    np.testing.assert_allclose(folded / folded.sum(axis=1, keepdims=True), views.source / 1000.0, rtol=1e-9)
