"""How fast xlatent is, part by part: prints every target beside what was found, and keeps all numbers as JSON.

    python benchmarks/speed.py                            all parts; takes forty minutes
    python benchmarks/speed.py --quick                    checks in minutes that all parts work; its times mean nothing
    python benchmarks/speed.py --only start_up,encoder    some parts
    python benchmarks/speed.py --page docs/speed.md       all parts, and the page that tells of them

Two results are compared by benchmarks/compare.py.
"""

import argparse
import importlib
import importlib.util
import json
import os
import subprocess
import time
import traceback
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # one process a core, one thread each
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import costs
import machine
from words import targets, told, write

HERE = Path(__file__).resolve().parent
# Files beside this one, each with run(quick), which gives targets (what, asked, found, met), tables and scores.
PARTS = {
    "start_up": "Start-up",
    "reading": "Reading files",
    "encoder": "Encoder and decoder",
    "from_store": "From a store",
    "growth": "Up to a million spectra",
    "training": "Simulation and training",
    "workers": "Two workers",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="check that it works; the times mean nothing")
    parser.add_argument("--only", default=",".join(PARTS), help="parts, with commas between")
    parser.add_argument("--output", type=Path, default=HERE.parent / "runs" / "speed.json")
    parser.add_argument("--page", type=Path, help="Markdown page to fill in as well")
    given = parser.parse_args()
    wanted = given.only.split(",")
    if unknown := set(wanted) - set(PARTS):
        parser.error(f"there is no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    found: dict[str, Any] = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "version": version("xlatent"),
        "commit": commit(),
        "quick": given.quick,
        "machine": machine.describe()
        | {"gflops": machine.product_rate() / 1e9, "copied_gb_per_s": machine.copy_rate() / 1e9},
        "parts": {},
    }
    print(machine.said(found["machine"]), flush=True)
    given.output.parent.mkdir(parents=True, exist_ok=True)
    for name in wanted:
        found["parts"][name] = part(name, given.quick)
        print("\n" + told(found["parts"][name]), flush=True)
        write(given.output, json.dumps(found, indent=1, default=float) + "\n")  # what follows may take as long again
    print("\n## All targets\n\n" + targets(found["parts"].values()))
    print(f"\n{given.output} holds every number; compare two of them with benchmarks/compare.py")
    if given.page:
        costs.fill(given.page, found)
    if failed := [name for name, one in found["parts"].items() if "failed" in one]:
        raise SystemExit(f"failed: {', '.join(failed)}")


def part(name: str, quick: bool) -> dict[str, Any]:
    """Run one part. One that fails is told and does not stop the others; one whose library is missing is left out."""
    nothing: dict[str, Any] = {"title": PARTS[name], "targets": [], "tables": [], "scores": {}}
    if importlib.util.find_spec(name) is None:
        return nothing | {"left_out": f"there is no benchmarks/{name}.py"}
    began = time.perf_counter()
    try:
        found = importlib.import_module(name).run(quick=quick)
    except ModuleNotFoundError as error:
        return nothing | {"left_out": f"{error.name} is not installed"}
    except (Exception, SystemExit):  # of a command that could not be run
        traceback.print_exc()
        return nothing | {"failed": traceback.format_exc(limit=-1).splitlines()[-1]}
    if quick:  # whatever the times were, they are not judged
        found["targets"] = [[what, asked, value, None] for what, asked, value, _ in found["targets"]]
    return nothing | found | {"seconds": time.perf_counter() - began}


def commit() -> str:
    """The commit that was measured, with a plus where files differ from it; empty outside a repository."""
    answers = [
        subprocess.run(["git", *words], cwd=HERE, capture_output=True, text=True).stdout.strip()
        for words in (["rev-parse", "--short", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
    ]
    return answers[0] + ("+" if answers[1] else "")


if __name__ == "__main__":
    main()
