"""How ``xlatent embed --scheduler`` scales from one Dask worker to two; prints the efficiency."""

import argparse
import json
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

import million


def run(n: int = 20_480, rounds: int = 2, workers: tuple[int, ...] = (1, 2)) -> dict[str, Any]:
    """Embed a simulated store on clusters of some workers, in turn, so that a busy machine is busy for all.

    Time runs from the end of the first round of parts to the last, which leaves out how long a command, a worker and
    its model take to start. The processors' time of the workers says what others on the machine do not disturb: what
    a second worker costs the first.
    """
    xlatent = str(Path(sysconfig.get_path("scripts")) / "xlatent")
    rates: dict[int, list[float]] = {number: [] for number in workers}
    spent: dict[int, list[float]] = {number: [] for number in workers}
    with tempfile.TemporaryDirectory() as place:
        store = Path(place) / "store"
        million.build(store, n)
        for turn in range(rounds):
            for number in workers:
                output = Path(place) / f"{turn}-{number}"
                with socket.socket() as free:
                    free.bind(("127.0.0.1", 0))
                    port = str(free.getsockname()[1])
                address = f"tcp://127.0.0.1:{port}"
                dask = [sys.executable, "-m", "dask"]
                scheduler = [*dask, "scheduler", "--host", "127.0.0.1", "--port", port, "--no-dashboard"]
                worker = [*dask, "worker", address, "--nthreads", "1", "--nworkers", str(number), "--no-dashboard"]
                local = ["--local-directory", place]
                quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
                processes = [psutil.Popen(command, **quiet) for command in (scheduler, [*worker, *local])]
                try:
                    command = [xlatent, "embed", str(store), "--scheduler", address, "--output", f"{output}/"]
                    subprocess.run(command, check=True, **quiet)
                    times = [child.cpu_times() for child in processes[1].children(recursive=True)]
                    spent[number].append(sum(one.user + one.system for one in times))
                finally:
                    for process in reversed(processes):
                        for child in process.children(recursive=True):
                            child.kill()
                        process.kill()
                        process.wait()
                ends = sorted(path.stat().st_mtime for path in output.glob("*.parquet"))
                steady = ends[number - 1 :]
                rates[number].append(1024 * (len(steady) - 1) / (steady[-1] - steady[0]))
                time.sleep(1.0)
    rate = {number: median(found) for number, found in rates.items()}
    one = rate[workers[0]] / workers[0]
    return {
        "n": n,
        "per_s": {str(number): found for number, found in rates.items()},
        "cpu_s": {str(number): found for number, found in spent.items()},
        "efficiency": {str(number): rate[number] / number / one for number in workers},
    }


def show(found: dict[str, Any]) -> None:
    table = Table("workers", "spectra a second", "processor time (s)", "efficiency", "target")
    for number, rates in found["per_s"].items():
        efficiency = f"{found['efficiency'][number]:.2f}"
        shown = (", ".join(f"{one:,.0f}" for one in values) for values in (rates, found["cpu_s"][number]))
        table.add_row(number, *shown, efficiency, "0.85")
    Console().print(table)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=20_480)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    result = run(given.n, given.rounds)
    show(result)
    if given.json:
        given.json.write_text(json.dumps(result, indent=1) + "\n")
