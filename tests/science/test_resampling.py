"""Folds, weights and errors of sources."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xlatent.science.resampling import (
    N_FOLDS,
    assign_folds,
    bootstrap_interval,
    half_sample_error,
    source_weights,
    subsample,
)


@settings(max_examples=30)
@given(st.integers(1, 60), st.integers(0, 1000))
def test_folds_keep_sources_together_and_spread_classes(n_sources, seed):
    rng = np.random.default_rng(seed)
    sources = rng.integers(0, n_sources, 200) * 7
    classes = sources % 3
    fold = assign_folds(sources, classes, seed)
    for source in np.unique(sources):
        assert len(set(fold[sources == source])) == 1
    _, first = np.unique(sources, return_index=True)
    for kind in range(3):
        numbers = np.bincount(fold[first][classes[first] == kind], minlength=N_FOLDS)
        assert np.ptp(numbers) <= 1
    assert np.ptp(np.bincount(fold[first], minlength=N_FOLDS)) <= 1


def test_every_source_weighs_one_whatever_its_number():
    sources = np.array([1000, -3, 1000, 1000, 5])
    weights = source_weights(sources)
    for source in np.unique(sources):
        assert weights[sources == source].sum() == pytest.approx(1.0)


def test_errors_are_those_of_a_mean():
    values = np.random.default_rng(0).standard_normal(400)
    sources = np.repeat(np.arange(200), 2)
    values = values[sources]  # two rows a source, equal: 200 sources, not 400
    low, high = bootstrap_interval(lambda w: float(np.average(values, weights=w)), sources)
    assert (high - low) / 2 == pytest.approx(1 / np.sqrt(200), rel=0.2)
    assert half_sample_error(lambda rows: float(values[rows].mean()), sources) == pytest.approx(
        1 / np.sqrt(200), rel=0.35
    )


def test_a_subsample_is_in_order_and_of_the_rows():
    rows = np.arange(0, 300, 3)
    found = subsample(rows, 20, seed=1)
    assert len(found) == 20 and np.isin(found, rows).all() and (np.diff(found) > 0).all()
    assert subsample(rows, 100) is rows
