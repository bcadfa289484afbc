"""Latent tables on disk, chosen by suffix: Parquet, FITS, VOTable and ECSV."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xlatent.core.atomic import atomic
from xlatent.core.errors import ReadError, WriteError
from xlatent.core.latent_columns import COLUMNS, META_KEYS
from xlatent.core.latents import LatentTable

if TYPE_CHECKING:
    import pyarrow as pa
    from astropy.table import Column, Table

# Where the origin of the latents stands in a FITS header, whose keywords have eight letters.
_FITS_KEYWORDS = {"model": "XLMODEL", "model_sha256": "XLSHA256", "software": "CREATOR"}
# The name of the origin in Parquet's schema metadata, the attributes of its columns in their fields' metadata.
_PARQUET_PREFIX = "xlatent."
_SCHEMA = {info.name: info for info in COLUMNS}
# The value that means "missing" in whole-number columns of FITS and VOTable files; FITS wants it spelt out.
_NULL = np.iinfo(np.int64).min
# Rows of a row group where a Parquet file is written as they come: 30 MB in memory.
_GROUP = 2**15


def write(table: LatentTable, path: str | Path) -> Path:
    """Write a latent table, whole or not at all; a file of that name is replaced.

    Parameters
    ----------
    table : LatentTable
        What to write; units, UCDs, descriptions and origin go with it.
    path : str or Path
        ``.parquet``, ``.fits``, ``.vot`` (VOTable, binary2) or ``.ecsv``.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    WriteError
        If the suffix is another one, or the folder is missing or not writable.

    Examples
    --------
    >>> import tempfile
    >>> write(LatentTable({"name": ["a"]}), Path(tempfile.mkdtemp()) / "latents.vot").name
    'latents.vot'
    """
    path = Path(path)
    if path.suffix not in _FORMATS:
        raise WriteError(f"{path}: cannot write a table with suffix {path.suffix!r}; use one of {', '.join(_FORMATS)}")
    with atomic(path) as temporary:
        _FORMATS[path.suffix][0](table, temporary)
    return path


def write_stream(parts: "Iterable[pa.Table]", path: str | Path) -> int:
    """Write latents as Parquet as they come, with few of them in memory; whole or not at all.

    Parameters
    ----------
    parts : iterable of pyarrow.Table
        Each from `to_arrow`, of one model.
    path : str or Path
        A ``.parquet`` file. It is as `write` makes it, but for the length of its row groups.

    Returns
    -------
    int
        Number of rows. If it is 0 nothing is written, and an older file stays.

    Raises
    ------
    WriteError
        If the folder is missing or not writable.

    Examples
    --------
    >>> import tempfile
    >>> parts = (to_arrow(LatentTable({"name": [name]})) for name in "abc")
    >>> write_stream(parts, Path(tempfile.mkdtemp()) / "latents.parquet")
    3
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    filled = (part for part in parts if part.num_rows)
    first = next(filled, None)
    if first is None:
        return 0
    total, waiting, rows = 0, [first], first.num_rows
    with atomic(path) as temporary, pq.ParquetWriter(temporary, first.schema) as writer:
        for part in filled:
            waiting.append(part)
            rows += part.num_rows
            if rows >= _GROUP:
                writer.write_table(pa.concat_tables(waiting))
                total, waiting, rows = total + rows, [], 0
        if waiting:
            writer.write_table(pa.concat_tables(waiting))
    return total + rows


def read(path: str | Path) -> LatentTable:
    """Read a latent table that `write` made, or one with the same columns.

    Parameters
    ----------
    path : str or Path
        ``.parquet``, ``.fits``, ``.vot`` or ``.ecsv``; or the folder or URL of an embedding in parts.

    Returns
    -------
    LatentTable
        Missing values come back missing.

    Raises
    ------
    ReadError
        If the suffix is another one, the file is missing or damaged, or it has no latents; if parts are missing.

    Examples
    --------
    >>> import tempfile
    >>> path = write(LatentTable({"name": ["a"], "counts": [12.0]}), Path(tempfile.mkdtemp()) / "latents.ecsv")
    >>> read(path).loc["a"]["counts"]
    12.0
    """
    from xlatent.formats import partitions

    if partitions.is_embedding(path):
        columns: Mapping[str, Any] | Table
        columns, meta = _columns_from_arrow(partitions.read(path))
    else:
        path = Path(path)
        with reading(path, _FORMATS):
            columns, meta = _FORMATS[path.suffix.lower()][1](path)
    if "z0" not in columns.keys():  # noqa: SIM118 (a Table iterates over its rows)
        found = ", ".join(list(columns.keys())[:8]) or "no columns"
        raise ReadError(f"{path}: expected a table of latents with columns z0 to z7, found {found}")
    return LatentTable(columns, {key: meta[key] for key in META_KEYS if meta.get(key)})


@contextmanager
def reading(path: Path, suffixes: Iterable[str]) -> Iterator[None]:
    """Tell in one sentence why a table cannot be read."""
    if not path.is_file():
        raise ReadError(f"{path}: there is no such file; check its name")
    if path.suffix.lower() not in suffixes:
        raise ReadError(f"{path}: cannot read a table with suffix {path.suffix!r}; use one of {', '.join(suffixes)}")
    try:
        yield
    except Exception as error:  # the readers have no common error for a damaged file
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        raise ReadError(f"{path}: is not a readable {path.suffix} table ({first_line}); make it again") from error


def to_arrow(table: LatentTable) -> "pa.Table":
    """Turn latents into what a Parquet file of them holds: columns with units, UCDs and descriptions, and origin.

    Examples
    --------
    >>> to_arrow(LatentTable({"exposure": [1e4]})).schema.field("exposure").metadata[b"unit"]
    b's'
    """
    import pyarrow as pa

    known, fields, arrays = _schema_fields(), [], []
    for name in table.colnames:
        values = table.values(name) if name in known else table[name]
        array = _arrow_array(np.asarray(values), np.ma.getmaskarray(values))
        if name in known:
            fields.append(known[name])
        else:
            column = table[name]
            fields.append(_field(name, array.type, column.unit, column.meta.get("ucd"), column.description))
        arrays.append(array)
    schema = pa.schema(fields, metadata={f"{_PARQUET_PREFIX}{key}": value for key, value in table.meta.items()})
    return pa.Table.from_arrays(arrays, schema=schema)


def _arrow_array(values: np.ndarray, missing: np.ndarray) -> "pa.Array":
    """A column, made from its bytes: ``pyarrow.array`` would import pandas, a sixth of the time of a small command."""
    import pyarrow as pa

    valid = pa.py_buffer(np.packbits(~missing, bitorder="little")) if missing.any() else None
    if values.dtype.kind == "U":
        texts = [text.encode() for text in values.tolist()]
        buffers = [np.cumsum([0, *map(len, texts)], dtype=np.int32), b"".join(texts)]
    else:
        buffers = [np.packbits(values, bitorder="little") if values.dtype.kind == "b" else np.ascontiguousarray(values)]
    kind = {"U": pa.string(), "b": pa.bool_()}.get(values.dtype.kind) or pa.from_numpy_dtype(values.dtype)
    return pa.Array.from_buffers(kind, len(values), [valid, *map(pa.py_buffer, buffers)])


@cache
def _schema_fields() -> "dict[str, pa.Field]":
    """Types and attributes of the schema's columns; the texts of one column take longer than its numbers."""
    import pyarrow as pa

    kinds = {str: pa.string(), int: pa.int64(), float: pa.float64()}
    return {i.name: _field(i.name, kinds[i.dtype], i.unit or None, i.ucd, i.description) for i in COLUMNS}


def _field(name: str, kind: "pa.DataType", unit: Any, ucd: Any, description: Any) -> "pa.Field":
    import pyarrow as pa

    attributes = {"unit": unit, "ucd": ucd, "description": description}
    return pa.field(name, kind, metadata={key: str(value) for key, value in attributes.items() if value is not None})


def from_arrow(stored: "pa.Table") -> LatentTable:
    """Turn back what `to_arrow` made.

    Examples
    --------
    >>> from_arrow(to_arrow(LatentTable({"name": ["a"]})))["name"].tolist()
    ['a']
    """
    columns, meta = _columns_from_arrow(stored)
    return LatentTable(columns, {key: meta[key] for key in META_KEYS if meta[key]})


def _write_parquet(table: LatentTable, path: Path) -> None:
    import pyarrow.parquet as pq

    pq.write_table(to_arrow(table), path)


def _read_parquet(path: Path) -> "tuple[Mapping[str, Any], dict[str, str]]":
    import pyarrow.parquet as pq

    return _columns_from_arrow(pq.read_table(path))


def _columns_from_arrow(stored: "pa.Table") -> "tuple[dict[str, Any], dict[str, str]]":
    """Columns as a latent table takes them, and origin: those of the schema that are in its units are plain arrays."""
    columns: dict[str, Any] = {}
    for field, chunks in zip(stored.schema, stored.columns, strict=True):
        info = _SCHEMA.get(field.name)
        if info and (field.metadata or {}).get(b"unit", b"").decode() in ("", info.unit):
            columns[field.name] = _numpy(chunks)
        else:
            columns[field.name] = _astropy_column(field, chunks)
    meta = {key.decode(): value.decode() for key, value in (stored.schema.metadata or {}).items()}
    return columns, {key: meta.get(f"{_PARQUET_PREFIX}{key}", "") for key in META_KEYS}


def astropy_from_arrow(stored: "pa.Table") -> "Table":
    """Turn an Arrow table into one of astropy, with what its fields say of its columns."""
    from astropy.table import Table

    return Table(
        {
            field.name: _astropy_column(field, chunks)
            for field, chunks in zip(stored.schema, stored.columns, strict=True)
        },
        copy=False,
    )


def _astropy_column(field: "pa.Field", chunks: "pa.ChunkedArray") -> "Column":
    from astropy.table import Column, MaskedColumn

    attributes = {key.decode(): value.decode() for key, value in (field.metadata or {}).items()}
    values = _numpy(chunks)
    kind = MaskedColumn if isinstance(values, np.ma.MaskedArray) else Column
    column = kind(values, unit=attributes.get("unit"), description=attributes.get("description"))
    if "ucd" in attributes:
        column.meta["ucd"] = attributes["ucd"]
    return column


def _numpy(chunks: "pa.ChunkedArray") -> np.ndarray:
    """Values of an Arrow column, masked where some are missing."""
    empty: Any = {"i": 0, "u": 0, "f": np.nan, "b": False}.get(np.dtype(chunks.type.to_pandas_dtype()).kind, "")
    values = chunks.fill_null(empty).to_numpy() if chunks.null_count else chunks.to_numpy()
    if values.dtype == object:
        values = values.astype(np.str_)
    return np.ma.array(values, mask=chunks.is_null().to_numpy()) if chunks.null_count else values


def _write_fits(table: LatentTable, path: Path) -> None:
    from astropy.io import fits

    stored = []
    described: dict[str, str] = {}
    for number, name in enumerate(table.colnames, start=1):
        column = table[name]
        code = {"U": f"{max(1, column.dtype.itemsize // 4)}A", "i": "K", "f": "D", "b": "L"}[column.dtype.kind]
        null = _NULL if code == "K" else None
        array = np.asarray(np.ma.filled(column, null))
        unit = column.unit.to_string("fits") if column.unit is not None else None
        stored.append(fits.Column(name=name, format=code, unit=unit, null=null, array=array))
        described |= {f"TCOMM{number}": column.description or "", f"TUCD{number}": column.meta.get("ucd") or ""}
    hdu = fits.BinTableHDU.from_columns(stored, name="LATENTS")
    origin = {_FITS_KEYWORDS[key]: value for key, value in table.meta.items()}
    hdu.header.update(origin | {key: text for key, text in described.items() if text})
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(path, overwrite=True)


def _read_fits(path: Path) -> "tuple[Table, dict[str, str]]":
    from astropy.io import fits
    from astropy.table import Table

    with fits.open(path) as hdus:
        hdu = hdus["LATENTS"] if "LATENTS" in hdus else hdus[1]
        header = hdu.header
        table = Table.read(hdu, format="fits")
    for number, name in enumerate(table.colnames, start=1):
        if ucd := header.get(f"TUCD{number}"):
            table[name].meta["ucd"] = ucd
    return table, {key: str(header.get(keyword, "")) for key, keyword in _FITS_KEYWORDS.items()}


def _write_votable(table: LatentTable, path: Path) -> None:
    from astropy.io import votable

    columns = table.to_astropy()
    columns.meta.clear()
    with erg_allowed():
        tree = votable.from_table(columns)
        tree.infos.extend(votable.tree.Info(name=key, value=value) for key, value in table.meta.items())
        tree.to_xml(str(path), tabledata_format="binary2")


def _read_votable(path: Path) -> "tuple[Table, dict[str, str]]":
    from astropy.io import votable

    with erg_allowed():
        tree = votable.parse(str(path))
        meta = {info.name: info.value for info in tree.infos}
        table = tree.get_first_table().to_table(use_names_over_ids=True)
    for column in table.itercols():
        # astropy's own note on the kind of string in the file.
        column.meta.pop("_votable_string_dtype", None)
    return table, meta


@contextmanager
def erg_allowed() -> Iterator[None]:
    """Accept erg without a warning: the VOUnit standard deprecates it, and X-ray catalogues use it."""
    from astropy.units import UnitsWarning

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The unit 'erg' has been deprecated", category=UnitsWarning)
        yield


def _write_ecsv(table: LatentTable, path: Path) -> None:
    table.to_astropy().write(path, format="ascii.ecsv", overwrite=True)


def _read_ecsv(path: Path) -> "tuple[Table, dict[str, str]]":
    from astropy.table import MaskedColumn

    table = read_ecsv(path)
    for column in table.itercols():
        # astropy takes an empty text for a missing one; in our tables a missing text is an empty one.
        if column.dtype.kind == "U":
            table[column.name] = column.filled("") if isinstance(column, MaskedColumn) else column
    return table, dict(table.meta)


def read_ecsv(path: Path) -> "Table":
    """Read an ECSV file as it is."""
    from astropy.table import Table

    try:
        return Table.read(path, format="ecsv", engine="pyarrow")  # five times as fast
    except Exception:  # before astropy 7.2; or an empty line in a text of the header, which it takes for its end
        return Table.read(path, format="ascii.ecsv")


_Writer = Callable[[LatentTable, Path], None]
_Reader = Callable[[Path], "tuple[Mapping[str, Any] | Table, dict[str, str]]"]
_FORMATS: dict[str, tuple[_Writer, _Reader]] = {
    ".parquet": (_write_parquet, _read_parquet),
    ".fits": (_write_fits, _read_fits),
    ".vot": (_write_votable, _read_votable),
    ".ecsv": (_write_ecsv, _read_ecsv),
}
