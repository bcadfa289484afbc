"""Classification in an evaluation: held-out scores of z and of the baselines, and the classes of single spectra."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from astropy.table import Table
from jaxtyping import Bool, Float, Int

from xlatent.core.bands import HARDNESS_RATIOS
from xlatent.core.errors import ParameterError, XlatentWarning
from xlatent.core.extras import requires_extra
from xlatent.core.latents import LatentTable
from xlatent.core.taxonomy import CLASSES, COMPACT
from xlatent.science.accretion import Direction
from xlatent.science.classifier_training import (
    MIN_MEMBERS,
    HeldOutPredictions,
    cross_validate,
    prediction_set,
    score_predictions,
    train_classifier,
)
from xlatent.science.classify import ALLOWED, build_features
from xlatent.science.neighbours import Index
from xlatent.science.resampling import N_FOLDS, assign_folds, bootstrap_interval, source_weights
from xlatent.science.selection import numeric_column, source_ids, valid_rows
from xlatent.workflows.evaluation.inputs import HARDNESS, LATENTS, Dataset
from xlatent.workflows.evaluation.sections import ENDS, Section, fit_excess

MIN_SIGNIFICANCE = 5.0
"""Significance above which sources are scored."""
N_DIRECTIONS = 2
"""Three band fluxes are two colours."""
EXTRAS: tuple[tuple[str, ...], ...] = ((), ("flux",), ("flux", "variability"), ("flux", "variability", "nh_gal"))
"""What is used besides the spectrum, step by step: keys of `xlatent.science.classify.ALLOWED`."""
TREES = "hardness ratios, trees"
_N_TREES = 200
# So that four fifths of a class are enough to train on.
_MIN_SOURCES = -(-MIN_MEMBERS * N_FOLDS // (N_FOLDS - 1))
_SCORES = {
    "balanced accuracy": "balanced accuracy",
    "one against others": "AGN against compact",
    "calibration error": "calibration error",
    "its floor": "its floor",
    "calibration error, debiased": "calibration error, debiased",
    "coverage": "coverage",
    "coverage, mean of classes": "coverage, mean of classes",
    "mean size": "size of set",
}
_N_NEIGHBOURS = 5  # of a spectrum
_MAX_SEPARATION = 20.0 / 3600.0  # degrees within which a labelled source may be the spectrum's own
_N_BINS = 10
_N_RATIOS = len(HARDNESS_RATIOS)  # among the features of a classifier


class FeatureSet(NamedTuple):
    """What a classifier is made from."""

    representation: str
    """`LATENTS`, `HARDNESS`, `TREES` (on hardness ratios), or a baseline."""
    extra: tuple[str, ...] = ()
    """What is used besides, of `EXTRAS`."""

    @property
    def label(self) -> str:
        """As tables and figures name it."""
        return " + ".join([self.representation, *self.extra])


@dataclass(frozen=True, eq=False)
class LabelledSample:
    """Rows with latents and a class that has enough sources.

    Attributes
    ----------
    table : LatentTable
        With the columns that a classifier may use beside the spectrum.
    ratios : LatentTable
        Hardness ratios alone, as `xlatent.workflows.evaluation.inputs.hardness_ratios` makes them.
    names : list of str
        Of the classes, those of `CLASSES` in their order, then others.
    classes : array of int [n]
        Places in ``names``.
    bright : array of bool [n]
        Which rows are scored.
    rows : array of int [n]
        Which rows of the data they are.
    """

    table: LatentTable
    ratios: LatentTable
    names: list[str]
    classes: Int[np.ndarray, " n"]
    bright: Bool[np.ndarray, " n"]
    rows: Int[np.ndarray, " n"]

    @property
    def pair(self) -> tuple[int, list[int]]:
        """AGN and the compact classes; the second is empty if either is missing."""
        if "AGN" not in self.names:
            return 0, []
        return self.names.index("AGN"), [self.names.index(name) for name in COMPACT if name in self.names]


def select_labelled(data: Dataset) -> LabelledSample:
    """Select sources to train and judge a classifier on.

    Those of significance > `MIN_SIGNIFICANCE` are scored, if there is the column.

    Raises
    ------
    ParameterError
        If not two classes have enough sources.

    Warns
    -----
    XlatentWarning
        Of classes left out.
    """
    sources = source_ids(data.latents)
    good = valid_rows(data.latents) & valid_rows(data.baselines[HARDNESS]) & (data.classes != "")
    members = {str(kind): len(np.unique(sources[good & (data.classes == kind)])) for kind in np.unique(data.classes)}
    names = [kind for kind in (*CLASSES, *sorted(set(members) - set(CLASSES))) if members.get(kind, 0) >= _MIN_SOURCES]
    if small := [f"{kind} ({n})" for kind, n in members.items() if kind and kind not in names]:
        warnings.warn(
            f"classes need {_MIN_SOURCES} sources with latents to be learned and judged, left out: {', '.join(small)}",
            XlatentWarning,
            stacklevel=2,
        )
    if len(names) < 2:
        raise ParameterError(
            f"a classifier needs two classes of {_MIN_SOURCES} sources with latents, found {len(names)}"
        )
    rows = np.flatnonzero(good & np.isin(data.classes, names))
    more = {
        name: data.joined[name]
        for columns in ALLOWED.values()
        for candidates in columns.values()
        for name in candidates
        if name in data.joined.colnames
    }
    bright = np.ones(len(rows), bool)
    if "significance" in data.joined.colnames:
        bright = np.nan_to_num(numeric_column(data.joined, "significance")[rows]) > MIN_SIGNIFICANCE
    classes = np.array([names.index(kind) for kind in data.classes[rows]])
    if len(np.unique(classes[bright])) < 2:
        raise ParameterError(f"of two classes no source is more significant than {MIN_SIGNIFICANCE:g}")
    table = data.latents.with_columns(more)[rows]
    return LabelledSample(table, data.baselines[HARDNESS][rows], names, classes, bright, rows)


def leading_directions(table: LatentTable) -> Float[np.ndarray, "8 m"]:
    """Find the unit vectors along which the posterior means vary most: what the band fluxes measure [8, m]."""
    return np.linalg.svd(table.z - table.z.mean(axis=0), full_matrices=False)[2][:N_DIRECTIONS].T


def available_extras(table: LatentTable) -> list[tuple[str, ...]]:
    """List the steps of `EXTRAS` as far as the columns have values."""

    def there(names: Sequence[str]) -> bool:
        return any(name in table.colnames and np.isfinite(numeric_column(table, name)).any() for name in names)

    has = {group: all(there(names) for names in columns.values()) for group, columns in ALLOWED.items()}
    return list(dict.fromkeys(tuple(group for group in allowed if has[group]) for allowed in EXTRAS))


def cross_validate_all(
    sample: LabelledSample, baselines: Mapping[str, LatentTable] | None = None, seed: int = 0
) -> dict[FeatureSet, HeldOutPredictions]:
    """Predict the classes of sources that a classifier was not trained on, five-fold, by what it is made from.

    z with each of `available_extras`; hardness ratios with the same and the same classifier; the baselines alone; and
    hardness ratios with extremely randomised trees, uncalibrated.
    """
    sources, classes, directions = source_ids(sample.table), sample.classes, leading_directions(sample.table)
    held: dict[FeatureSet, HeldOutPredictions] = {}
    for extra in available_extras(sample.table):
        x, stress = build_features(sample.table, directions, extra)
        held[FeatureSet(LATENTS, extra)] = cross_validate(x, stress, classes, sources, seed)
        alone = _ratio_features(sample, extra)
        weights = np.append(np.ones(_N_RATIOS), stress[_N_RATIOS + 2 * directions.shape[1] :])
        held[FeatureSet(HARDNESS, extra)] = cross_validate(alone, weights, classes, sources, seed)
        held[FeatureSet(TREES, extra)] = _predict_by_trees(alone, classes, sources, seed)
    for name, table in (baselines or {}).items():
        held[FeatureSet(name)] = cross_validate(table.z, np.ones(table.z.shape[1]), classes, sources, seed)
    return held


def score_held_out(
    sample: LabelledSample,
    held: HeldOutPredictions,
    made_from: FeatureSet | None = None,
    rows: np.ndarray | None = None,
) -> dict[str, tuple]:
    """Score the bright rows, or others, by `score_predictions`, under the names of tables.

    Trees tell AGN from compact objects better if they are grown for that alone, and are.
    """
    rows = np.flatnonzero(sample.bright) if rows is None else rows
    sources, (one, others) = source_ids(sample.table), sample.pair
    found = score_predictions(
        HeldOutPredictions(held.p[rows], held.sets[rows]), sample.classes[rows], sources[rows], one, others or [one]
    )
    named = {name: found[key] for key, name in _SCORES.items()}
    if not others:
        del named["AGN against compact"]
    if made_from is not None and made_from.representation == TREES:
        named = {name: named[name] for name in ("balanced accuracy", "AGN against compact") if name in named}
        if others:
            pair = np.flatnonzero(np.isin(sample.classes, [one, *others]))
            either = np.isin(sample.classes[pair], others).astype(int)
            alone = _predict_by_trees(_ratio_features(sample, made_from.extra)[pair], either, sources[pair])
            kept = np.isin(pair, rows)
            result = score_predictions(
                HeldOutPredictions(alone.p[kept], alone.sets[kept]), either[kept], sources[pair][kept], 0, [1]
            )
            named["AGN against compact"] = result["balanced accuracy"]
    return named


def _ratio_features(sample: LabelledSample, extra: Sequence[str]) -> Float[np.ndarray, "n m"]:
    """Hardness ratios, and what is used besides as it stands beside z."""
    directions = leading_directions(sample.table)
    x, _ = build_features(sample.table, directions, extra)
    return np.concatenate([sample.ratios.z[:, :_N_RATIOS], x[:, _N_RATIOS + 2 * directions.shape[1] :]], axis=1)


def _predict_by_trees(x: np.ndarray, classes: np.ndarray, sources: np.ndarray, seed: int = 0) -> HeldOutPredictions:
    """Predict by extremely randomised trees on the same folds, without calibration or sets."""
    with requires_extra("science", "sklearn"):
        from sklearn.ensemble import ExtraTreesClassifier
    x = np.nan_to_num(x, nan=-1.0)
    fold, p = assign_folds(sources, classes, seed + 1000), np.empty((len(x), classes.max() + 1))
    for k in range(N_FOLDS):
        out = fold == k
        trees = ExtraTreesClassifier(_N_TREES, min_samples_leaf=5, class_weight="balanced", random_state=seed)
        p[out] = trees.fit(x[~out], classes[~out]).predict_proba(x[out])
    return HeldOutPredictions(p, np.zeros(p.shape, bool))


def classification_section(data: Dataset, section: Section, seed: int) -> None:
    """Score held-out sources, all and class by class, with the confusion and the reliability of the probabilities.

    ``section.values`` has the classes' ``names`` and, by what the classifier is made from, ``confusion`` and
    ``reliability``.
    """
    sample = select_labelled(data)
    rows = np.flatnonzero(sample.bright)
    baselines = {name: table[sample.rows] for name, table in data.baselines.items() if name != HARDNESS}
    held = cross_validate_all(sample, baselines, seed)
    scored = {made_from: score_held_out(sample, one, made_from) for made_from, one in held.items()}
    columns: dict[str, list] = {"from": [made_from.label for made_from in held]}
    for name in _SCORES.values():
        if name != "AGN against compact" or sample.pair[1]:
            for place, end in enumerate(ENDS):
                columns[name + end] = [scored[made_from].get(name, (np.nan,) * 3)[place] for made_from in held]
    section.add("scores", f"Classification, five-fold. {data.heading}", Table(columns))
    most = FeatureSet(LATENTS, available_extras(sample.table)[-1])
    section.add("by_class", f"Class by class. {data.heading}", _score_by_class(sample, held, most))
    which = f"sources of significance > {MIN_SIGNIFICANCE:g}" if len(rows) < len(sample.classes) else "sources"
    section.notes.append(
        f"{len(np.unique(source_ids(sample.table)[rows]))} {which} of {len(sample.names)} classes are scored; all "
        f"{len(np.unique(source_ids(sample.table)))} train. Folds are of sources; calibration and thresholds come from "
        "the training part. The calibration error is of the sample's own mix of classes, its floor that of perfect "
        "probabilities with as many sources; debiased, the part that chance gives is taken out. Prediction sets are "
        "made to hold the true class in 90 % of cases."
    )
    section.values = {"names": sample.names, "confusion": {}, "reliability": {}}
    for made_from in dict.fromkeys((FeatureSet(LATENTS), most)):
        p = held[made_from].p[rows]
        confusion = np.zeros((len(sample.names),) * 2)
        np.add.at(confusion, (sample.classes[rows], p.argmax(axis=1)), source_weights(source_ids(sample.table)[rows]))
        confusion /= np.maximum(confusion.sum(axis=1, keepdims=True), 1e-9)
        section.values["confusion"][made_from.label] = confusion
        section.values["reliability"][made_from.label] = _reliability(sample, p, rows, seed)


def _score_by_class(sample: LabelledSample, held: Mapping[FeatureSet, HeldOutPredictions], most: FeatureSet) -> Table:
    """Share recognised of each class, from z, hardness ratios and most of what there is."""
    rows, sources = np.flatnonzero(sample.bright), source_ids(sample.table)
    z = FeatureSet(LATENTS)
    columns: dict[str, list] = {"class": [], "sources": []}
    for k, name in enumerate(sample.names):
        own = rows[sample.classes[rows] == k]
        if not len(own):
            continue
        columns["class"].append(name)
        columns["sources"].append(len(np.unique(sources[own])))
        for made_from in dict.fromkeys((z, FeatureSet(HARDNESS), most)):
            right = held[made_from].p[own].argmax(axis=1) == k
            _add_share(columns, f"accuracy, {made_from.label}", right, sources[own])
        _add_share(columns, f"coverage, {LATENTS}", held[z].sets[own, k], sources[own])
        taken = np.bincount(held[z].p[own].argmax(axis=1), minlength=len(sample.names))
        taken[k] = 0
        other = f"{sample.names[int(taken.argmax())]} ({taken.max() / len(own):.0%})" if taken.any() else ""
        columns.setdefault("most often taken for", []).append(other)
    return Table(columns)


def _add_share(columns: dict[str, list], name: str, right: np.ndarray, sources: np.ndarray) -> None:
    """Add the share of sources that is right, with its limits, to the columns of that name."""

    def share(weights: np.ndarray) -> float:
        return float(np.average(right, weights=weights))

    values = (share(source_weights(sources)), *bootstrap_interval(share, sources, n_draws=200))
    for end, value in zip(ENDS, values, strict=True):
        columns.setdefault(name + end, []).append(value)


def _reliability(sample: LabelledSample, p: np.ndarray, rows: np.ndarray, seed: int) -> Float[np.ndarray, "bins 4"]:
    """Mean probability of the most probable class, share of it that is right, and its limits, in equal bins."""
    classes, sources = sample.classes[rows], source_ids(sample.table)[rows]
    mix = np.bincount(classes, weights=source_weights(sources), minlength=p.shape[1])
    mixed = p * mix / np.sum(p * mix, axis=1, keepdims=True)
    sure, right = mixed.max(axis=1), mixed.argmax(axis=1) == classes
    bins = []
    for members in np.array_split(np.argsort(sure, kind="stable"), min(_N_BINS, len(sure))):

        def share(weights: np.ndarray, members: np.ndarray = members) -> float:
            return float(np.average(right[members], weights=weights))

        low, high = bootstrap_interval(share, sources[members], seed, 200)
        bins.append((float(sure[members].mean()), float(right[members].mean()), low, high))
    return np.array(bins)


def single_spectra_section(
    spectra: LatentTable,
    kinds: Mapping[str, str],
    data: Dataset,
    direction: Direction | None,
    section: Section,
    seed: int,
) -> None:
    """List class probabilities, prediction set, nearest labelled sources and accretion value of each spectrum."""
    sample = select_labelled(data)
    rows = np.flatnonzero(~_may_be_the_same(sample.table, spectra))
    table = sample.table[rows]
    directions = leading_directions(table)
    x, weights = build_features(table, directions)
    machine = train_classifier(x, weights, sample.classes[rows], source_ids(table), seed)
    good = np.flatnonzero(valid_rows(spectra))
    p = np.full((len(spectra), len(sample.names)), np.nan)
    p[good] = machine.probabilities(build_features(spectra[good], directions)[0])
    sets = prediction_set(np.nan_to_num(p), machine.thresholds)
    mixed = p * np.bincount(sample.classes[rows], weights=source_weights(source_ids(table)), minlength=p.shape[1])
    mixed = mixed / mixed.sum(axis=1, keepdims=True)
    index = Index.build(table.z, table.covariance, table.meta.get("model_sha256", ""))
    excess, _ = fit_excess(spectra)
    nearest = [""] * len(spectra)
    for i in good:
        found = index.search(spectra.z[i], spectra.covariance[i], _N_NEIGHBOURS)
        nearest[i] = ", ".join(sample.names[sample.classes[rows[row]]] for row in found.rows)
    columns = {
        "name": np.asarray(spectra["name"]).astype(str),
        "kind": [kinds.get(str(name), "") for name in spectra["name"]],
        "counts": np.round(numeric_column(spectra, "counts")).astype(int),
        "statistic": numeric_column(spectra, "cstat"),
        "expected": numeric_column(spectra, "cstat_expected"),
        "excess in σ": excess,
        "class": [sample.names[row.argmax()] if np.isfinite(row).all() else "" for row in p],
        "p": p.max(axis=1),
        "class in the mix": [sample.names[row.argmax()] if np.isfinite(row).all() else "" for row in mixed],
        "p in the mix": mixed.max(axis=1),
        "prediction set": [", ".join(np.array(sample.names)[row]) for row in sets],
        "nearest": nearest,
    }
    if direction is not None:
        value, error = direction.project(spectra.z, spectra.covariance)
        columns |= {"accretion": value, "accretion_lolim": value - error, "accretion_hilim": value + error}
    section.add("spectra", f"Spectra one by one. Trained on {data.heading}", Table(columns))
    probabilities = {"name": columns["name"], **{f"p {name}": p[:, k] for k, name in enumerate(sample.names)}}
    caption = f"Class probabilities of the spectra. Trained on {data.heading}"
    section.add("probabilities", caption, Table(probabilities))
    section.notes.append(
        f"{len(rows)} labelled sources train; those within 20 arcsec of a spectrum with a position "
        f"({len(sample.classes) - len(rows)}) are left out. class takes all classes for equally common, class in the "
        "mix for as common as among the labelled sources, most of which are AGN and YSO. The classifier looks at the "
        "two directions of z that three band fluxes tell. nearest: classes of the five nearest labelled sources. "
        "Limits of the accretion value: one standard deviation of the posterior."
    )


def _may_be_the_same(table: LatentTable, spectra: LatentTable) -> Bool[np.ndarray, " n"]:
    """Rows of the table that may be the source of one of the spectra, by their positions."""
    ra, dec = numeric_column(table, "ra"), numeric_column(table, "dec")
    near = np.zeros(len(table), bool)
    for ra_0, dec_0 in zip(numeric_column(spectra, "ra"), numeric_column(spectra, "dec"), strict=True):
        off = np.hypot((ra - ra_0) * np.cos(np.radians(dec)), dec - dec_0)
        near |= np.nan_to_num(off, nan=np.inf) < _MAX_SEPARATION
    return near
