"""The response and the background on the grid: against their definitions, and from several threads."""

import gc
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from xlatent.core.grid import ModelGrid
from xlatent.core.projection import Projector, background_mean
from xlatent.simulate import acis

GRID = ModelGrid()
ONE = np.array(1.0)


@pytest.fixture(scope="module")
def response():
    return acis.response("FI", 2004.0)


def field(response, n):
    """Responses of one redistribution, each with an area of its own."""
    return [replace(response, area=response.area * (1.0 + 0.1 * i)) for i in range(n)]


def test_both_ways_on_to_the_detector_grid_are_one(response):
    mask = (response.chan_hi > 0.5) & (response.chan_lo < 8.0)
    mask[200:230] = False
    column = np.linspace(0.2, 1.0, len(mask))
    for one in field(response, 6):  # from the fifth on the matrix is a dense one
        projector = Projector(GRID)
        for areascale in (ONE, column):
            quick = projector.project(one, mask, areascale)
            whole, area = projector.project_native(one, mask, areascale)
            for found, expected in zip(whole, quick, strict=True):
                np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(GRID.rebin(area.astype(float), one, mask), quick.on_grid, rtol=1e-4, atol=1e-4)
            folded = GRID.reference @ area
            np.testing.assert_allclose(whole.rebin(folded), whole.unit, rtol=1e-4)


def test_what_is_kept_is_found_again_and_goes_with_the_response(response):
    mask = np.ones(len(response.chan_lo), dtype=bool)
    projector, responses = Projector(GRID, capacity=3), field(response, 4)
    first = [projector.project_native(one, mask, ONE)[1] for one in responses]
    assert projector.project_native(responses[3], mask, ONE)[1] is first[3]
    assert projector.project_native(responses[0], mask, ONE)[1] is not first[0]  # the oldest makes room
    assert len(projector._kept) == 3
    del responses
    gc.collect()
    assert len(projector._kept) == 0


def test_a_redistribution_that_is_gone_is_forgotten(response):
    mask = np.ones(len(response.chan_lo), dtype=bool)
    projector = Projector(GRID)
    for _ in range(2):
        own = replace(response, redistribution=response.redistribution.copy())
        for one in field(own, 5):
            projector.project_native(one, mask, ONE)
        del own, one
        gc.collect()
        assert projector._shared == {}


def test_threads_that_share_a_projector_find_what_one_finds(response):
    mask = (response.chan_hi > 0.5) & (response.chan_lo < 8.0)
    responses = [*field(response, 12), *field(acis.response("BI", 2010.0), 12)] * 3
    alone, together = Projector(GRID), Projector(GRID, capacity=7)
    expected = [alone.project_native(one, mask, ONE) for one in responses]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda one: together.project_native(one, mask, ONE), responses))
    for (ours, area), (theirs, wanted) in zip(found, expected, strict=True):
        np.testing.assert_allclose(area, wanted, rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(ours.unit, theirs.unit, rtol=1e-12)


def test_the_expected_background_keeps_its_sum():
    rng = np.random.default_rng(0)
    for mean in (0.02, 0.5, 30.0, 400.0):
        off = rng.poisson(mean, 500).astype(float)
        found, averaged = background_mean(off)
        assert found.sum() == pytest.approx(off.sum(), rel=0.15) and found.min() >= 0
        assert found.std() <= off.std()
        assert averaged == np.clip(100.0 / off.mean(), 1.0, 35.0)
    assert found is off  # with 400 counts in each channel nothing is averaged
    assert not background_mean(np.zeros(500))[0].any()
    level, _ = background_mean(np.full(300, 3.0))
    np.testing.assert_allclose(level, 3.0)


def test_an_average_over_channels_is_as_wide_as_it_says():
    # The variance of the mean of K independent counts is 1/K of theirs.
    off = np.random.default_rng(1).poisson(10.0, 100_000).astype(float)
    found, averaged = background_mean(off)
    assert found.var() == pytest.approx(off.var() / averaged, rel=0.03)
