"""Whether the latents tell the instrument: one population seen through ACIS-S in 2000 and through ACIS-I in 2022."""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

import simulated
from command import alone
from embedding import Embedded, embed
from methods import N_TRAINING, PCA, best_pca, seen, training_views
from two_samples import squared_differences, told_apart
from xlatent.core.grid import ModelGrid
from xlatent.simulate import acis, population
from xlatent.simulate.observe import Observatory

COUNTS = (1_000, 10_000)
SEED = 62_000  # never used in training
STATES: tuple[tuple[acis.Chip, float], ...] = (("BI", 2000.7), ("FI", 2022.3))
ANGLES = (0.5, 2.0, 4.0, 7.0)  # arcmin; each view has one at random, so that the angle says nothing about the epoch
DRAWS, MEANS = 0.53, 0.60  # largest balanced accuracies asked for
WHITENED = (5.0, 9.0)


def run(model: str | Path, paper: str | Path | None, n: int = 10_000, workers: int | None = None) -> dict[str, Any]:
    """Score the blindness of a bundle.

    Parameters
    ----------
    model, paper : str or Path
        Bundles, by name or folder; without ``paper`` its row is missing.
    n : int
        Number of sources.
    workers : int, optional
        Processes that embed.

    Returns
    -------
    dict
        ``targets``: name, asked, found, met; ``tables``: Markdown; ``leakage`` and ``whitened``: the numbers.
    """
    grid = ModelGrid()
    best = best_pca(grid)[0]
    # The best at reconstruction may well see the counts themselves; beside it stands one with the area divided out.
    flux = PCA(
        "square root of flux", "projection", training_views(Observatory(grid, grid.energy), N_TRAINING, (10.0, 1e6), 0)
    )
    leakage: dict[str, dict[str, list[float]]] = {}
    whitened: dict[str, dict[str, list[float]]] = {}
    for counts in COUNTS:
        tests = _observed(grid, n, counts)
        spectra = [spectrum for test in tests for spectrum in test.spectra]
        both = embed(model, paper, spectra, workers, f"{n} sources twice, {counts} counts")
        views = both[:n], both[n:]
        codes_of = _representations(np.random.default_rng(SEED + 7), views)
        for pca in (flux, best):
            codes_of[f"PCA-8 ({pca.name}, {pca.encoding})"] = np.stack([pca.encode(seen(test, grid)) for test in tests])
        for name, codes in codes_of.items():
            leakage.setdefault(name, {})[str(counts)] = list(told_apart(codes))
        for name, squares in _squares(views).items():
            whitened.setdefault(name, {})[str(counts)] = [
                float(np.mean(squares)),
                float(np.mean(np.sort(squares)[: int(np.ceil(0.99 * len(squares)))])),
                *(float(np.quantile(squares, q)) for q in (0.5, 0.9, 0.99)),
                float(np.max(squares)),
            ]
    targets = [[f"epoch from a draw of z, {c} counts", f"<= {DRAWS}", leakage["draw"][str(c)][0]] for c in COUNTS]
    targets.append(["epoch from the mean of z, 10000 counts", f"<= {MEANS}", leakage["mean"]["10000"][0]])
    targets = [[*t, t[2] <= float(t[1].split()[1])] for t in targets]
    for counts in COUNTS:
        value = whitened["refined"][str(counts)][0]
        met = WHITENED[0] <= value <= WHITENED[1]
        targets.append([f"whitened difference of two views, {counts} counts", "5 to 9", value, met])
    tables = [_leakage_table(leakage, n), _whitened_table(whitened)]
    return {"targets": targets, "tables": tables, "leakage": leakage, "whitened": whitened}


def _observed(grid: ModelGrid, n: int, counts: int) -> list[simulated.TestSet]:
    """See the same sources through the two instruments, with independent counts and backgrounds."""
    rows = population.draw(np.random.default_rng(SEED), n)
    rng = np.random.default_rng([SEED, counts])
    photons = population.spectra(grid.energy, rows)
    tests = []
    for chip, year in STATES:
        responses = [simulated.response(grid, chip, year, theta) for theta in ANGLES]
        state = rng.integers(len(responses), size=n)
        tests.append(simulated.observe(grid, rng, rows, np.full(n, float(counts)), responses, state, photons))
    return tests


def _representations(rng: np.random.Generator, views: tuple[Embedded, Embedded]) -> dict[str, np.ndarray]:
    """Codes of both views, [2, n, k], by the name of what they are."""
    codes = {
        "draw": np.stack([_drawn(rng, v.z, v.covariance) for v in views]),
        "mean": np.stack([v.z for v in views]),
        "amortised draw": np.stack([_drawn(rng, v.amortised, v.amortised_covariance) for v in views]),
        "amortised mean": np.stack([v.amortised for v in views]),
        "paper": np.stack([v.paper for v in views]),
    }
    return {name: c for name, c in codes.items() if np.isfinite(c).all()}


def _drawn(
    rng: np.random.Generator, mean: Float[np.ndarray, "n k"], covariance: Float[np.ndarray, "n k k"]
) -> Float[np.ndarray, "n k"]:
    return mean + np.einsum("nij,nj->ni", np.linalg.cholesky(covariance), rng.standard_normal(mean.shape))


def _squares(views: tuple[Embedded, Embedded]) -> dict[str, Float[np.ndarray, " n"]]:
    """Squared differences of two views' means under their summed covariances: 8 on average where all is right."""
    first, second = views
    pairs = {
        "refined": (first.z - second.z, first.covariance + second.covariance),
        "amortised": (
            first.amortised - second.amortised,
            first.amortised_covariance + second.amortised_covariance,
        ),
    }
    return {name: squared_differences(*pair) for name, pair in pairs.items()}


def _leakage_table(leakage: dict[str, dict[str, list[float]]], n: int) -> str:
    lines = [
        f"Balanced accuracy of telling ACIS-S in 2000 from ACIS-I in 2022, {n} sources seen through both (0.5: blind):",
        "",
        "| from | " + " | ".join(f"{c} counts" for c in COUNTS) + " |",
        "|---|" + "---:|" * len(COUNTS),
    ]
    for name, scores in leakage.items():
        cells = [f"{value:.3f} ± {error:.3f}" for value, error in scores.values()]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _whitened_table(whitened: dict[str, dict[str, list[float]]]) -> str:
    lines = [
        "Squared difference of two views' means under the summed covariances (8 where all is right; trimmed: without "
        "the largest hundredth):",
        "",
        "| posterior | counts | mean | trimmed | median | 90 % | 99 % | largest |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, scores in whitened.items():
        for counts, values in scores.items():
            lines.append(f"| {name} | {counts} | " + " | ".join(f"{v:.2f}" for v in values) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    alone(run, __doc__, 10_000)
