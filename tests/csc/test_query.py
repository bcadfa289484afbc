import os
import resource
import sys
import tempfile
import time
from contextlib import contextmanager
from copy import copy
from pathlib import Path

import numpy as np
import pytest
import typer
from astropy.table import Table
from astropy.units import Unit
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from xlatent.cli import csc
from xlatent.cli.main import _Plain
from xlatent.core.errors import ParameterError, ReadError, WriteError, XlatentWarning
from xlatent.csc import tap as client
from xlatent.csc.columns import COLUMNS, LEVELS
from xlatent.csc.query import Catalogue, Cone, Limits, _standardise, box, read_names, read_positions, source_name, write

from .services import dachs
from .services.tap import PLACES, SCHEMA, serve

LIMITS = Limits()
NEAR_ZERO = Cone(0.0, 0.0, 0.2)
AT_ZERO = {"2CXO J000000.9+000001", "2CXO J000024.0-000300", "2CXO J235936.0+000600"}
M31 = "2CXO J004248.5+411521"
NOBODY = "2CXO J111111.1+111111"


@pytest.fixture
def service():
    with serve() as running:
        yield running


@pytest.fixture
def catalogue(service):
    return Catalogue(service=service.url)


@pytest.fixture
def xlatent(monkeypatch, service):
    """Run ``xlatent csc`` in this process against the small service."""
    app = typer.Typer(cls=_Plain, add_completion=False, pretty_exceptions_enable=False)
    app.add_typer(csc.app, name="csc")
    monkeypatch.setenv("XLATENT_CSC_TAP", service.url)

    def run(*arguments):
        result = CliRunner().invoke(app, ["csc", *(str(a) for a in arguments)])
        assert "Traceback" not in result.output
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    return run


def one_sentence(text):
    """Whether a message is fit for a terminal: one line, not the innards of a library."""
    return "\n" not in text and "object at 0x" not in text and "HTTPConnection" not in text and len(text) < 500


# -- columns


def test_columns_are_each_named_once_and_stand_first_as_others_rely_on():
    names = [column.name for column in COLUMNS]
    assert len(set(names)) == len(names)
    assert names[:7] == ["name", "obsid", "obi", "region_id", "ra", "dec", "theta"]


def test_columns_are_those_of_the_catalogue_with_units_and_meanings():
    for column in COLUMNS:
        for level in column.levels:
            kinds = {str: "char", float: "double", int: "int", bool: "boolean"}
            assert SCHEMA[LEVELS[level]].get(column.name) in (kinds[column.dtype], "double"), (column.name, level)
        assert column.description
        Unit(column.unit)


# -- the box around a circle


@given(
    st.floats(0, 360),
    st.floats(-90, 90),
    st.floats(1e-4, 180),
    st.floats(0, 2 * np.pi),
    st.floats(0, 1),
)
def test_every_point_of_a_circle_is_in_its_box(ra, dec, radius, direction, share):
    # A point at a distance from the centre, by spherical trigonometry.
    d, a = np.radians(dec), np.radians(share * radius)
    sine = np.clip(np.sin(d) * np.cos(a) + np.cos(d) * np.sin(a) * np.cos(direction), -1, 1)
    point_dec = np.degrees(np.arcsin(sine))
    turn = np.arctan2(np.sin(direction) * np.sin(a) * np.cos(d), np.cos(a) - np.sin(d) * sine)
    point_ra = (ra + np.degrees(turn)) % 360
    (low, high), ranges = box(Cone(ra, dec, radius))
    assert low <= point_dec <= high
    assert any(west <= point_ra <= east for west, east in ranges)
    assert -90 <= low <= high <= 90
    assert all(0 <= west <= east <= 360 for west, east in ranges)


def test_box_is_no_larger_than_it_must_be():
    (low, high), [(west, east)] = box(Cone(180.0, 60.0, 1.0))
    assert high - low == pytest.approx(2.0, abs=1e-5)
    assert (east - west) * np.cos(np.radians(60)) == pytest.approx(2.0, rel=2e-3)


# -- selections


def test_cone_is_asked_for_as_a_box_and_cut_out(catalogue, service):
    found = catalogue.select(LIMITS, cone=Cone(0.0, 0.0, 0.105))
    # Two other sources lie in the corners of the box; the ambiguous detection is left out.
    assert set(found["name"]) == {"2CXO J000000.9+000001"}
    assert list(found["obsid"]) == [100, 101, 102]
    assert service.requests[0][:2] == ("POST", "/sync")
    assert all(word not in service.requests[0][2].upper() for word in ("CIRCLE", "CONTAINS", "JOIN"))


@pytest.mark.parametrize(
    ("cone", "names"),
    [
        (NEAR_ZERO, AT_ZERO),
        (Cone(359.95, 0.0, 0.2), AT_ZERO),
        (Cone(360.0, 0.0, 0.2), AT_ZERO),
        (Cone(200.0, 90.0, 0.2), {"2CXO J010000.0+895400", "2CXO J130000.0+895424"}),
        (Cone(195.0, 89.95, 0.06), {"2CXO J130000.0+895424"}),
        (Cone(195.0, 89.95, 0.16), {"2CXO J010000.0+895400", "2CXO J130000.0+895424"}),
        (Cone(0.0, -90.0, 0.6), {"2CXO J060000.0-893000"}),
    ],
)
def test_cones_across_ra_zero_and_at_the_poles(catalogue, cone, names):
    assert set(catalogue.select(LIMITS, cone=cone)["name"]) == names


def test_whole_sky_is_a_job_that_is_cleared_away(catalogue, service):
    service.job_seconds = 0.5
    found = catalogue.select(LIMITS)
    assert set(found["name"]) == set(PLACES) - {"2CXO J004244.3+411608"}
    assert 999 not in found["obsid"]  # could be of two sources
    assert 132 not in found["obsid"]  # HRC
    assert not service.jobs
    assert ("POST", "/async") in {(method, path) for method, path, _, _ in service.requests}
    assert all(agent.startswith("xlatent/") for *_, agent in service.requests)


def test_strings_are_stripped_units_kept_and_nulls_masked(catalogue):
    found = catalogue.select(LIMITS, cone=NEAR_ZERO)
    assert found.colnames == [column.name for column in COLUMNS]
    row = found[found["obsid"] == 101][0]
    assert row["instrument"] == "ACIS"
    assert row["streak_src_flag"]
    assert all(row[name] is np.ma.masked for name in ("powlaw_gamma", "flux_aper_b", "conf_code"))
    assert found["nh_gal"][found["obsid"] == 110].mask.all()
    assert not np.ma.getmaskarray(found["nh_gal"][found["obsid"] == 100]).any()
    assert found["theta"].unit == Unit("arcmin")
    assert found["flux_aper_b"].unit == Unit("erg s-1 cm-2")
    assert found["nh_gal"].unit == Unit("1e20 cm-2")  # the service's own words for it are no unit
    assert found["conf_code"].dtype.kind == "i"
    assert found["var_flag"].dtype.kind == "b"


def test_numbers_and_flags_that_come_as_text_are_understood():
    columns = [
        column for column in COLUMNS if column.name in ("obsid", "theta", "conf_code", "var_flag", "pileup_flag")
    ]
    answer = Table(
        {"obsid": [" 12 "], "theta": [" 1.5"], "conf_code": ["  "], "var_flag": ["TRUE "], "pileup_flag": [0]}
    )
    row = _standardise(answer, columns, "the service")[0]
    assert (row["obsid"], row["theta"], row["conf_code"]) == (12, 1.5, np.ma.masked)
    assert row["var_flag"] and not row["pileup_flag"]
    with pytest.raises(ReadError, match="theta did not come"):
        _standardise(answer["obsid",], columns[:2], "the service")


@pytest.mark.parametrize("cone", [Cone(361.0, 0.0, 1.0), Cone(0.0, 91.0, 1.0), Cone(0.0, 0.0, 0.0)])
def test_a_cone_that_is_none_is_told_before_anything_is_asked(catalogue, service, cone):
    with pytest.raises(ParameterError, match="radius above 0"):
        catalogue.select(LIMITS, cone=cone)
    assert not service.requests


def test_limits_are_obeyed(catalogue):
    assert set(
        catalogue.select(Limits(min_counts=15.0, min_significance=2.0), cone=Cone(10.7, 41.26, 0.1))["obsid"]
    ) == {
        130,
        131,
        140,
    }
    assert list(catalogue.select(Limits(max_theta=1.5), names=[M31])["obsid"]) == [130]
    assert len(catalogue.select(Limits(min_significance=9.0), names=[M31])) == 2
    with pytest.raises(ReadError, match="no detection of release"):
        catalogue.select(Limits(min_significance=9.1), names=[M31])


def test_selection_survives_the_disk(catalogue, tmp_path):
    found = catalogue.select(LIMITS, cone=NEAR_ZERO)
    again = Table.read(write(found, tmp_path / "selection.ecsv"))
    assert again.colnames == found.colnames
    assert again.meta["release"] == "2.1"
    assert again.meta["service"] == catalogue.service
    assert again.meta["query"].startswith("SELECT m.name, o.obsid")
    for name in found.colnames:
        mask = np.ma.getmaskarray(found[name])
        assert again[name].unit == found[name].unit
        assert again[name].description == found[name].description
        if found[name].dtype.kind != "U":  # ECSV does not tell an empty text from a missing one
            assert again[name].dtype == found[name].dtype
            assert np.array_equal(np.ma.getmaskarray(again[name]), mask)
        assert np.array_equal(np.asarray(again[name])[~mask], np.asarray(found[name])[~mask])


def test_recorded_query_gives_the_same_again(catalogue, service):
    found = catalogue.select(LIMITS)
    status, body = service.answer(found.meta["query"])
    assert status == 200
    assert body.count(b"<TR>") == len(found)


def test_names_from_a_list_and_from_a_table(catalogue, tmp_path):
    listed = tmp_path / "names.txt"
    listed.write_text("# M31\nj004248.5+411521\n\n2CXO J000024.0-000300  # another\n")
    table = tmp_path / "names.csv"
    table.write_text(f"class,name\nLMXB,{M31}\nAGN,2CXO J000024.0-000300\n")
    assert [source_name(n) for n in read_names(listed)] == [source_name(n) for n in read_names(table)]
    found = catalogue.select(LIMITS, names=read_names(listed))
    assert list(found["obsid"]) == [110, 130, 131]
    assert found.meta["sources"] == "2 names"


def test_many_names_are_asked_for_some_at_a_time_and_the_unknown_are_told(catalogue, service):
    unknown = [f"2CXO J{i:06d}.1+111111" for i in range(111111, 111181)]
    with pytest.warns(XlatentWarning, match=r"no source of 70 of the names: 2CXO J111111.1\+111111, .*left out"):
        found = catalogue.select(LIMITS, names=[*unknown, M31])
    assert set(found["name"]) == {M31}
    assert sum(path == "/sync" for _, path, _, _ in service.requests) == 4  # two of detections, two of names
    with pytest.raises(ReadError, match="no source of 1 of the names"):
        catalogue.select(LIMITS, names=[NOBODY])


def test_known_name_without_a_good_detection_is_not_called_unknown(catalogue):
    with pytest.raises(ReadError, match="no detection"):
        catalogue.select(LIMITS, names=["2CXO J004244.3+411608"])


def test_labelled_positions_select_what_is_near_them(catalogue, tmp_path):
    table = tmp_path / "classes.csv"
    ra, dec = PLACES[M31]
    table.write_text(
        f"name,ra,dec,class\na,{ra},{dec + 4 / 3600},LMXB\nb,{0.00375 + 6 / 3600},0.0003,AGN\nc,50,50,NS\n"
    )
    found = catalogue.select(LIMITS, positions=read_positions(table))
    assert set(found["name"]) == {M31}  # the second is 6 arcsec off


def test_real_labelled_sources_can_be_asked_for(catalogue, shared_data):
    positions = read_positions(shared_data / "catalogues" / "csc2_labelled_sources.csv")
    assert len(positions) == 2102
    names = read_names(shared_data / "catalogues" / "csc2_labelled_sources.csv")
    assert len([source_name(name) for name in names]) == 2102


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("ra,dec\n1,2\n", "should have a column class"),
        ("ra,dec,class\n1,200,AGN\n", "row 1 should be a position"),
        ("ra,dec,class\n1h,2,AGN\n", "should hold numbers"),
        ("ra,dec,class\n", "has no rows"),
    ],
)
def test_bad_tables_of_positions(tmp_path, content, message):
    table = tmp_path / "classes.csv"
    table.write_text(content)
    with pytest.raises(ReadError, match=message) as error:
        read_positions(table)
    assert one_sentence(str(error.value))


def test_bad_lists_of_names(catalogue, tmp_path):
    with pytest.raises(ReadError, match="no such file"):
        read_names(tmp_path / "none.txt")
    (tmp_path / "list.txt").write_text("M31\n")
    with pytest.raises(ParameterError, match="'M31' is no name"):
        catalogue.select(LIMITS, names=read_names(tmp_path / "list.txt"))
    wrong = tmp_path / "wrong.csv"
    wrong.write_text("source\nM31\n")
    with pytest.raises(ReadError, match="should have a column name"):
        read_names(wrong)
    with pytest.raises(ParameterError, match="no name of the Chandra Source Catalog"):
        catalogue.select(LIMITS, names=["M31 X-1"])
    with pytest.raises(ParameterError, match=r"known are 2\.1, 2\.0"):
        Catalogue("3.0")


# -- a service that fails


def test_the_service_refuses_what_the_real_one_refuses(service):
    ask = client.TapService(service.url, lambda words: None).run
    for query in (
        "SELECT m.name FROM csc21.master_source m WHERE 1 = CONTAINS(POINT('', m.ra, m.dec), CIRCLE('', 0, 0, 1))",
        "SELECT m.name FROM csc21.master_source m JOIN csc21.master_stack_assoc a ON m.name = a.name AND 1 = 1",
        "SELECT nothing FROM csc21.master_source",
    ):
        for large in (False, True):
            with pytest.raises(client.RefusedError) as error:
                ask(query, large)
            assert one_sentence(str(error.value))


@pytest.mark.parametrize("cone", [NEAR_ZERO, None], ids=["small", "large"])
@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"statuses": [(500, None)]}, "HTTP 500 Internal Server Error; try again later"),
        ({"statuses": [(503, 1)] * 9}, "HTTP 503 Service Unavailable; try again later"),
        ({"statuses": [(404, None)]}, "HTTP 404 Not Found; check the address"),
        ({"statuses": [(400, None)]}, "refused the query"),
        ({"html": True}, "should answer with a VOTable"),
        ({"cut": True}, "broke off in the middle of its answer"),
        ({"row_limit": 2}, "more rows for this than it gives out"),
    ],
    ids=["500", "503", "404", "400", "no-tap", "cut", "overflow"],
)
def test_failures_of_the_service_are_one_sentence(catalogue, service, monkeypatch, cone, fault, message):
    for name, value in fault.items():
        monkeypatch.setattr(service, name, copy(value))
    with pytest.raises(ReadError, match=message) as error:
        catalogue.select(LIMITS, cone=cone)
    assert one_sentence(str(error.value))
    assert service.url in str(error.value)
    assert not service.jobs


@pytest.mark.parametrize(("end", "message"), [("ERROR", "refused.*out of memory"), ("ABORTED", "was stopped")])
def test_job_that_ends_badly(catalogue, service, end, message):
    service.job_end = end
    with pytest.raises(ReadError, match=message):
        catalogue.select(LIMITS)
    assert not service.jobs


def test_job_that_takes_too_long(catalogue, service, monkeypatch):
    monkeypatch.setattr(client, "_JOB_TIMEOUT", 0.3)
    service.job_seconds = 60.0
    with pytest.raises(ReadError, match="still executing after"):
        catalogue.select(LIMITS)
    assert not service.jobs


def test_busy_service_is_asked_again_when_it_says(catalogue, service):
    service.statuses = [(503, 1), (429, 1)]
    began = time.monotonic()
    assert len(catalogue.select(LIMITS, cone=NEAR_ZERO)) == 5
    assert time.monotonic() - began >= 2
    assert sum(path == "/sync" for _, path, _, _ in service.requests) == 3


@pytest.mark.parametrize("cone", [NEAR_ZERO, None], ids=["small", "large"])
@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("https://nowhere.invalid/tap", "host is not found"),  # as without a network
        ("http://127.0.0.1:9/tap", "cannot be reached .connection refused"),
        ("nowhere", "no web address"),
    ],
)
def test_no_network_and_wrong_host(cone, address, message):
    with pytest.raises(ReadError, match=message) as error:
        Catalogue(service=address).select(LIMITS, cone=cone)
    assert one_sentence(str(error.value))


def test_columns_that_the_service_lacks_are_left_out(catalogue, service):
    service.without("observation_source", "conf_code")
    with pytest.warns(XlatentWarning, match="does not have the columns conf_code"):
        found = catalogue.select(LIMITS, cone=NEAR_ZERO)
    assert "conf_code" not in found.colnames
    assert len(found.colnames) == len(COLUMNS) - 1
    catalogue.select(LIMITS, cone=NEAR_ZERO)  # said once, not asked for again
    assert sum("TAP_SCHEMA" in (query or "") for _, _, query, _ in service.requests) == 1


def test_service_without_an_indispensable_column_is_refused(catalogue, service):
    service.without("observation_source", "obi")
    with pytest.raises(ReadError, match="refused the query"):
        catalogue.select(LIMITS, cone=NEAR_ZERO)


# -- the command


def test_select_writes_a_table(xlatent, tmp_path):
    out = tmp_path / "selection.ecsv"
    result = xlatent("select", "--cone", "0,0,0.2", "--output", out)
    assert result.exit_code == 0
    assert "5 detections of 3 sources of release 2.1" in result.stderr
    assert list(Table.read(out)["obsid"]) == [100, 101, 102, 110, 120]
    assert [path.name for path in tmp_path.iterdir()] == ["selection.ecsv"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("--cone", "0,0"),
        ("--cone", "0,95,1"),
        ("--cone", "0,0,0"),
        ("--cone", "0,0,1", "--names", "names.txt"),
        ("--release", "1.1"),
        ("--output", "selection.fits"),
        ("--output", "/nowhere/selection.ecsv"),
    ],
)
def test_wrong_options_are_told_in_one_sentence(xlatent, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    result = xlatent("select", "--output", "selection.ecsv", *arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith("xlatent: error: ")
    assert one_sentence(result.stderr.strip())


def test_empty_selection_leaves_the_old_table_alone(xlatent, tmp_path):
    out = tmp_path / "selection.ecsv"
    out.write_text("old")
    result = xlatent("select", "--min-counts", "1e6", "--output", out)
    assert result.exit_code == 1
    assert one_sentence(result.stderr.strip())
    assert "no detection of release 2.1" in result.stderr
    assert out.read_text() == "old"


def test_full_disk_leaves_the_old_table_alone(catalogue, tmp_path):
    out = tmp_path / "selection.ecsv"
    out.write_text("old")
    found = catalogue.select(LIMITS, cone=NEAR_ZERO)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))  # no file may grow beyond that
    try:
        with pytest.raises(WriteError, match=r"cannot be written .*make room") as error:
            write(found, out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert one_sentence(str(error.value))
    assert out.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["selection.ecsv"]


def test_no_folder_to_write_into(catalogue, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match="cannot be written"):
        write(catalogue.select(LIMITS, cone=NEAR_ZERO), tmp_path / "file" / "selection.ecsv")


@contextmanager
def as_nobody():
    """Nothing is read-only to root: be somebody else for a while."""
    if os.getuid() != 0:
        yield
        return
    os.setresuid(65534, 65534, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)


def test_read_only_folder_is_told_before_anything_is_asked(xlatent, service, catalogue):
    found = catalogue.select(LIMITS, cone=NEAR_ZERO)
    service.requests.clear()
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o555)
    try:
        with as_nobody():
            result = xlatent("select", "--output", folder / "selection.ecsv")
            with pytest.raises(WriteError, match=r"cannot be written .Permission denied"):
                write(found, folder / "selection.ecsv")
        assert result.exit_code == 2
        assert "its folder is read-only" in result.stderr
        assert one_sentence(result.stderr.strip())
        assert not service.requests
    finally:
        folder.rmdir()


def test_info_says_what_the_catalogue_says(xlatent):
    result = xlatent("info", "J000024.0-000300")
    assert result.exit_code == 0
    lines = {line[:16].strip(): line[16:] for line in result.stdout.splitlines()}
    assert lines["name"] == "2CXO J000024.0-000300"
    assert lines["position"] == "0.100000, -0.050000 deg (ICRS)"
    assert lines["flags"] == "var"
    assert "fit bb" in lines
    assert not {"Galactic N_H", "fit powlaw"} & set(lines)  # null in the catalogue
    assert "110" in result.stdout
    assert "132" in xlatent("info", M31).stdout  # detections with HRC too


def test_info_on_a_name_that_does_not_exist(xlatent):
    result = xlatent("info", NOBODY)
    assert result.exit_code == 1
    assert "has no source" in result.stderr
    assert one_sentence(result.stderr.strip())
    assert xlatent("info", "M31").exit_code == 2


def test_without_pyvo_the_extra_is_named(xlatent, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "pyvo", None)
    result = xlatent("select", "--output", tmp_path / "selection.ecsv")
    assert result.exit_code == 2
    assert 'pip install "xlatent[csc]"' in result.stderr


# -- a real service


def test_dachs_understands_every_query():
    with dachs.serve() as address:
        catalogue = Catalogue(service=address)
        found = catalogue.select(LIMITS)
        assert len(found) == 11
        assert found["conf_code"][found["obsid"] == 101].mask.all()
        assert found["nh_gal"][found["obsid"] == 110].mask.all()
        assert set(catalogue.select(LIMITS, cone=NEAR_ZERO)["name"]) == AT_ZERO
        with pytest.warns(XlatentWarning, match="no source of 1 of the names"):
            assert len(catalogue.select(LIMITS, names=[M31, NOBODY])) == 2
        with pytest.raises(client.RefusedError, match="nothing"):
            client.TapService(address, lambda words: None).run("SELECT nothing FROM csc21.master_source")
