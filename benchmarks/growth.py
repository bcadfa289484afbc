"""How time and memory grow from ten thousand spectra of a store to a million."""

import os
import tempfile
from pathlib import Path
from typing import Any

import million
from words import table

SIZES, FEW = (10_000, 100_000, 1_000_000), (500, 1000, 1500)
STEEPEST, MOST_MB = 1.05, 1500.0


def run(quick: bool = False) -> dict[str, Any]:
    """Embed stores of each size by two processes (`million.run`), the largest without refinement only.

    ``XLATENT_STORES`` names a folder in which the stores are kept: to build them takes ten minutes.
    """
    sizes = FEW if quick else SIZES
    with tempfile.TemporaryDirectory() as passing:
        folder = Path(os.environ.get("XLATENT_STORES", passing))
        kinds = {
            "without refinement": million.run(sizes, options=("--no-refine",), folder=folder),
            "with refinement": million.run(sizes[:-1], folder=folder),
        }
    rows = [
        [
            f"{one['n']:,}", kind, f"{one['per_s']:,.0f}", f"{one['seconds']:,.0f}", f"{one['parent_mb']:,.0f}",
            f"{one['worker_mb']:,.0f}", f"{one['all_mb']:,.0f}",
        ]
        for kind, found in kinds.items() for one in found["sizes"]
    ]  # fmt: skip
    head = ["spectra", "", "spectra/s", "seconds", "parent (MB)", "a worker (MB)", "all processes (MB)"]
    targets: list[list[Any]] = []
    for kind, found in kinds.items():
        slope, largest = found["exponent"], found["sizes"][-1]
        what = f"up to {largest['n']:,} spectra {kind}"
        targets += [
            [f"time against number {what}, exponent", f"< {STEEPEST}", f"{slope:.3f}", slope < STEEPEST],
            [
                f"resident memory of all processes, {what}",
                f"≤ {MOST_MB:,.0f} MB",
                f"{largest['all_mb']:,.0f} MB",
                largest["all_mb"] <= MOST_MB,
            ],
        ]
    scores = {
        kind: {"exponent": found["exponent"], "start": found["start_s"]}
        | {str(one["n"]): {key: value for key, value in one.items() if key != "n"} for one in found["sizes"]}
        for kind, found in kinds.items()
    }
    return {"targets": targets, "tables": [table(head, rows)], "scores": scores}
