"""Simulation-based calibration: where the true latents lie among draws from the posteriors that their spectra give.

Latents drawn from the prior, decoded by the model's own decoder and observed have ranks among draws from their right
posterior that are uniform (Talts et al. 2018, arXiv:1804.06788). This tests inference alone: errors of the decoder do
not enter.
"""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.stats import chisquare

import simulated
from command import alone
from embedding import CHUNK, loaded, spread
from xlatent.core.bands import FLUX_BANDS, column_suffix, energy_flux, hardness_ratios
from xlatent.core.grid import ModelGrid
from xlatent.core.spectrum import Spectrum
from xlatent.infer.embed import load_model
from xlatent.infer.observation import prepare
from xlatent.infer.refine import RefinedFits
from xlatent.infer.sample import sample

SEED = 64_000
COUNTS = (10.0, 1e5)
BINS = 20
N_DRAWS = 400
LEAST_P = 0.01


def run(model: str | Path, paper: str | Path | None, n: int = 2_000, workers: int | None = None) -> dict[str, Any]:
    """Test whether ranks of the true latents are uniform, for Gaussian and for exact posteriors.

    Parameters
    ----------
    model : str or Path
        Bundle, by name or folder.
    paper : str or Path, optional
        Not used: the paper's preset has no posterior.
    n : int
        Number of simulated spectra, 200 or more.
    workers : int, optional
        Processes.

    Returns
    -------
    dict
        ``targets``: name, asked, found, met; ``tables``: Markdown; ``ranks``: p of χ², mean rank and shares of ranks
        in the lowest and highest tenth, for each latent and quantity and both posteriors.
    """
    bundle = load_model(model)
    rng = np.random.default_rng(SEED)
    z = rng.standard_normal((n, bundle.info.latents))
    counts = np.exp(rng.uniform(*np.log(COUNTS), n))
    responses = simulated.unseen_responses(bundle.grid)
    state = rng.integers(len(responses), size=n)
    decoded = bundle.decode(z)
    test = simulated.observe(bundle.grid, rng, {}, counts, responses, state, decoded)
    pieces = [
        (i, test.spectra[i : i + CHUNK], z[i : i + CHUNK], test.photons[i : i + CHUNK]) for i in range(0, n, CHUNK)
    ]
    *ranks, effective = spread(_ranks, pieces, model, workers=workers, what="Drawing from posteriors")
    names = [f"z{i}" for i in range(z.shape[1])] + list(_quantities(decoded[:1], bundle.grid))
    found = {
        kind: {name: _judged(u) for name, u in zip(names, some.T, strict=True)}
        for kind, some in zip(("gaussian", "exact"), ranks, strict=True)
    }
    targets = []
    for kind, judged in found.items():
        least = min(judged[name]["p"] for name in names[: z.shape[1]])
        targets.append([f"ranks of z flat, {kind} posterior: least p", f"> {LEAST_P}", least, least > LEAST_P])
    quantiles = [float(np.quantile(effective, q)) for q in (0.01, 0.1, 0.5)]
    return {"targets": targets, "tables": [_table(found, n, quantiles)], "ranks": found, "effective draws": quantiles}


def _ranks(
    first: int, spectra: list[Spectrum], z: Float[np.ndarray, "n latents"], truth: Float[np.ndarray, "n n_energy"]
) -> tuple[np.ndarray, ...]:
    """Ranks in 0 to 1 of latents and quantities, [n, latents + 9] by the Gaussian and the exact draws, and the ESS."""
    model = loaded["model"]
    rng = np.random.default_rng([SEED, first])
    observations = [prepare(s, model.projector) for s in spectra]
    posterior = model._posterior(observations, True)
    exact, effective = sample(model._decoder, observations, posterior, learnt=model._proposal)
    expected = np.column_stack([z, *_quantities(truth, model.grid).values()])
    both = []
    for draws in (_gaussian(rng, posterior), exact):
        u = np.empty_like(expected)
        for i, some in enumerate(draws):
            spectra_drawn = model.decode(some[:, :-1]) * np.exp(some[:, -1:])
            values = np.column_stack([some[:, :-1], *_quantities(spectra_drawn, model.grid).values()])
            below = (values < expected[i]).sum(axis=0)
            u[i] = (below + rng.random(len(below))) / (len(some) + 1)
        both.append(u)
    return *both, effective


def _gaussian(rng: np.random.Generator, posterior: RefinedFits) -> Float[np.ndarray, "n n_draws latents_1"]:
    """Draws that are new for every spectrum: those of a table are common to all, and their gaps would show in ranks."""
    centre = np.column_stack([posterior.z, posterior.log_amplitude])
    root = np.linalg.cholesky(posterior.statistical)
    return centre[:, None] + rng.standard_normal((len(root), N_DRAWS, root.shape[1])) @ root.transpose(0, 2, 1)


def _quantities(spectra: Float[np.ndarray, "n n_energy"], grid: ModelGrid) -> dict[str, Float[np.ndarray, " n"]]:
    fluxes = {f"flux_{column_suffix(band)}": energy_flux(spectra, grid.energy, band) for band in FLUX_BANDS}
    return fluxes | hardness_ratios(spectra, grid.energy)


def _judged(u: Float[np.ndarray, " n"]) -> dict[str, float]:
    histogram = np.histogram(u, BINS, (0.0, 1.0))[0]
    return {
        "p": float(chisquare(histogram).pvalue),
        "mean": float(u.mean()),
        "lowest tenth": float(np.mean(u < 0.1)),
        "highest tenth": float(np.mean(u > 0.9)),
    }


def _table(found: dict[str, dict[str, dict[str, float]]], n: int, effective: list[float]) -> str:
    kinds = list(found)
    lines = [
        f"Ranks of the truth among posterior draws, {n} spectra decoded from the prior, "
        f"{COUNTS[0]:.0f}-{COUNTS[1]:.0f} counts: p of χ² over {BINS} bins, mean (0.5), shares in the lowest and "
        f"highest tenth. Exact draws: effective number above {effective[0]:.0f} for 99 % of the spectra, "
        f"median {effective[2]:.0f}.",
        "",
        "| | " + " | ".join(f"{kind}: p | mean | lowest | highest" for kind in kinds) + " |",
        "|---|" + "---:|" * (4 * len(kinds)),
    ]
    for name in found[kinds[0]]:
        cells = []
        for kind in kinds:
            v = found[kind][name]
            cells.append(f"{v['p']:.2g} | {v['mean']:.3f} | {v['lowest tenth']:.1%} | {v['highest tenth']:.1%}")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    alone(run, __doc__, 2_000)
