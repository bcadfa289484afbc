"""HATS catalogues: LSDB reads what was written and cross-matches it right; nothing half done is left."""

import io
import signal
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord, search_around_sky
from astropy.io import votable
from astropy.units import Unit

from xlatent.core.errors import ReadError, WriteError, XlatentError, XlatentWarning
from xlatent.core.latents import LatentTable
from xlatent.formats import catalogue_tables, hats, latent_tables, partitions

pytest.importorskip("hats_import")
# What LSDB and nested-pandas do that the pandas of the day deprecates, and a socket that distributed leaves.
pytestmark = [
    pytest.mark.cluster,
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:The 'mode.chained_assignment' option:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The inplace keyword in NestedFrame:DeprecationWarning"),
]


@pytest.fixture(scope="module")
def lsdb():
    return pytest.importorskip("lsdb")


@pytest.fixture(scope="module")
def sources(shared_data):
    """Labelled sources of the CSC all over the sky, and two on the border of HEALPix's base pixels."""
    sources = catalogue_tables.read_columns(shared_data / "catalogues" / "csc2_labelled_sources.csv")[
        "name", "ra", "dec"
    ]
    sources.add_row(["east of the border", 1e-5, 60.0])
    sources.add_row(["west of the border", 360 - 1e-5, -60.0])
    return sources


@pytest.fixture(scope="module")
def detections(sources):
    """One or two of each source, up to 2 arcsec from it; the first and the second have no position."""
    rng = np.random.default_rng(3)
    of_source = np.r_[np.arange(len(sources)), np.arange(0, len(sources), 3)]
    n = len(of_source)
    place = SkyCoord(sources["ra"], sources["dec"], unit="deg")[of_source]
    place = place.directional_offset_by(rng.uniform(0, 360, n) * u.deg, rng.uniform(0, 2, n) * u.arcsec)
    ra, dec = place.ra.deg.copy(), place.dec.deg.copy()
    # Across the border from their sources.
    ra[of_source == len(sources) - 2], ra[of_source == len(sources) - 1] = 360 - 1e-5, 1e-5
    ra[0], dec[1] = np.nan, np.nan
    root = rng.normal(size=(n, 8, 8))
    columns = {
        "name": [f"{sources['name'][i]}, detection {k}" for k, i in enumerate(of_source)],
        "obsid": [None if k % 3 == 0 else 1000 + k for k in range(n)],
        "ra": ra,
        "dec": dec,
        "flux_b": 10 ** rng.normal(-13, 1, n),
        "flags": ["few_counts" if k % 5 == 0 else "" for k in range(n)],
        "rank": u.Quantity(np.arange(n), "m"),
    }
    meta = {"model": "chandra-acis-8", "model_sha256": "0123456789abcdef" * 4, "software": "xlatent 0.1.0"}
    return LatentTable.from_posterior(rng.normal(size=(n, 8)), root @ root.transpose(0, 2, 1), columns, meta)


@pytest.fixture(scope="module")
def catalogue(detections, tmp_path_factory):
    """The detections as HATS, from three parts."""
    folder = tmp_path_factory.mktemp("hats")
    files = [
        latent_tables.write(detections[start : start + 1000], folder / f"{start}.parquet")
        for start in range(0, len(detections), 1000)
    ]
    with pytest.warns(XlatentWarning, match=f"csc leaves out 2 of {len(detections)} spectra: they have no position"):
        return hats.write(files, folder / "csc")


def test_lsdb_reads_what_was_written(catalogue, detections, lsdb):
    found = lsdb.open_catalog(catalogue)
    assert found.name == "csc"
    assert [name for name in found.columns if name in detections.colnames] == detections.colnames
    rows = found.compute().sort_values("rank")
    assert rows["rank"].tolist() == list(range(2, len(detections)))
    for name in detections.colnames:
        ours = detections[name][2:]
        missing = np.ma.getmaskarray(ours)
        assert rows[name].isna().to_numpy()[missing].all(), name
        if ours.dtype.kind == "U":
            assert rows[name].tolist() == ours.tolist(), name
        else:
            theirs = rows[name].to_numpy(dtype=float, na_value=np.nan)
            np.testing.assert_array_equal(theirs[~missing], np.asarray(ours, dtype=float)[~missing], err_msg=name)


@pytest.mark.filterwarnings("ignore:The unit 'erg' has been deprecated")
def test_columns_are_described(catalogue, detections, lsdb):
    schema = lsdb.open_catalog(catalogue).original_schema
    header = schema.metadata[b"IVOA.VOTable-Parquet.content"]
    in_votable = {field.name: field for field in votable.parse(io.BytesIO(header)).get_first_table().fields}
    for file in [*catalogue.glob("csc/dataset/Norder=*/Dir=*/Npix=*.parquet")]:
        assert pq.read_schema(file).field("flux_b").metadata == schema.field("flux_b").metadata
    for name in detections.colnames:
        ours, theirs = detections[name], schema.field(name).metadata or {}
        assert Unit(theirs.get(b"unit", b"").decode()) == (ours.unit or Unit()), name
        assert theirs.get(b"description", b"").decode() == (ours.description or ""), name
        assert theirs.get(b"ucd", b"").decode() == ours.meta.get("ucd", ""), name
        assert (in_votable[name].unit, in_votable[name].ucd) == (ours.unit, ours.meta.get("ucd")), name
    for key, value in detections.meta.items():
        assert schema.metadata[f"xlatent.{key}".encode()].decode() == value


@pytest.mark.parametrize("ours_on_the_right", [False, True])
def test_cross_match(catalogue, detections, sources, lsdb, ours_on_the_right):
    """All pairs within an arcsecond, those across the border of two pixels too."""
    theirs = lsdb.from_dataframe(sources.to_pandas(), catalog_name="labelled", margin_threshold=30)
    left, right = lsdb.open_catalog(catalogue), theirs
    if ours_on_the_right:
        left, right = right, left
    pairs = left.crossmatch(
        right, radius_arcsec=1.0, n_neighbors=20, suffixes=("_left", "_right"), suffix_method="all_columns"
    ).compute()
    sides = ("name_right", "name_left") if ours_on_the_right else ("name_left", "name_right")
    found = set(zip(pairs[sides[0]], pairs[sides[1]], strict=True))
    placed = detections[2:]
    i, j, _, _ = search_around_sky(
        SkyCoord(placed["ra"], placed["dec"], unit="deg"),
        SkyCoord(sources["ra"], sources["dec"], unit="deg"),
        1 * u.arcsec,
    )
    assert found == set(zip(np.asarray(placed["name"])[i], np.asarray(sources["name"])[j], strict=True))
    assert len(pairs) == len(found) > 1000
    assert {"east of the border", "west of the border"} <= {source for _, source in found}


def test_embedding_in_parts(detections, lsdb, tmp_path):
    """Parts that are missing are not passed over; what failed in one is no matter of the catalogue's."""
    info = partitions.EmbeddingInfo(
        software="xlatent 0.1.0",
        model="chandra-acis-8",
        model_sha256="0" * 64,
        refine=True,
        posterior="gaussian",
        parts=tuple(
            partitions.PartInfo(file=f"{k}.parquet", input="store", rows=10, sha256=f"{k}" * 64) for k in range(3)
        ),
    )
    place = partitions.PartitionedTable(tmp_path / "parts")
    place.create_or_resume(info)
    place.write("0.parquet", latent_tables.to_arrow(detections[:0]), [["a", "a.pha", "broken"]] * 10)
    place.write("2.parquet", latent_tables.to_arrow(detections[10:20]))
    with pytest.raises(ReadError, match="unfinished: 1 of its 3 parts are missing"):
        hats.write(tmp_path / "parts", tmp_path / "cat")
    place.write("1.parquet", latent_tables.to_arrow(detections[2:11]), [["b", "b.pha", "broken"]])
    found = lsdb.open_catalog(hats.write(tmp_path / "parts", tmp_path / "cat"))
    assert sorted(found.compute()["name"]) == sorted([*detections["name"][2:11], *detections["name"][10:20]])
    assert b"xlatent.failures" not in found.original_schema.metadata


def test_crowded_field(lsdb, tmp_path):
    """More rows at one place than a pixel should have, in several files; the others are not mixed with them."""
    rng = np.random.default_rng(1)
    for k in range(3):
        n_crowd = 45_000
        rows = {
            "ra": np.r_[np.full(n_crowd, 83.8), rng.uniform(0, 360, 5000)],
            "dec": np.r_[np.full(n_crowd, -5.4), rng.uniform(-90, 90, 5000)],
            "z0": np.arange(50_000.0) + k * 50_000,
        }
        pq.write_table(pa.table(rows), tmp_path / f"{k}.parquet")
    found = lsdb.open_catalog(hats.write(sorted(tmp_path.glob("*.parquet")), tmp_path / "orion"))
    assert found.npartitions > 12
    assert np.array_equal(np.sort(found["z0"].compute()), np.arange(150_000))


def test_from_another_format(detections, tmp_path):
    few = detections[2:5]
    plain = LatentTable({name: few[name] for name in few.colnames}, few.meta)
    folder = hats.write(latent_tables.write(plain, tmp_path / "few.vot"), tmp_path / "few")
    assert sorted(file.name for file in folder.iterdir()) == ["collection.properties", "few", "few_margin"]
    assert "hats_nrows=3" in (folder / "few" / "hats.properties").read_text()
    assert str(tmp_path) not in "".join(file.read_text() for file in folder.rglob("*properties"))
    assert sorted(tmp_path.iterdir()) == [tmp_path / "few", tmp_path / "few.vot"]


def test_refusals(detections, tmp_path, monkeypatch):
    nowhere = LatentTable({"name": ["a", "b"], "z0": [0.0, 1.0], "ra": [1.0, np.nan], "dec": [91.0, 0.0]})
    with pytest.raises(WriteError, match="none of the 2 spectra has a position"):
        hats.write(nowhere, tmp_path / "cat")
    pq.write_table(pa.table({"z0": [1.0]}), tmp_path / "other.parquet")
    with pytest.raises(ReadError, match="found no column ra"):
        hats.write(tmp_path / "other.parquet", tmp_path / "cat")
    with pytest.raises(ReadError, match="cannot be read"):
        hats.write(tmp_path / "missing.parquet", tmp_path / "cat")
    with pytest.raises(ReadError, match="there is none"):
        hats.write([], tmp_path / "cat")
    with pytest.raises(WriteError, match="there already"):
        hats.write(detections, tmp_path)
    with pytest.raises(WriteError, match="takes letters"):
        hats.write(detections, tmp_path / "my catalogue")
    with pytest.raises(WriteError, match="no folder"):
        hats.write(detections, tmp_path / "missing" / "cat")
    with pytest.raises(WriteError, match="is a URL"):
        hats.write(detections, "s3://bucket/cat")
    monkeypatch.setitem(sys.modules, "hats_import", None)
    with pytest.raises(XlatentError, match=r'hats_import is not installed.*pip install "xlatent\[hats\]"'):
        hats.write(detections, tmp_path / "cat")
    assert [file.name for file in tmp_path.iterdir()] == ["other.parquet"]


def test_damage_found_late_leaves_nothing(detections, tmp_path):
    """Positions can be read, another column cannot."""
    file = latent_tables.write(detections[2:], tmp_path / "t.parquet")
    column = detections.colnames.index("z0")
    start = pq.ParquetFile(file).metadata.row_group(0).column(column).data_page_offset
    content = bytearray(file.read_bytes())
    content[start : start + 200] = bytes(200)
    file.write_bytes(content)
    with pytest.raises(WriteError, match=r"cat could not be written .*damaged"):
        hats.write(file, tmp_path / "cat")
    assert list(tmp_path.iterdir()) == [file]


def test_interrupted_writing_leaves_nothing(detections, tmp_path):
    file = latent_tables.write(detections[2:], tmp_path / "t.parquet")
    code = f"from xlatent.formats import hats; hats.write({str(file)!r}, {str(tmp_path / 'cat')!r})"
    writer = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    while not list(tmp_path.glob(".cat-*/cat/cat")) and writer.poll() is None:
        time.sleep(0.01)
    writer.send_signal(signal.SIGINT)
    assert "KeyboardInterrupt" in writer.communicate(timeout=60)[1]
    assert list(tmp_path.iterdir()) == [file]


def test_the_command(shared_data, tmp_path, lsdb):
    source = shared_data / "spectra" / "manifest.csv"
    xlatent = str(Path(sysconfig.get_path("scripts")) / "xlatent")
    command = [xlatent, "embed", str(source), "--format", "hats", "--output", str(tmp_path / "mine")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert "Traceback" not in done.stderr and "position" in done.stderr
    assert len(lsdb.open_catalog(tmp_path / "mine").compute()) == 4
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 2 and "is there already" in again.stderr


def test_without_positions_the_latents_are_kept_and_found(tmp_path):
    from xlatent.formats.inputs import read_all
    from xlatent.workflows.embed import embed_files
    from xlatent.workflows.simulate import simulate

    simulate(2, 1, tmp_path / "sim")
    with pytest.raises(WriteError, match=r"has a position.*the latents are in .*mine\.parts, which is read as a table"):
        embed_files(tmp_path / "sim", tmp_path / "mine", layout="hats")
    assert len(latent_tables.read(tmp_path / "mine.parts")) == len(read_all(tmp_path / "sim")) == 2
    assert not (tmp_path / "mine").exists()
