"""Training of a classifier from labelled sources, with its calibration, its prediction sets and honest scores."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from xlatent.core.errors import ParameterError
from xlatent.science.resampling import N_FOLDS, bootstrap, folds, sklearn_needed, source_weights

MISS = 0.1
"""Share of the sources of each class that may lie outside their prediction set."""
MIN_MEMBERS = 10
"""Sources of a class below which neither folds nor a set of 90 % can be made of it."""
# Chosen once, by log loss inside the training parts of the folds of labelled CSC sources. If all classes weigh the same
# it is least at C of 1 to 3 and wide bumps, in the sample's own mix at C of 3 to 10 and narrow ones: these lie between.
_C, _LANDMARKS = 5.0, 200
_GAMMA, _OF_ALL = 0.1, 0.75  # at most; over the variance of all features together
_BINS = 10
_SAME = 1e-9  # of the mean: what a constant feature scatters by rounding


@dataclass(frozen=True, eq=False)
class Machine:
    """Softmax of a linear function of Gaussian bumps, p = softmax(exp(-γ|u - l|²) W + b) with u = (x - mean) / scale.

    Attributes
    ----------
    mean, scale : arrays [d]
        Of the features; a missing one counts as the mean.
    landmarks : array [m, d]
        Centres l of the bumps: sources of the training set.
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
        """Logarithms of the probabilities, up to a constant a row."""
        u = np.where(np.isnan(x), 0.0, (x - self.mean) / self.scale)
        apart = np.sum(u**2, 1)[:, None] - 2.0 * u @ self.landmarks.T + np.sum(self.landmarks**2, 1)
        return np.exp(-self.gamma * apart) @ self.weights + self.bias

    def probabilities(self, x: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n k"]:
        """Probability of each class if all were equally common."""
        return softmax(self.logits(x), axis=1)


def fit(
    x: Float[np.ndarray, "n d"],
    stress: Float[np.ndarray, " d"],
    classes: Int[np.ndarray, " n"],
    sources: Int[np.ndarray, " n"],
    seed: int = 0,
) -> Machine:
    """Train, calibrate and set the thresholds of a classifier; every class weighs the same.

    Logistic regression on a Nyström approximation of the Gaussian kernel (Williams & Seeger 2001, NIPS 13, 682). Each
    fifth of the sources gets its probabilities from the others. On these a temperature and a shift of each class are
    fitted (Guo et al. 2017, arXiv:1706.04599), with the sample's own mix of classes as the prior, which is then taken
    out; and the threshold of a class is their conformal quantile among its members, between two of them if need be:
    sets that miss 10 % of each class, however common it is (Sadinle, Lei & Wasserman 2019, JASA 114, 223; with folds in
    place of one split, Vovk 2015, Annals of Mathematics and Artificial Intelligence 74, 9).

    Parameters
    ----------
    x : array [n, d]
        NaN where a feature is missing.
    stress : array [d]
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
    """
    sources = _renumbered(sources)
    members = [len(np.unique(sources[classes == k])) for k in range(classes.max() + 1)]
    if min(members) < MIN_MEMBERS:
        raise ParameterError(
            f"class number {int(np.argmin(members))} has {min(members)} sources and needs {MIN_MEMBERS}; leave it out"
        )
    fold = folds(sources, classes, seed)
    held_out = np.empty((len(x), len(members)))
    for k in range(N_FOLDS):
        out = fold == k
        held_out[out] = _train(x[~out], stress, classes[~out], sources[~out], seed).logits(x[out])
    temperature, shift = _calibrated(held_out, classes, source_weights(sources))
    p = softmax(held_out / temperature + shift, axis=1)
    thresholds = np.array([_threshold(p[classes == k, k], sources[classes == k]) for k in range(len(members))])
    whole = _train(x, stress, classes, sources, seed)
    return replace(
        whole, weights=whole.weights / temperature, bias=whole.bias / temperature + shift, thresholds=thresholds
    )


def against(
    p: Float[np.ndarray, "n k"], members: Float[np.ndarray, " k"], one: int, others: list[int]
) -> Float[np.ndarray, " n"]:
    """Probability of any of the others rather than of one class, if either side is equally likely and nothing else is.

    Parameters
    ----------
    p : array [n, k]
        Probabilities if all classes were equally common.
    members : array [k]
        How common the others are among themselves.
    """
    tiny = np.finfo(float).tiny
    rest = p[:, others] @ members[others] / max(np.sum(members[others]), tiny)
    return rest / np.maximum(rest + p[:, one], tiny)


def prediction_set(p: Float[np.ndarray, "n k"], thresholds: Float[np.ndarray, " k"]) -> Bool[np.ndarray, "n k"]:
    """Classes that cannot be ruled out; the most probable one never is."""
    return (p >= thresholds) | (p == p.max(axis=1, keepdims=True))


@dataclass(frozen=True, eq=False)
class Held:
    """What a classifier says of sources that it was not trained on: p [n, k] and prediction sets [n, k]."""

    p: Float[np.ndarray, "n k"]
    sets: Bool[np.ndarray, "n k"]


def cross_validate(
    x: Float[np.ndarray, "n d"],
    stress: Float[np.ndarray, " d"],
    classes: Int[np.ndarray, " n"],
    sources: Int[np.ndarray, " n"],
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> Held:
    """Judge each fifth of the sources by a classifier made, calibration and thresholds included, from the others."""
    fold = folds(sources, classes, seed + 1000)
    k = classes.max() + 1
    held = Held(np.empty((len(x), k)), np.empty((len(x), k), bool))
    for done in range(N_FOLDS):
        out = fold == done
        machine = fit(x[~out], stress, classes[~out], sources[~out], seed)
        held.p[out] = machine.probabilities(x[out])
        held.sets[out] = prediction_set(held.p[out], machine.thresholds)
        if progress:
            progress(done + 1)
    return held


def scores(
    held: Held,
    classes: Int[np.ndarray, " n"],
    sources: Int[np.ndarray, " n"],
    one: int,
    others: list[int],
) -> dict[str, tuple[float, float, float]]:
    """Scores of held-out sources: value and 68 % interval, sources resampled.

    Returns
    -------
    dict
        ``balanced accuracy``; ``one against others``: the same for class ``one`` against all of ``others``, each of
        them as common among them as in the sample; ``calibration error``: expected, of the most probable class in ten
        bins of equal number (Naeini, Cooper & Hauskrecht 2015, AAAI 29, 2901), after the probabilities are multiplied
        by the sample's own mix of classes; ``its floor``: that of labels drawn from the probabilities themselves, which
        is far from zero because the chance differences of the bins all count as positive;
        ``calibration error, debiased``: root mean square over the bins less what chance gives (Kumar, Liang & Ma 2019,
        arXiv:1909.10155), zero where chance gives as much; ``coverage``, ``coverage, mean of classes`` and
        ``mean size`` of the prediction sets.
    """
    k, sources = held.p.shape[1], _renumbered(sources)
    counts = np.bincount(classes, weights=source_weights(sources), minlength=k)
    right = held.p.argmax(1) == classes
    mixed = held.p * counts / np.sum(held.p * counts, axis=1, keepdims=True)
    pair = np.where(classes == one, 0, np.where(np.isin(classes, others), 1, -1))
    right_pair = (against(held.p, counts, one, others) > 0.5) == (pair == 1)
    inside = held.sets[np.arange(len(classes)), classes]
    drawn = (mixed.cumsum(1) < np.random.default_rng(0).random((len(mixed), 1))).sum(1)
    measured: dict[str, Callable[[np.ndarray], float]] = {
        "balanced accuracy": lambda w: _mean_of_classes(right, classes, w),
        "one against others": lambda w: _mean_of_classes(right_pair, pair, w),
        "calibration error": lambda w: _calibration_error(mixed, classes, w),
        "its floor": lambda w: _calibration_error(mixed, drawn, w),
        "calibration error, debiased": lambda w: _debiased(mixed, classes, w),
        "coverage": lambda w: float(np.average(inside, weights=w)),
        "coverage, mean of classes": lambda w: _mean_of_classes(inside, classes, w),
        "mean size": lambda w: float(np.average(held.sets.sum(1), weights=w)),
    }
    every = source_weights(sources)
    return {name: (how(every), *bootstrap(how, sources, n_draws=200)) for name, how in measured.items()}


def _train(x: np.ndarray, stress: np.ndarray, classes: np.ndarray, sources: np.ndarray, seed: int) -> Machine:
    with sklearn_needed():
        from sklearn.kernel_approximation import Nystroem
        from sklearn.linear_model import LogisticRegression
    known = np.isfinite(x)
    n_known = np.maximum(known.sum(axis=0), 1)
    mean = np.sum(x, axis=0, where=known) / n_known
    scale = np.sqrt(np.sum((x - mean) ** 2, axis=0, where=known) / n_known)
    scale = np.where(scale > _SAME * np.abs(mean), scale, 1.0) / stress
    u = np.where(np.isnan(x), 0.0, (x - mean) / scale)
    gamma = _OF_ALL / max(float(np.sum(u.var(axis=0))), _OF_ALL / _GAMMA)
    kernel: Any = Nystroem(gamma=gamma, n_components=min(_LANDMARKS, len(u)), random_state=seed)
    regression: Any = LogisticRegression(C=_C, max_iter=500)
    regression.fit(kernel.fit_transform(u), classes, sample_weight=_balanced(classes, sources) * len(u))
    slopes, bias = regression.coef_, regression.intercept_
    if len(slopes) == 1:  # of two classes it gives the second's odds alone
        slopes, bias = np.concatenate([-slopes, slopes]) / 2.0, np.concatenate([-bias, bias]) / 2.0
    weights = kernel.normalization_.T @ slopes.T
    members = np.bincount(classes, weights=source_weights(_renumbered(sources)))
    return Machine(mean, scale, kernel.components_, gamma, weights, bias, np.zeros(len(bias)), members)


def _calibrated(logits: np.ndarray, classes: np.ndarray, weights: np.ndarray) -> tuple[float, Float[np.ndarray, " k"]]:
    """Temperature and shift of each class by which the logits, times the sample's mix, are most likely."""
    log_mix = np.log(np.bincount(classes, weights=weights))

    def loss(parameters: np.ndarray) -> float:
        log_p = log_softmax(logits / np.exp(parameters[0]) + parameters[1:] + log_mix, axis=1)
        return float(-np.sum(weights * log_p[np.arange(len(classes)), classes]) + 0.5 * np.sum(parameters**2))

    best = minimize(loss, np.zeros(logits.shape[1] + 1)).x
    return float(np.exp(best[0])), best[1:]


def _balanced(classes: np.ndarray, sources: np.ndarray) -> np.ndarray:
    """Weights of the rows, sum one, by which every class weighs the same and so does every source of it."""
    weights = source_weights(_renumbered(sources))
    return weights / np.bincount(classes, weights=weights)[classes] / len(np.unique(classes))


def _renumbered(sources: np.ndarray) -> np.ndarray:
    return np.unique(sources, return_inverse=True)[1]


def _threshold(p: np.ndarray, sources: np.ndarray) -> float:
    """The 0.1 (n + 1)-th least p of n sources, the least of each source's rows."""
    least = np.full(sources.max() + 1, np.inf)
    np.minimum.at(least, sources, p)
    return float(np.quantile(least[np.isfinite(least)], MISS, method="weibull"))


def _mean_of_classes(right: np.ndarray, classes: np.ndarray, weights: np.ndarray) -> float:
    """Mean over the classes of the share that is right; rows of class -1 do not count."""
    known = classes >= 0
    total = np.bincount(classes[known], weights=weights[known])
    good = np.bincount(classes[known], weights=(weights * right)[known])
    return float(np.mean(good[total > 0] / total[total > 0]))


def _calibration_error(p: np.ndarray, classes: np.ndarray, weights: np.ndarray) -> float:
    total, apart, _ = _binned(p, classes, weights)
    return float(np.average(np.abs(apart), weights=total))


def _debiased(p: np.ndarray, classes: np.ndarray, weights: np.ndarray) -> float:
    total, apart, chance = _binned(p, classes, weights)
    return float(np.sqrt(max(np.average(apart**2 - chance, weights=total), 0.0)))


def _binned(p: np.ndarray, classes: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weight of each bin; share that is right less mean probability of the most probable class; variance of the share.

    With Kish's number of rows for the variance, resampled rows have twice that of the sample: what they scatter in all.
    """
    sure, right = p.max(1), p.argmax(1) == classes
    place = np.argsort(np.argsort(sure)) * _BINS // len(sure)

    def summed(values: np.ndarray) -> np.ndarray:
        return np.bincount(place, weights=values, minlength=_BINS)

    total = np.maximum(summed(weights), np.finfo(float).tiny)
    share = summed(weights * right) / total
    n_rows = np.maximum(total**2 / np.maximum(summed(weights**2), np.finfo(float).tiny), 2.0)
    return total, share - summed(weights * sure) / total, share * (1.0 - share) / (n_rows - 1.0)
