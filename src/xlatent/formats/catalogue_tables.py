"""Tables of others (a selection, a catalogue, labels), joined to latents by source name; and results on disk."""

import warnings
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int

from xlatent.core.atomic import atomic
from xlatent.core.errors import ReadError
from xlatent.core.latents import LatentTable
from xlatent.core.outputs import RESULTS, check_output
from xlatent.formats import latent_tables, partitions

if TYPE_CHECKING:
    from astropy.table import MaskedColumn, Table


def read_columns(path: str | Path, needed: Iterable[str] = ()) -> "Table":
    r"""Read any table: a selection, a catalogue, labels.

    Parameters
    ----------
    path : str or Path
        One of `READERS` by its suffix, in upper or lower case; or the folder or URL of an embedding in parts.
    needed : iterable of str
        Names that must be among its columns.

    Returns
    -------
    astropy.table.Table
        At least one row; missing values masked, texts as str.

    Raises
    ------
    ReadError
        If the suffix is another one, the file is missing or damaged, lacks a column or has no rows.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "labels.csv"
    >>> _ = path.write_text("name,class\n3C 273,AGN\n")
    >>> read_columns(path, ("name",))["class"].tolist()
    ['AGN']
    """
    from astropy.utils.exceptions import AstropyWarning

    if partitions.is_embedding(path):
        table = latent_tables.astropy_from_arrow(partitions.read(path))
    else:
        path = Path(path)
        with latent_tables.reading(path, READERS), warnings.catch_warnings():
            warnings.simplefilter("ignore", AstropyWarning)  # on units and other habits of those who made the file
            table = READERS[path.suffix.lower()](path)
    table.convert_bytestring_to_unicode()
    if absent := [name for name in needed if name not in table.colnames]:
        found = ", ".join(table.colnames[:8]) or "none"
        more = ", ..." if len(table.colnames) > 8 else ""
        raise ReadError(
            f"{path}: should have a column {' and a column '.join(absent)}, and its columns are {found}{more}; "
            "add or rename it"
        )
    if not len(table):
        raise ReadError(f"{path}: the table has no rows; give one with at least one")
    return table


def _read(path: Path, form: str) -> "Table":
    from astropy.table import Table

    return Table.read(path, format=form)


def _read_parquet(path: Path) -> "Table":
    import pyarrow.parquet as pq

    return latent_tables.astropy_from_arrow(pq.read_table(path))


READERS: "dict[str, Callable[[Path], Table]]" = {
    ".ecsv": latent_tables.read_ecsv,
    ".csv": partial(_read, form="ascii.csv"),
    ".fits": partial(_read, form="fits"),
    ".vot": partial(_read, form="votable"),
    ".xml": partial(_read, form="votable"),
    ".parquet": _read_parquet,
}
"""Reader of each kind of table that `read_columns` takes, by suffix."""


def write_results(results: "Table", path: str | Path) -> Path:
    """Write a table of results, whole or not at all.

    Parameters
    ----------
    results : astropy.table.Table
    path : str or Path
        ``.ecsv`` or ``.csv``.

    Raises
    ------
    WriteError
        If the suffix is another one, or the file cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> from astropy.table import Table
    >>> path = write_results(Table({"task": ["8 classes"], "score": [0.31]}), tempfile.mkdtemp() + "/scores.csv")
    >>> path.read_text().split()
    ['task,score', '8', 'classes,0.31']
    """
    check_output(path, RESULTS)
    with atomic(path) as temporary:
        results.write(temporary, format=f"ascii.{temporary.suffix[1:]}")
    return Path(path)


class SourceTable:
    r"""A table with one row a source, whose columns are joined to latents by the sources' names.

    Names are compared without spaces: ``name`` here with ``source`` of the latent table or, where no source is called
    so, its ``name``.

    Parameters
    ----------
    path : str or Path
        As `read_columns` takes it.
    needed : iterable of str
        Columns that it must have beside ``name``.

    Attributes
    ----------
    path : str or Path
    columns : astropy.table.Table

    Raises
    ------
    ReadError
        If it cannot be read, lacks a column or names a source twice.

    Examples
    --------
    >>> import tempfile
    >>> labels = Path(tempfile.mkdtemp()) / "labels.csv"
    >>> _ = labels.write_text("name,class\n3C 273,AGN\n")
    >>> latents, table = LatentTable({"name": ["M 33", "3C273"]}), SourceTable(labels)
    >>> rows = table.rows_of(latents)
    >>> rows.tolist(), table.take("class", rows).tolist()
    ([-1, 0], [None, 'AGN'])
    """

    def __init__(self, path: str | Path, needed: Iterable[str] = ()) -> None:
        self.path = path
        self.columns = read_columns(path, ("name", *needed))
        if len(self._rows) < len(self.columns):
            twice = next(name for row, name in enumerate(map(_key, self.columns["name"])) if self._rows[name] != row)
            raise ReadError(f"{path}: has several rows for {twice}; give a table with one row for each source")

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {_key(name): row for row, name in enumerate(self.columns["name"])}

    def rows_of(self, latents: LatentTable) -> Int[np.ndarray, " n"]:
        """Find the row here of each row of a latent table [n]; -1 where the source is not here."""
        spectra = latents.values("name").tolist()
        sources = latents.source_names.tolist()
        return np.array(
            [
                self._rows.get(_key(source), self._rows.get(_key(name), -1))
                for source, name in zip(sources, spectra, strict=True)
            ],
            int,
        )

    def take(self, name: str, rows: Int[np.ndarray, " n"]) -> "MaskedColumn":
        """Take some rows of a column [n], masked where the row is -1."""
        from astropy.table import MaskedColumn

        values = np.ma.asarray(self.columns[name])
        return MaskedColumn(values[rows], mask=np.ma.getmaskarray(values)[rows] | (rows < 0))

    def without_match(self, path: str | Path, latents: LatentTable) -> ReadError:
        """Make the error that says that no source of a latent table is here."""
        there = repr(_key(latents.source_names[0])) if len(latents) else "no rows"
        return ReadError(
            f"{self.path}: none of its names is in {path}, it has for example {next(iter(self._rows))!r}, and {path} "
            f"has {there}; give a table of the same sources"
        )


def read_joined(path: Path, other: Path | None, wanted: Sequence[str]) -> LatentTable:
    r"""Read a latent table, and the columns wanted of another table by the sources' names.

    Where both tables have a column, the other's is taken.

    Parameters
    ----------
    path : Path
        Latent table.
    other : Path or None
        Table of the same sources, as `SourceTable`.
    wanted : sequence of str
        Columns that either must have.

    Raises
    ------
    ReadError
        If a table cannot be read, neither has a column, the other names a source twice, or no name is in both.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> latents = LatentTable({"name": ["3C 273"]}).write(folder / "latents.fits")
    >>> _ = (folder / "labels.csv").write_text("name,class\n3C 273,AGN\n")
    >>> read_joined(latents, folder / "labels.csv", ["class"])["class"].tolist()
    ['AGN']
    """
    table = latent_tables.read(path)
    extra = SourceTable(other) if other is not None else None
    there = [] if extra is None else extra.columns.colnames
    if absent := [name for name in wanted if name not in table.colnames and name not in there]:
        hint = f"and {other} has {', '.join(there[:12])}" if there else "give a table that has it with --join"
        raise ReadError(f"{path}: has no column {', '.join(absent)}, {hint}")
    if extra is None:
        return table
    rows = extra.rows_of(table)
    if (rows < 0).all():
        raise extra.without_match(path, table)
    columns = {name: table[name] for name in table.colnames}
    columns |= {name: extra.take(name, rows) for name in wanted if name in there}
    return LatentTable(columns, table.meta)


def _key(name: object) -> str:
    """Put a source's name as names are compared."""
    return "".join(str(name).split())
