"""Headers, columns and heaps of FITS files come out as astropy has them, and damage comes out in words."""

import gzip
import subprocess
import sys
import warnings

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from xlatent.core.errors import ReadError
from xlatent.formats import fits_table
from xlatent.formats.fits_header import Header

from . import ogip_files as files
from .ogip_files import fits

NUMBERS = {"B": "u1", "I": ">i2", "J": ">i4", "K": ">i8", "E": ">f4", "D": ">f8"}


@pytest.fixture(params=[True, False], ids=["libdeflate", "zlib"])
def inflater(request, monkeypatch):
    if not request.param:
        monkeypatch.setattr(fits_table, "_libdeflate", None)
    elif fits_table._libdeflate is None:
        pytest.skip("the package deflate is not installed")


# ---- beside astropy


def test_real_files_are_read_as_astropy_reads_them(shared_data):
    read = set()
    for path in sorted(p for folder in ("spectra", "other-missions") for p in (shared_data / folder).rglob("*")):
        if not path.is_file() or not fits_table.is_fits(path):
            continue
        ours = iter(fits_table.blocks(path))
        with warnings.catch_warnings(), fits.open(path) as hdus:
            warnings.simplefilter("ignore")
            for hdu in hdus:
                if isinstance(hdu, fits.BinTableHDU):
                    read.add((path, hdu.name))
                    compare(hdu, next(ours))
        assert next(ours, None) is None
    assert len({path for path, _ in read}) > 80


def compare(hdu, block):
    for name in set(hdu.header) - {"COMMENT", "HISTORY", ""}:
        value = hdu.header[name]
        value = None if isinstance(value, fits.card.Undefined) else value
        assert block.keyword(name) == ((value.strip() or None) if isinstance(value, str) else value), name
    assert block.column_names == [name.upper() for name in hdu.columns.names]
    assert block.n_rows == len(hdu.data)
    for column in hdu.columns:
        name, form = column.name.upper(), str(column.format).lstrip("0123456789")
        theirs = hdu.data.field(column.name)
        if form[0] in "PQ":
            values, length = block.ragged(name)
            assert length.tolist() == [len(row) for row in theirs]
            np.testing.assert_array_equal(values, np.concatenate([np.zeros(0), *theirs]))
        elif form[0] in "LX":
            with pytest.raises(ReadError, match="fixed width"):
                block.column(name)
        else:
            np.testing.assert_array_equal(block.column(name), theirs)


keys = st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-", min_size=1, max_size=8).filter(
    lambda key: key not in ("END", "COMMENT", "HISTORY", "CONTINUE", "SIMPLE", "XTENSION")
)
texts = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=200)
numbers = st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False)


@given(st.dictionaries(keys, texts | numbers | st.booleans(), max_size=20))
@example({"LONG": "it's a 'long' one & " * 9})
@example({"A": "ends in &", "B": "''", "C": "/ no comment"})
def test_any_value_survives_astropys_writing(values):
    header = fits.Header()
    for key, value in values.items():
        header[key] = value if isinstance(value, str) else (value, "a comment / with 'marks'")
    written = header.tostring(endcard=False, padding=False)
    ours, theirs = Header(written.encode()), fits.Header.fromstring(written)
    for key, value in values.items():
        assert ours.get(key) == ((value.strip() or None) if isinstance(value, str) else theirs[key])


@pytest.mark.parametrize(
    ("card", "value"),
    [
        ("KEY     = 12", 12),
        ("KEY     =12/x", 12),
        ("KEY     = 1.5D3", 1500.0),
        ("KEY     = 'open", None),
        ("KEY     = 12x4", None),
        ("KEY     = 1_000", None),
        ("KEY     = nan", None),
        ("KEY     = (1.0, 2.0)", None),
        ("KEY     =", None),
        ("KEY       12", None),
    ],
)
def test_cards_of_every_kind(card, value):
    other = "KEY     = 99"
    assert Header("".join(f"{text:<80}" for text in (card, other)).encode()).get("KEY") == value


def test_reading_needs_no_astropy(tmp_path):
    """It would be most of the time that one spectrum takes."""
    code = "import sys, xlatent; print(len(xlatent.read(sys.argv[1]).counts), 'astropy' in sys.modules)"
    told = subprocess.run(
        [sys.executable, "-c", code, files.whole(tmp_path)], capture_output=True, text=True, check=True
    ).stdout
    assert told.split() == [str(files.N_CHAN), "False"]


# ---- heaps


def heap_table(letter, descriptors, heap, width=4):
    """Bytes of a file with one column of variable length, written by hand."""
    kind = "P" if width == 4 else "Q"
    rows = np.array(descriptors, dtype=f">i{width}").reshape(-1, 2)
    cards = {
        "XTENSION": "'BINTABLE'", "BITPIX": 8, "NAXIS": 2, "NAXIS1": 2 * width, "NAXIS2": len(rows),
        "PCOUNT": len(heap), "GCOUNT": 1, "TFIELDS": 1, "TTYPE1": "'ROWS'", "TFORM1": f"'{kind}{letter}(9)'",
    }  # fmt: skip
    header = "".join(f"{key:<8}= {value:>20}".ljust(80) for key, value in cards.items()) + "END"
    primary = "".join(f"{text:<80}" for text in ("SIMPLE  =  T", "BITPIX  =  8", "NAXIS   =  0", "END"))
    return b"".join(text.ljust(-(-len(text) // 2880) * 2880).encode() for text in (primary, header)) + (
        rows.tobytes() + heap
    )


@given(
    st.sampled_from("BIJKED"),
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 1000)), max_size=12),
    st.booleans(),
    st.integers(0, 2**32),
)
@example("E", [(3, 0), (2, 16), (4, 32)], True, 0)  # with gaps
@example("E", [(3, 0), (2, 12), (4, 20)], True, 0)  # end to end
@example("E", [(3, 20), (0, 999), (4, 3)], True, 0)  # back and forth, at odd bytes, one empty
@example("J", [(5, 8), (5, 8), (3, 12)], True, 0)  # shared
def test_rows_may_stand_anywhere_in_the_heap(tmp_path_factory, letter, rows, narrow, seed):
    heap = np.random.default_rng(seed).integers(0, 60, 1100, dtype=np.uint8).tobytes()
    block = fits_table.tables(tmp_path_factory.getbasetemp(), heap_table(letter, rows, heap, 4 if narrow else 8))[0]
    if sum(n for n, _ in rows) * np.dtype(NUMBERS[letter]).itemsize > 16 * len(heap):
        return
    values, length = block.ragged("ROWS")
    expected = [np.frombuffer(heap, NUMBERS[letter], n, place) for n, place in rows]
    assert length.tolist() == [n for n, _ in rows]
    np.testing.assert_array_equal(values, np.concatenate([np.zeros(0), *expected]))


@given(st.integers(-(2**63), 2**63 - 1), st.integers(-(2**63), 2**63 - 1))
@example(2**61, 0)
@example(2**62, 2**62)
@example(4, 2**63 - 16)
@example(1, 4)
@example(1, 5)
def test_rows_outside_the_heap_are_refused(tmp_path_factory, n, place):
    block = fits_table.tables(tmp_path_factory.getbasetemp(), heap_table("E", [(1, 0), (n, place)], bytes(8), 8))[0]
    if n == 0 or (0 < n <= 2 and 0 <= place <= 8 - 4 * n):
        assert len(block.ragged("ROWS")[0]) == 1 + n
    else:
        with pytest.raises(ReadError, match="outside the heap"):
            block.ragged("ROWS")


# ---- compression


@pytest.mark.usefixtures("inflater")
@pytest.mark.parametrize("cut", [4000, None], ids=["unequal", "equal"])
def test_several_streams_in_one_file(tmp_path, cut):
    path = files.pha(tmp_path / "a.pi")
    raw = path.read_bytes()
    cut = cut or len(raw) // 2
    path.write_bytes(gzip.compress(raw[:cut]) + gzip.compress(raw[cut:]))
    assert fits_table.blocks(path)[0].column("COUNTS").sum() == files.COUNTS.sum()


@pytest.mark.usefixtures("inflater")
@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda raw: raw[:-1] + bytes([raw[-1] ^ 1]), "Incorrect length"),
        (lambda raw: raw[:-4] + b"\xff\xff\xff\xff", "Incorrect length"),  # of four gigabytes
        (lambda raw: raw[:-5] + bytes([raw[-5] ^ 1]) + raw[-4:], "CRC"),
        (lambda raw: raw[:40] + bytes([raw[40] ^ 255]) + raw[41:], ""),
        (lambda raw: raw[: len(raw) // 2], "ended before"),
        (lambda raw: raw + b"something behind", "Not a gzipped file"),
    ],
)
def test_damaged_compression_is_told_in_words(tmp_path, change, word):
    path = files.pha(tmp_path / "a.pi")
    path.write_bytes(change(gzip.compress(path.read_bytes())))
    with pytest.raises(ReadError, match=f"cannot be read as FITS .*{word}"):
        fits_table.blocks(path)
