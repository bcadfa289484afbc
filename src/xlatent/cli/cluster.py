"""``xlatent cluster``: a table of latents in, the same with the cluster of each row out."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from xlatent.cli.results import RESULTS, write
from xlatent.cli.ui import print_table
from xlatent.core.outputs import TABLES, check_output


class Method(StrEnum):
    """Of `xlatent.science.cluster.find_clusters`."""

    MIXTURE = "mixture"
    HDBSCAN = "hdbscan"


def cluster(
    table: Annotated[Path, typer.Argument(help="Table of latents.", show_default=False)],
    output: Annotated[Path, typer.Option(help=f"Table to write: {', '.join(TABLES)}.", show_default=False)],
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

    from xlatent.core.latents import LatentTable
    from xlatent.formats import latent_tables
    from xlatent.formats.catalogue_tables import read_joined
    from xlatent.science import cluster as clusters
    from xlatent.science import cluster_scores
    from xlatent.science.selection import source_ids

    latents = read_joined(table, labels, ["class"] if labels is not None else [])
    found = clusters.find_clusters(latents, method.value, number, seed)
    columns = {name: latents[name] for name in latents.colnames}
    columns |= {"cluster": found.label, "cluster_prob": found.probability}
    columns |= {f"p_cluster{k}": found.membership[:, k] for k in range(found.membership.shape[1])}
    if "class" in columns:
        classes = np.ma.filled(np.ma.asarray(columns["class"]).astype(str), "")
        with_latents = np.isfinite(found.probability)
        results = cluster_scores.score_clustering(
            found.label[with_latents], classes[with_latents], source_ids(latents)[with_latents], seed
        )
        print_table(results)
        if scores is not None:
            write(results, scores)
    latent_tables.write(LatentTable(columns, latents.meta), output)
    sizes = np.bincount(found.label + 1, minlength=1)
    told = ", ".join(str(size) for size in sizes[1:]) or "none"
    typer.echo(f"clusters of {told} rows, {sizes[0]} rows in none; written to {output}")
