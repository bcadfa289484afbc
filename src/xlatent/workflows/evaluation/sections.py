"""The sections of an evaluation: each runs one tool on a dataset and on its baselines, and holds what it found."""

import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from astropy.table import Table, vstack
from jaxtyping import Bool, Float

from xlatent.core.bands import HARDNESS_RATIOS
from xlatent.core.errors import ParameterError, XlatentError, XlatentWarning
from xlatent.core.latents import LatentTable
from xlatent.science import accretion, cluster, cluster_scores, formulas, information, outliers, regress, tracks
from xlatent.science.resampling import bootstrap_interval, source_weights
from xlatent.science.selection import numeric_column, source_ids, valid_rows
from xlatent.workflows.evaluation.inputs import HARDNESS, LATENTS, MADE_FROM, ORIGINS, Dataset

QUANTITY = re.compile(
    r"hard_(hm|hs|ms)|(powlaw_(gamma|nh)|(bb|brems|apec)_(kt|nh))(_mean)?|nh|(phot)?flux(_aper)?_[smhb]|F[smhb]"
)
"""Measured columns that z may explain, as the CSC and its users name them."""
VARIABILITY = re.compile(
    r"var_(inter_|intra_)?(prob|index|sigma)(_[bsmh])?(_max)?|(ks|kp)_prob_[bsmh](_max)?|P_int(ra|er)"
)
"""Columns of the time domain, named likewise."""
ENDS = ("", "_lolim", "_hilim")
"""Of the names of a column and of those with its 68 % limits."""
_MAX_FORMULA_TARGETS = 6
_MAX_SHOWN = 10  # rows of a long list
_FALSE_DISCOVERY_RATE = 0.1


@dataclass(frozen=True, eq=False)
class ResultTable:
    """A table of results.

    Attributes
    ----------
    key : str
        What it holds, in one word for programs; a section has one of each.
    caption : str
        The same for a reader.
    table : astropy.table.Table
        A value's 68 % limits stand in columns of its name with ``_lolim`` and ``_hilim``.
    """

    key: str
    caption: str
    table: Table


@dataclass(eq=False)
class Section:
    """What one tool found in one dataset.

    Attributes
    ----------
    key : str
        The tool, in one word for programs.
    title : str
        The same for a reader. Sections of several datasets share it.
    dataset : str
        Name of the dataset.
    tables : list of ResultTable
    notes : list of str
        Sentences for the reader.
    values : dict
        What figures and other sections need beside the tables.
    left_out : bool
        Whether the data do not allow it; a note says why.
    """

    key: str
    title: str
    dataset: str = ""
    tables: list[ResultTable] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    values: dict[str, Any] = field(default_factory=dict)
    left_out: bool = False

    def add(self, key: str, caption: str, table: Table) -> None:
        """Add a table."""
        self.tables.append(ResultTable(key, caption, table))

    def table(self, key: str) -> Table | None:
        """Find a table by its key; None where the section has none."""
        return next((one.table for one in self.tables if one.key == key), None)


def run_section(section: Section, fill: Callable[[Section], Any]) -> Section:
    """Fill a section; what cannot be done, and every warning, becomes a sentence in it."""
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always", XlatentWarning)
        try:
            fill(section)
        except XlatentError as error:
            section.left_out = True
            section.notes.append(f"Left out: {error}.")
    texts = [str(one.message) for one in heard if issubclass(one.category, XlatentWarning)]
    section.notes += [f"{text[0].upper()}{text[1:]}." for text in dict.fromkeys(texts)]
    return section


def contents_section(data: Dataset, section: Section) -> None:
    """Count what went in: rows, sources and classes; name model and origin."""
    good, sources = valid_rows(data.latents), source_ids(data.latents)
    meta = data.latents.meta
    facts = {
        "rows": str(len(data.latents)),
        "rows with latents": str(int(good.sum())),
        "sources": str(len(np.unique(sources[good]))),
        "labelled sources": str(len(np.unique(sources[good & (data.classes != "")]))),
        "origin": ORIGINS[data.origin],
        "model": meta.get("model", "unknown"),
        "sha256 of the model": meta.get("model_sha256", "unknown"),
        "made by": meta.get("software", "unknown"),
        "columns joined": ", ".join(data.added) or "none",
        "baselines": ", ".join(data.baselines),
    }
    section.add("facts", f"What went in. {data.heading}", Table({"what": list(facts), "value": list(facts.values())}))
    kinds = [kind for kind in np.unique(data.classes) if kind]
    if kinds:
        members = [len(np.unique(sources[good & (data.classes == kind)])) for kind in kinds]
        section.add("classes", f"Classes. {data.heading}", Table({"class": kinds, "sources": members}))
    if data.origin in MADE_FROM:
        section.notes.append(
            "PCA-8 and the paper preset are not beside z, for both take spectra; three band fluxes are two ratios and "
            "an amplitude, so that principal components of them are the hardness ratios, which are there."
        )


def cluster_section(data: Dataset, section: Section, seed: int) -> None:
    """Judge clusters by classes: mixture by BIC, mixture of eight, HDBSCAN; for the baselines a mixture of eight."""
    labelled = valid_rows(data.latents) & (data.classes != "")
    if not labelled.any():
        raise ParameterError("there are no labels to judge clusters by")
    rows = []
    runs: list[tuple[str, LatentTable, str, Any, int | None]] = [
        (LATENTS, data.latents, "mixture, BIC", "mixture", None),
        (LATENTS, data.latents, "mixture of 8", "mixture", 8),
        (LATENTS, data.latents, "HDBSCAN", "hdbscan", None),
        *((name, table, "mixture of 8", "mixture", 8) for name, table in data.baselines.items()),
    ]
    for of, table, name, method, number in runs:
        found = cluster.find_clusters(table, method, number, seed)
        judged = labelled & np.isfinite(found.probability)
        scores = cluster_scores.score_clustering(
            found.label[judged], data.classes[judged], source_ids(table)[judged], seed
        )
        scores["of"], scores["method"], scores["clusters"] = of, name, found.membership.shape[1]
        scores.rename_columns(("lolim", "hilim"), ("value_lolim", "value_hilim"))
        rows.append(scores)
    scores = _wide(
        vstack(rows, metadata_conflicts="silent"), ("task", "of", "method", "clusters", "n_sources"), "score", "value"
    )
    section.add("scores", f"Clusters judged by classes. {data.heading}", scores)
    section.notes.append(
        "Labels are not looked at to find clusters. Clusters are named by the majority among four fifths of the "
        "sources, all classes given equal weight, and judged on the fifth left out."
    )


def regression_section(data: Dataset, section: Section, seed: int) -> None:
    """Measure how much of each measured column z explains, and how much the baselines do."""
    targets = [name for name in data.added if QUANTITY.fullmatch(name)]
    if not targets:
        raise ParameterError("no measured column of hardness, spectral fit or flux was joined to the table")
    results = []
    for of, table in data.representations.items():
        wanted = [name for name in targets if not (of == HARDNESS and name in HARDNESS_RATIOS)]
        if wanted:
            columns = {name: numeric_column(data.joined, name) for name in wanted}
            results.append(regress.regress(table.with_columns(columns), wanted, seed))
            results[-1]["of"] = of
    scores = _wide(vstack(results, metadata_conflicts="silent"), ("target", "of", "n_sources"), "regressor", "r2")
    section.add("r2", f"R² of sources left out of the fit. {data.heading}", scores)
    if data.origin in MADE_FROM:
        section.notes.append(
            f"These latents were made from {MADE_FROM[data.origin]}: R² of these says what eight "
            "numbers keep of what went in, and not what they predict. Of brightness z knows only that the faint are "
            "drawn to the prior."
        )


def formula_section(data: Dataset, section: Section, seed: int) -> None:
    """Find formulas of the best measured latents in band fluxes, and of measured quantities in latents.

    ``section.values["decoded"]`` has the targets that are computed from the latents themselves.
    """
    good = valid_rows(data.latents)
    targets = []
    if good.any() and np.isfinite(numeric_column(data.joined, "flux_b")[good]).any():
        error = np.mean(data.latents.z_err[good] ** 2, axis=0)
        order = np.argsort(-np.var(data.latents.z[good], axis=0) / error)
        targets = [f"z{i}" for i in order[:2]]
    targets += [name for name in data.added if name in HARDNESS_RATIOS]
    own = [name for name in HARDNESS_RATIOS if name not in targets]
    targets += [name for name in data.added if re.match("powlaw_(gamma|nh)", name) and QUANTITY.fullmatch(name)]
    targets = (targets + own)[:_MAX_FORMULA_TARGETS]
    found = formulas.find_formulas(data.joined, targets, seed)
    keep = ("target", "formula", "length", "r2", "r2_lolim", "r2_hilim", "n_sources")
    section.add("formulas", f"Formulas. {data.heading}", found[keep])
    section.values["decoded"] = [name for name in own if name in targets]
    if section.values["decoded"]:
        section.notes.append(
            f"{', '.join(section.values['decoded'])} are those that the latents decode to: their formulas say how the "
            "decoder works, not how well z agrees with a measurement."
        )


def information_section(data: Dataset, section: Section, seed: int) -> None:
    """Estimate the mutual information of z, and of hardness ratios, with columns of the time domain."""
    columns = [name for name in data.joined.colnames if VARIABILITY.fullmatch(name)]
    if not columns:
        raise ParameterError("the table has no column of variability, such as var_prob_b, P_intra or P_inter")
    found = information.estimate_information(data.joined, columns, tuple(HARDNESS_RATIOS), seed)
    together = ", ".join(HARDNESS_RATIOS)
    found["of"] = [str(of).replace(together, HARDNESS) for of in found["of"]]
    section.add("information", f"Mutual information with variability, in nat. {data.heading}", found)
    worst, n = float(np.max(found[found["of"] == LATENTS]["sensitivity"])), int(np.min(found["n_sources"]))
    section.notes.append(
        f"Sensitivity: with {n} sources or more, an information of {worst:.3f} nat between z and a column, above what "
        "exchanged values give, would be found at p < 0.01 in 90 % of samples."
    )
    if data.origin in MADE_FROM:
        section.notes.append(
            "These latents hold no more than the catalogue's bands, and cannot tell more than they do."
        )


def accretion_section(data: Dataset, section: Section, seed: int) -> None:
    """Learn the direction that sets accreting compact objects apart, and score it and each baseline.

    ``section.values`` has the ``direction`` in z, the value of each row along it and the classes.
    """
    rows, direction = [], None
    for of, table in data.representations.items():
        classes = np.where(valid_rows(table), data.classes, "")
        found = accretion.learn_direction(
            table.z, table.covariance, classes, source_ids(table), table.meta.get("model_sha256", ""), seed
        )
        direction = direction or found
        for name, area in found.auc.items():
            rows.append((of, f"compact above {name}", area, area - found.auc_err[name], area + found.auc_err[name]))
    if direction is None:
        raise ParameterError("there are no latents to learn from")
    section.add(
        "auc",
        f"Accretion: area under the ROC curve, sources left out of the fit. {data.heading}",
        Table(rows=rows, names=("of", "task", "auc", "auc_lolim", "auc_hilim")),
    )
    order = np.argsort(-np.abs(direction.vector))
    coefficients = {
        "latent": [f"z{i}" for i in order],
        "coefficient": direction.vector[order],
        "coefficient_lolim": (direction.vector - direction.vector_err)[order],
        "coefficient_hilim": (direction.vector + direction.vector_err)[order],
    }
    section.add("direction", f"Accretion: the direction. {data.heading}", Table(coefficients))
    section.notes.append(f"{direction.formula()}, larger for HMXB, LMXB and CV than for AGN, YSO and LM-STAR.")
    value, _ = direction.project(data.latents.z, data.latents.covariance)
    value = np.where(valid_rows(data.latents), value, np.nan)
    section.values |= {"direction": direction, "accretion": value, "classes": data.classes}


def outlier_section(data: Dataset, section: Section, seed: int) -> None:
    """List sources where few others are, and those badly reproduced."""
    sources = source_ids(data.latents)
    found = outliers.find_outliers(data.latents, sources, seed)
    rows, lists = [], []
    for word, what, caption in (
        ("density", "rare", "Most unusual sources"),
        ("fit", "badly reproduced", "Most badly reproduced sources"),
    ):
        p, q = np.asarray(found[f"p_{word}"]), np.asarray(found[f"q_{word}"])
        if not (known := np.isfinite(p)).any():
            section.notes.append("No row has a fit statistic: nothing is known of how well it is reproduced.")
            continue
        unlikely = q < _FALSE_DISCOVERY_RATE
        share, each = partial(_average, unlikely[known].astype(float)), sources[known]
        rows.append((what, share(source_weights(each)), *bootstrap_interval(share, each, seed), int(known.sum())))
        best = np.flatnonzero(known & unlikely)
        if best.size:
            best = best[np.argsort(p[best])][:_MAX_SHOWN]
            of_these = np.asarray(data.latents["name"])[best].astype(str)
            listed = Table({"name": of_these, "class": data.classes[best], "p": p[best], "q": q[best]})
            lists.append((f"unlikely_{word}", f"{caption}. {data.heading}", listed))
    names = ("what", "share", "share_lolim", "share_hilim", "n_rows")
    section.add("shares", f"Outliers, of which a tenth is false. {data.heading}", Table(rows=rows, names=names))
    for one in lists:
        section.add(*one)


def track_section(
    data: Dataset,
    section: Section,
    decode: tracks.Decode | None = None,
    energy: Float[np.ndarray, " n_energy"] | None = None,
) -> None:
    """Test whether z moves in sources with several rows."""
    found = tracks.find_tracks(data.latents, source_ids(data.latents), None, decode, energy)
    names, first = np.asarray(data.latents["name"]).astype(str), np.asarray(found["first"])
    found.replace_column("source", names[first])
    shown = ("source", "n", "chi2", "dof", "p", "q", "direction", "amount", "amount_err", "unit")
    listed = found[[name for name in shown if name in found.colnames]][:_MAX_SHOWN]
    section.add("tracks", f"Tracks: sources with several rows. {data.heading}", listed)
    section.notes.append(
        f"{int((found['q'] < 0.05).sum())} of {len(found)} sources move, at most 5 % of them falsely so."
    )


def reconstruction_section(tables: Mapping[str, LatentTable], heading: str, section: Section, seed: int = 0) -> None:
    """Compare the fit statistic with its expected value, of our model and of the paper preset on the same spectra."""
    rows = []
    for of, table in tables.items():
        excess, known = fit_excess(table)
        if not known.any():
            raise ParameterError("no row has a fit statistic: there are no spectra")
        sources = source_ids(table)[known]
        scores: dict[str, Callable[[np.ndarray], float]] = {
            "median excess over the expected statistic, in standard deviations": partial(_median, excess[known]),
            "share of spectra within 3 standard deviations": partial(_average, (excess[known] < 3.0).astype(float)),
        }
        for name, score in scores.items():
            value = score(source_weights(sources))
            rows.append((of, name, value, *bootstrap_interval(score, sources, seed), int(known.sum())))
    names = ("of", "score", "value", "value_lolim", "value_hilim", "n_spectra")
    section.add("statistic", f"Reconstruction. {heading}", Table(rows=rows, names=names))


def fit_excess(table: LatentTable) -> tuple[Float[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """Compute the statistic above its expected value, in standard deviations, and say where it is known."""
    found, expected, sigma = (numeric_column(table, name) for name in ("cstat", "cstat_expected", "cstat_sigma"))
    known = np.isfinite(found) & np.isfinite(expected) & (np.nan_to_num(sigma) > 0)
    return np.where(known, (found - expected) / np.where(known, sigma, 1.0), np.nan), known


def _wide(table: Table, keys: tuple[str, ...], column: str, value: str) -> Table:
    """A row for each combination of keys, a column with limits for each entry of another column."""
    names = dict.fromkeys(str(name) for name in table[column])
    rows: dict[tuple, dict[str, float]] = {}
    for row in table:
        into = rows.setdefault(tuple(row[key] for key in keys), {})
        into.update({f"{row[column]}{end}": float(row[value + end]) for end in ENDS})
    order = list(dict.fromkeys(key[0] for key in rows))
    listed = sorted(rows.items(), key=lambda row: order.index(row[0][0]))
    columns = {key: [of[i] for of, _ in listed] for i, key in enumerate(keys)}
    return Table(columns | {n + end: [row.get(n + end, np.nan) for _, row in listed] for n in names for end in ENDS})


def _average(values: np.ndarray, weights: np.ndarray) -> float:
    return float(np.average(values, weights=weights))


def _median(values: np.ndarray, weights: np.ndarray) -> float:
    order = np.argsort(values)
    total = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(total, 0.5 * total[-1])])
