"""Training of a classifier from labelled sources, with its calibration, its prediction sets and honest scores."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from xlatent.core.errors import ParameterError
from xlatent.core.extras import requires_extra
from xlatent.science.resampling import N_FOLDS, assign_folds, bootstrap_interval, source_weights
from xlatent.science.weighted_scores import balanced_accuracy

MISCOVERAGE = 0.1
"""Share of the sources of each class that may lie outside their prediction set."""
MIN_MEMBERS = 10
"""Sources of a class below which neither folds nor a set of 90 % can be made of it."""
# Chosen once, by log loss inside the training parts of the folds of labelled CSC sources. If all classes weigh the same
# it is least at C of 1 to 3 and wide kernels, in the sample's own mix at C of 3 to 10 and narrow ones: this is between.
_C, _LANDMARKS = 5.0, 200
_MAX_GAMMA = 0.1
_GAMMA_TIMES_VARIANCE = 0.75  # of all features together
_BINS = 10
_ROUNDING = 1e-9  # of the mean: what a constant feature scatters by rounding


@dataclass(frozen=True, eq=False)
class KernelClassifier:
    """Classify by a softmax of Gaussian kernels, p = softmax(exp(-γ|u - l|²) W + b) with u = (x - mean) / scale.

    Attributes
    ----------
    mean, scale : arrays [d]
        Of the features; a missing one counts as the mean.
    landmarks : array [m, d]
        Centres l of the kernels: sources of the training set.
    gamma : float
    weights, bias : arrays [m, k], [k]
        Scaled such that p is calibrated if all classes are equally common.
    thresholds : array [k]
        A class is in the prediction set if its p is at least this.
    members : array [k]
        Number of sources of each class in the training set.
    """

    mean: Float[np.ndarray, " d"]
    scale: Float[np.ndarray, " d"]
    landmarks: Float[np.ndarray, "m d"]
    gamma: float
    weights: Float[np.ndarray, "m k"]
    bias: Float[np.ndarray, " k"]
    thresholds: Float[np.ndarray, " k"]
    members: Float[np.ndarray, " k"]

    def logits(self, x: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n k"]:
        """Compute logarithms of the probabilities, up to a constant a row."""
        u = np.where(np.isnan(x), 0.0, (x - self.mean) / self.scale)
        distance_squared = np.sum(u**2, 1)[:, None] - 2.0 * u @ self.landmarks.T + np.sum(self.landmarks**2, 1)
        return np.exp(-self.gamma * distance_squared) @ self.weights + self.bias

    def probabilities(self, x: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n k"]:
        """Compute the probability of each class if all were equally common."""
        return softmax(self.logits(x), axis=1)


def train_classifier(
    x: Float[np.ndarray, "n d"],
    feature_weights: Float[np.ndarray, " d"],
    classes: Int[np.ndarray, " n"],
    sources: Int[np.ndarray, " n"],
    seed: int = 0,
) -> KernelClassifier:
    """Train, calibrate and set the thresholds of a classifier; every class weighs the same.

    Logistic regression on a Nyström approximation of the Gaussian kernel [1]_. Each fifth of the sources gets its
    probabilities from the others. On these a temperature and a shift of each class are fitted [2]_, with the sample's
    own mix of classes as the prior, which is then taken out; and the threshold of a class is their conformal quantile
    among its members, between two of them if need be: sets that miss 10 % of each class, however common it is [3]_,
    with folds in place of one split [4]_.

    Parameters
    ----------
    x : array [n, d]
        NaN where a feature is missing.
    feature_weights : array [d]
        What one standard deviation of each feature counts in the distance between sources.
    classes : array of int [n]
        0 to k - 1.
    sources : array of int [n]
        Rows with one number are of one source: they are never split.
    seed : int
        Of folds and landmarks.

    Raises
    ------
    ParameterError
        If a class has fewer than `MIN_MEMBERS` sources.
    XlatentError
        If scikit-learn is missing.

    References
    ----------
    .. [1] Williams & Seeger 2001, NIPS 13, 682.
    .. [2] Guo et al. 2017, arXiv:1706.04599.
    .. [3] Sadinle, Lei & Wasserman 2019, JASA 114, 223.
    .. [4] Vovk 2015, Annals of Mathematics and Artificial Intelligence 74, 9.

    Examples
    --------
    >>> classes = np.repeat([0, 1], 60)
    >>> x = np.random.default_rng(0).standard_normal((120, 2)) + 3.0 * classes[:, None]
    >>> classifier = train_classifier(x, np.ones(2), classes, np.arange(120))
    >>> classifier.probabilities(np.array([[0.0, 0.0], [3.0, 3.0]])).argmax(axis=1).tolist()
    [0, 1]
    """
    members = [len(np.unique(sources[classes == k])) for k in range(classes.max() + 1)]
    if min(members) < MIN_MEMBERS:
        raise ParameterError(
            f"class number {int(np.argmin(members))} has {min(members)} sources and needs {MIN_MEMBERS}; leave it out"
        )
    fold = assign_folds(sources, classes, seed)
    logits = np.empty((len(x), len(members)))
    for k in range(N_FOLDS):
        held_out = fold == k
        part = _fit_kernel_classifier(x[~held_out], feature_weights, classes[~held_out], sources[~held_out], seed)
        logits[held_out] = part.logits(x[held_out])
    temperature, shift = _calibrate(logits, classes, source_weights(sources))
    p = softmax(logits / temperature + shift, axis=1)
    thresholds = np.array(
        [_conformal_threshold(p[classes == k, k], sources[classes == k]) for k in range(len(members))]
    )
    whole = _fit_kernel_classifier(x, feature_weights, classes, sources, seed)
    return replace(
        whole, weights=whole.weights / temperature, bias=whole.bias / temperature + shift, thresholds=thresholds
    )


def pairwise_probability(
    p: Float[np.ndarray, "n k"], members: Float[np.ndarray, " k"], one: int, others: list[int]
) -> Float[np.ndarray, " n"]:
    """Compute the probability of any of the others rather than of one class, if both sides are equally likely.

    Nothing else is taken for possible.

    Parameters
    ----------
    p : array [n, k]
        Probabilities if all classes were equally common.
    members : array [k]
        How common the others are among themselves.
    one : int
    others : list of int
        Numbers of the classes.

    Examples
    --------
    >>> pairwise_probability(np.array([[0.5, 0.1, 0.4]]), np.array([9.0, 3.0, 1.0]), 0, [1, 2])
    array([0.25925926])
    """
    tiny = np.finfo(float).tiny
    rest = p[:, others] @ members[others] / max(np.sum(members[others]), tiny)
    return rest / np.maximum(rest + p[:, one], tiny)


def prediction_set(p: Float[np.ndarray, "n k"], thresholds: Float[np.ndarray, " k"]) -> Bool[np.ndarray, "n k"]:
    """Select the classes that cannot be ruled out; the most probable one never is.

    Examples
    --------
    >>> prediction_set(np.array([[0.7, 0.2, 0.1]]), np.array([0.9, 0.15, 0.3])).tolist()
    [[True, True, False]]
    """
    return (p >= thresholds) | (p == p.max(axis=1, keepdims=True))


@dataclass(frozen=True, eq=False)
class HeldOutPredictions:
    """Hold what a classifier says of sources that it was not trained on.

    Attributes
    ----------
    p : array [n, k]
        Probabilities if all classes were equally common.
    sets : array of bool [n, k]
        Prediction sets.
    """

    p: Float[np.ndarray, "n k"]
    sets: Bool[np.ndarray, "n k"]


def cross_validate(
    x: Float[np.ndarray, "n d"],
    feature_weights: Float[np.ndarray, " d"],
    classes: Int[np.ndarray, " n"],
    sources: Int[np.ndarray, " n"],
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> HeldOutPredictions:
    """Predict each fifth of the sources by a classifier made, calibration and thresholds included, from the others.

    Parameters
    ----------
    x, feature_weights, classes, sources, seed
        As of `train_classifier`.
    progress : callable, optional
        Called with the number of folds done.

    Examples
    --------
    >>> classes = np.repeat([0, 1], 60)
    >>> x = np.random.default_rng(0).standard_normal((120, 2)) + 3.0 * classes[:, None]
    >>> held = cross_validate(x, np.ones(2), classes, np.arange(120))
    >>> bool(np.mean(held.p.argmax(axis=1) == classes) > 0.9)
    True
    """
    fold = assign_folds(sources, classes, seed + 1000)
    k = classes.max() + 1
    held = HeldOutPredictions(np.empty((len(x), k)), np.empty((len(x), k), bool))
    for done in range(N_FOLDS):
        held_out = fold == done
        classifier = train_classifier(x[~held_out], feature_weights, classes[~held_out], sources[~held_out], seed)
        held.p[held_out] = classifier.probabilities(x[held_out])
        held.sets[held_out] = prediction_set(held.p[held_out], classifier.thresholds)
        if progress:
            progress(done + 1)
    return held


def score_predictions(
    held: HeldOutPredictions,
    classes: Int[np.ndarray, " n"],
    sources: Int[np.ndarray, " n"],
    one: int,
    others: list[int],
) -> dict[str, tuple[float, float, float]]:
    """Score held-out sources: value and 68 % interval, sources resampled.

    Parameters
    ----------
    held : HeldOutPredictions
    classes, sources : arrays of int [n]
    one : int
    others : list of int
        Numbers of the classes that are compared as a pair.

    Returns
    -------
    dict
        ``balanced accuracy``; ``one against others``: the same for class ``one`` against all of ``others``, each of
        them as common among them as in the sample; ``calibration error``: expected, of the most probable class in ten
        bins of equal number [1]_, after the probabilities are multiplied
        by the sample's own mix of classes; ``its floor``: that of labels drawn from the probabilities themselves, which
        is far from zero because the chance differences of the bins all count as positive;
        ``calibration error, debiased``: root mean square over the bins less what chance gives [2]_,
        zero where chance gives as much; ``coverage``, ``coverage, mean of classes`` and
        ``mean size`` of the prediction sets.

    References
    ----------
    .. [1] Naeini, Cooper & Hauskrecht 2015, AAAI 29, 2901.
    .. [2] Kumar, Liang & Ma 2019, arXiv:1909.10155.

    Examples
    --------
    >>> classes = np.repeat([0, 1], 50)
    >>> p = np.where(classes[:, None] == [0, 1], 0.9, 0.1)
    >>> scores = score_predictions(HeldOutPredictions(p, p > 0.2), classes, np.arange(100), 0, [1])
    >>> scores["balanced accuracy"], scores["mean size"]
    ((1.0, 1.0, 1.0), (1.0, 1.0, 1.0))
    """
    k = held.p.shape[1]
    counts = np.bincount(classes, weights=source_weights(sources), minlength=k)
    right = held.p.argmax(1) == classes
    mixed = held.p * counts / np.sum(held.p * counts, axis=1, keepdims=True)
    pair = np.where(classes == one, 0, np.where(np.isin(classes, others), 1, -1))
    right_pair = (pairwise_probability(held.p, counts, one, others) > 0.5) == (pair == 1)
    inside = held.sets[np.arange(len(classes)), classes]
    drawn = (mixed.cumsum(1) < np.random.default_rng(0).random((len(mixed), 1))).sum(1)
    statistics: dict[str, Callable[[np.ndarray], float]] = {
        "balanced accuracy": lambda w: balanced_accuracy(right, classes, w),
        "one against others": lambda w: balanced_accuracy(right_pair, pair, w),
        "calibration error": lambda w: _calibration_error(mixed, classes, w),
        "its floor": lambda w: _calibration_error(mixed, drawn, w),
        "calibration error, debiased": lambda w: _debiased_calibration_error(mixed, classes, w),
        "coverage": lambda w: float(np.average(inside, weights=w)),
        "coverage, mean of classes": lambda w: balanced_accuracy(inside, classes, w),
        "mean size": lambda w: float(np.average(held.sets.sum(1), weights=w)),
    }
    weights = source_weights(sources)
    return {
        name: (score(weights), *bootstrap_interval(score, sources, n_draws=200)) for name, score in statistics.items()
    }


def _fit_kernel_classifier(
    x: np.ndarray, feature_weights: np.ndarray, classes: np.ndarray, sources: np.ndarray, seed: int
) -> KernelClassifier:
    """Classifier with the same weight of all classes, neither calibrated nor with thresholds."""
    with requires_extra("science", "sklearn"):
        from sklearn.kernel_approximation import Nystroem
        from sklearn.linear_model import LogisticRegression
    known = np.isfinite(x)
    n_known = np.maximum(known.sum(axis=0), 1)
    mean = np.sum(x, axis=0, where=known) / n_known
    scale = np.sqrt(np.sum((x - mean) ** 2, axis=0, where=known) / n_known)
    scale = np.where(scale > _ROUNDING * np.abs(mean), scale, 1.0) / feature_weights
    u = np.where(np.isnan(x), 0.0, (x - mean) / scale)
    gamma = _GAMMA_TIMES_VARIANCE / max(float(np.sum(u.var(axis=0))), _GAMMA_TIMES_VARIANCE / _MAX_GAMMA)
    kernel: Any = Nystroem(gamma=gamma, n_components=min(_LANDMARKS, len(u)), random_state=seed)
    regression: Any = LogisticRegression(C=_C, max_iter=500)
    regression.fit(kernel.fit_transform(u), classes, sample_weight=_class_balanced_weights(classes, sources) * len(u))
    slopes, bias = regression.coef_, regression.intercept_
    if len(slopes) == 1:  # of two classes it gives the second's odds alone
        slopes, bias = np.concatenate([-slopes, slopes]) / 2.0, np.concatenate([-bias, bias]) / 2.0
    weights = kernel.normalization_.T @ slopes.T
    members = np.bincount(classes, weights=source_weights(sources))
    return KernelClassifier(mean, scale, kernel.components_, gamma, weights, bias, np.zeros(len(bias)), members)


def _calibrate(logits: np.ndarray, classes: np.ndarray, weights: np.ndarray) -> tuple[float, Float[np.ndarray, " k"]]:
    """Temperature and shift of each class by which the logits, times the sample's mix, are most likely."""
    log_mix = np.log(np.bincount(classes, weights=weights))

    def loss(parameters: np.ndarray) -> float:
        log_p = log_softmax(logits / np.exp(parameters[0]) + parameters[1:] + log_mix, axis=1)
        return float(-np.sum(weights * log_p[np.arange(len(classes)), classes]) + 0.5 * np.sum(parameters**2))

    best = minimize(loss, np.zeros(logits.shape[1] + 1)).x
    return float(np.exp(best[0])), best[1:]


def _class_balanced_weights(classes: np.ndarray, sources: np.ndarray) -> np.ndarray:
    """Weights of the rows, sum one, by which every class weighs the same and so does every source of it."""
    weights = source_weights(sources)
    return weights / np.bincount(classes, weights=weights)[classes] / len(np.unique(classes))


def _conformal_threshold(p: np.ndarray, sources: np.ndarray) -> float:
    """The 0.1 (n + 1)-th least p of n sources, the least of each source's rows."""
    unique, place = np.unique(sources, return_inverse=True)
    least = np.full(len(unique), np.inf)
    np.minimum.at(least, place, p)
    return float(np.quantile(least, MISCOVERAGE, method="weibull"))


def _calibration_error(p: np.ndarray, classes: np.ndarray, weights: np.ndarray) -> float:
    total, difference, _ = _bin_by_confidence(p, classes, weights)
    return float(np.average(np.abs(difference), weights=total))


def _debiased_calibration_error(p: np.ndarray, classes: np.ndarray, weights: np.ndarray) -> float:
    total, difference, chance = _bin_by_confidence(p, classes, weights)
    return float(np.sqrt(max(np.average(difference**2 - chance, weights=total), 0.0)))


def _bin_by_confidence(
    p: np.ndarray, classes: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weight of each bin; share that is right less mean probability of the most probable class; variance of the share.

    With Kish's number of rows for the variance, resampled rows have twice that of the sample: what they scatter in all.
    """
    confidence, right = p.max(1), p.argmax(1) == classes
    place = np.argsort(np.argsort(confidence)) * _BINS // len(confidence)

    def summed(values: np.ndarray) -> np.ndarray:
        return np.bincount(place, weights=values, minlength=_BINS)

    total = np.maximum(summed(weights), np.finfo(float).tiny)
    share = summed(weights * right) / total
    n_rows = np.maximum(total**2 / np.maximum(summed(weights**2), np.finfo(float).tiny), 2.0)
    return total, share - summed(weights * confidence) / total, share * (1.0 - share) / (n_rows - 1.0)
