"""The latent table: its columns, what it takes, and what it gives."""

import sys

import numpy as np
import pytest
from astropy import units
from astropy.io.votable.ucd import check_ucd
from astropy.table import Column, Table, vstack

from xlatent.core.errors import ModelError, ParameterError, XlatentError
from xlatent.core.latent_columns import COLUMNS
from xlatent.core.latents import LatentTable, check_same_model


@pytest.fixture
def posterior():
    rng = np.random.default_rng(3)
    root = rng.normal(size=(4, 8, 8))
    return rng.normal(size=(4, 8)), root @ root.transpose(0, 2, 1)


@pytest.fixture
def table(posterior):
    columns = {"name": ["a", "b", "c", "d"], "obsid": ["1522", None, " 0870950301 ", "x-7"], "counts": np.arange(4.0)}
    return LatentTable.from_posterior(*posterior, columns, {"model": "chandra-acis-8", "model_sha256": "ab" * 32})


def test_columns_in_order():
    names = [info.name for info in COLUMNS]
    assert names[:7] == ["name", "obsid", "obi", "region_id", "ra", "dec", "file"]
    assert names[7:15] == [f"z{i}" for i in range(8)]
    assert names[15:23] == [f"z{i}_err" for i in range(8)]
    assert names[23:25] == ["z0_z1_cov", "z0_z2_cov"]
    assert sum(name.endswith("_cov") for name in names) == 28
    assert names[-7:] == ["source", "object", "telescope", "instrument", "mjd", "model_id", "flags"]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("info", COLUMNS, ids=lambda info: info.name)
def test_units_and_ucds_are_those_of_the_standards(info):
    units.Unit(info.unit, format="fits")
    assert check_ucd(info.ucd, check_controlled_vocabulary=True, has_colon=True)
    assert info.description


def test_posterior_goes_in_and_comes_out(table, posterior):
    np.testing.assert_allclose(table.z, posterior[0])
    np.testing.assert_allclose(table.covariance, posterior[1], rtol=1e-12)
    np.testing.assert_allclose(table.z_err**2, np.einsum("nii->ni", posterior[1]))


def test_missing_values(table):
    assert table["obsid"].tolist() == [1522, None, 870950301, None]
    assert table["region_id"].mask.all()
    assert np.isnan(table["log_flux_b"]).all()
    assert table["flags"].tolist() == [""] * 4


def test_rows_are_selected(table):
    bright = table[table["counts"] > 1]
    assert len(bright) == 2
    assert bright["name"].tolist() == ["c", "d"]
    assert bright.meta == table.meta
    assert table[::2]["obsid"].tolist() == [1522, 870950301]


def test_repr_and_astropy(table):
    text = repr(table)
    assert text.startswith("LatentTable: 4 spectra, 8 latents, 116 columns; chandra-acis-8")
    assert "log_flux_b" in text
    assert repr(LatentTable({})).startswith("LatentTable: 0 spectra")
    copy = table.to_astropy()
    assert copy["flux_b"].unit == units.Unit("erg cm-2 s-1")
    assert copy["z3"].meta["ucd"] == "stat.fit.param"
    assert copy.meta["model"] == "chandra-acis-8"
    copy["z0"] = 0.0
    assert np.all(table["z0"] != 0.0)


def test_units_that_are_given_are_converted():
    given = Table({"z0": [0.0], "exposure": Column([2.0], unit="ks"), "class": ["AGN"]})
    table = LatentTable(given)
    assert table["exposure"][0] == 2000.0
    assert table["class"][0] == "AGN"
    assert table.colnames[-1] == "class"


@pytest.mark.parametrize(
    ("columns", "meta", "words"),
    [
        ({"z0": [1.0], "z1": [1.0, 2.0]}, {}, "equal lengths"),
        ({"z0": ["red"]}, {}, "column z0"),
        ({"z0": [[1.0, 2.0]]}, {}, "one value a row"),
        ({"exposure": Column([1.0], unit="cm")}, {}, "is in s, found cm"),
        ({"z0": [1.0]}, {"colour": "red"}, "unknown meta"),
    ],
)
def test_errors(columns, meta, words):
    with pytest.raises(ParameterError, match=words):
        LatentTable(columns, meta)


def test_unknown_column_is_named(table):
    with pytest.raises(KeyError, match="no column 'z9'"):
        table["z9"]
    with pytest.raises(TypeError, match="columns by name"):
        table[["z0", "z1"]]


def test_rows_one_by_one(table, posterior):
    rows = list(table)
    assert [row["name"] for row in rows] == ["a", "b", "c", "d"]
    assert rows[0]["obsid"] == 1522 and rows[1]["obsid"] is None and type(rows[0]["counts"]) is float
    np.testing.assert_array_equal(rows[2].z, posterior[0][2])
    np.testing.assert_allclose(rows[2].covariance, posterior[1][2], rtol=1e-12)
    np.testing.assert_allclose(rows[2].z_err ** 2, np.diag(posterior[1][2]))
    assert list(rows[0]) == table.colnames and len(rows[0]) == len(table.colnames)
    assert table[-1]["name"] == "d" and "d" in repr(table[-1])
    with pytest.raises(IndexError):
        table[4]
    with pytest.raises(TypeError):
        rows[0]["z0"] = 1.0


def test_rows_by_name(table):
    assert table.loc["c"]["counts"] == 2.0
    two = table.loc[["d", "a"]]
    assert two["name"].tolist() == ["d", "a"] and two["obsid"].tolist() == [None, 1522]
    with pytest.raises(KeyError, match="no row is named 'z0'"):
        table.loc["z0"]
    with pytest.raises(KeyError, match=r"2 rows are named .*take them by table"):
        LatentTable.concat([table, table]).loc["a"]


def test_masks_lists_and_missing_values(table):
    assert table[table["obsid"] == 1522]["name"].tolist() == ["a"]  # rows without obsid are masked in the mask
    assert table[[]].z.shape == (0, 8)
    assert table[[3, 0]]["name"].tolist() == table[np.array([3, 0])]["name"].tolist() == ["d", "a"]
    columns = {"name": ["a", "b"], "class": Column(["AGN", "YSO"], description="kind")}
    some = LatentTable(columns)[[False, True]]
    assert some["class"].tolist() == ["YSO"] and some["class"].description == "kind"


def test_concat(table):
    more = LatentTable({"name": ["e"], "obsid": [7], "class": ["AGN"], "rank": [2]}, table.meta)
    both = LatentTable.concat([table, more])
    assert both.meta == table.meta and len(both) == 5
    assert both["obsid"].tolist() == [1522, None, 870950301, None, 7]
    assert both["class"].tolist() == [None] * 4 + ["AGN"] and both["rank"].tolist() == [None] * 4 + [2]
    np.testing.assert_array_equal(both.z, np.concatenate([table.z, more.z]))
    for other in (LatentTable({"name": ["e"]}, {"model_sha256": "cd" * 32}), LatentTable({"name": ["e"]})):
        with pytest.raises(ModelError, match="table 0 is of model abababababab, and table 1 of"):
            LatentTable.concat([table, other])
    with pytest.raises(ParameterError, match="no tables"):
        LatentTable.concat([])
    kilo = [LatentTable({"name": ["a"], "size": Column([1.0], unit=unit)}) for unit in ("kpc", "pc")]
    with pytest.raises(ParameterError, match="column size is in kpc and pc"):
        LatentTable.concat(kilo)


def test_tables_joined_elsewhere_tell_their_models_apart(table):
    """What TOPCAT makes of two tables keeps the origin of the first, and the column of both."""
    other = LatentTable({"name": ["e"]}, {"model_sha256": "cd" * 32})
    stacked = LatentTable(vstack([table.to_astropy(), other.to_astropy()], metadata_conflicts="silent"), table.meta)
    assert stacked["model_id"].tolist() == ["ab" * 6] * 4 + ["cd" * 6]
    with pytest.raises(ModelError, match=r"t.fits is of model abababababab, and t.fits of cdcdcdcdcdcd: do so"):
        check_same_model({"t.fits": stacked}, "do so")
    assert check_same_model({"t": table, "model": "ab" * 32}) == "ab" * 32
    assert check_same_model({"t": LatentTable({}), "model": "ab" * 32}, unknown_passes=True) == "ab" * 32
    with pytest.raises(ModelError, match="t is of model unknown, and model of abababababab"):
        check_same_model({"t": {}, "model": "ab" * 32})


def test_columns_are_added_to_a_copy_or_take_the_place_of_its_own(table):
    more = table.with_columns({"kind": ["AGN"] * 4, "z0": [9.0] * 4})
    assert more["kind"].tolist() == ["AGN"] * 4 and more.z[:, 0].tolist() == [9.0] * 4 and more.meta == table.meta
    assert "kind" not in table.colnames and 9.0 not in table.z[:, 0]
    with pytest.raises(ParameterError, match="equal lengths"):
        table.with_columns({"kind": ["AGN"]})


def test_pandas_and_notebooks(table):
    frame = table.to_pandas()
    assert frame["name"].tolist() == ["a", "b", "c", "d"] and frame["obsid"].isna().tolist() == [0, 1, 0, 1]
    np.testing.assert_array_equal(frame["z0"], table["z0"])
    assert frame.attrs == table.meta
    page = LatentTable({"name": ["<b>"]}, {"model": "a & b"})._repr_html_()
    assert "a &amp; b" in page and "&lt;b&gt;" in page and "<table" in page and "<b>" not in page


def test_without_pandas_one_sentence(table, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(XlatentError, match="pandas is not installed, and to_pandas needs it: pip install pandas"):
        table.to_pandas()
