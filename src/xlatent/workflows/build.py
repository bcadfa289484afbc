"""Building a store: spectra in, a folder of Parquet files out; what cannot be read is left out and listed."""

import hashlib
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from xlatent.core.errors import InputError, ReadError, WriteError, XlatentWarning
from xlatent.core.messages import reason
from xlatent.workflows.notices import Failure, Notice, Notices, write_failures
from xlatent.workflows.parallel import batches, check_workers, in_order

if TYPE_CHECKING:
    import pyarrow as pa
    from astropy.table import Table

    from xlatent.formats.inputs import Source

LEFT_OUT = "left_out.csv"
"""File of the store that lists the spectra left out by the last call, with reasons."""

_BATCH = 16  # spectra that a worker takes at a time
_KEY = ("obsid", "obi", "region_id")


@dataclass(frozen=True)
class BuildResult:
    """What `build_store` did.

    Attributes
    ----------
    path : Path
        Folder of the store.
    n_added : int
        Spectra added by this call.
    n_known : int
        Inputs that were in the store before, and were not read again.
    n_total : int
        Spectra in the store now.
    failures : tuple of Failure
        Name, file and reason of each spectrum left out.
    """

    path: Path
    n_added: int
    n_known: int
    n_total: int
    failures: tuple[Failure, ...]


def build_store(
    inputs: str | Path | Sequence[str | Path],
    output: str | Path,
    *,
    catalogue: str | Path | None = None,
    workers: int = 1,
    arf: str | Path | None = None,
    rmf: str | Path | None = None,
    background: str | Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> BuildResult:
    """Put many spectra with their responses into one store, which embedding and training take in place of files.

    Ended in whatever way and called again, it goes on where it was: what is in the store already is not read again.
    Spectra that cannot be read are left out, and listed in the store's ``left_out.csv``.

    Parameters
    ----------
    inputs : str or Path, or sequence of them
        PHA files, folders, patterns, manifests (CSV), or folders that ``xlatent csc fetch`` made.
    output : str or Path
        Folder of the store; made, or added to.
    catalogue : str or Path, optional
        Table (ECSV, FITS, VOTable, CSV) whose columns are joined by ``obsid``, ``obi`` and ``region_id`` or, without
        these, by ``name``; ``selection.ecsv`` of the first fetched folder if not given.
    workers : int
        Processes that read. Rows and their order do not depend on it.
    arf, rmf, background : str or Path, optional
        Of every spectrum of this call, in place of those its header names; ``"none"`` for none.
    progress : callable, optional
        Called with the number of spectra done and of all that are to be read.

    Returns
    -------
    BuildResult

    Raises
    ------
    InputError
        If an input or the catalogue is missing or holds nothing of use; nothing is written then.
    WriteError
        If the folder is not writable, holds other things or rows with other columns, or another process writes there.

    Warns
    -----
    XlatentWarning
        What was repaired in reading, and how many spectra the catalogue does not know.

    Examples
    --------
    >>> import tempfile
    >>> from importlib.resources import files
    >>> import xlatent as xl
    >>> folder = tempfile.mkdtemp() + "/store"
    >>> result = xl.build_store(files("xlatent") / "sample", folder)
    >>> result.n_added, result.n_known, result.failures
    (6, 0, ())
    >>> xl.build_store(files("xlatent") / "sample", folder).n_known
    6
    """
    from xlatent.formats.store import Writer

    check_workers(workers)
    output = Path(output)
    options = {"arf": arf, "rmf": rmf, "background": background}
    given: dict[str, Any] = {key: Path(file) for key, file in options.items() if file is not None}
    items = [str(item) for item in ([inputs] if isinstance(inputs, str | Path) else inputs)]
    try:
        found = _sources(items)
        sources = [(_fingerprint(source := replace(one, **given)), source) for one, _ in found]
        identities = {key: known for (key, _), (_, known) in zip(sources, found, strict=True) if known}
        joined = _Catalogue(Path(catalogue) if catalogue is not None else _selection(items))
    except ReadError as error:
        raise InputError(str(error)) from error
    failures: list[Failure] = []
    notices = Notices()
    with Writer(output) as writer:
        if (output / LEFT_OUT).is_dir():
            raise WriteError(f"{output / LEFT_OUT} cannot be written: it is a folder; remove it")
        n_before = len(writer.store)
        stored = set(writer.store.columns(["input"]).column("input").to_pylist()) if n_before else set()
        waiting = [(key, source) for key, source in sources if key not in stored]
        n_done = n_added = 0
        if progress is not None:
            progress(0, len(waiting))
        for outcome in in_order(_Reader(output).read, batches(waiting, _BATCH), workers):
            for rows in outcome.rows:
                n_added += rows.num_rows
                writer.append(joined.with_columns(rows, identities))
            failures.extend(outcome.failures)
            notices.extend(outcome.notices)
            n_done += outcome.n_sources
            if progress is not None:
                progress(n_done, len(waiting))
        write_failures(failures, output / LEFT_OUT)
    notices.warn()
    if joined.unmatched:
        warnings.warn(
            f"{joined.unmatched} spectra have no row of their own in {joined.path}, and empty columns here",
            XlatentWarning,
            stacklevel=2,
        )
    return BuildResult(output, n_added, len(sources) - len(waiting), n_before + n_added, tuple(failures))


class _Outcome(NamedTuple):
    rows: "list[pa.Table]"
    failures: list[Failure]
    notices: list[Notice]
    n_sources: int


def _sources(inputs: Sequence[str]) -> "list[tuple[Source, dict[str, Any]]]":
    """Spectra to read and, of those that were fetched, what the catalogue calls them."""
    from xlatent.formats.inputs import find

    found: list[tuple[Source, dict[str, Any]]] = []
    for fetched, items in groupby(inputs, _is_fetched):
        if fetched:
            from xlatent.csc.manifest import sources

            for item in items:
                complete = sources(Path(item))
                if not complete:
                    raise ReadError(f"{item} should hold at least one detection whole, and it holds none; fetch again")
                found.extend(complete)
        else:
            found.extend((source, {}) for source in find(list(items)))
    return found


def _is_fetched(item: str) -> bool:
    return (Path(item) / "manifest.sqlite").is_file()


def _selection(inputs: Sequence[str]) -> Path | None:
    """The catalogue table of the first fetched folder."""
    tables = [Path(item) / "selection.ecsv" for item in inputs if _is_fetched(item)]
    return next((table for table in tables if table.is_file()), None)


def _fingerprint(source: "Source") -> str:
    """What tells an input from others: its name and its files, wherever the command is given."""
    from xlatent.formats.companions import is_none

    files = [source.pha, source.arf, source.rmf, source.background]
    named = ("" if file is None else "none" if is_none(file) else str(file.resolve()) for file in files)
    text = "\n".join([source.name, *named])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class _Reader:
    """Reads spectra into rows of a store; responses that several of them have are read once.

    Pickled it is its folder alone, so that each process keeps responses of its own.

    Parameters
    ----------
    folder
        Of the store: matrices go into it at once.
    """

    def __init__(self, folder: Path) -> None:
        from xlatent.formats.ogip_response import ResponseReader
        from xlatent.formats.store_rows import RowEncoder

        self._folder = folder
        self._responses, self._encoder = ResponseReader(), RowEncoder(folder)

    def __reduce__(self) -> tuple[Any, ...]:
        return _Reader, (self._folder,)

    def read(self, sources: "Sequence[tuple[str, Source]]") -> _Outcome:
        import pyarrow as pa

        outcome, notices = _Outcome([], [], [], len(sources)), Notices()
        for key, source in sources:
            try:
                with notices.collect(source.name, str(source.pha)):
                    rows = self._encoder.encode(source.read(responses=self._responses))
            except WriteError:
                raise
            except Exception as error:
                outcome.failures.append(Failure(source.name, str(source.pha), reason(error)))
            else:
                outcome.rows.append(rows.append_column("input", pa.array([key] * rows.num_rows)))
        outcome.notices.extend(notices)
        return outcome


class _Catalogue:
    """A table whose columns are joined to those of spectra, and the split by source that goes with them.

    Parameters
    ----------
    path
        File of the table; None if there is none.

    Raises
    ------
    ReadError
        If it cannot be read, or holds columns of arrays.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.unmatched = 0
        self._rows: pa.Table | None = None
        if path is None:
            return
        from xlatent.formats.catalogue_tables import read_columns

        table = read_columns(path)
        if not set(_KEY) <= set(table.colnames) and "name" not in table.colnames:
            columns = ", ".join(table.colnames[:8])
            raise ReadError(
                f"{path} should have columns obsid, obi and region_id, or name, and it starts with {columns}; name "
                "them so"
            )
        self._rows = _to_arrow(table, path)
        cells = {name: self._rows.column(name).to_pylist() for name in (*_KEY, "name") if name in table.colnames}
        size = len(table)
        self._names = cells.get("name", [None] * size)
        keys = zip(*(cells.get(name, [None] * size) for name in _KEY), strict=True)
        self._by_key = _unique([_key(*key) for key in keys])
        self._by_name = _unique([_plain(name) for name in self._names])

    def with_columns(self, rows: "pa.Table", identities: dict[str, dict[str, Any]]) -> "pa.Table":
        """Add ``source``, ``split`` and the table's columns to rows of spectra."""
        import pyarrow as pa

        from xlatent.csc.matching import split
        from xlatent.formats.store_rows import SCHEMA

        spectra = rows.select(["input", "name", "object", *_KEY]).to_pylist()
        known = [spectrum | identities.get(spectrum["input"], {}) for spectrum in spectra]
        places = [self._find(one) for one in known]
        names = [
            self._names[place] if place is not None and self._names[place] else _source_of(one, spectrum)
            for one, spectrum, place in zip(known, spectra, places, strict=True)
        ]
        splits = [str(part) for part in split(names)]
        if self._rows is not None:
            self.unmatched += places.count(None)
            taken = self._rows.take(pa.array(places, pa.int64()))
            if "split" in taken.column_names:
                own = taken.column("split").to_pylist()
                splits = [mine or part for mine, part in zip(own, splits, strict=True)]
        rows = rows.append_column("source", pa.array(names, pa.string()))
        rows = rows.append_column("split", pa.array(splits, pa.string()))
        if self._rows is not None:
            for field in self._rows.schema:
                if field.name not in ("name", "split"):
                    taken_name = field.name in SCHEMA.names or field.name in ("input", "source")
                    name = f"catalogue_{field.name}" if taken_name else field.name
                    rows = rows.append_column(field.with_name(name), taken.column(field.name))
        return rows

    def _find(self, spectrum: dict[str, Any]) -> int | None:
        """Row of the table that belongs to a spectrum."""
        if self._rows is None:
            return None
        key = _key(*(spectrum[name] for name in _KEY))
        if key is not None:
            return self._by_key.get(key)
        by_name = (self._by_name.get(_plain(spectrum[name])) for name in ("name", "object"))
        return next((row for row in by_name if row is not None), None)


def _source_of(known: dict[str, Any], spectrum: dict[str, Any]) -> str:
    """Name of what was observed, where no catalogue says it: two of its spectra must not be told apart."""
    if known["name"] != spectrum["name"]:
        return str(known["name"])
    # Files of the first release of the Chandra Source Catalog all have OBJECT = CSC.
    name = spectrum["object"]
    return str(name if name and name != "CSC" else spectrum["name"])


def _key(obsid: Any, obi: Any, region_id: Any) -> tuple[Any, ...] | None:
    """Identity of a detection, whether its numbers are written as numbers or as text with zeros before."""
    if any(value is None or value == "" for value in (obsid, obi, region_id)):
        return None
    texts = [str(value).strip() for value in (obsid, obi, region_id)]
    return tuple(int(text) if text.isdigit() else text for text in texts)


def _plain(name: Any) -> str | None:
    return " ".join(str(name).split()).casefold() if name else None


def _unique(keys: Sequence[Any]) -> dict[Any, int]:
    """Places of those keys that stand once; of the others no one can tell which is meant."""
    times = Counter(keys)
    return {key: place for place, key in enumerate(keys) if key is not None and times[key] == 1}


def _to_arrow(table: "Table", path: Path) -> "pa.Table":
    """An astropy table as Arrow: missing values stay missing, units and descriptions go into the fields."""
    import numpy as np
    import pyarrow as pa

    fields, arrays = [], []
    for column in table.itercols():
        if column.ndim > 1 or column.dtype.kind not in "biufU":
            raise ReadError(f"{path}: column {column.name} should hold one number or text a row; leave it out")
        values, mask = np.ma.getdata(column), np.ma.getmaskarray(column)
        plain = [str(value).strip() for value in values] if column.dtype.kind == "U" else np.asarray(values)
        array = pa.array(plain, pa.string() if column.dtype.kind == "U" else None, mask=mask)
        known = {"unit": column.unit, "description": column.description}
        metadata = {key: str(value) for key, value in known.items() if value is not None}
        fields.append(pa.field(column.name, array.type, metadata=metadata))
        arrays.append(array)
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields))
