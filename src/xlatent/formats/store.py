"""Stores: many spectra in one folder of Parquet shards, readable from any place that fsspec knows."""

import hashlib
import json
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Shaped
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from xlatent.core.errors import ParameterError, ReadError, WriteError, XlatentWarning
from xlatent.core.spectrum import Spectrum
from xlatent.core.version import SOFTWARE
from xlatent.formats.store_rows import MATRICES, SCHEMA, Responses, Rows, encode, write_parquet

INFO = "store.json"
VERSION = 1
SHARD_ROWS = 1024
"""Spectra in a shard; about 5 MB of those with 1,024 channels."""


class ShardInfo(BaseModel):
    """What ``store.json`` says of a shard."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: str = Field(pattern=r"^[\w-]+\.parquet$")
    rows: int = Field(ge=1)
    sha256: str


class StoreInfo(BaseModel):
    """What ``store.json`` says of a store; a shard that it does not name is no part of it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["xlatent store"] = "xlatent store"
    version: int = VERSION
    software: str = ""
    complete: bool = False
    shards: tuple[ShardInfo, ...] = ()


def is_store(path: str | Path) -> bool:
    """Tell whether a path is that of a store: a folder with a ``store.json``, or any URL."""
    return "://" in str(path) or (Path(path) / INFO).is_file()


def open_store(path: str | Path) -> "Store":
    """Open a store for reading.

    Parameters
    ----------
    path
        A folder, or a URL that fsspec knows (``http://``, ``s3://``, ``memory://`` and others).

    Raises
    ------
    ReadError
        If there is no store, or its description is damaged or of a newer version.

    Warns
    -----
    XlatentWarning
        If its building was not finished.
    """
    store = Store(path)
    if not store.info.complete:
        warnings.warn(
            f"{path} is unfinished and holds {len(store)} spectra so far; give the command that builds it again to "
            "finish it",
            XlatentWarning,
            stacklevel=2,
        )
    return store


class Shard:
    """One Parquet file of spectra of a store.

    Parameters
    ----------
    store
        The store.
    info
        What its description says of the file.
    """

    def __init__(self, store: "Store", info: ShardInfo) -> None:
        self._store = store
        self.info = info

    def __len__(self) -> int:
        return self.info.rows

    def table(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Read the rows, or some columns of them.

        Raises
        ------
        ReadError
            If the file is missing, or is not as it was written.
        """
        return pq.read_table(self._content(), columns=columns)

    def _content(self) -> pa.BufferReader:
        content = self._store._fetch(self.info.file)
        if hashlib.sha256(content).hexdigest() != self.info.sha256:
            raise ReadError(
                f"{self._store.path}/{self.info.file}: its {len(content)} bytes are not those that were written "
                "(sha256): it is cut off or damaged; fetch it again, or build the store again, which keeps the others"
            )
        return pa.BufferReader(content)

    def rows(self, split: str | None = None) -> Rows:
        """Read the spectra, or those of one split.

        Returns
        -------
        Spectra by index, ``rows[0]`` to ``rows[len(rows) - 1]``. Those with equal responses share one object.

        Raises
        ------
        ReadError
            As `table`.
        ParameterError
            If the store has no splits.
        """
        content = self._content()
        wanted = None
        if split is not None:
            if "split" not in self._store.schema.names:
                raise ParameterError(
                    f"{self._store.path} should have a column split, and has none; make it with xlatent build"
                )
            import pyarrow.compute as pc

            wanted = pc.equal(pq.read_table(content, columns=["split"]).column("split"), split)

        def columns(names: Sequence[str]) -> pa.Table:
            table = pq.read_table(content, columns=names)
            return table if wanted is None else table.filter(wanted)

        return Rows(columns, self._store._responses)

    def __iter__(self) -> Iterator[Spectrum]:
        rows = self.rows()
        return (rows[i] for i in range(len(rows)))


class Store:
    """Many spectra in the order in which they were stored. Made by `open_store`.

    Attributes
    ----------
    path : str
    info : StoreInfo
    shards : list of Shard
        Each holds its spectra by the thousand and is read as a whole; iterating over one gives Spectrum objects.
    """

    def __init__(self, path: str | Path, info: StoreInfo | None = None) -> None:
        self.path = str(path).rstrip("/")
        self._responses = Responses(self._matrix)
        self.info = self._read_info() if info is None else info
        self.shards = [Shard(self, info) for info in self.info.shards]
        self._latest: tuple[Shard, Rows] | None = None

    def __repr__(self) -> str:
        """Path and size."""
        return f"<Store {self.path!r}: {len(self)} spectra in {len(self.shards)} shards>"

    def __len__(self) -> int:
        return sum(len(shard) for shard in self.shards)

    def __iter__(self) -> Iterator[Spectrum]:
        return self.spectra()

    def __getitem__(self, index: int) -> Spectrum:
        """Return one spectrum; the shard it is in stays in memory for the next."""
        row = index
        for shard in self.shards:
            if 0 <= row < len(shard):
                if self._latest is None or self._latest[0] is not shard:
                    self._latest = shard, shard.rows()
                return self._latest[1][row]
            row -= len(shard)
        raise IndexError(f"{self.path} holds {len(self)} spectra, and there is none with index {index}")

    @cached_property
    def schema(self) -> pa.Schema:
        """Columns with their types; units and descriptions are in the metadata of their fields."""
        return pq.read_schema(pa.BufferReader(self._fetch(self.shards[0].info.file))) if self.shards else SCHEMA

    def spectra(self, split: str | None = None) -> Iterator[Spectrum]:
        """Read the spectra one after the other, with one shard in memory.

        Parameters
        ----------
        split
            ``train``, ``validation`` or ``test``; all spectra if not given.

        Raises
        ------
        ReadError
            If a file of the store is missing or damaged.
        ParameterError
            If a split is asked for and the store has none.
        """
        for shard in self.shards:
            rows = shard.rows(split)
            yield from (rows[i] for i in range(len(rows)))

    def columns(self, names: Sequence[str]) -> pa.Table:
        """Read some columns of all rows, for example ``["name", "source", "split", "hard_ms"]``.

        Raises
        ------
        ParameterError
            If there is no such column.
        ReadError
            If a shard is missing or damaged.
        """
        missing = [name for name in names if name not in self.schema.names]
        if missing and self.shards:
            known = ", ".join(name for name in self.schema.names if name not in SCHEMA.names)
            raise ParameterError(f"{self.path} has no column {missing[0]}; beside the spectra's own it has {known}")
        if not self.shards:
            return pa.table({name: [] for name in names})
        return pa.concat_tables([shard.table(names) for shard in self.shards])

    def _matrix(self, key: str) -> pa.Table:
        name = f"{MATRICES}/{key}.parquet"
        try:
            return pq.read_table(pa.BufferReader(self._fetch(name)), page_checksum_verification=True)
        except (pa.ArrowException, OSError) as error:
            raise ReadError(
                f"{self.path}/{name} is cut off or damaged ({_first_line(error)}); fetch it again"
            ) from None

    def _fetch(self, name: str) -> bytes:
        """Content of a file of the store."""
        import fsspec

        url = f"{self.path}/{name}"
        try:
            files, place = fsspec.core.url_to_fs(url)
            content = files.cat_file(place)
        except FileNotFoundError:
            if name == INFO:
                raise ReadError(
                    f"{self.path} should hold a {INFO}, and it has none; give the path of a store"
                ) from None
            raise ReadError(
                f"{url} is missing from the store; fetch it again, or build the store again, which keeps the others"
            ) from None
        except Exception as error:  # each kind of file system has its own
            raise ReadError(f"{url} cannot be read ({_first_line(error)}); check the address") from None
        return content

    def _read_info(self) -> StoreInfo:
        where = f"{self.path}/{INFO}"
        try:
            content = json.loads(self._fetch(INFO))
            found = content.get("version") if isinstance(content, dict) else None
            if isinstance(found, int) and found > VERSION:
                raise ReadError(
                    f"{where} was written by a newer xlatent (version {found} of the format, and this one reads "
                    f"{VERSION}); upgrade with pip install -U xlatent"
                )
            return StoreInfo.model_validate(content)
        except ValidationError as error:
            first = error.errors()[0]
            what = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        except ValueError as error:
            what = str(error)
        raise ReadError(f"{where} does not describe a store ({what}); fetch the store again, or build it again")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


class Writer:
    """Adds rows to a store, which is made if it is not there; shards are written whole, and nothing else counts.

    Used as a context manager: only one process at a time can be inside. A store whose writing was ended in whatever
    way holds the shards finished by then; those found damaged are taken out of it, with a warning.

    Parameters
    ----------
    path
        Folder of the store.

    Raises
    ------
    WriteError
        If the folder is not writable, holds other things, or another process is writing there.
    ReadError
        If its description is damaged or of a newer version.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._waiting: list[pa.Table] = []

    def __enter__(self) -> "Writer":
        try:
            if self.path.is_dir() and not is_store(self.path) and self._foreign():
                raise WriteError(
                    f"{self.path} should be a store or an empty folder, and it holds {self._foreign()}; choose another"
                )
            (self.path / MATRICES).mkdir(parents=True, exist_ok=True)
            self._lock = _locked(self.path)
        except OSError as error:
            raise WriteError(f"{self.path} cannot be written ({error.strerror}); choose another folder") from error
        for unfinished in (*self.path.glob(".*.part"), *(self.path / MATRICES).glob(".*.part")):
            unfinished.unlink()
        if not is_store(self.path):
            self._describe(StoreInfo())
        self.store = Store(self.path)
        self._describe(self.store.info.model_copy(update={"shards": tuple(self._whole()), "complete": False}))
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: Any) -> None:
        try:
            if kind is None or issubclass(kind, KeyboardInterrupt):
                self._flush()
            if kind is None:
                self._describe(self.store.info.model_copy(update={"complete": True}))
        finally:
            os.close(self._lock)

    def append(self, rows: pa.Table) -> None:
        """Add rows, as `encode` makes them, with further columns after those.

        Raises
        ------
        WriteError
            If their columns are not those of the store, or the disk is full.
        """
        if not rows.num_rows:
            return
        expected = self._waiting[0].schema if self._waiting else self.store.schema if self.store.shards else rows.schema
        if not rows.schema.equals(expected):
            found, there = ({f"{field.name} ({field.type})" for field in schema} for schema in (rows.schema, expected))
            raise WriteError(
                f"{self.path} holds rows with other columns (they differ in {', '.join(sorted(found ^ there))}); "
                "build into another folder"
            )
        self._waiting.append(rows)
        if sum(part.num_rows for part in self._waiting) >= SHARD_ROWS:
            self._flush()

    def _flush(self) -> None:
        """Write what waits as a shard, then name it in the description."""
        if not self._waiting:
            return
        taken = {info.file for info in self.store.info.shards}
        file = next(name for i in range(len(taken) + 1) if (name := f"spectra-{i:05d}.parquet") not in taken)
        table = pa.concat_tables(self._waiting)
        write_parquet(table, self.path / file)
        digest = hashlib.sha256((self.path / file).read_bytes()).hexdigest()
        shard = ShardInfo(file=file, rows=table.num_rows, sha256=digest)
        self._describe(self.store.info.model_copy(update={"shards": (*self.store.info.shards, shard)}))
        self._waiting = []

    def _describe(self, info: StoreInfo) -> None:
        info = info.model_copy(update={"software": SOFTWARE})
        unfinished = self.path / f".{INFO}.{os.getpid()}.part"
        try:
            unfinished.write_text(info.model_dump_json(indent=1) + "\n", encoding="utf-8")
            unfinished.replace(self.path / INFO)
        except OSError as error:
            raise WriteError(f"{self.path / INFO} cannot be written ({error.strerror}); free some space") from error
        finally:
            unfinished.unlink(missing_ok=True)
        self.store = Store(self.path, info)

    def _whole(self) -> Iterator[ShardInfo]:
        """Shards that are as they were written."""
        for shard in self.store.shards:
            try:
                shard.table([])
                yield shard.info
            except ReadError as error:
                warnings.warn(f"{error}: its spectra are taken out of the store", XlatentWarning, stacklevel=3)

    def _foreign(self) -> str:
        """Name of something in the folder that is no part of a store, if there is any."""
        return next((item.name for item in self.path.iterdir() if item.name not in (MATRICES, _LOCK)), "")


_LOCK = ".lock"


def _locked(folder: Path) -> int:
    """Lock of a folder, which ends with the process that holds it, however it ends."""
    import fcntl

    handle = os.open(folder / _LOCK, os.O_CREAT | os.O_RDWR, 0o666)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise WriteError(f"another process is writing into {folder}; wait for its end or choose another") from None
    return handle


def write(
    spectra: Iterable[Spectrum],
    path: str | Path,
    columns: Mapping[str, Sequence[Any] | Shaped[np.ndarray, " _"]] | None = None,
) -> Store:
    """Add spectra to a store, which is made if it is not there.

    Parameters
    ----------
    spectra
        Read one after the other; memory does not grow with their number.
    path
        Folder of the store.
    columns
        Further columns, one value a spectrum: ``split`` (``train``, ``validation``, ``test``), ``source`` (the name of
        what was observed) and anything else.

    Raises
    ------
    WriteError, ReadError
        As `Writer`.
    ParameterError
        If a spectrum cannot be stored, or a column is not as long as there are spectra.
    """
    path = Path(path)
    further = {name: pa.array(values) for name, values in (columns or {}).items()}
    waiting, done = iter(spectra), 0
    with Writer(path) as writer:
        while batch := list(islice(waiting, 16)):
            rows = encode(batch, path)
            for name, values in further.items():
                if len(values) < done + len(batch):
                    raise ParameterError(f"column {name} has {len(values)} values, and there are more spectra")
                rows = rows.append_column(name, values[done : done + len(batch)])
            writer.append(rows)
            done += len(batch)
    return open_store(path)
