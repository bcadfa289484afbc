"""Files that are written whole or not at all; nothing else in xlatent opens a local file for writing."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from xlatent.core.errors import WriteError

_NAME = re.compile(r"\.[0-9a-f]{12}\..+|\..+\.part")  # of versions before this one, the second


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Write a file under a temporary name beside it, and give it its own name once it is complete.

    Parameters
    ----------
    path : str or Path
        The file to be. One of that name is replaced when the block ends, and stays as it is if the block fails.

    Yields
    ------
    Path
        Where to write. It has the same suffixes, and is removed if the block fails.

    Raises
    ------
    WriteError
        If the folder does not exist, or the file cannot be written there.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "numbers.txt"
    >>> with atomic(path) as temporary:
    ...     _ = temporary.write_text("1 2 3")
    >>> path.read_text()
    '1 2 3'
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise WriteError(f"{path} cannot be written (No such file or directory: {path.parent}); make the folder first")
    if path.is_dir():
        raise WriteError(f"{path} is a folder, and a file was to be written there; choose another name")
    temporary = path.with_name(f".{uuid4().hex[:12]}.{path.name}")
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        if error.filename not in (None, str(path), str(temporary)):
            raise
        raise WriteError(f"{path} cannot be written: {error.strerror or error}; choose another path") from error
    finally:
        temporary.unlink(missing_ok=True)


def remove_temporaries(folder: str | Path) -> None:
    """Remove what writers that were killed have left in a folder; nobody may be writing there.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / ".0123456789ab.numbers.txt").write_text("1 2")
    >>> remove_temporaries(folder)
    >>> list(folder.iterdir())
    []
    """
    for file in Path(folder).glob(".*"):
        if _NAME.fullmatch(file.name):
            file.unlink(missing_ok=True)
