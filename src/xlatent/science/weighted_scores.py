"""Scores of rows that have weights, quick enough to be computed for hundreds of resamples."""

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.stats import mannwhitneyu


def balanced_accuracy(
    correct: Bool[np.ndarray, " n"], classes: Int[np.ndarray, " n"], weights: Float[np.ndarray, " n"]
) -> float:
    """Average over the classes the weighted share of rows that are correct.

    Scikit-learn's ``balanced_accuracy_score`` gives the same, in a hundred times the time, and warns of each class that
    a resample lacks.

    Parameters
    ----------
    correct : array of bool [n]
    classes : array of int [n]
        Rows of class -1 do not count.
    weights : array [n]
        A class whose weights are all zero does not count.

    Examples
    --------
    >>> balanced_accuracy(np.array([True, False, True, True]), np.array([0, 0, 1, -1]), np.ones(4))
    0.75
    """
    known = classes >= 0
    total = np.bincount(classes[known], weights=weights[known])
    right = np.bincount(classes[known], weights=(weights * correct)[known])
    return float(np.mean(right[total > 0] / total[total > 0]))


def r_squared(
    values: Float[np.ndarray, " n"], predicted: Float[np.ndarray, " n"], weights: Float[np.ndarray, " n"]
) -> float:
    """Compute the share of the weighted variance that is predicted, minus infinity where a prediction is not finite.

    Examples
    --------
    >>> values = np.array([1.0, 2.0, 3.0])
    >>> r_squared(values, values, np.ones(3)), r_squared(values, np.full(3, 2.0), np.ones(3))
    (1.0, 0.0)
    """
    if not np.isfinite(predicted[weights > 0]).all():
        return -np.inf
    mean = np.average(values, weights=weights)
    residual = np.average((values - np.where(weights > 0, predicted, 0.0)) ** 2, weights=weights)
    return float(1.0 - residual / np.average((values - mean) ** 2, weights=weights))


def roc_area(positive: Float[np.ndarray, " n"], negative: Float[np.ndarray, " m"]) -> tuple[float, float]:
    """Compute the area under the ROC curve, and its standard error.

    Parameters
    ----------
    positive, negative : arrays [n], [m]
        Values of the rows that should have the larger and the smaller ones.

    References
    ----------
    Hanley & McNeil 1982, Radiology 143, 29, equation 1.

    Examples
    --------
    >>> area, error = roc_area(np.array([1.0, 2.0, 3.0]), np.array([0.0, 1.5]))
    >>> round(area, 3), round(error, 3)
    (0.833, 0.201)
    """
    n, m = len(positive), len(negative)
    # By SciPy, for this is needed where scikit-learn is not installed.
    area = float(mannwhitneyu(positive, negative, method="asymptotic").statistic / (n * m))
    q1, q2 = area / (2.0 - area), 2.0 * area**2 / (1.0 + area)
    variance = (area * (1 - area) + (n - 1) * (q1 - area**2) + (m - 1) * (q2 - area**2)) / (n * m)
    return area, float(np.sqrt(max(variance, 0.0)))
