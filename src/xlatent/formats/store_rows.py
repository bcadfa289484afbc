"""Spectra as rows of an Arrow table, without any loss."""

import hashlib
import json
import os
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Shaped
from scipy.sparse import csr_array

from xlatent.core.errors import ParameterError, WriteError
from xlatent.core.spectrum import Response, Spectrum

MATRICES = "matrices"
"""Folder of the redistribution matrices in a store: ``<key>.parquet``, each stored once."""

_TEXT, _WHOLE, _REAL = pa.string(), pa.int64(), pa.float64()
# Named as Parquet names them, so that a table is of the same type before and after.
_PLACES, _FLAGS, _REALS = (pa.list_(pa.field("element", kind)) for kind in (pa.int32(), _WHOLE, _REAL))

# Keys of Spectrum.meta that have a column of their own; what else it holds is JSON in column meta.
IDENTITY = {
    "name": _TEXT, "file": _TEXT, "object": _TEXT, "obsid": _TEXT, "obi": _WHOLE, "region_id": _TEXT,
    "telescope": _TEXT, "instrument": _TEXT, "date": _TEXT, "ra": _REAL, "dec": _REAL,
}  # fmt: skip
_PYTHON = {_TEXT: str, _WHOLE: int, _REAL: float}

# What a source and a background spectrum consist of. Counts are sparse: of the channels that hold any, the place from 0
# and the counts. A scale that differs from channel to channel stands in the column *_vector, channel numbers that do
# not follow each other in the column channels; then the other column of the pair is empty.
_PART = {
    "exposure": _REAL, "channel_index": _PLACES, "counts": _REALS,
    "backscale": _REAL, "backscale_vector": _REALS, "areascale": _REAL, "areascale_vector": _REALS,
    "first_channel": _WHOLE, "channels": _FLAGS, "quality": _FLAGS, "grouping": _FLAGS, "meta": _TEXT,
}  # fmt: skip
_SOURCE, _BACKGROUND = "", "background_"

SCHEMA = pa.schema(
    [
        *IDENTITY.items(),
        ("n_chan", _WHOLE),
        *((prefix + name, kind) for prefix in (_SOURCE, _BACKGROUND) for name, kind in _PART.items()),
        # The response: matrix names the file with its grids and redistribution, response both that and the area.
        ("matrix", _TEXT),
        ("response", _TEXT),
        ("area", _REALS),
        ("response_meta", _TEXT),
    ]
)
_MATRIX = pa.schema(
    [(name, _REALS) for name in ("energy_lo", "energy_hi", "chan_lo", "chan_hi")]
    # As in RMF files, a row is made of groups of neighbouring channels: row_start is the number of values before each
    # row, group_channel the place of each group's first channel from 0, group_length the number of its channels.
    + [("first_channel", _WHOLE)]
    + [(name, _PLACES) for name in ("row_start", "group_channel", "group_length")]
    + [("values", _REALS)]
)


def encode(spectra: Sequence[Spectrum], folder: Path) -> pa.Table:
    """Turn spectra into rows.

    Parameters
    ----------
    spectra
        Each with or without background and response.
    folder
        Of the store: redistribution matrices that are not there yet are written into its folder ``matrices``.

    Returns
    -------
    Table with the columns of `SCHEMA`.

    Raises
    ------
    ParameterError
        If ``meta`` holds what has no form in JSON, or a background has a background or response of its own.
    WriteError
        If a matrix cannot be written.
    """
    return pa.Table.from_pylist([_row(spectrum, folder) for spectrum in spectra], schema=SCHEMA)


def write_parquet(table: pa.Table, path: Path) -> None:
    """Write a Parquet file, whole or not at all; smooth and noisy numbers each get the encoding that suits them.

    Raises
    ------
    WriteError
        If that is not possible.
    """
    special = {
        **dict.fromkeys(("area", *_MATRIX.names[:4], "values"), "BYTE_STREAM_SPLIT"),
        **dict.fromkeys((*_MATRIX.names[5:8], "channel_index", "background_channel_index"), "DELTA_BINARY_PACKED"),
    }
    inner = {f.name: f"{f.name}.list.element" if pa.types.is_list(f.type) else f.name for f in table.schema}
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        pq.write_table(
            table,
            unfinished,
            compression="zstd",
            # A column of a shard is one page, so that areas which many spectra share are compressed to one.
            data_page_size=16 * 2**20,
            use_dictionary=[place for name, place in inner.items() if name not in special],
            column_encoding={place: special[name] for name, place in inner.items() if name in special},
            write_page_checksum=True,
        )
        unfinished.replace(path)
    except OSError as error:
        reason = error.strerror or error
        raise WriteError(f"{path} cannot be written ({reason}); free some space or choose another folder") from error
    finally:
        unfinished.unlink(missing_ok=True)


def _row(spectrum: Spectrum, folder: Path) -> dict[str, Any]:
    """One spectrum with its background and the keys of its response."""
    own = {key: value for key, value in spectrum.meta.items() if type(value) is _PYTHON.get(IDENTITY.get(key))}
    rest = {key: value for key, value in spectrum.meta.items() if key not in own}
    row = {**own, "n_chan": spectrum.counts.size, **_part(spectrum, _SOURCE, rest)}
    background, response = spectrum.background, spectrum.response
    if background is not None:
        if background.background is not None or background.response is not None:
            raise ParameterError(
                f"the background of {spectrum.name or 'a spectrum'} has a background or a response of its own, which a "
                "store has no place for; leave it out"
            )
        row |= _part(background, _BACKGROUND, background.meta)
    if response is not None:
        matrix = _save_matrix(response, folder)
        row |= {
            "matrix": matrix,
            "response": _digest([matrix.encode(), response.area]),
            "area": response.area,
            "response_meta": _json(response.meta),
        }
    return row


def _part(spectrum: Spectrum, prefix: str, meta: dict[str, Any]) -> dict[str, Any]:
    """Columns of a source or background spectrum."""
    held = np.flatnonzero(spectrum.counts)
    channels = np.asarray(spectrum.channels)
    first = int(channels[0])
    values = {
        "exposure": spectrum.exposure,
        "channel_index": held,
        "counts": spectrum.counts[held],
        "quality": spectrum.quality,
        "grouping": spectrum.grouping,
        "meta": _json(meta),
    }
    if np.array_equal(channels, np.arange(first, first + channels.size)):
        values["first_channel"] = first
    else:
        values["channels"] = channels
    for name in ("backscale", "areascale"):
        scale = getattr(spectrum, name)
        values[f"{name}_vector" if isinstance(scale, np.ndarray) else name] = scale
    return {prefix + name: value for name, value in values.items()}


def _json(meta: dict[str, Any]) -> str:
    try:
        return json.dumps(meta, ensure_ascii=False, sort_keys=True) if meta else "{}"
    except TypeError as error:
        raise ParameterError(
            f"meta of a spectrum should hold texts, numbers and lists of them to be stored ({error}), and it holds "
            f"{meta}; leave out what is not"
        ) from None


def _digest(parts: Sequence[bytes | Shaped[np.ndarray, " _"]]) -> str:
    """First half of the sha256 of some arrays and their lengths."""
    found = hashlib.sha256()
    for part in parts:
        found.update(b"%d:" % len(part))
        found.update(part if isinstance(part, bytes) else part.tobytes())
    return found.hexdigest()[:32]


# Names of the matrix files of responses; many spectra may have the same response.
_names: WeakKeyDictionary[Response, str] = WeakKeyDictionary()


def _save_matrix(response: Response, folder: Path) -> str:
    """Write grids and redistribution if they are not there yet; the key is a hash of their content."""
    if response in _names and (folder / MATRICES / f"{_names[response]}.parquet").exists():
        return _names[response]
    matrix = response.redistribution
    row = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    # A group begins with every row, and wherever a channel does not follow the one before it.
    begins = np.flatnonzero(np.diff(row, prepend=-1) | (np.diff(matrix.indices, prepend=-2) != 1))
    arrays = [
        response.energy_lo,
        response.energy_hi,
        response.chan_lo,
        response.chan_hi,
        np.array([response.first_channel]),
        matrix.indptr.astype(np.int32),
        matrix.indices[begins].astype(np.int32),
        np.diff(begins, append=matrix.nnz).astype(np.int32),
        matrix.data,
    ]
    _names[response] = key = _digest(arrays)
    path = folder / MATRICES / f"{key}.parquet"
    if not path.exists():
        cells = [
            int(array[0]) if name == "first_channel" else array
            for name, array in zip(_MATRIX.names, arrays, strict=True)
        ]
        write_parquet(pa.Table.from_pylist([dict(zip(_MATRIX.names, cells, strict=True))], schema=_MATRIX), path)
    return key


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
        # By matrix: a response without area, and those made of it by key and meta.
        self._kept: OrderedDict[str, tuple[Response, dict[tuple[str, str], Response]]] = OrderedDict()

    def get(self, matrix: str, key: str, area: Callable[[], Shaped[np.ndarray, " n_energy"]], meta: str) -> Response:
        """Return the response of a row; the area is asked for only where it is needed."""
        if matrix not in self._kept:
            self._kept[matrix] = _bare(self._load(matrix)), {}
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


def _bare(table: pa.Table) -> Response:
    """Grids and redistribution of a matrix file."""
    cell = {name: _Lists(table.column(name))[0] for name in _MATRIX.names if name != "first_channel"}
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


class Rows:
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
        table = columns([name for name in SCHEMA.names if name != "area"])
        self._n = table.num_rows
        self._cells: dict[str, Any] = {}
        for field in table.schema:
            column = table.column(field.name)
            self._cells[field.name] = _Lists(column) if pa.types.is_list(field.type) else column.to_pylist()
        self._start = np.concatenate([[0], np.cumsum(self._cells["n_chan"], dtype=np.int64)])
        self._dense = {prefix: self._counts(prefix) for prefix in (_SOURCE, _BACKGROUND)}

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

    def __getitem__(self, row: int) -> Spectrum:
        """Return one spectrum, equal to the one that was stored."""
        cells = self._cells
        meta = {name: cells[name][row] for name in IDENTITY if cells[name][row] is not None}
        background, response = None, None
        if cells["background_exposure"][row] is not None:
            background = self._part(row, _BACKGROUND, {}, None, None)
        if cells["matrix"][row] is not None:
            keys = cells["matrix"][row], cells["response"][row]
            response = self._responses.get(*keys, lambda: self._area[row], cells["response_meta"][row])
        return self._part(row, _SOURCE, meta, background, response)

    def _part(
        self, row: int, prefix: str, meta: dict[str, Any], background: Spectrum | None, response: Response | None
    ) -> Spectrum:
        cell = {name: self._cells[prefix + name][row] for name in _PART if name not in ("channel_index", "counts")}
        begin, end = int(self._start[row]), int(self._start[row + 1])
        first, channels = cell["first_channel"], cell["channels"]
        return Spectrum(
            self._dense[prefix][begin:end].copy(),
            cell["exposure"],
            cell["backscale"] if cell["backscale"] is not None else cell["backscale_vector"],
            cell["areascale"] if cell["areascale"] is not None else cell["areascale_vector"],
            cell["quality"],
            cell["grouping"],
            _numbered(first, end - begin) if channels is None else channels,
            background,
            response,
            meta if cell["meta"] == "{}" else meta | json.loads(cell["meta"]),
        )


@cache
def _numbered(first: int, n: int) -> Shaped[np.ndarray, " n"]:
    """Channel numbers that follow each other; all spectra that have the same share them."""
    numbers = np.arange(first, first + n)
    numbers.setflags(write=False)
    return numbers
