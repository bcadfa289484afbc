"""Run the judges: what is asked and found for each, and a page with figures where it is asked for."""

import argparse
import importlib
import json
import os
import time
import warnings
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from judges import atomdb, cameras, xspec
from judges.page import page
from words import told, write
from xlatent.core.bundle import DEFAULT_MODEL
from xlatent.core.errors import XlatentWarning
from xlatent.figures import style
from xlatent.infer.embed import load_model

JUDGES = ("sources", "powerlaws", "misfits", "instruments", "real")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m judges", description=__doc__)
    parser.add_argument("judges", nargs="*", metavar="judge", help=f"{', '.join(JUDGES)}; all by default")
    parser.add_argument("--model", default=DEFAULT_MODEL, help="bundle, by name or folder")
    parser.add_argument("--quick", action="store_true", help="few sources: that all of it works")
    parser.add_argument("--json", type=Path, help="where to write every number")
    parser.add_argument("--output", type=Path, help="folder for the page, its numbers and figures")
    given = parser.parse_args()
    if unknown := set(given.judges) - set(JUDGES):
        parser.error(f"there is no judge {', '.join(unknown)}: expected some of {', '.join(JUDGES)}")
    if missing := lacking():
        parser.exit(2, f"{missing}: make judges installs it\n")
    model = load_model(given.model, threads=1)
    found: dict[str, Any] = {}
    warnings.simplefilter("ignore", XlatentWarning)
    for name in given.judges or JUDGES:
        module = importlib.import_module(f"judges.{name}")
        began = time.perf_counter()
        found[name] = {"title": module.TITLE} | module.judge(model, given.quick)
        found[name]["seconds"] = time.perf_counter() - began
        print(told(found[name]), f"{found[name]['seconds']:.0f} s", sep="\n\n", end="\n\n", flush=True)
    numbers = {
        "model": model.info.name,
        "version": model.info.version,
        "sha256": model.info.fingerprint,
        "quick": given.quick,
    }
    numbers |= {
        name: {k: v for k, v in one.items() if k not in ("title", "tables", "figures")} for name, one in found.items()
    }
    text = json.dumps(numbers, indent=1, default=float) + "\n"
    if given.json:
        write(given.json, text)
    if given.output:
        write(given.output / "judges.md", page(model.info, found))
        write(given.output / "judges.json", text)
        for one in found.values():
            for name, (_, figure) in one.get("figures", {}).items():
                style.save(figure, given.output / "figures" / f"{name}.png")


def lacking() -> str:
    """What a judge needs and is not there; empty where all is."""
    if not xspec.installed():
        return "XSPEC's model library (package xspectrampoline) is not installed"
    if importlib.util.find_spec("sherpa") is None:
        return "Sherpa is not installed"
    if atomdb.folder() is None:
        return "AtomDB 3.0.9 is not in the folder that the environment's ATOMDB names"
    if not cameras.DATA.is_dir():
        return f"real responses are not at {cameras.DATA}"
    return ""


if __name__ == "__main__":
    main()
