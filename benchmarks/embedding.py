"""Posteriors of many spectra, computed by one process a core."""

import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from jaxtyping import Float
from rich.progress import track

from xlatent.core.bands import FLUX_BANDS, HARDNESS_RATIOS, hardness
from xlatent.core.spectrum import Spectrum
from xlatent.infer.embed import LatentModel, load_model
from xlatent.infer.observation import encode, prepare
from xlatent.infer.quantities import quantiles

CHUNK = 50  # spectra at a time; a response travels to the process once in each chunk
LEVELS = (0.025, 0.15865, 0.84135, 0.975)  # limits of the central 95 % and 68 %
Arrays = tuple[np.ndarray, ...]

loaded: dict[str, LatentModel] = {}
"""In a process of `spread`: the model and, where there is one, the paper's."""


def spread(
    task: Callable[..., Arrays],
    pieces: list[tuple],
    model: str | Path,
    paper: str | Path | None = None,
    workers: int | None = None,
    what: str = "",
) -> Arrays:
    """Call ``task(*piece)`` for each piece in processes with the models `loaded`; return the arrays, joined.

    Parameters
    ----------
    task : callable
        A function of a module; it returns arrays whose first axis is the spectra's.
    pieces : list of tuple
        Its arguments.
    model, paper : str or Path
        Bundles, by name or folder.
    workers : int, optional
        Processes; one a core by default.
    what : str
        Said beside the progress bar.
    """
    os.environ["OMP_NUM_THREADS"] = "1"  # the processes share the cores, their libraries must not
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers or os.cpu_count(), context, _load, (model, paper)) as pool:
        waiting = [pool.submit(task, *piece) for piece in pieces]
        done = [job.result() for job in track(waiting, what)]
    return tuple(np.concatenate(columns) for columns in zip(*done, strict=True))


def _load(model: str | Path, paper: str | Path | None) -> None:
    loaded["model"] = load_model(model, threads=1)
    if paper is not None:
        loaded["paper"] = load_model(paper, threads=1)


@dataclass(frozen=True)
class Embedded:
    """``n`` spectra as numbers: ``z`` and its covariance refined, the same amortised, and the codes of ``paper``."""

    z: Float[np.ndarray, "n latents"]
    covariance: Float[np.ndarray, "n latents latents"]
    amortised: Float[np.ndarray, "n latents"]
    amortised_covariance: Float[np.ndarray, "n latents latents"]
    paper: Float[np.ndarray, "n latents"]

    def __getitem__(self, chosen: slice) -> "Embedded":
        """Return some of the spectra."""
        return Embedded(**{f.name: getattr(self, f.name)[chosen] for f in fields(self)})


def embed(
    model: str | Path, paper: str | Path | None, spectra: list[Spectrum], workers: int | None = None, what: str = ""
) -> Embedded:
    """Embed spectra with two bundles; without ``paper`` its codes are NaN. Arguments as those of `spread`."""
    pieces = [(spectra[i : i + CHUNK],) for i in range(0, len(spectra), CHUNK)]
    return Embedded(*spread(_embed, pieces, model, paper, workers, f"Embedding: {what}"))


def _embed(spectra: list[Spectrum]) -> Arrays:
    model = loaded["model"]
    observations = [prepare(s, model.projector) for s in spectra]
    refined, proposed = model._posterior(observations, True), model._posterior(observations, False)
    k = refined.z.shape[1]
    codes = encode(loaded["paper"]._encoder, observations)[0] if "paper" in loaded else np.full_like(refined.z, np.nan)
    return refined.z, refined.covariance[:, :k, :k], proposed.z, proposed.covariance[:, :k, :k], codes


def flux_values(fluxes: Float[np.ndarray, "n n_draws n_fluxes"]) -> Float[np.ndarray, "n n_draws 9"]:
    """Six band fluxes and three hardness ratios of draws (`LatentModel._drawn_fluxes`)."""
    photons = dict(zip(FLUX_BANDS, np.moveaxis(fluxes[:, :, : len(FLUX_BANDS)], 2, 0), strict=True))
    ratios = [hardness(photons[hard], photons[soft]) for hard, soft in HARDNESS_RATIOS.values()]
    return np.concatenate([fluxes[:, :, len(FLUX_BANDS) :], np.stack(ratios, axis=2)], axis=2)


def flux_limits(fluxes: Float[np.ndarray, "n n_draws n_fluxes"]) -> Float[np.ndarray, "n 9 4"]:
    """Quantiles at `LEVELS` of the `flux_values` of draws."""
    return quantiles(flux_values(fluxes), LEVELS, axis=1).transpose(1, 2, 0)
