"""``xlatent cluster``: a table of latents in, the same with the cluster of each row out."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from xlatent.cli.options import LatentsArgument, TableOutput
from xlatent.cli.ui import print_table
from xlatent.core.outputs import RESULTS, TABLES, check_output


class Method(StrEnum):
    """Of `xlatent.science.cluster.find_clusters`."""

    MIXTURE = "mixture"
    HDBSCAN = "hdbscan"


def cluster(
    table: LatentsArgument,
    output: TableOutput,
    method: Annotated[Method, typer.Option(help="Mixture of normal distributions, or HDBSCAN.")] = Method.MIXTURE,
    number: Annotated[
        int | None,
        typer.Option(min=1, help="Components of the mixture; by the Bayesian information criterion if not given."),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Table with name and class, to judge the clusters by; the table's own class if not given.",
        ),
    ] = None,
    scores: Annotated[
        Path | None, typer.Option(metavar="FILE", help=f"Table to write of the scores: {', '.join(RESULTS)}.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of draws, starts and folds.")] = 0,
) -> None:
    """Find clusters of sources in latent space, and judge them by known classes where there are any.

    Adds the columns cluster (0 is the largest, -1 none), cluster_prob and, for each cluster, p_cluster0 and so on.
    Classes are not looked at to find clusters; those of four fifths of the sources name them, the last fifth judges.
    """
    check_output(output, TABLES)
    if scores is not None:
        check_output(scores, RESULTS)
    import numpy as np

    from xlatent.formats.catalogue_tables import read_joined, write_results
    from xlatent.science.cluster import find_clusters
    from xlatent.science.cluster_scores import score_clustering
    from xlatent.science.selection import class_labels, source_ids

    latents = read_joined(table, labels, ["class"] if labels is not None else [])
    found = find_clusters(latents, method.value, number, seed)
    if "class" in latents.colnames:
        rows = np.isfinite(found.probability)
        results = score_clustering(found.label[rows], class_labels(latents)[rows], source_ids(latents)[rows], seed)
        print_table(results)
        if scores is not None:
            write_results(results, scores)
    latents.with_columns(found.columns).write(output)
    sizes = ", ".join(map(str, found.sizes)) or "none"
    typer.echo(f"clusters of {sizes} rows, {len(latents) - sum(found.sizes)} rows in none; written to {output}")
