"""Batches to train on: sources of the population as ACIS sees them, made ahead where a GPU waits for them."""

import itertools
import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import fields
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from xlatent.core.grid import ModelGrid
from xlatent.model.preset import Training
from xlatent.simulate import population
from xlatent.simulate.observe import Observatory, SimulatedObservations


def simulated_batches(
    grid: ModelGrid, training: Training, seed: int, first: int, energy: Tensor
) -> Iterator[tuple[Tensor, SimulatedObservations]]:
    """Simulate endless batches of sources, each seen twice; batch ``k`` depends on ``(seed, k)`` alone.

    Yields
    ------
    photons : Tensor [2 * batch, n_energy]
        True photons per bin; rows ``i`` and ``batch + i`` are the same source.
    views : SimulatedObservations
    """
    made = SimulatedBatches(grid, training, seed, energy)
    return map(made.__getitem__, itertools.count(first))


class SimulatedBatches(torch.utils.data.Dataset):
    """Makes the batches of `simulated_batches` by number, for a process that is to make some of them."""

    def __init__(self, grid: ModelGrid, training: Training, seed: int, energy: Tensor) -> None:
        self.grid, self.training, self.seed, self.energy = grid, training, seed, energy

    @cached_property
    def observatory(self) -> Observatory:
        """Made by the process that uses it."""
        return Observatory(self.grid, self.energy)

    def __getitem__(self, number: int) -> tuple[Tensor, SimulatedObservations]:
        rng, t = np.random.default_rng([self.seed, number]), self.training
        photons = population.spectra(self.energy, population.draw(rng, t.batch))
        low, high = math.log(t.min_counts), math.log(t.max_counts)
        counts = np.exp(rng.uniform(low, high, t.batch))
        again = np.exp(np.clip(np.log(counts) + rng.normal(0.0, 1.2, t.batch), low, high))
        twice = torch.cat([photons, photons])
        return twice, self.observatory.observe(rng, twice, np.concatenate([counts, again]))


def n_loader_workers(device: torch.device) -> int:
    """Count the processes that make batches ahead of the model: none, or for a GPU as many as there are cores but one.

    A batch is made by 6,600 small operations and used by 2,100: a GPU, which starts them one by one, would wait for its
    own simulation most of the time. On a CPU a core makes in a sixth of the time what it then uses.
    """
    if device.type == "cpu":
        return 0
    return max(1, (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")) - 1)


def prefetch_batches(
    made: SimulatedBatches, numbers: Iterable[int], device: torch.device, workers: int
) -> Iterator[tuple[Tensor, SimulatedObservations]]:
    """Yield the batches of these numbers, in this order, on a device; made here if there are no ``workers``."""
    if not workers:
        yield from map(made.__getitem__, numbers)
        return
    ahead = torch.utils.data.DataLoader(
        made, batch_size=None, sampler=numbers, num_workers=workers, multiprocessing_context="spawn"
    )
    for photons, views in ahead:
        there = {field.name: getattr(views, field.name).to(device) for field in fields(views)}
        yield photons.to(device), SimulatedObservations(**there)
