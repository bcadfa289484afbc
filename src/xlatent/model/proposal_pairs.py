"""Spectra that a model's own decoder made, refined: where the truth lies in the frame of each posterior."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32

from xlatent.core.grid import ModelGrid
from xlatent.core.projection import background_mean
from xlatent.infer.density import ExactDensity
from xlatent.infer.embed import LatentModel
from xlatent.infer.importance import normalised_weights, student_log_density, student_stretch, systematic_indices
from xlatent.infer.observation import Observation
from xlatent.infer.proposal import Frame, context
from xlatent.simulate.observe import Observatory, SimulatedObservations

_COUNTS = (5.0, 2e5)
_GROUP, _MATRICES = 64, 8
_EXPOSURE = 1e4  # s; counts are what is chosen
_POINTS, _DRAWS, _LEAST_EFFECTIVE = 128, 7, 4.0  # points around a mode that are weighted, and draws chosen from them
_WIDER = 1.1  # than the Gaussian posterior that they are drawn from
_LOST = 12.0  # standard deviations of a posterior, beyond which refinement ended in a wrong place


@dataclass(frozen=True, eq=False)
class Pairs:
    """Contexts of ``n`` spectra, and draws from their posteriors: the truth, and some of like probability.

    Attributes
    ----------
    context : array [n, n_context]
    draws : array [n, n_draws, latents + 1]
        In the whitened coordinates of `xlatent.infer.proposal`, the truth first.
    """

    context: Float32[np.ndarray, "n n_context"]
    draws: Float32[np.ndarray, "n n_draws latents_1"]


def draw_pairs(model: LatentModel, n: int, seed: int, progress: Callable[[int, int], None] | None = None) -> Pairs:
    """Draw latents from the prior, observe what they decode to, and refine.

    Spectra have 5 to 200,000 counts, through responses of every state of `xlatent.simulate.observe`. Those that
    refinement left in a wrong place, which no density around it reaches, are left out.

    Parameters
    ----------
    model : LatentModel
    n : int
        Number of spectra to make.
    seed : int
    progress : callable, optional
        Called with the number of spectra done and ``n``.

    Returns
    -------
    Pairs
        At most ``n``.
    """
    contexts, draws = [], []
    rng = np.random.default_rng([seed, 1])
    for done, (z, log_counts, observations) in enumerate(_observed(model, n, seed)):
        fits = model._posterior(observations, True)
        for i, observation in enumerate(observations):
            density = ExactDensity(model._decoder, observation, z.shape[1])
            frame = Frame.of(density, fits, i)
            truth = frame.whitened(np.append(z[i], log_counts[i])[None])
            if np.sum(truth**2) < _LOST**2:
                contexts.append(context(frame, density, observation))
                draws.append(np.concatenate([truth, _weighted_draws(frame, density, rng)]))
        if progress is not None:
            progress(min((done + 1) * _GROUP, n), n)
    return Pairs(np.array(contexts), np.array(draws, dtype=np.float32))


def _weighted_draws(frame: Frame, density: ExactDensity, rng: np.random.Generator) -> Float[np.ndarray, "m dim"]:
    """Draw from the posterior itself, roughly: points around the mode chosen by weight."""
    dim = len(frame.centre)
    white = _WIDER * student_stretch(rng, _POINTS) * rng.standard_normal((_POINTS, dim))
    around = student_log_density(np.sum((white / _WIDER) ** 2, axis=1), dim)
    weights = normalised_weights(density(frame.points(white))[0] - around, _LEAST_EFFECTIVE)
    return white[systematic_indices(weights, _DRAWS, rng.random())]


def _observed(model: LatentModel, n: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray, list[Observation]]]:
    """Groups of true z [m, latents] and ln counts [m], and observations of what they decode to."""
    observatory = Observatory(model.grid, model.grid.energy)
    rng = np.random.default_rng(seed)
    for _ in range(0, n, _GROUP):
        z = rng.standard_normal((_GROUP, model.info.latents))
        counts = np.exp(rng.uniform(np.log(_COUNTS[0]), np.log(_COUNTS[1]), _GROUP))
        views = observatory.observe(rng, model.decode(z), counts, _MATRICES)
        yield z, np.log(counts), [_observation(model.grid, views, i) for i in range(_GROUP)]


def _observation(grid: ModelGrid, views: SimulatedObservations, i: int) -> Observation:
    """One view, with detector bins as channels."""
    area = (views.area[i][:, None] * views.matrix[i // (_GROUP // _MATRICES)]).astype(np.float32)
    on, scale = views.counts[i], float(views.scale[i])
    off = np.round(views.background_counts[i] / scale) if scale > 0 else np.zeros(grid.n_chan)
    features = {
        "counts": on,
        "background": scale * off,
        "unit": views.reference_counts[i] * _EXPOSURE,
        "spread": views.energy_spread[i],
        "scale": scale,
    }
    mean_off, averaged = background_mean(off)
    alpha, bins = np.full(grid.n_chan, scale), np.arange(1, grid.n_chan + 1)
    return Observation(on, off, alpha, mean_off, averaged, area, area, bins, _EXPOSURE, features)
