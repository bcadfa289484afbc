"""Neighbours of one table in another, from Python."""

import numpy as np
import pytest

from xlatent.core.errors import ModelError, ParameterError
from xlatent.workflows.neighbours import find_neighbours


@pytest.fixture
def path(latent_table, tmp_path):
    z = np.zeros((30, 8))
    z[:, 0] = 0.1 * np.arange(30)
    return latent_table(z, **{"class": ["AGN"] * 30}).write(tmp_path / "t.parquet")


def test_nearest_first_and_told_of_progress(path, tmp_path):
    done = []
    found = find_neighbours(path, path, k=2, index=tmp_path / "index", progress=lambda *numbers: done.append(numbers))
    assert done == [(i + 1, 30) for i in range(30)] and len(found) == 60
    assert {str(name) for name in found["name"][found["query"] == "source 5"]} == {"source 4", "source 6"}
    assert found["rank"].tolist() == [1, 2] * 30 and set(found["class"]) == {"AGN"}
    again = find_neighbours(path, path, k=2, index=tmp_path / "index")
    assert again["name"].tolist() == found["name"].tolist()


def test_labels_of_another_table_stand_for_the_tables_own(path, tmp_path):
    (tmp_path / "labels.csv").write_text("name,class\nsource 1,CV\n")
    found = find_neighbours(path, path, labels=tmp_path / "labels.csv", k=1)
    assert set(found["class"][found["name"] == "source 1"]) == {"CV"} and "AGN" not in found["class"]


def test_mistakes(path, latent_table, tmp_path):
    table = latent_table(np.zeros((1, 8)))
    table.meta["model_sha256"] = "a" * 64
    foreign = table.write(tmp_path / "foreign.parquet")
    table.meta["model_sha256"] = "b" * 64
    other = table.write(tmp_path / "other.parquet")
    with pytest.raises(ModelError, match="embed both with one model"):
        find_neighbours(foreign, other)
    with pytest.raises(ParameterError, match="give a longer table"):
        find_neighbours(foreign, foreign)
