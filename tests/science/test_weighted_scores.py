"""Weighted scores against scikit-learn's, and their error against repeated samples."""

import numpy as np
import pytest

from xlatent.science.weighted_scores import balanced_accuracy, r_squared, roc_area

metrics = pytest.importorskip("sklearn.metrics")


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_balanced_accuracy_is_that_of_scikit_learn(rng):
    classes, weights = rng.integers(0, 5, 300), rng.random(300)
    predicted = np.where(rng.random(300) < 0.5, classes, rng.integers(0, 5, 300))
    found = balanced_accuracy(predicted == classes, classes, weights)
    assert found == pytest.approx(metrics.balanced_accuracy_score(classes, predicted, sample_weight=weights))


def test_classes_without_weight_and_rows_of_no_class_do_not_count(rng):
    classes, weights = rng.integers(0, 3, 90), np.ones(90)
    correct = classes != 1
    assert balanced_accuracy(correct, classes, weights) == pytest.approx(2.0 / 3.0)
    assert balanced_accuracy(correct, classes, np.where(classes == 1, 0.0, weights)) == 1.0
    assert balanced_accuracy(correct, np.where(classes == 1, -1, classes), weights) == 1.0


def test_r_squared_is_that_of_scikit_learn(rng):
    values, weights = rng.standard_normal(200), rng.random(200)
    predicted = values + 0.5 * rng.standard_normal(200)
    assert r_squared(values, predicted, weights) == pytest.approx(
        metrics.r2_score(values, predicted, sample_weight=weights)
    )


def test_a_prediction_that_is_not_finite_counts_only_where_it_has_weight(rng):
    values = rng.standard_normal(20)
    predicted, weights = values.copy(), np.ones(20)
    predicted[3] = np.nan
    assert r_squared(values, predicted, weights) == -np.inf
    weights[3] = 0.0
    assert r_squared(values, predicted, weights) == 1.0


def test_the_area_is_that_of_scikit_learn_ties_included(rng):
    positive, negative = np.round(rng.normal(0.7, 1.0, 80), 1), np.round(rng.standard_normal(120), 1)
    truth = np.repeat([1, 0], [80, 120])
    expected = metrics.roc_auc_score(truth, np.append(positive, negative))
    assert roc_area(positive, negative)[0] == pytest.approx(expected, abs=1e-12)
    assert roc_area(positive, positive)[0] == 0.5


def test_the_error_of_the_area_is_that_of_repeated_samples(rng):
    found = np.array([roc_area(rng.normal(1.0, 1.0, 50), rng.standard_normal(60)) for _ in range(400)])
    assert np.mean(found[:, 1]) == pytest.approx(np.std(found[:, 0]), rel=0.15)
