"""Latent tables on disk: every format gives back what it was given."""

import numpy as np
import pytest
from astropy.io import fits, votable
from astropy.table import MaskedColumn, Table

from xlatent.core.errors import ReadError, WriteError
from xlatent.core.latent_columns import COLUMNS
from xlatent.core.latents import LatentTable
from xlatent.formats import catalogue_tables, latent_tables

SUFFIXES = [".parquet", ".fits", ".vot", ".ecsv"]


@pytest.fixture
def table():
    rng = np.random.default_rng(5)
    root = rng.normal(size=(3, 8, 8))
    columns = {
        "name": ["3C 273", "", 'Größe, µ "x"'],
        "obsid": [459, None, 2**40],
        "ra": [187.27792, np.nan, 359.9],
        "flux_b": [1.1e-11, 3e-14, np.nan],
        "flags": ["", "few_counts,no_background", "few_counts"],
        "class": ["AGN", "", "YSO"],
        "rank": [3, 1, 2],
    }
    meta = {"model": "chandra-acis-8", "model_sha256": "0123456789abcdef" * 4, "software": "xlatent 0.1.0"}
    return LatentTable.from_posterior(rng.normal(size=(3, 8)), root @ root.transpose(0, 2, 1), columns, meta)


def test_round_trip(table, tmp_path):
    # FITS knows ASCII only; the other formats keep every letter.
    plain = LatentTable({**{name: table[name] for name in table.colnames}, "name": ["3C 273", "", "x, y"]}, table.meta)
    for suffix in SUFFIXES:
        original = plain if suffix == ".fits" else table
        found = latent_tables.read(latent_tables.write(original, tmp_path / f"t{suffix}"))
        assert found.colnames == original.colnames
        assert found.meta == original.meta
        for name in original.colnames:
            ours, theirs = original[name], found[name]
            assert np.array_equal(np.ma.getmaskarray(ours), np.ma.getmaskarray(theirs)), (suffix, name)
            if ours.dtype.kind == "f":
                np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs), err_msg=f"{suffix} {name}")
            else:
                assert ours.tolist() == theirs.tolist(), (suffix, name)
            assert (ours.unit, ours.description) == (theirs.unit, theirs.description), (suffix, name)
            assert ours.meta == theirs.meta, (suffix, name)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_empty_table(suffix, tmp_path):
    found = latent_tables.read(latent_tables.write(LatentTable({}), tmp_path / f"empty{suffix}"))
    assert len(found) == 0
    assert found.z.shape == (0, 8)


def test_what_the_standards_ask_for(table, tmp_path):
    """UCDs, units and descriptions stand where other programs look for them, for every column of the schema."""
    ascii_only = LatentTable({"name": ["a"], "z0": [1.0]}, table.meta)
    with fits.open(latent_tables.write(ascii_only, tmp_path / "t.fits")) as hdus:
        header = hdus["LATENTS"].header
    tree = votable.parse(str(latent_tables.write(table, tmp_path / "t.vot")))
    fields = tree.get_first_table().fields
    for number, (info, field) in enumerate(zip(COLUMNS, fields, strict=False), start=1):
        assert (header[f"TTYPE{number}"], header[f"TUCD{number}"]) == (info.name, info.ucd)
        assert header[f"TCOMM{number}"] == info.description
        assert (field.name, field.ucd) == (info.name, info.ucd)
        assert " ".join(field.description.split()) == info.description
        assert bool(field.unit) == bool(info.unit) == (f"TUNIT{number}" in header)
    assert header["XLSHA256"] == table.meta["model_sha256"]
    assert b"<BINARY2>" in (tmp_path / "t.vot").read_bytes()


def test_parquet_carries_units_for_everybody(table, tmp_path):
    import pyarrow.parquet as pq

    schema = pq.read_schema(latent_tables.write(table, tmp_path / "t.parquet"))
    assert schema.field("flux_b").metadata[b"unit"] == b"erg cm-2 s-1"
    assert schema.field("flux_b").metadata[b"ucd"] == b"phot.flux;em.X-ray"
    assert schema.metadata[b"xlatent.model"] == b"chandra-acis-8"


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_whole_or_not_at_all(table, tmp_path, suffix):
    target = tmp_path / f"t{suffix}"
    target.write_text("what stood here before")
    (broken := table["z0"].copy()).unit = None
    unwritable = LatentTable({"z0": broken, "extra": np.array([object()] * 3)})
    with pytest.raises(Exception):  # noqa: B017 (each library has its own; the file is what matters here)
        latent_tables.write(unwritable, target)
    assert target.read_text() == "what stood here before"
    assert list(tmp_path.iterdir()) == [target]
    latent_tables.write(LatentTable({"z0": [0.0]}), target)
    assert len(latent_tables.read(target)) == 1
    assert list(tmp_path.iterdir()) == [target]


def test_write_errors(table, tmp_path):
    with pytest.raises(WriteError, match=r"suffix '.csv'; use one of .parquet, .fits, .vot, .ecsv"):
        latent_tables.write(table, tmp_path / "t.csv")
    with pytest.raises(WriteError, match="No such file or directory"):
        latent_tables.write(table, tmp_path / "nowhere" / "t.fits")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_read_errors(suffix, tmp_path):
    path = tmp_path / f"t{suffix}"
    with pytest.raises(ReadError, match="no such file"):
        latent_tables.read(path)
    path.write_bytes(b"neither one thing nor the other\n")
    with pytest.raises(ReadError, match=r"is not a readable|expected a table of latents"):
        latent_tables.read(path)


def test_other_tables_are_refused(tmp_path):
    (tmp_path / "t.txt").write_text("z0\n1\n")
    with pytest.raises(ReadError, match=r"suffix '\.txt'"):
        latent_tables.read(tmp_path / "t.txt")
    Table({"ra": [1.0], "dec": [2.0]}).write(tmp_path / "sky.ecsv")
    with pytest.raises(ReadError, match="columns z0 to z7, found ra, dec"):
        latent_tables.read(tmp_path / "sky.ecsv")


CATALOGUE = Table(
    {
        "name": ["2CXO J1", "a, 'b' \"c\""],
        "obsid": MaskedColumn([1, 0], mask=[False, True]),
        "flux": MaskedColumn([np.inf, 0.1 + 0.2], unit="erg / (s cm2)", mask=[False, False]),
        "gamma": MaskedColumn([1.7, 0.0], mask=[False, True]),
        "flag": [True, False],
    }
)
FORMATS = {".ecsv": "ascii.ecsv", ".csv": "ascii.csv", ".fits": "fits", ".vot": "votable", ".XML": "votable"}


@pytest.mark.parametrize("suffix", FORMATS)
def test_any_table_can_be_read(suffix, tmp_path):
    with latent_tables.erg_allowed():
        CATALOGUE.write(tmp_path / f"t{suffix}", format=FORMATS[suffix])
    found = catalogue_tables.read_columns(tmp_path / f"t{suffix}", ("name", "obsid"))
    assert found.colnames == CATALOGUE.colnames
    for name in CATALOGUE.colnames:
        assert str(found[name].tolist()).replace("'True', 'False'", "True, False") == str(CATALOGUE[name].tolist()), (
            name
        )
    assert suffix == ".csv" or found["flux"].unit == CATALOGUE["flux"].unit


@pytest.mark.parametrize("text", ["one line", "two\nlines", "two\n\n  paragraphs\n"])
@pytest.mark.parametrize("delimiter", [" ", ","])
def test_ecsv_is_read_the_same_fast_or_slow(text, delimiter, tmp_path):
    path = tmp_path / "t.ecsv"
    table = CATALOGUE.copy()
    table.meta["query"] = table["flux"].description = text
    table.write(path, format="ascii.ecsv", delimiter=delimiter)
    slow, found = Table.read(path, format="ascii.ecsv"), catalogue_tables.read_columns(path)
    assert found.meta == slow.meta and found["flux"].description == slow["flux"].description
    for name in table.colnames:
        assert (found[name].dtype, str(found[name].tolist())) == (slow[name].dtype, str(slow[name].tolist()))


def test_tables_that_cannot_be_used_are_one_sentence(tmp_path):
    path = tmp_path / "t.csv"
    for text, said in {
        "name,dec\n1\n1,2,3\n": "is not a readable .csv table",
        "ra\n1\n": "should have a column name and a column dec, and its columns are ra; add or rename it",
        "name,dec\n": "the table has no rows",
    }.items():
        path.write_text(text)
        with pytest.raises(ReadError, match=said) as caught:
            catalogue_tables.read_columns(path, ("name", "dec"))
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    (tmp_path / "list.txt").write_text("a\n")
    for name, said in {
        "none.csv": "no such file",
        "list.txt": r"'\.txt'; use one of \.ecsv, \.csv, .*\.parquet",
    }.items():
        with pytest.raises(ReadError, match=said):
            catalogue_tables.read_columns(tmp_path / name)


def test_a_stream_is_the_table(table, tmp_path, monkeypatch):
    import pyarrow.parquet as pq

    monkeypatch.setattr(latent_tables, "_GROUP", 2)
    parts = [latent_tables.to_arrow(table[i : i + 1]) for i in (0, 1, 2)]
    empty = latent_tables.to_arrow(table[:0])
    assert latent_tables.write_stream(iter([empty, *parts, empty]), tmp_path / "stream.parquet") == 3
    whole = pq.read_table(latent_tables.write(table, tmp_path / "whole.parquet"))
    stream = pq.read_table(tmp_path / "stream.parquet")
    assert stream.schema.equals(whole.schema, check_metadata=True)
    for name in whole.column_names:
        assert str(stream.column(name).to_pylist()) == str(whole.column(name).to_pylist()), name
    assert pq.read_metadata(tmp_path / "stream.parquet").num_row_groups == 2
    back = latent_tables.from_arrow(stream)
    assert back.meta == table.meta and back.colnames == table.colnames


def test_a_stream_without_rows_or_with_an_end_writes_nothing(table, tmp_path):
    target = tmp_path / "t.parquet"
    target.write_text("older")
    assert latent_tables.write_stream(iter([latent_tables.to_arrow(table[:0])]), target) == 0

    def broken():
        yield latent_tables.to_arrow(table)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        latent_tables.write_stream(broken(), target)
    assert target.read_text() == "older" and [p.name for p in tmp_path.iterdir()] == ["t.parquet"]
