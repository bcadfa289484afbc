"""All tools on one table of latents, with baselines beside them: what an evaluation reports, part by part."""

import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from astropy.table import Table, vstack
from jaxtyping import Bool, Float

from xlatent.core.bands import HARDNESS_RATIOS
from xlatent.core.errors import ParameterError, XlatentError, XlatentWarning
from xlatent.core.latent_columns import COLUMNS, N_LATENTS
from xlatent.core.latents import LatentTable
from xlatent.science import accretion, cluster, cluster_scores, formulas, information, outliers, regress, tracks
from xlatent.science.resampling import bootstrap_interval, source_weights
from xlatent.science.selection import numeric_column, source_ids, valid_rows

LATENTS, HARDNESS, PCA, PAPER = "z", "hardness ratios", "PCA-8", "paper preset"
ORIGINS = {
    "fluxes": "latents from catalogue band fluxes, not from spectra",
    "ratios": "latents from catalogue hardness ratios, not from spectra",
    "spectra": "latents from spectra",
    "unknown": "origin of the latents unknown",
}
"""What stands in the heading of every table."""
QUANTITY = re.compile(
    r"hard_(hm|hs|ms)|(powlaw_(gamma|nh)|(bb|brems|apec)_(kt|nh))(_mean)?|nh|(phot)?flux(_aper)?_[smhb]|F[smhb]"
)
"""Measured columns that z may explain, as the CSC and its users name them."""
VARIABILITY = re.compile(
    r"var_(inter_|intra_)?(prob|index|sigma)(_[bsmh])?(_max)?|(ks|kp)_prob_[bsmh](_max)?|P_int(ra|er)"
)
"""Columns of the time domain, named likewise."""
MADE_FROM = {"fluxes": "band fluxes", "ratios": "hardness ratios"}
ENDS = ("", "_lolim", "_hilim")
"""Of the names of a column and of those with its 68 % limits."""
_TARGETS = 6  # of formulas
_SHOWN = 10  # rows of a long list
_FALSE = 0.1


@dataclass(frozen=True, eq=False)
class Data:
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


@dataclass(eq=False)
class Part:
    """One part of the report: tables by caption, sentences, and arrays for its figures; ``of`` which data set."""

    title: str
    of: str = ""
    tables: dict[str, Table] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    arrays: dict[str, Any] = field(default_factory=dict)


def attempt(title: str, work: Callable[[Part], Any]) -> Part:
    """Fill a part; what cannot be done, and every warning, becomes a sentence in it."""
    part = Part(title)
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always", XlatentWarning)
        try:
            work(part)
        except XlatentError as error:
            part.notes.append(f"Left out: {error}.")
    said = [str(one.message) for one in heard if issubclass(one.category, XlatentWarning)]
    part.notes += [f"{text[0].upper()}{text[1:]}." for text in dict.fromkeys(said)]
    return part


def representation(values: Float[np.ndarray, "n k"], error: Float[np.ndarray, "n k"], like: LatentTable) -> LatentTable:
    """Up to eight numbers a source in the form of latents, so that every tool judges them as it judges z.

    What is left of the eight is zero with unit error: it is known of no source. Keys and flags are those of ``like``.
    """
    n, k = values.shape
    z, covariance = np.zeros((n, N_LATENTS)), np.tile(np.eye(N_LATENTS), (n, 1, 1))
    z[:, :k] = values
    covariance[:, range(k), range(k)] = error**2
    names = [name for name in ("name", "source", "flags") if name in like.colnames]
    return LatentTable.from_posterior(z, covariance, {name: like[name] for name in names}, {"model": "none"})


def hardness_ratios(joined: LatentTable) -> LatentTable:
    """Hardness ratios alone: measured ones where they were joined, or else those of the table."""
    values = np.stack([numeric_column(joined, name) for name in HARDNESS_RATIOS], axis=1)
    limits = [numeric_column(joined, f"{name}_{end}") for end in ("hilim", "lolim") for name in HARDNESS_RATIOS]
    error = 0.5 * (np.stack(limits[:3], axis=1) - np.stack(limits[3:], axis=1))
    return representation(values, np.where(error > 0, error, 0.1), joined)


def principal_components(
    counts: Float[np.ndarray, "n c"], net: Float[np.ndarray, "n c"], like: LatentTable
) -> LatentTable:
    """Eight principal components of spectra: of square roots of each bin's share of the net counts.

    Their errors: a square root of a Poisson number has variance 1/4, of its share 1/(4 N).
    """
    total = np.maximum(net.sum(axis=1), 1.0)[:, None]
    roots = np.sqrt(np.maximum(net, 0.0) / total)
    good = np.isfinite(roots).all(axis=1)
    vectors = np.linalg.svd(roots[good] - roots[good].mean(axis=0), full_matrices=False)[2][:N_LATENTS]
    scores = (roots - roots[good].mean(axis=0)) @ vectors.T
    error = 0.5 * np.sqrt(np.maximum(counts.sum(axis=1), 1.0))[:, None] / total
    return representation(scores, np.broadcast_to(error, scores.shape).copy(), like)


# -- the parts


def contents(data: Data, part: Part) -> None:
    """What went in: rows, sources, classes, model and origin."""
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
    part.tables[f"What went in. {data.heading}"] = Table({"what": list(facts), "value": list(facts.values())})
    kinds = [kind for kind in np.unique(data.classes) if kind]
    if kinds:
        members = [len(np.unique(sources[good & (data.classes == kind)])) for kind in kinds]
        part.tables[f"Classes. {data.heading}"] = Table({"class": kinds, "sources": members})
    if data.origin in ("fluxes", "ratios"):
        part.notes.append(
            "PCA-8 and the paper preset are not beside z, for both take spectra; three band fluxes are two ratios and "
            "an amplitude, so that principal components of them are the hardness ratios, which are there."
        )


def clusters(data: Data, part: Part, seed: int) -> None:
    """Mixture by BIC, mixture of eight, HDBSCAN; for the baselines a mixture of eight."""
    known = valid_rows(data.latents) & (data.classes != "")
    if not known.any():
        raise ParameterError("there are no labels to judge clusters by")
    rows = []
    ways: list[tuple[str, LatentTable, str, Any, int | None]] = [
        (LATENTS, data.latents, "mixture, BIC", "mixture", None),
        (LATENTS, data.latents, "mixture of 8", "mixture", 8),
        (LATENTS, data.latents, "HDBSCAN", "hdbscan", None),
        *((name, table, "mixture of 8", "mixture", 8) for name, table in data.baselines.items()),
    ]
    for of, table, name, method, number in ways:
        found = cluster.find_clusters(table, method, number, seed)
        judged = known & np.isfinite(found.probability)
        scores = cluster_scores.score_clustering(
            found.label[judged], data.classes[judged], source_ids(table)[judged], seed
        )
        scores["of"], scores["method"], scores["clusters"] = of, name, found.membership.shape[1]
        scores.rename_columns(("lolim", "hilim"), ("value_lolim", "value_hilim"))
        rows.append(scores)
    together = vstack(rows, metadata_conflicts="silent")
    part.tables[f"Clusters judged by classes. {data.heading}"] = _wide(
        together, ("task", "of", "method", "clusters", "n_sources"), "score", "value"
    )
    part.notes.append(
        "Labels are not looked at to find clusters. Clusters are named by the majority among four fifths of the "
        "sources, all classes given equal weight, and judged on the fifth left out."
    )


def regression(data: Data, part: Part, seed: int) -> None:
    """How much of each measured column z explains, and how much the baselines do."""
    targets = [name for name in data.added if QUANTITY.fullmatch(name)]
    if not targets:
        raise ParameterError("no measured column of hardness, spectral fit or flux was joined to the table")
    results = []
    for of, table in {LATENTS: data.latents, **data.baselines}.items():
        wanted = [name for name in targets if not (of == HARDNESS and name in HARDNESS_RATIOS)]
        if wanted:
            columns = {name: numeric_column(data.joined, name) for name in wanted}
            results.append(regress.regress(_with(table, columns), wanted, seed))
            results[-1]["of"] = of
    part.tables[f"R² of sources left out of the fit. {data.heading}"] = _wide(
        vstack(results, metadata_conflicts="silent"), ("target", "of", "n_sources"), "regressor", "r2"
    )
    if data.origin in ("fluxes", "ratios"):
        part.notes.append(
            f"These latents were made from {MADE_FROM[data.origin]}: R² of these says what eight "
            "numbers keep of what went in, and not what they predict. Of brightness z knows only that the faint are "
            "drawn to the prior."
        )


def expressions(data: Data, part: Part, seed: int) -> None:
    """Formulas of the best measured latents in band fluxes, and of measured quantities in latents."""
    good = valid_rows(data.latents)
    targets = []
    if good.any() and np.isfinite(numeric_column(data.joined, "flux_b")[good]).any():
        error = np.mean(data.latents.z_err[good] ** 2, axis=0)
        order = np.argsort(-np.var(data.latents.z[good], axis=0) / error)
        targets = [f"z{i}" for i in order[:2]]
    targets += [name for name in data.added if name in HARDNESS_RATIOS]
    own = [name for name in HARDNESS_RATIOS if name not in targets]
    targets += [name for name in data.added if re.match("powlaw_(gamma|nh)", name) and QUANTITY.fullmatch(name)]
    targets = (targets + own)[:_TARGETS]
    found = formulas.find_formulas(data.joined, targets, seed)
    keep = ("target", "formula", "length", "r2", "r2_lolim", "r2_hilim", "n_sources")
    part.tables[f"Formulas. {data.heading}"] = found[keep]
    if decoded := [name for name in own if name in targets]:
        part.arrays |= dict.fromkeys(decoded)
        part.notes.append(
            f"{', '.join(decoded)} are those that the latents decode to: their formulas say how the decoder "
            "works, not how well z agrees with a measurement."
        )


def variability(data: Data, part: Part, seed: int) -> None:
    """Mutual information of z, and of hardness ratios, with columns of the time domain."""
    columns = [name for name in data.joined.colnames if VARIABILITY.fullmatch(name)]
    if not columns:
        raise ParameterError("the table has no column of variability, such as var_prob_b, P_intra or P_inter")
    found = information.estimate_information(data.joined, columns, tuple(HARDNESS_RATIOS), seed)
    together = ", ".join(HARDNESS_RATIOS)
    found["of"] = [str(of).replace(together, HARDNESS) for of in found["of"]]
    part.tables[f"Mutual information with variability, in nat. {data.heading}"] = found
    worst, n = float(np.max(found[found["of"] == LATENTS]["sensitivity"])), int(np.min(found["n_sources"]))
    part.notes.append(
        f"Sensitivity: with {n} sources or more, an information of {worst:.3f} nat between z and a column, above what "
        "exchanged values give, would be found at p < 0.01 in 90 % of samples."
    )
    if data.origin in ("fluxes", "ratios"):
        part.notes.append("These latents hold no more than the catalogue's bands, and cannot tell more than they do.")


def accreting(data: Data, part: Part, seed: int) -> None:
    """Direction that sets accreting compact objects apart, and how well it and each baseline do."""
    rows, line = [], None
    for of, table in {LATENTS: data.latents, **data.baselines}.items():
        classes = np.where(valid_rows(table), data.classes, "")
        found = accretion.learn_direction(
            table.z, table.covariance, classes, source_ids(table), table.meta.get("model_sha256", ""), seed
        )
        line = line or found
        for name, area in found.auc.items():
            rows.append((of, f"compact above {name}", area, area - found.auc_err[name], area + found.auc_err[name]))
    if line is None:
        raise ParameterError("there are no latents to learn from")
    names = ("of", "task", "auc", "auc_lolim", "auc_hilim")
    part.tables[f"Accretion: area under the ROC curve, sources left out of the fit. {data.heading}"] = Table(
        rows=rows, names=names
    )
    order = np.argsort(-np.abs(line.vector))
    part.tables[f"Accretion: the direction. {data.heading}"] = Table(
        {
            "latent": [f"z{i}" for i in order],
            "coefficient": line.vector[order],
            "coefficient_lolim": (line.vector - line.vector_err)[order],
            "coefficient_hilim": (line.vector + line.vector_err)[order],
        }
    )
    part.notes.append(f"{line.formula()}, larger for HMXB, LMXB and CV than for AGN, YSO and LM-STAR.")
    value, _ = line.value(data.latents.z, data.latents.covariance)
    value = np.where(valid_rows(data.latents), value, np.nan)
    part.arrays |= {"line": line, "accretion": value, "classes": data.classes}


def strange(data: Data, part: Part, seed: int) -> None:
    """Sources where few others are, or badly reproduced."""
    sources = source_ids(data.latents)
    found = outliers.find_outliers(data.latents, sources, seed)
    rows = []
    for word, what in (("density", "rare"), ("fit", "badly reproduced")):
        p, q = np.asarray(found[f"p_{word}"]), np.asarray(found[f"q_{word}"])
        if not (known := np.isfinite(p)).any():
            part.notes.append("No row has a fit statistic: nothing is known of how well it is reproduced.")
            continue
        share, each = partial(_average, (q[known] < _FALSE).astype(float)), sources[known]
        rows.append((what, share(source_weights(each)), *bootstrap_interval(share, each, seed), int(known.sum())))
        best = np.flatnonzero(known & (q < _FALSE))
        if best.size:
            best = best[np.argsort(p[best])][:_SHOWN]
            part.tables[f"Most {what.replace('rare', 'unusual')} sources. {data.heading}"] = Table(
                {
                    "name": np.asarray(data.latents["name"])[best].astype(str),
                    "class": data.classes[best],
                    "p": p[best],
                    "q": q[best],
                }
            )
    names = ("what", "share", "share_lolim", "share_hilim", "n_rows")
    part.tables = {f"Outliers, of which a tenth is false. {data.heading}": Table(rows=rows, names=names)} | part.tables


def moving(
    data: Data, part: Part, decode: tracks.Decode | None = None, energy: Float[np.ndarray, " n_energy"] | None = None
) -> None:
    """Sources with several rows: whether z moves."""
    found = tracks.find_tracks(data.latents, source_ids(data.latents), None, decode, energy)
    names, first = np.asarray(data.latents["name"]).astype(str), np.asarray(found["first"])
    found.replace_column("source", names[first])
    shown = [name for name in ("source", "n", "chi2", "dof", "p", "q", "direction", "amount", "amount_err", "unit")]
    part.tables[f"Tracks: sources with several rows. {data.heading}"] = found[
        [name for name in shown if name in found.colnames]
    ][:_SHOWN]
    part.notes.append(f"{int((found['q'] < 0.05).sum())} of {len(found)} sources move, at most 5 % of them falsely so.")


def reconstruction(tables: dict[str, LatentTable], heading: str, part: Part, seed: int = 0) -> None:
    """Fit statistic against its expected value, of our model and of the paper preset on the same spectra."""
    rows = []
    for of, table in tables.items():
        excess, known = excess_of(table)
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
    part.tables[f"Reconstruction. {heading}"] = Table(rows=rows, names=names)


def excess_of(table: LatentTable) -> tuple[Float[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """Statistic above its expected value, in standard deviations; and where it is known."""
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


def measured_directions(table: LatentTable) -> Float[np.ndarray, "8 2"]:
    """Two directions of latent space in which sources differ most for their errors, of unit length."""
    from scipy.linalg import eigh

    error = table.covariance.mean(axis=0) + 1e-4 * np.eye(N_LATENTS)
    axes = eigh(np.cov(table.z.T), error)[1][:, :-3:-1]
    return axes / np.linalg.norm(axes, axis=0)


def own_columns() -> set[str]:
    """Names of the columns of every latent table."""
    return {info.name for info in COLUMNS}


def _with(table: LatentTable, columns: dict[str, Any]) -> LatentTable:
    return LatentTable({name: table[name] for name in table.colnames} | columns, table.meta)


def _average(values: np.ndarray, weights: np.ndarray) -> float:
    return float(np.average(values, weights=weights))


def _median(values: np.ndarray, weights: np.ndarray) -> float:
    order = np.argsort(values)
    total = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(total, 0.5 * total[-1])])
