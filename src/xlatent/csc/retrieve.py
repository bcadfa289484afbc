"""Spectra, ARFs and RMFs of the Chandra Source Catalog, from its retrieve service into a folder with a manifest."""

import hashlib
import io
import re
import shutil
import sqlite3
import tarfile
import threading
import time
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, BinaryIO, cast

import numpy as np
from astropy.table import TableMergeError, unique, vstack

from xlatent.core.atomic import atomic, remove_temporaries
from xlatent.core.errors import ParameterError, ReadError, WriteError, XlatentWarning
from xlatent.core.extras import requires_extra
from xlatent.csc.manifest import KINDS, SELECTION, Detection, Manifest, Product
from xlatent.csc.products import detection_in, identify
from xlatent.csc.query import write
from xlatent.formats.catalogue_tables import read_columns

if TYPE_CHECKING:
    import httpx

SERVICE = "https://cda.cfa.harvard.edu/csccli/retrieve"
PACKAGE_SIZE = 50  # detections asked for in one request
MAX_CONNECTIONS = 3  # requests under way
MAX_ATTEMPTS = 3  # times that a file is asked for before it counts as one that the archive does not have
MAX_FAILURES = 6  # requests in a row that bring nothing before we leave the archive in peace
MAX_WAIT = 600.0  # s, whatever the archive asks for
_COLUMNS = ("name", "obsid", "obi", "region_id")
NOT_FOUND = (404, 410)
RETRY_LATER = (429, 503)


@dataclass
class Report:
    """What a run of `fetch` found and did."""

    detections: int
    """Detections of the selection."""
    complete: int = 0
    """Those of them that are now complete: spectrum, ARF and RMF."""
    files: int = 0
    """Files that came in this run."""
    n_bytes: int = 0
    """Bytes that came in this run, those of files that were no good among them."""
    requests: int = 0
    """Requests made."""
    missing: dict[Product, str] = field(default_factory=dict)
    """What the archive does not have, of the selection, with the reasons."""
    failed: dict[Product, str] = field(default_factory=dict)
    """What could not be had this time, with the reasons; the next run asks for it again."""


@dataclass
class _Answer:
    """How one request for a package went."""

    package: list[Product]
    came: set[Product] = field(default_factory=set)
    faults: dict[Detection | None, str] = field(default_factory=dict)  # of files that came and were no good
    trouble: str = ""  # why the package did not come to its end
    status: int | None = None
    wait: float = 0.0  # s, as the archive asks


def fetch(
    selection: str | Path,
    folder: str | Path,
    service: str = SERVICE,
    *,
    retry_missing: bool = False,
    progress: Callable[[int, int, int], None] | None = None,
    pause: float = 2.0,
    timeout: float = 300.0,
) -> Report:
    """Fetch the spectra and responses of the detections of a selection.

    What the folder already holds is not asked for again. The run may be killed at any moment: the next one takes up
    where it stopped.

    Parameters
    ----------
    selection
        Table (ECSV) with columns ``name, obsid, obi, region_id``; ``release`` in its metadata.
    folder
        Where the files go, made if absent: ``manifest.sqlite``, ``selection.ecsv`` and one folder for each ObsID.
        The rows of a further selection are added to those of the first.
    service
        URL of the retrieve service.
    retry_missing
        Ask again for what the archive did not have in earlier runs.
    progress
        Called with the files in place, the files wanted and the bytes that came.
    pause
        Seconds to wait after a request that brought nothing; doubled with each further one.
    timeout
        Seconds without a byte after which a request is given up.

    Raises
    ------
    ReadError
        If the selection cannot be read, or the archive cannot be reached or does not work.
    WriteError
        If the folder cannot be written to, is full, or another process is fetching into it.
    ParameterError
        If the service is no URL.
    XlatentError
        If httpx is not installed.

    Notes
    -----
    The service takes a form with ``packageset``, a comma-separated list of ``obsid.obi.region/filetype/band``, and
    ``version``, and answers with a tar file; errors may come as text with status 200. It is documented in CIAO's thread
    "CSC command line interface", https://cxc.cfa.harvard.edu/ciao/threads/csccli/.
    """
    with requires_extra("csc", "httpx"):
        import httpx
    from xlatent.core.version import __version__

    try:
        url = httpx.URL(service)
    except (httpx.InvalidURL, TypeError) as error:
        raise ParameterError(f"{service!r} should be the URL of a retrieve service, and it is none ({error})") from None
    if url.scheme not in ("http", "https") or not url.host:
        raise ParameterError(f"{service!r} should be the URL of a retrieve service, http://... or https://...")
    selection, folder = Path(selection), Path(folder)
    names, release = _read_selection(selection)
    try:
        with Manifest(folder) as manifest:
            _keep_selection(selection, release, manifest)
            manifest.begin(release, names)
            with httpx.Client(
                headers={"User-Agent": f"xlatent/{__version__}"},
                timeout=httpx.Timeout(timeout, connect=min(30.0, timeout)),
                follow_redirects=True,
            ) as client:
                run = _Run(client, service, release, manifest, names, retry_missing, progress, pause)
                return run.fetch()
    except (OSError, sqlite3.OperationalError) as error:
        reason = getattr(error, "strerror", None) or error
        raise WriteError(
            f"{folder} cannot be written to ({reason}); make room or choose another folder, and run the command again: "
            "what has come is kept"
        ) from None


class _Run:
    """One run of `fetch`."""

    def __init__(
        self,
        client: "httpx.Client",
        service: str,
        release: str,
        manifest: Manifest,
        names: dict[Detection, str],
        retry_missing: bool,
        progress: Callable[[int, int, int], None] | None,
        pause: float,
    ) -> None:
        self.client, self.service, self.manifest, self.pause = client, service, manifest, pause
        self.version = release if release == "cur" else f"rel{release}"
        self.report = Report(len(names))
        self.selected = [Product(detection, kind) for detection in names for kind in KINDS]
        self.progress = progress or (lambda *_: None)
        self.stopped = threading.Event()
        self.counting = threading.Lock()
        _recover(manifest)
        held, missing = manifest.files(), manifest.missing()
        # A file may have been removed, or cut short by a full disk, behind our back.
        gone = [p for p in self.selected if p in held and not _whole(*held[p])]
        again = [p for p in self.selected if p in missing] if retry_missing else []
        manifest.delete(gone + again)
        settled = (held.keys() | missing.keys()) - set(gone) - set(again)
        self.wanted = [product for product in self.selected if product not in settled]
        self.in_place = sum(product in held for product in self.selected) - len(gone)

    def fetch(self) -> Report:
        """Ask for all that is wanted, a few packages at a time, until it is there or cannot be had."""
        todo = deque(_packages(self.wanted))
        attempts: Counter[Product] = Counter()
        running: set[Future[_Answer]] = set()
        failures, quiet_until = 0, 0.0
        try:
            while todo or running:
                # An archive in trouble is asked one thing at a time.
                while todo and len(running) < (1 if failures else MAX_CONNECTIONS):
                    time.sleep(max(0.0, quiet_until - time.monotonic()))
                    running.add(self._start(todo.popleft()))
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    answer = future.result()
                    gone = answer.status in NOT_FOUND and self.report.files > 0
                    failures = 0 if answer.came or gone or not answer.trouble else failures + 1
                    if failures and (failures >= MAX_FAILURES or self._unreachable(answer)):
                        raise ReadError(self._failure_message(answer, failures))
                    if (answer.trouble or not answer.came) and not gone:
                        pause = max(min(answer.wait, MAX_WAIT), self.pause * 2 ** max(failures - 1, 0))
                        quiet_until = time.monotonic() + pause
                        if answer.wait > 30:
                            told = f"{self.service} asks us to wait {pause:.0f} s ({answer.trouble}); waiting"
                            warnings.warn(told, XlatentWarning, stacklevel=3)
                    todo.extend(self._left(answer, attempts, gone))
        finally:
            self.stopped.set()
        held, missing = self.manifest.files(), self.manifest.missing()
        self.report.missing = {product: missing[product] for product in self.selected if product in missing}
        whole = Counter(product.detection for product in self.selected if product in held)
        self.report.complete = sum(number == len(KINDS) for number in whole.values())
        return self.report

    def _left(self, answer: _Answer, attempts: Counter[Product], gone: bool) -> list[list[Product]]:
        """Packages in which to ask again for what an answer did not bring."""
        left = [product for product in answer.package if product not in answer.came]
        if not left:
            return []
        if not answer.trouble or len(answer.package) == 1:
            again = []
            for product in left:
                attempts[product] += 1
                fault = answer.faults.get(product.detection) or answer.faults.get(None)
                if gone:
                    self.manifest.record_missing(product, answer.trouble)
                elif attempts[product] < MAX_ATTEMPTS:
                    again.append(product)
                elif answer.trouble:
                    self.report.failed[product] = answer.trouble
                else:
                    self.manifest.record_missing(
                        product, fault or "it was not in the package that the archive sent for it"
                    )
            return [again] if again else []
        if answer.came or answer.status in RETRY_LATER:
            return [left]
        # One product may have spoilt the package for the others.
        middle = len(left) // 2
        return [left[:middle], left[middle:]]

    def _unreachable(self, answer: _Answer) -> bool:
        """Tell whether not even the first word came from the archive: a wrong name, or no network."""
        return answer.status is None and self.report.files == 0 and answer.trouble.startswith("no connection")

    def _failure_message(self, answer: _Answer, failures: int) -> str:
        held = f"{self.in_place} of {len(self.selected)} files are in {self.manifest.folder}"
        if self._unreachable(answer):
            return f"{self.service} cannot be reached: {answer.trouble}; check the network and the host's name; {held}"
        return (
            f"{self.service} answered {failures} requests in a row with nothing of use (the last: {answer.trouble}); "
            f"check the URL or run the command again later, {held}"
        )

    def _start(self, package: list[Product]) -> "Future[_Answer]":
        """Ask for a package in a thread of its own.

        A daemon, unlike those of an executor: an interrupt need not wait for a silent archive, and all that is written
        is kill-proof.
        """
        future: Future[_Answer] = Future()

        def work() -> None:
            try:
                future.set_result(self._ask(package))
            except BaseException as error:  # raised again where the result is asked for
                future.set_exception(error)

        threading.Thread(target=work, daemon=True).start()
        self.report.requests += 1
        return future

    def _ask(self, package: list[Product]) -> _Answer:
        """Ask for a package and keep what comes of it."""
        import httpx

        answer = _Answer(package)
        form = {
            "packageset": ",".join(f"{'.'.join(map(str, detection))}/{kind}/b" for detection, kind in package),
            "version": self.version,
        }
        try:
            with self.client.stream("POST", self.service, data=form) as response:
                answer.status = response.status_code
                if response.status_code != 200:
                    answer.trouble, answer.wait = f"HTTP status {response.status_code}", _retry_after(response)
                    return answer
                self._unpack(_Body(self._chunks(response, answer)), answer)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            answer.trouble = f"no connection ({_plain(error)})"
        except (httpx.HTTPError, httpx.StreamError) as error:
            answer.trouble = f"the connection broke ({_plain(error)})"
        except tarfile.TarError as error:
            answer.trouble = answer.trouble or f"the package is damaged ({_plain(error)})"
        return answer

    def _chunks(self, response: "httpx.Response", answer: _Answer) -> Iterator[bytes]:
        """Pieces of a response, counted, until there are no more, the connection breaks or the run is over."""
        import httpx

        try:
            for chunk in response.iter_bytes():
                if self.stopped.is_set():
                    return
                self._count(n_bytes=len(chunk))
                yield chunk
        except (httpx.HTTPError, httpx.StreamError) as error:  # not raised: what came before it is to be used
            answer.trouble = f"the connection broke ({_plain(error)})"

    def _count(self, n_files: int = 0, n_bytes: int = 0) -> None:
        with self.counting:
            self.report.files += n_files
            self.report.n_bytes += n_bytes
            self.in_place += n_files
            self.progress(self.in_place, len(self.selected), self.report.n_bytes)

    def _unpack(self, body: "_Body", answer: _Answer) -> None:
        """Take the files of a package as they come: each is written aside, checked, moved to its place, recorded."""
        start = body.peek(512)
        if start[257:262] != b"ustar" and (start.strip(b"\0") or not start):
            text = " ".join(start.decode("ascii", "replace").split())[:120]
            answer.trouble = f"no tar file but the text {text!r}" if text else "an empty answer"
            return
        wanted = set(answer.package)
        with tarfile.open(fileobj=cast(BinaryIO, body), mode="r|") as tar:
            for member in tar:
                path = PurePosixPath(member.name)
                if member.isdir():
                    continue
                plain = (
                    re.fullmatch(r"\w[\w.+-]{0,199}", path.name) and not path.is_absolute() and ".." not in path.parts
                )
                if not (member.isfile() and plain):
                    answer.faults[None] = f"the package held {member.name!r}, which is no plain file of a plain name"
                    continue
                self._take(cast(io.BufferedIOBase, tar.extractfile(member)), path.name, wanted, answer)

    def _take(self, content: io.BufferedIOBase, name: str, wanted: set[Product], answer: _Answer) -> None:
        """Check one file of a package and keep it if it is good and was asked for."""
        part = self.manifest.folder / f"{name}.{threading.get_ident()}.part"
        try:
            digest = _write(content, part)
            try:
                product = identify(part, name)
            except ReadError as error:
                answer.faults[detection_in(name)] = str(error).replace(str(part), name)
                return
            if product not in wanted:
                answer.faults[None] = f"the package held {name}, which was not asked for"
                return
            if product not in answer.came and not self.stopped.is_set():
                file = self.manifest.folder / f"{product.detection.obsid:05d}" / name
                file.parent.mkdir(exist_ok=True)
                part.replace(file)
                self.manifest.record_file(product, file, digest, file.stat().st_size)
                answer.came.add(product)
                self._count(n_files=1)
        finally:
            part.unlink(missing_ok=True)


class _Body:
    """The body of a response as tarfile reads it, with a look at its beginning."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._held = bytearray()

    def peek(self, size: int) -> bytes:
        while len(self._held) < size and (chunk := next(self._chunks, b"")):
            self._held += chunk
        return bytes(self._held[:size])

    def read(self, size: int) -> bytes:
        taken = self.peek(size)
        del self._held[: len(taken)]
        return taken


def _read_selection(path: Path) -> tuple[dict[Detection, str], str]:
    """Names of the detections of a selection, and the release it was made from."""
    if path.suffix != ".ecsv":
        raise ReadError(f"{path} should be a selection in ECSV, with suffix .ecsv; make it with `xlatent csc select`")
    table = read_columns(path, _COLUMNS)
    names = {}
    for number, (name, *key) in enumerate(zip(*(table[column] for column in _COLUMNS), strict=True), start=1):
        try:
            if np.ma.is_masked(name):
                raise ValueError
            names[Detection(*(int(part) for part in key))] = str(name).strip()
        except (ValueError, TypeError, np.ma.MaskError):
            raise ReadError(
                f"{path}: row {number} should have a name and whole numbers for obsid, obi and region_id, and it has "
                f"{name}, {', '.join(map(str, key))}; correct it"
            ) from None
    release = str(table.meta.get("release") or "2.1").removeprefix("rel").strip()
    return names, "cur" if release == "current" else release


def _keep_selection(path: Path, release: str, manifest: Manifest) -> None:
    """Lay the selection beside the files; where another one lies there, its rows stay."""
    before = manifest.release()
    if before not in (None, release):
        raise ReadError(
            f"{manifest.folder} holds files of release {before} of the catalogue, and {path} is a selection from "
            f"release {release}; choose another folder"
        )
    kept = manifest.folder / SELECTION
    if not kept.exists():
        with atomic(kept) as temporary:
            shutil.copyfile(path, temporary)
    elif not kept.samefile(path) and kept.read_bytes() != path.read_bytes():
        both = [read_columns(table) for table in (kept, path)]
        try:
            merged = unique(vstack(both, metadata_conflicts="silent"), keys=_COLUMNS[1:], keep="last")
        except TableMergeError as error:
            raise ReadError(
                f"{path} cannot be added to {kept}, whose columns are of other kinds ({_plain(error)[:120]}); choose "
                "another folder"
            ) from None
        write(merged, kept)


def _recover(manifest: Manifest) -> None:
    """Put right what a run that was killed has left: halves of files, and files in place but not recorded."""
    remove_temporaries(manifest.folder)
    for part in manifest.folder.glob("*.part"):
        part.unlink()
    held = manifest.files()
    known = {file for file, _ in held.values()}
    for file in manifest.folder.glob("[0-9]*/*.fits*"):
        if file not in known:
            try:
                product = identify(file)
            except ReadError:
                continue  # not ours
            if product not in held:
                with file.open("rb") as stream:
                    digest = hashlib.file_digest(stream, "sha256").hexdigest()
                manifest.record_file(product, file, digest, file.stat().st_size)


def _whole(file: Path, n_bytes: int) -> bool:
    return file.is_file() and file.stat().st_size == n_bytes


def _packages(products: list[Product]) -> Iterator[list[Product]]:
    """Split products into packages of at most `PACKAGE_SIZE` detections."""
    of: dict[Detection, list[Product]] = {}
    for product in products:
        of.setdefault(product.detection, []).append(product)
    groups = list(of.values())
    for start in range(0, len(groups), PACKAGE_SIZE):
        yield [product for group in groups[start : start + PACKAGE_SIZE] for product in group]


def _write(content: io.BufferedIOBase, file: Path) -> str:
    """Write what can be read to a file; gives its sha256."""
    digest = hashlib.sha256()
    with file.open("wb") as out:
        while piece := content.read(1 << 16):
            digest.update(piece)
            out.write(piece)
    return digest.hexdigest()


def _retry_after(response: "httpx.Response") -> float:
    """Seconds that the archive asks us to wait: the header holds a number or a date (RFC 9110, 10.2.3)."""
    text = response.headers.get("Retry-After", "").strip()
    try:
        return float(text) if text.isdigit() else max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except ValueError:
        return 0.0


def _plain(error: object) -> str:
    """What an error says, in one line."""
    return " ".join(str(error).split()) or type(error).__name__
