"""GAVO DaCHS, where it is installed (Debian: gavodachs2-server), with the tables of the small service."""

import csv
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest

from .tap import SCHEMA, UNITS, rows

_INPUTS = Path("/var/gavo/inputs/csc21")
_URL = "http://localhost:8080/tap"
_TYPES = {"char": "text", "double": "double precision", "int": "integer", "boolean": "boolean"}


def _describe(folder):
    """A resource descriptor, and its tables as CSV."""
    tables, data = [], []
    for table, content in rows().items():
        columns = []
        for name, kind in SCHEMA[table].items():
            unit = f' unit="{UNITS[name]}"' if UNITS.get(name, " ").find(" ") < 0 else ""
            null = '<values nullLiteral="-9999"/>' if kind == "int" else ""
            must = ' required="True"' if kind == "boolean" else ""
            columns.append(f'<column name="{name}" type="{_TYPES[kind]}"{unit}{must}>{null}</column>')
        tables.append(f'<table id="{table}" onDisk="True" adql="True">{"".join(columns)}</table>')
        data.append(f'<data id="of_{table}"><sources>{table}.csv</sources><csvGrammar/><make table="{table}"/></data>')
        with (folder / f"{table}.csv").open("w", newline="") as stream:
            writer = csv.DictWriter(stream, SCHEMA[table])
            writer.writeheader()
            for row in content:
                kinds = SCHEMA[table]
                writer.writerow({n: bool(v) if kinds[n] == "boolean" else v for n, v in row.items()})
    about = "".join(f'<meta name="{key}">test</meta>' for key in ("title", "description", "subject", "creator"))
    date = '<meta name="creationDate">2026-01-01T00:00:00Z</meta>'
    text = f'<resource schema="csc21">{date}{about}{"".join(tables)}{"".join(data)}</resource>'
    (folder / "q.rd").write_text(text)


@contextmanager
def serve():
    """Run DaCHS; gives its address. Skips the test where it is not installed."""
    if not shutil.which("dachs") or os.getuid() != 0:
        pytest.skip("GAVO DaCHS is not installed (apt-get install gavodachs2-server), or this is not root")
    with socket.socket() as probe:
        if _INPUTS.exists() or probe.connect_ex(("localhost", 8080)) == 0:
            pytest.skip(f"a DaCHS of somebody else's is at work here: {_INPUTS} or port 8080 is taken")
    version = next(Path("/etc/postgresql").iterdir()).name
    was_down = subprocess.run(["pg_ctlcluster", version, "main", "status"], capture_output=True).returncode != 0
    if was_down:
        subprocess.run(["pg_ctlcluster", version, "main", "start"], check=True, capture_output=True)
    server = None
    who = {"user": "dachsroot", "group": "gavo", "cwd": "/", "env": {"PATH": os.environ["PATH"], "HOME": "/tmp"}}
    try:
        _INPUTS.mkdir()
        _describe(_INPUTS)
        shutil.chown(_INPUTS, "dachsroot")
        loaded = subprocess.run(["/usr/bin/dachs", "imp", "csc21/q"], capture_output=True, text=True, **who)
        assert loaded.returncode == 0, loaded.stdout + loaded.stderr
        command = ["/usr/bin/dachs", "serve", "debug"]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        server = subprocess.Popen(command, start_new_session=True, **quiet, **who)
        for _ in range(120):
            try:
                urllib.request.urlopen(f"{_URL}/availability", timeout=5).close()
                break
            except OSError:
                time.sleep(0.25)
        yield _URL
    finally:
        if server is not None:
            os.killpg(server.pid, signal.SIGTERM)
            server.wait(20)
        subprocess.run(["/usr/bin/dachs", "drop", "-f", "csc21/q"], capture_output=True, **who)
        shutil.rmtree(_INPUTS)
        if was_down:
            subprocess.run(["pg_ctlcluster", version, "main", "stop"], check=True, capture_output=True)
