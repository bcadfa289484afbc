"""Whether `--posterior exact` is exact: band fluxes of its draws beside a long Markov chain, on real spectra.

Run as `python benchmarks/posterior.py [--model BUNDLE]`; needs the observations at ../shared/data.
"""

import csv
import multiprocessing
import os
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import emcee
import numpy as np
from jaxtyping import Float
from rich.progress import track

from command import alone
from xlatent.core.bands import FLUX_BANDS, energy_flux
from xlatent.core.bundle import DEFAULT_MODEL
from xlatent.core.errors import XlatentWarning
from xlatent.formats import ogip_spectrum
from xlatent.formats.inputs import Source, find
from xlatent.infer.embed import LatentModel, load_model
from xlatent.infer.observation import Observation, prepare
from xlatent.infer.quantities import posterior_draws
from xlatent.infer.refine import AMPLITUDE_WIDTH, RefinedFits, amplitude_centre, objective, source_counts
from xlatent.infer.sample import sample

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "spectra"
LEVELS = (0.16, 0.5, 0.84)
ASKED = 0.1  # of the posterior's standard deviation
ASKED_MS = 50.0
# Draws enough that their own noise, 1.5 / sqrt(n) at the outer quantiles, stays well below what is asked.
DRAWS = 10_000
WALKERS, STEPS, BURN_IN, THIN = 64, 6000, 1000, 5
SEED = 80_000


def run(
    model: str | Path = DEFAULT_MODEL, paper: str | Path | None = None, n: int = 20, workers: int | None = None
) -> dict[str, Any]:
    """Compare quantiles of ln(flux) in six bands between the sampler and an ensemble that starts elsewhere.

    Parameters
    ----------
    model : str or Path
        Bundle, by name or folder.
    paper : str or Path, optional
        Not used: its latents have no posterior.
    n : int
        Number of spectra, those with reference fits first to last.
    workers : int, optional
        Processes; one a core by default.

    Returns
    -------
    dict
        ``targets``: name, asked, found, met; ``tables``: Markdown; ``spectra``: the numbers of each.
    """
    if not (DATA / "manifest.csv").is_file():
        return {"targets": [], "tables": [f"{DATA} holds no observations: nothing was sampled."], "spectra": []}
    with (DATA / "reference_fits.csv").open() as file:
        fitted = {row["name"] for row in csv.DictReader(file)}
    sources = [source for source in find([DATA / "manifest.csv"]) if source.name in fitted][:n]
    os.environ["OMP_NUM_THREADS"] = "1"  # the processes share the cores, their libraries must not
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers or os.cpu_count(), spawn) as pool:
        found = list(track(pool.map(compare, [str(model)] * len(sources), sources), "Sampling", total=len(sources)))
    worst = max(row["exact"] for row in found)
    inside = sum(row["exact"] < ASKED for row in found)
    ess = min(row["ess"] for row in found)
    milliseconds = 1e3 * float(np.median([row["seconds"] for row in found]))
    return {
        "targets": [
            [f"largest difference of flux quantiles from a long chain, {len(found)} real spectra", f"≤ {ASKED} σ",
             f"{worst:.3f} σ ({inside} of {len(found)} within)", worst <= ASKED],
            ["time for the draws of a table, median", f"≤ {ASKED_MS:.0f} ms", f"{milliseconds:.0f} ms",
             milliseconds <= ASKED_MS],
        ],
        "tables": [
            f"Quantiles (16, 50, 84 %) of ln(flux) in {len(FLUX_BANDS)} bands against a chain of {WALKERS} walkers "
            f"and {STEPS:,} steps: largest difference in posterior standard deviations of {DRAWS:,} exact draws "
            "(\"exact\"), of the 1,000 that a table is made of, and of the Gaussian at the mode. "
            "The chain's own error is half the difference between its halves. "
            f"Smallest effective number of draws {ess:,.0f}.\n\n" + _table(found)
        ],
        "spectra": found,
    }  # fmt: skip


def compare(name: str, source: Source) -> dict[str, Any]:
    """Sample one spectrum in both ways; differences are the largest over bands and quantiles."""
    model = load_model(name, threads=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", XlatentWarning)
        spectrum = ogip_spectrum.read(
            source.pha, arf=source.arf, rmf=source.rmf, background=source.background, name=source.name
        )
    observation = prepare(spectrum, model.projector)
    refined, proposed = (model._posterior([observation], exact) for exact in (True, False))
    began = time.perf_counter()
    usual, ess = sample(model._decoder, [observation], refined, learnt=model._proposal)
    seconds = time.perf_counter() - began
    draws, _ = sample(model._decoder, [observation], refined, DRAWS, model._proposal)
    chain, autocorrelation = long_chain(model, observation, posterior_draws(without_errors(proposed), WALKERS).theta[0])
    halves = [log_fluxes(model, half.reshape(-1, half.shape[-1])) for half in np.array_split(chain, 2)]
    whole = np.concatenate(halves)
    sigma = whole.std(axis=0)
    wanted = np.quantile(whole, LEVELS, axis=0)

    def apart(fluxes: np.ndarray, other: np.ndarray) -> float:
        return float(np.max(np.abs(np.quantile(fluxes, LEVELS, axis=0) - other) / sigma))

    return {
        "name": source.name,
        "counts": float(observation.n_on.sum()),
        "exact": apart(log_fluxes(model, draws[0]), wanted),
        "usual": apart(log_fluxes(model, usual[0]), wanted),
        "gaussian": apart(log_fluxes(model, posterior_draws(without_errors(refined), DRAWS).theta[0]), wanted),
        "chain": 0.5 * apart(halves[0], np.quantile(halves[1], LEVELS, axis=0)),
        "autocorrelation": autocorrelation,
        "ess": float(ess[0]),
        "seconds": seconds,
    }


def without_errors(posterior: RefinedFits) -> RefinedFits:
    """The posterior of a decoder that makes no errors, which is what the chain samples."""
    return replace(posterior, error_modes=posterior.error_modes[:, :, :0], log_flux=posterior.log_flux[:, :0])


def long_chain(
    model: LatentModel, observation: Observation, start: Float[np.ndarray, "walkers dim"]
) -> tuple[Float[np.ndarray, "steps walkers dim"], float]:
    """Thinned chain of an ensemble started from the encoder's proposal, and its autocorrelation time in steps."""
    latents = start.shape[1] - 1
    prior_mean = np.append(np.zeros(latents), amplitude_centre(model._decoder, [observation], latents))
    precision = np.append(np.ones(latents), AMPLITUDE_WIDTH**-2)

    def log_density(theta: np.ndarray) -> np.ndarray:
        source = source_counts(observation, theta, model._decoder.log_flux(theta[:, :-1]))
        return -0.5 * objective(observation, theta, source, prior_mean, precision)

    moves = [(emcee.moves.DEMove(), 0.8), (emcee.moves.StretchMove(), 0.2)]
    sampler = emcee.EnsembleSampler(*start.shape, log_density, moves=moves, vectorize=True)
    state = emcee.State(start, random_state=np.random.RandomState(SEED).get_state())
    sampler.run_mcmc(state, STEPS)
    times = sampler.get_autocorr_time(discard=BURN_IN, tol=0)
    return sampler.get_chain(discard=BURN_IN, thin=THIN), float(np.max(times))


def log_fluxes(model: LatentModel, draws: Float[np.ndarray, "n dim"]) -> Float[np.ndarray, "n bands"]:
    """Ln of the energy flux in each band."""
    parts = []
    for some in np.array_split(draws, max(len(draws) // 2000, 1)):  # 2,000 spectra are 4 MB
        spectra = model.decode(some[:, :-1]) * np.exp(some[:, -1:])
        parts.append(np.log([energy_flux(spectra, model.grid.energy, band) for band in FLUX_BANDS]).T)
    return np.concatenate(parts)


def _table(found: list[dict[str, Any]]) -> str:
    head = [
        "spectrum",
        "counts",
        "exact",
        "1,000 draws",
        "Gaussian",
        "chain's own",
        "autocorrelation (steps)",
        "ESS",
        "s for 1,000 draws",
    ]
    lines = [head, ["---", *["---:"] * (len(head) - 1)]]
    for row in found:
        numbers = (f"{row[key]:.3f}" for key in ("exact", "usual", "gaussian", "chain"))
        lines.append([
            row["name"], f"{row['counts']:,.0f}", *numbers, f"{row['autocorrelation']:.0f}", f"{row['ess']:,.0f}",
            f"{row['seconds']:.3f}",
        ])  # fmt: skip
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


if __name__ == "__main__":
    alone(run, __doc__, 20)
