"""Stores: many spectra in one folder of Parquet shards, readable from any place that fsspec knows."""

import hashlib
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Shaped

from xlatent.core.atomic import remove_temporaries
from xlatent.core.errors import ParameterError, ReadError, WriteError, XlatentWarning
from xlatent.core.spectrum import Spectrum
from xlatent.core.version import SOFTWARE
from xlatent.formats.described_folder import holds
from xlatent.formats.store_rows import MATRICES, SCHEMA, RowEncoder, write_parquet
from xlatent.formats.store_shards import INFO, ShardInfo, ShardReader, StoredSpectra, StoreInfo

SHARD_ROWS = 1024
"""Spectra in a shard; about 5 MB of those with 1,024 channels."""
_LOCK = ".lock"


def is_store(path: str | Path) -> bool:
    """Tell whether a path is that of a store: a folder with a ``store.json``, or any URL."""
    return holds(path, INFO)


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

    Examples
    --------
    >>> import tempfile
    >>> from importlib.resources import files
    >>> import xlatent as xl
    >>> folder = xl.build_store(files("xlatent") / "sample", tempfile.mkdtemp() + "/store").path
    >>> store = open_store(folder)
    >>> len(store), store[0].name, store.columns(["split"]).num_rows
    (6, 'sim17_000', 6)
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
    reader : ShardReader
        Of the store.
    info : ShardInfo
        What its description says of the file.
    """

    def __init__(self, reader: ShardReader, info: ShardInfo) -> None:
        self._reader = reader
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
        return self._reader.table(self.info, columns)

    def spectra(self, split: str | None = None) -> StoredSpectra:
        """Read the spectra, or those of one split.

        Raises
        ------
        ReadError
            As `table`.
        ParameterError
            If the store has no splits.
        """
        return self._reader.read(self.info, split)

    def __iter__(self) -> Iterator[Spectrum]:
        return iter(self.spectra())


class Store:
    """Many spectra in the order in which they were stored, made by `open_store`; threads may share it.

    Attributes
    ----------
    path : str
    info : StoreInfo
    shards : list of Shard
        Each holds its spectra by the thousand and is read as a whole; iterating over one gives Spectrum objects.
    """

    def __init__(self, path: str | Path, info: StoreInfo | None = None) -> None:
        self._reader = ShardReader(path)
        self.path = self._reader.folder.path
        self.info = self._reader.folder.read_info() if info is None else info
        self.shards = [Shard(self._reader, info) for info in self.info.shards]

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
                return self._reader.read_kept(shard.info)[row]
            row -= len(shard)
        raise IndexError(f"{self.path} holds {len(self)} spectra, and there is none with index {index}")

    @cached_property
    def schema(self) -> pa.Schema:
        """Columns with their types; units and descriptions are in the metadata of their fields."""
        return self._reader.schema(self.shards[0].info) if self.shards else SCHEMA

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
            yield from shard.spectra(split)

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
        from filelock import FileLock  # here, as commands that write no store begin sooner without it

        self.path = Path(path)
        self._lock = FileLock(self.path / _LOCK, is_singleton=False)
        self._waiting: list[pa.Table] = []

    def __enter__(self) -> "Writer":
        from filelock import Timeout

        try:
            if self.path.is_dir() and not is_store(self.path) and self._foreign():
                raise WriteError(
                    f"{self.path} should be a store or an empty folder, and it holds {self._foreign()}; choose another"
                )
            (self.path / MATRICES).mkdir(parents=True, exist_ok=True)
            # Ends with the process that holds it, however it ends.
            self._lock.acquire(blocking=False)
        except Timeout:
            raise WriteError(
                f"another process is writing into {self.path}; wait for its end or choose another"
            ) from None
        except OSError as error:
            raise WriteError(f"{self.path} cannot be written ({error.strerror}); choose another folder") from error
        for folder in (self.path, self.path / MATRICES):
            remove_temporaries(folder)
        self.store = Store(self.path) if is_store(self.path) else Store(self.path, StoreInfo())
        self._describe(self.store.info.model_copy(update={"shards": tuple(self._whole()), "complete": False}))
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: Any) -> None:
        try:
            if kind is None or issubclass(kind, KeyboardInterrupt):
                self._flush()
            if kind is None:
                self._describe(self.store.info.model_copy(update={"complete": True}))
        finally:
            self._lock.release()

    def append(self, rows: pa.Table) -> None:
        """Add rows, as `RowEncoder` makes them, with further columns after those.

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
        self.store._reader.folder.write_info(info)
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

    Examples
    --------
    >>> import tempfile
    >>> spectra = [Spectrum(np.arange(4.0), 1e4, meta={"name": name}) for name in "ab"]
    >>> write(spectra, tempfile.mkdtemp(), {"split": ["train", "test"]})[1].name
    'b'
    """
    path = Path(path)
    further = {name: pa.array(values) for name, values in (columns or {}).items()}
    waiting, done, encoder = iter(spectra), 0, RowEncoder(path)
    with Writer(path) as writer:
        while batch := list(islice(waiting, 16)):
            rows = encoder.encode(batch)
            for name, values in further.items():
                if len(values) < done + len(batch):
                    raise ParameterError(f"column {name} has {len(values)} values, and there are more spectra")
                rows = rows.append_column(name, values[done : done + len(batch)])
            writer.append(rows)
            done += len(batch)
    return open_store(path)
