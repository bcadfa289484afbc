"""Tables of others are joined to latents by the source, however its name is spaced, or else by the spectrum."""

import numpy as np
import pytest

from xlatent.core.errors import ReadError
from xlatent.core.latents import LatentTable
from xlatent.formats.catalogue_tables import SourceTable, read_joined


@pytest.fixture
def latents(tmp_path):
    columns = {
        "name": ["obs1", "obs2", "obs3", "obs4"],
        "source": ["3C 273", "3C273", "", "M 33"],
        "rank": [1, 2, 3, 4],
    }
    return LatentTable(columns, {"model": "m"}).write(tmp_path / "latents.parquet")


def labels(tmp_path, text):
    path = tmp_path / "labels.csv"
    path.write_text(text)
    return path


def test_by_source_or_by_spectrum(latents, tmp_path):
    other = labels(tmp_path, "name,class,hr,rank\n3C273,AGN,0.5,10\nobs3,YSO,,20\nobs1,CV,0.1,30\n")
    joined = read_joined(latents, other, ["class", "hr"])
    assert joined["class"].tolist() == ["AGN", "AGN", "YSO", None]  # its source comes before its name
    np.testing.assert_array_equal(np.ma.filled(joined["hr"], -1.0), [0.5, 0.5, -1.0, -1.0])
    assert joined["rank"].tolist() == [1, 2, 3, 4] and joined.meta == {"model": "m"}
    assert read_joined(latents, other, ["rank"])["rank"].tolist() == [10, 10, 20, None]
    assert read_joined(latents, None, ["rank"])["rank"].tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("text", "wanted", "said"),
    [
        ("name,class\n3C 273,AGN\n3C273,AGN\n", "class", "several rows for 3C273; give a table with one row"),
        ("name,class\nM 31,AGN\n", "class", "none of its names is in .*for example 'M31'.*has '3C273'"),
        ("name,class\n3C 273,AGN\n", "colour", "has no column colour, and .*labels.csv has name, class"),
        ("id,class\n3C 273,AGN\n", "class", "should have a column name, and its columns are id, class"),
    ],
)
def test_what_cannot_be_joined_is_one_sentence(latents, tmp_path, text, wanted, said):
    with pytest.raises(ReadError, match=said) as error:
        read_joined(latents, labels(tmp_path, text), [wanted])
    assert "\n" not in str(error.value)
    with pytest.raises(ReadError, match="has no column colour, give a table that has it with --join"):
        read_joined(latents, None, ["colour"])


def test_columns_keep_what_is_missing(tmp_path):
    table = SourceTable(labels(tmp_path, "name,n\na,1\nb,\n"))
    rows = table.rows_of(LatentTable({"name": ["b", "x", "a"]}))
    assert rows.tolist() == [1, -1, 0] and table.take("n", rows).tolist() == [None, None, 1]
