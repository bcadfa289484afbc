"""What a spectrum says of itself: the band it covers, pile-up by counts a frame, counts that are none."""

import numpy as np
import pytest
from scipy.sparse import csr_array

from xlatent.core.spectrum import Response, Spectrum
from xlatent.core.spectrum_flags import covered_band, covers, spectrum_flags

EDGES = np.linspace(0.1, 12.1, 601)


def spectrum(area, quality=None, counts=None, **meta):
    """Channels of 20 eV that see an area which depends on energy alone."""
    mid = 0.5 * (EDGES[1:] + EDGES[:-1])
    response = Response(EDGES[:-1], EDGES[1:], area(mid), csr_array(np.eye(600)), EDGES[:-1], EDGES[1:])
    counts = np.ones(600) if counts is None else counts
    return Spectrum(counts, 1000.0, quality=quality, response=response, meta=meta)


def test_the_covered_band_is_that_of_area_and_good_channels():
    assert covered_band(spectrum(lambda e: 100.0 + e)) == (0.5, 8.0)
    rosat = covered_band(spectrum(lambda e: np.where(e < 2.4, 200.0, 0.0)))
    nustar = covered_band(spectrum(lambda e: np.where(e > 1.6, 300.0, 0.0)))
    assert rosat == pytest.approx((0.5, 2.4), abs=0.03) and nustar == pytest.approx((1.6, 8.0), abs=0.03)
    ignored = np.where((EDGES[:-1] < 1.0) | (EDGES[:-1] > 5.0), 1, 0)
    assert covered_band(spectrum(lambda e: 100.0 + 0 * e, quality=ignored)) == pytest.approx((1.0, 5.0), abs=0.03)
    assert np.isnan(covered_band(spectrum(lambda e: 100.0 + 0 * e, quality=np.ones(600, int)))).all()


def test_a_band_is_covered_but_for_a_tenth():
    assert covers((0.5, 8.0), (0.5, 7.0)) and covers((0.55, 7.0), (0.5, 7.0)) and covers((0.5, 7.4), (2.0, 8.0))
    assert (
        not covers((3.0, 8.0), (2.0, 7.0)) and not covers((0.5, 2.4), (2.0, 7.0)) and not covers((3.0, 8.0), (0.5, 2.0))
    )
    assert not covers((np.nan, np.nan), (0.5, 7.0))


@pytest.mark.parametrize(
    ("telescope", "frame", "rate", "backscale", "piled_up"),
    [
        ("CHANDRA", 3.2, 0.02, 1e-6, False),
        ("CHANDRA", 3.2, 0.05, 1e-6, True),
        ("CHANDRA", 0.4, 0.05, 1e-6, False),  # a subarray
        ("CHANDRA", 3.2, 0.05, 1e-4, False),  # an arcminute wide
        ("CHANDRA", 3.2, 0.05, 1.0, True),  # nobody set it
        ("SWIFT", 2.507, 0.3, 1e-3, False),
        ("SWIFT", 2.507, 0.8, 1e-3, True),
        ("SWIFT", 1.8e-3, 60.0, 1e-3, False),
        ("SWIFT", 1.8e-3, 150.0, 1e-3, True),
        ("NICER", 4e-8, 1e4, 1.0, False),
        ("CHANDRA", None, 10.0, 1e-6, False),  # not told
    ],
)
def test_pile_up_by_counts_a_frame(telescope, frame, rate, backscale, piled_up):
    told = {} if frame is None else {"frame_time": frame}
    counts = np.array([rate * 1e5])
    seen = Spectrum(np.rint(counts), 1e5, backscale=backscale, meta={"telescope": telescope, **told})
    assert ("piled_up" in spectrum_flags(seen)) == piled_up


def test_counts_that_are_none():
    assert spectrum_flags(Spectrum(np.array([3.0, 12.0]), 10.0)) == []
    assert spectrum_flags(Spectrum(np.array([3.0, 11.4]), 10.0)) == ["net_counts"]
    rate = np.array([0.123, 4567.8], np.float32) / np.float32(1234.5)
    whole = np.rint(np.float64(rate) * 1234.5)
    assert spectrum_flags(Spectrum(np.float64((whole / 1234.5).astype(np.float32)) * 1234.5, 1234.5)) == []
