"""What a download folder holds, where it came from and what the archive lacks: ``manifest.sqlite`` in that folder."""

import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

from xlatent.core.errors import ReadError, WriteError
from xlatent.formats.inputs import Source

NAME = "manifest.sqlite"
SELECTION = "selection.ecsv"
KINDS = ("spectrum", "arf", "rmf")  # as the retrieve service calls them
_LOCK = "fetch.lock"
_VERSION = 1
_TABLES = """
CREATE TABLE IF NOT EXISTS detection (
    obsid INTEGER, obi INTEGER, region_id INTEGER, name TEXT NOT NULL, PRIMARY KEY (obsid, obi, region_id));
CREATE TABLE IF NOT EXISTS product (
    obsid INTEGER, obi INTEGER, region_id INTEGER, kind TEXT,
    file TEXT, sha256 TEXT, bytes INTEGER, -- the file relative to the folder, NULL where the archive has none
    reason TEXT,                           -- why it has none
    time TEXT DEFAULT (datetime('now')),   -- UTC
    PRIMARY KEY (obsid, obi, region_id, kind));
CREATE TABLE IF NOT EXISTS origin (release TEXT NOT NULL);
"""


class Detection(NamedTuple):
    """Key of one detection of the catalogue."""

    obsid: int
    obi: int
    region_id: int


class Product(NamedTuple):
    """One file of a detection: its spectrum, ARF or RMF."""

    detection: Detection
    kind: str


class Manifest:
    """The manifest of a folder, open for writing; one process at a time can have it.

    Parameters
    ----------
    folder
        Download folder, made if absent.

    Raises
    ------
    WriteError
        If another process is fetching into the folder, or it cannot be written to.
    ReadError
        If there is a manifest of a newer version, or something else under its name.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        # A transaction left open is a lock that works on every system and goes with its process, however that ends.
        self._lock = sqlite3.connect(folder / _LOCK, timeout=0, isolation_level=None, check_same_thread=False)
        try:
            self._lock.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as error:
            self._lock.close()
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
                raise
            raise WriteError(
                f"another process is fetching into {folder}; wait until it is done, or choose another folder"
            ) from None
        try:
            self._database = _open(folder, "rwc")
            self._database.executescript(_TABLES + f"PRAGMA user_version = {_VERSION};")
        except BaseException:
            self._lock.close()
            raise
        self._writing = threading.Lock()

    def __enter__(self) -> "Manifest":
        return self

    def __exit__(self, *_: object) -> None:
        with self._writing:
            self._database.close()
        self._lock.close()

    def release(self) -> str | None:
        """Say which release of the catalogue the files come from; None for a new manifest."""
        row = self._database.execute("SELECT release FROM origin").fetchone()
        return row[0] if row else None

    def begin(self, release: str, names: dict[Detection, str]) -> None:
        """Take in the detections of a selection, by name, and the release they are from."""
        with self._writing, self._database:
            self._database.execute("DELETE FROM origin")
            self._database.execute("INSERT INTO origin VALUES (?)", (release,))
            rows = [(*detection, name) for detection, name in names.items()]
            self._database.executemany("INSERT OR REPLACE INTO detection VALUES (?, ?, ?, ?)", rows)

    def record_file(self, product: Product, file: Path, sha256: str, n_bytes: int) -> None:
        """Record a file that was checked and lies in its place."""
        self._record(product, file.relative_to(self.folder).as_posix(), sha256, n_bytes, None)

    def record_missing(self, product: Product, reason: str) -> None:
        """Record that the archive has no such file, and why we think so."""
        self._record(product, None, None, None, reason)

    def _record(self, product: Product, *values: str | int | None) -> None:
        columns = "obsid, obi, region_id, kind, file, sha256, bytes, reason"
        with self._writing, self._database:
            self._database.execute(
                f"INSERT OR REPLACE INTO product ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (*product.detection, product.kind, *values),
            )

    def files(self) -> dict[Product, tuple[Path, int]]:
        """List path and size of every file recorded."""
        rows = self._database.execute(
            "SELECT obsid, obi, region_id, kind, file, bytes FROM product WHERE file IS NOT NULL"
        )
        return {Product(Detection(*row[:3]), row[3]): (self.folder / row[4], row[5]) for row in rows}

    def missing(self) -> dict[Product, str]:
        """List what the archive does not have, with the reasons."""
        rows = self._database.execute("SELECT obsid, obi, region_id, kind, reason FROM product WHERE file IS NULL")
        return {Product(Detection(*row[:3]), row[3]): row[4] for row in rows}

    def delete(self, products: Iterable[Product]) -> None:
        """Delete the records of products, so that they are asked for again."""
        with self._writing, self._database:
            self._database.executemany(
                "DELETE FROM product WHERE obsid = ? AND obi = ? AND region_id = ? AND kind = ?",
                [(*product.detection, product.kind) for product in products],
            )


def sources(folder: str | Path) -> list[tuple[Source, dict[str, str | int]]]:
    """List the complete detections of a download folder.

    Parameters
    ----------
    folder
        Folder with a manifest.

    Returns
    -------
    For each detection that has its spectrum, ARF and RMF, in order of obsid, obi and region, the paths of these files
    (its background is in the spectrum's file) and a dict of name, obsid, obi and region_id.

    Raises
    ------
    ReadError
        If the folder has no manifest, or one of a newer version.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> with Manifest(folder) as manifest:
    ...     detection = Detection(1575, 1, 85)
    ...     manifest.begin("2.1", {detection: "2CXO J004248.5+411521"})
    ...     for kind in KINDS:
    ...         manifest.record_file(Product(detection, kind), folder / kind, "", 0)
    >>> [source.name for source, _ in sources(folder)]
    ['2CXOJ004248.5+411521_1575_1_85']
    """
    folder = Path(folder)
    query = """
        SELECT d.name, d.obsid, d.obi, d.region_id, s.file, a.file, r.file
        FROM detection d JOIN product s USING (obsid, obi, region_id) JOIN product a USING (obsid, obi, region_id)
            JOIN product r USING (obsid, obi, region_id)
        WHERE s.kind = 'spectrum' AND a.kind = 'arf' AND r.kind = 'rmf'
            AND s.file IS NOT NULL AND a.file IS NOT NULL AND r.file IS NOT NULL
        ORDER BY d.obsid, d.obi, d.region_id
    """
    path = folder / NAME
    try:
        with _as_read_error(path), closing(_open(folder, "ro")) as database:
            rows = database.execute(query).fetchall()
    except sqlite3.OperationalError as error:
        raise ReadError(f"{path} cannot be read ({error}); give a folder that `xlatent csc fetch` has filled") from None
    return [
        (
            Source(f"{name}_{obsid}_{obi}_{region}".replace(" ", ""), *(folder / file for file in files)),
            {"name": name, "obsid": obsid, "obi": obi, "region_id": region},
        )
        for name, obsid, obi, region, *files in rows
    ]


def _open(folder: Path, mode: str) -> sqlite3.Connection:
    """Open the manifest and make sure that this version can read it."""
    path = folder / NAME
    with _as_read_error(path):
        # 30 s: for as long as somebody else may be reading or writing.
        uri = f"{path.absolute().as_uri()}?mode={mode}"
        database = sqlite3.connect(uri, timeout=30, uri=True, check_same_thread=False)
        try:
            version = database.execute("PRAGMA user_version").fetchone()[0]
            if version > _VERSION:
                raise ReadError(
                    f"{path} is of version {version}, and this xlatent reads up to {_VERSION}; use a newer xlatent"
                )
        except BaseException:
            database.close()
            raise
    return database


@contextmanager
def _as_read_error(path: Path) -> Iterator[None]:
    """Turn what SQLite says of a file that is no manifest into one sentence."""
    try:
        yield
    except sqlite3.OperationalError:
        raise  # the manifest is missing, or the disk full: that depends on what it was wanted for
    except sqlite3.DatabaseError as error:
        raise ReadError(
            f"{path} should be the manifest of a download folder, and it is none ({error}); remove it and fetch again"
        ) from None
