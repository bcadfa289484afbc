"""What whole catalogues cost, from measured rates, and the page of measured speed: `python benchmarks/costs.py`.

Fills in what stands between markers in docs/speed.md from a result of benchmarks/speed.py.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import machine
from from_store import NATIVE, OWN
from words import table, targets, told, write
from xlatent.formats.store import SHARD_ROWS, ShardInfo

DOCS = Path(__file__).resolve().parents[1] / "docs"
NOT = "not measured"
END = "<!-- end -->"
TASK_S = 1e-3  # of the scheduler for a task: https://distributed.dask.org
PUTS, GETS = 3500, 5500  # requests a second and prefix: AWS, Amazon S3 User Guide, request rate and performance
INDEX_BYTES = 4 * (8 + 36)  # of a row of a search index: z and the triangle of its covariance, single precision
FILES_BYTES = 1.10e6  # PHA, ARF and RMF of a detection of the CSC, gzipped (acisf01575_001N001_r0085)


@dataclass(frozen=True)
class Catalogue:
    """Number of spectra, and the fewest and most redistribution matrices that they may have between them."""

    name: str
    spectra: int
    fewest: int
    most: int


CATALOGUES = (
    # Detections and observations: https://cxc.cfa.harvard.edu/csc/about.html; a matrix for each of either.
    Catalogue("CSC 2.1", 1_304_376, 15_533, 1_304_376),
    # 1,035,832 detections in DR14 (https://heasarc.gsfc.nasa.gov/w3browse/all/xmmssc.html), 50,000 more with each
    # release, each by up to three cameras. Canned matrices: pn of 4 epochs, 6 modes, 3 patterns and 10 places, MOS of
    # 19 epochs, 2 modes, 2 patterns, 3 places and 2 cameras
    # (https://heasarc.gsfc.nasa.gov/docs/xmm/xmmhp_caldb_mirror.html).
    Catalogue("4XMM, three cameras", 3_600_000, 720 + 456, 3_600_000),
    # 930,000 in the first of its surveys and half of the sky (Merloni et al. 2024, A&A 682, A34); seven cameras and
    # three sums of them (products of DR1).
    Catalogue("eROSITA", 1_000_000, 10, 1_000_000),
    Catalogue("10⁸ spectra", 100_000_000, 1000, 100_000_000),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("result", type=Path, nargs="?", default=DOCS.parent / "runs" / "speed.json")
    parser.add_argument("page", type=Path, nargs="?", default=DOCS / "speed.md")
    given = parser.parse_args()
    fill(given.page, json.loads(given.result.read_text()))


def fill(page: Path, found: dict[str, Any]) -> None:
    """Put measured numbers into a page, between ``<!-- name -->`` and ``<!-- end -->``, and keep them beside it."""
    text = page.read_text()
    for name, block in blocks(found).items():
        place = f"<!-- {name} -->"
        before, found_it, rest = text.partition(place)
        _, ended, after = rest.partition(END)
        if not (found_it and ended):
            raise SystemExit(f"{page} should have a place for {name}, from {place} to {END}")
        text = f"{before}{place}\n\n{block}\n\n{END}{after}"
    write(page.with_suffix(".json"), json.dumps(found, indent=1, default=float) + "\n")
    write(page, text)


def blocks(found: dict[str, Any]) -> dict[str, str]:
    """What goes into the page, by the names of the places."""
    parts = found["parts"].values()
    quick = "**A quick run, whose times mean nothing.** " if found["quick"] else ""
    return {
        "machine": f"{quick}{found['date'][:10]}, xlatent {found['version']} at {found['commit'] or 'no commit'}, on "
        f"{machine.said(found['machine'])}.",
        "targets": targets(parts),
        "tables": "\n\n".join("#" + told(one) for one in parts),
        "time": time_table(found),
        "bytes": bytes_table(found),
        "limits": limits_table(found),
    }


def time_table(found: dict[str, Any]) -> str:
    """Core-hours by catalogue, input and kind."""
    kinds = {"without": "embed, not refined", "with refinement": "embed, refined"}
    each: dict[str, float | None] = {}
    for kind, name in kinds.items():
        each[f"files, {kind}"] = _number(found, "reading", "seconds of one of all", name)
        for channels, short in ((OWN, "store, own areas"), (NATIVE, "store, shared responses")):
            rate = _number(found, "from_store", "per second", f"{channels}, {kind}, 1")
            each[f"{short}, {kind}"] = 1.0 / rate if rate else None
    rows = [["a spectrum", *(f"{1e3 * seconds:.2f} ms" if seconds else NOT for seconds in each.values())]]
    rows += [
        [c.name, *(f"{c.spectra * seconds / 3600:,.1f}" if seconds else NOT for seconds in each.values())]
        for c in CATALOGUES
    ]
    return table(["core-hours", *each], rows)


def bytes_table(found: dict[str, Any]) -> str:
    """Bytes by catalogue: of files, stores and tables."""
    own = _number(found, "from_store", "bytes", "of a spectrum", OWN)
    matrix = _number(found, "from_store", "bytes", "of a matrix")
    row = _number(found, "from_store", "bytes", "of a row of latents")

    def gb(n: int, each: float | None) -> str:
        return f"{n * each / 1e9:,.1f}" if each else NOT

    rows = [
        [
            c.name, f"{c.spectra:,}", gb(c.spectra, FILES_BYTES), gb(c.spectra, own), f"{c.fewest:,} to {c.most:,}",
            f"{gb(c.fewest, matrix)} to {gb(c.most, matrix)}", gb(c.spectra, row), gb(c.spectra, INDEX_BYTES),
        ]
        for c in CATALOGUES
    ]  # fmt: skip
    head = [
        "GB", "spectra", "files", "store, each its own area", "matrices", "matrices in the store", "table of latents",
        "search index",
    ]  # fmt: skip
    return table(head, rows)


def limits_table(found: dict[str, Any]) -> str:
    """What grows with the number of shards and requests."""
    entry = len(ShardInfo(file="spectra-00000.parquet", rows=SHARD_ROWS, sha256=64 * "0").model_dump_json(indent=1)) + 6
    rows = []
    for c in CATALOGUES:
        shards = -(-c.spectra // SHARD_ROWS)
        rows.append(
            [
                c.name, f"{shards:,}", f"{shards * entry / 1e6:,.1f} MB", f"{shards**2 / 2 * entry / 1e9:,.1f} GB",
                f"{shards * TASK_S:,.0f} s", f"{shards / GETS:,.1f} s", f"{shards / PUTS:,.1f} s",
            ]
        )  # fmt: skip
    head = [
        "", "shards = tasks = parts", "store.json", "written while it grows in one store", "scheduler, all tasks",
        "reads at S3's limit", "writes at S3's limit",
    ]  # fmt: skip
    return table(head, rows)


def _number(found: dict[str, Any], part: str, *place: str) -> float | None:
    """A measured number, the median where there are several; None where it was not measured."""
    value: Any = found["parts"].get(part, {}).get("scores", {})
    for key in place:
        value = value.get(key, {}) if isinstance(value, dict) else {}
    if isinstance(value, dict):
        value = value.get("median")
    return None if value is None else float(value)


if __name__ == "__main__":
    main()
