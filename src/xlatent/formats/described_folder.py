"""Folders and URLs that a JSON file describes: what stores of spectra and embeddings in parts share."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError

from xlatent.core.atomic import atomic
from xlatent.core.errors import ReadError, WriteError
from xlatent.core.messages import first_line

Info = TypeVar("Info", bound=BaseModel)


@dataclass(frozen=True)
class Kind(Generic[Info]):
    """What a folder is: the file that describes it, what that holds, and words for messages."""

    file: str
    info: type[Info]  # with a field ``version``
    version: int  # the newest that can be read
    noun: str  # such as "store"
    remedy: str  # where a file is missing
    remake: str  # where the description makes no sense


def is_url(path: str | Path) -> bool:
    """Tell whether a path is a URL; one that was made a Path has lost a slash.

    Examples
    --------
    >>> is_url("s3://bucket/x"), is_url(Path("s3://bucket/x")), is_url("C:/x")
    (True, True, False)
    """
    return re.match(r"[a-z][a-z0-9+.-]+:/", str(path)) is not None


def holds(path: str | Path, file: str) -> bool:
    """Tell whether a folder holds a file; of a URL it is taken for granted."""
    return is_url(path) or (Path(path) / file).is_file()


class DescribedFolder(Generic[Info]):
    """Files of a folder, or of a URL that fsspec knows (``http://``, ``s3://``, ``memory://`` and others).

    Parameters
    ----------
    path : str or Path
    kind : Kind

    Attributes
    ----------
    path : str
        Without a slash at its end.
    local : bool
        Whether it is a folder here.

    Raises
    ------
    ReadError
        If the library for that kind of URL is missing.
    """

    def __init__(self, path: str | Path, kind: Kind[Info]) -> None:
        import fsspec

        # As in is_url: s3:/bucket is meant for s3://bucket.
        self.path = re.sub("^([a-z][a-z0-9+.-]+):/+", r"\1://", str(path)).rstrip("/")
        self.kind = kind
        self.local = not is_url(self.path)
        try:
            self._files, self._root = fsspec.core.url_to_fs(self.path)
        except (ImportError, ValueError) as error:
            raise ReadError(f"{self.path} cannot be read ({first_line(error)}); check the address") from None

    def names(self) -> set[str] | None:
        """List the files that are there now; None if there is no such place.

        Raises
        ------
        ReadError
            If the place does not answer.
        """
        try:
            self._files.invalidate_cache()
            return {name.rstrip("/").rpartition("/")[2] for name in self._files.ls(self._root, detail=False)}
        except FileNotFoundError:
            return None
        except Exception as error:  # each kind of file system has its own
            raise ReadError(f"{self.path} cannot be read ({first_line(error)}); check the address") from None

    def open(self, name: str) -> Any:
        """Open a file for reading some of it; errors are those of the file system."""
        return self._files.open(f"{self._root}/{name}", "rb")

    def read(self, name: str) -> bytes:
        """Read a file as a whole.

        Raises
        ------
        ReadError
            If it is missing or cannot be read.
        """
        try:
            content: bytes = self._files.cat_file(f"{self._root}/{name}")
        except FileNotFoundError:
            if name == self.kind.file:
                why = f"{self.path} should hold {_one(name)}, and it has none; give the path of {_one(self.kind.noun)}"
            else:
                why = f"{self.path}/{name} is missing from the {self.kind.noun}; {self.kind.remedy}"
            raise ReadError(why) from None
        except Exception as error:  # as above
            raise ReadError(f"{self.path}/{name} cannot be read ({first_line(error)}); check the address") from None
        return content

    def write(self, name: str, content: bytes) -> None:
        """Write a file, whole or not at all.

        Raises
        ------
        WriteError
            If that is not possible.
        """
        if self.local:
            with atomic(Path(self.path) / name) as temporary:
                temporary.write_bytes(content)
            return
        try:
            self._files.pipe_file(f"{self._root}/{name}", content)
        except Exception as error:  # as above
            raise WriteError(
                f"{self.path}/{name} cannot be written ({first_line(error)}); choose another place"
            ) from None

    def read_info(self) -> Info:
        """Read the description.

        Raises
        ------
        ReadError
            If it is missing, damaged or of a newer version.
        """
        where = f"{self.path}/{self.kind.file}"
        try:
            content = json.loads(self.read(self.kind.file))
            found = content.get("version") if isinstance(content, dict) else None
            if isinstance(found, int) and found > self.kind.version:
                raise ReadError(
                    f"{where} was written by a newer xlatent (version {found} of the format, and this one reads "
                    f"{self.kind.version}); upgrade with pip install -U xlatent"
                )
            return self.kind.info.model_validate(content)
        except ValidationError as error:
            first = error.errors()[0]
            what = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        except ValueError as error:
            what = str(error)
        raise ReadError(f"{where} does not describe {_one(self.kind.noun)} ({what}); {self.kind.remake}")

    def write_info(self, info: Info) -> None:
        """Write the description.

        Raises
        ------
        WriteError
            If that is not possible.
        """
        self.write(self.kind.file, info.model_dump_json(indent=1).encode() + b"\n")


def _one(noun: str) -> str:
    """A noun with its article."""
    return f"{'an' if noun.lstrip('_')[0] in 'aeiou' else 'a'} {noun}"
