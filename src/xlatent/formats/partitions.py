"""An embedding in parts: a folder or URL with one Parquet file for each shard, written whole by whoever made it."""

import json
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, NamedTuple
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from xlatent.core.errors import ReadError, WriteError

INFO = "_embedding.json"  # readers of Parquet pass over names that begin so
VERSION = 1
_FAILURES = b"xlatent.failures"
_AT_ONCE = 16  # parts asked for side by side: an object store takes its time for each


class PartInfo(BaseModel):
    """What ``_embedding.json`` says of a part: its file, and what is embedded in it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: str = Field(pattern=r"^[\w-][\w.-]*\.parquet$")
    input: str
    rows: int = Field(ge=1)
    sha256: str


class EmbeddingInfo(BaseModel):
    """What ``_embedding.json`` says of an embedding; parts are in the order of its rows."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    format: Literal["xlatent embedding"] = "xlatent embedding"
    version: int = VERSION
    software: str
    model: str
    model_sha256: str
    refine: bool
    posterior: str
    parts: tuple[PartInfo, ...]


class Written(NamedTuple):
    """What a part that is there holds: a number of rows; name, file and reason of each spectrum that failed."""

    rows: int
    failures: list[list[str]]


def is_url(path: str | Path) -> bool:
    """Tell whether a path is a URL; one that was made a Path has lost a slash."""
    return re.match(r"[a-z][a-z0-9+.-]+:/", str(path)) is not None


def is_embedding(path: str | Path) -> bool:
    """Tell whether a path is that of an embedding in parts: a folder with an ``_embedding.json``, or any URL."""
    return is_url(path) or (Path(path) / INFO).is_file()


class Parts:
    """The place of an embedding in parts.

    Parameters
    ----------
    path
        A folder, or a URL that fsspec knows (``s3://``, ``gs://`` and others).

    Raises
    ------
    WriteError
        If the library for that kind of URL is missing.
    """

    def __init__(self, path: str | Path) -> None:
        import fsspec

        # As in is_url: s3:/bucket is meant for s3://bucket.
        self.path = re.sub("^([a-z][a-z0-9+.-]+):/+", r"\1://", str(path)).rstrip("/")
        self._here = not is_url(self.path)
        try:
            self._files, self._root = fsspec.core.url_to_fs(self.path)
        except (ImportError, ValueError) as error:
            raise WriteError(f"{self.path} cannot be opened ({_first_line(error)}); give a folder or a URL") from None

    def begin(self, info: EmbeddingInfo) -> None:
        """Make the place if it is not there, and describe what comes into it.

        Raises
        ------
        WriteError
            If it cannot be written to, holds other things, or was begun as another embedding.
        ReadError
            If its description is damaged.
        """
        found = self._names() or set()
        if INFO in found:
            there = self.info()
            for name in EmbeddingInfo.model_fields:
                if getattr(there, name) != getattr(info, name):
                    shown = "" if name == "parts" else f" ({getattr(there, name)}, now {getattr(info, name)})"
                    what = "inputs" if name == "parts" else name
                    raise WriteError(
                        f"{self.path} holds an embedding with other {what}{shown}; choose another place, or delete it"
                    )
            return
        if foreign := next((name for name in sorted(found) if not name.startswith(".")), None):
            raise WriteError(
                f"{self.path} should be empty or hold an embedding, and it holds {foreign}; choose another place"
            )
        if self._here:
            try:
                Path(self.path).mkdir(exist_ok=True)
            except OSError as error:
                raise WriteError(f"{self.path} cannot be made ({error.strerror}); choose another place") from None
        self._put(INFO, info.model_dump_json(indent=1).encode() + b"\n")

    def info(self) -> EmbeddingInfo:
        """Read the description.

        Raises
        ------
        ReadError
            If it is missing, damaged or of a newer version.
        """
        where = f"{self.path}/{INFO}"
        try:
            content = json.loads(self._get(INFO))
            found = content.get("version") if isinstance(content, dict) else None
            if isinstance(found, int) and found > VERSION:
                raise ReadError(
                    f"{where} was written by a newer xlatent (version {found} of the format, and this one reads "
                    f"{VERSION}); upgrade with pip install -U xlatent"
                )
            return EmbeddingInfo.model_validate(content)
        except ValidationError as error:
            first = error.errors()[0]
            what = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        except ValueError as error:
            what = str(error)
        raise ReadError(f"{where} does not describe an embedding ({what}); delete the folder and make it again")

    def write(self, file: str, rows: pa.Table, failures: Iterable[Sequence[str]] = ()) -> None:
        """Write a part, whole or not at all, with the failures that belong to it.

        Raises
        ------
        WriteError
            If that is not possible.
        """
        told = {_FAILURES: json.dumps([list(failure) for failure in failures], ensure_ascii=False).encode()}
        buffer = pa.BufferOutputStream()
        pq.write_table(rows.replace_schema_metadata((rows.schema.metadata or {}) | told), buffer)
        self._put(file, buffer.getvalue().to_pybytes())

    def written(self, files: Iterable[str]) -> dict[str, Written]:
        """Tell which of some parts are there and whole, and what they hold."""
        there = self._names() or set()
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            asked = [file for file in files if file in there]
            return {file: what for file, what in zip(asked, pool.map(self._look, asked), strict=True) if what}

    def missing(self, files: Iterable[str]) -> list[str]:
        """Tell which of some parts are not there."""
        there = self._names() or set()
        return [file for file in files if file not in there]

    def read(self) -> pa.Table:
        """Read all rows, in the order of the description.

        Raises
        ------
        ReadError
            If a part is missing or damaged.
        """
        files = [part.file for part in self.info().parts]
        if missing := self.missing(files):
            raise ReadError(
                f"{self.path} is unfinished: {len(missing)} of its {len(files)} parts are missing ({missing[0]} is the "
                "first); give the command that makes it again, which does those only"
            )
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            rows = pa.concat_tables(pool.map(self._table, files))
        kept = {key: value for key, value in (rows.schema.metadata or {}).items() if key != _FAILURES}
        return rows.replace_schema_metadata(kept)

    def sweep(self) -> None:
        """Remove what writers that were killed have left."""
        if self._here:
            for unfinished in Path(self.path).glob(".*.part"):
                unfinished.unlink(missing_ok=True)

    def _look(self, file: str) -> Written | None:
        try:
            with self._files.open(f"{self._root}/{file}", "rb") as stream:
                metadata = pq.ParquetFile(stream).metadata
                return Written(metadata.num_rows, json.loads((metadata.metadata or {})[_FAILURES]))
        except (pa.ArrowException, OSError, KeyError, ValueError):
            return None

    def _table(self, file: str) -> pa.Table:
        try:
            return pq.read_table(pa.BufferReader(self._get(file)))
        except pa.ArrowException as error:
            raise ReadError(
                f"{self.path}/{file} is cut off or damaged ({_first_line(error)}); delete it and give the command that "
                "makes the embedding again"
            ) from None

    def _names(self) -> set[str] | None:
        """Names of the files that are there now; None if there is no such place."""
        try:
            self._files.invalidate_cache()
            return {name.rstrip("/").rpartition("/")[2] for name in self._files.ls(self._root, detail=False)}
        except FileNotFoundError:
            return None
        except Exception as error:  # each kind of file system has its own
            raise ReadError(f"{self.path} cannot be read ({_first_line(error)}); check the address") from None

    def _get(self, name: str) -> bytes:
        try:
            content: bytes = self._files.cat_file(f"{self._root}/{name}")
        except FileNotFoundError:
            what = f"should hold an {INFO}, and it has none; give the path of an embedding"
            raise ReadError(f"{self.path} {what if name == INFO else f'has lost {name}; make it again'}") from None
        except Exception as error:  # as above
            raise ReadError(f"{self.path}/{name} cannot be read ({_first_line(error)}); check the address") from None
        return content

    def _put(self, name: str, content: bytes) -> None:
        try:
            if not self._here:
                self._files.pipe_file(f"{self._root}/{name}", content)
                return
            unfinished = Path(self.path) / f".{name}.{uuid4().hex}.part"
            try:
                unfinished.write_bytes(content)
                unfinished.replace(Path(self.path) / name)
            finally:
                unfinished.unlink(missing_ok=True)
        except Exception as error:  # as above
            raise WriteError(
                f"{self.path}/{name} cannot be written ({_first_line(error)}); free some space or choose another place"
            ) from None


def read(path: str | Path) -> pa.Table:
    """Read all rows of an embedding in parts.

    Raises
    ------
    ReadError
        As `Parts.read`.
    """
    return Parts(path).read()


def _first_line(error: Exception) -> str:
    text: Any = getattr(error, "strerror", None) or error
    return (str(text).splitlines() or [type(error).__name__])[0]
