"""Whether training on a store of spectra unlike any simulated helps with those and harms none: scores before and after.

Run as `python benchmarks/finetune.py`; prints Markdown.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

import methods
import simulated
from xlatent.core import absorption
from xlatent.core.bundle import DEFAULT_MODEL
from xlatent.core.spectrum import Response, Spectrum
from xlatent.csc.matching import split
from xlatent.formats import store
from xlatent.infer.embed import LatentModel, load_model
from xlatent.infer.observation import prepare
from xlatent.simulate import acis, continuum, population
from xlatent.simulate.observe import particle_background
from xlatent.simulate.plasma import ELEMENTS, plasma

SEED = 20_261_122  # no training uses it
JUDGED = (300.0, 3000.0)  # counts at which methods are compared, as in reconstruction.py
PER_SOURCE = 3  # detections, on average
REGION = 20.0  # background region over source region

# Lines of H- and He-like ions of C to S and of Fe L, keV (NIST, to 1 %), that charge exchange makes without continuum.
FOREST = np.array(
    [0.367, 0.436, 0.459, 0.500, 0.561, 0.574, 0.654, 0.666, 0.698, 0.775, 0.826, 0.905, 0.922, 1.022, 1.074,
     1.211, 1.331, 1.352, 1.472, 1.840, 1.865, 2.006, 2.431, 2.461, 2.622]
)  # fmt: skip
IRON = np.array([6.40, 6.70, 6.97])


# -- sources that are none of population.FAMILIES


def iron_stars(rng: np.random.Generator, energy: np.ndarray, n: int) -> np.ndarray:
    """Flat continua behind two partial absorbers, with three narrow iron lines: magnetic accretors."""
    flux = continuum.bremsstrahlung(energy, rng.uniform(8.0, 40.0, n))
    mid = 0.5 * (energy[1:] + energy[:-1])
    for low, high in ((0.0, 1.0), (0.8, 2.0)):
        flux = flux * absorption.transmission(mid, 10 ** rng.uniform(low, high, n), rng.uniform(0.6, 0.98, n))
    width = 10 ** rng.uniform(-1.0, 0.2, (n, 3))  # keV, equivalent
    for k, line in enumerate(IRON):
        density = flux[:, np.searchsorted(energy, line) - 1] / np.diff(energy)[np.searchsorted(energy, line) - 1]
        flux = flux + (width[:, k] * density)[:, None] * continuum.gaussian_line(energy, line, 0.015)
    return flux


def line_forests(rng: np.random.Generator, energy: np.ndarray, n: int) -> np.ndarray:
    """Charge exchange: lines of very unequal strengths and next to no continuum."""
    strength = FOREST**-1.5 * 10 ** (0.6 * rng.standard_normal((n, len(FOREST))))
    lines = continuum.gaussian_line(energy, FOREST, 0.004 * FOREST)
    band = energy[:-1] > 0.5
    flux = strength @ lines
    rest = continuum.powerlaw(energy, rng.uniform(1.0, 3.0, n))
    share = 10 ** rng.uniform(-1.5, -0.5, n)
    return flux / flux[:, band].sum(axis=1)[:, None] + (share / rest[:, band].sum(axis=1))[:, None] * rest


def odd_plasmas(rng: np.random.Generator, energy: np.ndarray, n: int) -> np.ndarray:
    """Two temperatures, with one or two elements twenty times the others: ejecta, coronae with inverse FIP effect."""
    abundance = 10 ** (-0.5 + 0.2 * rng.standard_normal((n, len(ELEMENTS))))
    for _ in range(2):
        abundance[np.arange(n), rng.integers(len(ELEMENTS), size=n)] *= 20.0
    kt = 10 ** rng.uniform(-0.8, 0.0, n)
    cool, hot = plasma(energy, kt, abundance), plasma(energy, 3.0 * kt + 1.0, abundance)
    share = rng.uniform(0.3, 3.0, n) * cool.sum(axis=1) / hot.sum(axis=1)
    return cool + share[:, None] * hot


def sharp_breaks(rng: np.random.Generator, energy: np.ndarray, n: int) -> np.ndarray:
    """Power laws that break within the band, by one to three, either way: jets, and two populations of electrons."""
    gamma, knee = rng.uniform(0.5, 3.0, n), rng.uniform(1.2, 5.0, n)[:, None]
    after = gamma + rng.choice([-1.0, 1.0], n) * rng.uniform(1.0, 3.0, n)
    mid = 0.5 * (energy[1:] + energy[:-1])
    return np.diff(energy) * np.where(mid < knee, (mid / knee) ** -gamma[:, None], (mid / knee) ** -after[:, None])


def warm_absorbers(rng: np.random.Generator, energy: np.ndarray, n: int) -> np.ndarray:
    """Power laws with deep edges of O VII, O VIII, Ne IX, Mg XI and highly ionised iron, and no neutral gas."""
    mid = 0.5 * (energy[1:] + energy[:-1])
    flux = continuum.powerlaw(energy, rng.uniform(1.6, 2.6, n))
    for edge in (0.739, 0.871, 1.196, 1.762, 8.0):  # keV
        depth = rng.uniform(0.5, 3.0, n)[:, None]
        flux = flux * np.exp(-np.where(mid > edge, depth * (mid / edge) ** -3, 0.0))
    return flux


KINDS = (iron_stars, line_forests, odd_plasmas, sharp_breaks, warm_absorbers)


# -- the store that stands in for a catalogue


def late_responses(n: int = 24) -> list[Response]:
    """States of 2027 to 2035: the contaminant of the last known date, thicker by up to two thirds."""
    rng, found = np.random.default_rng(SEED), []
    for i in range(n):
        chip: acis.Chip = "FI" if i % 2 else "BI"
        now = acis.response(chip, 2027.0, rng.uniform(0.0, 10.0), width=rng.uniform(0.8, 1.2))
        mid = 0.5 * (now.energy_lo + now.energy_hi)
        more = rng.uniform(0.1, 0.65) * acis.contamination_depth(mid, chip=chip, year=2027.0)
        matrix = now.redistribution.copy()
        matrix.data[matrix.data < 1e-5] = 0.0
        matrix.eliminate_zeros()
        found.append(replace(now, area=now.area * np.exp(-more), redistribution=matrix))
    return found


def detections(rng: np.random.Generator, n: int, names: list[str]) -> Iterator[Spectrum]:
    """Spectra of `KINDS` of sources, each seen through late responses, with 40 to 20,000 counts."""
    responses = late_responses()
    energy = np.append(responses[0].energy_lo, responses[0].energy_hi[-1])
    mid = 0.5 * (energy[1:] + energy[:-1])
    channels = np.append(responses[0].chan_lo, responses[0].chan_hi[-1])
    band = (channels[1:] > 0.5) & (channels[:-1] < 8.0)
    shapes: dict[str, np.ndarray] = {}
    for name in dict.fromkeys(names):
        kind = KINDS[rng.integers(len(KINDS))]
        shapes[name] = kind(rng, energy, 1)[0] * absorption.transmission(mid, 10 ** rng.uniform(-2.0, -0.3))
    for i, name in enumerate(names):
        response = responses[rng.integers(len(responses))]
        folded = response.fold(shapes[name])
        counts = 10 ** rng.uniform(1.6, 4.3)
        particles = rng.dirichlet([3.0, 1.0, 1.0, 0.3]) @ particle_background(channels)
        background = particles / particles[band].sum() * min(counts, 300.0) * 10 ** rng.uniform(-2.0, 0.0)
        yield Spectrum(
            rng.poisson(folded / folded[band].sum() * counts + background).astype(float),
            exposure=simulated.EXPOSURE,
            background=Spectrum(
                rng.poisson(background * REGION).astype(float), simulated.EXPOSURE, backscale=REGION
            ),
            response=response,
            meta={"name": f"{name}_{i}"},
        )  # fmt: skip


def build(path: Path, n: int) -> None:
    """Write the store, split by source."""
    rng = np.random.default_rng(SEED)
    names = sorted(f"source{k}" for k in rng.integers(max(n // PER_SOURCE, 1), size=n))
    store.write(detections(rng, n, names), path, {"split": list(split(names)), "source": names})


# -- the model benchmark in small


def reconstruction(model: LatentModel, test: simulated.TestSet) -> dict[str, np.ndarray]:
    """Expected deviance of each spectrum of the training population, by the encoder alone and refined."""
    view, observations = methods.seen(test, model.projector), [prepare(s, model.grid) for s in test.spectra]
    found = {}
    for name, exact in (("amortised", False), ("refined", True)):
        parts = [observations[i : i + methods.CHUNK] for i in range(0, len(observations), methods.CHUNK)]
        z = np.concatenate([model._posterior(part, exact).z for part in parts])
        found[name] = methods.deviance(methods.decoded_shapes(model, z, test), view)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--n", type=int, default=5000, help="detections in the store")
    parser.add_argument("--judged", type=int, default=2000, help="spectra of the training population")
    parser.add_argument("--minutes", type=float, default=8.0, help="of training")
    parser.add_argument("--keep", type=Path, help="folder for store, run and bundle; a temporary one if not given")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        print(report(given, given.keep or Path(temporary)))


def report(given: argparse.Namespace, folder: Path) -> str:
    """Build, train, export and score; return what was found as Markdown."""
    if not (folder / "store").exists():
        build(folder / "store", given.n)
    xlatent("train", "--preset", "response-aware", "--from", given.model, "--data", folder / "store",
            "--output", folder / "run", "--minutes", given.minutes, "--threads", 1)  # fmt: skip
    xlatent("export", folder / "run", "--output", folder / "bundle", "--name", "fine-tuned", "--proposal", "0")
    lines = [json.loads(line) for line in (folder / "run" / "log.jsonl").read_text().splitlines()]
    held_out = next(line["held_out"] for line in reversed(lines) if "end" in line.get("held_out", {}))

    before, after = (load_model(name, threads=1) for name in (given.model, folder / "bundle"))
    grid, rng = before.grid, np.random.default_rng(SEED)
    responses = simulated.unseen_responses(grid)
    rows, counts = population.draw(rng, given.judged), np.exp(rng.uniform(*np.log(JUDGED), given.judged))
    test = simulated.observe(grid, rng, rows, counts, responses, rng.integers(len(responses), size=given.judged))
    known = [reconstruction(model, test) for model in (before, after)]
    return "\n".join([heading(given, after, held_out), *known_lines(known)])


def heading(given: argparse.Namespace, after: LatentModel, held_out: dict[str, Any]) -> str:
    """What was done, and the held-out score."""
    by, error = held_out["better_by"], held_out["standard_error"]
    return (
        f"# Fine-tuning `{given.model}` on {given.n:,} detections of sources it has not seen\n\n"
        f"{given.minutes:g} minutes of training, {after.info.steps:,} steps, on one core.\n\n"
        "| score | before | after | change |\n|---|---|---|---|\n"
        f"| held-out deviance, {held_out['spectra']} spectra of sources kept apart "
        f"| {held_out['start']:.2f} | {held_out['end']:.2f} | {by:.2f} ± {error:.2f} better, "
        f"for {held_out['share_better']:.0%} |"
    )


def known_lines(known: list[dict[str, np.ndarray]]) -> Iterator[str]:
    """Rows for the training population's scores, with the error of the change from pairs drawn again."""
    rng = np.random.default_rng(1)
    for name in known[0]:
        pair = np.stack([scores[name] for scores in known])
        again = pair[:, rng.integers(pair.shape[1], size=(500, pair.shape[1]))]
        ratio = np.median(again[1], axis=1) / np.median(again[0], axis=1)
        old, new = np.median(pair, axis=1)
        yield (
            f"| median expected deviance at {JUDGED[0]:g}-{JUDGED[1]:g} counts, {pair.shape[1]:,} spectra "
            f"of the training population, {name} | {old:.2f} | {new:.2f} | {new / old - 1:+.1%} ± {ratio.std():.1%} |"
        )


def xlatent(*words: object) -> None:
    """Run the command line."""
    subprocess.run([Path(sys.executable).with_name("xlatent"), *map(str, words)], check=True)


if __name__ == "__main__":
    main()
