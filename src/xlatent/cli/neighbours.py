"""``xlatent neighbours``: the sources of a table that are nearest to others in latent space."""

from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xlatent.cli.results import RESULTS, write
from xlatent.cli.ui import print_table, progress_bar
from xlatent.core.errors import ParameterError
from xlatent.core.outputs import check_output

if TYPE_CHECKING:
    import numpy as np

_SHOWN = 20
_SPARE = 8  # rows asked for beyond those wanted, as some may be of the query's own name


def neighbours(
    table: Annotated[Path, typer.Argument(metavar="T", help="Table of latents to search.", show_default=False)],
    query: Annotated[
        Path, typer.Argument(help="Table of latents of the sources whose neighbours are wanted.", show_default=False)
    ],
    output: Annotated[
        Path | None, typer.Option(help=f"Table to write, one row a neighbour: {', '.join(RESULTS)}.")
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Table with name and class; T's own class if not given."),
    ] = None,
    index: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Index of T: read if it is there, or else built and kept.")
    ] = None,
    k: Annotated[int, typer.Option("--number", "-k", min=1, help="Neighbours of each.")] = 5,
) -> None:
    """Find the nearest sources to each source of QUERY, by a distance that respects the errors of both.

    Ordered by log_odds: ln of how much more likely the data are with the neighbour's z than with that of any source.
    distance is in standard deviations. Rows of one name are no neighbours. Of millions of rows, keep T as .parquet and
    its index with --index: then only what is shown is read.
    """
    if output is not None:
        check_output(output, RESULTS)
    import numpy as np
    from astropy.table import Table

    from xlatent.formats import latent_tables
    from xlatent.science.neighbours import Index

    asked = latent_tables.read(query)
    searched = _Searched(table, labels)
    if (model := searched.model) and model != (other := asked.meta.get("model_sha256", model)):
        raise ParameterError(
            f"{table} has latents of model {model[:12]} and {query} of {other[:12]}: embed both with one model"
        )
    if index is not None and index.exists():
        found = Index.load(index)
        found.check(np.asarray(searched.column("z0")), model)
    else:
        found = Index.build(*searched.posteriors(), model)
        if index is not None:
            found.save(index)
    z, covariance = asked.z, asked.covariance
    rows = []
    with progress_bar("searches", len(asked)) as advance:
        for i, name in enumerate(np.asarray(asked["name"])):
            wanted = k + _SPARE
            while True:
                near = found.search(z[i], covariance[i], wanted)
                names = searched.texts("name", near.rows)
                others = [place for place, other in enumerate(names) if other != name or not name][:k]
                if len(others) == k or len(near.rows) < wanted:
                    break
                wanted *= 4
            kinds = searched.texts("class", near.rows[others])
            for rank, (place, kind) in enumerate(zip(others, kinds, strict=True), start=1):
                numbers = (float(near.log_odds[place]), float(near.distance[place]))
                rows.append((str(name), rank, names[place], kind, *numbers))
            advance(i + 1)
    if not rows:
        raise ParameterError(f"{table} has no source but those of {query}; give a longer table")
    result = Table(rows=rows, names=("query", "rank", "name", "class", "log_odds", "distance"))
    print_table(result[:_SHOWN])
    if len(result) > _SHOWN:
        typer.echo(f"and {len(result) - _SHOWN} more")
    if output is not None:
        write(result, output)
        typer.echo(f"written to {output}")


class _Searched:
    """The table to search; of a Parquet file only those columns are read that are asked for."""

    def __init__(self, path: Path, labels: Path | None) -> None:
        self._file = _parquet(path) if labels is None else None
        self._columns: dict[str, Any] = {}
        if self._file is None:
            from xlatent.formats.catalogue_tables import read_joined

            self._table = read_joined(path, labels, ["class"] if labels is not None else [])
            self._names, self.model = self._table.colnames, self._table.meta.get("model_sha256", "")
        else:
            schema = self._file.schema_arrow
            self._names, self.model = schema.names, (schema.metadata or {}).get(b"xlatent.model_sha256", b"").decode()

    def column(self, name: str) -> Any:
        if name not in self._columns:
            self._columns[name] = self._table[name] if self._file is None else self._file.read([name])[name]
        return self._columns[name]

    def texts(self, name: str, rows: "np.ndarray") -> list[str]:
        """Texts of some rows, empty where the column is missing or says nothing."""
        if name not in self._names:
            return [""] * len(rows)
        values = [self.column(name)[int(row)] for row in rows]
        values = [value.as_py() if hasattr(value, "as_py") else value for value in values]
        return ["" if value is None or getattr(value, "mask", False) else str(value) for value in values]

    def posteriors(self) -> "tuple[np.ndarray, np.ndarray]":
        import numpy as np

        from xlatent.core.latent_columns import N_LATENTS

        if self._file is None:
            return self._table.z, self._table.covariance
        n, done = self._file.metadata.num_rows, 0
        columns, d = _posterior(), N_LATENTS
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


def _posterior() -> dict[str, tuple[int, int]]:
    """Columns of a posterior: their row and column in the covariance matrix, or the place in the mean and -1."""
    from xlatent.core.latent_columns import N_LATENTS

    columns = {f"z{i}": (i, -1) for i in range(N_LATENTS)} | {f"z{i}_err": (i, i) for i in range(N_LATENTS)}
    return columns | {f"z{i}_z{j}_cov": (i, j) for i, j in combinations(range(N_LATENTS), 2)}


def _parquet(path: Path) -> Any:
    """A readable Parquet file of latents; of any other, None: `read_joined` says what is wrong with it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if path.suffix.lower() != ".parquet":
        return None
    try:
        file = pq.ParquetFile(path)
    except (OSError, pa.ArrowException):
        return None
    return file if {"name", *_posterior()} <= set(file.schema_arrow.names) else None
