"""Labels: matched within the error ellipse, never guessed; VizieR and SIMBAD are servers on loopback."""

import email.parser
import io
import re
import ssl
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import typer
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.io.votable import from_table
from astropy.io.votable.tree import Info, Resource, TableElement, VOTableFile
from astropy.table import MaskedColumn, Table
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from xlatent.cli.csc_label import label
from xlatent.cli.main import _Plain
from xlatent.core.errors import ParameterError, ReadError, XlatentWarning
from xlatent.core.taxonomy import CLASSES
from xlatent.csc import labels, matching

ARCSEC = 1 / 3600


def selection(ra, dec, **columns):
    n = len(ra)
    names = columns.pop("name", [f"2CXO J{i:06d}" for i in range(n)])
    return Table(
        {"name": names, "obsid": np.arange(n), "ra": np.array(ra, float), "dec": np.array(dec, float)} | columns
    )


def known(ra, dec, kinds, error=0.0):
    n = len(ra)
    return Table(
        {
            "ra": np.array(ra, float),
            "dec": np.array(dec, float),
            "pos_err": np.full(n, float(error)),
            "class": np.array(kinds, str),
        }
    )


def moved(ra, dec, bearing, arcsec):
    """Positions at a bearing (deg east of north) and distance from others."""
    there = SkyCoord(ra, dec, unit="deg").directional_offset_by(bearing * u.deg, arcsec * u.arcsec)
    return np.atleast_1d(there.ra.deg), np.atleast_1d(there.dec.deg)


# --- the split


@settings(max_examples=30)
@given(st.lists(st.text(min_size=1), max_size=30), st.integers(0, 5), st.randoms())
def test_split_depends_on_name_and_seed_only(names, seed, random):
    alone = {name: matching.split([name], seed)[0] for name in names}
    shuffled = names * 2
    random.shuffle(shuffled)
    assert matching.split(shuffled, seed).tolist() == [alone[name] for name in shuffled]


def test_split_is_what_it_was():
    """A change here would put sources that models were trained on into their tests."""
    names = [f"2CXO J{i:06d}.0+010203" for i in range(6, 11)]
    expected = ["train", "validation", "train", "train", "test"]
    assert matching.split(names).tolist() == expected
    assert matching.split([f"  {name} " for name in names]).tolist() == expected


def test_split_shares_and_seeds():
    names = [f"2CXO J{i:06d}" for i in range(20_000)]
    first = matching.split(names)
    shares = [np.mean(first == part) for part in ("train", "validation", "test")]
    assert shares == pytest.approx([0.70, 0.15, 0.15], abs=0.01)
    assert np.mean(first != matching.split(names, seed=1)) == pytest.approx(1 - 0.7**2 - 2 * 0.15**2, abs=0.02)


# --- the match


@pytest.mark.parametrize(("ra", "dec"), [(10.0, 0.0), (0.0, 30.0), (359.99999, -60.0), (123.0, 89.9999), (7.0, -90.0)])
def test_nearest_entry_within_the_error_gives_the_class(ra, dec):
    bearing = 130.0
    ra1, dec1 = moved(ra, dec, bearing, 0.6)
    ra2, dec2 = moved(ra, dec, bearing, 30.0)
    table = matching.match(
        selection([ra], [dec], err_ellipse_r0=[0.8]),
        known([*ra2, *ra1], [*dec2, *dec1], ["CV", "AGN"], 0.3),
        "a catalogue",
    )
    row = table[0]
    assert (row["class"], row["class_catalogue"]) == ("AGN", "a catalogue")
    assert row["class_separation"] == pytest.approx(0.6, abs=1e-4)
    assert row["class_error"] == 0.3
    assert row["class_conflict"] is np.ma.masked


@pytest.mark.parametrize(
    ("bearing", "arcsec", "matched"),
    [(40, 3.9, True), (40, 4.1, False), (220, 3.9, True), (130, 0.9, True), (130, 1.1, False), (85, 1.5, False)],
)
def test_ellipse_has_its_axes_and_angle(bearing, arcsec, matched):
    """Semi-axes 4 and 1 arcsec, the long one at 40 degrees east of north."""
    ra, dec = moved(200.0, 60.0, bearing, arcsec)
    table = selection([200.0], [60.0], err_ellipse_r0=[4.0], err_ellipse_r1=[1.0], err_ellipse_ang=[40.0])
    assert bool(matching.match(table, known(ra, dec, ["NS"]), "c")["class"][0] is not np.ma.masked) == matched


def test_units_of_the_ellipse_are_heeded():
    ra, dec = moved(200.0, 60.0, 0.0, 3.0)
    table = selection([200.0], [60.0], err_ellipse_r0=[4.0 * ARCSEC])
    assert matching.match(table, known(ra, dec, ["NS"]), "c")["class"].mask.all()
    table["err_ellipse_r0"].unit = "deg"
    assert matching.match(table, known(ra, dec, ["NS"]), "c")["class"][0] == "NS"


def test_errors_of_both_add_in_quadrature():
    ra, dec = moved(200.0, 60.0, 0.0, 4.9)
    table = selection([200.0], [60.0], err_ellipse_r0=[3.0])
    assert matching.match(table, known(ra, dec, ["NS"], 4.0), "c")["class"][0] == "NS"
    assert matching.match(table, known(ra, dec, ["NS"], 3.8), "c")["class"].mask.all()


def test_missing_ellipse_is_a_circle_of_the_stated_default():
    for arcsec, matched in ((0.98 * matching.DEFAULT_ERROR, True), (1.02 * matching.DEFAULT_ERROR, False)):
        entry = known(*moved(200.0, 60.0, 70.0, arcsec), ["NS"])
        bare = selection([200.0], [60.0])
        masked = selection([200.0], [60.0], err_ellipse_r0=MaskedColumn([9.0], mask=[True]))
        for table in (bare, masked):
            assert bool(not matching.match(table, entry, "c")["class"].mask[0]) == matched


def test_two_classes_are_a_conflict_and_no_guess():
    entries = known([50.0, 50.0 + 0.5 * ARCSEC, 50.0], [0.0, 0.0, 0.2 * ARCSEC], ["YSO", "AGN", "YSO"])
    row = matching.match(selection([50.0], [0.0]), entries, "c")[0]
    assert row["class"] is np.ma.masked
    assert row["class_conflict"] == "AGN, YSO"
    assert row["class_separation"] == 0.0  # the nearest is still told
    agreed = matching.match(selection([50.0], [0.0]), entries[[0, 2]], "c")[0]
    assert (agreed["class"], agreed["class_conflict"]) == ("YSO", np.ma.masked)


def test_chance_is_the_share_of_random_places_that_match():
    """In a field of unrelated entries, the stated probability is that of a match."""
    rng = np.random.default_rng(3)
    n, side = 4000, 0.5
    entries = known(180 + side * rng.random(n), side * rng.random(n), ["YSO"] * n, 2.0)
    inner = 0.1 + 0.3 * rng.random((2, 1500))
    table = selection(180 + inner[0], inner[1], err_ellipse_r0=np.full(1500, 12.0), err_ellipse_r1=np.full(1500, 6.0))
    table["err_ellipse_ang"] = 360 * rng.random(1500)
    matched = matching.match(table, entries, "c")
    share = np.mean(~matched["class"].mask)
    assert 0.1 < share < 0.5
    assert np.ma.mean(matched["class_chance"]) == pytest.approx(share, rel=0.1)


def test_every_row_and_column_is_kept():
    table = selection([10.0, np.nan, 200.0], [0.0, 5.0, 60.0], theta=MaskedColumn([1.0, 2.0, 3.0], mask=[0, 1, 0]))
    table["theta"].unit = "arcmin"
    table.meta["release"] = "2.1"
    matched = matching.match(table, known([10.0], [0.0], ["CV"]), "c")
    assert matched.colnames[: len(table.colnames)] == table.colnames
    assert np.array_equal(matched["obsid"], table["obsid"])
    assert matched["theta"].unit == "arcmin" and matched["theta"].mask.tolist() == [False, True, False]
    assert matched.meta["release"] == "2.1"
    assert matched["class"].filled("").tolist() == ["CV", "", ""]
    assert matched["split"].tolist() == matching.split(table["name"]).tolist()
    assert table.colnames[-1] == "theta"  # the input is as it was


@pytest.mark.parametrize("rows", [0, 2])
def test_nothing_to_match(rows):
    matched = matching.match(selection([1.0, 2.0][:rows], [0.0, 0.0][:rows]), known([], [], []), "c")
    assert len(matched) == rows
    assert matched["class"].mask.all()


# --- labels from files


def test_published_labels_find_themselves(shared_data):
    path = shared_data / "catalogues" / "csc2_labelled_sources.csv"
    published = Table.read(path)
    entries = labels.from_file(path)
    assert len(entries) == 2102
    matched = matching.match(selection(published["ra"], published["dec"], name=published["name"]), entries, "Yang")
    clear = ~matched["class"].mask
    assert np.array_equal(matched["class"][clear], published["class"][clear])
    assert clear.sum() >= 2095
    assert (clear | ~matched["class_conflict"].mask).all()
    assert np.ma.median(matched["class_chance"]) < 1e-3


def test_file_columns_may_be_upper_case_and_of_any_format(tmp_path):
    table = Table({"RAJ2000": [1.0], "DEJ2000": [2.0], "Class": ["lm-star"], "PU": [0.7]})
    for suffix, kind in {".csv": "ascii.csv", ".ecsv": "ascii.ecsv", ".fits": "fits", ".vot": "votable"}.items():
        table.write(tmp_path / f"t{suffix}", format=kind)
        entries = labels.from_file(tmp_path / f"t{suffix}")
        assert entries[0]["class"] == "LM-STAR"
        assert list(entries[0]["ra", "dec", "pos_err"]) == [1.0, 2.0, 0.7]


def test_rows_of_other_classes_are_left_out_with_a_word(tmp_path):
    (tmp_path / "t.csv").write_text("ra,dec,class\n1,2,AGN\n3,4,GRB\n,5,AGN\n6,7,\n")
    with pytest.warns(XlatentWarning, match=r"3 of 4 rows.*GRB"):
        assert len(labels.from_file(tmp_path / "t.csv")) == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ra,dec\n1,2\n", "column class"),
        ("ra,class\n1,AGN\n", "column dec"),
        ("ra,dec,class\n12:00:01,-3:00:00,AGN\n", "decimal degrees"),
        ("ra,dec,class\n1,2,AGN\n1,2\n1,2,3,4\n", "not a readable .csv table"),
    ],
)
def test_bad_file_is_told_in_a_sentence(tmp_path, text, said):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(ReadError, match=said):
        labels.from_file(tmp_path / "t.csv")


def test_simbad_types_give_the_eight_classes():
    assert set(labels.SIMBAD_CLASSES.values()) == set(CLASSES)
    assert not any("?" in otype for otype in labels.SIMBAD_CLASSES)
    assert "XB*" not in labels.SIMBAD_CLASSES  # high or low mass is not said


# --- servers

OBJECTS = [  # main_id, ra, dec, coo_err_maj (mas), otype
    ("a quasar", 150.0, 2.0 + 0.4 * ARCSEC, 100.0, "QSO"),
    ("a star of no class", 150.0, 2.0, 1.0, "*"),
    ("a T Tauri star", 359.9999, -5.0, 1.0, "TT*"),
    ("a pulsar", 83.0, 22.0, np.nan, "Psr"),
    ("its binary", 83.0, 22.0, 1.0, "LXB"),
]


class Server(BaseHTTPRequestHandler):
    """What VizieR and SIMBAD answer to the requests that are made of them."""

    def log_message(self, *_):
        pass

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests.append(self.path)
        if self.server.fault == "error":
            return self.answer(b"no", 503)
        if self.server.fault == "text":
            return self.answer(b"<html>be right back</html>")
        content = self.vizier(body) if self.path.startswith("/viz-bin/votable") else self.simbad(body)
        self.answer(content[: len(content) // 2] if self.server.fault == "cut" else content)

    def answer(self, content, status=200):
        self.send_response(status)
        self.send_header("Content-Type", "text/xml")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def vizier(self, body):
        asked = dict(line.partition("=")[::2] for line in body.decode().split("\n"))
        file = VOTableFile()
        file.resources.append(resource := Resource(name="J/ApJ/941/104"))
        for number in (8, 9):
            name = f"J/ApJ/941/104/table{number}"
            if not name.startswith(asked["-source"]):
                continue
            n = self.server.rows
            table = Table(
                {
                    "_RAJ2000": 10.0 * np.arange(1, n + 1),
                    "_DEJ2000": np.zeros(n),
                    "RAJ2000": ["00 40 00.0"] * n,
                    "PU": np.full(n, 0.75),
                    "Class": ["AGN"] * n,
                }
            )
            table["PU"].unit = "arcsec"
            if number == 9 and self.server.fault != "no true class":
                table["TC"] = (["YSO", "NS", "CV", "HMXB", "LMXB"] * n)[:n]
                table["TC"].description = "True class of the source"
            if asked["-out.max"].isdigit():
                table = table[: int(asked["-out.max"])]
            element: TableElement = from_table(table).get_first_table()
            element.name = name
            resource.tables.append(element)
        return xml(file)

    def simbad(self, body):
        head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
        parts = {}
        for part in email.parser.BytesParser().parsebytes(head + body).get_payload():
            parts[part.get_param("name", header="content-disposition")] = part.get_payload(decode=True)
        query = parts["QUERY"].decode()
        uploaded = Table.read(io.BytesIO(parts["positions"]), format="votable")
        radius = float(re.search(r"p\.dec, ([\d.]+)\)", query)[1])
        types = set(re.findall(r"'([^']+)'", query.partition("otype IN")[2]))
        places = SkyCoord(uploaded["ra"], uploaded["dec"], unit="deg")
        self.server.places.append(len(places))
        rows = [
            o
            for o in OBJECTS
            if o[4] in types and SkyCoord(o[1], o[2], unit="deg").separation(places).min().deg < radius
        ]
        names = ("main_id", "ra", "dec", "coo_err_maj", "otype")
        columns = {name: [row[i] for row in rows] for i, name in enumerate(names)}
        columns["otype"] = [f"{otype}   " for otype in columns["otype"]]
        if not rows:
            columns = {
                name: np.zeros(0, dtype=kind)
                for name, kind in zip(names, ("U9", float, float, float, "U9"), strict=True)
            }
        file = from_table(Table(columns))
        file.resources[0].type = "results"
        status = "OVERFLOW" if self.server.fault == "overflow" else "OK"
        file.resources[0].infos.append(Info(name="QUERY_STATUS", value=status))
        return xml(file)


def xml(file):
    stream = io.BytesIO()
    file.to_xml(stream)
    return stream.getvalue()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    """A certificate for 127.0.0.1: both services are spoken to by HTTPS only."""
    folder = tmp_path_factory.mktemp("tls")
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1"
    )
    subprocess.run(
        [*command.split(), "-keyout", "key.pem", "-out", "cert.pem"], cwd=folder, check=True, capture_output=True
    )
    return folder / "cert.pem", folder / "key.pem"


@pytest.fixture
def server(certificate, monkeypatch):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    httpd.socket = context.wrap_socket(httpd.socket, server_side=True)
    httpd.rows, httpd.fault, httpd.requests, httpd.places = 5, None, [], []
    httpd.host = f"127.0.0.1:{httpd.server_port}"
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate[0]))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    yield httpd
    httpd.shutdown()
    httpd.server_close()
    thread.join()


def test_vizier_gives_the_table_of_true_classes(server):
    entries = labels.from_vizier(server.host)
    assert entries["class"].tolist() == ["YSO", "NS", "CV", "HMXB", "LMXB"]
    assert entries["ra"].tolist() == [10.0, 20.0, 30.0, 40.0, 50.0]
    assert entries["pos_err"].tolist() == [0.75] * 5


def test_simbad_objects_are_classed_by_their_types(server):
    entries = labels.from_simbad(np.array([[150.0, 2.0], [0.0001, -5.0], [83.0, 22.0], [250.0, 0.0]]), server.host)
    found = {row["class"]: row["pos_err"] for row in entries}
    assert set(found) == {"AGN", "YSO", "NS", "LMXB"}
    assert found["AGN"] == pytest.approx(0.245, abs=1e-3)  # 100 mas, one sigma
    assert found["NS"] == 0.0


def test_simbad_is_asked_in_chunks_and_gives_each_object_once(server, monkeypatch):
    monkeypatch.setattr(labels, "_SIMBAD_CHUNK", 2)
    places = np.array([[150.0, 2.0], [150.001, 2.0], [150.002, 2.0], [20.0, 0.0], [21.0, 0.0]])
    done = []
    entries = labels.from_simbad(places, server.host, lambda *numbers: done.append(numbers))
    assert len(entries) == 1
    assert server.places == [2, 2, 1]
    assert done == [(2, 5), (4, 5), (5, 5)]


def test_simbad_knows_nothing_there(server):
    assert len(labels.from_simbad(np.array([[250.0, 0.0]]), server.host)) == 0
    assert len(labels.from_simbad(np.zeros((0, 2)), server.host)) == 0


@pytest.mark.parametrize(
    ("service", "fault"),
    [(service, fault) for service in ("vizier", "simbad") for fault in ("error", "text", "cut")]
    + [("vizier", "no true class"), ("simbad", "overflow")],
)
def test_faulty_answers_are_told_in_a_sentence(server, service, fault):
    server.fault = fault
    with pytest.raises(ReadError, match=re.escape(server.host)) as caught:
        labels.from_vizier(server.host) if service == "vizier" else labels.from_simbad(
            np.array([[150.0, 2.0]]), server.host
        )
    assert "--labels" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("service", [labels.from_vizier, lambda host: labels.from_simbad(np.zeros((1, 2)), host)])
def test_server_out_of_reach_is_told(service):
    with pytest.raises(ReadError, match=r"^127\.0\.0\.1:9 cannot be reached; check the connection"):
        service("127.0.0.1:9")


# --- the command


@pytest.fixture
def xlatent_csc():
    app = typer.Typer(cls=_Plain, pretty_exceptions_enable=False)
    app.command()(label)
    app.callback()(lambda: None)

    def run(*arguments):
        result = CliRunner().invoke(app, ["label", *map(str, arguments)])
        assert "Traceback" not in result.output
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    return run


@pytest.fixture
def selected(tmp_path):
    table = selection([150.0, 150.0, 83.0, 250.0], [2.0, 2.0, 22.0, 0.0], name=["A", "A", "B", "C"])
    table.meta["release"] = "2.1"
    table.write(tmp_path / "selection.ecsv")
    return tmp_path / "selection.ecsv"


def test_command_labels_from_simbad_and_reports_conflicts(xlatent_csc, selected, server, tmp_path):
    result = xlatent_csc(selected, "--output", tmp_path / "out.ecsv", "--simbad", "--server", server.host)
    assert result.exit_code == 0, result.output
    assert "1 of 3 sources (4 detections) have a class: AGN 1" in result.stdout
    assert "1 sources lie within the errors of entries of different classes" in result.stderr
    assert "B (LMXB, NS)" in result.stderr
    table = Table.read(tmp_path / "out.ecsv")
    assert table["class"].filled("").tolist() == ["AGN", "AGN", "", ""]
    assert table["class_conflict"].filled("").tolist() == ["", "", "LMXB, NS", ""]
    assert table["class_separation"].unit == "arcsec"
    assert table.meta["release"] == "2.1"
    assert len(set(table["split"][:2])) == 1
    assert server.places == [3]  # each source once


def test_a_selection_is_labelled_from_python(selected, tmp_path):
    (tmp_path / "mine.csv").write_text("ra,dec,class\n250,0,HMXB\n83,22,NS\n83,22,LMXB\n")
    labelled = matching.label_selection(selected, tmp_path / "mine.csv", seed=3)
    assert labelled.meta["labels"] == "mine.csv" and labelled.meta["split_seed"] == 3
    found = matching.count_labels(labelled)
    assert (found.detections, found.sources, found.classes) == (4, 3, {"HMXB": 1})
    assert found.conflicts == {"B": "LMXB, NS"}
    with pytest.raises(ParameterError, match="leave them out"):
        matching.label_selection(selected, tmp_path / "mine.csv", server="localhost")


def test_command_takes_vizier_by_default_and_a_file_offline(xlatent_csc, selected, server, tmp_path):
    assert xlatent_csc(selected, "--output", tmp_path / "v.ecsv", "--server", server.host).exit_code == 0
    assert Table.read(tmp_path / "v.ecsv").meta["labels"] == "J/ApJ/941/104"
    (tmp_path / "mine.csv").write_text("ra,dec,class\n250,0,HMXB\n")
    asked = len(server.requests)
    result = xlatent_csc(selected, "--output", tmp_path / "f.ecsv", "--labels", tmp_path / "mine.csv")
    assert "HMXB 1" in result.stdout
    assert len(server.requests) == asked
    assert Table.read(tmp_path / "f.ecsv")["class_catalogue"].filled("").tolist() == ["", "", "", "mine.csv"]
    again = xlatent_csc(tmp_path / "f.ecsv", "--output", tmp_path / "f.ecsv", "--labels", tmp_path / "mine.csv")
    assert again.exit_code == 0  # columns of before are replaced


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nothing.ecsv", "--output", "o.ecsv"], "no such file"),
        (["selection.ecsv", "--output", "o.csv"], "use .ecsv"),
        (["selection.ecsv", "--output", "o.ecsv", "--labels", "none.csv"], "no such file"),
        (["selection.ecsv", "--output", "o.ecsv", "--labels", "x.csv", "--simbad"], "leave them out"),
        (["selection.ecsv", "--output", "o.ecsv", "--server", "127.0.0.1:9"], "cannot be reached"),
        (["broken.ecsv", "--output", "o.ecsv"], "not a readable .ecsv table"),
        (["other.ecsv", "--output", "o.ecsv"], "should have a column name"),
    ],
)
def test_mistakes_are_one_sentence_and_write_nothing(xlatent_csc, selected, monkeypatch, arguments, said):
    monkeypatch.chdir(selected.parent)
    (selected.parent / "broken.ecsv").write_bytes(selected.read_bytes()[:80])
    Table({"a": [1]}).write(selected.parent / "other.ecsv")
    result = xlatent_csc(*arguments)
    assert result.exit_code in (1, 2)
    assert said in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not [path for path in selected.parent.iterdir() if path.name.strip(".").startswith("o.")]
