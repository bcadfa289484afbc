"""Spectra turned into rows of an Arrow table, without any loss; `store_shards` turns them back."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Shaped

from xlatent.core.atomic import atomic
from xlatent.core.errors import ParameterError
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
PART = {
    "exposure": _REAL, "channel_index": _PLACES, "counts": _REALS,
    "backscale": _REAL, "backscale_vector": _REALS, "areascale": _REAL, "areascale_vector": _REALS,
    "first_channel": _WHOLE, "channels": _FLAGS, "quality": _FLAGS, "grouping": _FLAGS, "meta": _TEXT,
}  # fmt: skip
SOURCE, BACKGROUND = "", "background_"

SCHEMA = pa.schema(
    [
        *IDENTITY.items(),
        ("n_chan", _WHOLE),
        *((prefix + name, kind) for prefix in (SOURCE, BACKGROUND) for name, kind in PART.items()),
        # The response: matrix names the file with its grids and redistribution, response both that and the area.
        ("matrix", _TEXT),
        ("response", _TEXT),
        ("area", _REALS),
        ("response_meta", _TEXT),
    ]
)
MATRIX = pa.schema(
    [(name, _REALS) for name in ("energy_lo", "energy_hi", "chan_lo", "chan_hi")]
    # As in RMF files, a row is made of groups of neighbouring channels: row_start is the number of values before each
    # row, group_channel the place of each group's first channel from 0, group_length the number of its channels.
    + [("first_channel", _WHOLE)]
    + [(name, _PLACES) for name in ("row_start", "group_channel", "group_length")]
    + [("values", _REALS)]
)


class RowEncoder:
    """Turns spectra into rows of a store, and writes their redistribution matrices there.

    Parameters
    ----------
    folder : Path
        Of the store: matrices that are not there yet are written into its folder ``matrices``.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # Keys of the matrices of responses; many spectra may have the same response.
        self._keys: WeakKeyDictionary[Response, str] = WeakKeyDictionary()

    def encode(self, spectra: Sequence[Spectrum]) -> pa.Table:
        """Turn spectra into rows.

        Parameters
        ----------
        spectra : sequence of Spectrum
            Each with or without background and response.

        Returns
        -------
        pyarrow.Table
            With the columns of `SCHEMA`.

        Raises
        ------
        ParameterError
            If ``meta`` holds what has no form in JSON, or a background has a background or response of its own.
        WriteError
            If a matrix cannot be written.
        """
        return pa.Table.from_pylist([self._row(spectrum) for spectrum in spectra], schema=SCHEMA)

    def _row(self, spectrum: Spectrum) -> dict[str, Any]:
        """One spectrum with its background and the keys of its response."""
        own = {key: value for key, value in spectrum.meta.items() if type(value) is _PYTHON.get(IDENTITY.get(key))}
        rest = {key: value for key, value in spectrum.meta.items() if key not in own}
        row = {**own, "n_chan": spectrum.counts.size, **_part(spectrum, SOURCE, rest)}
        background, response = spectrum.background, spectrum.response
        if background is not None:
            if background.background is not None or background.response is not None:
                raise ParameterError(
                    f"the background of {spectrum.name or 'a spectrum'} has a background or a response of its own, "
                    "which a store has no place for; leave it out"
                )
            row |= _part(background, BACKGROUND, background.meta)
        if response is not None:
            matrix = self._save_matrix(response)
            row |= {
                "matrix": matrix,
                "response": _digest([matrix.encode(), response.area]),
                "area": response.area,
                "response_meta": _json(response.meta),
            }
        return row

    def _save_matrix(self, response: Response) -> str:
        """Write grids and redistribution if they are not there yet; the key is a hash of their content."""
        known = self._keys.get(response)
        if known is not None and self._matrix_file(known).exists():
            return known
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
        self._keys[response] = key = _digest(arrays)
        path = self._matrix_file(key)
        if not path.exists():
            cells = [
                int(array[0]) if name == "first_channel" else array
                for name, array in zip(MATRIX.names, arrays, strict=True)
            ]
            write_parquet(pa.Table.from_pylist([dict(zip(MATRIX.names, cells, strict=True))], schema=MATRIX), path)
        return key

    def _matrix_file(self, key: str) -> Path:
        return self._folder / MATRICES / f"{key}.parquet"


def write_parquet(table: pa.Table, path: Path) -> None:
    """Write a Parquet file, whole or not at all; smooth and noisy numbers each get the encoding that suits them.

    Raises
    ------
    WriteError
        If that is not possible.
    """
    special = {
        **dict.fromkeys(("area", *MATRIX.names[:4], "values"), "BYTE_STREAM_SPLIT"),
        **dict.fromkeys((*MATRIX.names[5:8], "channel_index", "background_channel_index"), "DELTA_BINARY_PACKED"),
    }
    inner = {f.name: f"{f.name}.list.element" if pa.types.is_list(f.type) else f.name for f in table.schema}
    with atomic(path) as temporary:
        pq.write_table(
            table,
            temporary,
            compression="zstd",
            # A column of a shard is one page, so that areas which many spectra share are compressed to one.
            data_page_size=16 * 2**20,
            use_dictionary=[place for name, place in inner.items() if name not in special],
            column_encoding={place: special[name] for name, place in inner.items() if name in special},
            write_page_checksum=True,
        )


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
