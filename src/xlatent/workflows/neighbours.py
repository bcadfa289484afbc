"""The nearest sources of one table of latents to those of another; of a Parquet file only what is needed is read."""

from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import Table
from jaxtyping import Float, Int

from xlatent.core.errors import ParameterError
from xlatent.core.latent_columns import N_LATENTS
from xlatent.core.latents import LatentTable, check_same_model
from xlatent.formats.catalogue_tables import read_joined
from xlatent.science.neighbours import Index

_SPARE = 8  # rows asked for beyond those wanted, as some may be of the query's own name


def find_neighbours(
    table: str | Path,
    query: str | Path,
    *,
    labels: str | Path | None = None,
    index: str | Path | None = None,
    k: int = 5,
    progress: Callable[[int, int], None] | None = None,
) -> Table:
    """Find the nearest sources to each source of a query, by a distance that respects the errors of both.

    Parameters
    ----------
    table : str or Path
        Table of latents to search. Of a ``.parquet`` file with an ``index`` only what is shown is read.
    query : str or Path
        Table of latents of the sources whose neighbours are wanted.
    labels : str or Path, optional
        Table with ``name`` and ``class``; the searched table's own class if not given.
    index : str or Path, optional
        Folder of its index: read if it is there, or else built and kept.
    k : int
        Neighbours of each source. Rows of its own name are none.
    progress : callable, optional
        Takes the number of sources that are done, and of all.

    Returns
    -------
    astropy.table.Table
        Columns ``query``, ``rank`` (1 is the nearest), ``name``, ``class``, ``log_odds`` (ln of how much more likely
        the data are with the neighbour's z than with that of any source) and ``distance`` (in standard deviations).

    Raises
    ------
    ModelError
        If the tables are of different models.
    ParameterError
        If the index is of another table, or the table has no other source.

    Examples
    --------
    >>> import tempfile
    >>> z = np.zeros((3, 8))
    >>> z[:, 0] = 0.0, 1.0, 0.1
    >>> table = LatentTable.from_posterior(z, np.tile(0.01 * np.eye(8), (3, 1, 1)), {"name": ["a", "b", "c"]})
    >>> path = table.write(tempfile.mkdtemp() + "/latents.parquet")
    >>> [str(name) for name in find_neighbours(path, path, k=1)["name"]]
    ['c', 'c', 'a']
    """
    wanted = LatentTable.read(query)
    searched = _SearchedTable(Path(table), None if labels is None else Path(labels))
    check_same_model({str(table): searched.model, str(query): wanted}, unknown_passes=True)
    found = _open_index(searched, None if index is None else Path(index))
    z, covariance = wanted.z, wanted.covariance
    rows: list[tuple[str, int, str, str, float, float]] = []
    for i, name in enumerate(wanted["name"].tolist()):
        number = k + _SPARE
        while True:
            near = found.search(z[i], covariance[i], number)
            names = searched.texts("name", near.rows)
            others = [place for place, other in enumerate(names) if other != name or not name][:k]
            if len(others) == k or len(near.rows) < number:
                break
            number *= 4
        kinds = searched.texts("class", near.rows[others])
        for rank, (place, kind) in enumerate(zip(others, kinds, strict=True), start=1):
            rows.append((name, rank, names[place], kind, float(near.log_odds[place]), float(near.distance[place])))
        if progress is not None:
            progress(i + 1, len(wanted))
    if not rows:
        raise ParameterError(f"{table} has no source but those of {query}; give a longer table")
    return Table(rows=rows, names=("query", "rank", "name", "class", "log_odds", "distance"))


def _open_index(searched: "_SearchedTable", folder: Path | None) -> Index:
    """Read the index of a table, or build it and keep it in its folder."""
    if folder is not None and folder.exists():
        index = Index.load(folder)
        index.check(np.asarray(searched.column("z0")), searched.model)
        return index
    index = Index.build(*searched.posteriors(), searched.model)
    if folder is not None:
        index.save(folder)
    return index


class _SearchedTable:
    """The table to search; of a Parquet file only those columns are read that are asked for."""

    def __init__(self, path: Path, labels: Path | None) -> None:
        self._file = _open_parquet(path) if labels is None else None
        self._columns: dict[str, Any] = {}
        if self._file is None:
            self._table = read_joined(path, labels, ["class"] if labels is not None else [])
            self._names, self.model = self._table.colnames, self._table.meta.get("model_sha256", "")
        else:
            schema = self._file.schema_arrow
            self._names, self.model = schema.names, (schema.metadata or {}).get(b"xlatent.model_sha256", b"").decode()

    def column(self, name: str) -> Any:
        """Read a column, once."""
        if name not in self._columns:
            self._columns[name] = self._table[name] if self._file is None else self._file.read([name])[name]
        return self._columns[name]

    def texts(self, name: str, rows: Int[np.ndarray, " m"]) -> list[str]:
        """Read the texts of some rows, empty where the column is missing or says nothing."""
        if name not in self._names:
            return [""] * len(rows)
        values = [self.column(name)[int(row)] for row in rows]
        values = [value.as_py() if hasattr(value, "as_py") else value for value in values]
        return ["" if value is None or getattr(value, "mask", False) else str(value) for value in values]

    def posteriors(self) -> tuple[Float[np.ndarray, "n 8"], Float[np.ndarray, "n 8 8"]]:
        """Read means and covariances of all rows."""
        if self._file is None:
            return self._table.z, self._table.covariance
        n, done = self._file.metadata.num_rows, 0
        columns, d = _posterior_columns(), N_LATENTS
        z, covariance = np.empty((n, d), np.float32), np.empty((n, d, d), np.float32)
        for batch in self._file.iter_batches(columns=list(columns)):
            part = slice(done, done := done + len(batch))
            for name, (i, j) in columns.items():
                values = batch[name].to_numpy(zero_copy_only=False)
                if j < 0:
                    z[part, i] = values
                else:
                    covariance[part, i, j] = covariance[part, j, i] = values**2 if i == j else values
        return z, covariance


def _posterior_columns() -> dict[str, tuple[int, int]]:
    """Columns of a posterior: their row and column in the covariance matrix, or the place in the mean and -1."""
    columns = {f"z{i}": (i, -1) for i in range(N_LATENTS)} | {f"z{i}_err": (i, i) for i in range(N_LATENTS)}
    return columns | {f"z{i}_z{j}_cov": (i, j) for i, j in combinations(range(N_LATENTS), 2)}


def _open_parquet(path: Path) -> Any:
    """Open a readable Parquet file of latents; None for any other: `read_joined` says what is wrong with it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if path.suffix.lower() != ".parquet":
        return None
    try:
        file = pq.ParquetFile(path)
    except (OSError, pa.ArrowException):
        return None
    return file if {"name", *_posterior_columns()} <= set(file.schema_arrow.names) else None
