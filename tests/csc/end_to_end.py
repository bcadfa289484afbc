"""From the Chandra Source Catalog to a model, by the commands a user types, with services on loopback that fail.

    python tests/csc/end_to_end.py --minutes 2

Prints each command with what it says, then a table of steps; ends with status 1 if anything is not as it should be.
"""

import argparse
import contextlib
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import numpy as np
from astropy.table import Table
from services import archive, tap

from xlatent.csc import query
from xlatent.formats import catalogue_tables, latent_tables
from xlatent.formats.store import open_store

N_FIELDS, N_SOURCES, N_OBSERVATIONS = 4, 10, 5  # sources in a field, observations of a field
AT_ONCE = 5  # detections fetched under each fault
KILLED_RATE = 400e3  # bytes a second and request, so that there is a middle to be killed in
CLASSES = ("AGN", "YSO", "LM-STAR", "CV")


class FailedError(Exception):
    """Something is not as it should be."""


def check(what: str, holds: object) -> None:
    if not holds:
        raise FailedError(what)


def sky() -> dict[str, list[dict]]:
    """Tables of the catalogue: 40 sources, each seen in 2 to 5 observations, and in one more too faint to be wanted."""
    rng = np.random.default_rng(40)
    content = {name: [] for name in tap.SCHEMA}

    def fill(table: str, **known: object) -> None:
        empty = {"double": None, "int": 0, "char": "", "boolean": 0}
        content[table].append({name: empty[kind] for name, kind in tap.SCHEMA[table].items()} | known)

    def fluxes() -> dict[str, float]:
        bands = 10 ** rng.uniform(-14, -13) * rng.dirichlet((4, 4, 8))
        found = {}
        for band, flux in zip("smhb", (*bands, bands.sum()), strict=True):
            found |= {f"flux_aper_{band}": flux}
            found |= {f"flux_aper_lolim_{band}": 0.9 * flux, f"flux_aper_hilim_{band}": 1.1 * flux}
        return found

    for number in range(N_FIELDS * N_SOURCES):
        field, region = divmod(number, N_SOURCES)
        ra, dec = 30.0 + 60 * field + 0.05 * (region % 5), 20.0 - 10 * field + 0.05 * (region // 5)
        hours, arcsec = ra / 15 * 3600, abs(dec) * 3600
        name = f"2CXO J{hours // 3600:02.0f}{hours % 3600 // 60:02.0f}{hours % 60:04.1f}"
        name += f"{'+' if dec > 0 else '-'}{arcsec // 3600:02.0f}{arcsec % 3600 // 60:02.0f}{arcsec % 60:02.0f}"
        of_source = {"err_ellipse_r0": 0.8, "err_ellipse_r1": 0.6, "err_ellipse_ang": 30.0, "nh_gal": 3.0}
        of_source |= {"powlaw_gamma": 1.8, "powlaw_gamma_lolim": 1.7, "powlaw_gamma_hilim": 1.9}
        of_source |= {"powlaw_nh": 5.0, "powlaw_stat": 0.9}
        fill("master_source", name=name, ra=ra, dec=dec, significance=20.0, likelihood_class="TRUE", **of_source,
             **fluxes())  # fmt: skip
        stack = {"detect_stack_id": f"acisfJ{field:07d}p000000_001", "region_id": 1 + region}
        fill("master_stack_assoc", name=name, match_type="u", **stack)
        fill("stack_source", **stack)
        for j in range(3 + number % 4):
            key = {"obsid": 1001 + 10 * field + j, "obi": 0, "region_id": 1 + region}
            wanted = j > 0
            fill("stack_observation_assoc", **(stack | key))
            fill("observation_source", **key, instrument="ACIS", gti_obs=f"200{j}-01-0{1 + field}T00:00:00",
                 gti_mjd_obs=51544.0 + 365 * j, livetime=5e4, theta=1.0 + 0.4 * region,
                 src_cnts_aper_b=rng.uniform(60, 900) if wanted else 20.0,
                 flux_significance_b=rng.uniform(6, 30) if wanted else 3.0, **fluxes())  # fmt: skip
    return content


def labels(selection: Table, path: Path) -> None:
    """A table of classes: of three sources in four, of strangers between them, and two that disagree on one source."""
    sources = sorted({(row["name"], row["ra"], row["dec"]) for row in selection})
    known = [(ra, dec + 0.2 / 3600, CLASSES[i % 4]) for i, (_, ra, dec) in enumerate(sources) if i % 4]
    strangers = [(ra, dec + 60 / 3600, "AGN") for _, ra, dec in sources]
    other = (*known[0][:2], "HMXB" if known[0][2] != "HMXB" else "AGN")
    lines = [f"{ra:.7f},{dec:.7f},{kind},0.3" for ra, dec, kind in (*known, *strangers, other)]
    path.write_text("\n".join(["ra,dec,class,pos_err", *lines]) + "\n")


class Walk:
    """The way so far: commands run in a folder, steps and their times."""

    def __init__(self, folder: Path, sources: archive.Archive, catalogue: tap.Service) -> None:
        self.folder, self.archive = folder, sources
        self.rows: list[tuple[str, float, str]] = []
        self.settings = {"XLATENT_CSC_TAP": catalogue.url, "XLATENT_CSC_RETRIEVE": sources.url, "COLUMNS": "120"}

    def begin(self, command: str) -> subprocess.Popen:
        """Start a command of xlatent's in the folder, as from a shell."""
        print(f"$ {command}", flush=True)
        arguments = shlex.split(command)
        program = Path(sys.executable).with_name(arguments[0])
        return subprocess.Popen(
            [program, *arguments[1:]], cwd=self.folder, env=os.environ | self.settings, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def run(self, command: str, status: int = 0) -> str:
        """What a command says; it must end with this status."""
        process = self.begin(command)
        said, _ = process.communicate()
        print(said, flush=True)
        check(f"`{command}` ended with {process.returncode}, not {status}: {said}", process.returncode == status)
        check(f"`{command}` left a traceback", "Traceback" not in said)
        return said

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[list[str]]:
        """Time a step; what is put into the list is said of it in the table."""
        began, said = time.monotonic(), []
        try:
            yield said
        except FailedError as error:
            said[:] = [f"**FAILED**: {error}"]
            raise
        finally:
            self.rows.append((name, time.monotonic() - began, "; ".join(said)))

    def in_place(self) -> set[str]:
        return {file.name for file in self.folder.glob("csc/*/*.fits.gz")}

    @contextlib.contextmanager
    def fetching(self, said: list[str]) -> Iterator[None]:
        """Make sure that nothing that lies in the folder is asked for again, and count what is asked."""
        before, asked_before, bytes_before = self.in_place(), len(self.archive.requests), self.counts()["bytes"]
        yield
        requests = self.archive.requests[asked_before:]
        asked = [archive.name_of(*product) for request in requests for product in request["asked"]]
        twice = before.intersection(asked)
        check(f"{len(twice)} files that were in place were asked for again, {sorted(twice)[:2]}", not twice)
        came = len(self.in_place() - before)
        n_bytes = self.counts()["bytes"] - bytes_before
        said.append(
            f"{len(requests)} requests, {n_bytes / 1e6:.1f} MB, {came} files came, 0 of those in place asked for"
        )

    def counts(self) -> dict:
        """What the archive counted."""
        with urlopen(f"http://127.0.0.1:{self.archive.port}/counts") as answer:
            return json.load(answer)

    def table(self) -> str:
        lines = [f"| {name} | {seconds:.1f} | {said} |" for name, seconds, said in self.rows]
        total = sum(seconds for _, seconds, _ in self.rows)
        return "\n".join(["| step | seconds | what came out |", "|---|---|---|", *lines, f"| all | {total:.0f} | |"])


def select(walk: Walk, catalogue: tap.Service) -> Table:
    with walk.step("csc select, the service busy at first") as said:
        catalogue.statuses = [(503, 1)]
        walk.run("xlatent csc select --output selection.ecsv")
        selection = catalogue_tables.read_columns(
            walk.folder / "selection.ecsv", ("name", "obsid", "flux_aper_b", "nh_gal")
        )
        expected = sum(2 + number % 4 for number in range(N_FIELDS * N_SOURCES))
        check(f"{len(selection)} detections were selected, not {expected}", len(selection) == expected)
        asked = sum(text is not None for _, _, text, _ in catalogue.requests)
        said.append(f"{expected} detections of {len(set(selection['name']))} sources; {asked} queries")
    with walk.step("csc info") as said:
        name = selection["name"][0]
        answer = walk.run(f"xlatent csc info '{name}'")
        check("its detections are not all told", len(answer.split("P(variable)")[1].splitlines()) > 3)
        said.append(f"{len(answer.splitlines())} lines on {name}")
    return selection


def fetch(walk: Walk, selection: Table) -> None:
    """Fetch under every fault, be killed, go on, and ask again for what was not there."""
    rest = 0

    def some(n: int) -> Table:
        nonlocal rest
        part, rest = selection[rest : rest + n], rest + n
        query.write(part, walk.folder / "part.ecsv")
        return part

    for fault in archive.FAULTS:
        with walk.step(f"csc fetch, fault: {fault}") as said, walk.fetching(said):
            walk.archive.tell(fault)
            some(AT_ONCE)
            answer = walk.run("xlatent csc fetch part.ecsv --output csc")
            check(f"{fault}: {answer}", f"{AT_ONCE} of {AT_ONCE} detections are complete" in answer)
            check(f"fault {fault} did not happen", not walk.archive.faults)
    for fault, status in {"absent": 0, "404": 0, "text": 1}.items():
        with walk.step(f"csc fetch, lasting fault: {fault} for one product") as said, walk.fetching(said):
            obsid, obi, region = some(AT_ONCE)["obsid", "obi", "region_id"][2]
            walk.archive.tell(f"{fault}:{obsid}.{obi}.{region}/rmf")
            answer = walk.run("xlatent csc fetch part.ecsv --output csc", status)
            check(f"{fault}: {answer}", f"{AT_ONCE - 1} of {AT_ONCE} detections are complete" in answer)
            said.append("recorded" if status == 0 else "left for the next run")
    walk.archive.tell("")
    check("products were sent twice", not walk.counts()["served_twice"])

    with walk.step("csc fetch of all, killed with -9 in the middle") as said, walk.fetching(said):
        walk.archive.rate = KILLED_RATE
        enough = len(walk.in_place()) + 3 * (len(selection) - rest) // 2
        process = walk.begin("xlatent csc fetch selection.ecsv --output csc")
        while process.poll() is None and len(walk.in_place()) < enough:
            time.sleep(0.02)
        process.kill()
        process.communicate()
        check("it ended before it was killed", process.returncode == -9)
        under_way = {archive.name_of(*product) for request in walk.archive.requests for product in request["asked"]}
        under_way -= walk.in_place()
        walk.archive.rate = 0.0
    with walk.step("csc fetch of all, resumed") as said, walk.fetching(said):
        answer = walk.run("xlatent csc fetch selection.ecsv --output csc")
        check(answer, f"{len(selection) - 2} of {len(selection)} detections are complete" in answer)
        check("the two files that the archive did not have were not told", "does not have 2 files" in answer)
    with walk.step("csc fetch --retry-missing, the archive has them now") as said, walk.fetching(said):
        answer = walk.run("xlatent csc fetch selection.ecsv --output csc --retry-missing")
        check(answer, f"{len(selection)} of {len(selection)} detections are complete" in answer)
        check("it fetched something else than the two files", "2 files came" in answer)
    with walk.step("csc fetch once more") as said, walk.fetching(said):
        check("it asked for something", "0 requests" in walk.run("xlatent csc fetch selection.ecsv --output csc"))
    with walk.step("what lies in the folder against what the archive has") as said:
        counts = walk.counts()
        twice = set()
        for text in counts["served_twice"]:
            key, kind = text.split("/")
            twice.add(archive.name_of(tuple(map(int, key.split("."))), kind))
        check(f"came twice without need: {sorted(twice - under_way)}", twice <= under_way)
        check("a package of more than 50 detections was asked for", counts["largest_package"] <= 50)
        n_bytes = 0
        for row in selection["obsid", "obi", "region_id"]:
            key = tuple(int(part) for part in row)
            for kind in archive.SUFFIX:
                content = (walk.folder / "csc" / f"{key[0]:05d}" / archive.name_of(key, kind)).read_bytes()
                check(f"{key} {kind} is not what the archive has", content == archive.product(key, kind))
                n_bytes += len(content)
        said.append(f"{3 * len(selection)} files, {n_bytes / 1e6:.1f} MB, each byte as the archive has it")
        said.append(
            f"the archive counted {counts['requests']} requests and {counts['bytes'] / 1e6:.1f} MB, spoilt ones"
        )
        said[-1] += f" included, at most {counts['largest_package']} detections a package"
        said.append(f"{len(twice)} files sent twice, all of them under way when the process was killed")


def use(walk: Walk, selection: Table, minutes: float) -> None:
    """Label, build, embed and train on what was fetched."""
    with walk.step("csc label") as said:
        labels(selection, walk.folder / "classes.csv")
        said.append(
            walk.run("xlatent csc label selection.ecsv --labels classes.csv --output labelled.ecsv").split(";")[0]
        )
        labelled = catalogue_tables.read_columns(walk.folder / "labelled.ecsv", ("class", "class_conflict", "split"))
        n_labelled = len({row["name"] for row in labelled if row["class"] is not np.ma.masked})
        check(f"{n_labelled} sources have a class, not 29", n_labelled == 29)
    with walk.step("build") as said:
        answer = walk.run("xlatent build csc --catalog labelled.ecsv --output store")
        store = open_store(walk.folder / "store")
        rows = store.columns(["source", "split", "class", "nh_gal"]).to_pylist()
        check(f"{len(rows)} spectra are in the store, not {len(selection)}", len(rows) == len(selection))
        splits = {(row["source"], row["split"]) for row in rows}
        check("a source is in two parts of the split", len(splits) == len({source for source, _ in splits}))
        check("columns of the catalogue are missing", all(row["nh_gal"] == 3.0 for row in rows))
        said.append(answer.strip())
    with walk.step("embed") as said:
        walk.run("xlatent embed store --output latents.parquet")
        latents = latent_tables.read(walk.folder / "latents.parquet")
        check("a spectrum has no latents", len(latents) == len(selection) and np.isfinite(latents.z).all())
        said.append(f"latents of {len(latents)} spectra, median statistic over its expectation "
                    f"{np.median(latents['cstat'] / latents['cstat_expected']):.3f}")  # fmt: skip
    with walk.step("catalog embed: the same without their spectra") as said:
        said.append(walk.run("xlatent catalog embed selection.ecsv --output from_fluxes.parquet").strip())
        check("a row is missing", len(latent_tables.read(walk.folder / "from_fluxes.parquet")) == len(selection))
    if minutes:
        with walk.step(f"train, {minutes:g} minutes") as said:
            where = "--preset response-aware --data store --from chandra-acis-8"
            answer = walk.run(f"xlatent train {where} --minutes {minutes:g} --output run")
            score = [line for line in answer.splitlines() if line.startswith("held-out deviance at the end")]
            check("the score of held-out counts was not told", score)
            said.extend(score)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=2.0, help="of training; 0 for none")
    parser.add_argument("--folder", type=Path, help="empty folder for what is made; one that is removed if not given")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = options.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        sources, catalogue = stack.enter_context(archive.Archive()), stack.enter_context(tap.serve())
        catalogue.tables = sky()
        walk = Walk(folder, sources, catalogue)
        failure = None
        try:
            selection = select(walk, catalogue)
            fetch(walk, selection)
            use(walk, selection, options.minutes)
        except FailedError as error:
            failure = error
        print(walk.table())
    if failure:
        print(f"FAILED: {failure}", file=sys.stderr)
    return int(failure is not None)


if __name__ == "__main__":
    sys.exit(main())
