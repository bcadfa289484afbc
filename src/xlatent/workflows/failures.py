"""Spectra that could not be read or embedded, and the CSV file that names them."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from xlatent.core.atomic import atomic


class Failure(NamedTuple):
    """A spectrum that was left out, and why."""

    name: str
    file: str
    reason: str


def write_failures(failures: Sequence[Failure], path: str | Path) -> None:
    """Write failures as CSV with the columns name, file and reason.

    Parameters
    ----------
    failures : sequence of Failure
        None of them leaves the header alone.
    path : str or Path
        A file of that name is replaced.

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
    with atomic(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([Failure._fields, *failures])
