"""Fetching from a retrieve service on loopback, whatever befalls it on the way."""

import hashlib
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from email.utils import formatdate
from pathlib import Path

import httpx
import numpy as np
import pytest
import typer
from astropy.table import MaskedColumn, Table
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from xlatent.cli.csc_fetch import fetch as command
from xlatent.cli.main import _Plain
from xlatent.core.errors import ReadError, WriteError
from xlatent.csc.manifest import KINDS, Detection, Manifest, Product, sources
from xlatent.csc.products import identify
from xlatent.csc.retrieve import _retry_after, fetch
from xlatent.formats import ogip_spectrum

from .services import archive as service

QUICK = {"pause": 0.01}
app = typer.Typer(cls=_Plain)
app.callback()(lambda: None)
app.command("fetch")(command)
# The same command in a process of its own.
PROCESS = (
    "import typer; from xlatent.cli.main import _Plain; from xlatent.cli.csc_fetch import fetch; "
    "app = typer.Typer(cls=_Plain); app.callback()(lambda: None); app.command('fetch')(fetch); app()"
)


def keys_of(n: int) -> list[Detection]:
    return [Detection(30 + 3 * (i // 3), 0, 1 + i % 3) for i in range(n)]


def write_selection(path: Path, keys, release: str = "2.1", **columns) -> Path:
    obsid, obi, region_id = zip(*keys, strict=True)
    names = [f"2CXO J{o:06d}.0+{r:06d}" for o, r in zip(obsid, region_id, strict=True)]
    table = Table({"name": names, "obsid": obsid, "obi": obi, "region_id": region_id, **columns})
    table.meta["release"] = release
    table.write(path, format="ascii.ecsv", overwrite=True)
    return path


@pytest.fixture
def archive():
    with service.Archive() as running:
        yield running


@pytest.fixture
def four(tmp_path) -> Path:
    return write_selection(tmp_path / "four.ecsv", keys_of(4))


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "csc"


def run(*arguments):
    result = CliRunner().invoke(app, ["fetch", *map(str, arguments)])
    assert "Traceback" not in result.output
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def asked(archive) -> list:
    return [product for request in archive.requests for product in request["asked"]]


def check_whole(folder: Path, keys) -> None:
    """All detections are there, each file is that of the archive, and nothing else lies in the folder."""
    files = {}
    for source, facts in sources(folder):
        key = Detection(facts["obsid"], facts["obi"], facts["region_id"])
        for kind, file in zip(KINDS, (source.pha, source.arf, source.rmf), strict=True):
            assert file.read_bytes() == service.product(key, kind)
            files[Product(key, kind)] = file
    assert {product.detection for product in files} == set(keys)
    found = {file for file in folder.rglob("*") if file.is_file()}
    assert {file.name for file in found - set(files.values())} <= {"manifest.sqlite", "selection.ecsv", "fetch.lock"}


def test_a_selection_becomes_spectra_with_responses(archive, folder, tmp_path):
    keys = keys_of(7)
    selection = write_selection(tmp_path / "selection.ecsv", keys)
    shown = []
    report = fetch(selection, folder, archive.url, progress=lambda *numbers: shown.append(numbers))
    assert (report.detections, report.complete, report.files, report.requests) == (7, 7, 21, 1)
    assert report.n_bytes == archive.counts()["bytes"] == shown[-1][2]
    assert shown[-1][:2] == (21, 21)
    assert {request["version"] for request in archive.requests} == {"rel2.1"}
    assert all(request["agent"].startswith("xlatent/") for request in archive.requests)
    check_whole(folder, keys)
    assert (folder / "selection.ecsv").read_bytes() == selection.read_bytes()

    source, facts = sources(folder)[4]
    assert source.name == "2CXOJ000033.0+000002_33_0_2"
    assert facts == {"name": "2CXO J000033.0+000002", "obsid": 33, "obi": 0, "region_id": 2}
    spectrum = ogip_spectrum.read(source.pha, source.arf, source.rmf)
    assert (spectrum.meta["obsid"], spectrum.meta["region_id"]) == ("33", "0002")
    assert spectrum.counts.sum() > 0 and spectrum.background.counts.sum() > 0 and spectrum.response.area.max() > 100
    with closing(sqlite3.connect(folder / "manifest.sqlite")) as database:
        for file, sha256, n_bytes in database.execute("SELECT file, sha256, bytes FROM product"):
            content = (folder / file).read_bytes()
            assert (hashlib.sha256(content).hexdigest(), len(content)) == (sha256, n_bytes)

    assert fetch(selection, folder, archive.url).requests == 0
    assert len(archive.requests) == 1


@pytest.mark.parametrize("fault", service.FAULTS)
def test_a_fault_costs_what_it_spoilt_and_no_more(archive, four, folder, fault, tmp_path):
    archive.faults.append(fault)
    timeout = {"timeout": 1.0} if fault == "stall" else {}
    report = fetch(four, folder, archive.url, **QUICK, **timeout)
    assert (report.complete, report.missing, report.failed) == (4, {}, {})
    check_whole(folder, keys_of(4))
    counts = archive.counts()
    assert counts["served_twice"] == []
    spoilt = {"slow": 0, "stall": 6, "cut": 6, "wrong": 3, "other": 3, "truncated": 1, "plain": 3, "escape": 3}
    assert len(asked(archive)) - 12 == spoilt.get(fault, 12)  # of the 12 files, those asked for once more
    assert counts["requests"] == {"slow": 1, "500": 3, "text": 3}.get(fault, 2)  # the latter two in halves
    if fault == "503":
        assert archive.requests[1]["time"] - archive.requests[0]["time"] >= 1.0
    if fault == "escape":
        assert not list(tmp_path.glob("acis*")) and not list(Path("/tmp").glob("acisf00030_000N021_r0001*"))


def test_what_the_archive_does_not_have_is_recorded_and_left_alone(archive, four, folder):
    rmf = Product(keys_of(4)[2], "rmf")
    archive.tell("absent:30.0.3/rmf")
    report = fetch(four, folder, archive.url, **QUICK)
    assert report.complete == 3 and list(report.missing) == [rmf] and "not in the package" in report.missing[rmf]
    assert asked(archive).count(tuple(rmf)) == 3 and archive.counts()["served_twice"] == []
    assert len(sources(folder)) == 3

    archive.tell("")
    before = len(archive.requests)
    result = run(four, "--output", folder, "--service", archive.url)
    assert len(archive.requests) == before
    assert result.exit_code == 0 and "3 of 4 detections are complete" in result.stdout
    assert "does not have 1 file (rmf of 30.0.3: it was not in the package" in result.stderr
    result = run(four, "--output", folder, "--service", archive.url, "--retry-missing")
    assert archive.requests[-1]["asked"] == [tuple(rmf)] and len(archive.requests) == before + 1
    assert result.stderr == "" and "4 of 4 detections are complete" in result.stdout
    check_whole(folder, keys_of(4))


def test_a_product_answered_with_404_is_found_out_and_recorded(archive, four, folder):
    arf = Product(keys_of(4)[1], "arf")
    archive.tell("404:30.0.2/arf")
    report = fetch(four, folder, archive.url, **QUICK)
    assert report.complete == 3 and report.missing == {arf: "HTTP status 404"}
    assert archive.counts()["served_twice"] == []
    before = len(archive.requests)
    assert fetch(four, folder, archive.url, **QUICK).requests == 0 and len(archive.requests) == before


def test_a_product_that_spoils_its_package_is_found_out_and_asked_for_next_time(archive, four, folder):
    arf = Product(keys_of(4)[1], "arf")
    archive.tell("text:30.0.2/arf")
    report = fetch(four, folder, archive.url, **QUICK)
    assert report.complete == 3 and report.missing == {} and list(report.failed) == [arf]
    assert "Error executing query: ORA-00936" in report.failed[arf]
    assert archive.counts()["served_twice"] == []
    archive.tell("")
    assert fetch(four, folder, archive.url).files == 1
    check_whole(folder, keys_of(4))


def test_an_archive_that_is_down_is_left_in_peace(archive, folder, tmp_path):
    selection = write_selection(tmp_path / "s.ecsv", keys_of(200))
    archive.faults.extend(["500"] * 1000)
    with pytest.raises(ReadError, match=r"6 requests in a row .*HTTP status 500.*0 of 600 files"):
        fetch(selection, folder, archive.url, **QUICK)
    assert len(archive.requests) <= 8  # a few may have been under way
    assert archive.counts()["largest_package"] == 50
    assert sources(folder) == []


def test_killed_in_the_middle_and_run_again_nothing_comes_twice(archive, folder, tmp_path):
    keys = keys_of(20)
    selection = write_selection(tmp_path / "s.ecsv", keys)
    archive.rate = 600_000
    arguments = ["fetch", str(selection), "--output", str(folder), "--service", archive.url]
    for enough in (3, 10):
        process = subprocess.Popen([sys.executable, "-c", PROCESS, *arguments])
        deadline = time.monotonic() + 60
        while len(list(folder.glob("*/*_rmf3.fits.gz"))) < enough and time.monotonic() < deadline:
            time.sleep(0.02)
        with pytest.raises(WriteError, match="another process is fetching into"):
            fetch(selection, folder, archive.url)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    there = {identify(file) for file in folder.glob("*/*.fits.gz")}
    assert 10 <= len(there) < 60
    archive.rate, before = 0.0, len(archive.requests)
    report = fetch(selection, folder, archive.url)
    assert report.files == 60 - len(there)
    again = [product for request in archive.requests[before:] for product in request["asked"]]
    assert len(again) == len(set(again)) and there.isdisjoint(Product(Detection(*key), kind) for key, kind in again)
    check_whole(folder, keys)
    # What was under way when the process was killed: three requests, each with a file and the buffers of its socket.
    assert (
        archive.counts()["bytes"] < sum(len(service.product(key, kind)) for key in keys for kind in KINDS) * 1.1 + 6e6
    )


def test_an_interrupt_does_not_wait_for_a_silent_archive(four, folder):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(60)
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/retrieve"
        arguments = ["fetch", str(four), "--output", str(folder), "--service", url]
        process = subprocess.Popen([sys.executable, "-c", PROCESS, *arguments])
        connection, _ = silent.accept()
        with connection:
            assert connection.recv(4) == b"POST"
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=20) == 130
    Manifest(folder).__exit__()  # the lock went with it


def test_files_in_place_but_not_recorded_are_recorded(archive, four, folder):
    fetch(four, folder, archive.url)
    with closing(sqlite3.connect(folder / "manifest.sqlite")) as database, database:
        before = database.execute("SELECT obsid, obi, region_id, kind, file, sha256, bytes FROM product ORDER BY file")
        before = before.fetchall()
        database.execute("DELETE FROM product WHERE kind = 'rmf'")
    (folder / "acisf00030_000N021_r0001_rmf3.fits.gz.1.part").write_bytes(b"\x1f\x8bhalf")
    assert fetch(four, folder, archive.url).requests == 0
    with closing(sqlite3.connect(folder / "manifest.sqlite")) as database:
        after = database.execute("SELECT obsid, obi, region_id, kind, file, sha256, bytes FROM product ORDER BY file")
        assert after.fetchall() == before
    check_whole(folder, keys_of(4))


def test_files_removed_or_cut_short_are_asked_for_again_and_no_others(archive, four, folder):
    fetch(four, folder, archive.url)
    (first, _), (second, _), *_ = sources(folder)
    first.rmf.unlink()
    second.arf.write_bytes(second.arf.read_bytes()[:100])
    report = fetch(four, folder, archive.url)
    assert (report.files, report.requests) == (2, 1)
    assert archive.requests[-1]["asked"] == [(keys_of(4)[0], "rmf"), (keys_of(4)[1], "arf")]
    check_whole(folder, keys_of(4))


def test_a_further_selection_adds_to_the_first(archive, four, folder, tmp_path):
    fetch(four, folder, archive.url)
    more = write_selection(tmp_path / "more.ecsv", keys_of(6)[2:], cnts_aper_b=np.arange(4.0))
    report = fetch(more, folder, archive.url)
    assert (report.detections, report.complete, report.files) == (4, 4, 6)
    table = Table.read(folder / "selection.ecsv", format="ascii.ecsv")
    assert [tuple(row) for row in table["obsid", "obi", "region_id"]] == keys_of(6)
    assert table["cnts_aper_b"].tolist() == [None, None, 0.0, 1.0, 2.0, 3.0]
    assert len(sources(folder)) == 6
    odd = write_selection(tmp_path / "odd.ecsv", keys_of(1), cnts_aper_b=["many"])
    with pytest.raises(ReadError, match=r"odd\.ecsv cannot be added to .*selection\.ecsv, whose columns are of other"):
        fetch(odd, folder, archive.url)
    other = write_selection(tmp_path / "other.ecsv", keys_of(1), release="2.0")
    with pytest.raises(ReadError, match=r"holds files of release 2\.1 .* release 2\.0; choose another folder"):
        fetch(other, folder, archive.url)


def refused_port() -> str:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{unused.getsockname()[1]}/csccli/retrieve"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (refused_port(), "cannot be reached: no connection"),
        ("http://no-such-host.invalid/retrieve", "cannot be reached: no connection"),
        ("ftp://cda.cfa.harvard.edu/retrieve", "should be the URL of a retrieve service"),
        ("retrieve", "should be the URL of a retrieve service"),
        ("http://", "should be the URL of a retrieve service"),
    ],
    ids=["refused", "no host", "ftp", "no scheme", "no address"],  # the port differs from process to process
)
def test_a_wrong_host_or_no_network_is_told_in_one_sentence(four, folder, url, words, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    start = time.monotonic()
    result = run(four, "--output", folder, "--service", url)
    assert result.exit_code != 0 and words in result.stderr and url in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1 and time.monotonic() - start < 20
    assert not list(folder.glob("*/*"))


@pytest.mark.parametrize(("value", "seconds"), [("7", 7.0), ("", 0.0), ("soon", 0.0)])
def test_retry_after_in_seconds(value, seconds):
    assert _retry_after(httpx.Response(503, headers={"Retry-After": value})) == seconds


def test_retry_after_as_a_date():
    date = formatdate(time.time() + 60, usegmt=True)
    assert 57 < _retry_after(httpx.Response(503, headers={"Retry-After": date})) <= 60
    assert _retry_after(httpx.Response(503, headers={"Retry-After": "Sun, 06 Nov 1994 08:49:37 GMT"})) == 0.0


def test_a_page_of_something_else_is_quoted(archive, four, folder):
    archive.faults.extend(["text"] * 20)
    with pytest.raises(ReadError, match="no tar file but the text 'Error executing query: ORA-00936"):
        fetch(four, folder, archive.url, **QUICK)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("absent", "there is no such file"),
        ("suffix", "should be a selection in ECSV"),
        ("text", "is not a readable .ecsv table"),
        ("bytes", "is not a readable .ecsv table"),
        ("column", "should have a column obi and a column region_id"),
        ("empty", "the table has no rows"),
        ("masked", "row 2 should have a name and whole numbers"),
        ("letters", "row 1 should have a name and whole numbers"),
    ],
)
def test_a_selection_that_is_none_is_told_in_one_sentence(kind, words, folder, tmp_path):
    path = write_selection(tmp_path / "selection.ecsv", keys_of(2))
    table = Table.read(path, format="ascii.ecsv")
    if kind == "absent":
        path.unlink()
    elif kind == "suffix":
        path = path.rename(path.with_suffix(".csv"))
    elif kind == "text":
        path.write_text("dear archive,\nsend me quasars\n")
    elif kind == "bytes":
        path.write_bytes(bytes(range(256)))
    else:
        if kind == "column":
            table.remove_columns(["obi", "region_id"])
        elif kind == "empty":
            table = table[:0]
        elif kind == "masked":
            table["obi"] = MaskedColumn(table["obi"], mask=[False, True])
        elif kind == "letters":
            table["obsid"] = ["x", "y"]
        table.write(path, format="ascii.ecsv", overwrite=True)
    result = run(path, "--output", folder, "--service", "http://127.0.0.1:9/")
    assert result.exit_code == 1 and words in result.stderr and str(path) in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1 and not folder.exists()


def test_a_folder_that_cannot_be_written_to(four, tmp_path, archive):
    blocked = tmp_path / "file"
    blocked.write_text("")
    result = run(four, "--output", blocked, "--service", archive.url)
    assert result.exit_code == 2 and f"{blocked} cannot be written to" in result.stderr and not archive.requests

    place = Path(tempfile.mkdtemp())  # not tmp_path, which only its owner may enter
    try:
        selection = shutil.copy(four, place)
        place.chmod(0o555)
        (tmp_path / "unused").mkdir()
        if os.geteuid() == 0:  # for whom no folder is read-only
            os.seteuid(65534)
        for output in (place, place / "new"):
            result = run(selection, "--output", output, "--service", archive.url)
            assert result.exit_code == 2 and f"{output} cannot be written to" in result.stderr, result.stderr
            assert len(result.stderr.strip().splitlines()) == 1
    finally:
        os.seteuid(os.getuid())
        place.chmod(0o755)
        shutil.rmtree(place)
    assert not archive.requests


def test_a_full_disk_is_told_and_what_came_before_is_kept(archive, four, folder):
    """On a small file system of our own, where the kernel lets us have one."""
    folder.mkdir()
    script = (
        'mount -t tmpfs -o size=500k tmpfs "$1" || exit 77; "$2" -c "$3" fetch "$4" --output "$1" --service "$5"; '
        'code=$?; cp -r "$1/." "$6"; exit $code'
    )
    saved = folder.parent / "saved"
    saved.mkdir()
    inside = ["sh", "-c", script, "sh", folder, sys.executable, PROCESS, four, archive.url, saved]
    try:
        result = subprocess.run(["unshare", "-Urm", *map(str, inside)], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no unshare here")
    if result.returncode in (1, 77) and "xlatent" not in result.stderr:
        pytest.skip(f"no file system can be mounted here: {result.stderr.strip()}")
    assert result.returncode == 2 and len(result.stderr.strip().splitlines()) == 1
    assert f"{folder} cannot be written to (No space left on device); make room" in result.stderr or (
        f"{folder} cannot be written to (database or disk is full); make room" in result.stderr
    )
    shutil.copytree(saved, folder, dirs_exist_ok=True)
    kept = {identify(file) for file in folder.glob("*/*.fits.gz")}
    assert kept
    before = len(archive.requests)
    fetch(four, folder, archive.url)
    again = {Product(Detection(*key), kind) for r in archive.requests[before:] for key, kind in r["asked"]}
    assert again.isdisjoint(kept) and len(again) == 12 - len(kept)
    check_whole(folder, keys_of(4))


def test_folders_without_a_manifest_that_we_can_read(tmp_path, four, archive):
    with pytest.raises(ReadError, match=r"manifest\.sqlite cannot be read"):
        sources(tmp_path)
    (tmp_path / "manifest.sqlite").write_text("not a data base at all, but long enough to be read as one" * 20)
    for use in (lambda: sources(tmp_path), lambda: fetch(four, tmp_path, archive.url)):
        with pytest.raises(ReadError, match="should be the manifest of a download folder, and it is none"):
            use()
    (tmp_path / "manifest.sqlite").unlink()
    with closing(sqlite3.connect(tmp_path / "manifest.sqlite")) as database:
        database.execute("PRAGMA user_version = 7")
    for use in (lambda: sources(tmp_path), lambda: fetch(four, tmp_path, archive.url)):
        with pytest.raises(ReadError, match="is of version 7, and this xlatent reads up to 1; use a newer xlatent"):
            use()


def test_the_lock_goes_with_its_owner(tmp_path):
    with Manifest(tmp_path), pytest.raises(WriteError, match="another process is fetching"):
        Manifest(tmp_path)
    Manifest(tmp_path).__exit__()


def test_without_httpx_the_extra_is_named(four, folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "httpx", None)
    result = run(four, "--output", folder)
    assert result.exit_code == 2 and 'pip install "xlatent[csc]"' in result.stderr


KEY = Detection(33, 0, 2)


@settings(max_examples=30)
@given(st.sampled_from(KINDS), st.floats(0.0, 1.0, exclude_max=True))
def test_a_product_cut_anywhere_is_refused(kind, where):
    content = service.product(KEY, kind)
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / service.name_of(KEY, kind)
        file.write_bytes(content)
        assert identify(file) == Product(KEY, kind)
        file.write_bytes(content[: int(where * len(content))])
        with pytest.raises(ReadError):
            identify(file)


def test_header_and_name_must_agree(tmp_path):
    file = tmp_path / "acisf00033_000N022_r0099_pha3.fits.gz"
    file.write_bytes(service.product(KEY, "spectrum"))
    with pytest.raises(ReadError, match=r"is named for detection 33\.0\.99, and its header says 33\.0\.2"):
        identify(file)
    # The suffix says nothing: what a file is, its header tells.
    assert identify(file, "acisf00033_000N022_r0002_rmf3.fits.gz") == Product(KEY, "spectrum")
    assert identify(file, "plain.fits") == Product(KEY, "spectrum")


def test_real_products_of_the_catalogue(shared_data):
    found = {}
    for file in sorted((shared_data / "spectra").glob("*/acisf?????_*3.fits*")):
        found.setdefault(identify(file).detection, []).append(identify(file).kind)
    assert {key: sorted(kinds) for key, kinds in found.items()} == {
        key: ["arf", "rmf", "spectrum"]
        for key in ((1575, 1, 85), (1878, 0, 100), (4487, 1, 9), (4736, 0, 79), (4737, 0, 35))
    }
