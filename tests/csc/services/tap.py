"""A small TAP service on loopback: the CSC's tables in SQLite, its refusals, and failures on demand."""

import io
import re
import sqlite3
import threading
import time
import uuid
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit
from xml.sax.saxutils import escape

import numpy as np

# What the tables hold, after cxc.cfa.harvard.edu/csc/columns; written down apart from xlatent.csc.columns.
_BANDS = "bhmsuw"
_MODELS = {"powlaw": "gamma nh ampl", "bb": "kt nh ampl", "brems": "kt nh norm", "apec": "kt abund z nh norm"}


def _limits(name, band=""):
    return [f"{name}{limit}{band}" for limit in ("", "_lolim", "_hilim")]


def _measured():
    """Columns of numbers that sources and their detections both have."""
    names = [f"flux_significance_{b}" for b in _BANDS]
    for b in _BANDS:
        names += _limits("flux_aper", f"_{b}") + _limits("photflux_aper", f"_{b}")
    for ratio in ("hm", "hs", "ms"):
        names += _limits(f"hard_{ratio}")
    for model, parameters in _MODELS.items():
        names += [*_limits(f"flux_{model}"), f"{model}_stat"]
        for parameter in parameters.split():
            names += [*_limits(f"{model}_{parameter}"), f"{model}_{parameter}_rhat"]
    return names


_FLAGS = ("dither_warning_flag", "sat_src_flag", "streak_src_flag")
SCHEMA = {
    "master_source": {
        "name": "char",
        **dict.fromkeys(["ra", "dec", "err_ellipse_r0", "err_ellipse_r1", "err_ellipse_ang"], "double"),
        **dict.fromkeys(["significance", "likelihood", "nh_gal", *_measured()], "double"),
        **{f"var_{kind}_prob_{b}": "double" for kind in ("intra", "inter") for b in _BANDS},
        **{f"var_{kind}_index_{b}": "int" for kind in ("intra", "inter") for b in _BANDS},
        **{f"var_inter_sigma_{b}": "double" for b in _BANDS},
        **{f"var_inter_hard_prob_{ratio}": "double" for ratio in ("hm", "hs", "ms")},
        "likelihood_class": "char",
        **dict.fromkeys(
            ["var_flag", "var_inter_hard_flag", "conf_flag", "extent_flag", "pileup_flag", *_FLAGS], "boolean"
        ),
    },
    "master_stack_assoc": {"name": "char", "detect_stack_id": "char", "region_id": "int", "match_type": "char"},
    "stack_source": {"detect_stack_id": "char", "region_id": "int", "theta_mean": "double"},
    "stack_observation_assoc": {"detect_stack_id": "char", "region_id": "int", "obsid": "int", "obi": "int"},
    "observation_source": {
        **dict.fromkeys(["obsid", "obi", "region_id", "conf_code", "extent_code"], "int"),
        **dict.fromkeys(["theta", "phi", "livetime", "gti_mjd_obs", *_measured()], "double"),
        **{name: "double" for b in _BANDS for name in _limits("src_cnts_aper", f"_{b}")},
        **{f"{name}_{b}": "double" for b in _BANDS for name in ("cnts_aper", "cnts_aperbkg")},
        **{f"{name}_{b}": "double" for b in _BANDS for name in ("var_prob", "ks_prob", "kp_prob")},
        **{f"var_index_{b}": "int" for b in _BANDS},
        **dict.fromkeys(["instrument", "gti_obs"], "char"),
        **dict.fromkeys(_FLAGS, "boolean"),
    },
}
UNITS = {"ra": "deg", "dec": "deg", "theta": "arcmin", "nh_gal": "N HI atoms 10^20 cm^-2", "flux_aper_b": "erg/s/cm^2"}
# Names end up right-ascension first; two have detections in several observations, one detection is ambiguous.
PLACES = {
    "2CXO J000000.9+000001": (0.00375, 0.0003),
    "2CXO J000024.0-000300": (0.1, -0.05),
    "2CXO J235936.0+000600": (359.9, 0.1),
    "2CXO J004248.5+411521": (10.70224, 41.2559),
    "2CXO J004244.3+411608": (10.6848, 41.26892),
    "2CXO J123049.3+122328X": (187.70573, 12.39116),
    "2CXO J010000.0+895400": (15.0, 89.9),
    "2CXO J130000.0+895424": (195.0, 89.9067),
    "2CXO J060000.0-893000": (90.0, -89.5),
}
_FEATURES = re.compile(r"\b(CIRCLE|CONTAINS|POINT|INTERSECTS|POLYGON|BOX|DISTANCE|COORD1|AREA)\s*\(", re.IGNORECASE)
_JOIN = re.compile(r"\bJOIN\b.*\bON\b", re.IGNORECASE | re.DOTALL)


def rows():
    """The content of the tables: one line a table and row, some values missing."""
    rng = np.random.default_rng(4)
    tables = {name: [] for name in SCHEMA}

    def fill(table, known):
        row = dict.fromkeys(SCHEMA[table])
        for name, kind in SCHEMA[table].items():
            row[name] = {"double": rng.uniform(0.1, 1), "int": 0, "char": "", "boolean": 0}[kind]
        tables[table].append(row | known)

    for i, (name, (ra, dec)) in enumerate(PLACES.items()):
        source = {"name": name, "ra": ra, "dec": dec, "likelihood_class": "TRUE", "significance": 8.0 + i}
        if i == 1:
            source |= {"nh_gal": None, "powlaw_gamma": None, "var_inter_index_b": None, "var_flag": 1}
        fill("master_source", source)
        stack = f"acisfJ{i:07d}p000000_001"
        for j in range(3 if i in (0, 3) else 1):
            key = {"obsid": 100 + 10 * i + j, "obi": j % 2, "region_id": 7 + i}
            faint = i == 4
            fill("master_stack_assoc", {"name": name, "detect_stack_id": stack, "region_id": 7 + i, "match_type": "u"})
            if j:  # one line a stack
                tables["master_stack_assoc"].pop()
            fill("stack_observation_assoc", {"detect_stack_id": stack, **key})
            found = {
                **key,
                "instrument": "HRC" if (i, j) == (3, 2) else "ACIS",
                "gti_obs": f"200{i}-01-0{j + 1}T00:00:00",
                "theta": 1.0 + j,
                "livetime": 5e4,
                "src_cnts_aper_b": 20.0 if faint else 100.0 + i,
                "flux_significance_b": 3.0 if faint else 9.0,
            }
            if (i, j) == (0, 1):
                found |= {"powlaw_gamma": None, "flux_aper_b": None, "conf_code": None, "streak_src_flag": 1}
            fill("observation_source", found)
        fill("stack_source", {"detect_stack_id": stack, "region_id": 7 + i})
    # A detection that could be of either of two sources.
    for name in list(PLACES)[:2]:
        either = {"name": name, "detect_stack_id": "acisfJ9999999p000000_001", "region_id": 99, "match_type": "a"}
        fill("master_stack_assoc", either)
    fill("stack_source", {"detect_stack_id": "acisfJ9999999p000000_001", "region_id": 99})
    key = {"obsid": 999, "obi": 0, "region_id": 99}
    fill("stack_observation_assoc", {"detect_stack_id": either["detect_stack_id"], **key})
    ambiguous = {**key, "instrument": "ACIS", "theta": 1.0}
    fill("observation_source", ambiguous | {"src_cnts_aper_b": 500.0, "flux_significance_b": 20.0})
    return tables


class Service:
    """The state of a service: what it holds, how it is to fail, and what it was asked."""

    def __init__(self):
        self.schema = {table: dict(columns) for table, columns in SCHEMA.items()}
        self.tables = rows()
        self.requests = []  # (method, path, query or None, User-Agent)
        self.jobs = {}
        self.results = {}
        self.statuses = []  # HTTP status and Retry-After of the next answers to queries
        self.job_seconds = 0.0
        self.job_end = "COMPLETED"
        self.row_limit = None
        self.html = False
        self.cut = False
        self._lock = threading.Lock()

    def without(self, table, column):
        """A release that lacks a column."""
        del self.schema[table][column]

    def load(self):
        """The tables as a database."""
        connection = sqlite3.connect(":memory:", check_same_thread=False)
        connection.execute("ATTACH ':memory:' AS csc21")
        connection.execute("ATTACH ':memory:' AS tap_schema")
        connection.execute("CREATE TABLE tap_schema.columns (table_name TEXT, column_name TEXT)")
        types = {"char": "TEXT", "double": "REAL", "int": "INTEGER", "boolean": "INTEGER"}
        for table, columns in self.schema.items():
            fields = ", ".join(f"{name} {types[kind]}" for name, kind in columns.items())
            connection.execute(f"CREATE TABLE csc21.{table} ({fields})")
            marks = ", ".join("?" * len(columns))
            for row in self.tables[table]:
                connection.execute(f"INSERT INTO csc21.{table} VALUES ({marks})", [row[n] for n in columns])
            for name in columns:
                connection.execute("INSERT INTO tap_schema.columns VALUES (?, ?)", (f"csc21.{table}", name))
        return connection

    def answer(self, adql):
        """The VOTable for a query and the HTTP status that goes with it."""
        if found := _FEATURES.search(adql):
            return 400, refusal(f"function {found[1]} not found")
        if _JOIN.search(adql):
            return 400, refusal("syntax error near JOIN")
        try:
            with self._lock:
                cursor = self.load().execute(adql)
        except sqlite3.Error as error:
            return 400, refusal(str(error))
        found = cursor.fetchall()
        kinds = {name: kind for columns in SCHEMA.values() for name, kind in columns.items()}
        return 200, votable([name for name, *_ in cursor.description], kinds, found, self.row_limit)


def refusal(text):
    return (
        '<?xml version="1.0"?><VOTABLE version="1.3" xmlns="http://www.ivoa.net/xml/VOTable/v1.3">'
        f'<RESOURCE type="results"><INFO name="QUERY_STATUS" value="ERROR">{escape(text)}</INFO></RESOURCE></VOTABLE>'
    ).encode()


def votable(names, kinds, found, limit=None):
    """A VOTable by hand, so that nothing of what reads it has a part in it."""
    out = io.StringIO()
    out.write('<?xml version="1.0"?><VOTABLE version="1.3" xmlns="http://www.ivoa.net/xml/VOTable/v1.3">')
    out.write('<RESOURCE type="results"><INFO name="QUERY_STATUS" value="OK"/><TABLE>')
    for name in names:
        kind = kinds.get(name, "char")
        size = ' arraysize="*"' if kind == "char" else ""
        unit = f' unit="{UNITS[name]}"' if name in UNITS else ""
        null = '<VALUES null="-2147483648"/>' if kind == "int" else ""
        out.write(f'<FIELD name="{name}" datatype="{kind}"{size}{unit}>{null}</FIELD>')
    out.write("<DATA><TABLEDATA>")
    for row in found[:limit]:
        out.write("<TR>")
        for name, value in zip(names, row, strict=True):
            kind = kinds.get(name, "char")
            if value is None:
                text = "-2147483648" if kind == "int" else ""
            elif kind == "char":
                text = f"{' ' if name == 'name' else ''}{value:<12}"  # padded, as the real service does it
            else:
                text = ("F", "T")[value] if kind == "boolean" else repr(value)
            out.write(f"<TD>{escape(text)}</TD>")
        out.write("</TR>")
    out.write("</TABLEDATA></DATA></TABLE>")
    if limit is not None and len(found) > limit:
        out.write('<INFO name="QUERY_STATUS" value="OVERFLOW"/>')
    out.write("</RESOURCE></VOTABLE>")
    return out.getvalue().encode()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    service: Service

    def log_message(self, *_):
        pass

    def _send(self, status, body=b"", kind="application/x-votable+xml", **headers):
        self.send_response(status)
        cut = self.service.cut and status == 200 and kind.endswith("votable+xml")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", kind)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if cut else body)
        if cut:
            self.close_connection = True

    def _see_other(self, path):
        self._send(303, Location=f"http://{self.headers['Host']}{path}")

    def _handle(self, method):
        service, path = self.service, urlsplit(self.path).path.removeprefix("/tap")
        form = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        asked = {k.upper(): v[0] for k, v in parse_qs(form or urlsplit(self.path).query).items()}
        service.requests.append((method, path, asked.get("QUERY"), self.headers["User-Agent"]))
        if service.html:
            return self._send(200, b"<html><body><p>Welcome!</body></html>", "text/html")
        if "QUERY" in asked and service.statuses:
            status, wait = service.statuses.pop(0)
            return self._send(status, b"busy", "text/plain", **({"Retry_After": wait} if wait is not None else {}))
        steps = path.strip("/").split("/")
        if steps == ["sync"]:
            status, body = service.answer(asked["QUERY"])
            if status != 200:
                return self._send(status, body)
            key = uuid.uuid4().hex
            service.results[key] = body
            return self._see_other(f"/tap/results/{key}")
        if steps[0] == "results" and len(steps) == 2:
            return self._send(200, service.results.pop(steps[1]))
        if steps == ["async"] and method == "POST":
            key = uuid.uuid4().hex
            service.jobs[key] = {
                "phase": "PENDING",
                "query": asked["QUERY"],
                "message": "",
                "result": b"",
                "began": 0.0,
            }
            return self._see_other(f"/tap/async/{key}")
        if steps == ["async"]:
            return self._send(200, self._job_list(), "text/xml")
        if steps[0] == "async" and steps[1] in service.jobs:
            return self._job(method, steps[1], steps[2:], asked)
        return self._send(404, b"not here", "text/plain")

    def _job(self, method, key, steps, asked):
        service = self.service
        job = service.jobs[key]
        if method == "DELETE":
            del service.jobs[key]
            return self._see_other("/tap/async")
        if job["phase"] == "EXECUTING" and time.monotonic() - job["began"] >= service.job_seconds:
            status, body = service.answer(job["query"])
            job |= {"phase": service.job_end if status == 200 else "ERROR", "result": body}
            if job["phase"] == "ERROR":
                said = re.search(rb">([^<]+)</INFO>", body) if status != 200 else None
                job["message"] = said[1].decode() if said else "out of memory"
        if steps == ["phase"] and method == "POST":
            job |= {"phase": {"RUN": "EXECUTING", "ABORT": "ABORTED"}[asked["PHASE"]], "began": time.monotonic()}
            return self._see_other(f"/tap/async/{key}")
        if steps == ["phase"]:
            return self._send(200, job["phase"].encode(), "text/plain")
        if steps == ["results", "result"] and job["phase"] == "COMPLETED":
            return self._send(200, job["result"])
        if steps:
            return self._send(404, b"not here", "text/plain")
        base = f"http://{self.headers['Host']}/tap/async/{key}"
        done = f'<uws:result id="result" xlink:href="{base}/results/result"/>' if job["phase"] == "COMPLETED" else ""
        wrong = f'<uws:errorSummary type="fatal" hasDetail="false"><uws:message>{escape(job["message"])}</uws:message>'
        return self._send(
            200,
            f'<uws:job xmlns:uws="http://www.ivoa.net/xml/UWS/v1.0" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'version="1.1"><uws:jobId>{key}</uws:jobId><uws:phase>{job["phase"]}</uws:phase>'
            f"<uws:executionDuration>0</uws:executionDuration><uws:results>{done}</uws:results>"
            f"{wrong + '</uws:errorSummary>' if job['message'] else ''}</uws:job>".encode(),
            "text/xml",
        )

    def _job_list(self):
        listed = "".join(
            f'<uws:jobref id="{key}"><uws:phase>{job["phase"]}</uws:phase></uws:jobref>'
            for key, job in self.service.jobs.items()
        )
        return f'<uws:jobs xmlns:uws="http://www.ivoa.net/xml/UWS/v1.0" version="1.1">{listed}</uws:jobs>'.encode()

    def do_GET(self):
        self._handle("GET")

    def do_POST(self):
        self._handle("POST")

    def do_DELETE(self):
        self._handle("DELETE")


@contextmanager
def serve():
    """Run a service; gives its state, whose ``url`` is its base address."""
    service = Service()
    handler = type("Handler", (_Handler,), {"service": service})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # clients hang up as they please
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    service.url = f"http://127.0.0.1:{server.server_port}/tap"
    try:
        yield service
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
