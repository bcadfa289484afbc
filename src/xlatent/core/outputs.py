"""What can be written, told before any work: suffixes choose formats, and folders must be there."""

import os
from collections.abc import Sequence
from pathlib import Path

from xlatent.core.errors import WriteError

TABLES = (".parquet", ".fits", ".vot", ".ecsv")
RESULTS = (".ecsv", ".csv")
FIGURES = (".png", ".pdf", ".svg")


def check_output(path: str | Path, suffixes: Sequence[str]) -> None:
    """Make sure, before any work, that a file can be written.

    Parameters
    ----------
    path : str or Path
        The file to be.
    suffixes : sequence of str
        Those that choose a format, such as `TABLES`.

    Raises
    ------
    WriteError
        If its suffix is another, or its folder is missing or not writable.
    """
    path = Path(path)
    if path.suffix not in suffixes:
        found = f"suffix {path.suffix!r}" if path.suffix else "no suffix"
        raise WriteError(f"{path} has {found}, and the output's format is chosen by it: use {', '.join(suffixes)}")
    if not path.parent.is_dir():
        raise WriteError(f"{path}: there is no folder {path.parent}; make it first")
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise WriteError(
            f"{path} cannot be written: {'it is a folder' if path.is_dir() else 'its folder is read-only'}"
        )
