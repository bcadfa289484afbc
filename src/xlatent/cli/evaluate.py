"""``xlatent evaluate``: every tool on tables of latents and on spectra, as one report beside the paper's claims."""

import csv
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xlatent.cli.ui import progress_bar
from xlatent.core.errors import InputError, ModelError, ReadError

if TYPE_CHECKING:
    from astropy.table import Table
    from matplotlib.figure import Figure

    from xlatent.core.latents import LatentTable
    from xlatent.formats.catalogue_tables import SourceTable
    from xlatent.workflows.evaluation.sections import Data, Part

PAPER_MODEL = "paper-8"
_KEYS = ("name", "ra", "dec")  # of a joined table, that are not columns to be looked at
_FEWEST = 50  # spectra that PCA-8 is made of


def evaluate(
    data: Annotated[
        list[str],
        typer.Option(help="Table of latents, or a store of spectra; may be given several times.", show_default=False),
    ],
    output: Annotated[Path, typer.Option(help="Folder for report.html, report.json and figures/.", show_default=False)],
    labels: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Table with name and class; its other columns are joined as those of --join."
        ),
    ] = None,
    join: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE", help="Table with name and measured columns, by the same names; may be given several times."
        ),
    ] = None,
    spectra: Annotated[
        list[str] | None,
        typer.Option(
            metavar="INPUT",
            help="Spectra to be judged one by one, as embed takes them; a column kind of a manifest stands beside.",
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Name of a model or folder of a bundle; the shipped one if not given.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of folds, starts, draws and resampling.")] = 0,
) -> None:
    """Run all tools and write one report: what the latents say, beside the paper's claims and simpler baselines.

    What the columns at hand do not allow is left out, and the report says why. Folds are of sources, never of rows.
    """
    from xlatent.core.bundle import DEFAULT_MODEL
    from xlatent.workflows.evaluation import report
    from xlatent.workflows.evaluation import sections as science
    from xlatent.workflows.evaluation.claims import claims

    model = model or DEFAULT_MODEL
    report.prepare(output)
    sets = _read(data, labels, join or [], model)
    single = _embedded(spectra, model, sets) if spectra else {}
    sections: list[tuple[str, list[Part]]] = []
    parts: dict[str, dict[str, Part]] = {one.name: {} for one in sets}
    named = max(sets, key=lambda one: int((one.classes != "").sum()))
    jobs = list(_jobs(sets, named, single, _kinds(spectra or []), model, parts, seed))
    with progress_bar("parts", len(jobs)) as advance:
        for done, (title, name, key, work) in enumerate(jobs, start=1):
            parts.setdefault(name, {})[key] = part = science.attempt(title, work)
            part.of = name
            if not sections or sections[-1][0] != title:
                sections.append((title, []))
            sections[-1][1].append(part)
            advance(done)
    origin = named.latents.meta
    about: dict[str, Any] = {key: origin.get(key, "unknown") for key in ("model", "model_sha256", "software")}
    about |= {"seed": seed, "data": {one.name: science.ORIGINS[one.origin] for one in sets}}
    notes = [f"{one.heading}; {len(one.latents)} rows." for one in sets]
    if not any(one.origin == "spectra" for one in sets):
        notes.append(
            "PCA-8 and the paper preset take spectra; where latents come from catalogue fluxes there are none, and "
            "three band fluxes are two ratios and an amplitude: their principal components are the hardness ratios."
        )
    notes.append(
        "The paper's numbers are of spectra, and those here of what each heading says. Its abstract gives no number "
        "where this says in words."
    )
    figures = _figures(sections, sets, named, single)
    compared, come_from = claims(parts, named.name), {one.name: science.MADE_FROM.get(one.origin, "") for one in sets}
    compared["from"] = [", ".join(filter(None, (str(name), come_from.get(str(name))))) for name in compared["from"]]
    page = report.write(
        output,
        "What the latents say",
        compared,
        notes,
        [(title, of_it, figures.get(title, {})) for title, of_it in sections],
        about,
    )
    left_out = sum(note.startswith("Left out") for _, of_it in sections for part in of_it for note in part.notes)
    typer.echo(f"{page}: {len(jobs) - left_out} parts, {left_out} left out; numbers in {output / 'report.json'}")


# -- what goes in


def _read(given: Sequence[str], labels: Path | None, join: Sequence[Path], model: str) -> "list[Data]":
    """Tables with what is joined to them and the baselines that they allow."""
    from xlatent.core.latents import check_same_model
    from xlatent.formats import latent_tables
    from xlatent.formats.catalogue_tables import SourceTable
    from xlatent.formats.store import is_store

    # What cannot be read is told before anything is embedded.
    others = [SourceTable(path) for path in join if path != labels]
    if labels is not None:
        others.append(SourceTable(labels, ("class",)))
    loaded = [
        (name, *_from_store(name, model)) if is_store(name) else (name, latent_tables.read(name), {}, {})
        for name in given
    ]
    check_same_model(
        {name: table for name, table, *_ in loaded}, "embed both with one model, or evaluate them one by one"
    )
    shares = [[_share(other, table) for _, table, *_ in loaded] for other in others]
    sets = []
    for number, ((source, table, own, baselines), name) in enumerate(zip(loaded, _names(given), strict=True)):
        if not len(table):
            raise ReadError(f"{source}: the table has no rows; give one with at least one")
        # A catalogue may know a few sources of another: it goes with the table that it was made for.
        mine = [
            other for other, share in zip(others, shares, strict=True) if share[number] > min(0.5, 0.999 * max(share))
        ]
        sets.append(_data(name, table, own, baselines, mine))
    for other, share in zip(others, shares, strict=True):
        if not max(share):
            raise other.without_match(" or ".join(given), loaded[0][1])
    return sets


def _share(other: "SourceTable", table: "LatentTable") -> float:
    """Share of a table's rows that another table names."""
    return float((other.rows_of(table) >= 0).mean()) if len(table) else 0.0


def _data(
    name: str,
    table: "LatentTable",
    own: dict[str, Any],
    baselines: "dict[str, LatentTable]",
    others: "Sequence[SourceTable]",
) -> "Data":
    """One table with the columns of the others by the names of its sources."""
    import numpy as np

    from xlatent.core.latents import LatentTable
    from xlatent.workflows.evaluation import sections as science

    added = dict(own)
    for other in others:
        rows = other.rows_of(table)
        added |= {column: other.take(column, rows) for column in other.columns.colnames if column not in _KEYS}
    joined = LatentTable({column: table[column] for column in table.colnames} | added, table.meta)
    classes = np.full(len(table), "")
    if "class" in joined.colnames:
        classes = np.char.strip(np.ma.filled(np.ma.asarray(joined["class"]).astype(str), ""))
    measured = tuple(column for column in added if column != "class")
    ratios = {science.HARDNESS: science.hardness_ratios(joined)}
    return science.Data(name, table, joined, measured, classes, ratios | baselines)


def _from_store(path: str, model: str) -> "tuple[LatentTable, dict[str, Any], dict[str, LatentTable]]":
    """Latents of a store's spectra, its catalogue columns, and PCA-8 and the paper preset of the same spectra."""
    import numpy as np

    from xlatent.core.bundle import shipped
    from xlatent.core.latents import LatentTable
    from xlatent.formats.store import open_store
    from xlatent.formats.store_rows import SCHEMA
    from xlatent.infer.embed import load_model
    from xlatent.infer.observation import prepare
    from xlatent.workflows.embed import embed_files
    from xlatent.workflows.evaluation import sections as science

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
    names = own.pop("source", None)
    if names is not None:
        found = LatentTable({name: found[name] for name in found.colnames} | {"source": names}, found.meta)
    baselines = {}
    if len(rows) >= _FEWEST:
        projector = load_model(model).projector
        seen = [prepare(store[row], projector).features for row in rows]
        counts = np.stack([one["counts"] for one in seen])
        background = np.stack([one["background"] for one in seen])
        baselines[science.PCA] = science.principal_components(counts, counts - background, found)
    if PAPER_MODEL in shipped():
        theirs = embed_files(path, model=PAPER_MODEL).table
        if theirs is not None and list(theirs["name"]) == list(found["name"]):
            keyed = {name: theirs[name] for name in theirs.colnames} | {"source": found["source"]}
            baselines[science.PAPER] = LatentTable(keyed, theirs.meta)
    return found, own, baselines


def _embedded(spectra: Sequence[str], model: str, sets: "Sequence[Data]") -> "dict[str, LatentTable]":
    """Latents of single spectra by our model, and by the paper preset if it is there."""
    from xlatent.core.bundle import shipped
    from xlatent.infer.embed import load_model
    from xlatent.workflows.embed import embed_files
    from xlatent.workflows.evaluation import sections as science

    loaded, made_by = load_model(model).info, sets[0].latents.meta.get("model_sha256", "")
    if made_by != loaded.fingerprint:
        raise ModelError(
            f"{sets[0].name} has latents of model {made_by[:12] or 'unknown'}, and the spectra would be embedded by "
            f"{loaded.name} ({loaded.fingerprint[:12]}): name the model that made it with --model"
        )
    ways = {science.LATENTS: model} | ({science.PAPER: PAPER_MODEL} if PAPER_MODEL in shipped() else {})
    try:
        found = {of: embed_files(spectra, model=name) for of, name in ways.items()}
    except InputError as error:
        raise ReadError(str(error)) from error
    if not found[science.LATENTS].n_embedded:
        why = found[science.LATENTS].failures[0].reason
        raise ReadError(f"no spectrum of {' '.join(spectra)} could be embedded; {why}")
    return {of: result.table for of, result in found.items() if result.table is not None}


def _kinds(inputs: Sequence[str]) -> dict[str, str]:
    """Kind of each spectrum by name, of the manifests that have such a column."""
    kinds: dict[str, str] = {}
    for path in (Path(item) for item in inputs if item.endswith(".csv")):
        with path.open(encoding="utf-8-sig", newline="") as stream:
            kinds |= {row.get("name") or "": row.get("kind") or "" for row in csv.DictReader(stream)}
    return kinds


def _names(given: Sequence[str]) -> list[str]:
    """Names of the data sets: of the file or folder, told apart where they are the same."""
    names: list[str] = []
    for item in given:
        name = Path(item.rstrip("/")).stem
        names.append(name if name not in names else f"{name} {len(names) + 1}")
    return names


# -- what is done


def _jobs(
    sets: "Sequence[Data]",
    named: "Data",
    single: "dict[str, LatentTable]",
    kinds: dict[str, str],
    model: str,
    parts: "dict[str, dict[str, Part]]",
    seed: int,
) -> "Iterator[tuple[str, str, str, Callable[[Part], Any]]]":
    """Title, data set and key of each part, and the function that fills it."""
    from xlatent.infer.embed import load_model
    from xlatent.workflows.evaluation import classification as classes
    from xlatent.workflows.evaluation import sections as science

    loaded = load_model(model)
    for one in sets:
        yield "What went in", one.name, "contents", partial(science.contents, one)
    if single:
        heading = f"Single spectra: {science.ORIGINS['spectra']}"
        work: Callable[[Part], Any] = partial(science.reconstruction, single, heading, seed=seed)
        yield "Reconstruction", "spectra", "reconstruction", work
    for one in sets:
        if one.origin == "spectra":
            work = partial(science.reconstruction, _with_statistic(one), one.heading, seed=seed)
            yield "Reconstruction", one.name, "reconstruction", work
    for title, key, do in (
        ("Clusters", "clusters", science.clusters),
        ("Classification", "classification", classes.classification),
        ("Regression", "regression", science.regression),
        ("Formulas", "expressions", science.expressions),
        ("Mutual information with variability", "variability", science.variability),
        ("Accretion", "accretion", science.accreting),
        ("Outliers", "outliers", science.strange),
    ):
        for one in sets:
            yield title, one.name, key, partial(do, one, seed=seed)
    for one in sets:
        same = one.latents.meta.get("model_sha256") == loaded.info.fingerprint
        how: dict[str, Any] = {"decode": loaded.decode, "energy": loaded.grid.energy_mid} if same else {}
        yield "Tracks", one.name, "tracks", partial(science.moving, one, **how)
    if single:

        def one_by_one(part: "Part") -> None:
            line = parts[named.name]["accretion"].arrays.get("line")
            classes.single_spectra(single[science.LATENTS], kinds, named, line, part, seed)

        yield "Spectra one by one", "spectra", "single", one_by_one


def _with_statistic(one: "Data") -> "dict[str, LatentTable]":
    """The representations of a store that reproduce a spectrum."""
    from xlatent.workflows.evaluation import sections as science

    return {science.LATENTS: one.latents} | {of: t for of, t in one.baselines.items() if of == science.PAPER}


def _figures(
    sections: "Sequence[tuple[str, list[Part]]]",
    sets: "Sequence[Data]",
    named: "Data",
    single: "dict[str, LatentTable]",
) -> "dict[str, dict[str, tuple[Figure, str]]]":
    """Figures of each section, by file name with captions."""
    import numpy as np

    from xlatent.core.taxonomy import CLASSES
    from xlatent.science.selection import valid_rows
    from xlatent.workflows.evaluation import report

    parts = dict(sections)
    figures: dict[str, dict[str, tuple[Figure, str]]] = {}

    def add(section: str, name: str, figure: "Figure", caption: str) -> None:
        figures.setdefault(section, {})[name] = (figure, caption)

    of_named = parts["Classification"][list(sets).index(named)]
    if valid_rows(named.latents).sum() > 2:
        kinds = [kind for kind in CLASSES if (named.classes == kind).any()]
        kinds += sorted({str(kind) for kind in named.classes} - {*kinds, ""})
        caption = (
            "Sources in the two directions of latent space in which they differ most for their errors (unit vectors, "
            f"larger terms); in brackets the number of sources. {named.heading}."
        )
        add("Clusters", "latents", report.z_map(named.latents, named.classes, kinds), caption)
    if (latent_tables := _tables(parts["Classification"], "Class by class", named.name)) and of_named.arrays:
        names = of_named.arrays["names"]
        caption = (
            "Share recognised of each class; dashed: by chance; errors: 68 %, sources resampled; in brackets sources."
        )
        add("Classification", "class_accuracy", report.class_accuracy(latent_tables[0]), f"{caption} {named.heading}.")
        caption = "Confusion of held-out sources: shares of each confirmed class."
        figure = report.confusion(of_named.arrays["confusion"], names)
        add("Classification", "confusion", figure, f"{caption} {named.heading}.")
        caption = (
            "Reliability: probabilities in the sample's own mix of classes, ten bins of equal number; errors: 68 %, "
            "sources resampled."
        )
        figure = report.reliability(of_named.arrays["reliability"])
        add("Classification", "reliability", figure, f"{caption} {named.heading}.")
    if latent_tables := _tables(parts["Regression"], "R²"):
        caption = "R² by boosted trees of sources left out of the fit; errors: 68 %, sources resampled. "
        add("Regression", "regression", report.r2_bars(latent_tables), caption + _said(sets))
    if latent_tables := _tables(parts["Mutual information with variability"], "Mutual"):
        caption = (
            "Mutual information with columns of variability, with the mean of values exchanged between sources (black) "
            "and what would be found at p < 0.01 in 90 % of samples (red); errors: 68 %, halves of the sources. "
        )
        figure = report.information_bars(latent_tables)
        add("Mutual information with variability", "information", figure, caption + _said(sets))
    of_named = parts["Accretion"][list(sets).index(named)]
    if of_named.arrays and np.isfinite(of_named.arrays["accretion"]).any():
        figure = report.accretion(of_named.arrays["accretion"], of_named.arrays["classes"])
        add("Accretion", "accretion", figure, f"Sources along the direction, training sources. {named.heading}.")
    stores = [one for one in sets if one.origin == "spectra"]
    if judged := single or (_with_statistic(stores[0]) if stores else {}):
        caption = "Fit statistic of each spectrum above its expected value; grey: within three standard deviations."
        add("Reconstruction", "statistic", report.statistics(judged), caption)
    return figures


def _tables(parts: "Sequence[Part]", caption: str, name: str = "") -> "list[Table]":
    return [
        table
        for part in parts
        for said, table in part.tables.items()
        if said.startswith(caption) and f" {name}" in said
    ]


def _said(sets: "Sequence[Data]") -> str:
    return "; ".join(one.heading for one in sets) + "."
