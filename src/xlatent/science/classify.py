"""Which kind of source a row is: class probabilities and prediction sets from a trained classifier."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import Column
from jaxtyping import Float

from xlatent.core.bands import HARDNESS_RATIOS
from xlatent.core.errors import ModelError, ParameterError
from xlatent.core.latents import LatentTable, check_same_model
from xlatent.core.taxonomy import COMPACT
from xlatent.science.classifier_training import pairwise_probability, prediction_set
from xlatent.science.selection import numeric_column, valid_rows

ALLOWED: dict[str, dict[str, tuple[str, ...]]] = {
    "flux": {"log_flux_b": ("log_flux_b",)},
    "variability": {
        "P_intra": ("P_intra", "kp_prob_b_max", "kp_prob_b"),
        "P_inter": ("P_inter", "var_inter_prob", "var_inter_prob_b"),
    },
    "nh_gal": {"nh_gal": ("nh_gal",)},
}
"""What may be used besides the spectrum: features, and the columns that may hold each (those of the CSC last)."""

_WEIGHTS = {"flux": 1.0, "variability": 0.3, "nh_gal": 1.5}  # accuracy is flat within a factor 1.5
_MIN_CONSTANCY = 0.001  # probabilities are given to three digits
_MIN_NH = 0.01  # 10^20 cm-2, below any line of sight


def build_features(
    table: LatentTable, directions: Float[np.ndarray, "8 m"], allowed: Sequence[str] = ()
) -> tuple[Float[np.ndarray, "n d"], Float[np.ndarray, " d"]]:
    """Build what a classifier sees of each row.

    Parameters
    ----------
    table : LatentTable
    directions : array [8, m]
        Unit vectors in z on which the posterior is projected: those that the training set measured.
    allowed : sequence of str
        Among `ALLOWED`.

    Returns
    -------
    x : array [n, d]
        Means of the posterior along the directions, hardness ratios of the reconstruction; with the flux, since they
        tell how bright a source is, logarithms of the posterior's standard deviations along the directions; log10 of
        the flux in erg cm-2 s-1; -log10(1 - P) of the probabilities of variability within and between observations,
        each with 1 where it is missing; log10 of the Galactic column in 10^20 cm-2. NaN where a value is missing or not
        allowed.
    feature_weights : array [d]
        What one standard deviation of each counts in the distance between sources.

    Raises
    ------
    ParameterError
        If a column is missing or does not hold numbers.

    Examples
    --------
    >>> columns = {"name": ["a", "b"], "hard_hm": [0.1, 0.2], "hard_hs": [0.3, 0.1], "hard_ms": [0.2, -0.1]}
    >>> table = LatentTable.from_posterior(np.zeros((2, 8)), np.tile(np.eye(8), (2, 1, 1)), columns)
    >>> x, feature_weights = build_features(table, np.eye(8)[:, :2])
    >>> x.shape, x[0, :5].tolist()
    ((2, 13), [0.0, 0.0, 0.1, 0.3, 0.2])
    """
    errors = np.sqrt(np.einsum("im,nij,jm->nm", directions, table.covariance, directions))
    errors = np.log(errors) if "flux" in allowed else np.full(errors.shape, np.nan)
    parts = [table.z @ directions, *(numeric_column(table, name)[:, None] for name in HARDNESS_RATIOS), errors]
    weights = [np.ones(part.shape[1]) for part in parts]
    for group, columns in ALLOWED.items():
        for feature, names in columns.items():
            values = np.full(len(table), np.nan)
            if group in allowed:
                found = [name for name in names if name in table.colnames]
                if not found:
                    raise ParameterError(
                        f"{group} needs a column {' or '.join(names)} and the table has none; add it, from a catalogue "
                        f"or by hand, or leave out {group}"
                    )
                values = numeric_column(table, found[0])
            if feature == "nh_gal":
                values = np.log10(np.maximum(values, _MIN_NH))
            if group == "variability":
                values = -np.log10(1.0 - np.clip(values, 0.0, 1.0) + _MIN_CONSTANCY)
                parts.append(np.isnan(values)[:, None].astype(float))
                weights.append(np.array([_WEIGHTS[group]]))
            parts.append(values[:, None])
            weights.append(np.array([_WEIGHTS[group]]))
    return np.concatenate(parts, axis=1), np.concatenate(weights)


def output_name(allowed: Sequence[str]) -> str:
    """Name the output of a classifier that uses what is allowed.

    Examples
    --------
    >>> output_name([]), output_name(["variability", "flux"])
    ('p', 'p_flux_variability')
    """
    return "_".join(["p", *(group for group in ALLOWED if group in allowed)])


@dataclass(frozen=True, eq=False)
class Classifier:
    """Hold a trained classifier in ONNX.

    Attributes
    ----------
    session : onnxruntime.InferenceSession
        Input ``x``: `features` [n, d]; an output of probabilities [n, 8] for each choice of what is allowed
        (`output_name`).
    info : dict
        ``classes``, ``directions`` [8, m], ``model_sha256`` of the latents, ``thresholds`` by output, ``members``:
        number of sources of each class it was trained on.
    """

    session: Any
    info: dict[str, Any]


def load_classifier(path: Path) -> Classifier:
    """Read a classifier from its ONNX file.

    Raises
    ------
    ModelError
        If the file is missing, damaged, or not a classifier.

    Examples
    --------
    >>> from xlatent.core.bundle import DEFAULT_MODEL, locate
    >>> load_classifier(locate(DEFAULT_MODEL) / "classifier.onnx").info["classes"]
    ['AGN', 'YSO', 'LM-STAR', 'HM-STAR', 'NS', 'LMXB', 'CV', 'HMXB']
    """
    import onnxruntime

    if not path.is_file():
        raise ModelError(f"{path}: there is no classifier; name one that was made for the model of the latents")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        info = json.loads(session.get_modelmeta().custom_metadata_map["xlatent.classifier"])
    except Exception as error:  # onnxruntime has no common error for a damaged file
        raise ModelError(
            f"{path}: is not a classifier of this package, or is damaged; fetch or make it again"
        ) from error
    return Classifier(session, info)


def classify(table: LatentTable, classifier: Classifier, allowed: Sequence[str] = ()) -> LatentTable:
    """Predict the probabilities of the classes and the set of those that cannot be ruled out.

    Parameters
    ----------
    table : LatentTable
    classifier : Classifier
    allowed : sequence of str
        What may be used besides the spectrum, among `ALLOWED`.

    Returns
    -------
    LatentTable
        The same rows with ``p_AGN`` and so on: probabilities if all classes were equally common (for another mix,
        multiply by it and divide by the sum); ``p_compact``: of any of `COMPACT` rather than an AGN, if either side is
        equally likely and nothing else is; ``class``, the most probable; ``prediction_set``, names separated by commas:
        it holds the true class of 90 % of the sources of each class. A row without data has missing
        probabilities, no class and all classes in its set.

    Raises
    ------
    ModelError
        If the latents are another model's than the classifier's.
    ParameterError
        If a column is missing, or `allowed` names what is unknown.

    Examples
    --------
    >>> from xlatent.core.bundle import DEFAULT_MODEL, locate
    >>> classifier = load_classifier(locate(DEFAULT_MODEL) / "classifier.onnx")
    >>> columns = {"name": ["a"], "hard_hm": [0.1], "hard_hs": [0.3], "hard_ms": [0.2]}
    >>> origin = {"model_sha256": classifier.info["model_sha256"]}
    >>> table = LatentTable.from_posterior(np.zeros((1, 8)), 0.1 * np.eye(8)[None], columns, origin)
    >>> found = classify(table, classifier)
    >>> 0.0 < found["p_AGN"][0] < 1.0, found["class"][0] in found["prediction_set"][0].split(",")
    (np.True_, True)
    """
    import onnxruntime

    if unknown := sorted(set(allowed) - set(ALLOWED)):
        raise ParameterError(f"a classifier may use {', '.join(ALLOWED)} besides the spectrum, not {unknown[0]!r}")
    check_same_model(
        {"the table": table, "the classifier": classifier.info["model_sha256"]},
        "embed the sources again with the classifier's model",
    )
    output, names = output_name(allowed), classifier.info["classes"]
    p = np.full((len(table), len(names)), np.nan)
    if (valid := np.flatnonzero(valid_rows(table))).size:
        rows = table[valid]
        x, _ = build_features(rows, np.array(classifier.info["directions"]), allowed)
        options = onnxruntime.RunOptions()
        options.only_execute_path_to_fetches = True  # the other outputs are for other choices
        p[valid] = classifier.session.run([output], {"x": x}, options)[0]
    sets = np.ones(p.shape, bool)
    sets[valid] = prediction_set(p[valid], np.array(classifier.info["thresholds"][output]))
    columns: dict[str, Any] = dict(table.to_astropy().columns)
    columns["class"] = np.array([names[row.argmax()] if np.isfinite(row).all() else "" for row in p], np.str_)
    for k, name in enumerate(names):
        meaning = f"Probability of class {name} if all classes were equally common"
        columns[f"p_{name.replace('-', '_')}"] = _probability_column(p[:, k], meaning)
    pair = names.index("AGN"), [names.index(name) for name in COMPACT]
    meaning = f"Probability of an accreting or stellar-mass compact object ({', '.join(COMPACT)}) rather than an AGN"
    compact = pairwise_probability(p, np.array(classifier.info["members"]), *pair)
    columns["p_compact"] = _probability_column(compact, meaning)
    columns["prediction_set"] = np.array([",".join(np.array(names)[row]) for row in sets], np.str_)
    return LatentTable(columns, table.meta)


def _probability_column(values: Float[np.ndarray, " n"], meaning: str) -> Column:
    return Column(values, description=meaning, meta={"ucd": "stat.probability;src.class"})
