"""Binary tables of FITS files as plain arrays, whatever the compression and however damaged the file."""

import gzip
import io
import math
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from jaxtyping import Int, Num

from xlatent.errors import ReadError

# Letters of a TFORM that stand for real numbers, and their types (FITS standard 4.0, table 18).
_NUMBERS = {"B": "u1", "I": ">i2", "J": ">i4", "K": ">i8", "E": ">f4", "D": ">f8"}
# What astropy, zlib and struct are known to raise on damaged files.
_DAMAGE = (
    OSError, EOFError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, MemoryError,
    AssertionError, RecursionError, struct.error, zlib.error, fits.VerifyError,
)  # fmt: skip


class Block:
    """One binary table of a FITS file; what is wrong with it is told when its columns are asked for.

    Parameters
    ----------
    path
        The file, for error messages.
    header
        Header of the table.
    raw
        Bytes of the table, header first.
    start
        Byte of these at which its rows begin.
    """

    def __init__(self, path: Path, header: fits.Header, raw: bytes, start: int) -> None:
        self.path = path
        self.name = str(_keyword(header, "EXTNAME") or "unnamed table")
        self._header = header
        self._raw = raw
        self._start = start

    @cached_property
    def _hdu(self) -> fits.BinTableHDU:
        """The table as astropy reads it; the sizes in the header, which it takes on trust, are checked first."""
        with _in_words(self.where):
            keys = ("BITPIX", "NAXIS", "GCOUNT", "NAXIS1", "NAXIS2", "PCOUNT", "TFIELDS")
            *fixed, width, n_rows, heap, n_columns = (int(self._header[key]) for key in keys)
            gap = self._header.get("THEAP", width * n_rows) - width * n_rows
            if fixed != [8, 2, 1] or min(width, n_rows) < 0 or not 0 <= gap <= heap or not 0 <= n_columns <= 999:
                raise ValueError("its header states sizes that no table has")
            needed, present = max(width, 1) * n_rows + heap, len(self._raw) - self._start
            if needed > present:
                raise ValueError(f"the table should have {needed} bytes, and the file ends after {present} of them")
            padding = bytes(-len(self._raw) % 2880)  # of the last block, which some files lack
            hdu = fits.BinTableHDU.fromstring(self._raw + padding, character_as_bytes=True)
            used = hdu.columns.dtype.itemsize
            if used != width:
                raise ValueError(f"its columns need {used} bytes a row, and NAXIS1 is {width}")
            return hdu

    @property
    def where(self) -> str:
        """File and extension, as error messages name them."""
        return f"{self.path}[{self.name}]"

    @cached_property
    def column_names(self) -> list[str]:
        """Names of the columns, upper case."""
        return [name.strip().upper() for name in self._hdu.columns.names]

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return len(self._hdu.data)

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
        if name not in self.column_names:
            return None
        value = self.number(f"TLMIN{self.column_names.index(name) + 1}")
        return None if value is None else int(value)

    def column(self, name: str) -> np.ndarray | None:
        """Values of a fixed-width column, ``[n_rows]`` or ``[n_rows, width]``; None where there is no such column.

        Raises
        ------
        ReadError
            If the table is damaged, or the column holds neither text nor real numbers of fixed width.
        """
        if name not in self.column_names:
            return None
        letter = _form(self._hdu.columns[name])[0]
        if letter != "A" and letter not in _NUMBERS:
            raise ReadError(f"{self.where}: column {name} should be numbers of fixed width, and it is of type {letter}")
        with _in_words(self.where):
            values = np.asarray(self._hdu.data.field(name))
            if letter == "A":
                return np.strings.strip(np.strings.decode(values, "ascii", "replace"))
            values = values.reshape(len(values), -1) if values.ndim > 2 else values  # TDIM is not heeded
            return values.astype(values.dtype.newbyteorder("="))

    def ragged(self, name: str) -> tuple[Num[np.ndarray, "n_values"], Int[np.ndarray, "n_rows"]] | None:
        """Values of a column of fixed or variable width, end to end, with the number that each row holds.

        Raises
        ------
        ReadError
            If the table is damaged, a row points outside the heap, or the column does not hold real numbers.
        """
        if name not in self.column_names:
            return None
        column = self._hdu.columns[name]
        form = _form(column)
        if form[0] not in "PQ":
            values = np.asarray(self.column(name))
            return values.reshape(-1), np.full(self.n_rows, values.size // max(self.n_rows, 1))
        if form[1] not in _NUMBERS:
            raise ReadError(f"{self.where}: column {name} should hold numbers, and its rows are of type {form[1]!r}")
        # Astropy could look up the heap by itself, but it trusts the descriptors, is slow, and applies TSCAL and TZERO
        # to the first row only (astropy issue 8194); of it, only the descriptors are taken.
        with _in_words(self.where):
            descriptors = np.asarray(self._hdu.data)[column.name].astype(np.int64)
            length, dtype = descriptors[:, 0], np.dtype(_NUMBERS[form[1]])
            heap = self._raw[self._start + self._header.get("THEAP", self._header["NAXIS1"] * self.n_rows) :]
            # Rows may share places in the heap, but thousands that each span all of it are damage.
            if np.any(length < 0) or length.sum(dtype=float) * dtype.itemsize > 16 * len(heap):
                raise ValueError(f"rows of column {name} overlap")
            rows = [np.frombuffer(heap, dtype, count, place) for count, place in descriptors if count]
            values = np.concatenate([np.zeros(0, dtype), *rows]).astype(dtype.newbyteorder("="))
            if column.bscale is not None or column.bzero is not None:
                values = values * float(1 if column.bscale is None else column.bscale) + float(column.bzero or 0)
        return values, length


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
            Block(path, header, raw[begin : start + header.data_size], start - begin)
            for header, begin, start in _walk(io.BytesIO(raw))
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
        return [{name: _keyword(header, name) for name in names} for header, _, _ in _walk(stream)][1:]


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
        opened = gzip.open if file.read(2) == b"\x1f\x8b" else open
    with opened(path, "rb") as stream:
        start = stream.read(9)
    if not start:
        raise ReadError(f"{path} is empty where a FITS file was expected; fetch it again")
    if start != b"SIMPLE  =":
        raise ReadError(f"{path} is not a FITS file: it should begin with 'SIMPLE  =', and it begins with {start!r}")
    return opened(path, "rb")


def _walk(stream: io.BufferedIOBase) -> Iterator[tuple[fits.Header, int, int]]:
    """Yield the header of each extension and the bytes at which it and its data begin.

    Astropy's own way through a file goes round for ever where a size is negative, even one in a repeated keyword that
    a check would not see, as its two parsers of headers differ. This way only goes forward.
    """
    begin = 0
    while True:
        stream.seek(begin)
        try:
            header = fits.Header.fromfile(stream)
        except (EOFError, OSError, ValueError):  # the end, what was cut short, or bytes that are no header
            if begin == 0:
                raise
            return
        if begin > 0 and next(iter(header), "") != "XTENSION":
            return
        start = stream.tell()
        yield header, begin, start
        begin = start + max(header.data_size_padded, 0)


def _form(column: fits.Column) -> str:
    """TFORM of a column without its repeat count."""
    return str(column.format).lstrip("0123456789")


def _keyword(header: fits.Header, name: str) -> Any:
    """Read one keyword; damaged cards count as absent."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
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
            warnings.simplefilter("ignore")
            yield
    except ReadError:
        raise
    except _DAMAGE as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ReadError(
            f"{where} cannot be read as FITS ({reason}); it is damaged or cut short, fetch it again"
        ) from error
