"""How much more two workers of a Dask cluster do than one."""

from typing import Any

import distributed  # noqa: F401 (without it this part is left out)

import cluster
from machine import spread
from words import table

LEAST = 0.85


def run(quick: bool = False) -> dict[str, Any]:
    """Embed a store by one worker and by two, in turn (`cluster.run`)."""
    found = cluster.run(3 * 1024, 1) if quick else cluster.run(rounds=3)
    efficiency = found["efficiency"]["2"]
    rows = [
        [number, f"{found['efficiency'][number]:.2f}", ", ".join(f"{rate:,.0f}" for rate in rates)]
        for number, rates in found["per_s"].items()
    ]
    return {
        "targets": [["two Dask workers, efficiency", f"≥ {LEAST}", f"{efficiency:.2f}", efficiency >= LEAST]],
        "tables": [table(["workers", "efficiency", "spectra/s, each round"], rows)],
        "scores": {
            "efficiency": efficiency,
            "per second": {number: spread(rates) for number, rates in found["per_s"].items()},
        },
    }
