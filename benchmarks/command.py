"""Running one benchmark by itself: its tables and targets as Markdown, its numbers as JSON."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from xlatent.core.bundle import DEFAULT_MODEL


def alone(run: Callable[..., dict[str, Any]], what: str | None, n: int) -> None:
    """Run a benchmark from the command line.

    Parameters
    ----------
    run : callable
        Takes model, paper, n and workers; returns ``targets`` (name, asked, found, met), ``tables`` and numbers.
    what : str
        Said by --help.
    n : int
        Default of --n.
    """
    parser = argparse.ArgumentParser(description=what)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--paper")
    parser.add_argument("--n", type=int, default=n)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    found = run(given.model, given.paper, given.n, given.workers)
    print("\n\n".join(found["tables"]), end="\n\n")
    for name, asked, value, met in found["targets"]:
        said = f"{value:.3g}" if isinstance(value, float) else value
        print(f"- {name}: asked {asked}, found {said}, {'met' if met else 'not met'}")
    if given.json:
        given.json.write_text(json.dumps(found, indent=1) + "\n")
