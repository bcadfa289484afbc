"""How time and memory grow from ten thousand spectra of a store to a million."""

from typing import Any

import million
from words import table

SIZES, FEW = (10_000, 100_000, 1_000_000), (500, 1000)
STEEPEST, MOST_MB = 1.05, 1500.0


def run(quick: bool = False) -> dict[str, Any]:
    """Build and embed stores of each size by two processes, with refinement (`million.run`)."""
    found = million.run(FEW if quick else SIZES)
    slope, memory = found["exponent"], max(one["all_mb"] for one in found["sizes"])
    rows = [
        [
            f"{one['n']:,}", f"{one['per_s']:,.0f}", f"{one['seconds']:,.0f}", f"{one['parent_mb']:,.0f}",
            f"{one['worker_mb']:,.0f}", f"{one['all_mb']:,.0f}", f"{one['built_per_s']:,.0f}",
        ]
        for one in found["sizes"]
    ]  # fmt: skip
    head = ["spectra", "spectra/s", "seconds", "parent (MB)", "a worker (MB)", "all processes (MB)", "built (1/s)"]
    largest = f"{found['sizes'][-1]['n']:,} spectra"
    return {
        "targets": [
            [f"time against number up to {largest}, exponent", f"< {STEEPEST}", f"{slope:.3f}", slope < STEEPEST],
            ["resident memory of all processes", f"≤ {MOST_MB:,.0f} MB", f"{memory:,.0f} MB", memory <= MOST_MB],
        ],
        "tables": [table(head, rows)],
        "scores": {"exponent": slope, "start": found["start_s"]}
        | {str(one["n"]): {key: value for key, value in one.items() if key != "n"} for one in found["sizes"]},
    }
