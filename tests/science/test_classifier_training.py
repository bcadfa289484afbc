"""Training of a classifier, on sources whose classes are known by construction."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xlatent.core.errors import ParameterError
from xlatent.science import classifier_training
from xlatent.science.classifier_training import (
    HeldOutPredictions,
    cross_validate,
    pairwise_probability,
    prediction_set,
    score_predictions,
    train_classifier,
)

MIX = (600, 300, 60)


@pytest.fixture(scope="module", autouse=True)
def few_landmarks():
    """As many as three Gaussians need."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classifier_training, "_LANDMARKS", 30)
        yield


def blobs(seed=0, apart=1.5):
    """Three Gaussians on a line, and what Bayes says of each point if all are equally common."""
    rng = np.random.default_rng(seed)
    classes = np.repeat(np.arange(3), MIX)
    x = rng.standard_normal((len(classes), 2))
    x[:, 0] += apart * classes
    likelihood = np.exp(-0.5 * (x[:, :1] - apart * np.arange(3)) ** 2)
    return x, classes, likelihood / likelihood.sum(1, keepdims=True)


@pytest.fixture(scope="module")
def held():
    x, classes, bayes = blobs()
    return x, classes, bayes, cross_validate(x, np.ones(x.shape[1]), classes, np.arange(len(x)))


def test_probabilities_are_those_of_bayes(held):
    _, _, bayes, found = held
    assert np.abs(found.p - bayes).mean() < 0.05
    assert np.mean(found.p.argmax(1) == bayes.argmax(1)) > 0.9


def test_scores_of_bayes_rule_itself_are_perfect_but_for_noise(held):
    x, classes, bayes, found = held
    said = score_predictions(HeldOutPredictions(bayes, found.sets), classes, np.arange(len(x)), 0, [1, 2])
    assert said["calibration error"][0] < 0.04
    assert said["balanced accuracy"][1] < said["balanced accuracy"][0] < said["balanced accuracy"][2]
    spoilt = score_predictions(
        HeldOutPredictions(bayes**4 / np.sum(bayes**4, 1, keepdims=True), found.sets),
        classes,
        np.arange(len(x)),
        0,
        [1],
    )
    assert spoilt["calibration error"][0] > 0.08


def test_the_debiased_error_is_that_of_many_sources(held):
    """Of probabilities sharpened a little few sources are off by more than many, unless chance is taken out."""
    name, few, many = "calibration error, debiased", [], None
    for seed, repeats in [*((seed, 1) for seed in range(20)), (99, 40)]:
        several = [blobs(seed + i) for i in range(repeats)]
        x, classes, bayes = (np.concatenate(part) for part in zip(*several, strict=True))
        p = bayes**1.1 / np.sum(bayes**1.1, 1, keepdims=True)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(classifier_training, "bootstrap_interval", lambda *_, **__: (0.0, 0.0))
            said = score_predictions(HeldOutPredictions(p, p > 0.1), classes, np.arange(len(x)), 0, [1])
        if repeats == 1:
            few.append((said["calibration error"][0], said[name][0] ** 2))
        else:
            many = said["calibration error"][0], said[name][0] ** 2
    plain, square = np.mean(few, axis=0)
    assert plain > many[0] + 0.005
    assert abs(square - many[1]) < 3.0 * np.std([s for _, s in few]) / np.sqrt(len(few))


def test_limits_hold_the_debiased_error(held):
    """Resampling adds its own chance, which is taken out as well."""
    x, classes, bayes, found = held
    p = bayes**3 / np.sum(bayes**3, 1, keepdims=True)
    value, low, high = score_predictions(HeldOutPredictions(p, found.sets), classes, np.arange(len(x)), 0, [1])[
        "calibration error, debiased"
    ]
    assert low < value < high and value > 0.05


def test_one_against_others_weighs_the_others_by_their_number():
    p = np.array([[0.2, 0.4, 0.1, 0.3], [0.0, 0.0, 0.5, 0.5]])
    found = pairwise_probability(p, np.array([9.0, 3.0, 1.0, 7.0]), 0, [1, 2])
    np.testing.assert_allclose(found, [0.325 / 0.525, 1.0])
    assert not pairwise_probability(p, np.zeros(4), 0, [1]).any()


def test_sets_cover_every_class_however_rare(held):
    _, classes, _, found = held
    inside = found.sets[np.arange(len(classes)), classes]
    for k, n in enumerate(MIX):
        assert abs(inside[classes == k].mean() - 0.9) < 3.5 * np.sqrt(0.09 / n)
    assert found.sets.any(1).all() and found.sets.sum(1).mean() < 2.0


def test_labels_by_chance_have_large_sets_and_no_accuracy():
    x, classes, _ = blobs()
    classes = np.random.default_rng(1).permutation(classes)
    said = score_predictions(
        cross_validate(x, np.ones(x.shape[1]), classes, np.arange(len(x))), classes, np.arange(len(x)), 0, [1, 2]
    )
    assert abs(said["balanced accuracy"][0] - 1 / 3) < 0.08 and said["one against others"][0] < 0.58
    assert said["mean size"][0] > 2.4


def test_rows_of_a_source_are_never_on_both_sides(monkeypatch):
    """Every source four times with a label by chance: a split by rows would find it again."""
    monkeypatch.setattr(classifier_training, "_LANDMARKS", 100)
    monkeypatch.setattr(classifier_training, "_MAX_GAMMA", 10.0)
    monkeypatch.setattr(classifier_training, "_GAMMA_TIMES_VARIANCE", 10.0)  # bumps so narrow that they remember
    rng = np.random.default_rng(2)
    x, sources = np.repeat(3.0 * rng.standard_normal((40, 4)), 4, axis=0), np.repeat(np.arange(40), 4)
    classes = np.repeat(rng.permutation(40) % 2, 4)

    def accuracy(groups):
        held = cross_validate(x, np.ones(4), classes, groups)
        return score_predictions(held, classes, groups, 0, [1])["balanced accuracy"][0]

    assert accuracy(sources) < 0.7 < 0.85 < accuracy(np.arange(160))


def test_missing_and_constant_features_are_harmless():
    x, classes, _ = blobs()
    x = np.column_stack([x, np.full(len(x), 3.0), np.full(len(x), np.nan)])
    x[::3, 1] = np.nan
    machine = train_classifier(x, np.ones(4), classes, np.arange(len(x)))
    p = machine.probabilities(x)
    assert np.isfinite(p).all() and np.mean(p.argmax(1) == classes) > 0.6
    unknown = machine.probabilities(np.full((1, 4), np.nan))
    assert np.isclose(unknown.sum(), 1.0)


def test_a_class_of_two_is_refused():
    with pytest.raises(ParameterError, match="class number 1 has 2 sources and needs 10"):
        train_classifier(np.zeros((30, 2)), np.ones(2), np.r_[np.zeros(28, int), 1, 1], np.arange(30))


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1))
def test_a_set_never_lacks_the_most_probable_class(seed):
    p = np.random.default_rng(seed).dirichlet(np.ones(4), 6)
    sets = prediction_set(p, np.full(4, 0.9))
    assert sets[np.arange(6), p.argmax(1)].all()
    assert np.all(prediction_set(p, np.full(4, 0.1)) >= sets)
