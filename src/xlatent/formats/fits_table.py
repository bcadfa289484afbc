"""Binary tables of FITS files as plain arrays, whatever the compression and however damaged the file."""

import gzip
import io
import math
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int, Num

from xlatent.core.errors import ReadError
from xlatent.formats.fits_header import RECORD, Header, walk

_libdeflate: Any = import_module("deflate") if find_spec("deflate") else None

# Letters of a TFORM that stand for real numbers, and their types (FITS standard 4.0, table 18).
_NUMBERS = {"B": "u1", "I": ">i2", "J": ">i4", "K": ">i8", "E": ">f4", "D": ">f8"}
# Bytes of one element of every letter but X, of which eight share a byte.
_BYTES = {"L": 1, "A": 1, "B": 1, "I": 2, "J": 4, "K": 8, "E": 4, "D": 8, "C": 8, "M": 16, "P": 8, "Q": 16}
_FORM = re.compile(r"(\d{0,9})([LXABIJKEDCMPQ])([A-Z]?)")
_GZIP = b"\x1f\x8b"
# What NumPy, zlib and the checks below raise on damaged files.
_DAMAGE = (OSError, EOFError, ValueError, TypeError, LookupError, ArithmeticError, MemoryError, zlib.error)


class _Column(NamedTuple):
    """Where a column stands in a row, and what it is."""

    number: int  # from 1
    letter: str
    repeat: int
    offset: int
    elements: str  # letter of the elements of rows of variable length


class Block:
    """One binary table of a FITS file; what is wrong with it is told when its columns are asked for.

    Parameters
    ----------
    path
        The file, for error messages.
    header
        Header of the table.
    data
        Bytes of its rows and of the heap behind them.
    """

    def __init__(self, path: Path, header: Header, data: memoryview) -> None:
        self.path = path
        self._header = header
        self._data = data

    @property
    def name(self) -> str:
        """Name of the extension."""
        return str(self._header.get("EXTNAME") or "unnamed table")

    @cached_property
    def _shape(self) -> tuple[int, int]:
        """Number of rows and bytes of each, once the sizes in the header have been found possible."""
        with _as_read_error(self.where):
            keys = ("BITPIX", "NAXIS", "GCOUNT", "NAXIS1", "NAXIS2", "PCOUNT", "TFIELDS")
            *fixed, width, n_rows, heap, n_columns = (self._header.whole(key) for key in keys)
            gap = self._header.whole("THEAP", width * n_rows) - width * n_rows
            if fixed != [8, 2, 1] or min(width, n_rows) < 0 or not 0 <= gap <= heap or not 0 <= n_columns <= 999:
                raise ValueError("its header states sizes that no table has")
            needed, present = max(width, 1) * n_rows + heap, len(self._data)
            if needed > present:
                raise ValueError(f"the table should have {needed} bytes, and the file ends after {present} of them")
            return n_rows, width

    @cached_property
    def _columns(self) -> dict[str, _Column]:
        """Columns by their names in upper case, the first where two have one name."""
        found: dict[str, _Column] = {}
        used = 0
        with _as_read_error(self.where):
            for number in range(1, self._header.whole("TFIELDS") + 1):
                name = str(self._header.get(f"TTYPE{number}") or f"column {number}").upper()
                form = _FORM.match(str(self._header.get(f"TFORM{number}") or "").upper())
                if form is None:
                    raise ValueError(f"TFORM{number} of column {name} is {self._header.get(f'TFORM{number}')!r}")
                repeat, letter = int(form[1] or 1), form[2]
                found.setdefault(name, _Column(number, letter, repeat, used, form[3]))
                used += -(-repeat // 8) if letter == "X" else repeat * _BYTES[letter]
            if used != self._shape[1]:
                raise ValueError(f"its columns need {used} bytes a row, and NAXIS1 is {self._shape[1]}")
        return found

    @property
    def where(self) -> str:
        """File and extension, as error messages name them."""
        return f"{self.path}[{self.name}]"

    @property
    def column_names(self) -> list[str]:
        """Names of the columns, upper case."""
        return list(self._columns)

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return self._shape[0]

    def keyword(self, name: str) -> str | bool | int | float | None:
        """Look up a header keyword, strings stripped; None where it is absent or empty."""
        return self._header.get(name)

    def states(self, name: str) -> bool:
        """Tell whether there is a column or keyword of a name, whatever its value."""
        return name in self._columns or name in self._header

    def hduclas(self, level: int) -> str:
        """Look up HDUCLAS1, HDUCLAS2 or HDUCLAS3, upper case; empty where it is absent."""
        return str(self.keyword(f"HDUCLAS{level}") or "").upper()

    def number(self, name: str) -> float | None:
        """Look up a numeric header keyword; None where it is absent.

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

    def tlmin(self, name: str) -> int | None:
        """Find the smallest legal value of a column (TLMINn); None where the header does not tell."""
        if name not in self._columns:
            return None
        value = self.number(f"TLMIN{self._columns[name].number}")
        return None if value is None else int(value)

    def column(self, name: str) -> np.ndarray | None:
        """Read a fixed-width column, ``[n_rows]`` or ``[n_rows, width]``; None where there is no such column.

        Raises
        ------
        ReadError
            If the table is damaged, or the column holds neither text nor real numbers of fixed width.
        """
        if name not in self._columns:
            return None
        column = self._columns[name]
        if column.letter != "A" and column.letter not in _NUMBERS:
            raise ReadError(
                f"{self.where}: column {name} should be numbers of fixed width, and it is of type {column.letter}"
            )
        with _as_read_error(self.where):
            if column.letter == "A":
                text = self._cells(column, np.dtype(f"S{column.repeat}"), 1)[:, 0]
                return np.strings.strip(np.strings.decode(text, "ascii", "replace"))
            dtype = np.dtype(_NUMBERS[column.letter])
            values = self._scaled(column, self._cells(column, dtype, column.repeat).astype(dtype.newbyteorder("=")))
            return values[:, 0] if column.repeat == 1 else values  # TDIM is not heeded

    def ragged(self, name: str) -> tuple[Num[np.ndarray, " n_values"], Int[np.ndarray, " n_rows"]] | None:
        """Read a column of fixed or variable width: its values end to end, and the number that each row holds.

        Raises
        ------
        ReadError
            If the table is damaged, a row points outside the heap, or the column does not hold real numbers.
        """
        if name not in self._columns:
            return None
        column = self._columns[name]
        if column.letter not in "PQ":
            values = np.asarray(self.column(name))
            return values.reshape(-1), np.full(self.n_rows, values.size // max(self.n_rows, 1))
        if column.elements not in _NUMBERS:
            raise ReadError(
                f"{self.where}: column {name} should hold numbers, and its rows are of type {column.elements!r}"
            )
        with _as_read_error(self.where):
            descriptors = self._cells(column, np.dtype(">i4" if column.letter == "P" else ">i8"), 2).astype(np.int64)
            length, place = descriptors[:, 0], descriptors[:, 1]
            n_rows, width = self._shape
            begin = self._header.whole("THEAP", width * n_rows)
            heap = self._data[begin : width * n_rows + self._header.whole("PCOUNT")]
            dtype = np.dtype(_NUMBERS[column.elements])
            size = length * dtype.itemsize
            # Places and lengths are looked at alone first: their sums may be beyond what an integer holds.
            outside = (place < 0) | (place > len(heap)) | (length > len(heap)) | (place + size > len(heap))
            if column.repeat != 1 or np.any(length < 0) or np.any((length > 0) & outside):
                raise ValueError(f"rows of column {name} stand outside the heap")
            # Rows may share places in the heap, but thousands that each span all of it are damage.
            if size.sum(dtype=float) > 16 * len(heap):
                raise ValueError(f"rows of column {name} overlap")
            values = np.frombuffer(_gather(heap, place[length > 0], size[length > 0]), dtype)
            return self._scaled(column, values.astype(np.float64 if dtype.kind == "f" else np.int64)), length

    def _scaled(self, column: _Column, values: np.ndarray) -> np.ndarray:
        """Apply TSCAL and TZERO, where they are numbers."""
        scale, zero = (self._header.get(f"{key}{column.number}") for key in ("TSCAL", "TZERO"))
        if not isinstance(scale, int | float) and not isinstance(zero, int | float):
            return values
        return values * _real(scale, 1.0) + _real(zero, 0.0)

    def _cells(self, column: _Column, dtype: np.dtype, width: int) -> Num[np.ndarray, "n_rows width"] | np.ndarray:
        """View the values of a column as they stand in the rows."""
        n_rows, step = self._shape
        if n_rows == 0:
            return np.zeros((0, width), dtype)
        return np.ndarray((n_rows, width), dtype, self._data, column.offset, (step, dtype.itemsize))


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
    return tables(path, decompress(path, read_bytes(path)))


def read_bytes(path: Path) -> bytes:
    """Read the bytes of a FITS file as they are stored.

    Raises
    ------
    ReadError
        If there is no such file, or it cannot be read.
    """
    with _as_read_error(path):
        try:
            return path.read_bytes()
        except OSError:
            _check_is_file(path)
            raise


def decompress(path: Path, raw: bytes | bytearray) -> bytes | bytearray:
    """Undo the compression of a FITS file, if there is one; ``path`` is for error messages.

    Raises
    ------
    ReadError
        If the bytes are damaged or not FITS.
    """
    with _as_read_error(path):
        plain = _inflated(raw) if raw.startswith(_GZIP) else raw
        _check_is_fits(path, bytes(plain[:9]))
    return plain


def checksum(raw: bytes | bytearray) -> tuple[int, int]:
    """Give CRC-32 and length of a FITS file's content; one compressed by gzip states both at its end (RFC 1952)."""
    if raw.startswith(_GZIP):
        return int.from_bytes(raw[-8:-4], "little"), int.from_bytes(raw[-4:], "little")
    return int((_libdeflate or zlib).crc32(raw)), len(raw)


def tables(path: Path, raw: bytes | bytearray) -> list[Block]:
    """Find the binary tables in the uncompressed bytes of a FITS file; ``path`` is for error messages."""
    view = memoryview(raw)
    with _as_read_error(path):
        return [
            Block(path, header, view[start:])
            for header, start in walk(lambda at: bytes(view[at : at + RECORD]))
            if header.get("XTENSION") in ("BINTABLE", "A3DTABLE")
        ]


def headers(path: Path) -> list[dict[str, Any]]:
    """Read the keywords that say what each extension of a FITS file is, without its data.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    For each extension those of EXTNAME, HDUCLAS1, HDUCLAS2, BACKFILE, RESPFILE and ANCRFILE that are there, None where
    one is empty.

    Raises
    ------
    ReadError
        If there is no such file, or it is empty, damaged or not FITS.
    """
    names = ("EXTNAME", "HDUCLAS1", "HDUCLAS2", "BACKFILE", "RESPFILE", "ANCRFILE")
    with _as_read_error(path), _open(path) as stream:

        def record(at: int) -> bytes:
            stream.seek(at)
            return stream.read(RECORD)

        return [{name: header.get(name) for name in names if name in header} for header, _ in walk(record)][1:]


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
        table for table in tables if table.hduclas(1) == hduclas1 and (hduclas2 is None or table.hduclas(2) in hduclas2)
    ]
    return classed or [table for table in tables if table.name.upper() in names]


def is_fits(path: Path) -> bool:
    """Tell whether a file begins as FITS files do, plain or gzipped."""
    try:
        with _open(path):
            return True
    except (ReadError, *_DAMAGE):
        return False


def _check_is_file(path: Path) -> None:
    if path.is_dir():
        raise ReadError(f"{path} is a folder where a FITS file was expected; give a file in it")
    if not path.exists():
        raise ReadError(f"{path} does not exist; give the path of a FITS file")


def _check_is_fits(path: Path, start: bytes) -> None:
    if not start:
        raise ReadError(f"{path} is empty where a FITS file was expected; fetch it again")
    if start != b"SIMPLE  =":
        raise ReadError(f"{path} is not a FITS file: it should begin with 'SIMPLE  =', and it begins with {start!r}")


def _open(path: Path) -> io.BufferedIOBase:
    """Open a FITS file for reading uncompressed bytes, or say in a sentence why it is none."""
    _check_is_file(path)
    with path.open("rb") as file:
        opened = gzip.open if file.read(2) == _GZIP else open
    with opened(path, "rb") as stream:
        _check_is_fits(path, stream.read(9))
    return opened(path, "rb")


def _inflated(raw: bytes | bytearray) -> bytes | bytearray:
    """Undo gzip; libdeflate takes two thirds of zlib's time."""
    stated = checksum(raw)
    if _libdeflate is not None and 0 < stated[1] <= 1032 * len(raw):  # deflate grows nothing more than 1032-fold
        with suppress(_libdeflate.DeflateError, MemoryError):
            plain: bytes | bytearray = _libdeflate.gzip_decompress(raw)
            if checksum(plain) == stated:  # of several streams end to end, it undoes only the first
                return plain
    return gzip.decompress(raw)  # this one undoes all, and says what is wrong


def _real(value: Any, default: float) -> float:
    return float(value) if isinstance(value, int | float) else default


def _gather(heap: memoryview, place: np.ndarray, size: np.ndarray) -> Any:
    """Gather stretches of a heap, one after the other."""
    if place.size == 0:
        return b""
    between = place[1:] - (place + size)[:-1]
    if not between.any():
        return heap[place[0] : place[-1] + size[-1]]
    # Words as large as places and sizes allow.
    unit = int(np.gcd.reduce(np.concatenate([place, size, [8]])))
    words = np.frombuffer(heap, f"u{unit}", len(heap) // unit)
    if between.min() > 0 and between.sum() < size.sum():  # most of what lies there: the rest is left out, quickest
        lengths = np.append(np.column_stack([size[:-1], between]), size[-1]) // unit
        ours = np.repeat(np.arange(lengths.size) % 2 == 0, lengths)
        return words[place[0] // unit :][: ours.size][ours]
    place, size = place // unit, size // unit
    return words[np.repeat(place - (np.cumsum(size) - size), size) + np.arange(size.sum())]


@contextmanager
def _as_read_error(where: Path | str) -> Iterator[None]:
    """Turn what damaged files make NumPy, zlib and the checks above raise into one sentence."""
    try:
        yield
    except ReadError:
        raise
    except _DAMAGE as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ReadError(
            f"{where} cannot be read as FITS ({reason}); it is damaged or cut short, fetch it again"
        ) from error
