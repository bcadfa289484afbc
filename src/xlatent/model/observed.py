"""Real spectra as training data: which of a store are of use, in what order they come, and what held-out counts say."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int

from xlatent.core.errors import ParameterError
from xlatent.core.grid import ModelGrid
from xlatent.core.projection import Projector, background_mean
from xlatent.core.spectrum import Spectrum
from xlatent.formats.store import open_store
from xlatent.model.autoencoder import Autoencoder
from xlatent.model.losses import expected_deviance, profiled_amplitude
from xlatent.simulate.observe import SimulatedObservations

SHARE = 0.5
"""Part of each batch and of the loss that real spectra have: as much to learn from them as not to forget by."""

MOST_HELD_OUT = 2000
"""Validation spectra that are scored; twice as many would make the standard error a third smaller."""

_MOST_RESPONSES = 1024  # of which projections are kept, 131 kB each
_CHUNK = 128


class Observed:
    """The spectra of a store that can be trained on, those of its split ``validation`` to judge by.

    Memory holds one shard of the store, the responses of late, and a number for each spectrum.

    Parameters
    ----------
    path
        Of the store; a folder or a URL.
    grid
        That of the model.
    progress : callable, optional
        Called with what is being done (reading the store, scoring), how much of it is done, and of how much.

    Attributes
    ----------
    train, validation : arrays of int
        Places in the store of the spectra of use.
    passed_over : Counter
        How many are of no use, by reason.
    fingerprint : str
        Sha256 of the store's first and last shard and their number: what tells it from others.

    Raises
    ------
    ReadError
        If there is no store, or it is damaged.
    ParameterError
        If it has no splits, or nothing of use in ``train`` or in ``validation``.
    """

    def __init__(
        self, path: str | Path, grid: ModelGrid, progress: Callable[[str, int, int], None] | None = None
    ) -> None:
        self.grid = grid
        self._progress = progress
        self._store = open_store(path)
        self._projector = Projector(grid, _MOST_RESPONSES)
        splits = np.array(self._store.columns(["split"]).column("split").to_pylist(), dtype=object)
        useful: dict[str, list[int]] = {"train": [], "validation": []}
        self.passed_over: Counter[str] = Counter()
        for i in self._told("Reading the store", np.flatnonzero(np.isin(splits, list(useful))).tolist()):
            reason = exclusion_reason(self._store[i], grid)
            if reason:
                self.passed_over[reason] += 1
            else:
                useful[splits[i]].append(i)
        for split, found in useful.items():
            if not found:
                why = f" ({self.reasons})" if self.passed_over else ""
                raise ParameterError(
                    f"{path} holds no spectrum to train with in its split {split}, of {len(splits)} in all{why}; "
                    "build it from more sources, observed at "
                    f"{grid.chan_lo:g}-{grid.chan_hi:g} keV and with their responses"
                )
        self.train, self.validation = (np.array(found) for found in useful.values())
        self._shard = np.searchsorted(np.cumsum([len(s) for s in self._store.shards]), self.train, side="right")
        if len(self.validation) > MOST_HELD_OUT:
            chosen = np.random.default_rng(0).permutation(len(self.validation))[:MOST_HELD_OUT]
            self.validation = self.validation[np.sort(chosen)]
        shards = self._store.info.shards
        self.fingerprint = f"{len(shards)}-{shards[0].sha256[:16]}-{shards[-1].sha256[:16]}"

    @property
    def reasons(self) -> str:
        """Reasons for which spectra were passed over, and how many."""
        return ", ".join(f"{n} {reason}" for reason, n in self.passed_over.most_common())

    def batch(self, seed: int, step: int, size: int, device: torch.device) -> SimulatedObservations:
        """Take the spectra of one step of training; each is used once before any is used again.

        In every epoch the shards are shuffled, and the spectra within each: the order depends on ``(seed, epoch)``
        alone, so that step ``step`` of a resumed run sees what it would have seen.
        """
        epoch, place = np.divmod(np.arange(step * size, (step + 1) * size), len(self.train))
        orders = {e: self._order(seed, e) for e in np.unique(epoch).tolist()}
        return self._views([self._store[int(orders[e][p])] for e, p in zip(epoch.tolist(), place, strict=True)], device)

    def _order(self, seed: int, epoch: int) -> Int[np.ndarray, " n"]:
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(1, epoch)))  # simulation has no such key
        rank = rng.permutation(len(self._store.shards))[self._shard]
        return self.train[np.lexsort((rng.random(len(rank)), rank))]

    def _views(self, spectra: list[Spectrum], device: torch.device) -> SimulatedObservations:
        rows = [self._row(spectrum) for spectrum in spectra]
        counts, off, background, scale, unit, spread, matrix = (
            torch.as_tensor(np.asarray(values, dtype=np.float32), device=device) for values in zip(*rows, strict=True)
        )
        area = torch.ones((len(rows), self.grid.n_energy), device=device)  # it is in the matrix
        return SimulatedObservations(
            counts, off, torch.full_like(counts, torch.nan), background, scale, unit, spread, area, matrix
        )

    def _row(self, spectrum: Spectrum) -> tuple[Any, ...]:
        """Put a spectrum on the grid: counts, background measured and expected, its scale, and the response."""
        if spectrum.response is None:
            raise ParameterError(f"{spectrum.name} has no response")
        mask = spectrum.select(self.grid.chan_lo, self.grid.chan_hi)
        seen = self._projector.project(spectrum.response, mask, np.asarray(spectrum.areascale, dtype=np.float64))
        alpha = np.broadcast_to(np.asarray(spectrum.background_scale, dtype=np.float64), mask.shape)[mask]
        off = spectrum.background.counts[mask] if spectrum.background is not None else np.zeros(len(alpha))
        summed = [seen.rebin(n) for n in (spectrum.counts[mask], alpha * off, alpha * background_mean(off)[0])]
        return *summed, alpha.mean(), seen.unit, seen.spread, seen.on_grid

    def held_out(self, model: Autoencoder) -> Float[np.ndarray, " n"]:
        """Score a model: Poisson deviance of half of each validation spectrum's counts under what the other half says.

        Every spectrum is split in two by `split_counts`, always in the same way. The mean of the encoder's posterior of
        the first half is decoded, with the amplitude most likely for that half and the background of that half; the
        deviance is that of the second half's counts on the detector grid. Both halves know nothing of each other but
        the source, so that what is learnt from noise is punished.

        Returns
        -------
        array [n_validation]
        """
        device = next(model.parameters()).device
        scores = []
        for start in self._told("Held-out score", range(0, len(self.validation), _CHUNK)):
            pairs = [
                split_counts(self._store[int(i)], np.random.default_rng([int(i), 2]))
                for i in self.validation[start : start + _CHUNK]
            ]
            seen, other = (self._views(list(half), device) for half in zip(*pairs, strict=True))
            scores.append(score(model, seen, other.counts).cpu().numpy())
        return np.concatenate(scores).astype(np.float64)

    def _told(self, what: str, numbers: Sequence[int]) -> Iterator[int]:
        """Go through numbers and tell how many are done."""
        for done, number in enumerate(numbers, start=1):
            yield number
            if self._progress is not None:
                self._progress(what, done, len(numbers))


def exclusion_reason(spectrum: Spectrum, grid: ModelGrid) -> str | None:
    """Say why a spectrum cannot be trained on, as the end of "12 ..."; None if it can."""
    response = spectrum.response
    if response is None:
        return "without response"
    if np.any(spectrum.counts % 1.0):
        return "with counts that are no whole numbers"
    lo, hi = response.energy_lo, response.energy_hi
    ends = max(lo.min(), response.chan_lo.min()), min(hi.max(), response.chan_hi.max())
    inside = (hi > grid.chan_lo) & (lo < grid.chan_hi)
    if ends[0] > 1.01 * grid.chan_lo or ends[1] < 0.99 * grid.chan_hi or not response.area[inside].any():
        return f"whose response does not cover {grid.chan_lo:g}-{grid.chan_hi:g} keV"
    if not spectrum.counts[spectrum.select(grid.chan_lo, grid.chan_hi)].any():
        return f"without counts in {grid.chan_lo:g}-{grid.chan_hi:g} keV"
    return None


def split_counts(spectrum: Spectrum, rng: np.random.Generator) -> tuple[Spectrum, Spectrum]:
    """Split a spectrum and its background in two, each count at random, of half the exposure each.

    The two are independent Poisson spectra of the same source. Background counts that are no whole numbers are rounded.
    """

    def split(whole: Spectrum) -> tuple[Spectrum, Spectrum]:
        counts = np.rint(whole.counts)
        first = rng.binomial(counts.astype(np.int64), 0.5).astype(np.float64)
        one, two = (replace(whole, counts=n, exposure=0.5 * whole.exposure) for n in (first, counts - first))
        return one, two

    first, second = split(spectrum)
    if spectrum.background is None:
        return first, second
    backgrounds = split(spectrum.background)
    return replace(first, background=backgrounds[0]), replace(second, background=backgrounds[1])


@torch.no_grad()
def score(model: Autoencoder, seen: SimulatedObservations, other: torch.Tensor) -> torch.Tensor:
    """Compute the deviance of counts ``other`` [n, n_chan] under what the model makes of ``seen`` [n]."""
    mean, _ = model.encoder(*seen.encoder_inputs)
    shape = seen.fold(torch.exp(model.decoder(mean))) + 1e-12
    amplitude = profiled_amplitude(seen.counts, shape, seen.background + 1e-7)
    return expected_deviance(other, amplitude * shape + seen.background + 1e-7)


def compare_scores(start: Float[np.ndarray, " n"], end: Float[np.ndarray, " n"]) -> dict[str, float | int]:
    """Compare two held-out scores of the same spectra.

    Returns
    -------
    dict
        ``spectra``, mean deviance at ``start`` and ``end``, mean difference ``better_by`` with its ``standard_error``,
        and the ``share_better``.
    """
    gain = start - end
    error = float(gain.std(ddof=1) / np.sqrt(len(gain))) if len(gain) > 1 else float("nan")
    return {
        "spectra": len(gain),
        "start": float(start.mean()),
        "end": float(end.mean()),
        "better_by": float(gain.mean()),
        "standard_error": error,
        "share_better": float((gain > 0).mean()),
    }
