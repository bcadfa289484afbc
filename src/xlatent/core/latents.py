"""The table of latents: one row a spectrum."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from html import escape
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Shaped

from xlatent.core.errors import ModelError, ParameterError, XlatentError
from xlatent.core.hooks import implementation
from xlatent.core.latent_columns import COLUMNS, META_KEYS, MODEL_ID_LENGTH, N_LATENTS, astropy_column, column_values

if TYPE_CHECKING:  # which takes as long to load as everything else that embeds a spectrum
    from astropy.table import Table
    from matplotlib.axes import Axes
    from pandas import DataFrame

_UPPER = np.triu_indices(N_LATENTS, 1)


class LatentTable:
    """Latents, their uncertainties and what follows from them, one row a spectrum.

    Indexed by a text it gives a column, by a number a `Row`, and by a slice, a mask or a list of row numbers a table
    of those rows; rows by the name of their spectrum are under `loc`. Iterating gives its rows.

    Parameters
    ----------
    columns : mapping or astropy.table.Table
        Columns of equal length by name. Columns of `COLUMNS` that are absent are filled with missing values: NaN, an
        empty string, or a masked whole number; ``model_id`` with what `meta` says. Others are kept behind them. A
        column of plain numbers takes the unit of the schema; one that brings a unit must agree with it.
    meta : mapping, optional
        Origin of the latents, with keys among ``model``, ``model_sha256`` and ``software``.

    Raises
    ------
    ParameterError
        If a column has the wrong type or unit, the lengths differ, or `meta` has another key.

    Examples
    --------
    >>> table = LatentTable.from_posterior(np.zeros((2, 8)), np.tile(np.eye(8), (2, 1, 1)), {"name": ["a", "b"]})
    >>> len(table), table.z.shape, table.covariance.shape
    (2, (2, 8), (2, 8, 8))
    >>> [row["name"] for row in table], table.loc["b"]["z0"], len(table[table["z0_err"] < 0.5])
    (['a', 'b'], 0.0, 0)
    """

    def __init__(self, columns: "Mapping[str, Any] | Table", meta: Mapping[str, str] | None = None) -> None:
        given = {name: columns[name] for name in columns.keys()}  # noqa: SIM118 (a Table iterates over its rows)
        lengths = {name: len(value) for name, value in given.items()}
        if len(set(lengths.values())) > 1:
            raise ParameterError(f"the columns of a latent table must have equal lengths, found {lengths}")
        n_rows = next(iter(lengths.values()), 0)
        if unknown := set(meta or {}) - set(META_KEYS):
            raise ParameterError(f"unknown meta {sorted(unknown)}: a latent table takes {', '.join(META_KEYS)}")
        self.meta: dict[str, str] = {key: str(value) for key, value in (meta or {}).items()}
        if "model_id" not in given:
            given["model_id"] = np.full(n_rows, self.meta.get("model_sha256", "")[:MODEL_ID_LENGTH])
        self._known = {info.name: column_values(info, given.pop(info.name, None), n_rows) for info in COLUMNS}
        self._more = given

    @classmethod
    def from_posterior(
        cls,
        z: Float[np.ndarray, "n 8"],
        covariance: Float[np.ndarray, "n 8 8"],
        columns: Mapping[str, Any],
        meta: Mapping[str, str] | None = None,
    ) -> "LatentTable":
        """Make a table from posterior means and covariance matrices, and the other columns by name.

        Raises
        ------
        ParameterError
            As the class.

        Examples
        --------
        >>> LatentTable.from_posterior(np.zeros((1, 8)), np.eye(8)[None], {"name": ["a"]}).z_err[0, :2].tolist()
        [1.0, 1.0]
        """
        latent: dict[str, Any] = {f"z{i}": z[:, i] for i in range(N_LATENTS)}
        latent |= {f"z{i}_err": np.sqrt(covariance[:, i, i]) for i in range(N_LATENTS)}
        latent |= {f"z{i}_z{j}_cov": covariance[:, i, j] for i, j in combinations(range(N_LATENTS), 2)}
        return cls(latent | dict(columns), meta)

    @classmethod
    def read(cls, path: str | Path) -> "LatentTable":
        """Read a table of latents.

        Parameters
        ----------
        path : str or Path
            ``.parquet``, ``.fits``, ``.vot`` or ``.ecsv``; or the folder or URL of an embedding in parts.

        Raises
        ------
        ReadError
            If the suffix is another one, the file is missing or damaged, or it has no latents; if parts are missing.

        Examples
        --------
        >>> import tempfile
        >>> path = LatentTable({"name": ["a"], "z0": [0.5]}).write(Path(tempfile.mkdtemp()) / "latents.fits")
        >>> LatentTable.read(path)["z0"].tolist()
        [0.5]
        """
        table: LatentTable = implementation("read_latent_table")(path)
        return table

    def write(self, path: str | Path) -> Path:
        """Write the table, whole or not at all; a file of that name is replaced.

        Parameters
        ----------
        path : str or Path
            ``.parquet``, ``.fits``, ``.vot`` (VOTable) or ``.ecsv``; units, UCDs, descriptions and origin go with it.

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
        >>> LatentTable({"name": ["a"]}).write(Path(tempfile.mkdtemp()) / "latents.parquet").name
        'latents.parquet'
        """
        written: Path = implementation("write_latent_table")(self, path)
        return written

    @classmethod
    def concat(cls, tables: "Sequence[LatentTable]") -> "LatentTable":
        """Put tables of one model under one another; columns that some lack are missing in their rows.

        Parameters
        ----------
        tables : sequence of LatentTable
            At least one. The origin of the first is that of the result.

        Raises
        ------
        ParameterError
            If there is none, or columns beside `COLUMNS` differ in unit.
        ModelError
            If they are of different models, or only some say which.

        Examples
        --------
        >>> a, b = LatentTable({"name": ["a"]}), LatentTable({"name": ["b"], "class": ["AGN"]})
        >>> LatentTable.concat([a, b])["class"].tolist()
        [None, 'AGN']
        """
        if not tables:
            raise ParameterError("there are no tables to put together; give at least one")
        check_same_model({f"table {i}": table for i, table in enumerate(tables)}, "put tables of one model together")
        columns: dict[str, Any] = {
            info.name: (np.ma if info.dtype is int else np).concatenate([table._known[info.name] for table in tables])
            for info in COLUMNS
        }
        for name in dict.fromkeys(name for table in tables for name in table._more):
            columns[name] = _concatenated(name, [(table._table, len(table)) for table in tables])
        return cls(columns, tables[0].meta)

    @cached_property
    def _table(self) -> "Table":
        """All columns with their attributes, which take longer to make than what is in them."""
        from astropy.table import Table

        table = Table({info.name: astropy_column(info, self._known[info.name]) for info in COLUMNS}, copy=False)
        for name, column in self._more.items():
            table[name] = column
        return table

    @property
    def z(self) -> Float[np.ndarray, "n 8"]:
        """Posterior means of the latents [n, 8]."""
        return self._stack([f"z{i}" for i in range(N_LATENTS)])

    @property
    def z_err(self) -> Float[np.ndarray, "n 8"]:
        """Standard deviations of the latents [n, 8]."""
        return self._stack([f"z{i}_err" for i in range(N_LATENTS)])

    @property
    def covariance(self) -> Float[np.ndarray, "n 8 8"]:
        """Covariance matrices of the latents [n, 8, 8], symmetric, with ``z_err ** 2`` on the diagonal."""
        matrix = np.zeros((len(self), N_LATENTS, N_LATENTS))
        off_diagonal = self._stack([f"z{i}_z{j}_cov" for i, j in combinations(range(N_LATENTS), 2)])
        matrix[:, _UPPER[0], _UPPER[1]] = matrix[:, _UPPER[1], _UPPER[0]] = off_diagonal
        matrix[:, range(N_LATENTS), range(N_LATENTS)] = self.z_err**2
        return matrix

    @property
    def source_names(self) -> Shaped[np.ndarray, " n"]:
        """Name of the source of each row [n]: column ``source``, or ``name`` where that is empty.

        Examples
        --------
        >>> LatentTable({"name": ["obs 1", "obs 2"], "source": ["3C 273", ""]}).source_names.tolist()
        ['3C 273', 'obs 2']
        """
        names, sources = (np.char.strip(self._known[key]) for key in ("name", "source"))
        return np.where(sources == "", names, sources)

    @property
    def colnames(self) -> list[str]:
        """Names of all columns, in order."""
        return [*self._known, *self._more]

    def values(self, name: str) -> np.ndarray:
        """Values of a column of `COLUMNS` [n], without its attributes.

        Examples
        --------
        >>> LatentTable({"z0": [0.5]}).values("z0")
        array([0.5])
        """
        return self._known[name]

    def to_astropy(self) -> "Table":
        """Copy the table to one of astropy, with units, descriptions, UCDs (``column.meta["ucd"]``) and ``meta``.

        Examples
        --------
        >>> str(LatentTable({"exposure": [1e4]}).to_astropy()["exposure"].unit)
        's'
        """
        table = self._table.copy()
        table.meta.update(self.meta)
        return table

    def to_pandas(self) -> "DataFrame":
        """Copy the table to a pandas DataFrame, whose ``attrs`` are ``meta``; units and UCDs have no place there.

        Raises
        ------
        XlatentError
            If pandas is not installed.

        Examples
        --------
        >>> LatentTable({"name": ["a", "b"], "z0": [0.5, 1.0]}).to_pandas()["z0"].mean()
        np.float64(0.75)
        """
        try:
            import pandas  # noqa: F401
        except ModuleNotFoundError:
            raise XlatentError("pandas is not installed, and to_pandas needs it: pip install pandas") from None
        frame: DataFrame = self._table.to_pandas()
        frame.attrs.update(self.meta)
        return frame

    def with_columns(self, columns: Mapping[str, Any]) -> "LatentTable":
        """Return a copy with more columns; one of a name that is there takes its place.

        Parameters
        ----------
        columns : mapping
            One value a row for each name.

        Raises
        ------
        ParameterError
            If a length differs, or a column of `COLUMNS` has the wrong type or unit.

        Examples
        --------
        >>> table = LatentTable({"name": ["a", "b"]}).with_columns({"kind": ["AGN", "CV"]})
        >>> table.colnames[-1], table["kind"].tolist()
        ('kind', ['AGN', 'CV'])
        """
        return LatentTable({name: self[name] for name in self.colnames} | dict(columns), self.meta)

    def plot_latents(self, dims: tuple[int, int] = (0, 1), ax: "Axes | None" = None, **options: Any) -> "Axes":
        """Draw two latents of every row with their errors.

        Parameters
        ----------
        dims : pair of int
            Latents along x and y.
        ax : matplotlib.axes.Axes, optional
            Where to draw; a new figure if not given.
        **options
            As in `xlatent.figures.latent_space.plot_latents`.

        Returns
        -------
        matplotlib.axes.Axes
            Nothing is shown or written.

        Examples
        --------
        >>> table = LatentTable.from_posterior(np.eye(8), np.tile(np.eye(8), (8, 1, 1)), {})
        >>> axes = table.plot_latents(dims=(0, 2))
        """
        axes: Axes = implementation("plot_latents")(self, dims=dims, ax=ax, **options)
        return axes

    @property
    def loc(self) -> "_RowsByName":
        """Rows by the name of their spectrum: ``table.loc["3C 273"]``; of a list of names, a table in that order.

        Apart from ``table[...]``, where a text is a column, and called as in pandas and astropy. A name that several
        rows have is refused, not guessed: take ``table[table["name"] == name]``.

        Examples
        --------
        >>> table = LatentTable({"name": ["a", "b"], "z0": [0.0, 1.0]})
        >>> table.loc["b"]["z0"], table.loc[["b", "a"]]["z0"].tolist()
        (1.0, [1.0, 0.0])
        """
        return _RowsByName(self)

    @cached_property
    def _rows_by_name(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for row, name in enumerate(self._known["name"].tolist()):
            found.setdefault(name, []).append(row)
        return found

    def __len__(self) -> int:
        return len(self._known["name"])

    def __iter__(self) -> "Iterator[Row]":
        return (Row(self, number) for number in range(len(self)))

    def __getitem__(self, key: Any) -> Any:
        """A column by its name, a row by its number; by a slice, a mask or a list of row numbers, a table of those."""
        if isinstance(key, str):
            if key not in self.colnames:
                raise KeyError(f"no column {key!r} in this latent table; its columns are {', '.join(self.colnames)}")
            return self._table[key]
        if isinstance(key, int | np.integer):
            if not -len(self) <= key < len(self):
                raise IndexError(f"there is no row {key} in a latent table of {len(self)}")
            return Row(self, range(len(self))[key])
        if isinstance(key, list) and not key:
            key = slice(0, 0)
        elif not isinstance(key, slice | tuple):
            key = np.ma.filled(np.ma.asarray(key), False)  # a mask says nothing of a row whose value is missing
            if key.dtype.kind not in "biu":
                raise TypeError(
                    "rows are selected by a number, a slice, a mask or a list of row numbers; columns by name"
                )
        part = object.__new__(LatentTable)
        part.meta = dict(self.meta)
        part._known = {name: values[key] for name, values in self._known.items()}
        part._more = {name: self._table[name][key] for name in self._more}
        return part

    def __repr__(self) -> str:
        return "\n".join([self._heading, *self._shown()])

    def _repr_html_(self) -> str:
        return f"<p>{escape(self._heading)}</p>\n" + "\n".join(self._shown(html=True))

    @property
    def _heading(self) -> str:
        model = self.meta.get("model", "unknown model")
        return f"LatentTable: {len(self)} spectra, 8 latents, {len(self.colnames)} columns; {model}"

    def _shown(self, **how: Any) -> list[str]:
        """Lines of a few columns and rows, for a person."""
        if len(self) == 0:
            return []
        shown = self._table[["name", "counts", "log_flux_b", *(f"z{i}" for i in range(N_LATENTS))]]
        for name in shown.colnames[1:]:
            shown[name].format = ".0f" if name == "counts" else ".2f"
        lines: list[str] = shown.pformat(max_lines=14, max_width=-1, show_unit=False, **how)
        return lines

    def _stack(self, names: list[str]) -> Float[np.ndarray, "n m"]:
        return np.stack([self._known[name] for name in names], axis=1)


class Row(Mapping[str, Any]):
    """One row of a latent table: its values by column name, read only; a missing whole number or text is None.

    Examples
    --------
    >>> row = LatentTable({"name": ["a"], "z0": [0.5]})[0]
    >>> row["name"], row["obsid"], row.z.shape, row.covariance.shape
    ('a', None, (8,), (8, 8))
    """

    __slots__ = ("_number", "_table")

    def __init__(self, table: LatentTable, number: int) -> None:
        self._table, self._number = table, number

    def __getitem__(self, name: str) -> Any:
        known = name in self._table._known
        value = (self._table.values(name) if known else self._table[name])[self._number]
        if value is np.ma.masked:
            return None
        return value.item() if isinstance(value, np.generic) else value

    def __iter__(self) -> Iterator[str]:
        return iter(self._table.colnames)

    def __len__(self) -> int:
        return len(self._table.colnames)

    @property
    def z(self) -> Float[np.ndarray, " 8"]:
        """Posterior means of the latents [8]."""
        return np.array([self[f"z{i}"] for i in range(N_LATENTS)])

    @property
    def z_err(self) -> Float[np.ndarray, " 8"]:
        """Standard deviations of the latents [8]."""
        return np.array([self[f"z{i}_err"] for i in range(N_LATENTS)])

    @property
    def covariance(self) -> Float[np.ndarray, "8 8"]:
        """Covariance matrix of the latents [8, 8]."""
        matrix: np.ndarray = self._table[self._number : self._number + 1].covariance[0]
        return matrix

    def __repr__(self) -> str:
        latents = ", ".join(f"{value:.2f}" for value in self.z)
        return f"<Row {self['name']!r}: {self['counts']:.0f} counts, z = [{latents}]>"


class _RowsByName:
    """What `LatentTable.loc` is."""

    def __init__(self, table: LatentTable) -> None:
        self._table = table

    def __getitem__(self, names: str | Sequence[str]) -> Any:
        if isinstance(names, str):
            return self._table[self._number(names)]
        return self._table[[self._number(name) for name in names]]

    def _number(self, name: str) -> int:
        rows = self._table._rows_by_name.get(name, [])
        if len(rows) != 1:
            if rows:
                raise KeyError(f'{len(rows)} rows are named {name!r}; take them by table[table["name"] == {name!r}]')
            some = ", ".join(map(repr, list(self._table._rows_by_name)[:3]))
            raise KeyError(f"no row is named {name!r}; names here are {some or 'none'}, ...")
        return rows[0]


def _concatenated(name: str, tables: "list[tuple[Table, int]]") -> Any:
    """A column that is not of the schema, of tables and their lengths; masked where a table lacks it."""
    from astropy.table import MaskedColumn

    there = [table[name] for table, _ in tables if name in table.colnames]
    if len({str(column.unit) for column in there}) > 1:
        units = " and ".join(sorted({str(column.unit) for column in there}))
        raise ParameterError(f"column {name} is in {units} in tables to be put together; convert or rename one")
    empty = np.zeros(1, there[0].dtype)
    parts = [
        np.ma.asarray(table[name]) if name in table.colnames else np.ma.array(np.repeat(empty, n), mask=True)
        for table, n in tables
    ]
    first = there[0]
    return MaskedColumn(np.ma.concatenate(parts), unit=first.unit, description=first.description, meta=first.meta)


def check_same_model(
    given: Mapping[str, LatentTable | Mapping[str, str] | str],
    remedy: str = "embed both with one model",
    *,
    unknown_passes: bool = False,
) -> str:
    """Make sure that latents are of one model, so that their numbers mean the same.

    Parameters
    ----------
    given : mapping
        By a name for the message, such as a file's: a table, the ``meta`` of one, or the sha256 of a model itself.
    remedy : str
        What to do where they differ, for the end of the message.
    unknown_passes : bool
        Whether what does not say its model agrees with any; otherwise only with others that do not say it.

    Returns
    -------
    str
        sha256 of the model; empty if none says it.

    Raises
    ------
    ModelError
        If two of them are of different models.

    Examples
    --------
    >>> old, new = LatentTable({}, {"model_sha256": "ab" * 32}), LatentTable({}, {"model_sha256": "cd" * 32})
    >>> check_same_model({"a.fits": old, "b.fits": old})[:6]
    'ababab'
    >>> check_same_model({"old": old, "new": new}, "embed again")
    Traceback (most recent call last):
        ...
    xlatent.core.errors.ModelError: old is of model abababababab, and new of cdcdcdcdcdcd: embed again
    """
    found = [(name, model) for name, one in given.items() for model in _models_of(one)]
    if unknown_passes:
        found = [(name, model) for name, model in found if model]
    if not found:
        return ""
    (first, model), *others = found
    for name, other in others:
        if other[:MODEL_ID_LENGTH] != model[:MODEL_ID_LENGTH]:
            a, b = (shown[:MODEL_ID_LENGTH] or "unknown" for shown in (model, other))
            raise ModelError(f"{first} is of model {a}, and {name} of {b}: {remedy}")
    return model


def _models_of(given: LatentTable | Mapping[str, str] | str) -> list[str]:
    """Tell the sha256 of the model, and the ids of rows that are not of it: tables may have been joined elsewhere."""
    if isinstance(given, str):
        return [given]
    if not isinstance(given, LatentTable):
        return [given.get("model_sha256", "")]
    model, ids = given.meta.get("model_sha256", ""), given.values("model_id")
    own = model[:MODEL_ID_LENGTH] if model or not len(ids) else str(ids[0])
    others = np.unique(ids[(ids != own) & (ids != "")]).tolist()
    return [model or own, *others]
