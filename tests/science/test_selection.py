"""Rows and columns that are fit for use, and the source of each row."""

import numpy as np
import pytest
from astropy.table import MaskedColumn

from xlatent.core.errors import ParameterError, XlatentWarning
from xlatent.science.selection import (
    class_labels,
    has_enough_sources,
    log_if_wide,
    numeric_column,
    source_ids,
    valid_rows,
    warn_of_decoded,
)


def test_rows_without_latents_or_without_data_are_not_valid(latent_table):
    z = np.zeros((5, 8))
    z[1, 3] = np.nan
    error = np.full((5, 8), 0.1)
    error[2, 0] = np.inf
    flags = ["", "", "", "low_counts,no_data", "no_database"]
    assert valid_rows(latent_table(z, error, flags=flags)).tolist() == [True, False, False, False, True]


def test_sources_are_told_by_source_then_by_name_and_rows_of_neither_are_alone(latent_table):
    names = ["a", "b", "a ", "", ""]
    by_name = source_ids(latent_table(np.zeros((5, 8)), name=names))
    assert by_name[0] == by_name[2] and len(set(by_name)) == 4
    by_source = source_ids(latent_table(np.zeros((5, 8)), name=names, source=["s", "s", "t", "", "t"]))
    assert by_source[0] == by_source[1] and by_source[2] == by_source[4] and len(set(by_source)) == 3


def test_a_column_of_numbers_has_nan_where_nothing_is_known(latent_table):
    values = MaskedColumn([1.0, 2.0, np.inf, np.nan], mask=[False, True, False, False])
    table = latent_table(np.zeros((4, 8)), value=values, word=["x"] * 4, pair=np.zeros((4, 2)))
    np.testing.assert_array_equal(numeric_column(table, "value"), [1.0, np.nan, np.nan, np.nan])
    for name, message in (("absent", "no column absent"), ("word", "holds 'x'|holds np.str_"), ("pair", "shape")):
        with pytest.raises(ParameterError, match=message):
            numeric_column(table, name)


def test_too_few_sources_or_one_value_are_told():
    sources, values = np.array([0, 0, 1, 2]), np.array([1.0, 2.0, 3.0, 3.0])
    assert has_enough_sources("x", values, sources, 3)
    with pytest.warns(XlatentWarning, match="values for 3 sources with latents and needs 4"):
        assert not has_enough_sources("x", values, sources, 4)
    with pytest.warns(XlatentWarning, match="is 1.0 everywhere"):
        assert not has_enough_sources("x", np.ones(4), sources, 3)


@pytest.mark.parametrize(
    ("values", "logarithms"),
    [(np.geomspace(1.0, 1e3, 200), True), (np.geomspace(1.0, 50.0, 200), False), (np.linspace(-1.0, 1e3, 200), False)],
)
def test_logarithms_of_what_is_positive_and_wide(values, logarithms):
    name, found = log_if_wide("x", values)
    assert name == ("log10 x" if logarithms else "x")
    np.testing.assert_array_equal(found, np.log10(values) if logarithms else values)


def test_classes_that_are_missing_are_empty(latent_table):
    assert class_labels(latent_table(np.zeros((2, 8)))).tolist() == ["", ""]
    kinds = MaskedColumn([" AGN", "CV", "YSO"], mask=[False, True, False])
    assert class_labels(latent_table(np.zeros((3, 8)), **{"class": kinds})).tolist() == ["AGN", "", "YSO"]


def test_what_the_latents_decode_to_is_told_unless_it_was_measured():
    with pytest.warns(XlatentWarning, match="flux_b, hard_hs: computed from the same latents"):
        warn_of_decoded(["flux_b", "hard_hm", "hard_hs", "kt"], measured=["hard_hm"])
    warn_of_decoded(["hard_hm", "kt"], measured=["hard_hm"])
