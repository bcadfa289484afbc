"""``xlatent neighbours``: the sources of a table that are nearest to others in latent space."""

from pathlib import Path
from typing import Annotated

import typer

from xlatent.cli import check_output, progress_bar
from xlatent.cli.results import RESULTS, read_joined, show, write
from xlatent.errors import ParameterError

_SHOWN = 20


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
    distance is in standard deviations. Rows of one name are no neighbours.
    """
    if output is not None:
        check_output(output, RESULTS)
    import numpy as np
    from astropy.table import Table

    from xlatent.formats import tables
    from xlatent.science.neighbours import Index

    searched, asked = read_joined(table, labels, ["class"] if labels is not None else []), tables.read(query)
    model = searched.meta.get("model_sha256", "")
    if model != (other := asked.meta.get("model_sha256", model)) and model:
        raise ParameterError(
            f"{table} has latents of model {model[:12]} and {query} of {other[:12]}: embed both with one model"
        )
    if index is not None and index.exists():
        found = Index.load(index)
        found.check(searched.z, model)
    else:
        found = Index.build(searched.z, searched.covariance, model)
        if index is not None:
            found.save(index)
    names = np.asarray(searched["name"])
    kinds = np.full(len(searched), "")
    if "class" in searched.colnames:
        kinds = np.ma.filled(np.ma.asarray(searched["class"]).astype(str), "")
    z, covariance, askers = asked.z, asked.covariance, np.asarray(asked["name"])
    most = np.unique(names, return_counts=True)[1].max()
    rows = []
    with progress_bar("searches", len(asked)) as advance:
        for i, name in enumerate(askers):
            near = found.search(z[i], covariance[i], k + int(most))
            others = [place for place, row in enumerate(near.rows) if names[row] != name or not name][:k]
            for rank, place in enumerate(others, start=1):
                row = near.rows[place]
                numbers = (float(near.log_odds[place]), float(near.distance[place]))
                rows.append((str(name), rank, str(names[row]), str(kinds[row]), *numbers))
            advance(i + 1)
    if not rows:
        raise ParameterError(f"{table} has no source but those of {query}; give a longer table")
    result = Table(rows=rows, names=("query", "rank", "name", "class", "log_odds", "distance"))
    show(result[:_SHOWN])
    if len(result) > _SHOWN:
        typer.echo(f"and {len(result) - _SHOWN} more")
    if output is not None:
        write(result, output)
        typer.echo(f"written to {output}")
