"""Files and folders that are written whole or not at all; nothing else in xlatent opens a local file for writing."""

import re
import shutil
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
        raise WriteError(
            f"{path} cannot be written ({error.strerror or error}); make room or choose another path"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Fill a new folder under a temporary name beside it, and give it its own name once it is complete.

    Parameters
    ----------
    path : str or Path
        The folder to be; there must be none of that name.

    Yields
    ------
    Path
        An empty folder. It is removed if the block fails.

    Raises
    ------
    WriteError
        If something of that name exists, the folder around it does not, or the folder cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "numbers"
    >>> with atomic_folder(path) as temporary:
    ...     _ = (temporary / "one.txt").write_text("1")
    >>> [file.name for file in path.iterdir()]
    ['one.txt']
    """
    path = Path(path)
    if path.exists():
        raise WriteError(f"{path} is there already; name a new folder or remove this one")
    if not path.parent.is_dir():
        raise WriteError(f"{path} cannot be written (No such file or directory: {path.parent}); make the folder first")
    temporary = path.with_name(f".{uuid4().hex[:12]}.{path.name}")
    try:
        temporary.mkdir()
        yield temporary
        temporary.replace(path)
    except OSError as error:
        if error.filename is not None and temporary not in (Path(error.filename), *Path(error.filename).parents):
            raise
        raise WriteError(f"{path} cannot be written: {error.strerror or error}; choose another path") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


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
            shutil.rmtree(file) if file.is_dir() else file.unlink(missing_ok=True)
