"""How long the command takes for one spectrum, against the imports that it cannot do without."""

import subprocess
import sys
import sysconfig
import tempfile
import time
from importlib import resources
from pathlib import Path
from statistics import median
from typing import Any

from machine import spread
from words import table

NEEDED = "import numpy, astropy.io.fits, onnxruntime"
LARGEST = 3.0


def run(quick: bool = False) -> dict[str, Any]:
    """Time whole processes one after the other in each round, so that a busy machine is busy for all."""
    xlatent = str(Path(sysconfig.get_path("scripts")) / "xlatent")
    sample = str(resources.files("xlatent") / "sample" / "sim17_000.pha.gz")
    with tempfile.TemporaryDirectory() as folder:
        commands = {
            NEEDED: [sys.executable, "-c", NEEDED],
            "xlatent embed, one spectrum": [xlatent, "embed", sample, "--output", f"{folder}/one.parquet"],
            "xlatent --help": [xlatent, "--help"],
            "import xlatent": [sys.executable, "-c", "import xlatent"],
            "import numpy": [sys.executable, "-c", "import numpy"],
        }
        taken: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(3 if quick else 15):
            for name, command in commands.items():
                began = time.perf_counter()
                subprocess.run(command, check=True, capture_output=True)
                taken[name].append(time.perf_counter() - began)
    ratios = {
        name: [mine / base for mine, base in zip(times, taken[NEEDED], strict=True)] for name, times in taken.items()
    }
    ratio = median(ratios["xlatent embed, one spectrum"])
    rows = [
        [f"`{name}`", f"{median(ratios[name]):.2f}", f"{median(times):.3f}", f"{min(times):.3f}", f"{max(times):.3f}"]
        for name, times in taken.items()
    ]
    return {
        "targets": [
            ["start-up: `xlatent embed` of one spectrum, over the imports", f"≤ {LARGEST:g}", ratio, ratio <= LARGEST]
        ],
        "tables": [table(["whole process", "ratio", "median (s)", "least (s)", "most (s)"], rows)],
        "scores": {
            "over the imports": {name: spread(values) for name, values in ratios.items() if name != NEEDED},
            "seconds": {name: spread(times) for name, times in taken.items()},
        },
    }
