"""A retrieve service on loopback: tar packages of simulated products of any detection, which fails when told to.

    python tests/csc/services/archive.py --port 8471 --faults 500,cut,wrong

GET /counts gives what was asked for and served; POST /faults with a comma-separated list in the body tells it how the
next requests are to fail, one each. absent:30.0.2/rmf in such a list is for good: packages come without that product;
404:30.0.2/rmf and text:30.0.2/rmf: packages with it are refused so. An empty list takes all of that back.
"""

import argparse
import contextlib
import gzip
import io
import json
import socket
import tarfile
import tempfile
import threading
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs

import numpy as np
from astropy.io import fits

from xlatent.core.spectrum import Spectrum
from xlatent.simulate import acis, population

Key = tuple[int, int, int]
FAULTS = (
    "slow",  # a tenth of a second between pieces
    "stall",  # nothing more comes after the middle, for three seconds
    "cut",  # the connection closes in the middle
    "500",
    "503",  # with Retry-After: 1
    "text",  # status 200, body "Error executing query:"
    "empty",  # a tar without members
    "wrong",  # the products of another detection under the names of the first one
    "other",  # the products of another detection under its own names in place of the first one's
    "truncated",  # the RMF of the first detection is cut short
    "plain",  # the same without gzip
    "escape",  # members named ../ and /, and a link
)
SUFFIX = {"spectrum": "pha3", "arf": "arf3", "rmf": "rmf3"}
STATES = (("BI", 2001.0), ("FI", 2005.0), ("BI", 2016.0))


N_SOURCES = 20  # of the population, in each state; detections differ in counts and noise too
ROW = np.dtype([("CHANNEL", ">i4"), ("PI", ">f8"), ("COUNTS", ">i4"), ("COUNT_RATE", ">f8")])
_MAKING = threading.Lock()  # one thread at a time
NOBODY: Key = (99999, 888, 7777)  # whose identity stands in the templates


@cache
def _made(number: int):
    """An instrument state: expected counts of some sources, exposure and, for each kind, a file of nobody's identity.

    That of a spectrum is whole, with the places of its two tables; those of ARF and RMF are the headers and the rest,
    packed.
    """
    response = acis.response(*STATES[number])
    matrix = response.redistribution
    matrix.data = np.where(matrix.data < 1e-4, 0.0, np.round(matrix.data, 5))  # small files
    matrix.eliminate_zeros()
    exposure = (2e4, 5e4, 9e4)[number]
    files = {}
    with tempfile.TemporaryDirectory() as folder:
        Spectrum(np.zeros(1024), exposure, response=response).to_ogip(folder, "x")
        for kind in ("arf", "rmf"):
            with fits.open(Path(folder) / f"x.{kind}") as hdus:
                hdus[1].header.update(_identity())
                content, places = _laid_out(hdus)
            files[kind] = content[: places[0]], gzip.compress(content[places[0] :], 6)
    files["spectrum"] = _laid_out(fits.HDUList([fits.PrimaryHDU(), *_pha(exposure, number)]))
    edges = np.append(response.energy_lo, response.energy_hi[-1])
    sources = population.spectra(edges, population.draw(np.random.default_rng(number), N_SOURCES))
    in_band = (response.chan_lo > 0.5) & (response.chan_hi < 7.0)
    folded = np.array([response.fold(source) for source in sources])
    return folded / folded[:, in_band].sum(axis=1, keepdims=True), np.where(in_band, 0.02, 0.0), exposure, files


def _state(number: int):
    with _MAKING:
        return _made(number)


def _laid_out(hdus: fits.HDUList) -> tuple[bytes, list[int]]:
    """Bytes of a file, and where in them the rows of each table begin."""
    plain = io.BytesIO()
    hdus.writeto(plain)
    with fits.open(io.BytesIO(plain.getvalue())) as written:
        return plain.getvalue(), [hdu.fileinfo()["datLoc"] for hdu in written[1:]]


def _identity() -> dict:
    return {"OBS_ID": str(NOBODY[0]), "OBI_NUM": NOBODY[1], "REGIONID": f"{NOBODY[2]:04d}"}


def _pha(exposure: float, number: int) -> list[fits.BinTableHDU]:
    """Tables of source and background, as the catalogue has them in one file, without counts."""
    itself = {
        keyword: name_of(NOBODY, kind).removesuffix(".gz")
        for keyword, kind in (("ANCRFILE", "arf"), ("RESPFILE", "rmf"), ("BACKFILE", "spectrum"))
    }
    tables = []
    for hduclas2, backscale, companions in (("TOTAL", 2.2e-6, itself), ("BKG", 4.4e-5, dict.fromkeys(itself, "none"))):
        table = fits.BinTableHDU(np.zeros(1024, ROW), name="SPECTRUM", ver=len(tables) + 1)
        table.header.update(
            {
                "TLMIN1": 1, "TLMAX1": 1024, "HDUCLASS": "OGIP", "HDUCLAS1": "SPECTRUM", "HDUCLAS2": hduclas2,
                "TELESCOP": "CHANDRA", "INSTRUME": "ACIS", "FILTER": "NONE", "CHANTYPE": "PI", "DETCHANS": 1024,
                "EXPOSURE": exposure, "BACKSCAL": backscale, "AREASCAL": 1.0, "POISSERR": True, "GROUPING": 0,
                "QUALITY": 0, "DATE-OBS": f"{STATES[number][1]:.0f}-01-01T00:00:00", **companions, **_identity(),
            }
        )  # fmt: skip
        tables.append(table)
    return tables


def _stamp(header: bytes, key: Key) -> bytes:
    """Write the identity of a detection over that of nobody: all is of fixed width."""
    for nobody, somebody in (
        (name_of(NOBODY, "").split("N")[0], name_of(key, "").split("N")[0]),
        (f"_r{NOBODY[2]:04d}_", f"_r{key[2]:04d}_"),
        (f"OBS_ID  = '{NOBODY[0]:<8}'", f"OBS_ID  = '{key[0]:<8}'"),
        (f"OBI_NUM = {NOBODY[1]:>20}", f"OBI_NUM = {key[1]:>20}"),
        (f"REGIONID= '{NOBODY[2]:04d}", f"REGIONID= '{key[2]:04d}"),
    ):
        header = header.replace(nobody.encode(), somebody.encode())
    return header


def name_of(key: Key, kind: str) -> str:
    """File name in the archive: the response may be of another version than the spectrum."""
    version = 22 if kind == "spectrum" else 21
    return f"acisf{key[0]:05d}_{key[1]:03d}N{version:03d}_r{key[2]:04d}_{SUFFIX.get(kind, kind)}.fits.gz"


def product(key: Key, kind: str) -> bytes:
    """A product of a detection, gzipped; the same bytes each time."""
    sources, particles, exposure, files = _state(key[0] % len(STATES))
    content, more = files[kind]
    if kind != "spectrum":
        return gzip.compress(_stamp(content, key), 1, mtime=0) + more  # gzip files can be laid end to end
    rng = np.random.default_rng(key)
    expected = rng.choice(sources) * 10 ** rng.uniform(1.6, 3.5)
    whole = bytearray(_stamp(content, key))
    for place, mean in zip(more, (expected + particles, 20.0 * particles), strict=True):
        rows = np.zeros(1024, ROW)
        rows["CHANNEL"] = rows["PI"] = np.arange(1, 1025)
        rows["COUNTS"] = rng.poisson(mean)
        rows["COUNT_RATE"] = rows["COUNTS"] / exposure
        whole[place : place + rows.nbytes] = rows.tobytes()
    return gzip.compress(bytes(whole), 1, mtime=0)


def _product(text: str) -> tuple[Key, str]:
    """Key and kind of a product written as 30.0.2/rmf."""
    key, kind = text.split("/")
    return tuple(int(part) for part in key.split(".")), kind


@dataclass
class Archive:
    """The service; `with Archive() as archive` runs it."""

    port: int = 0
    rate: float = 0.0
    """Bytes a second and request; 0 for as fast as it goes."""
    faults: deque = field(default_factory=deque)
    """What is to befall the next requests, one each; "" for nothing."""
    absent: set = field(default_factory=set)
    """Products (key, kind) that packages come without."""
    gone: set = field(default_factory=set)
    """Products for which any package that asks for them is answered with status 404."""
    poison: set = field(default_factory=set)
    """Products for which any package that asks for them is answered with an error text."""
    requests: list = field(default_factory=list)
    """One dict a request: asked, served (lists of products), bytes, status, agent, version, time."""

    def __enter__(self):
        archive = self

        class Handler(_Handler):
            service = archive

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/csccli/retrieve"

    def tell(self, faults: str) -> None:
        """Take a list of faults, as the module says."""
        lasting = {"absent": self.absent, "404": self.gone, "text": self.poison}
        for fault in faults.split(","):
            how, _, product = fault.partition(":")
            if product:
                lasting[how].add(_product(product))
            elif fault:
                self.faults.append(fault)
            else:
                for store in (self.faults, *lasting.values()):
                    store.clear()

    def counts(self) -> dict:
        """Requests, bytes, detections asked for at most in one, and how often each product was served."""
        served = Counter(product for request in self.requests for product in request["served"])
        return {
            "requests": len(self.requests),
            "bytes": sum(request["bytes"] for request in self.requests),
            "products": len(served),
            "served_twice": sorted(f"{'.'.join(map(str, k))}/{kind}" for (k, kind), n in served.items() if n > 1),
            "largest_package": max((len({key for key, _ in r["asked"]}) for r in self.requests), default=0),
            "statuses": dict(Counter(str(request["status"]) for request in self.requests)),
        }


class _Handler(BaseHTTPRequestHandler):
    service: Archive

    def log_message(self, *_):
        pass

    def do_GET(self):
        self._reply(200, json.dumps(self.service.counts()).encode(), "application/json")

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        if self.path == "/faults":
            self.service.tell(body)
            return self._reply(200, b"ok")
        form = {name: values[0] for name, values in parse_qs(body).items()}
        # Without the band.
        asked = [_product(package.rpartition("/")[0]) for package in form.get("packageset", "").split(",")]
        request = {
            "asked": asked, "served": [], "bytes": 0, "status": 200, "time": time.monotonic(),
            "agent": self.headers.get("User-Agent"), "version": form.get("version"),
        }  # fmt: skip
        self.service.requests.append(request)
        fault = self.service.faults.popleft() if self.service.faults else ""
        if fault in ("500", "503"):
            request["status"] = int(fault)
            return self._reply(int(fault), b"out of order", **({"retry_after": "1"} if fault == "503" else {}))
        if any(product in self.service.gone for product in asked):
            request["status"] = 404
            return self._reply(404, b"not found")
        if fault == "text" or any(product in self.service.poison for product in asked):
            return self._reply(200, b"Error executing query:\n  ORA-00936: missing expression\n")
        # A client that was killed, or has lost patience, is no error of ours.
        with contextlib.suppress(ConnectionError):
            self._package(request, asked, fault)

    def _reply(self, status, content, kind="text/plain", retry_after=None):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        if retry_after:
            self.send_header("Retry-After", retry_after)
        self.end_headers()
        self.wfile.write(content)

    def _package(self, request, asked, fault):
        """Send a tar member by member, as it is made: without a length, in chunks, as real packages come."""
        self.protocol_version = "HTTP/1.1"
        self.send_response(200)
        self.send_header("Content-Type", "application/x-tar")
        self.send_header("Transfer-Encoding", "chunked")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        first = asked[0][0]
        stranger = (first[0] + 300, *first[1:])  # same instrument state
        middle = len(asked) // 2
        for number, (key, kind) in enumerate(asked):
            if (key, kind) in self.service.absent or fault == "empty":
                continue
            name, good = name_of(key, kind), True
            content = product(key, kind)
            if fault in ("wrong", "other") and key == first:
                content, good = product(stranger, kind), False
                name = name_of(stranger, kind) if fault == "other" else name
            if fault == "truncated" and key == first and kind == "rmf":
                content, good = content[: len(content) // 2], False
            if fault == "plain" and key == first:
                content, good, name = gzip.decompress(content)[:20000], False, name.removesuffix(".gz")
            if fault == "escape" and key == first:
                good = False
                name = {"spectrum": f"../{name}", "arf": f"/tmp/{name}"}.get(kind, name)
            info = tarfile.TarInfo(name)
            info.size = len(content)
            if fault == "escape" and key == first and kind == "rmf":
                info.type, info.linkname, info.size, content = tarfile.SYMTYPE, "/etc/passwd", 0, b""
            member = info.tobuf() + content + bytes(-len(content) % 512)
            if fault in ("cut", "stall") and number == middle:
                self._send(request, member[: len(member) // 2])
                time.sleep(3.0 if fault == "stall" else 0.0)
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            self._send(request, member, 0.1 if fault == "slow" else 0.0)
            if good:
                request["served"].append((key, kind))
        self._send(request, bytes(10240))
        self.wfile.write(b"0\r\n\r\n")

    def _send(self, request, content, wait=0.0):
        piece = 32768
        for start in range(0, len(content), piece):
            part = content[start : start + piece]
            self.wfile.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
            request["bytes"] += len(part)
            time.sleep(wait + (len(part) / self.service.rate if self.service.rate else 0.0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, default=0, help="0 for any free one, which is printed")
    parser.add_argument("--rate", type=float, default=0.0, help="bytes a second and request; 0 for no limit")
    parser.add_argument("--faults", default="", help=f"what befalls the first requests: {', '.join(FAULTS)}")
    options = parser.parse_args()
    with Archive(port=options.port, rate=options.rate) as archive:
        archive.tell(options.faults)
        print(archive.url, flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
