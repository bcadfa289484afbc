"""Spectra read from the shards of a store, each made when it is asked for."""

import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Shaped
from pydantic import BaseModel, ConfigDict, Field
from scipy.sparse import csr_array

from xlatent.core.dates import modified_julian_date
from xlatent.core.errors import ParameterError, ReadError
from xlatent.core.messages import first_line
from xlatent.core.spectrum import Response, Spectrum
from xlatent.formats.described_folder import DescribedFolder, Kind
from xlatent.formats.store_rows import BACKGROUND, IDENTITY, MATRICES, MATRIX, PART, SCHEMA, SOURCE

INFO = "store.json"
VERSION = 1
_SOURCE_NAME = "source"  # column beside the spectra's own, where whoever built the store knew of what they are


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


KIND = Kind(
    INFO,
    StoreInfo,
    VERSION,
    "store",
    remedy="fetch it again, or build the store again, which keeps the others",
    remake="fetch the store again, or build it again",
)


class ShardReader:
    """Reads shards of a store; threads may share it.

    Parameters
    ----------
    path : str or Path
        A folder, or a URL that fsspec knows. Its description is not read.

    Attributes
    ----------
    folder : DescribedFolder
    """

    def __init__(self, path: str | Path) -> None:
        self.folder = DescribedFolder(path, KIND)
        self._responses = Responses(self._matrix)
        self._latest: tuple[ShardInfo, StoredSpectra] | None = None

    def schema(self, info: ShardInfo) -> pa.Schema:
        """Read the types of a shard's columns.

        Raises
        ------
        ReadError
            As `table`.
        """
        return pq.read_schema(self._content(info))

    def table(self, info: ShardInfo, columns: Sequence[str] | None = None) -> pa.Table:
        """Read the rows of a shard, or some columns of them.

        Raises
        ------
        ReadError
            If the file is missing, or is not as it was written.
        """
        return pq.read_table(self._content(info), columns=columns)

    def read(self, info: ShardInfo, split: str | None = None) -> "StoredSpectra":
        """Read the spectra of a shard, or those of one split.

        Returns
        -------
        StoredSpectra
            By index, from 0. Those with equal responses share one object.

        Raises
        ------
        ReadError
            As `table`.
        ParameterError
            If the store has no splits.
        """
        content = self._content(info)
        there = pq.read_schema(content).names
        wanted = None
        if split is not None:
            if "split" not in there:
                raise ParameterError(
                    f"{self.folder.path} should have a column split, and has none; make it with xlatent build"
                )
            import pyarrow.compute as pc

            wanted = pc.equal(pq.read_table(content, columns=["split"]).column("split"), split)

        def columns(names: Sequence[str]) -> pa.Table:
            table = pq.read_table(content, columns=[name for name in names if name in there])
            return table if wanted is None else table.filter(wanted)

        return StoredSpectra(columns, self._responses)

    def read_kept(self, info: ShardInfo) -> "StoredSpectra":
        """Read the spectra of a shard, or take those read last: several who ask may want rows of one."""
        latest = self._latest  # another thread may put another there
        if latest is None or latest[0] != info:
            self._latest = latest = info, self.read(info)
        return latest[1]

    def _content(self, info: ShardInfo) -> pa.BufferReader:
        content = self.folder.read(info.file)
        if hashlib.sha256(content).hexdigest() != info.sha256:
            raise ReadError(
                f"{self.folder.path}/{info.file}: its {len(content)} bytes are not those that were written "
                "(sha256): it is cut off or damaged; fetch it again, or build the store again, which keeps the others"
            )
        return pa.BufferReader(content)

    def _matrix(self, key: str) -> pa.Table:
        name = f"{MATRICES}/{key}.parquet"
        try:
            return pq.read_table(pa.BufferReader(self.folder.read(name)), page_checksum_verification=True)
        except (pa.ArrowException, OSError) as error:
            raise ReadError(
                f"{self.folder.path}/{name} is cut off or damaged ({first_line(error)}); fetch it again"
            ) from None


class Responses:
    """Responses of a store: those that are equal are one object, and the latest are kept.

    Parameters
    ----------
    load
        Gives the table of a matrix for its key.
    budget
        Bytes of matrices and areas to keep.
    """

    def __init__(self, load: Callable[[str], pa.Table], budget: int = 128 * 2**20) -> None:
        self._load = load
        self._budget = budget
        self._lock = Lock()
        # By matrix: a response without area, and those made of it by key and meta.
        self._kept: OrderedDict[str, tuple[Response, dict[tuple[str, str], Response]]] = OrderedDict()

    def get(self, matrix: str, key: str, area: Callable[[], Shaped[np.ndarray, " n_energy"]], meta: str) -> Response:
        """Return the response of a row; the area is asked for only where it is needed."""
        with self._lock:
            if matrix not in self._kept:
                self._kept[matrix] = _response_without_area(self._load(matrix)), {}
            self._kept.move_to_end(matrix)
            bare, made = self._kept[matrix]
            if (key, meta) in made:
                return made[key, meta]
            made[key, meta] = response = replace(bare, area=area(), meta=json.loads(meta))
            while self._kept and sum(_size(*entry) for entry in self._kept.values()) > self._budget:
                self._kept.popitem(last=False)
            return response


def _size(bare: Response, made: dict[tuple[str, str], Response]) -> int:
    """Bytes of a matrix and of the areas that go with it."""
    return bare.redistribution.nnz * 12 + len(made) * bare.area.nbytes


def _response_without_area(table: pa.Table) -> Response:
    """Grids and redistribution of a matrix file."""
    cell = {name: _Lists(table.column(name))[0] for name in MATRIX.names if name != "first_channel"}
    start, length, values = cell["group_channel"], cell["group_length"], cell["values"]
    # Channels count up within a group.
    offset = start - (np.cumsum(length, dtype=np.int32) - length)
    indices = np.arange(values.size, dtype=np.int32) + np.repeat(offset, length)
    n_energy, n_chan = cell["energy_lo"].size, cell["chan_lo"].size
    return Response(
        cell["energy_lo"],
        cell["energy_hi"],
        np.zeros(n_energy),
        csr_array((values, indices, cell["row_start"]), shape=(n_energy, n_chan)),
        cell["chan_lo"],
        cell["chan_hi"],
        table.column("first_channel")[0].as_py(),
    )


class _Lists:
    """A column of arrays, one a row, some of them missing."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        array = column.combine_chunks()
        self.offsets = array.offsets.to_numpy()
        self.values = array.values.to_numpy(zero_copy_only=False)
        self._missing = array.is_null().to_numpy(zero_copy_only=False)

    def __getitem__(self, row: int) -> Any:
        if self._missing[row]:
            return None
        # A copy, so that one spectrum does not keep a whole shard in memory.
        return self.values[self.offsets[row] : self.offsets[row + 1]].copy()


class StoredSpectra:
    """Spectra of a table, each made when it is asked for.

    Parameters
    ----------
    columns
        Reads some columns of `SCHEMA`.
    responses
        Of their store.
    """

    def __init__(self, columns: Callable[[Sequence[str]], pa.Table], responses: Responses) -> None:
        self._responses = responses
        self._columns = columns
        table = columns([*(name for name in SCHEMA.names if name != "area"), _SOURCE_NAME])
        self._n = table.num_rows
        self._channels: dict[tuple[int, int], np.ndarray] = {}
        self._cells: dict[str, Any] = {}
        for field in table.schema:
            column = table.column(field.name)
            self._cells[field.name] = _Lists(column) if pa.types.is_list(field.type) else column.to_pylist()
        self._start = np.concatenate([[0], np.cumsum(self._cells["n_chan"], dtype=np.int64)])
        self._dense = {prefix: self._counts(prefix) for prefix in (SOURCE, BACKGROUND)}

    @cached_property
    def _area(self) -> _Lists:
        """Areas, most of what a shard holds, are read where a response is met for the first time."""
        return _Lists(self._columns(["area"]).column("area"))

    def _counts(self, prefix: str) -> Shaped[np.ndarray, " n"]:
        """Counts of all spectra with their empty channels, one after the other."""
        index, counts = self._cells[f"{prefix}channel_index"], self._cells[f"{prefix}counts"]
        dense = np.zeros(self._start[-1])
        dense[index.values + np.repeat(self._start[:-1], np.diff(index.offsets))] = counts.values
        return dense

    def __len__(self) -> int:
        return self._n

    def __iter__(self) -> Iterator[Spectrum]:
        return (self[row] for row in range(self._n))

    def __getitem__(self, row: int) -> Spectrum:
        """Return one spectrum, equal to the one that was stored."""
        cells = self._cells
        meta = {name: cells[name][row] for name in IDENTITY if cells[name][row] is not None}
        # A store is split by object or name where no catalogue knows better; an object may be a field of sources.
        source = cells[_SOURCE_NAME][row] if _SOURCE_NAME in cells else None
        if source and source not in (meta.get("object"), meta.get("name")):
            meta[_SOURCE_NAME] = source
        background, response = None, None
        if cells["background_exposure"][row] is not None:
            background = self._part(row, BACKGROUND, {}, None, None)
        if cells["matrix"][row] is not None:
            keys = cells["matrix"][row], cells["response"][row]
            response = self._responses.get(*keys, lambda: self._area[row], cells["response_meta"][row])
        spectrum = self._part(row, SOURCE, meta, background, response)
        if "date" in meta and "mjd" not in spectrum.meta:  # stores of before hold the date alone
            start = modified_julian_date(meta["date"])
            if start is not None:
                spectrum.meta["mjd"] = start
        return spectrum

    def _part(
        self, row: int, prefix: str, meta: dict[str, Any], background: Spectrum | None, response: Response | None
    ) -> Spectrum:
        cell = {name: self._cells[prefix + name][row] for name in PART if name not in ("channel_index", "counts")}
        begin, end = int(self._start[row]), int(self._start[row + 1])
        first, channels = cell["first_channel"], cell["channels"]
        return Spectrum(
            self._dense[prefix][begin:end].copy(),
            cell["exposure"],
            cell["backscale"] if cell["backscale"] is not None else cell["backscale_vector"],
            cell["areascale"] if cell["areascale"] is not None else cell["areascale_vector"],
            cell["quality"],
            cell["grouping"],
            self._numbered(first, end - begin) if channels is None else channels,
            background,
            response,
            meta if cell["meta"] == "{}" else json.loads(cell["meta"]) | meta,
        )

    def _numbered(self, first: int, n: int) -> Shaped[np.ndarray, " n"]:
        """Channel numbers that follow each other; all spectra that have the same share them."""
        if (first, n) not in self._channels:
            numbers = np.arange(first, first + n)
            numbers.setflags(write=False)
            self._channels[first, n] = numbers
        return self._channels[first, n]
