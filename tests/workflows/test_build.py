"""Building a store from Python: what is returned, what progress says, and that a second call adds nothing."""

from importlib.resources import files

import pytest

import xlatent as xl
from xlatent.formats.store import open_store


@pytest.fixture(scope="module")
def sample():
    return files("xlatent") / "sample"


def test_the_sample_becomes_a_store(sample, tmp_path):
    told = []
    result = xl.build_store(sample, tmp_path / "store", progress=lambda *done: told.append(done))
    assert (result.path, result.n_added, result.n_known, result.n_total) == (tmp_path / "store", 6, 0, 6)
    assert result.failures == () and told == [(0, 6), (6, 6)]
    assert [s.name for s in open_store(result.path)] == [f"sim17_{i:03d}" for i in range(6)]
    again = xl.build_store([sample], tmp_path / "store", progress=lambda *done: told.append(done))
    assert (again.n_added, again.n_known, again.n_total) == (0, 6, 6) and told[2:] == [(0, 0)]


def test_what_is_left_out_is_returned_and_listed(sample, tmp_path):
    bad = tmp_path / "bad.pha"
    bad.write_text("channel counts\n")
    result = xl.build_store([sample / "sim17_000.pha.gz", bad], str(tmp_path / "store"))
    assert result.n_added == 1
    [failure] = result.failures
    assert (failure.name, failure.file) == ("bad", str(bad)) and "bad.pha" in failure.reason
    assert failure.reason in (tmp_path / "store" / "left_out.csv").read_text()


def test_without_inputs_nothing_is_written(tmp_path):
    with pytest.raises(xl.InputError, match="does not exist"):
        xl.build_store(tmp_path / "gone.pha", tmp_path / "store")
    (tmp_path / "table.csv").write_text("a,b\n1,2\n")
    with pytest.raises(xl.InputError, match="obsid, obi and region_id"):
        xl.build_store(files("xlatent") / "sample", tmp_path / "store", catalogue=tmp_path / "table.csv")
    assert not (tmp_path / "store").exists()
    (tmp_path / "store" / "left_out.csv").mkdir(parents=True)
    with pytest.raises(xl.WriteError):
        xl.build_store(files("xlatent") / "sample", tmp_path / "store")


def test_a_catalogue_that_does_not_know_a_spectrum_is_told_of(sample, tmp_path):
    (tmp_path / "table.csv").write_text("name,kt\nsim17_001,0.5\n")
    with pytest.warns(xl.XlatentWarning, match="5 spectra have no row of their own in .*table.csv"):
        xl.build_store(sample, tmp_path / "store", catalogue=tmp_path / "table.csv")
    assert open_store(tmp_path / "store").columns(["kt"]).column("kt").to_pylist() == [None, 0.5, *[None] * 4]
