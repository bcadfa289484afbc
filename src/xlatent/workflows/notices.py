"""What a run over many files has to tell: spectra left out, and warnings, those of one kind together."""

import csv
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from xlatent.core.atomic import atomic
from xlatent.core.errors import XlatentWarning
from xlatent.core.messages import redirect_warnings


class Failure(NamedTuple):
    """A spectrum that was left out, and why."""

    name: str
    file: str
    reason: str


class Notice(NamedTuple):
    """A warning met on the way: the spectrum and file it is about, where known, its text, and its kind."""

    name: str
    file: str
    text: str
    kind: str


class Notices:
    """Warnings of a run in the order in which they came, those of one text once.

    Examples
    --------
    >>> notices = Notices()
    >>> for name in ("a", "b", "c"):
    ...     notices.add(Notice(name, f"{name}.pha", f"{name}.pha has no background", "no background"))
    >>> notices.add(Notice("c", "c.pha", "c.pha has no exposure", "no exposure"))
    >>> for warning in notices.digest():
    ...     print(warning)
    a.pha has no background (the first of 3 such warnings)
    c.pha has no exposure
    """

    def __init__(self) -> None:
        self._found: dict[str, Notice] = {}

    def __iter__(self) -> Iterator[Notice]:
        return iter(self._found.values())

    def add(self, notice: Notice) -> None:
        """Keep a notice, unless one of the same text is there."""
        self._found.setdefault(notice.text, notice)

    def extend(self, found: Iterable[Notice]) -> None:
        """Keep several."""
        for notice in found:
            self.add(notice)

    @contextmanager
    def collect(self, name: str = "", file: str = "") -> Iterator[None]:
        """Keep the warnings of a block, as those of a spectrum; they are not told otherwise.

        The `warnings` module is not made for threads: of several, one at a time may do this.
        """
        with redirect_warnings(lambda warning: self.add(_notice(warning, name, file))):
            yield

    def digest(self) -> list[XlatentWarning]:
        """Return one warning for each kind that several files share, and those of single files as they are."""
        by_kind: dict[str, list[Notice]] = {}
        for notice in self:
            by_kind.setdefault(notice.kind, []).append(notice)
        told = []
        for kind, alike in by_kind.items():
            if len({notice.file for notice in alike}) > 1:
                first = alike[0]
                text = f"{first.text} (the first of {len(alike)} such warnings)"
                told.append(XlatentWarning(text, kind=kind, file=first.file))
            else:
                told.extend(XlatentWarning(one.text, kind=kind, file=one.file) for one in alike)
        return told

    def warn(self) -> None:
        """Issue the digest as warnings."""
        for warning in self.digest():
            warnings.warn(warning, stacklevel=3)


def _notice(warning: XlatentWarning, name: str, file: str) -> Notice:
    return Notice(name, warning.file or file, str(warning), warning.kind)


def write_failures(failures: Sequence[Failure], path: str | Path, notices: Iterable[Notice] = ()) -> None:
    """Write failures as CSV with the columns name, file and reason, and behind them all warnings.

    Parameters
    ----------
    failures : sequence of Failure
        None of them leaves the header alone.
    path : str or Path
        A file of that name is replaced.
    notices : iterable of Notice
        Their reason begins with ``warning:``.

    Raises
    ------
    WriteError
        If it cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "failures.csv"
    >>> write_failures([Failure("a", "a.pha", "a.pha does not exist")], path)
    >>> path.read_text().splitlines()
    ['name,file,reason', 'a,a.pha,a.pha does not exist']
    """
    told = [Failure(notice.name, notice.file, f"warning: {notice.text}") for notice in notices]
    with atomic(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([Failure._fields, *failures, *told])
