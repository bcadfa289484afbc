"""Binary tables of FITS files as plain arrays, whatever the compression and however damaged the file."""

import gzip
import io
import math
import re
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.utils.exceptions import AstropyWarning
from jaxtyping import Int, Num

from xlatent.errors import ReadError

# FITS standard 4.0, table 18: letter of a TFORM to NumPy type; P and Q are (length, offset) pairs into the heap.
_TYPES = {"L": "i1", "B": "u1", "I": ">i2", "J": ">i4", "K": ">i8", "E": ">f4", "D": ">f8", "C": ">c8", "M": ">c16"}
_DESCRIPTORS = {"P": ">i4", "Q": ">i8"}
_TFORM = re.compile(r"(\d*)([LXBIJKAEDCMPQ])([LXBIJKAEDCM]?)")
_UNIT = 2880  # bytes; FITS files are made of blocks of this size
_LONGEST_HEADER = 1000 * _UNIT  # 36,000 keywords; without an END it would be sought through the data
# What astropy, zlib and struct are known to raise on damaged files.
_DAMAGE = (
    OSError, EOFError, ValueError, TypeError, KeyError, IndexError, AttributeError, ArithmeticError, MemoryError,
    AssertionError, RecursionError, struct.error, zlib.error, fits.VerifyError,
)  # fmt: skip


class Block:
    """One binary table of a FITS file.

    Parameters
    ----------
    path
        The file, for error messages.
    raw
        Bytes of the whole file, uncompressed.
    header
        Header of the table.
    start
        Byte at which its rows begin.
    """

    def __init__(self, path: Path, raw: bytes, header: fits.Header, start: int) -> None:
        self.path = path
        self.name = str(_keyword(header, "EXTNAME") or "unnamed table")
        self._raw = raw
        self._header = header
        self._start = start
        with _in_words(self.where):
            self.n_rows = int(self._header["NAXIS2"])
            self._row_bytes = int(self._header["NAXIS1"])
            # name -> (index in the header from 1, byte offset in a row, repeat count, letter, letter in the heap)
            self._columns: dict[str, tuple[int, int, int, str, str]] = {}
            offset = 0
            for index in range(1, int(self._header["TFIELDS"]) + 1):
                match = _TFORM.match(str(self._header[f"TFORM{index}"]).strip())
                if match is None:
                    raise ReadError(f"{self.where}: TFORM{index} = {self._header[f'TFORM{index}']!r} is no FITS format")
                repeat, letter = int(match[1] or 1), match[2]
                name = str(self._header.get(f"TTYPE{index}", f"col{index}")).strip().upper()
                self._columns.setdefault(name, (index, offset, repeat, letter, match[3]))
                if letter in "AX":
                    offset += repeat if letter == "A" else math.ceil(repeat / 8)
                else:
                    offset += repeat * np.dtype(_TYPES.get(letter) or (_DESCRIPTORS[letter], 2)).itemsize
            if self.n_rows < 0 or offset > self._row_bytes:
                raise ReadError(
                    f"{self.where}: the columns need {offset} bytes a row, and NAXIS1 x NAXIS2 is "
                    f"{self._row_bytes} x {self.n_rows}; the header is damaged, fetch the file again"
                )

    @property
    def where(self) -> str:
        """File and extension, as error messages name them."""
        return f"{self.path}[{self.name}]"

    @property
    def column_names(self) -> list[str]:
        """Names of the columns, upper case."""
        return list(self._columns)

    def keyword(self, name: str) -> Any:
        """Value of a header keyword, strings stripped; None where it is absent or empty."""
        return _keyword(self._header, name)

    def kind(self, name: str) -> str:
        """Value of one of the HDUCLAS keywords, upper case; empty where it is absent."""
        return str(self.keyword(name) or "").upper()

    def number(self, name: str) -> float | None:
        """Value of a numeric header keyword; None where it is absent.

        Raises
        ------
        ReadError
            If the value is not a number.
        """
        value = self.keyword(name)
        if value is None:
            return None
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            raise ReadError(f"{self.where}: keyword {name} should be a number, and it is {value!r}; correct the header")
        return number

    def lowest(self, name: str) -> int | None:
        """Smallest legal value of a column (TLMINn); None where the header does not say or there is no such column."""
        if name not in self._columns:
            return None
        value = self.number(f"TLMIN{self._columns[name][0]}")
        return None if value is None else int(value)

    def column(self, name: str) -> np.ndarray | None:
        """Values of a fixed-width column, ``[n_rows]`` or ``[n_rows, width]``; None where there is no such column.

        Raises
        ------
        ReadError
            If the file ends before the table does, or the column has variable length.
        """
        if name not in self._columns:
            return None
        index, offset, repeat, letter, _ = self._columns[name]
        if letter in "XPQCM":
            raise ReadError(f"{self.where}: column {name} should be numbers of fixed width, and it is of type {letter}")
        dtype = np.dtype(f"S{repeat}") if letter == "A" else np.dtype((_TYPES[letter], (repeat,)))
        values = self._cells(offset, dtype)
        if letter == "A":
            return np.array([text.decode("ascii", "replace").strip() for text in values])
        return self._scaled(values[:, 0] if repeat == 1 else values, index)

    def ragged(self, name: str) -> tuple[Num[np.ndarray, "n_values"], Int[np.ndarray, "n_rows"]] | None:
        """Values of a column of fixed or variable width, end to end, with the number that each row holds.

        Raises
        ------
        ReadError
            If the file ends before the table does, or a row points outside the heap.
        """
        if name not in self._columns:
            return None
        index, offset, _, letter, heap_letter = self._columns[name]
        if letter not in _DESCRIPTORS:
            values = np.asarray(self.column(name))
            return values.reshape(-1), np.full(self.n_rows, values.size // max(self.n_rows, 1))
        if heap_letter not in _TYPES or heap_letter in "CM":
            raise ReadError(
                f"{self.where}: column {name} should hold numbers, and its rows are of type {heap_letter!r}"
            )
        pairs = self._cells(offset, np.dtype((_DESCRIPTORS[letter], (2,)))).astype(np.int64)
        length, place = pairs[:, 0], pairs[:, 1]
        dtype = np.dtype(_TYPES[heap_letter])
        heap_start = self._start + int(self.number("THEAP") or self._row_bytes * self.n_rows)
        room = len(self._raw) - heap_start
        # Lengths are compared before they are multiplied: damaged ones may be near the largest integer.
        if length.size and (
            length.min() < 0 or place.min() < 0 or length.max() > room or np.any(place + length * dtype.itemsize > room)
        ):
            raise ReadError(
                f"{self.where}: rows of column {name} lie beyond the end of the file; it is cut short, fetch it again"
            )
        if length.sum() * dtype.itemsize > 16 * len(self._raw):
            # Rows may share places in the heap, but thousands that each span all of it are damage.
            raise ReadError(f"{self.where}: rows of column {name} overlap; the file is damaged, fetch it again")
        within = np.arange(length.sum()) - np.repeat(np.cumsum(length) - length, length)
        at = np.repeat(place, length) + within * dtype.itemsize
        # An overlapping view with a step of one byte: rows of any type may start at any byte of the heap.
        n_places = max(room - dtype.itemsize + 1, 0)
        heap = np.ndarray((n_places,), dtype, buffer=self._raw, offset=heap_start, strides=(1,)) if n_places else None
        values = heap[at] if heap is not None else np.zeros(0, dtype)
        return self._scaled(values, index), length

    def _cells(self, offset: int, dtype: np.dtype) -> np.ndarray:
        """Cells of one column, as they stand in the file."""
        end = self._start + self.n_rows * max(self._row_bytes, 1)
        if end > len(self._raw):
            raise ReadError(
                f"{self.where}: the table should end at byte {end}, and the file ends at {len(self._raw)}; "
                "it is cut short, fetch it again"
            )
        base, shape = dtype.subdtype or (dtype, ())
        strides = (self._row_bytes, *(base.itemsize for _ in shape))
        if self.n_rows == 0 or 0 in shape:
            return np.zeros((self.n_rows, *shape), base)
        return np.ndarray((self.n_rows, *shape), base, buffer=self._raw, offset=self._start + offset, strides=strides)

    def _scaled(self, values: np.ndarray, index: int) -> np.ndarray:
        """Native byte order, with TSCAL and TZERO applied."""
        scale, zero = self.number(f"TSCAL{index}"), self.number(f"TZERO{index}")
        values = values.astype(values.dtype.newbyteorder("="))
        if scale in (None, 1.0) and zero in (None, 0.0):
            return values
        return values * (1.0 if scale is None else scale) + (zero or 0.0)


def blocks(path: Path) -> list[Block]:
    """Read the binary tables of a FITS file, plain or gzipped, whatever its name says.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    ReadError
        If there is no such file, or it is empty, damaged or not FITS.
    """
    with _in_words(path):
        with _open(path) as stream:
            raw = stream.read()
        return [
            Block(path, raw, header, start)
            for header, start in _walk(io.BytesIO(raw))
            if _keyword(header, "XTENSION") in ("BINTABLE", "A3DTABLE")
        ]


def headers(path: Path) -> list[dict[str, Any]]:
    """Keywords that say what each extension of a FITS file is, without reading its data.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    For each extension EXTNAME, HDUCLAS1, HDUCLAS2, BACKFILE, RESPFILE and ANCRFILE, None where absent.

    Raises
    ------
    ReadError
        If there is no such file, or it is empty, damaged or not FITS.
    """
    names = ("EXTNAME", "HDUCLAS1", "HDUCLAS2", "BACKFILE", "RESPFILE", "ANCRFILE")
    with _in_words(path), _open(path) as stream:
        return [{name: _keyword(header, name) for name in names} for header, _ in _walk(stream)][1:]


def choose(
    tables: list[Block], hduclas1: str, hduclas2: tuple[str, ...] | None, names: tuple[str, ...] = ()
) -> list[Block]:
    """Pick tables by their HDUCLAS keywords or, where none has them, by extension name.

    Parameters
    ----------
    tables
        Tables of one file.
    hduclas1, hduclas2
        Values of HDUCLAS1 and HDUCLAS2 to look for; any HDUCLAS2 if None.
    names
        Extension names that count where no table has the keywords.
    """
    classed = [
        table
        for table in tables
        if table.kind("HDUCLAS1") == hduclas1 and (hduclas2 is None or table.kind("HDUCLAS2") in hduclas2)
    ]
    return classed or [table for table in tables if table.name.upper() in names]


def stem(path: Path) -> str:
    """File name without its suffix and without ``.gz``."""
    return Path(path.name.removesuffix(".gz")).stem


def is_none(name: object) -> bool:
    """Tell whether a file name says that there is no file: None, empty, blank, or ``none`` in any case."""
    return name is None or str(name).strip().lower() in ("", "none", ".")  # Path("") is "."


def existing(path: Path) -> Path | None:
    """Return the path itself, or with ``.gz`` added or taken away, whichever exists."""
    name = str(path)
    for candidate in (name, f"{name}.gz", name.removesuffix(".gz")):
        try:
            if Path(candidate).exists():
                return Path(candidate)
        except (OSError, ValueError):  # a damaged header may hold what is no file name at all
            return None
    return None


def companion(path: Path, named: str) -> Path | None:
    """Find a file that the header of another names: relative to it or, failing that, of that name next to it.

    Parameters
    ----------
    path
        The file whose header names the other.
    named
        The name; an extension or row after it, as in ``a.rmf[MATRIX]`` or ``a.rmf{2}``, is passed over.
    """
    plain = named.split("[")[0].split("{")[0].strip()
    if not Path(plain).name:
        return None
    return existing(path.parent / plain) or existing(path.parent / Path(plain).name)


def is_fits(path: Path) -> bool:
    """Tell whether a file begins as FITS files do, plain or gzipped."""
    try:
        with _open(path):
            return True
    except (ReadError, *_DAMAGE):
        return False


def _open(path: Path) -> io.BufferedIOBase:
    """Open a FITS file for reading uncompressed bytes, or say in a sentence why it is none."""
    if path.is_dir():
        raise ReadError(f"{path} is a folder where a FITS file was expected; give a file in it")
    if not path.exists():
        raise ReadError(f"{path} does not exist; give the path of a FITS file")
    with path.open("rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
    stream: io.BufferedIOBase = gzip.GzipFile(path, "rb") if zipped else path.open("rb")
    try:
        start = stream.read(9)
        if not start:
            raise ReadError(f"{path} is empty where a FITS file was expected; fetch it again")
        if start != b"SIMPLE  =":
            raise ReadError(
                f"{path} is not a FITS file: it should begin with 'SIMPLE  =', and it begins with {start!r}"
            )
        stream.seek(0)
    except BaseException:
        stream.close()
        raise
    return stream


def _walk(stream: io.BufferedIOBase) -> Iterator[tuple[fits.Header, int]]:
    """Yield the header of each extension and the byte at which its data begin (FITS standard 4.0, section 3).

    Astropy's own way through a file goes round for ever on some damaged sizes; this one only goes forward.
    """
    offset = 0
    while True:
        stream.seek(offset)
        text = b""
        while not any(text[at : at + 8] == b"END     " for at in range(max(len(text) - _UNIT, 0), len(text), 80)):
            block = stream.read(_UNIT)
            if (
                len(block) < _UNIT
                or len(text) > _LONGEST_HEADER
                or (not text and offset > 0 and not block.startswith(b"XTENSION"))
            ):
                if offset == 0:
                    raise ValueError(f"its first header has no END within {len(text) + len(block)} bytes")
                return
            text += block
        header = fits.Header.fromstring(text.decode("latin-1"))
        start = offset + len(text)
        yield header, start
        axes = [int(header[f"NAXIS{axis}"]) for axis in range(1, int(header["NAXIS"]) + 1)]
        pixels = header.get("GCOUNT", 1) * (header.get("PCOUNT", 0) + math.prod(axes)) if axes else 0
        size = abs(int(header["BITPIX"])) // 8 * int(pixels)
        offset = start + -(-max(size, 0) // _UNIT) * _UNIT


def _keyword(header: fits.Header, name: str) -> Any:
    """Read one keyword; damaged cards count as absent."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AstropyWarning)
            value = header.get(name)
    except _DAMAGE:
        return None
    if isinstance(value, fits.card.Undefined):
        return None
    return (value.strip() or None) if isinstance(value, str) else value


@contextmanager
def _in_words(where: Path | str) -> Iterator[None]:
    """Turn what astropy and zlib raise on a damaged file into one sentence."""
    try:
        with warnings.catch_warnings():
            # Astropy's remarks on untidy headers would reach users who can do nothing about them.
            warnings.simplefilter("ignore", AstropyWarning)
            yield
    except ReadError:
        raise
    except _DAMAGE as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ReadError(
            f"{where} cannot be read as FITS ({reason}); it is damaged or cut short, fetch it again"
        ) from error
