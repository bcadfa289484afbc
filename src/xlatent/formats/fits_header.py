"""Headers of FITS files: the values of their keywords, and the way from one to the next (FITS standard 4.0)."""

import math
import re
from collections.abc import Callable, Iterator
from functools import cached_property

import numpy as np

RECORD = 2880
"""Bytes that headers and data are padded to a multiple of."""

_CARD = 80
_END = b"END     "
_EQUALS = ord("=")
# Text between quotes, or a whole number, another number or T or F, up to the comment.
_VALUE = re.compile(
    rb" *(?:'((?:[^']|'')*)'"
    rb"|(?:([+-]?\d+)|([+-]?(?:\d+\.?\d*|\.\d+)(?:[EDed][+-]?\d+)?)|([TF])) *(?:/|\Z))"
)


class Header:
    """Keywords of one extension; the first card of a name counts, and damaged cards count as absent.

    Cards are looked at when they are asked for: of the hundreds that a file holds, a reader needs a few dozen.

    Parameters
    ----------
    text
        The cards, 80 bytes each, up to END.
    """

    def __init__(self, text: bytes) -> None:
        self._text = text
        self._values: dict[str, str | bool | int | float | None] = {}

    @cached_property
    def _places(self) -> dict[bytes, int]:
        """Byte at which the first card of each name begins."""
        names = np.ndarray(len(self._text) // _CARD, "S8", self._text, strides=_CARD).tolist()
        return dict(zip(reversed(names), range(len(self._text) - _CARD, -1, -_CARD), strict=True))

    def __contains__(self, name: str) -> bool:
        return name.ljust(8).encode() in self._places

    def get(self, name: str) -> str | bool | int | float | None:
        """Look up a keyword, strings stripped; None where it is absent, empty or no value (FITS standard 4.0, 4.2)."""
        if name not in self._values:
            at = self._places.get(name.ljust(8).encode())
            self._values[name] = None if at is None or self._text[at + 8] != _EQUALS else self._value(at)
        return self._values[name]

    def _value(self, at: int) -> str | bool | int | float | None:
        """Read the value of the card that begins at a byte."""
        found = _VALUE.match(self._text, at + 9, at + _CARD)
        if found is None:
            return None
        text, number, real, flag = found.groups()
        if number is not None:
            return int(number)
        if real is not None:
            return float(real.upper().replace(b"D", b"E"))
        if flag is not None:
            return bool(flag == b"T")
        # A long string goes on in the cards that follow (FITS standard 4.0, 4.2.1.2).
        while text.rstrip().endswith(b"&") and self._text.startswith(b"CONTINUE  ", at := at + _CARD):
            found = _VALUE.match(self._text, at + 10, at + _CARD)
            text = text.rstrip()[:-1] + ((found and found[1]) or b"")
        return str(text.replace(b"''", b"'").decode("ascii", "replace").strip()) or None

    def whole(self, name: str, default: int | None = None) -> int:
        """Look up a keyword that must be a whole number.

        Raises
        ------
        ValueError
            If it is not, or absent where there is no default.
        """
        value = self.get(name)
        if value is None and default is not None:
            return default
        if not isinstance(value, int):
            raise ValueError(f"keyword {name} should be a whole number, and it is {value!r}")
        return int(value)

    @property
    def data_size(self) -> int:
        """Bytes of data after the header, at least 0 whatever it says (FITS standard 4.0, 7.1.1 and 4.4.1)."""
        axes = [self.whole(f"NAXIS{axis}") for axis in range(1, self.whole("NAXIS") + 1)]
        if axes and axes[0] == 0 and self.get("GROUPS") is True:
            axes = axes[1:]
        elements = self.whole("PCOUNT", 0) + math.prod(axes) if axes else 0
        return max(abs(self.whole("BITPIX")) // 8 * self.whole("GCOUNT", 1) * elements, 0)


def walk(record: Callable[[int], bytes]) -> Iterator[tuple[Header, int]]:
    """Yield the header of each extension and the byte at which its data begin; this only ever goes forward.

    Parameters
    ----------
    record
        Gives the record of 2880 bytes that begins at a byte; less at the end of the file.
    """
    begin = 0
    while True:
        header, start = _header(record, begin)
        if header is None:
            if begin == 0:
                raise ValueError("its first header has no END")
            return
        yield header, start
        try:
            size = header.data_size
        except ValueError:  # of a table, this is told when its columns are asked for
            return
        begin = start + min(-(-size // RECORD) * RECORD, 2**60)


def _header(record: Callable[[int], bytes], at: int) -> tuple[Header | None, int]:
    """Read the header that begins at a byte, and the byte behind it; None where there is none."""
    records: list[bytes] = []
    while len(found := record(at)) == RECORD and (records or found.startswith((b"SIMPLE  =", b"XTENSION="))):
        at += RECORD
        records.append(found)
        end = found.find(_END)
        while end > 0 and end % _CARD:
            end = found.find(_END, end + 1)
        if end >= 0:
            return Header(b"".join(records)[: end - RECORD]), at
    return None, at
