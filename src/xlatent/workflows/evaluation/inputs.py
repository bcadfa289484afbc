"""What an evaluation looks at: tables of latents with the columns joined to them, and simpler representations."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from xlatent.core.bands import HARDNESS_RATIOS
from xlatent.core.bundle import shipped
from xlatent.core.errors import InputError, ReadError
from xlatent.core.latent_columns import N_LATENTS
from xlatent.core.latents import LatentTable, check_same_model
from xlatent.formats import latent_tables
from xlatent.formats.catalogue_tables import SourceTable
from xlatent.formats.store import is_store, open_store
from xlatent.formats.store_rows import SCHEMA
from xlatent.infer.embed import load_model
from xlatent.infer.observation import prepare
from xlatent.science.selection import class_labels, numeric_column
from xlatent.workflows.embed import embed_files

LATENTS, HARDNESS, PCA, PAPER = "z", "hardness ratios", "PCA-8", "paper preset"
"""The representations that are compared."""
PAPER_MODEL = "paper-8"
ORIGINS = {
    "fluxes": "latents from catalogue band fluxes, not from spectra",
    "ratios": "latents from catalogue hardness ratios, not from spectra",
    "spectra": "latents from spectra",
    "unknown": "origin of the latents unknown",
}
"""What stands in the heading of every table."""
MADE_FROM = {"fluxes": "band fluxes", "ratios": "hardness ratios"}
_KEYS = ("name", "ra", "dec")  # of a joined table, that are not columns to be looked at
_MIN_SPECTRA = 50  # that principal components are computed of


@dataclass(frozen=True, eq=False)
class Dataset:
    """One table to be evaluated.

    Attributes
    ----------
    name : str
    latents : LatentTable
    joined : LatentTable
        The same rows with columns of other tables, in the place of its own where names agree.
    added : tuple of str
        Names of those columns: what was measured, and not computed from the latents.
    classes : array of str [n]
        Empty where unknown.
    baselines : dict of LatentTable
        Other representations of the same rows, by `HARDNESS`, `PCA` and `PAPER`, as `representation` makes them.
    """

    name: str
    latents: LatentTable
    joined: LatentTable
    added: tuple[str, ...]
    classes: np.ndarray
    baselines: dict[str, LatentTable]

    @property
    def origin(self) -> str:
        """Where the latents come from, among the keys of `ORIGINS`, as `xlatent catalog embed` flags it."""
        flags = {flag for row in self.latents["flags"] for flag in str(row).split(",")}
        for kind in ("fluxes", "ratios"):
            if f"from_{kind}" in flags:
                return kind
        return "spectra" if np.isfinite(np.asarray(self.latents["counts"], float)).any() else "unknown"

    @property
    def heading(self) -> str:
        """Name and origin, for the heading of a table."""
        return f"{self.name}: {ORIGINS[self.origin]}"

    @property
    def representations(self) -> dict[str, LatentTable]:
        """The latents and all baselines."""
        return {LATENTS: self.latents, **self.baselines}

    @property
    def reproducing(self) -> dict[str, LatentTable]:
        """Those representations that reproduce a spectrum, and so have a fit statistic."""
        return {of: table for of, table in self.representations.items() if of in (LATENTS, PAPER)}


def read_datasets(
    data: Sequence[str], labels: str | Path | None, join: Sequence[str | Path], model: str
) -> list[Dataset]:
    """Read tables of latents, join other tables to them by name, and compute the baselines that they allow.

    Parameters
    ----------
    data : sequence of str
        Paths of tables of latents, and stores of spectra, which are embedded.
    labels : str or Path, optional
        Table with ``name`` and ``class``.
    join : sequence of str or Path
        Tables with ``name`` and measured columns. Each is joined to the tables of latents that it was made for.
    model : str
        Model that spectra of stores are embedded with.

    Raises
    ------
    ReadError
        If a table cannot be read, is empty, names a source twice or no source of the data.
    ModelError
        If the latents are of several models.
    """
    # What cannot be read is told before anything is embedded.
    others = [SourceTable(path) for path in dict.fromkeys(map(str, join)) if path != str(labels)]
    if labels is not None:
        others.append(SourceTable(labels, ("class",)))
    loaded = [_embed_store(path, model) if is_store(path) else (latent_tables.read(path), {}, {}) for path in data]
    tables = {path: table for path, (table, *_) in zip(data, loaded, strict=True)}
    check_same_model(tables, "embed both with one model, or evaluate them one by one")
    shares = {other: [_share_known(other, table) for table, *_ in loaded] for other in others}
    datasets = []
    for number, ((table, own, baselines), name) in enumerate(zip(loaded, _dataset_names(data), strict=True)):
        if not len(table):
            raise ReadError(f"{data[number]}: the table has no rows; give one with at least one")
        # A catalogue may know a few sources of another: it goes with the table that it was made for.
        mine = [other for other, share in shares.items() if share[number] > min(0.5, 0.999 * max(share))]
        datasets.append(_dataset(name, table, own, baselines, mine))
    for other, share in shares.items():
        if not max(share):
            raise other.without_match(" or ".join(data), loaded[0][0])
    return datasets


def embed_spectra(spectra: Sequence[str], model: str, datasets: Sequence[Dataset]) -> dict[str, LatentTable]:
    """Embed single spectra with the model of the data, and with the paper preset if it is there.

    Returns
    -------
    dict of LatentTable
        By `LATENTS` and `PAPER`.

    Raises
    ------
    ModelError
        If another model made the latents of the data.
    ReadError
        If no spectrum can be embedded.
    """
    loaded = load_model(model)
    check_same_model(
        {
            datasets[0].name: datasets[0].latents,
            f"the model {loaded.info.name} for the spectra": loaded.info.fingerprint,
        },
        "name the model that made it with --model",
    )
    models = {LATENTS: model} | ({PAPER: PAPER_MODEL} if PAPER_MODEL in shipped() else {})
    try:
        found = {of: embed_files(spectra, model=name) for of, name in models.items()}
    except InputError as error:
        raise ReadError(str(error)) from error
    if found[LATENTS].table is None:
        reason = found[LATENTS].failures[0].reason
        raise ReadError(f"no spectrum of {' '.join(spectra)} could be embedded; {reason}")
    return {of: result.table for of, result in found.items() if result.table is not None}


def read_kinds(inputs: Sequence[str]) -> dict[str, str]:
    """Read the kind of each spectrum, by name, from those manifests that have such a column."""
    kinds: dict[str, str] = {}
    for path in (Path(item) for item in inputs if item.endswith(".csv")):
        with path.open(encoding="utf-8-sig", newline="") as stream:
            kinds |= {row.get("name") or "": row.get("kind") or "" for row in csv.DictReader(stream)}
    return kinds


def representation(values: Float[np.ndarray, "n k"], error: Float[np.ndarray, "n k"], like: LatentTable) -> LatentTable:
    """Put up to eight numbers a source into the form of latents, so that every tool judges them as it judges z.

    What is left of the eight is zero with unit error: it is known of no source. Keys and flags are those of ``like``.
    """
    n, k = values.shape
    z, covariance = np.zeros((n, N_LATENTS)), np.tile(np.eye(N_LATENTS), (n, 1, 1))
    z[:, :k] = values
    covariance[:, range(k), range(k)] = error**2
    names = [name for name in ("name", "source", "flags") if name in like.colnames]
    return LatentTable.from_posterior(z, covariance, {name: like[name] for name in names}, {"model": "none"})


def hardness_ratios(joined: LatentTable) -> LatentTable:
    """Represent sources by hardness ratios alone: measured ones where they were joined, or else the table's own."""
    values = np.stack([numeric_column(joined, name) for name in HARDNESS_RATIOS], axis=1)
    limits = [numeric_column(joined, f"{name}_{end}") for end in ("hilim", "lolim") for name in HARDNESS_RATIOS]
    error = 0.5 * (np.stack(limits[:3], axis=1) - np.stack(limits[3:], axis=1))
    return representation(values, np.where(error > 0, error, 0.1), joined)


def principal_components(
    counts: Float[np.ndarray, "n c"], net: Float[np.ndarray, "n c"], like: LatentTable
) -> LatentTable:
    """Represent spectra by eight principal components of the square roots of each bin's share of the net counts.

    Their errors: a square root of a Poisson number has variance 1/4, of its share 1/(4 N).
    """
    total = np.maximum(net.sum(axis=1), 1.0)[:, None]
    roots = np.sqrt(np.maximum(net, 0.0) / total)
    good = np.isfinite(roots).all(axis=1)
    vectors = np.linalg.svd(roots[good] - roots[good].mean(axis=0), full_matrices=False)[2][:N_LATENTS]
    scores = (roots - roots[good].mean(axis=0)) @ vectors.T
    error = 0.5 * np.sqrt(np.maximum(counts.sum(axis=1), 1.0))[:, None] / total
    return representation(scores, np.broadcast_to(error, scores.shape).copy(), like)


def _dataset(
    name: str,
    table: LatentTable,
    own: Mapping[str, Any],
    baselines: dict[str, LatentTable],
    others: Sequence[SourceTable],
) -> Dataset:
    """Join the columns of other tables to one table of latents."""
    added = dict(own)
    for other in others:
        rows = other.rows_of(table)
        added |= {column: other.take(column, rows) for column in other.columns.colnames if column not in _KEYS}
    joined = table.with_columns(added)
    measured = tuple(column for column in added if column != "class")
    ratios = {HARDNESS: hardness_ratios(joined)}
    return Dataset(name, table, joined, measured, class_labels(joined), ratios | baselines)


def _embed_store(path: str, model: str) -> tuple[LatentTable, dict[str, Any], dict[str, LatentTable]]:
    """Latents of a store's spectra, its catalogue columns, and PCA-8 and the paper preset of the same spectra."""
    store = open_store(path)
    embedded = embed_files(path, model=model)
    found = embedded.table
    if found is None:
        raise ReadError(f"{path}: no spectrum could be embedded, the first because {embedded.failures[0].reason}")
    extra = [name for name in store.schema.names if name not in SCHEMA.names and name != "input"]
    columns = store.columns(["name", *extra])
    place = {str(name): row for row, name in enumerate(columns.column("name").to_pylist())}
    rows = [place[str(name)] for name in found["name"]]
    own: dict[str, Any] = {}
    for name in extra:
        values = columns.column(name).to_pandas().to_numpy()
        own[name] = np.ma.masked_invalid(values[rows]) if values.dtype.kind == "f" else values[rows].astype(str)
    source = {"source": own.pop("source")} if "source" in own else {}
    found = found.with_columns(source)
    baselines = {}
    if len(rows) >= _MIN_SPECTRA:
        projector = load_model(model).projector
        seen = [prepare(store[row], projector).features for row in rows]
        counts = np.stack([one["counts"] for one in seen])
        background = np.stack([one["background"] for one in seen])
        baselines[PCA] = principal_components(counts, counts - background, found)
    if PAPER_MODEL in shipped():
        theirs = embed_files(path, model=PAPER_MODEL).table
        if theirs is not None and list(theirs["name"]) == list(found["name"]):
            baselines[PAPER] = theirs.with_columns(source)
    return found, own, baselines


def _share_known(other: SourceTable, table: LatentTable) -> float:
    """Share of the rows of a table of latents whose source another table has."""
    return float((other.rows_of(table) >= 0).mean()) if len(table) else 0.0


def _dataset_names(data: Sequence[str]) -> list[str]:
    """Names of the data: of the file or folder, told apart where they are the same."""
    names: list[str] = []
    for item in data:
        name = Path(item.rstrip("/")).stem
        names.append(name if name not in names else f"{name} {len(names) + 1}")
    return names
