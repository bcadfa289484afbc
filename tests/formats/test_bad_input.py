"""Every kind of bad file gives one sentence that names it, and no other exception ever."""

import gzip
import warnings

import numpy as np
import pytest

from xlatent.core.errors import ReadError, ResponseError, XlatentError, XlatentWarning
from xlatent.formats import ogip_spectrum

from . import ogip_files as files
from .ogip_files import BOUNDS, COUNTS, ENERGY, N_CHAN, N_ENERGY, fits


def refused(path, error, *words, **keywords):
    """Read must fail with one sentence that holds these words."""
    with pytest.raises(error) as caught:
        ogip_spectrum.read(path, **keywords)
    text = str(caught.value)
    for word in words:
        assert word in text, text
    assert "\n" not in text
    assert not text.endswith(".")  # one sentence; the terminal ends it
    assert len(text) < 500
    assert caught.type is error


# ---- not a spectrum at all


def test_missing_file(tmp_path):
    refused(tmp_path / "gone.pi", ReadError, "gone.pi does not exist")


def test_folder(tmp_path):
    refused(tmp_path, ReadError, str(tmp_path), "is a folder")


def test_empty_file(tmp_path):
    (tmp_path / "a.pi").write_bytes(b"")
    refused(tmp_path / "a.pi", ReadError, "a.pi is empty")


def test_text_file(tmp_path):
    (tmp_path / "a.txt").write_text("channel counts\n1 3\n")
    refused(tmp_path / "a.txt", ReadError, "a.txt is not a FITS file", "SIMPLE", "channel")


def test_zipped_text_file(tmp_path):
    (tmp_path / "a.pi.gz").write_bytes(gzip.compress(b"channel counts\n1 3\n"))
    refused(tmp_path / "a.pi.gz", ReadError, "a.pi.gz is not a FITS file")


def test_image(tmp_path):
    fits.HDUList([fits.PrimaryHDU(np.zeros((8, 8)))]).writeto(tmp_path / "a.img")
    refused(tmp_path / "a.img", ReadError, "a.img should hold an extension SPECTRUM", "holds no table")


def test_events(tmp_path):
    events = files.table([files.column("PI", "J", [1, 2])], "EVENTS", HDUCLAS1="EVENTS")
    refused(files.save(tmp_path / "evt2.fits", events), ReadError, "EVENTS", "event list")


def test_arf_as_spectrum(tmp_path):
    refused(files.arf(tmp_path / "a.arf"), ReadError, "a.arf should hold an extension SPECTRUM", "SPECRESP")


@pytest.mark.parametrize("kept", [100, 2880, 4000, 6000])
def test_truncated(tmp_path, kept):
    path = files.pha(tmp_path / "a.pi")
    path.write_bytes(path.read_bytes()[:kept])
    refused(path, ReadError, "a.pi")


@pytest.mark.parametrize("kept", [5, 50, 400])
def test_truncated_gzip(tmp_path, kept):
    path = files.pha(tmp_path / "a.pi.tmp", zipped=True)
    path.write_bytes(path.read_bytes()[:kept])
    refused(path, ReadError, "a.pi")


def test_gzip_with_a_wrong_checksum(tmp_path):
    path = files.pha(tmp_path / "a.pi.tmp", zipped=True)
    raw = bytearray(path.read_bytes())
    raw[-6] ^= 0xFF
    path.write_bytes(bytes(raw))
    refused(path, ReadError, "cannot be read as FITS", "CRC")


# ---- a spectrum that makes no sense


def test_no_counts_column(tmp_path):
    path = files.pha(tmp_path / "a.pi", kind="SIGNAL")
    refused(path, ReadError, "a.pi[SPECTRUM] should have a column COUNTS or RATE", "CHANNEL, SIGNAL")


def test_counts_that_are_text(tmp_path):
    path = files.pha(tmp_path / "a.pi", counts=np.array(["a"] * N_CHAN), form="3A")
    refused(path, ReadError, "column COUNTS should hold one number")


@pytest.mark.parametrize(("value", "word"), [(np.nan, "finite"), (np.inf, "finite"), (-3.0, "negative")])
def test_counts_that_are_no_counts(tmp_path, value, word):
    counts = COUNTS.astype(float)
    counts[12] = value
    refused(files.pha(tmp_path / "a.pi", counts=counts, form="D"), ReadError, "a.pi[SPECTRUM]: counts must", word, "12")


def test_background_counts_that_are_no_counts(tmp_path):
    path = files.whole(tmp_path)
    files.pha(tmp_path / "src_bkg.pi", counts=np.full(N_CHAN, np.nan), form="D")
    refused(path, ReadError, "src_bkg.pi[SPECTRUM]: counts must be finite")


@pytest.mark.parametrize("exposure", [0.0, -5.0])
def test_exposure_that_is_not_positive(tmp_path, exposure):
    refused(files.pha(tmp_path / "a.pi", EXPOSURE=exposure), ReadError, "exposure must be a positive", f"{exposure:g}")


def test_no_exposure(tmp_path):
    refused(files.pha(tmp_path / "a.pi", EXPOSURE=None), ReadError, "keyword EXPOSURE", "it has none")


def test_exposure_that_is_text(tmp_path):
    refused(files.pha(tmp_path / "a.pi", EXPOSURE="long"), ReadError, "keyword EXPOSURE should be a number", "'long'")


@pytest.mark.parametrize("keyword", ["BACKSCAL", "AREASCAL"])
def test_scale_zero(tmp_path, keyword):
    refused(files.pha(tmp_path / "a.pi", **{keyword: 0.0}), ReadError, "a.pi[SPECTRUM]", "must be positive", "it is 0")


def test_channel_twice(tmp_path):
    channels = np.arange(1, N_CHAN + 1)
    channels[5] = 5
    refused(files.pha(tmp_path / "a.pi", channels=channels), ReadError, "column CHANNEL", "each channel once")


# ---- companions


@pytest.mark.parametrize("key", ["arf", "rmf", "background"])
def test_given_companion_that_does_not_exist(tmp_path, key):
    refused(files.whole(tmp_path), ReadError, "gone.fits, given as the", "does not exist", **{key: "gone.fits"})


def test_background_with_other_channels(tmp_path):
    path = files.whole(tmp_path)
    files.pha(tmp_path / "src_bkg.pi", counts=np.ones(2 * N_CHAN))
    refused(path, ResponseError, "src_bkg.pi has 128 channels", "has 64")


def test_background_that_is_a_response(tmp_path):
    path = files.whole(tmp_path)
    refused(path, ReadError, "src.arf should hold an extension SPECTRUM", background=tmp_path / "src.arf")


def test_response_with_fewer_channels(tmp_path):
    path = files.whole(tmp_path, counts=np.ones(80))
    refused(path, ResponseError, "src.pi[SPECTRUM] has 80 channels (1-80)", "src.rmf has 64 (1-64)")


def test_part_of_the_channels_outside_the_response(tmp_path):
    refused(files.whole(tmp_path, counts=np.ones(10), first=60), ResponseError, "has 10 channels (60-69)")


def test_arf_as_rmf_and_rmf_as_arf(tmp_path):
    path = files.whole(tmp_path)
    refused(
        path, ResponseError, "src.arf should hold an extension MATRIX", "looks like an ARF", rmf=tmp_path / "src.arf"
    )
    refused(
        path, ResponseError, "src.rmf should hold an extension SPECRESP", "looks like an RMF", arf=tmp_path / "src.rmf"
    )


def test_rmf_without_ebounds(tmp_path):
    path = files.whole(tmp_path)
    files.save(tmp_path / "src.rmf", files.matrix_table())
    refused(path, ResponseError, "src.rmf should hold an extension EBOUNDS", "it holds MATRIX")


def test_missing_columns_of_a_response(tmp_path):
    path = files.whole(tmp_path)
    for dropped in ("ENERG_LO", "N_GRP", "F_CHAN", "MATRIX"):
        hdu = files.matrix_table(fixed=True)
        columns = [column for column in hdu.columns if column.name != dropped]
        files.save(
            tmp_path / "src.rmf",
            files.table(columns, "MATRIX", HDUCLAS1="RESPONSE", HDUCLAS2="RSP_MATRIX"),
            files.bounds_table(),
        )
        refused(path, ResponseError, f"src.rmf[MATRIX] should have a column {dropped}")


@pytest.mark.parametrize(
    ("area", "word"), [(np.full(N_ENERGY, -1.0), "negative"), (np.full(N_ENERGY, np.nan), "finite")]
)
def test_area_that_makes_no_sense(tmp_path, area, word):
    path = files.whole(tmp_path)
    files.arf(tmp_path / "src.arf", area=area)
    refused(path, ResponseError, "src.arf[SPECRESP]", "SPECRESP should", word)


def test_matrix_with_nan(tmp_path):
    path = files.whole(tmp_path)
    files.rmf(tmp_path / "src.rmf", np.full((N_ENERGY, N_CHAN), np.nan, dtype=np.float32))
    refused(path, ResponseError, "src.rmf", "not finite")


def test_energies_that_overlap(tmp_path):
    path = files.whole(tmp_path)
    files.rmf(tmp_path / "src.rmf", energy=np.zeros_like(ENERGY))
    files.arf(tmp_path / "src.arf", energy=np.zeros_like(ENERGY))
    refused(path, ResponseError, "src.rmf", "energy bins must ascend")


def test_matrix_that_reaches_beyond_the_channels(tmp_path):
    path = files.whole(tmp_path)
    files.save(tmp_path / "src.rmf", files.matrix_table(), files.bounds_table(bounds=BOUNDS[:41]))
    refused(path, ResponseError, "src.rmf[MATRIX]: row", "EBOUNDS has 40 channels from 1")


@pytest.mark.parametrize(("column", "word"), [("N_GRP", "N_GRP = 9"), ("N_CHAN", "matrix elements")])
def test_matrix_that_contradicts_itself(tmp_path, column, word):
    path = files.whole(tmp_path)
    hdu = files.matrix_table(np.full((N_ENERGY, N_CHAN), 0.1, dtype=np.float32)[:, :50], fixed=True)
    hdu.data[column][7] = 9 if column == "N_GRP" else 60
    files.save(tmp_path / "src.rmf", hdu, files.bounds_table())
    refused(path, ResponseError, "src.rmf[MATRIX]: row 8", word)


# ---- headers that lead nowhere


def rewrite_card(path, old, new, value):
    raw = path.read_bytes()
    at = raw.index(f"{old:<8}=".encode(), raw.index(b"XTENSION"))
    path.write_bytes(raw[:at] + f"{new:<8}= {value:>20}".ljust(80).encode() + raw[at + 80 :])


@pytest.mark.parametrize(
    ("old", "new", "value", "word"),
    [
        ("PCOUNT", "PCOUNT", -5000, "sizes"),  # astropy alone goes round for ever on this one and the next
        ("GCOUNT", "GCOUNT", -200, "sizes"),
        ("SPARE", "THEAP", -8, "sizes"),
        ("TFIELDS", "TFIELDS", 10**9, "sizes"),
        ("NAXIS1", "NAXIS1", 4, "columns need 8 bytes a row"),
        ("NAXIS2", "NAXIS2", 10**15, "the file ends"),
    ],
)
def test_impossible_sizes(tmp_path, old, new, value, word):
    path = files.pha(tmp_path / "a.pi", SPARE=1)
    rewrite_card(path, old, new, value)
    refused(path, ReadError, "a.pi[SPECTRUM] cannot be read as FITS", word)


def test_a_repeated_size_is_passed_over(tmp_path):
    """The first one counts; astropy alone takes the last one and goes round for ever."""
    path = files.pha(tmp_path / "a.pi", SPARE=1)
    rewrite_card(path, "SPARE", "PCOUNT", -5800)
    assert ogip_spectrum.read(path).counts.sum() == COUNTS.sum()


@pytest.mark.parametrize("tail", [b"", b"\0" * 100, b"junk" * 2000])
def test_last_block_may_be_short_or_followed_by_anything(tmp_path, tail):
    path = files.pha(tmp_path / "a.pi")
    whole = path.read_bytes()
    path.write_bytes(whole + tail if tail else whole[: -2880 + 8 * N_CHAN])
    assert ogip_spectrum.read(path).counts.sum() == COUNTS.sum()


# ---- anything at all


def mutate(raw, rng):
    """Cut a file short, flip bits in it, overwrite a stretch with noise, or change characters of its headers."""
    raw = bytearray(raw)
    kind = rng.integers(5)
    if kind == 0:
        return bytes(raw[: rng.integers(len(raw))])
    if kind == 1:
        for at in rng.integers(len(raw), size=rng.integers(1, 40)):
            raw[at] ^= 1 << int(rng.integers(8))
    elif kind == 2:
        start, length = int(rng.integers(len(raw))), int(rng.integers(1, 3000))
        raw[start : start + length] = rng.bytes(len(raw[start : start + length]))
    elif kind == 3:
        for at in 2880 + rng.integers(5760, size=rng.integers(1, 10)):
            raw[at] = int(rng.integers(32, 127))
    else:
        digits = [at for at in range(min(len(raw), 8640)) if 48 <= raw[at] < 58]
        for at in rng.choice(digits or [0], size=3):
            raw[at] = ord(str(rng.integers(10)))
    return bytes(raw)


@pytest.mark.parametrize("seed", range(100))
def test_mutated_files_are_read_or_refused_in_words(tmp_path, seed):
    rng = np.random.default_rng(seed)
    path = files.whole(tmp_path)
    target = tmp_path / str(rng.choice(["src.pi", "src.rmf", "src.arf", "src_bkg.pi"], p=[0.3, 0.5, 0.1, 0.1]))
    raw = mutate(target.read_bytes(), rng)
    target.write_bytes(gzip.compress(raw) if seed % 4 == 0 else raw)
    if seed % 8 == 0:
        target.write_bytes(mutate(target.read_bytes() + bytes(8640), rng))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", XlatentWarning)  # all other warnings stay errors
        try:
            spectra = ogip_spectrum.read_spectra(path)
        except XlatentError as error:
            assert "\n" not in str(error)
        else:
            assert all(np.isfinite(spectrum.counts).all() for spectrum in spectra)
            assert all(repr(spectrum) for spectrum in spectra)
