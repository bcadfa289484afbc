"""The latent table: its columns, what it takes, and what it gives."""

import numpy as np
import pytest
from astropy import units
from astropy.io.votable.ucd import check_ucd
from astropy.table import Column, Table

from xlatent.core.errors import ParameterError
from xlatent.core.latents import COLUMNS, LatentTable


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
    assert names[-1] == "flags"
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
    assert text.startswith("LatentTable: 4 spectra, 8 latents, 106 columns; chandra-acis-8")
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
        table[0]
