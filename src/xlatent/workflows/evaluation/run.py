"""The whole evaluation: every tool on tables of latents and on spectra, and one report of what they say."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from xlatent.core.bundle import DEFAULT_MODEL
from xlatent.core.latents import LatentTable
from xlatent.infer.embed import load_model
from xlatent.workflows.evaluation.classification import classification_section, single_spectra_section
from xlatent.workflows.evaluation.figures import draw_figures
from xlatent.workflows.evaluation.inputs import LATENTS, ORIGINS, Dataset, embed_spectra, read_datasets, read_kinds
from xlatent.workflows.evaluation.report import prepare_folder, write_report
from xlatent.workflows.evaluation.sections import (
    Section,
    accretion_section,
    cluster_section,
    contents_section,
    formula_section,
    information_section,
    outlier_section,
    reconstruction_section,
    regression_section,
    run_section,
    track_section,
)

SPECTRA = "spectra"
"""Dataset of the sections on single spectra."""
_TOOLS: tuple[tuple[str, str, Callable[..., None]], ...] = (
    ("clusters", "Clusters", cluster_section),
    ("classification", "Classification", classification_section),
    ("regression", "Regression", regression_section),
    ("formulas", "Formulas", formula_section),
    ("variability", "Mutual information with variability", information_section),
    ("accretion", "Accretion", accretion_section),
    ("outliers", "Outliers", outlier_section),
)


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What an evaluation found.

    Attributes
    ----------
    datasets : list of Dataset
    sections : list of Section
        In the order of the report; of each tool one for each dataset, those of single spectra with `SPECTRA` for it.
    page : Path or None
        The report, if one was written.
    """

    datasets: list[Dataset]
    sections: list[Section]
    page: Path | None = None

    @property
    def labelled(self) -> Dataset:
        """The dataset with the most rows of known class."""
        return max(self.datasets, key=lambda one: int((one.classes != "").sum()))

    def section(self, key: str, dataset: str) -> Section | None:
        """Find the section of a tool on a dataset, by the tool's key and the dataset's name."""
        return next((one for one in self.sections if one.key == key and one.dataset == dataset), None)


def evaluate(
    data: str | Path | Sequence[str | Path],
    output: str | Path | None = None,
    *,
    labels: str | Path | None = None,
    join: Sequence[str | Path] = (),
    spectra: Sequence[str | Path] = (),
    model: str = DEFAULT_MODEL,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Run all tools on tables of latents, beside simpler baselines, and write one report.

    What the columns at hand do not allow is left out, and the report says why. Folds are of sources, never of rows.

    Parameters
    ----------
    data : str, Path or sequence of these
        Tables of latents, or stores of spectra, which are embedded.
    output : str or Path, optional
        Folder for ``report.html``, ``report.json`` and ``figures/``; nothing is written if not given.
    labels : str or Path, optional
        Table with ``name`` and ``class``; its other columns are joined as those of ``join``.
    join : sequence of str or Path
        Tables with ``name`` and measured columns, by the same names.
    spectra : sequence of str or Path
        Spectra to be judged one by one, as `xlatent.formats.inputs.find` takes them; a column ``kind`` of a manifest
        stands beside.
    model : str
        Name of a model or folder of a bundle, for what is embedded.
    seed : int
        Of folds, starts, draws and resampling.
    progress : callable, optional
        Takes the number of sections that are done, and of all.

    Returns
    -------
    Evaluation

    Raises
    ------
    ReadError
        If an input cannot be read, or a table names no source of the data.
    ModelError
        If latents or spectra are of different models.
    WriteError
        If the report cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from xlatent.core.latents import LatentTable
    >>> z = np.random.default_rng(0).standard_normal((12, 8))
    >>> names = [f"source {i}" for i in range(len(z))]
    >>> table = LatentTable.from_posterior(z, np.tile(0.1 * np.eye(8), (len(z), 1, 1)), {"name": names})
    >>> path = table.write(tempfile.mkdtemp() + "/latents.parquet")
    >>> found = evaluate(path)
    >>> str(found.section("contents", "latents").table("facts")["value"][0])
    '12'
    >>> found.section("clusters", "latents").notes
    ['Left out: there are no labels to judge clusters by.']
    """
    paths = [str(one) for one in ([data] if isinstance(data, str | Path) else data)]
    single_inputs = [str(one) for one in spectra]
    if output is not None:
        prepare_folder(Path(output))
    datasets = read_datasets(paths, labels, join, model)
    single = embed_spectra(single_inputs, model, datasets) if single_inputs else {}
    found = Evaluation(datasets, [])
    jobs = list(_jobs(found, single, read_kinds(single_inputs), model, seed))
    for done, (section, fill) in enumerate(jobs, start=1):
        found.sections.append(run_section(section, fill))
        if progress is not None:
            progress(done, len(jobs))
    if output is None:
        return found
    figures = draw_figures(found.sections, datasets, found.labelled, single)
    origin = found.labelled.latents.meta
    about: dict[str, Any] = {key: origin.get(key, "unknown") for key in ("model", "model_sha256", "software")}
    about |= {"seed": seed, "data": {one.name: ORIGINS[one.origin] for one in datasets}}
    page = write_report(Path(output), "What the latents say", _notes(datasets), found.sections, figures, about)
    return Evaluation(datasets, found.sections, page)


def _jobs(
    found: Evaluation, single: dict[str, LatentTable], kinds: dict[str, str], model: str, seed: int
) -> Iterator[tuple[Section, Callable[[Section], Any]]]:
    """Each section, and the function that fills it."""
    loaded, datasets, labelled = load_model(model), found.datasets, found.labelled
    for one in datasets:
        yield Section("contents", "What went in", one.name), partial(contents_section, one)
    reproduced = [(one.name, one.heading, one.reproducing) for one in datasets if one.origin == "spectra"]
    if single:
        reproduced.insert(0, (SPECTRA, f"Single spectra: {ORIGINS['spectra']}", single))
    for name, heading, tables in reproduced:
        section = Section("reconstruction", "Reconstruction", name)
        yield section, partial(reconstruction_section, tables, heading, seed=seed)
    for key, title, fill in _TOOLS:
        for one in datasets:
            yield Section(key, title, one.name), partial(fill, one, seed=seed)
    for one in datasets:
        same = one.latents.meta.get("model_sha256") == loaded.info.fingerprint
        decoder: dict[str, Any] = {"decode": loaded.decode, "energy": loaded.grid.energy_mid} if same else {}
        yield Section("tracks", "Tracks", one.name), partial(track_section, one, **decoder)
    if single:

        def judge_spectra(section: Section) -> None:
            accretion = found.section("accretion", labelled.name)
            direction = accretion.values.get("direction") if accretion is not None else None
            single_spectra_section(single[LATENTS], kinds, labelled, direction, section, seed)

        yield Section("single_spectra", "Spectra one by one", SPECTRA), judge_spectra


def _notes(datasets: Sequence[Dataset]) -> list[str]:
    """Sentences on the first page."""
    notes = [f"{one.heading}; {len(one.latents)} rows." for one in datasets]
    if not any(one.origin == "spectra" for one in datasets):
        notes.append(
            "PCA-8 and the paper preset take spectra; where latents come from catalogue fluxes there are none, and "
            "three band fluxes are two ratios and an amplitude: their principal components are the hardness ratios."
        )
    return notes
