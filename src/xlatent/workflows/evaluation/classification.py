"""Classification as an evaluation reports it: held-out scores beside baselines, and single spectra in words."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from astropy.table import Table
from jaxtyping import Bool, Float, Int

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
from xlatent.workflows.evaluation.sections import HARDNESS, LATENTS, Data, Part, excess_of

BRIGHT = 5.0
"""Significance of the sources that are scored."""
N_DIRECTIONS = 2
"""Three band fluxes are two colours."""
SHOWN: tuple[tuple[str, ...], ...] = ((), ("flux",), ("flux", "variability"), ("flux", "variability", "nh_gal"))
TREES = "hardness ratios, trees"
_TREES = 200
# So that four fifths of a class are enough to train on.
_LEAST = -(-MIN_MEMBERS * N_FOLDS // (N_FOLDS - 1))
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
_NEAR = 5  # neighbours of a spectrum
_SAME_PLACE = 20.0 / 3600.0  # degrees within which a labelled source may be the spectrum's own
_BINS = 10


@dataclass(frozen=True, eq=False)
class Labelled:
    """Rows with latents and a class that has enough sources.

    Attributes
    ----------
    table : LatentTable
        With the columns that a classifier may use beside the spectrum.
    ratios : LatentTable
        Hardness ratios alone, as `xlatent.workflows.evaluation.sections.hardness_ratios` makes them.
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


def labelled(data: Data) -> Labelled:
    """Sources to train and judge a classifier on; those of significance > `BRIGHT` are scored, if there is the column.

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
    names = [kind for kind in (*CLASSES, *sorted(set(members) - set(CLASSES))) if members.get(kind, 0) >= _LEAST]
    if small := [f"{kind} ({n})" for kind, n in members.items() if kind and kind not in names]:
        warnings.warn(
            f"classes need {_LEAST} sources with latents to be learned and judged, left out: {', '.join(small)}",
            XlatentWarning,
            stacklevel=2,
        )
    if len(names) < 2:
        raise ParameterError(f"a classifier needs two classes of {_LEAST} sources with latents, found {len(names)}")
    rows = np.flatnonzero(good & np.isin(data.classes, names))
    more = {
        name: data.joined[name]
        for columns in ALLOWED.values()
        for candidates in columns.values()
        for name in candidates
        if name in data.joined.colnames
    }
    own = {name: data.latents[name] for name in data.latents.colnames}
    bright = np.ones(len(rows), bool)
    if "significance" in data.joined.colnames:
        bright = np.nan_to_num(numeric_column(data.joined, "significance")[rows]) > BRIGHT
    classes = np.array([names.index(kind) for kind in data.classes[rows]])
    if len(np.unique(classes[bright])) < 2:
        raise ParameterError(f"of two classes no source is more significant than {BRIGHT:g}")
    table = LatentTable(own | more, data.latents.meta)[rows]
    return Labelled(table, data.baselines[HARDNESS][rows], names, classes, bright, rows)


def leading_directions(table: LatentTable) -> Float[np.ndarray, "8 m"]:
    """Unit vectors along which the posterior means vary most: what the band fluxes measure [8, m]."""
    return np.linalg.svd(table.z - table.z.mean(axis=0), full_matrices=False)[2][:N_DIRECTIONS].T


def choices(table: LatentTable) -> list[tuple[str, ...]]:
    """What may be used beside the spectrum, step by step, as far as the columns have values."""

    def there(names: Sequence[str]) -> bool:
        return any(name in table.colnames and np.isfinite(numeric_column(table, name)).any() for name in names)

    has = {group: all(there(names) for names in columns.values()) for group, columns in ALLOWED.items()}
    return list(dict.fromkeys(tuple(group for group in allowed if has[group]) for allowed in SHOWN))


def judge(
    sample: Labelled, baselines: dict[str, LatentTable] | None = None, seed: int = 0
) -> dict[str, HeldOutPredictions]:
    """What classifiers say of sources that they were not trained on, five-fold, by what they are made from.

    z with each of `choices`; hardness ratios with the same and the same classifier; the baselines alone; and hardness
    ratios with extremely randomised trees, uncalibrated.
    """
    sources, classes, directions = source_ids(sample.table), sample.classes, leading_directions(sample.table)
    ratios = sample.ratios.z[:, :3]
    held: dict[str, HeldOutPredictions] = {}
    for allowed in choices(sample.table):
        x, weights = build_features(sample.table, directions, allowed)
        held[" + ".join([LATENTS, *allowed])] = cross_validate(x, weights, classes, sources, seed)
        plain = slice(len(ratios[0]) + 2 * directions.shape[1], None)
        alone = np.concatenate([ratios, x[:, plain]], axis=1)
        plain_weights = np.append(np.ones(ratios.shape[1]), weights[plain])
        held[" + ".join([HARDNESS, *allowed])] = cross_validate(alone, plain_weights, classes, sources, seed)
        held[" + ".join([TREES, *allowed])] = _trees(np.nan_to_num(alone, nan=-1.0), classes, sources, seed)
    for name, table in (baselines or {}).items():
        held[name] = cross_validate(table.z, np.ones(table.z.shape[1]), classes, sources, seed)
    return held


def scored(
    sample: Labelled, held: HeldOutPredictions, of: str = "", rows: np.ndarray | None = None
) -> dict[str, tuple]:
    """Scores of the bright rows, or of others: by `score_predictions`, under the names of the report.

    Trees tell AGN from compact objects better if they are grown for that alone, and are.
    """
    rows = np.flatnonzero(sample.bright) if rows is None else rows
    sources, (one, others) = source_ids(sample.table), sample.pair
    found = score_predictions(
        HeldOutPredictions(held.p[rows], held.sets[rows]), sample.classes[rows], sources[rows], one, others or [one]
    )
    told = {name: found[key] for key, name in _SCORES.items()}
    if not others:
        del told["AGN against compact"]
    if of.startswith(TREES):
        told = {name: told[name] for name in ("balanced accuracy", "AGN against compact") if name in told}
        if others:
            pair = np.flatnonzero(np.isin(sample.classes, [one, *others]))
            either = np.isin(sample.classes[pair], others).astype(int)
            x = _features_of(sample, of)
            alone = _trees(x[pair], either, sources[pair])
            kept = np.isin(pair, rows)
            result = score_predictions(
                HeldOutPredictions(alone.p[kept], alone.sets[kept]), either[kept], sources[pair][kept], 0, [1]
            )
            told["AGN against compact"] = result["balanced accuracy"]
    return told


def _features_of(sample: Labelled, of: str) -> np.ndarray:
    """Features of trees, by their name."""
    directions = leading_directions(sample.table)
    x, _ = build_features(sample.table, directions, of.split(" + ")[1:])
    return np.nan_to_num(np.concatenate([sample.ratios.z[:, :3], x[:, 3 + 2 * directions.shape[1] :]], 1), nan=-1.0)


def _trees(x: np.ndarray, classes: np.ndarray, sources: np.ndarray, seed: int = 0) -> HeldOutPredictions:
    """Extremely randomised trees on the same folds; without calibration or sets."""
    with requires_extra("science", "sklearn"):
        from sklearn.ensemble import ExtraTreesClassifier
    fold, p = assign_folds(sources, classes, seed + 1000), np.empty((len(x), classes.max() + 1))
    for k in range(N_FOLDS):
        out = fold == k
        trees = ExtraTreesClassifier(_TREES, min_samples_leaf=5, class_weight="balanced", random_state=seed)
        p[out] = trees.fit(x[~out], classes[~out]).predict_proba(x[out])
    return HeldOutPredictions(p, np.zeros(p.shape, bool))


def classification(data: Data, part: Part, seed: int) -> None:
    """Scores of held-out sources, class by class, with the confusion and the reliability of the probabilities."""
    sample = labelled(data)
    rows = np.flatnonzero(sample.bright)
    baselines = {name: table[sample.rows] for name, table in data.baselines.items() if name != HARDNESS}
    held = judge(sample, baselines, seed)
    names = [name for name in _SCORES.values() if name != "AGN against compact" or sample.pair[1]]
    columns: dict[str, list] = {"from": list(held)}
    told = {of: scored(sample, one, of) for of, one in held.items()}
    for name in names:
        for place, end in enumerate(("", "_lolim", "_hilim")):
            columns[name + end] = [told[of].get(name, (np.nan,) * 3)[place] for of in held]
    part.tables[f"Classification, five-fold. {data.heading}"] = Table(columns)
    part.tables[f"Class by class. {data.heading}"] = _by_class(sample, held)
    which = f"sources of significance > {BRIGHT:g}" if len(rows) < len(sample.classes) else "sources"
    part.notes.append(
        f"{len(np.unique(source_ids(sample.table)[rows]))} {which} of {len(sample.names)} classes are scored; all "
        f"{len(np.unique(source_ids(sample.table)))} train. Folds are of sources; calibration and thresholds come from "
        "the training part. The calibration error is of the sample's own mix of classes, its floor that of perfect "
        "probabilities with as many sources; debiased, the part that chance gives is taken out. Prediction sets are "
        "made to hold the true class in 90 % of cases."
    )
    most = " + ".join([LATENTS, *choices(sample.table)[-1]])
    for name in dict.fromkeys((LATENTS, most)):
        p = held[name].p[rows]
        confusion = np.zeros((len(sample.names),) * 2)
        np.add.at(confusion, (sample.classes[rows], p.argmax(axis=1)), source_weights(source_ids(sample.table)[rows]))
        confusion /= np.maximum(confusion.sum(axis=1, keepdims=True), 1e-9)
        part.arrays.setdefault("confusion", {})[name] = confusion
        part.arrays.setdefault("reliability", {})[name] = _reliability(sample, p, rows, seed)
    part.arrays["names"] = sample.names


def _by_class(sample: Labelled, held: dict[str, HeldOutPredictions]) -> Table:
    rows, sources = np.flatnonzero(sample.bright), source_ids(sample.table)
    columns: dict[str, list] = {"class": [], "sources": []}
    for k, name in enumerate(sample.names):
        own = rows[sample.classes[rows] == k]
        if not len(own):
            continue
        columns["class"].append(name)
        columns["sources"].append(len(np.unique(sources[own])))
        for of in (LATENTS, HARDNESS, list(held)[-3] if len(held) > 3 else LATENTS):
            right = held[of].p[own].argmax(axis=1) == k
            _add(columns, f"accuracy, {of}", right, sources[own])
        _add(columns, f"coverage, {LATENTS}", held[LATENTS].sets[own, k], sources[own])
        taken = np.bincount(held[LATENTS].p[own].argmax(axis=1), minlength=len(sample.names))
        taken[k] = 0
        other = f"{sample.names[int(taken.argmax())]} ({taken.max() / len(own):.0%})" if taken.any() else ""
        columns.setdefault("most often taken for", []).append(other)
    return Table(columns)


def _add(columns: dict[str, list], name: str, right: np.ndarray, sources: np.ndarray) -> None:
    """Share of sources that is right, with its limits; once for each name and row."""
    if len(columns.setdefault(name, [])) == len(columns["class"]):
        return

    def share(weights: np.ndarray) -> float:
        return float(np.average(right, weights=weights))

    values = (share(source_weights(sources)), *bootstrap_interval(share, sources, n_draws=200))
    for end, value in zip(("", "_lolim", "_hilim"), values, strict=True):
        columns.setdefault(name + end, []).append(value)


def _reliability(sample: Labelled, p: np.ndarray, rows: np.ndarray, seed: int) -> Float[np.ndarray, "bins 4"]:
    """Mean probability of the most probable class, share of it that is right, and its limits, in equal bins."""
    classes, sources = sample.classes[rows], source_ids(sample.table)[rows]
    mix = np.bincount(classes, weights=source_weights(sources), minlength=p.shape[1])
    mixed = p * mix / np.sum(p * mix, axis=1, keepdims=True)
    sure, right = mixed.max(axis=1), mixed.argmax(axis=1) == classes
    bins = []
    for members in np.array_split(np.argsort(sure, kind="stable"), min(_BINS, len(sure))):

        def share(weights: np.ndarray, members: np.ndarray = members) -> float:
            return float(np.average(right[members], weights=weights))

        low, high = bootstrap_interval(share, sources[members], seed, 200)
        bins.append((float(sure[members].mean()), float(right[members].mean()), low, high))
    return np.array(bins)


def single_spectra(
    spectra: LatentTable, kinds: dict[str, str], data: Data, line: Direction | None, part: Part, seed: int
) -> None:
    """Class probabilities, prediction set, nearest labelled sources and accretion value of each spectrum."""
    sample = labelled(data)
    rows = np.flatnonzero(~_same_place(sample.table, spectra))
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
    excess, _ = excess_of(spectra)
    nearest = [""] * len(spectra)
    for i in good:
        found = index.search(spectra.z[i], spectra.covariance[i], _NEAR)
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
    if line is not None:
        value, error = line.value(spectra.z, spectra.covariance)
        columns |= {"accretion": value, "accretion_lolim": value - error, "accretion_hilim": value + error}
    part.tables[f"Spectra one by one. Trained on {data.heading}"] = Table(columns)
    part.tables[f"Class probabilities of the spectra. Trained on {data.heading}"] = Table(
        {"name": columns["name"], **{f"p {name}": p[:, k] for k, name in enumerate(sample.names)}}
    )
    part.notes.append(
        f"{len(rows)} labelled sources train; those within 20 arcsec of a spectrum with a position "
        f"({len(sample.classes) - len(rows)}) are left out. class takes all classes for equally common, class in the "
        "mix for as common as among the labelled sources, most of which are AGN and YSO. The classifier looks at the "
        "two directions of z that three band fluxes tell. nearest: classes of the five nearest labelled sources. "
        "Limits of the accretion value: one standard deviation of the posterior."
    )


def _same_place(table: LatentTable, spectra: LatentTable) -> Bool[np.ndarray, " n"]:
    """Rows of the table that may be the source of one of the spectra, by their positions."""
    ra, dec = numeric_column(table, "ra"), numeric_column(table, "dec")
    near = np.zeros(len(table), bool)
    for ra_0, dec_0 in zip(numeric_column(spectra, "ra"), numeric_column(spectra, "dec"), strict=True):
        off = np.hypot((ra - ra_0) * np.cos(np.radians(dec)), dec - dec_0)
        near |= np.nan_to_num(off, nan=np.inf) < _SAME_PLACE
    return near
