"""Shards in the Multimodal Universe's layout: counts and exposure come back out of rates and errors."""

import csv
from functools import cache

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xlatent.core.errors import ReadError, XlatentWarning
from xlatent.core.spectrum import Spectrum
from xlatent.formats import multimodal_universe as mmu
from xlatent.formats import ogip_spectrum
from xlatent.formats.inputs import read_all
from xlatent.infer.embed import load_model
from xlatent.simulate import acis
from xlatent.simulate.continuum import powerlaw

EXPOSURE, ALPHA = 31_234.5, 1 / 20


@cache
def nominal(year):
    return acis.response("BI", float(year))


def gehrels(n):
    return 1.0 + np.sqrt(n + 0.75)


def grouped(on, off, exposure=EXPOSURE, alpha=ALPHA, response=None, minimum=5):
    """Group channels of 0.5-8 keV and subtract; energies, rates, errors and the counts they hide.

    Equal to the last bits to what Sherpa 4.19 does with ignore("0.:0.5,8.0:"), subtract(), group_counts(5) and
    get_data_plot() on the spectra of REAL.
    """
    response = response or nominal(2005)
    inside = np.flatnonzero((response.chan_lo > 0.5) & (response.chan_hi < 8.0))
    starts, held = [inside[0]], 0
    for channel in inside[:-1]:
        held += on[channel]
        if held >= minimum:
            starts.append(channel + 1)
            held = 0
    starts = np.array(starts)
    last = np.append(starts[1:], inside[-1] + 1)
    n, b = (np.array([x[i:j].sum() for i, j in zip(starts, last, strict=True)]) for x in (on, off))
    lo, hi = response.chan_lo[starts], response.chan_hi[last - 1]
    time = exposure * (hi - lo)
    error = np.hypot(gehrels(n), alpha * gehrels(b)) / time
    return lo, hi, (n - alpha * b) / time, error, n, alpha * b


def write_shard(path, rows, **others):
    """Write rows of (lo, hi, rate, error) as build_parent_sample.py does: variable-length float64, names as bytes."""
    ragged = h5py.special_dtype(vlen=np.dtype("float64"))
    with h5py.File(path, "w") as shard:
        n = len(rows)
        names = [f"2CXO J12{i:02d}00.0+010203" for i in range(n)]
        shard.create_dataset("name", data=np.char.encode(names, "utf-8"))
        columns = {
            "obsid": 100 + np.arange(n),
            "obi": np.zeros(n, int),
            "region_id": 7 + np.arange(n),
            "ra": np.full(n, 180.0),
            "dec": np.full(n, 1.0),
            "gti_mjd_obs": np.full(n, 55200.0),  # 2010
            "flux_aper_b": np.full(n, 1e-13),
            "healpix": np.full(n, 3),
        } | others
        for key, values in columns.items():
            shard.create_dataset(key, data=values)
        arrays = {key: [row[i] for row in rows] for i, key in enumerate(mmu._SPECTRUM)}
        arrays["spectrum_ene"] = [0.5 * (row[0] + row[1]) for row in rows]
        for key, values in arrays.items():
            dataset = shard.create_dataset(key, (n,), dtype=ragged)
            for i, value in enumerate(values):
                dataset[i] = value
    return path


@pytest.fixture(scope="module")
def observed():
    """Counts of source and background of three power laws, 60 to 6,000 counts."""
    response = nominal(2005)
    edges = np.append(response.energy_lo, response.energy_hi[-1])
    folded = response.fold(powerlaw(edges, 1.7))
    rng = np.random.default_rng(8)
    n = folded.size
    return [
        (rng.poisson(counts * folded / folded.sum() + 0.01), rng.poisson(0.01 / ALPHA, n)) for counts in (60, 600, 6000)
    ]


def ungrouped(on, off):
    background = Spectrum(off.astype(float), EXPOSURE, backscale=1 / ALPHA)
    return Spectrum(on.astype(float), EXPOSURE, background=background, response=nominal(2010))


@pytest.fixture
def shard(tmp_path, observed):
    return write_shard(tmp_path / "001-of-001.hdf5", [grouped(on, off)[:4] for on, off in observed])


def test_counts_background_and_exposure_come_back(shard, observed):
    spectra = mmu.read(shard, nominal)
    assert len(spectra) == 3
    for spectrum, (on, off) in zip(spectra, observed, strict=True):
        lo, hi, _, _, n, b = grouped(on, off)
        assert np.array_equal(spectrum.counts, n)
        assert spectrum.exposure == pytest.approx(EXPOSURE, rel=2e-3)
        expected = spectrum.background_scale * spectrum.background.counts
        assert np.allclose(expected, b, atol=2e-3 * n.max())
        assert np.array_equal(spectrum.response.chan_lo, lo)
        assert np.array_equal(spectrum.response.chan_hi, hi)


def test_identity_and_what_was_assumed_are_in_meta(shard):
    meta = mmu.read(shard, nominal)[1].meta
    assert meta["name"] == "2CXOJ120100.0+010203_101_0_8"
    assert (meta["obsid"], meta["obi"], meta["region_id"], meta["ra"], meta["dec"]) == (101, 0, 8, 180.0, 1.0)
    assert meta["flags"] == ("nominal_response",)


def test_start_of_the_observation_is_in_meta(shard, tmp_path):
    assert mmu.read(shard, nominal)[0].meta["mjd"] == 55200.0


def test_shards_are_among_all_that_is_read(shard, observed):
    spectra = read_all([shard, shard.parent])
    assert [s.name for s in spectra] == [s.name for s in mmu.read(shard, nominal)]
    assert spectra[0].response.chan_lo.size < nominal(2010).chan_lo.size
    assert read_all(shard, spread=True)[0].response.chan_lo.size == nominal(2010).chan_lo.size


def test_year_of_the_observation_chooses_the_response(shard, tmp_path):
    years = []

    def remembered(year):
        years.append(year)
        return nominal(2005)

    mmu.read(shard, remembered)
    assert years == [2010] * 3
    with h5py.File(shard, "r+") as file:
        del file["gti_mjd_obs"]
    mmu.read(shard, remembered)
    assert years[3:] == [mmu.YEAR] * 3


def test_grouped_response_sees_every_photon_that_its_channels_see(shard):
    spectrum = mmu.read(shard, nominal)[0]
    whole = nominal(2010)
    flux = np.ones(whole.energy_lo.size)
    inside = (whole.chan_lo >= spectrum.response.chan_lo[0]) & (whole.chan_hi <= spectrum.response.chan_hi[-1])
    assert spectrum.response.fold(flux).sum() == pytest.approx(whole.fold(flux)[inside].sum(), rel=1e-12)


def test_spread_counts_keep_their_sums_and_leave_the_rest_bad(shard, observed):
    for spectrum, (on, off) in zip(mmu.read(shard, nominal, spread=True), observed, strict=True):
        lo, hi, _, _, n, _ = grouped(on, off)
        assert spectrum.counts.size == nominal(2010).chan_lo.size
        starts = np.searchsorted(spectrum.response.chan_lo, lo)
        stops = np.searchsorted(spectrum.response.chan_hi, hi, side="right")
        sums = [spectrum.counts[i:j].sum() for i, j in zip(starts, stops, strict=True)]
        assert np.allclose(sums, n)
        assert spectrum.counts[~spectrum.good].sum() == 0
        assert spectrum.good.sum() == stops[-1] - starts[0]


def test_latents_are_those_of_the_counts_before_grouping(shard, observed):
    model = load_model(threads=1)
    full = [ungrouped(*counts) for counts in observed]
    wanted, found = (model.embed(spectra).to_astropy() for spectra in (full, mmu.read(shard, nominal)))
    apart = [(found[f"z{i}"] - wanted[f"z{i}"]) / wanted[f"z{i}_err"] for i in range(8)]
    # Of one the mode may move to another of about the same posterior.
    assert np.median(np.sqrt(np.mean(np.square(apart), axis=0))) < 0.5
    assert np.all(np.abs(found["log_flux_b"] - wanted["log_flux_b"]) < 2 * wanted["log_flux_b_err"])
    # A statistic of groups is judged by what groups make one expect.
    assert np.all(np.abs(found["cstat"] - found["cstat_expected"]) < 4 * found["cstat_sigma"])


def test_paper_model_is_nearer_the_truth_with_spread_counts(shard, observed):
    """It takes a spectrum for a curve, in which grouped channels leave holes."""
    model = load_model("paper-8", threads=1)

    def colours(spectra):
        table = model.embed(spectra).to_astropy()
        return np.array([table[name] for name in ("hard_hm", "hard_hs", "hard_ms")])

    wanted = colours([ungrouped(*counts) for counts in observed])
    grouped_off, spread_off = (
        np.abs(colours(mmu.read(shard, nominal, spread=spread)) - wanted).mean() for spread in (False, True)
    )
    assert spread_off < 0.5 * grouped_off
    assert spread_off < 0.1


REAL = (
    "csc__acisf01575_001n001_r0085_pha3",
    "csc__acisf01878_000n001_r0100_pha3",
    "csc__acisf04736_000n001_r0079_pha3",
    "csc__acisf04737_000n001_r0035_pha3",
    "dg-tau-ab__acisf04487_001n023_r0009_pha3",
)


@pytest.mark.parametrize("name", REAL)
@pytest.mark.filterwarnings("ignore::xlatent.core.errors.XlatentWarning")
def test_counts_of_real_spectra_come_back(name, shared_data):
    with (shared_data / "spectra" / "manifest.csv").open() as stream:
        row = next(row for row in csv.DictReader(stream) if row["name"] == name)
    files = {key: shared_data / "spectra" / row[key] for key in ("pha", "arf", "rmf")}
    real = ogip_spectrum.read(**{("path" if key == "pha" else key): file for key, file in files.items()})
    alpha = float(real.background_scale)
    lo, hi, rate, error, n, b = grouped(real.counts, real.background.counts, real.exposure, alpha, real.response)
    found, background, exposure = mmu.recover(hi - lo, rate, error)
    assert np.array_equal(found, n)
    assert np.allclose(background, b, atol=0.1)
    assert exposure == pytest.approx(real.exposure, rel=4e-3)


channels = st.lists(st.integers(0, 40), min_size=30, max_size=200)


@settings(max_examples=30)
@given(counts=channels, exposure=st.floats(100.0, 1e6))
def test_without_background_the_recovery_is_exact(counts, exposure):
    on = np.zeros(1024)
    on[40 : 40 + len(counts)] = counts
    on[300] += 10  # at least two groups
    lo, hi, rate, error, n, _ = grouped(on, np.zeros(1024), exposure, alpha=0.0)
    found, background, time = mmu.recover(hi - lo, rate, error)
    assert time == pytest.approx(exposure, rel=1e-9)
    assert np.array_equal(found, n)
    assert np.allclose(background, 0.0, atol=1e-6 * n.max())


@settings(max_examples=30)
@given(
    counts=channels,
    off=st.integers(0, 30),
    alpha=st.floats(0.0, 0.3),
    exposure=st.floats(100.0, 1e6),
)
def test_exposure_is_never_overestimated(counts, off, alpha, exposure):
    on = np.zeros(1024)
    on[40 : 40 + len(counts)] = counts
    on[300] += 10
    lo, hi, rate, error, *_ = grouped(on, np.full(1024, off), exposure, alpha)
    assert mmu.recover(hi - lo, rate, error)[2] <= exposure * (1 + 1e-9)


def test_negative_rates_become_background_and_no_negative_counts(tmp_path):
    on = np.zeros(1024)
    on[50:150] = 1
    on[400:500:20] = 1  # few counts on a high background: net rates below zero
    row = grouped(on, np.full(1024, 3))
    assert row[2].min() < 0
    spectrum = mmu.read(write_shard(tmp_path / "a.hdf5", [row[:4]]), nominal)[0]
    assert spectrum.counts.min() >= 0
    assert np.any(spectrum.background_scale * spectrum.background.counts > spectrum.counts)


def test_rows_of_equal_length_may_be_a_plain_array(tmp_path, observed):
    """The script writes them so where all rows of a sample happen to have one length."""
    row = grouped(*observed[1])
    path = write_shard(tmp_path / "a.hdf5", [row[:4]])
    with h5py.File(path, "r+") as file:
        for i, key in enumerate(mmu._SPECTRUM):
            del file[key]
            file[key] = row[i][None]
    assert np.array_equal(mmu.read(path, nominal)[0].counts, row[4])


@pytest.mark.parametrize("key", ["name", *mmu._SPECTRUM])
def test_missing_dataset_is_named(shard, key):
    with h5py.File(shard, "r+") as file:
        del file[key]
    with pytest.raises(ReadError, match=f"should have a dataset {key}"):
        mmu.read(shard, nominal)


def test_datasets_of_different_lengths_are_refused(shard):
    with h5py.File(shard, "r+") as file:
        del file["obsid"]
        file["obsid"] = np.arange(2)
    with pytest.raises(ReadError, match=r"should be of one length.*obsid 2"):
        mmu.read(shard, nominal)


def test_row_of_an_impossible_date_is_left_out(shard):
    with h5py.File(shard, "r+") as file:
        file["gti_mjd_obs"][1] = 1e5
    with pytest.warns(XlatentWarning, match=r"row 1 .*left out.*year"):
        assert len(mmu.read(shard, nominal)) == 2


def nan_rate(row):
    row[2][0] = np.nan


def zero_error(row):
    row[3][0] = 0.0


def turned(row):
    row[0][:] = row[0][::-1].copy()


def short(row):
    row[2] = row[2][:-1]


def empty(row):
    row[:] = [np.array([])] * 4


def beyond(row):
    row[0] += 40.0
    row[1] += 40.0


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (nan_rate, "finite"),
        (zero_error, "positive"),
        (turned, "ascend"),
        (short, "one length"),
        (empty, "one length"),
        (beyond, "at least one channel"),
    ],
)
def test_bad_row_is_left_out_with_a_word_and_the_others_are_read(tmp_path, observed, spoil, said):
    rows = [[x.copy() for x in grouped(on, off)[:4]] for on, off in observed]
    spoil(rows[1])
    path = write_shard(tmp_path / "a.hdf5", rows)
    with pytest.warns(XlatentWarning, match=f"row 1 .*left out.*{said}"):
        spectra = mmu.read(path, nominal)
    assert [s.meta["obsid"] for s in spectra] == [100, 102]


@pytest.mark.parametrize("kept", [0, 7, 900, 0.3, 0.6, 0.99])
def test_file_cut_short_is_told(shard, kept):
    content = shard.read_bytes()
    shard.write_bytes(content[: int(kept * len(content)) if isinstance(kept, float) else kept])
    with pytest.raises(ReadError, match="is not a readable HDF5 file"):
        mmu.read(shard, nominal)


def test_missing_file_and_other_file_are_told(tmp_path):
    with pytest.raises(ReadError, match="no such file"):
        mmu.read(tmp_path / "none.hdf5", nominal)
    (tmp_path / "text.hdf5").write_text("no HDF5")
    with pytest.raises(ReadError, match="is not a readable HDF5 file"):
        mmu.read(tmp_path / "text.hdf5", nominal)
