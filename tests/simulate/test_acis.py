"""The ACIS response from numbers: its physics, and its likeness to 24 real ARFs and RMFs."""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xlatent.core.errors import ParameterError
from xlatent.formats.ogip_response import ResponseReader
from xlatent.simulate import acis

ENERGY = np.linspace(0.3, 11.0, 1071)
MID = 0.5 * (ENERGY[:-1] + ENERGY[1:])
LINES = (0.7, 1.0, 1.5, 2.5, 4.0, 6.0)

# Name: chip and distance from the optical axis in arcmin. Chips from DETNAM or CCD_ID of ARF and RMF, 5 and 7 being
# back-illuminated; angles from RA_PNT, DEC_PNT and the source's position where it is more than 2 arcmin off. Tycho's
# regions are taken to lie on the remnant's rim; the CDF-S response is a sum over many pointings and its angle a guess.
FILES = {
    "2masx-j17085915-2153082__chandra-spec": ("BI", 0.0),
    "3c-186__9774": ("BI", 0.0),
    "3c-273__3c273": ("BI", 0.0),
    "4c19-44__obs1": ("BI", 0.0),
    "4c19-44__obs2": ("BI", 0.0),
    "4c19-44__obs3": ("BI", 0.0),
    "4c19-44__obs4": ("BI", 0.0),
    "b3-0710-439__12845": ("BI", 0.0),
    "cdfs__179": ("FI", 7.0),
    "csc__acisf01575_001n001_r0085_pha3": ("BI", 3.4),
    "csc__acisf01878_000n001_r0100_pha3": ("FI", 3.9),
    "csc__acisf04736_000n001_r0079_pha3": ("BI", 15.6),
    "csc__acisf04737_000n001_r0035_pha3": ("FI", 12.9),
    "dg-tau-ab__acisf04487_001n023_r0009_pha3": ("BI", 0.0),
    "m33__source": ("FI", 0.0),
    "ngc-1624-2-max__dash2_acisf14571_grpsnr3": ("BI", 0.0),
    "ngc4258__source_bin10": ("BI", 0.0),
    "pks-1127-145__q1127_src1": ("BI", 0.0),
    "psr-j0633-06__psrj0633": ("BI", 0.0),
    "sgr-a__magnetar_spectrum": ("BI", 0.0),
    "tycho-s-snr__good2-reg_src1": ("FI", 4.0),
    "tycho-s-snr__good2-reg_src11_grp": ("FI", 4.0),
    "tycho-s-snr__good2-reg_src4_grp": ("FI", 4.0),
    "tycho-s-snr__good2-reg_src8_grp": ("FI", 4.0),
}
UNLIKE = {
    "3c-273__3c273": "zeroth order of HETG, and an RMF for the focal plane at -110 C",
    "4c19-44__obs2": "an ARF of a few cm2 that falls as no mirror does",
    "csc__acisf04737_000n001_r0035_pha3": "as narrow as a row next to the readout, where no charge is lost in transfer",
    "m33__source": "an RMF of 2001 without correction of charge-transfer loss",
}


@dataclass
class Likeness:
    area: float
    width: float


def decimal_year(date: str) -> float:
    if not date:  # CDF-S, summed over 1999-2010, most of it in 2000, 2007 and 2010
        return 2007.0
    year, month, day = (int(part) for part in date[:10].split("-"))
    return year + (month - 1) / 12 + day / 365


def width_at_half_maximum(row: np.ndarray, chan: np.ndarray) -> float:
    """Distance between the two points, interpolated linearly, where a line's profile crosses half its maximum."""
    peak = int(np.argmax(row))
    half = 0.5 * row[peak]
    left = peak - int(np.argmax(row[peak::-1] < half))
    right = peak + int(np.argmax(row[peak:] < half))
    lo = np.interp(half, [row[left], row[left + 1]], [chan[left], chan[left + 1]])
    hi = np.interp(half, [row[right], row[right - 1]], [chan[right], chan[right - 1]])
    return float(hi - lo)


@pytest.fixture(scope="module")
def likeness(shared_data: Path) -> dict[str, Likeness]:
    folder = shared_data / "spectra"
    found = {}
    with (folder / "manifest.csv").open(newline="") as lines:
        for entry in csv.DictReader(lines):
            chip, theta = FILES[entry["name"]]
            year = decimal_year(entry["date"])
            real = ResponseReader().read(folder / entry["rmf"], folder / entry["arf"]).response
            energy = 0.5 * (real.energy_lo + real.energy_hi)
            band = (energy > 0.5) & (energy < 7.0)
            ratio = real.area[band] / acis.effective_area(energy[band], chip=chip, year=year, theta=theta)

            rows = [int(np.argmin(np.abs(energy - line))) for line in LINES]
            ours = acis.redistribution(
                real.energy_lo[rows], real.energy_hi[rows], real.chan_lo, real.chan_hi, chip=chip, year=year
            ).toarray()
            theirs = real.redistribution[rows].toarray()
            chan, size = 0.5 * (real.chan_lo + real.chan_hi), real.chan_hi - real.chan_lo
            widths = np.array([[width_at_half_maximum(row / size, chan) for row in rows] for rows in (ours, theirs)])
            found[entry["name"]] = Likeness(
                area=float(np.median(np.abs(ratio / np.median(ratio) - 1.0))),
                width=float(np.median(np.abs(widths[0] / widths[1] - 1.0))),
            )
    return found


def test_at_least_18_of_24_real_responses_agree_within_15_percent(likeness):
    assert set(likeness) == set(FILES)
    assert sum(one.area < 0.15 and one.width < 0.15 for one in likeness.values()) >= 18


@pytest.mark.parametrize("name", sorted(set(FILES) - set(UNLIKE)))
def test_agrees_with_the_real_response(likeness, name):
    assert likeness[name].area < 0.05
    assert likeness[name].width < 0.15


@pytest.mark.parametrize("chip", ["FI", "BI"])
def test_rows_of_the_redistribution_sum_to_one(chip):
    sums = acis.response(chip, 2010.0).redistribution.sum(axis=1)
    assert np.all(sums <= 1.0 + 1e-12)
    assert np.all(sums > 0.999)


def test_photons_outside_the_channels_are_lost():
    edges = np.array([5.0, 5.01])
    low = np.linspace(0.01, 5.0, 400)
    matrix = acis.redistribution(edges[:-1], edges[1:], low[:-1], low[1:], chip="BI", year=2010.0)
    assert 0.45 < matrix.sum() < 0.6


@pytest.mark.parametrize("chip", ["FI", "BI"])
@pytest.mark.parametrize("energy", [0.7, 2.5, 6.0])
def test_a_row_is_as_wide_as_fwhm_says(chip, energy):
    chan = np.arange(0.0, 9.0, 0.002)
    lo, hi = np.array([energy - 0.001]), np.array([energy + 0.001])
    row = acis.redistribution(lo, hi, chan[:-1], chan[1:], chip=chip, year=2008.0).toarray()[0]
    expected = acis.fwhm(energy, chip=chip, year=2008.0)
    assert width_at_half_maximum(row, chan[:-1]) == pytest.approx(expected, rel=0.03)


def test_a_wide_energy_bin_widens_its_row():
    chan = np.arange(0.0, 9.0, 0.005)

    def spread(half: float) -> float:
        row = acis.redistribution(
            np.array([3.0 - half]), np.array([3.0 + half]), chan[:-1], chan[1:], chip="BI", year=2008.0
        ).toarray()[0]
        return width_at_half_maximum(row, chan[:-1])

    # A uniform bin 0.2 keV wide has the variance 0.2^2 / 12.
    assert spread(0.1) ** 2 - spread(0.001) ** 2 == pytest.approx(8 * np.log(2) * 0.2**2 / 12, rel=0.05)


@pytest.mark.parametrize(("energy", "expected"), [(1.7, False), (4.0, True)])
def test_escape_peak_above_the_silicon_edge_only(energy, expected):
    chan = np.arange(0.0, 9.0, 0.01)
    lo, hi = np.array([energy - 0.005]), np.array([energy + 0.005])
    row = acis.redistribution(lo, hi, chan[:-1], chan[1:], chip="FI", year=2008.0).toarray()[0]
    where = abs(0.5 * (chan[:-1] + chan[1:]) - (4.0 - 1.739)) < 0.01
    beside = abs(0.5 * (chan[:-1] + chan[1:]) - (4.0 - 1.739 - 0.3)) < 0.01
    assert (row[where].sum() > 3 * row[beside].sum()) == expected


@pytest.mark.parametrize("chip", ["FI", "BI"])
@given(years=st.lists(st.floats(1999.6, 2026.5), min_size=2, max_size=2, unique=True).map(sorted))
def test_soft_area_falls_with_time(chip, years):
    depth = acis.contamination_depth(0.7, chip=chip, year=np.array(years))
    area = acis.effective_area(0.7, chip=chip, year=np.array(years))
    assert depth[1] > depth[0] >= 0 and area[1] < area[0]


@pytest.mark.parametrize("chip", ["FI", "BI"])
def test_hard_area_hardly_changes_with_time(chip):
    area = acis.effective_area(5.0, chip=chip, year=np.array([1999.6, 2026.0]))
    assert area[1] / area[0] == pytest.approx(1.0, abs=0.03)


@given(theta=st.floats(0.0, 20.0), further=st.floats(0.01, 5.0), energy=st.floats(0.3, 10.0))
def test_area_falls_off_axis_and_more_so_at_high_energy(theta, further, energy):
    near, far = acis.vignetting(energy, np.array([theta, theta + further]))
    assert 0 < far < near <= 1
    assert acis.vignetting(8.0, theta + further) <= acis.vignetting(1.5, theta + further)


@pytest.mark.parametrize(
    ("below", "above", "step"),
    [(1.557, 1.562, 0.03), (2.03, 2.06, 0.2), (0.532, 0.539, 0.15), (0.687, 0.694, 0.02)],
    ids=["filter Al K", "mirror Ir M5", "contaminant O K", "contaminant F K"],
)
def test_area_drops_at_absorption_edges(below, above, step):
    before, after = acis.effective_area(np.array([below, above]), chip="BI", year=2013.0)
    assert 1.0 - after / before > step


def test_silicon_edge_in_the_dead_layer_of_a_front_illuminated_chip():
    below, above = acis.effective_area(np.array([1.835, 1.845]), chip="FI", year=2000.0)
    assert above / below < 0.97


def test_contaminant_carbon_edge():
    below, above = acis.contamination_depth(np.array([0.282, 0.286]), chip="BI", year=2010.0)
    assert above > 5 * below


def test_front_illuminated_chips_are_blinder_to_soft_photons_and_get_worse():
    assert acis.effective_area(0.5, chip="FI", year=2000.0) < 0.5 * acis.effective_area(0.5, chip="BI", year=2000.0)
    early, late = acis.fwhm(6.0, chip="FI", year=np.array([2000.0, 2025.0]))
    assert 1.05 < late / early < 1.4


def test_a_batch_equals_one_at_a_time():
    year, theta = np.array([2000.0, 2012.0, 2024.0]), np.array([0.0, 3.0, 9.0])
    batch = acis.effective_area(MID, chip="BI", year=year, theta=theta)
    assert batch.shape == (3, MID.size)
    for row, one, angle in zip(batch, year, theta, strict=True):
        np.testing.assert_allclose(row, acis.effective_area(MID, chip="BI", year=one, theta=angle))
    assert acis.effective_area(MID, chip="BI", year=2005.0, theta=theta).shape == (3, MID.size)
    assert acis.effective_area(1.0, chip="BI", year=2005).shape == ()


def test_response_folds_a_flat_spectrum_to_sane_counts():
    response = acis.response("BI", 2001.0)
    flux = 1e-3 * (response.energy_hi - response.energy_lo)  # 1e-3 photons/cm2/s/keV
    rate = response.fold(flux)
    channel = 0.5 * (response.chan_lo + response.chan_hi)
    assert rate.sum() == pytest.approx(1e-3 * np.sum(response.area * 0.01), rel=1e-3)
    assert 1.5 < rate.sum() < 4.0
    assert 0.9 < channel[np.argmax(rate)] < 2.1
    assert response.first_channel == 1 and response.chan_lo.size == 1024


def test_area_scale_scales_the_area():
    np.testing.assert_allclose(acis.response("FI", area_scale=0.5).area, 0.5 * acis.response("FI").area)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"chip": "BI", "year": 1990.0}, "year"),
        ({"chip": "BI", "year": float("nan")}, "year"),
        ({"chip": "BI", "year": 2005.0, "theta": -1.0}, "theta"),
    ],
)
def test_impossible_arguments_are_refused(arguments, word):
    with pytest.raises(ParameterError, match=word):
        acis.effective_area(MID, **arguments)


def test_energy_zero_is_refused():
    with pytest.raises(ParameterError, match="above 0 keV"):
        acis.effective_area(np.array([0.0, 1.0]), chip="BI", year=2005.0)
