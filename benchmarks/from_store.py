"""Spectra a second that ``xlatent embed`` makes of a store, whole processes with their start-up subtracted."""

import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import million
import simulated
from machine import spread
from words import table
from xlatent.core.grid import ModelGrid
from xlatent.core.spectrum import Spectrum
from xlatent.formats import store
from xlatent.simulate import acis, continuum, population

SEED = 92_000  # never used in training
NATIVE, EVEN, GRID, OWN = "1,024 channels of ACIS", "the same, 20 to 20,000 counts", "128 channels", "each its own area"
KINDS = {"with refinement": (), "without": ("--no-refine",)}
LEAST = {"with refinement": 1500, "without": 4000}  # spectra a second, of two processes


def run(quick: bool = False) -> dict[str, Any]:
    """Embed two stores of each kind by one process and by two: a spectrum costs what the larger one takes longer."""
    sizes = {NATIVE: (64, 320)} if quick else {
        NATIVE: (1024, 5120), EVEN: (512, 2048), GRID: (1024, 5120), OWN: (512, 2048),
    }  # fmt: skip
    makers = {NATIVE: million.build, EVEN: partial(million.build, even=True), GRID: on_grid, OWN: own_areas}
    rates: dict[str, list[float]] = {}
    starts: list[float] = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        stores = {(channels, n): folder / f"{channels}-{n}" for channels in sizes for n in sizes[channels]}
        for (channels, n), path in stores.items():
            makers[channels](path, n)
        output = folder / "latents.parquet"
        for _ in range(1 if quick else 3):
            for channels, (few, many) in sizes.items():
                for kind, options in KINDS.items():
                    for workers in (1, 2):
                        more = ("--workers", str(workers), *options)
                        taken = [million.embed(stores[channels, n], str(output), *more)["seconds"] for n in (few, many)]
                        longer = taken[1] - taken[0]
                        # Lost in noise, as it may be in a quick run: then start-up is part of it.
                        each = longer / (many - few) if longer > 0.0 else taken[1] / many
                        rates.setdefault(f"{channels}, {kind}, {workers}", []).append(1.0 / each)
                        starts.append(taken[0] - few * each)
        written = output.stat().st_size / many
        held = {channels: size(stores[channels, n[1]]) / n[1] for channels, n in sizes.items()}
        matrices = [file.stat().st_size for file in (stores[NATIVE, sizes[NATIVE][1]] / "matrices").iterdir()]
    scores = {name: spread(values) for name, values in rates.items()}
    targets = []
    for kind, least in LEAST.items():
        found = scores[f"{NATIVE}, {kind}, 2"]["median"]
        what = f"spectra/s from a store, two processes, {kind}"
        targets.append([what, f"≥ {least:,}", f"{found:,.0f}", found >= least])
    rows = [
        [
            channels, kind, f"{two['median'] / one['median']:.2f}", f"{one['median']:,.0f}", f"{two['median']:,.0f}",
            f"{two['min']:,.0f} to {two['max']:,.0f}",
        ]
        for channels in sizes for kind in KINDS
        for one, two in [[scores[f"{channels}, {kind}, {workers}"] for workers in (1, 2)]]
    ]  # fmt: skip
    head = ["store", "", "two over one", "one process (1/s)", "two processes (1/s)", "least to most"]
    weighed = {"of a spectrum": held, "of a matrix": float(np.mean(matrices)), "of a row of latents": written}
    return {
        "targets": targets,
        "tables": [table(head, rows)],
        "scores": {"per second": scores, "start": spread(starts), "bytes": weighed},
    }


def on_grid(folder: Path, n: int) -> None:
    """Write a store of simulated spectra on the model's own detector grid, through few responses."""
    grid, rng = ModelGrid(), np.random.default_rng(SEED)
    responses = simulated.unseen_responses(grid)
    counts = np.minimum(10.0 / rng.random(n), 1e5)
    state = rng.integers(len(responses), size=n)
    store.write(simulated.observe(grid, rng, population.draw(rng, n), counts, responses, state).spectra, folder)


def own_areas(folder: Path, n: int) -> None:
    """Write a store of one matrix and as many areas as spectra, in single precision as files have them."""
    rng = np.random.default_rng(SEED)
    response = acis.response("FI", 2010.0)
    edges = np.append(response.energy_lo, response.energy_hi[-1])
    middle = 0.5 * (edges[1:] + edges[:-1])
    years, angles = rng.uniform(2000.0, 2025.0, n), rng.uniform(0.0, 10.0, n)
    areas = acis.effective_area(middle, chip="FI", year=years, theta=angles).astype(np.float32).astype(float)
    photons = continuum.powerlaw(edges, 1.7)
    counts = np.minimum(10.0 / rng.random(n), 1e5)

    def observed(i: int) -> Spectrum:
        own = replace(response, area=areas[i])
        folded = own.fold(photons)
        drawn = rng.poisson(folded / folded.sum() * counts[i]).astype(float)
        empty = Spectrum(rng.poisson(0.2, drawn.size).astype(float), 3e4, backscale=20.0)
        return Spectrum(drawn, 3e4, backscale=1.0, background=empty, response=own, meta={"name": f"own{i}"})

    store.write((observed(i) for i in range(n)), folder)


def size(folder: Path) -> int:
    """Bytes of a store, without the matrices."""
    return sum(file.stat().st_size for file in folder.glob("*.parquet"))
