"""Embeddings in parts: a folder or URL with one Parquet file for each shard, written whole by whoever made it."""

import json
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field

from xlatent.core.atomic import remove_temporaries
from xlatent.core.errors import ReadError, WriteError
from xlatent.core.messages import first_line
from xlatent.formats.described_folder import DescribedFolder, Kind, holds

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


KIND = Kind(
    INFO,
    EmbeddingInfo,
    VERSION,
    "embedding",
    remedy="delete what is left of it and make it again",
    remake="delete the folder and make it again",
)


def is_embedding(path: str | Path) -> bool:
    """Tell whether a path is that of an embedding in parts: a folder with an ``_embedding.json``, or any URL."""
    return holds(path, INFO)


class PartitionedTable:
    """A table of latents in parts, each a Parquet file that is written whole: an embedding that can be gone on with.

    Parameters
    ----------
    path : str or Path
        A folder, or a URL that fsspec knows (``s3://``, ``gs://`` and others).

    Attributes
    ----------
    path : str

    Raises
    ------
    WriteError
        If the library for that kind of URL is missing.
    """

    def __init__(self, path: str | Path) -> None:
        try:
            self._folder = DescribedFolder(path, KIND)
        except ReadError as error:
            raise WriteError(str(error)) from None
        self.path = self._folder.path

    def create_or_resume(self, info: EmbeddingInfo) -> None:
        """Make the place if it is not there, and describe what comes into it.

        Raises
        ------
        WriteError
            If it cannot be written to, holds other things, or was begun as another embedding.
        ReadError
            If its description is damaged.
        """
        found = self._folder.names() or set()
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
        if self._folder.local:
            try:
                Path(self.path).mkdir(exist_ok=True)
            except OSError as error:
                raise WriteError(f"{self.path} cannot be made ({error.strerror}); choose another place") from None
        self._folder.write_info(info)

    def info(self) -> EmbeddingInfo:
        """Read the description.

        Raises
        ------
        ReadError
            If it is missing, damaged or of a newer version.
        """
        return self._folder.read_info()

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
        self._folder.write(file, buffer.getvalue().to_pybytes())

    def completed(self, files: Iterable[str]) -> dict[str, Written]:
        """Tell which of some parts are there and whole, and what they hold."""
        there = self._folder.names() or set()
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            asked = [file for file in files if file in there]
            return {file: what for file, what in zip(asked, pool.map(self._inspect, asked), strict=True) if what}

    def missing(self, files: Iterable[str]) -> list[str]:
        """Tell which of some parts are not there."""
        there = self._folder.names() or set()
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
            # Parts of the version before may lack columns, which are missing then.
            rows = pa.concat_tables(pool.map(self._read_part, files), promote_options="default")
        kept = {key: value for key, value in (rows.schema.metadata or {}).items() if key != _FAILURES}
        return rows.replace_schema_metadata(kept)

    def remove_temporaries(self) -> None:
        """Remove what writers that were killed have left."""
        if self._folder.local:
            remove_temporaries(self.path)

    def _inspect(self, file: str) -> Written | None:
        """Tell what a part holds; None if it is not whole."""
        try:
            with self._folder.open(file) as stream:
                metadata = pq.ParquetFile(stream).metadata
                return Written(metadata.num_rows, json.loads((metadata.metadata or {})[_FAILURES]))
        except (pa.ArrowException, OSError, KeyError, ValueError):
            return None

    def _read_part(self, file: str) -> pa.Table:
        try:
            return pq.read_table(pa.BufferReader(self._folder.read(file)))
        except pa.ArrowException as error:
            raise ReadError(
                f"{self.path}/{file} is cut off or damaged ({first_line(error)}); delete it and give the command that "
                "makes the embedding again"
            ) from None


def read(path: str | Path) -> pa.Table:
    """Read all rows of an embedding in parts.

    Raises
    ------
    ReadError
        As `PartitionedTable.read`.
    """
    return PartitionedTable(path).read()
