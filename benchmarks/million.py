"""How time and memory of ``xlatent embed`` grow with the number of spectra in a store: 10⁴, 10⁵, a million."""

import argparse
import json
import subprocess
import sysconfig
import tempfile
import threading
import time
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
from rich.console import Console
from rich.table import Table

from xlatent.core.spectrum import Spectrum
from xlatent.formats.store import SHARD_ROWS, Writer, is_store
from xlatent.formats.store_rows import RowEncoder
from xlatent.simulate import acis, population
from xlatent.simulate.observe import particle_background

SIZES = (10_000, 100_000)
_SOURCES, _RESPONSES = 4096, 32
_AREA = 20.0  # background region over source region


def build(folder: Path, n: int, seed: int = 0, even: bool = False) -> float:
    """Write a store of simulated ACIS detections; gives its rows a second.

    Sources of the training population in a few dozen responses; each is drawn many times, always with other counts.
    Their number above a number of counts falls as its inverse from 10 on, as in a catalogue, where half have fewer than
    20; or ``even`` in its logarithm from 20 to 20,000.
    """
    began = time.perf_counter()
    rng = np.random.default_rng(seed)
    on, off, spectra = _sources(even)
    with Writer(folder) as writer:
        templates = RowEncoder(folder).encode(spectra[:n])
        for begin in range(0, n, SHARD_ROWS):
            which = rng.integers(templates.num_rows, size=min(SHARD_ROWS, n - begin))
            rows = templates.take(pa.array(which))
            names = pa.array([f"x{begin + i:07d}" for i in range(len(which))])
            rows = rows.set_column(rows.column_names.index("name"), rows.schema.field("name"), names)
            for prefix, expected in (("", on), ("background_", off)):
                for name, values in _drawn(rng, expected[which]).items():
                    column = rows.column_names.index(prefix + name)
                    rows = rows.set_column(column, rows.schema.field(column), values)
            writer.append(rows)
    return n / (time.perf_counter() - began)


@cache
def _sources(even: bool) -> tuple[np.ndarray, np.ndarray, list[Spectrum]]:
    """Expected counts of sources and of their backgrounds [n, n_chan], and the spectra without their counts."""
    rng = np.random.default_rng(1)
    on, off, rows = [], [], []
    sources = population.draw(rng, _SOURCES)
    for some in np.array_split(rng.permutation(_SOURCES), _RESPONSES):
        chip: acis.Chip = "BI" if rng.random() < 0.5 else "FI"
        response = acis.response(chip, float(rng.uniform(1999.7, 2026.0)), float(rng.uniform(0.0, 8.0)))
        photons = population.spectra(
            np.append(response.energy_lo, response.energy_hi[-1]), {key: value[some] for key, value in sources.items()}
        )
        in_band = (response.chan_hi > 0.5) & (response.chan_lo < 8.0)
        share = rng.random((len(some), 1))
        counts = 20.0 * 1000.0**share if even else np.minimum(10.0 / share, 1e5)
        folded = response.fold(photons)
        folded *= counts / folded[:, in_band].sum(axis=1, keepdims=True)
        particles = particle_background(np.append(response.chan_lo, response.chan_hi[-1])).mean(axis=0)
        share = np.minimum(counts, 300.0) * 10 ** rng.uniform(-2.0, 0.0, (len(some), 1))
        background = share * particles / particles[in_band].sum()
        on.append(folded + background)
        off.append(background * _AREA)
        empty = np.zeros(response.chan_lo.size)
        rows.extend(
            Spectrum(
                empty,
                exposure,
                backscale=1e-6,
                background=Spectrum(empty, exposure, backscale=1e-6 * _AREA),
                response=response,
                meta={"name": "", "telescope": "CHANDRA", "instrument": "ACIS"},
            )
            for exposure in 10 ** rng.uniform(3.8, 5.0, len(some))
        )
    return np.concatenate(on), np.concatenate(off), rows


def _drawn(rng: np.random.Generator, expected: np.ndarray) -> dict[str, pa.Array]:
    """Counts drawn from their expectation, as a store has them: places and counts of the channels that hold any."""
    counts = rng.poisson(expected)
    row, place = np.nonzero(counts)
    offsets = np.searchsorted(row, np.arange(len(counts) + 1)).astype(np.int32)
    values = {"channel_index": place.astype(np.int32), "counts": counts[row, place].astype(float)}
    return {
        name: pa.ListArray.from_arrays(
            offsets, array, type=pa.list_(pa.field("element", pa.from_numpy_dtype(array.dtype)))
        )
        for name, array in values.items()
    }


def embed(store: Path, output: str, *options: str) -> dict[str, float]:
    """Embed a store by the command; seconds, and the largest resident memory.

    Of the parent and of a worker all that is theirs; of all together what several share, such as code, counts once.
    """
    command = [str(Path(sysconfig.get_path("scripts")) / "xlatent"), "embed", str(store), "--output", output, *options]
    began = time.perf_counter()
    process = psutil.Popen(command, stdout=subprocess.DEVNULL)
    peak = {"parent": 0, "worker": 0, "all": 0}

    def watch() -> None:
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            try:
                parent, *workers = (one.memory_full_info() for one in (process, *process.children(recursive=True)))
            except psutil.NoSuchProcess:
                continue
            now = {"parent": parent.rss, "worker": max((worker.rss for worker in workers), default=0)}
            now["all"] = parent.pss + sum(worker.pss for worker in workers)
            peak.update({name: max(value, now[name]) for name, value in peak.items()})
            time.sleep(0.2)

    watcher = threading.Thread(target=watch)
    watcher.start()
    status = process.wait()
    seconds = time.perf_counter() - began
    watcher.join()
    if status:
        raise SystemExit(f"{' '.join(command)} ended with status {status}")
    return {"seconds": seconds, **{f"{name}_mb": value / 1e6 for name, value in peak.items()}}


def run(
    sizes: tuple[int, ...] = SIZES, workers: int = 2, options: tuple[str, ...] = (), folder: Path | None = None
) -> dict[str, Any]:
    """Build a store of each size, embed it into one Parquet file, and fit the exponent of time against number.

    The time of a start-up is that of a store of one spectrum; it is subtracted. Stores are made in ``folder`` and stay
    there for the next time; without one they are gone afterwards.
    """
    found: dict[str, Any] = {"workers": workers, "options": list(options), "sizes": []}
    options = ("--workers", str(workers), *options)
    with ExitStack() as stack:
        place = folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stores = {n: place / str(n) for n in (1, *sizes)}
        built = {n: build(store, n) for n, store in stores.items() if not is_store(store)}
        table = str(place / "t.parquet")
        start = min(embed(stores[1], table, *options)["seconds"] for _ in range(3))
        found |= {"start_s": start, "built_per_s": built}
        for n in sizes:
            taken = embed(stores[n], table, *options)
            found["sizes"].append({"n": n, "per_s": n / (taken["seconds"] - start), **taken})
    if len(sizes) > 1:
        x = np.log([row["n"] for row in found["sizes"]])
        y = np.log([row["seconds"] - start for row in found["sizes"]])
        found["exponent"] = float(np.polyfit(x, y, 1)[0])
    return found


def show(found: dict[str, Any]) -> None:
    table = Table("spectra", "seconds", "embedded (1/s)", "parent (MB)", "a worker (MB)", "all (MB)")
    for row in found["sizes"]:
        numbers = ("seconds", "per_s", "parent_mb", "worker_mb", "all_mb")
        table.add_row(f"{row['n']:,}", *(f"{row[name]:,.0f}" for name in numbers))
    console = Console()
    console.print(table)
    console.print(
        f"start-up {found['start_s']:.1f} s; exponent {found.get('exponent', float('nan')):.3f} (target < 1.05)"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sizes", nargs="*", type=lambda text: int(float(text)), default=SIZES)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--no-refine", action="store_true")
    parser.add_argument("--folder", type=Path, help="where the stores are kept")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    result = run(tuple(given.sizes), given.workers, ("--no-refine",) if given.no_refine else (), given.folder)
    show(result)
    if given.json:
        given.json.write_text(json.dumps(result, indent=1) + "\n")
