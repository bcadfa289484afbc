"""What the OGIP reader makes of every shape that PHA, ARF and RMF files come in, and what the writer makes of those."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array

from xlatent.core.errors import ParameterError, ReadError, ResponseError, WriteError, XlatentWarning
from xlatent.core.spectrum import Response, Spectrum
from xlatent.formats import ogip_spectrum, ogip_write

from . import ogip_files as files
from .ogip_files import BOUNDS, COUNTS, ENERGY, N_CHAN, N_ENERGY


def dense(spectrum):
    return spectrum.response.redistribution.toarray()


# ---- files, names, extensions


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("suffix", [".pi", ".pi.gz"])
def test_compression_is_told_from_the_content_not_the_name(tmp_path, suffix, zipped):
    path = files.pha(tmp_path / f"a{suffix}.tmp", zipped=zipped).rename(tmp_path / f"a{suffix}")
    spectrum = ogip_spectrum.read(path)
    assert np.array_equal(spectrum.counts, COUNTS)
    assert spectrum.name == "a"
    assert spectrum.exposure == 1000.0


def test_whole_set_is_found_by_header(tmp_path):
    spectrum = ogip_spectrum.read(
        files.whole(tmp_path, OBJECT="Vega", OBS_ID="7", OBI_NUM=1, REGIONID="0085", RA=1.5, DEC=-2.5)
    )
    assert spectrum.background.counts.sum() == 3 * COUNTS.sum()
    assert spectrum.background_scale == pytest.approx(0.2)
    np.testing.assert_allclose(spectrum.response.area, 100 + np.arange(N_ENERGY))
    np.testing.assert_array_equal(spectrum.response.chan_lo, BOUNDS[:-1])
    np.testing.assert_array_equal(spectrum.response.energy_hi, ENERGY[1:])
    expected = {
        "object": "Vega",
        "obsid": "7",
        "obi": 1,
        "region_id": "0085",
        "ra": 1.5,
        "dec": -2.5,
        "telescope": "TEST",
    }
    assert expected.items() <= spectrum.meta.items()
    assert "warnings" not in spectrum.meta
    assert "date" not in spectrum.meta


@pytest.mark.parametrize("companion", ["src.arf", "src.rmf", "src_bkg.pi"])
def test_companions_are_found_with_gz_added(tmp_path, companion):
    path = files.whole(tmp_path)
    (tmp_path / companion).rename(tmp_path / f"{companion}.gz")
    spectrum = ogip_spectrum.read(path)
    assert spectrum.background is not None
    assert spectrum.response is not None


def test_companions_are_found_with_gz_taken_away_and_without_folder(tmp_path):
    path = files.whole(
        tmp_path, ANCRFILE="src.arf.gz", RESPFILE="/gone/src.rmf", BACKFILE="../bkg/src_bkg.pi[SPECTRUM]"
    )
    spectrum = ogip_spectrum.read(path)
    assert spectrum.background is not None
    assert Path(spectrum.response.meta["arf"]) == tmp_path / "src.arf"


@pytest.mark.parametrize("nothing", ["none", "NONE", " None ", "   "])
def test_none_is_none(tmp_path, nothing):
    spectrum = ogip_spectrum.read(files.whole(tmp_path, RESPFILE=nothing, ANCRFILE=nothing, BACKFILE=nothing))
    assert spectrum.response is None
    assert spectrum.background is None


def test_dead_path_is_a_warning_that_names_it(tmp_path):
    path = files.whole(tmp_path, BACKFILE="gone_bkg.pi")
    (tmp_path / "src_bkg.pi").unlink()
    with pytest.warns(XlatentWarning, match=r"src\.pi names gone_bkg\.pi as its background \(BACKFILE\)"):
        spectrum = ogip_spectrum.read(path)
    assert spectrum.background is None
    assert len(spectrum.meta["warnings"]) == 1


def test_a_response_of_another_telescope_is_pointed_out(tmp_path):
    path = files.whole(tmp_path, TELESCOP="OTHER")
    files.rmf(tmp_path / "src.rmf", TELESCOP="TEST")
    with pytest.warns(XlatentWarning, match=r"src\.pi is a spectrum of OTHER and its response .*src\.rmf one of TEST"):
        ogip_spectrum.read(path)


def test_given_files_win_over_the_header(tmp_path):
    path = files.whole(tmp_path, BACKFILE="gone.pi", ANCRFILE="gone.arf")
    other = files.arf(tmp_path / "other.arf", area=np.full(N_ENERGY, 7.0))
    spectrum = ogip_spectrum.read(path, arf=other, background="none", name="mine")
    assert np.all(spectrum.response.area == 7)
    assert spectrum.background is None
    assert spectrum.name == "mine"


def test_extensions_are_chosen_by_class_then_by_name(tmp_path):
    decoy = files.spectrum_table(COUNTS * 0, name="SPECTRUM", HDUCLAS1="REGION", HDUCLAS2=None)
    source = files.spectrum_table(name="PHA_DATA")
    assert ogip_spectrum.read(files.save(tmp_path / "a.pi", decoy, source)).counts.sum() == COUNTS.sum()
    by_name = files.spectrum_table(HDUCLAS1=None, HDUCLAS2=None)
    assert ogip_spectrum.read(files.save(tmp_path / "b.pi", by_name)).counts.sum() == COUNTS.sum()


@pytest.mark.parametrize("hduclas", [True, False])
@pytest.mark.parametrize("name", ["MATRIX", "SPECRESP MATRIX", "RSP_MATRIX", "AXAF_RMF"])
def test_matrix_extension_names(tmp_path, name, hduclas):
    classes = {} if hduclas else {"HDUCLAS1": None, "HDUCLAS2": None, "HDUCLAS3": None}
    path = files.whole(tmp_path)
    files.rmf(tmp_path / "src.rmf", name=name, **classes)
    np.testing.assert_array_equal(dense(ogip_spectrum.read(path)), files.matrix())


def test_extensions_in_either_order(tmp_path):
    path = files.whole(tmp_path)
    files.save(tmp_path / "src.rmf", files.bounds_table(), files.matrix_table())
    np.testing.assert_array_equal(dense(ogip_spectrum.read(path)), files.matrix())


# ---- backgrounds


def csc(path, bkg_counts=COUNTS * 2, **keywords):
    return files.save(
        path,
        files.spectrum_table(BACKFILE=path.name, BACKSCAL=1.0, **keywords),
        files.spectrum_table(bkg_counts, HDUCLAS2="BKG", BACKFILE="none", BACKSCAL=8.0),
    )


def test_background_in_the_same_file_is_not_the_source(tmp_path):
    spectrum = ogip_spectrum.read(csc(tmp_path / "acisf1_pha3.fits"))
    assert spectrum.counts.sum() == COUNTS.sum()
    assert spectrum.background.counts.sum() == 2 * COUNTS.sum()
    assert spectrum.background_scale == 1 / 8


def test_background_in_the_same_file_survives_renaming_and_a_manifest(tmp_path):
    path = csc(tmp_path / "acisf1_pha3.fits").rename(tmp_path / "renamed.fits")
    assert ogip_spectrum.read(path).background_scale == 1 / 8
    assert ogip_spectrum.read(path, background=path).background_scale == 1 / 8


def test_a_source_is_never_its_own_background(tmp_path):
    path = files.pha(tmp_path / "a.pi", BACKFILE="a.pi")
    with pytest.warns(XlatentWarning, match="named as its own background"):
        assert ogip_spectrum.read(path).background is None
    with pytest.raises(ReadError, match="named as its own background"):
        ogip_spectrum.read(path, background=path)


def test_background_counts_need_not_be_whole(tmp_path):
    path = files.whole(tmp_path)
    files.pha(tmp_path / "src_bkg.pi", counts=COUNTS + 0.25, form="D")
    np.testing.assert_array_equal(ogip_spectrum.read(path).background.counts, COUNTS + 0.25)


def test_background_file_of_class_bkg_can_be_read_alone(tmp_path):
    assert ogip_spectrum.read(files.pha(tmp_path / "b.pi", HDUCLAS2="BKG")).counts.sum() == COUNTS.sum()


# ---- scales, flags, rates


def test_missing_scales_are_one_and_columns_beat_keywords(tmp_path):
    plain = ogip_spectrum.read(files.pha(tmp_path / "a.pi"))
    assert (plain.backscale, plain.areascale, plain.quality, plain.grouping) == (1.0, 1.0, None, None)
    back, area = np.linspace(1, 2, N_CHAN), np.linspace(0.5, 1, N_CHAN)
    extra = [files.column("BACKSCAL", "D", back), files.column("AREASCAL", "D", area)]
    spectrum = ogip_spectrum.read(files.pha(tmp_path / "b.pi", extra=extra, BACKSCAL=9.0, AREASCAL=9.0))
    np.testing.assert_array_equal(spectrum.backscale, back)
    np.testing.assert_array_equal(spectrum.areascale, area)


def test_exposure_column_that_varies_goes_into_areascale(tmp_path):
    seconds = np.linspace(500, 1000, N_CHAN)
    path = files.pha(tmp_path / "a.pi", extra=[files.column("EXPOSURE", "D", seconds)], AREASCAL=0.5)
    spectrum = ogip_spectrum.read(path)
    assert spectrum.exposure == 1000
    np.testing.assert_allclose(spectrum.exposure * spectrum.areascale, 0.5 * seconds)


def test_quality_1_and_5_are_dropped_and_2_kept(tmp_path):
    quality = np.arange(N_CHAN) % 6
    grouping = np.where(np.arange(N_CHAN) % 4, -1, 1)
    extra = [files.column("QUALITY", "I", quality), files.column("GROUPING", "I", grouping)]
    spectrum = ogip_spectrum.read(files.pha(tmp_path / "a.pi", extra=extra))
    np.testing.assert_array_equal(spectrum.good, (quality != 1) & (quality != 5))
    np.testing.assert_array_equal(spectrum.grouping, grouping)
    np.testing.assert_array_equal(spectrum.counts, COUNTS)


def test_quality_keyword_holds_for_all_channels(tmp_path):
    assert not ogip_spectrum.read(files.pha(tmp_path / "a.pi", QUALITY=5)).good.any()


def test_rate_times_exposure_is_counts(tmp_path):
    path = files.pha(tmp_path / "a.pi", counts=COUNTS / 1000.0, kind="RATE", form="D", HDUCLAS3="RATE")
    np.testing.assert_allclose(ogip_spectrum.read(path).counts, COUNTS, rtol=1e-14)


def test_scaled_integer_columns(tmp_path):
    columns = [
        files.column("CHANNEL", "J", np.arange(1, N_CHAN + 1)),
        files.fits.Column("COUNTS", "I", bzero=32768, array=np.full(N_CHAN, 40000, dtype=np.uint16)),
    ]
    path = files.save(tmp_path / "a.pi", files.table(columns, "SPECTRUM", HDUCLAS1="SPECTRUM", EXPOSURE=1.0))
    assert np.all(ogip_spectrum.read(path).counts == 40000)


def test_channels_out_of_order_are_sorted(tmp_path):
    order = np.random.default_rng(1).permutation(N_CHAN)
    path = files.pha(tmp_path / "a.pi", counts=COUNTS[order], channels=order + 1)
    spectrum = ogip_spectrum.read(path)
    np.testing.assert_array_equal(spectrum.counts, COUNTS)
    np.testing.assert_array_equal(spectrum.channels, np.arange(1, N_CHAN + 1))


def test_net_spectrum_is_pointed_out(tmp_path):
    with pytest.warns(XlatentWarning, match="background was subtracted"):
        ogip_spectrum.read(files.pha(tmp_path / "a.pi", HDUCLAS2="NET"))


# ---- type II


def test_type_two_gives_one_spectrum_a_row(tmp_path):
    files.whole(tmp_path)
    spectra = ogip_spectrum.read_spectra(
        files.type_two(tmp_path / "grating.pha", ANCRFILE="src.arf", BACKFILE="src_bkg.pi"), name="g"
    )
    assert [spectrum.name for spectrum in spectra] == ["g_3", "g_5", "g_9"]
    assert [spectrum.exposure for spectrum in spectra] == [10, 20, 30]
    np.testing.assert_array_equal(spectra[1].counts, COUNTS + 1)
    assert spectra[0].good.sum() == N_CHAN // 2
    assert spectra[0].response is spectra[1].response
    assert spectra[0].background_scale == pytest.approx(10 / 1000 / 0.5)


def test_one_row_of_type_two(tmp_path):
    files.whole(tmp_path)
    path = files.type_two(tmp_path / "grating.pha", ANCRFILE="src.arf", BACKFILE="src_bkg.pi")
    spectrum = ogip_spectrum.read(path, row=1)
    assert (spectrum.name, spectrum.exposure) == ("grating_5", 20)
    np.testing.assert_array_equal(spectrum.counts, COUNTS + 1)
    with pytest.raises(ReadError, match=r"grating\.pha holds 3 spectra .* give row=0 to row=2, or .*read_all"):
        ogip_spectrum.read(path)
    for row in (-1, 3):
        with pytest.raises(ParameterError, match=rf"row should be 0 to 2 .*, and it is {row}"):
            ogip_spectrum.read(path, row=row)


def test_a_file_of_one_spectrum_has_row_0_alone(tmp_path):
    path = files.pha(tmp_path / "a.pi")
    assert ogip_spectrum.read(path, row=0).name == "a"
    with pytest.raises(ParameterError, match="row should be 0 to 0"):
        ogip_spectrum.read(path, row=1)


# ---- start of the observation


@pytest.mark.parametrize(
    ("keywords", "mjd"),
    [
        ({"MJD-OBS": 55773.25, "DATE-OBS": "2012-07-01"}, 55773.25),
        ({"MJD-OBS": 0.0, "DATE-OBS": "2012-07-01T12:00:00"}, 56109.5),
        ({"DATE-OBS": "2012-07-01", "TIME-OBS": "06:00:00"}, 56109.25),
        ({"DATE-OBS": "unknown", "MJDREFI": 50814, "MJDREFF": 0.5, "TSTART": 86400.0}, 50815.5),
        ({"MJDREF": 50814.0, "TSTART": 43200.0, "TIMEZERO": 43200.0, "TIMEUNIT": "s"}, 50815.0),
        ({"MJDREF": 50814.0, "TSTART": 1.0, "TIMEUNIT": "d"}, None),
        ({"MJDREF": 50814.0}, None),
        ({"MJD-OBS": "soon"}, None),
        ({}, None),
    ],
)
def test_start_of_the_observation(tmp_path, keywords, mjd):
    spectrum = ogip_spectrum.read(files.pha(tmp_path / "a.pi", **keywords))
    assert spectrum.meta.get("mjd") == mjd


def test_start_of_real_observations(shared_data):
    for folder, file, mjd in (
        ("asca-sis0__he-1104-1805", "s0_mar24_bin.pha", 50234.189988),
        ("swift-xrt__2m02594633", "target_sr.pha", 57389.675847),
    ):
        spectrum = ogip_spectrum.read(shared_data / "other-missions" / folder / file, background="none")
        assert spectrum.meta["mjd"] == pytest.approx(mjd, abs=1e-6)


# ---- response matrices


def many_groups():
    """A matrix with up to 31 groups in a row, an empty row, and row sums far from 1."""
    rows = files.matrix(lost=0.4)
    rows[3] = 0
    rows[5] = np.where(np.arange(N_CHAN) % 2, 0.01, 0)
    rows[5, 62:] = 0
    return rows.astype(np.float32)


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("fixed", [True, False])
def test_rows_come_out_as_they_are(tmp_path, fixed, first):
    rows = many_groups()
    path = files.whole(tmp_path)
    files.rmf(tmp_path / "src.rmf", rows, fixed=fixed, first=first)
    spectrum = ogip_spectrum.read(path)
    assert len(files.groups(rows[5], 0)[0]) == 31
    np.testing.assert_array_equal(dense(spectrum), rows)
    assert spectrum.response.redistribution.sum(axis=1)[8] == pytest.approx(0.6, rel=1e-6)
    assert spectrum.response.first_channel == first


def test_one_group_in_scalar_columns(tmp_path):
    """Swift's shape: F_CHAN and N_CHAN are plain numbers and every row of MATRIX is full."""
    rows = np.full((N_ENERGY, N_CHAN), 0.01, dtype=np.float32)
    path = files.whole(tmp_path)
    files.rmf(tmp_path / "src.rmf", rows, fixed=True, first=0)
    np.testing.assert_array_equal(dense(ogip_spectrum.read(path)), rows)


def test_unsigned_columns_of_variable_length(tmp_path):
    """Astropy alone would apply TZERO to the first row only."""
    path = files.whole(tmp_path)
    hdu = files.matrix_table(first=1 - 32768)
    hdu.header["TLMIN4"] = 1
    hdu.header["TZERO4"] = 32768
    files.save(tmp_path / "src.rmf", hdu, files.bounds_table())
    np.testing.assert_array_equal(dense(ogip_spectrum.read(path)), files.matrix())


@pytest.mark.parametrize("first", [0, 1])
def test_without_tlmin_ebounds_says_the_first_channel(tmp_path, first):
    rows = many_groups()
    rows[0, 0] = 0.5  # the first channel is used, so nothing is in doubt
    path = files.whole(tmp_path)
    files.rmf(tmp_path / "src.rmf", rows, first=first, tlmin=False)
    np.testing.assert_array_equal(dense(ogip_spectrum.read(path)), rows)


def test_without_tlmin_and_with_a_doubt_there_is_a_warning(tmp_path):
    rows = many_groups()
    rows[:, 0] = 0
    path = files.whole(tmp_path)
    files.rmf(tmp_path / "src.rmf", rows, first=0, tlmin=False)
    with pytest.warns(XlatentWarning, match="no TLMIN for F_CHAN"):
        np.testing.assert_array_equal(dense(ogip_spectrum.read(path)), rows)


@pytest.mark.parametrize("step", [0, 16384])
def test_ebounds_channels_that_are_zero_or_scrambled(tmp_path, step):
    """3C 186's are 0, 16384, -32768 and -16384 over and over: four-byte numbers in a two-byte column."""
    path = files.whole(tmp_path)
    channels = (np.arange(N_CHAN) % 4 - 2) * step
    files.save(tmp_path / "src.rmf", files.matrix_table(), files.bounds_table(channels=channels))
    spectrum = ogip_spectrum.read(path)
    np.testing.assert_array_equal(spectrum.response.chan_lo, BOUNDS[:-1])
    np.testing.assert_array_equal(dense(spectrum), files.matrix())


def test_ebounds_out_of_order_are_sorted(tmp_path):
    path = files.whole(tmp_path)
    hdu = files.bounds_table()
    order = np.random.default_rng(2).permutation(N_CHAN)
    columns = [files.fits.Column(c.name, c.format, array=np.asarray(hdu.data[c.name])[order]) for c in hdu.columns]
    bounds = files.table(columns, "EBOUNDS", HDUCLAS1="RESPONSE", HDUCLAS2="EBOUNDS")
    files.save(tmp_path / "src.rmf", files.matrix_table(), bounds)
    np.testing.assert_array_equal(ogip_spectrum.read(path).response.chan_lo, BOUNDS[:-1])


def test_energy_zero_becomes_small_and_positive(tmp_path):
    energy = ENERGY.copy()
    energy[0] = 0
    path = files.whole(tmp_path)
    files.rmf(tmp_path / "src.rmf", energy=energy)
    files.arf(tmp_path / "src.arf", energy=energy)
    response = ogip_spectrum.read(path).response
    assert 0 < response.energy_lo[0] < 1e-6
    assert response.area[0] == 100


def test_several_matrices_on_one_grid_are_added(tmp_path):
    path = files.whole(tmp_path)
    core, tail = files.matrix(lost=0.3), np.full((N_ENERGY, N_CHAN), 0.001, dtype=np.float32)
    files.save(tmp_path / "src.rmf", files.matrix_table(core), files.matrix_table(tail), files.bounds_table())
    np.testing.assert_allclose(dense(ogip_spectrum.read(path)), core.astype(float) + tail, rtol=1e-12)


def test_several_matrices_on_different_grids_are_refused(tmp_path):
    path = files.whole(tmp_path)
    other = files.matrix_table(files.matrix(n_energy=20), energy=ENERGY[::2])
    files.save(tmp_path / "src.rmf", files.matrix_table(), other, files.bounds_table())
    with pytest.raises(ResponseError, match="2 matrices on energy grids that differ"):
        ogip_spectrum.read(path)


def test_arf_on_another_grid_is_matched_with_a_warning(tmp_path):
    path = files.whole(tmp_path)
    energy = np.linspace(0.5, 8.0, 301).astype(np.float32)
    files.arf(tmp_path / "src.arf", energy=energy, area=10 * (energy[1:] + energy[:-1]))
    with pytest.warns(XlatentWarning, match="interpolated on to the grid of the RMF"):
        response = ogip_spectrum.read(path).response
    middle = (response.energy_lo + response.energy_hi) / 2
    inside = (middle > 0.6) & (middle < 7.9)
    np.testing.assert_allclose(response.area[inside], 20 * middle[inside], rtol=1e-5)
    assert np.all(response.area[(middle < 0.5) | (middle > 8)] == 0)


def test_falling_energies_are_turned_round(tmp_path):
    path = files.whole(tmp_path)
    down = files.matrix_table()
    down.data = down.data[::-1]
    # Rows are reversed as a plain user of astropy would do it, through a new table.
    columns = [files.fits.Column(c.name, c.format, array=list(down.data[c.name])) for c in down.columns]
    hdu = files.table(columns, "MATRIX", HDUCLAS1="RESPONSE", HDUCLAS2="RSP_MATRIX", TLMIN4=1)
    files.save(tmp_path / "src.rmf", hdu, files.bounds_table())
    spectrum = ogip_spectrum.read(path)
    assert np.all(np.diff(spectrum.response.energy_lo) > 0)
    np.testing.assert_array_equal(dense(spectrum), files.matrix())
    np.testing.assert_allclose(spectrum.response.area, 100 + np.arange(N_ENERGY))


def test_rmf_without_arf_has_unit_area_and_a_warning(tmp_path):
    path = files.whole(tmp_path, ANCRFILE="none")
    with pytest.warns(XlatentWarning, match="without an ARF"):
        assert np.all(ogip_spectrum.read(path).response.area == 1)


def test_response_that_contains_the_area_needs_no_arf(tmp_path):
    path = files.whole(tmp_path, ANCRFILE="none")
    files.rmf(tmp_path / "src.rmf", 100 * files.matrix(), name="SPECRESP MATRIX", HDUCLAS3="FULL")
    response = ogip_spectrum.read(path).response
    assert np.all(response.area == 1)
    assert response.meta["area"] == "contained in the RMF"


def test_part_of_the_channels_is_matched_by_number(tmp_path):
    path = files.whole(tmp_path, counts=COUNTS[10:40], first=11)
    with pytest.warns(XlatentWarning, match="holds 30 of the 64 channels"):
        spectrum = ogip_spectrum.read(path)
    np.testing.assert_array_equal(spectrum.counts[10:40], COUNTS[10:40])
    np.testing.assert_array_equal(np.flatnonzero(spectrum.good), np.arange(10, 40))
    assert spectrum.counts.size == N_CHAN


# ---- writing


def test_reads_back_what_it_wrote(tmp_path):
    spectrum = ogip_spectrum.read(files.whole(tmp_path, **{"OBJECT": "Vega", "OBS_ID": "7", "RA": 1.5, "MJD-OBS": 5e4}))
    path = spectrum.to_ogip(tmp_path / "new" / "folder", "again")
    again = ogip_spectrum.read(path)
    assert sorted(p.name for p in path.parent.iterdir()) == ["again.arf", "again.pha", "again.rmf", "again_bkg.pha"]
    np.testing.assert_array_equal(again.counts, spectrum.counts)
    np.testing.assert_array_equal(again.background.counts, spectrum.background.counts)
    assert again.background_scale == spectrum.background_scale
    np.testing.assert_array_equal(dense(again), dense(spectrum))
    assert {key: again.meta[key] for key in ("object", "obsid", "ra")} == {"object": "Vega", "obsid": "7", "ra": 1.5}
    assert again.meta["mjd"] == 5e4
    assert again.response.first_channel == spectrum.response.first_channel


def test_writes_columns_and_fractions(tmp_path):
    flags = np.arange(N_CHAN) % 3
    scale = np.linspace(0.5, 1, N_CHAN)
    spectrum = Spectrum(COUNTS + 0.5, 10.0, backscale=scale, areascale=2.0, quality=flags, grouping=flags - 1)
    again = ogip_spectrum.read(ogip_write.write(spectrum, tmp_path, "a"))
    np.testing.assert_array_equal(again.counts, spectrum.counts)
    np.testing.assert_array_equal(again.backscale, scale)
    assert again.areascale == 2.0
    np.testing.assert_array_equal(again.quality, flags)
    np.testing.assert_array_equal(again.grouping, flags - 1)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), first=st.integers(0, 3), density=st.floats(0, 1))
def test_any_matrix_survives_writing_and_reading(tmp_path_factory, seed, first, density):
    rng = np.random.default_rng(seed)
    n_energy, n_chan = rng.integers(1, 12, 2)
    rows = np.where(rng.random((n_energy, n_chan)) < density, rng.random((n_energy, n_chan)), 0).astype(np.float32)
    edges = np.arange(1, n_energy + 2).astype(float)
    bounds = np.arange(n_chan + 1).astype(float)
    response = Response(
        edges[:-1], edges[1:], np.ones(n_energy), csr_array(rows), bounds[:-1], bounds[1:], first_channel=first
    )
    spectrum = Spectrum(rng.poisson(3, n_chan).astype(float), 5.0, response=response)
    again = ogip_spectrum.read(ogip_write.write(spectrum, tmp_path_factory.mktemp("any"), "a"))
    np.testing.assert_array_equal(dense(again), rows)
    np.testing.assert_array_equal(again.counts, spectrum.counts)
    assert again.response.first_channel == first


@pytest.mark.parametrize("name", ["", "a/b"])
def test_names_that_are_no_file_names_are_refused(tmp_path, name):
    with pytest.raises(WriteError, match="cannot name the files"):
        ogip_write.write(Spectrum(np.ones(3), 1.0), tmp_path, name)


def test_folder_that_cannot_be_made_is_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match="cannot be written to"):
        ogip_write.write(Spectrum(np.ones(3), 1.0), tmp_path / "file", "a")


@pytest.mark.sherpa
def test_sherpa_reads_what_we_wrote(tmp_path):
    pytest.importorskip("sherpa")
    io = pytest.importorskip("sherpa.astro.io")
    spectrum = ogip_spectrum.read(files.whole(tmp_path))
    path = spectrum.to_ogip(tmp_path / "new", "again")
    theirs = io.read_pha(str(path))
    np.testing.assert_array_equal(theirs.counts, spectrum.counts)
    assert theirs.get_background_scale(group=False) == pytest.approx(spectrum.background_scale)
    flux = np.linspace(1, 2, N_ENERGY)
    folded = theirs.get_rmf().apply_rmf(theirs.get_arf().apply_arf(flux))
    np.testing.assert_allclose(folded, spectrum.response.fold(flux), rtol=1e-6)
