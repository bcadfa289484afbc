"""How fast xlatent starts, reads, encodes and refines; prints two tables."""

import subprocess
import sys
import sysconfig
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

import xlatent as xl
from xlatent.errors import XlatentWarning
from xlatent.formats.inputs import Source, find
from xlatent.simulate.files import simulate

REAL = Path(__file__).resolve().parents[2] / "shared" / "data" / "spectra" / "manifest.csv"
RUNS = 10


def main() -> None:
    warnings.simplefilter("ignore", XlatentWarning)
    console = Console()
    console.print(start_up())
    console.print(throughput())


def start_up() -> Table:
    """Time commands side by side, one after the other in each round, so that a busy machine is busy for all."""
    xlatent = str(Path(sysconfig.get_path("scripts")) / "xlatent")
    commands = {
        "import numpy": [sys.executable, "-c", "import numpy"],
        "import xlatent": [sys.executable, "-c", "import xlatent"],
        "xlatent --help": [xlatent, "--help"],
    }
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(RUNS):
        for name, command in commands.items():
            times[name].append(
                seconds(lambda command=command: subprocess.run(command, check=True, capture_output=True))
            )
    table = Table("start-up", "min (s)", "median (s)", "min / numpy", "median / numpy")
    base = times["import numpy"]
    for name, taken in times.items():
        ratios = (min(taken) / min(base), median(taken) / median(base))
        table.add_row(name, *(f"{value:.3f}" for value in (min(taken), median(taken))), *(f"{r:.2f}" for r in ratios))
    return table


def throughput() -> Table:
    """Spectra a second, on one thread."""
    model = xl.load_model(threads=1)
    table = Table("spectra", "number", "read with RMF (1/s)", "encode (1/s)", "refine (1/s)")
    with tempfile.TemporaryDirectory() as folder:
        simulate(24, 1, folder)
        inputs = {"simulated": find([folder])}
        if REAL.is_file():
            inputs["real"] = find([REAL])
        for name, sources in inputs.items():
            model.embed(read_all(sources[:1]))  # what is computed once is no part of the rate
            spectra: list[xl.Spectrum] = []
            taken = [
                seconds(lambda sources=sources, spectra=spectra: spectra.extend(read_all(sources))),
                seconds(lambda spectra=spectra: model.embed(spectra, refine=False)),
                seconds(lambda spectra=spectra: model.embed(spectra)),
            ]
            table.add_row(name, str(len(spectra)), *(f"{len(spectra) / t:.1f}" for t in taken))
    return table


def read_all(sources: list[Source]) -> list[xl.Spectrum]:
    found = [xl.read(s.pha, s.arf, s.rmf, s.background, s.name) for s in sources]
    return [spectrum for one in found for spectrum in (one if isinstance(one, list) else [one])]


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
