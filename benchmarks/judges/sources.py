"""Families of sources from AtomDB and XSPEC through ACIS: whether intervals hold the truth, and misfits are flagged."""

from itertools import product
from typing import Any

import numpy as np
from jaxtyping import Float

from judges import cameras
from judges.families import FAMILIES, PLASMAS, QUANTITIES, draw, truth
from judges.found import CENTRAL, Found, embedded, joined
from words import table
from xlatent.infer.embed import LatentModel

TITLE = "Sources"
COUNTS = (30, 300, 3_000, 30_000, 300_000)
EACH, EACH_QUICK = 200, 12  # sources of a family, each of them seen with all counts
SEED = 71_000
ASKED = {68: (0.64, 0.72), 95: (0.92, 0.97)}
FAINT = 30_000  # counts up to which a flag of a source of an everyday family is a false alarm
MISFIT = 3.0


def judge(model: LatentModel, quick: bool = False) -> dict[str, Any]:
    """Embed every family at all counts, through ACIS of six kinds and with real backgrounds.

    Returns
    -------
    dict
        ``targets``: what, asked, found, met; ``tables``: Markdown; ``cells``: numbers by family and counts.
    """
    names = list(FAMILIES)
    n = EACH_QUICK if quick else EACH
    seen = {(name, counts): one for name in names for counts, one in _seen(model, name, n).items()}
    cells = {f"{name}, {counts}": _scores(*one) for (name, counts), one in seen.items()}
    for counts in COUNTS:
        together = [seen[name, counts] for name in names]
        cells[f"all, {counts}"] = _scores(
            np.concatenate([one for one, _ in together]), joined([found for _, found in together])
        )
    return {"targets": _targets(cells), "tables": _tables(cells, names), "cells": cells}


def _seen(model: LatentModel, name: str, n: int) -> dict[int, tuple[Float[np.ndarray, "n 9"], Found]]:
    """True fluxes and ratios, and what is found, of n sources of a family at each number of counts."""
    rng = np.random.default_rng([SEED, list(FAMILIES).index(name)])
    photons = np.stack([draw(name, rng).photons for _ in range(n)])
    by = [cameras.camera(camera) for camera in sorted(list(cameras.ACIS)[i % len(cameras.ACIS)] for i in range(n))]
    out = {}
    for counts in COUNTS:
        made = [cameras.observe(rng, by[i], photons[i], counts, f"{name} {i}") for i in range(n)]
        amplitude = np.array([a for _, a in made])
        out[counts] = truth(photons * amplitude[:, None]), embedded(model, [spectrum for spectrum, _ in made])
    return out


def _scores(known: Float[np.ndarray, "n 9"], found: Found) -> dict[str, Any]:
    """Coverage of each quantity, median bias of fluxes and ratios, share above 3 sigma, flags raised."""
    median = found.median
    bias = np.concatenate([median[:, :6] / known[:, :6] - 1.0, median[:, 6:] - known[:, 6:]], axis=1)
    flags = sorted({flag for flags in found.flags for flag in flags.split(",") if flag})
    within = {str(level): found.within(known, level).mean(axis=0).tolist() for level in CENTRAL}
    poor = found.misfit > MISFIT
    return {
        "n": len(known),
        "within": within,
        "bias": np.median(bias, axis=0).tolist(),
        "above": float(poor.mean()),
        "above_flagged": [int((poor & found.flagged("poor_fit")).sum()), int(poor.sum())],
        "flags": {flag: float(found.flagged(flag).mean()) for flag in flags},
    }


def _targets(cells: dict[str, dict[str, Any]]) -> list[list[Any]]:
    targets: list[list[Any]] = []
    for level, (low, high) in ASKED.items():
        for which, errors in (("all families", 0.0), ("each family (± 2 standard errors)", 2.0)):
            chosen = [cell for name, cell in cells.items() if name.startswith("all,") == (errors == 0.0)]
            shares = np.array([cell["within"][str(level)] for cell in chosen])
            slack = errors * np.sqrt(level / 100 * (1 - level / 100) / chosen[0]["n"])
            good = np.mean((shares >= low - slack) & (shares <= high + slack))
            said = f"{good:.0%} of {shares.size} cells, {shares.min():.2f} to {shares.max():.2f}"
            asked = f"{low}-{high} in nine cells of ten"
            targets.append([f"{level} % intervals hold the truth, {which}", asked, said, bool(good >= 0.9)])
    plasmas = [cells[f"{name}, 30000"] for name in PLASMAS]
    above = float(np.mean([cell["above"] for cell in plasmas]))
    targets.append(["AtomDB, 30,000 counts: above 3 σ", "≤ 3 %", f"{above:.1%}", above <= 0.03])
    hm = QUANTITIES.index("hard_hm")
    inside = float(np.mean([cell["within"]["68"][hm] for cell in plasmas]))
    met = 0.64 <= inside <= 0.72
    targets.append(["AtomDB, 30,000 counts: hard_hm in its 68 %", "0.64-0.72", f"{inside:.3f}", met])
    flagged, poor = np.sum([cells[f"all, {counts}"]["above_flagged"] for counts in COUNTS], axis=0).tolist()
    targets.append(["above 3 σ that carry `poor_fit`", "all", f"{flagged} of {poor}", flagged == poor])
    for flag in ("poor_fit", "outlier"):
        rates = {
            name: float(
                np.mean([cells[f"{name}, {counts}"]["flags"].get(flag, 0.0) for counts in COUNTS if counts <= FAINT])
            )
            for name in FAMILIES
        }
        rate = float(np.mean(list(rates.values())))
        continua = float(np.mean([share for name, share in rates.items() if name not in PLASMAS]))
        said = f"{rate:.2%}; {continua:.2%} of continua"
        targets.append([f"`{flag}` raised, 30 to 30,000 counts", "≤ 1 %", said, rate <= 0.01])
    return targets


def _tables(cells: dict[str, dict[str, Any]], names: list[str]) -> list[str]:
    tables = []
    for level in CENTRAL:
        rows = [
            [name, f"{counts:,}", *(f"{share:.2f}" for share in cells[f"{name}, {counts}"]["within"][str(level)])]
            for name, counts in product(["all", *names], COUNTS)
        ]
        tables.append(
            f"Share of the {level} % intervals that hold the truth:\n\n"
            + table(["family", "counts", *QUANTITIES], rows)
        )
    rows = []
    for name, counts in product(["all", *names], COUNTS):
        cell = cells[f"{name}, {counts}"]
        flags = ", ".join(f"{flag} {rate:.1%}" for flag, rate in cell["flags"].items() if flag != "no_background")
        bias = [f"{100 * b:+.1f}" for b in cell["bias"][:6]] + [f"{b:+.3f}" for b in cell["bias"][6:]]
        rows.append([name, f"{counts:,}", cell["n"], *bias, f"{cell['above']:.1%}", flags])
    head = ["family", "counts", "n", *QUANTITIES, "above 3 σ", "flags"]
    tables.append(
        "Median bias, of fluxes in per cent and of ratios as it is; share of fits more than 3 σ above expectation; "
        "flags raised, but for `no_background`:\n\n" + table(head, rows)
    )
    return tables
