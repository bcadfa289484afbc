"""What version 0.1.0 wrote, in `older`, is read as it was meant: a store, parts of an embedding, tables."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from xlatent.core.latent_columns import COLUMNS
from xlatent.core.latents import LatentTable, check_same_model
from xlatent.formats import latent_tables
from xlatent.formats.partitions import PartitionedTable
from xlatent.formats.store import open_store, write

OLDER = Path(__file__).parent / "older"
ADDED = ["source", "object", "telescope", "instrument", "mjd", "model_id"]


def assert_as_written(table, names):
    """The table has the numbers that were put in, z0 = 0, 1, ... in steps of 1/8 along a row, and no others."""
    z = np.arange(8 * len(names)).reshape(-1, 8) / 8.0
    assert table["name"].tolist() == names
    np.testing.assert_array_equal(table.z, z)
    np.testing.assert_allclose(table.covariance, np.tile(np.eye(8) * 0.25 + 0.0625, (len(names), 1, 1)), rtol=1e-15)
    assert table["class"].tolist() == ["AGN", "YSO"][: len(names)] and table.source_names.tolist() == ["x"] * len(names)
    assert table.meta == {"model": "m", "model_sha256": "ab" * 32, "software": "xlatent 0.1.0"}
    assert table["model_id"].tolist() == ["ab" * 6] * len(names)
    assert table["telescope"].tolist() == [""] * len(names) and np.isnan(table["mjd"]).all()


@pytest.mark.parametrize("suffix", [".fits", ".vot", ".ecsv"])
def test_a_table_of_before(suffix, tmp_path):
    table = latent_tables.read(OLDER / f"latents{suffix}")
    assert_as_written(table, ["a", "b"])
    assert table["obsid"].tolist() == [459, None] and table["flux_b"][0] == 1e-13 and np.isnan(table["flux_b"][1])
    assert table["class"].name in table.colnames[len(COLUMNS) :]
    assert_as_written(LatentTable.read(table.write(tmp_path / f"again{suffix}")), ["a", "b"])


def test_parts_of_before_and_parts_of_now_are_one_table(tmp_path):
    parts = PartitionedTable(shutil.copytree(OLDER / "parts", tmp_path / "parts"))
    parts.create_or_resume(parts.info())
    there = {"a.parquet": (2, []), "b.parquet": (1, [["d", "store", "odd"]])}
    assert parts.completed(there) == there
    table = latent_tables.read(parts.path)
    assert_as_written(table[:2], ["a", "b"])
    assert_as_written(table[[0]], ["a"])
    new = LatentTable({"name": ["c"], "z0": [2.0], "telescope": ["CHANDRA"]}, table.meta)
    parts.write("b.parquet", latent_tables.to_arrow(new))
    both = latent_tables.read(parts.path)
    assert both["telescope"].tolist() == ["", "", "CHANDRA"] and both["z0"].tolist() == [0.0, 1.0, 2.0]
    assert check_same_model({"parts": both}) == "ab" * 32


def test_a_store_of_before(tmp_path):
    store = open_store(OLDER / "store")
    assert [spectrum.name for spectrum in store] == ["s0", "s1", "s2"]
    assert store.columns(["split", "source"]).to_pydict() == {
        "split": ["train", "train", "test"],
        "source": ["x0", "x1", "x2"],
    }
    for i, spectrum in enumerate(store):
        np.testing.assert_array_equal(spectrum.counts, np.arange(16) % (i + 3))
        np.testing.assert_array_equal(spectrum.background.counts, np.arange(16) % 2)
        assert spectrum.exposure == 1e4 + i and spectrum.background.backscale == 9.0
        assert spectrum.meta == {"name": f"s{i}", "obi": i, "colour": "red", "source": f"x{i}"}
        np.testing.assert_array_equal(spectrum.response.area, np.linspace(100.0, 200.0, 16))
        expected = np.eye(16) * 0.75 + np.eye(16, k=1) * 0.25
        np.testing.assert_array_equal(spectrum.response.redistribution.toarray(), expected)
    copy = shutil.copytree(OLDER / "store", tmp_path / "store")
    added = write(list(store)[:1], copy, {"split": ["test"], "source": ["x9"]})
    assert [spectrum.meta["source"] for spectrum in added] == ["x0", "x1", "x2", "x9"]
    assert len(list((copy / "matrices").iterdir())) == 1  # the key of a matrix is what it was
