"""Training: simulate, encode, decode, compare, step; a checkpoint every few minutes; killed and resumed it goes on."""

import itertools
import json
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor

from xlatent.core.errors import ModelError, ParameterError
from xlatent.core.grid import ModelGrid
from xlatent.model.autoencoder import Autoencoder
from xlatent.model.checkpoint import (
    STATE,
    TENSORS,
    chosen,
    load,
    load_optimiser,
    read_checkpoint,
    read_tensors,
    write_checkpoint,
)
from xlatent.model.distributed import Processes
from xlatent.model.losses import (
    collapse,
    divergence,
    energy_distance,
    expected_deviance,
    pair_difference,
    profiled_amplitude,
)
from xlatent.model.observed import SHARE, Observed, compare_scores
from xlatent.model.preset import Preset, Training
from xlatent.simulate import population
from xlatent.simulate.observe import Observatory, Views

CHECKPOINT_SECONDS = 120.0
LOG_EVERY = 50
GENTLE = 0.1  # of the preset's learning rate, to teach a trained model real spectra: with all of it, it forgets others
# Of the change that fine-tuning makes to the weights: half way between two sets most of what is new is there, and
# little of the old is lost (Wortsman et al. 2022, arXiv:2109.01903).
KEPT = 0.5
BRIGHT = 3000.0  # counts above which every latent should be known
COLOURS = np.geomspace(0.5, 8.0, 13)  # keV, edges of bands in which draws from the prior must be like the population,
FAINTEST = 1e-5  # down to this share of all photons


def simulated_batches(
    grid: ModelGrid, training: Training, seed: int, first: int, energy: Tensor
) -> Iterator[tuple[Tensor, Views]]:
    """Endless batches of sources, each seen twice; batch ``k`` depends on ``(seed, k)`` alone.

    Yields
    ------
    photons : Tensor [2 * batch, n_energy]
        True photons per bin; rows ``i`` and ``batch + i`` are the same source.
    views : Views
    """
    made = SimulatedBatches(grid, training, seed, energy)
    return map(made.__getitem__, itertools.count(first))


class SimulatedBatches(torch.utils.data.Dataset):
    """The batches of `simulated_batches` by number, for a process that is to make some of them."""

    def __init__(self, grid: ModelGrid, training: Training, seed: int, energy: Tensor) -> None:
        self.grid, self.training, self.seed, self.energy = grid, training, seed, energy

    @cached_property
    def observatory(self) -> Observatory:
        """Made by the process that uses it."""
        return Observatory(self.grid, self.energy)

    def __getitem__(self, number: int) -> tuple[Tensor, Views]:
        rng, t = np.random.default_rng([self.seed, number]), self.training
        photons = population.spectra(self.energy, population.draw(rng, t.batch))
        low, high = math.log(t.min_counts), math.log(t.max_counts)
        counts = np.exp(rng.uniform(low, high, t.batch))
        again = np.exp(np.clip(np.log(counts) + rng.normal(0.0, 1.2, t.batch), low, high))
        twice = torch.cat([photons, photons])
        return twice, self.observatory.observe(rng, twice, np.concatenate([counts, again]))


def makers(device: torch.device) -> int:
    """How many processes make batches ahead of the model: none, or for a GPU as many as there are cores but one.

    A batch is made by 6,600 small operations and used by 2,100: a GPU, which starts them one by one, would wait for its
    own simulation most of the time. On a CPU a core makes in a sixth of the time what it then uses.
    """
    if device.type == "cpu":
        return 0
    return max(1, (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")) - 1)


def supply(
    made: SimulatedBatches, numbers: Iterable[int], device: torch.device, makers: int
) -> Iterator[tuple[Tensor, Views]]:
    """Batches of these numbers, in this order, on a device; made here if there are no ``makers``."""
    if not makers:
        yield from map(made.__getitem__, numbers)
        return
    ahead = torch.utils.data.DataLoader(
        made, batch_size=None, sampler=numbers, num_workers=makers, multiprocessing_context="spawn"
    )
    for photons, views in ahead:
        there = {field.name: getattr(views, field.name).to(device) for field in fields(views)}
        yield photons.to(device), Views(**there)


def poisson_loss(
    model: Autoencoder, grid: ModelGrid, photons: Tensor, views: Views, training: Training, beta: float, noise: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """Negative evidence bound per spectrum, with a robust deviance, plus what pairs, latents and prior must be.

    The encoder is taught by the counts it saw, through a decoder held still: taught by expected counts it would shrink
    towards the prior twice. So is the decoder where counts are few; of bright spectra, whose latents are known, it is
    taught by the expected counts, which have none of the noise.
    """
    n = len(views.counts)
    mean, factor, z, encoder_deviance = _sampled(model, views, noise[:n])
    # Draws from the prior go through the decoder beside those from the posterior.
    decoded, fancied = model.decoder(torch.cat([z.detach(), noise[n:]])).split([n, len(noise) - n])
    truth = views.source + views.background
    bright = views.source.sum(dim=1) > BRIGHT
    taught = torch.where(bright[:, None], truth, views.counts)
    decoder_deviance = _deviance(views, decoded, taught)
    # Data have a deviance of their own even under the truth; only what exceeds it says anything of z.
    floor, taught_floor = expected_deviance(views.counts, truth), expected_deviance(taught, truth)
    misfit = _deviance(views, decoded.detach(), truth)
    weight = training.robust_scale / (training.robust_scale + misfit)  # the slope of scale * ln(1 + misfit / scale)
    whole = divergence(mean, factor)
    empty = collapse(mean[bright]) if bright.sum() > 2 * mean.shape[1] else torch.zeros_like(whole.mean())
    half = n // 2
    pair = pair_difference(mean.reshape(2, half, -1), factor.reshape(2, half, *factor.shape[1:]))
    apart = energy_distance(_colours(torch.exp(fancied), grid), _colours(photons[:half], grid))
    loss = (
        0.5 * (weight * (encoder_deviance - floor)).mean()
        + 0.5 * (weight * (decoder_deviance - taught_floor)).mean()
        + 0.5 * _sharp_deviance(views, decoded, photons, training.sharp_counts).mean()
        + beta * whole.mean()
        + training.spread_weight * empty
        + training.pair_weight * pair.mean()
        + training.prior_weight * apart
    )
    with torch.no_grad():
        remaining = torch.linalg.eigvalsh((factor[bright] @ factor[bright].transpose(1, 2)).mean(dim=0).cpu())
    return loss, {
        "deviance": misfit.median(),
        "deviance_mean": misfit.mean(),
        "kl": whole.mean(),
        "pair": pair.mean(),
        "collapse": empty,
        "prior": apart,
        "active": (remaining < 0.5).sum(),
    }


def observed_loss(
    model: Autoencoder, views: Views, training: Training, beta: float, noise: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """Negative evidence bound per real spectrum: their own counts teach both halves, for the truth is unknown."""
    mean, factor, z, encoder_deviance = _sampled(model, views, noise)
    decoder_deviance = _deviance(views, model.decoder(z.detach()), views.counts)
    # Noise makes about one for each bin of a bright spectrum; a faint one has no misfit worth the name.
    misfit = (decoder_deviance.detach() - views.counts.shape[1]).clamp(min=0.0)
    weight = training.robust_scale / (training.robust_scale + misfit)
    loss = 0.5 * (weight * (encoder_deviance + decoder_deviance)).mean() + beta * divergence(mean, factor).mean()
    return loss, {"observed": decoder_deviance.mean(), "observed_median": decoder_deviance.median()}


def _sampled(model: Autoencoder, views: Views, noise: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Posterior, a draw from it, and the draw's deviance through a decoder held still, which teaches the encoder."""
    mean, factor = _encode(model, views)
    z = mean + (factor @ noise[:, :, None])[:, :, 0]
    still = {name: p.detach() for name, p in model.decoder.named_parameters()}
    return mean, factor, z, _deviance(views, torch.func.functional_call(model.decoder, still, (z,)), views.counts)


def _colours(photons: Tensor, grid: ModelGrid) -> Tensor:
    """Logarithms of the photons in broad bands: what even a faint spectrum shows of a source."""
    band = np.searchsorted(COLOURS, grid.energy_mid) - 1
    members = torch.as_tensor(band[:, None] == np.arange(len(COLOURS) - 1), dtype=photons.dtype, device=photons.device)
    return torch.log(photons @ members + FAINTEST)


def _sharp_deviance(views: Views, log_flux: Tensor, photons: Tensor, most: float) -> Tensor:
    """Deviance that a detector of perfect resolution would see, with few counts.

    What no CCD can resolve the likelihood leaves free, and the decoded spectrum would be jagged there.
    """
    counts = (0.3 * views.source.sum(dim=1, keepdim=True)).clamp(max=most)
    truth, made = photons * views.area, torch.exp(log_flux) * views.area
    return expected_deviance(
        counts * truth / truth.sum(dim=1, keepdim=True), counts * made / made.sum(dim=1, keepdim=True) + 1e-9
    )


def _encode(model: Autoencoder, views: Views) -> tuple[Tensor, Tensor]:
    # Only the encoder runs in bf16 on a GPU: folding and likelihood need every digit.
    with torch.autocast(views.counts.device.type, dtype=torch.bfloat16, enabled=views.counts.is_cuda):
        mean, factor = model.encoder(views.counts, views.off, views.unit, views.spread, views.scale)
    return mean.float(), factor.float()


def _deviance(views: Views, log_flux: Tensor, truth: Tensor) -> Tensor:
    shape = views.fold(torch.exp(log_flux)) + 1e-12
    amplitude = profiled_amplitude(truth, shape, views.background)
    mean = amplitude * shape + views.background
    return expected_deviance(truth, mean)


def mse_loss(model: Autoencoder, grid: ModelGrid, views: Views) -> tuple[Tensor, dict[str, Tensor]]:
    """Mean squared error between flux-like spectra, each of mean one on the detector grid; z is a point."""
    mean, _ = _encode(model, views)
    target = model.encoder.features(views.counts, views.off, views.unit, views.spread, views.scale)[0][:, :, 0]
    made = on_detector(torch.exp(model.decoder(mean)), grid)
    made = made / made.mean(dim=1, keepdim=True)
    error = ((made - target) ** 2).mean(dim=1)
    spread = 1e-3 * (mean**2).sum(dim=1)  # keeps the code from drifting; its scale has no other meaning
    active = mean.std(dim=0) > 0.1
    zero = torch.zeros(())
    named = {
        "deviance": error.median(),
        "deviance_mean": error.mean(),
        "kl": zero,
        "pair": zero,
        "active": active.sum(),
    }
    return (error + spread).mean(), named


def on_detector(photons: Tensor, grid: ModelGrid) -> Tensor:
    """Photons per intrinsic bin, relative to the reference spectrum, averaged into detector bins (no response)."""
    lo, hi = grid.chan[:-1], grid.chan[1:]
    common = np.minimum(hi, grid.energy[1:, None]) - np.maximum(lo, grid.energy[:-1, None])
    weights = common.clip(0.0) / (hi - lo)
    ratio = photons / torch.as_tensor(grid.reference, dtype=photons.dtype, device=photons.device)
    return ratio @ torch.as_tensor(weights, dtype=photons.dtype, device=photons.device)


def train(
    preset: Preset,
    output: Path,
    *,
    steps: int | None = None,
    minutes: float | None = None,
    resume: bool = False,
    weights: Path | None = None,
    seed: int = 0,
    data: Observed | None = None,
    report: Callable[[dict[str, Any]], None] | None = None,
    batches: int | None = None,
    processes: Processes | None = None,
) -> Path:
    """Train a preset on simulated spectra, and on real ones if there are any, and leave checkpoints in a folder.

    Parameters
    ----------
    preset : Preset
    output : Path
        Folder for ``checkpoint.safetensors``, ``checkpoint.json`` and ``log.jsonl``.
    steps, minutes : int, float
        Length of the whole run; give one. The learning rate falls to zero as a cosine over it.
    resume : bool
        Go on from the checkpoint in ``output``, on the same schedule.
    weights : Path, optional
        ``weights.safetensors`` to start from, with a fresh optimiser and schedule.
    seed : int
        Of the simulated spectra and of the network's initial weights.
    data : Observed, optional
        Real spectra, which then make up half of each batch. Their held-out score at the start and at the end is
        reported, and stands in ``log.jsonl``.
    report : callable, optional
        Called with each line of the log.
    batches : int, optional
        Batches of the preset that are averaged over in each step; those of the run that is resumed, or else one for
        each process. Each has numbers of its own, so that the steps of a run do not depend on who does them.
    processes : Processes, optional
        Of which this is one, and which share the batches.

    Returns
    -------
    Path
        The checkpoint.

    Raises
    ------
    ParameterError
        If not exactly one of ``steps`` and ``minutes`` is given, there are ``data`` for a preset without likelihood, or
        fewer ``batches`` than ``processes``.
    ModelError
        If there is nothing to resume or no weights to start from, or a run is there and ``resume`` is not asked for,
        or was begun with other data or another number of batches.
    """
    processes = processes or Processes()
    resume = resume or processes.from_first(lambda: processes.again and (output / STATE).exists())
    if (steps is None) == (minutes is None):
        raise ParameterError("give the length of the training as either steps or minutes")
    if weights is not None and not weights.is_file():
        raise ModelError(f"{weights} is missing: this bundle cannot be trained on; start from another")
    if data is not None and preset.loss != "poisson":
        raise ParameterError(f"preset {preset.name} has no likelihood to train on real spectra by; use response-aware")
    torch.manual_seed(seed)
    grid = ModelGrid()
    model = Autoencoder(preset, grid)
    real: dict[str, Any] = {}  # what a checkpoint says of the data
    if data is not None:
        real = {"store": data.fingerprint, "spectra": len(data.train), "gentle": weights is not None}
    batches = batches or (None if resume else processes.number)
    state, tensors = processes.from_first(lambda: _begun(output, preset, model, weights, resume, real, seed, batches))
    step, elapsed, seed, real, batches = (state[key] for key in ("step", "elapsed_s", "seed", "data", "batches"))
    if processes.number > batches:
        raise ParameterError(
            f"a step of this run is {batches} batch{'es' if batches > 1 else ''}, too few for {processes.number} "
            f"processes to share: use {batches} at most"
        )
    device, path = processes.device, output / TENSORS
    load(model, chosen(tensors, "average"), path)
    average = {name: value.detach().clone() for name, value in model.to(device).state_dict().items()}
    load(model, chosen(tensors, "model"), path)
    start = {name: value.to(device) for name, value in chosen(tensors, "start").items()}  # what fine-tuning began with
    t = preset.training
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=t.learning_rate, weight_decay=t.weight_decay, betas=(0.9, 0.98)
    )
    if resume:
        load_optimiser(optimiser, chosen(tensors, "optimiser"), path)

    energy = torch.as_tensor(grid.energy, dtype=torch.float32)
    sources = t.batch if data is None else t.batch - round(SHARE * t.batch)
    made = SimulatedBatches(grid, t.model_copy(update={"batch": sources}), seed, energy)

    def own(step: int) -> range:
        """Numbers of the batches of a step that this process does."""
        return range(step * batches + processes.rank, (step + 1) * batches, processes.number)

    numbers = (number for later in itertools.count(step) for number in own(later))
    made_ahead = supply(made, numbers, device, makers(device))
    if data is not None and not resume:
        real["held_out"] = processes.from_first(lambda: data.held_out(model).tolist())
        if processes.first:
            _tell(output, {"step": step, "held_out": {"start": float(np.mean(real["held_out"]))}}, report)
    gentle = real.get("gentle", False)
    generator = torch.Generator()  # seeded with each batch, so that a resumed run draws what an unbroken one does
    started = last_saved = time.monotonic()
    before = elapsed
    sums: dict[str, float] = {}
    said = TextColumn("{task.fields[said]}")
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn(), said)
    with Progress(*columns, disable=not processes.first) as bar:
        task = bar.add_task(preset.name, total=1.0, said="")
        since, spectra = time.monotonic(), 0
        while (done := _progress(step, elapsed, steps, minutes)) < 1.0:
            rate = (
                t.learning_rate * min(1.0, (step + 1) / max(t.warmup_steps, 1)) * 0.5 * (1 + math.cos(math.pi * done))
            )
            for group in optimiser.param_groups:
                group["lr"] = rate * (GENTLE if gentle else 1.0)
            risen = 1.0 if gentle else min(1.0, done / 0.6)
            beta = t.beta_start + (t.beta_end - t.beta_start) * risen
            optimiser.zero_grad(set_to_none=True)
            for number in own(step):
                photons, views = next(made_ahead)
                if preset.loss == "poisson":
                    # As many draws from the prior again as posteriors.
                    noise = torch.randn(
                        2 * len(photons), preset.network.latents, generator=generator.manual_seed(number)
                    )
                    loss, named = poisson_loss(model, grid, photons, views, t, beta, noise.to(device))
                    if data is not None:
                        seen = data.batch(seed, number, 2 * (t.batch - sources), device)
                        noise = torch.randn(len(seen.counts), preset.network.latents, generator=generator)
                        other, more = observed_loss(model, seen, t, beta, noise.to(device))
                        loss, named = (1.0 - SHARE) * loss + SHARE * other, named | more
                else:
                    loss, named = mse_loss(model, grid, views)
                (loss / batches).backward()
                for name, value in {"loss": loss, **named}.items():
                    sums[name] = sums.get(name, 0.0) + float(value.detach())
            processes.add([p.grad for p in model.parameters() if p.grad is not None])
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), t.gradient_clip)
            if torch.isfinite(norm):
                optimiser.step()
            with torch.no_grad():
                decay = min(t.average_decay, (step + 1) / (step + 10))
                for name, value in model.state_dict().items():
                    average[name].lerp_(value, 1.0 - decay)
            step += 1
            spectra += 2 * t.batch * batches
            elapsed = processes.from_first(lambda: before + time.monotonic() - started)
            if step % LOG_EVERY == 0:
                totals = torch.tensor(list(sums.values()), dtype=torch.float64, device=device)
                processes.add([totals])
                batches_seen = spectra / (2 * t.batch)
                means = dict(zip(sums, (totals / batches_seen).tolist(), strict=True))
                speed = spectra / (time.monotonic() - since)
                line = {
                    "step": step,
                    "elapsed_s": round(elapsed, 1),
                    "spectra_per_s": round(speed),
                    "beta": round(beta, 3),
                }
                line |= {name: round(value, 3) for name, value in means.items()}
                if processes.first:
                    _tell(output, line, report)
                text = f"loss {means['loss']:.2f}  active {means['active']:.1f}  {speed:.0f} spectra/s"
                bar.update(task, completed=done, said=text)
                since, spectra, sums = time.monotonic(), 0, {}
            if processes.first and time.monotonic() - last_saved > CHECKPOINT_SECONDS:
                _save(output, preset, model, average, optimiser, step, elapsed, seed, real, start, batches)
                last_saved = time.monotonic()
        bar.update(task, completed=1.0)
    if gentle and not real.get("mixed"):
        real["mixed"] = True
        for name, value in average.items():
            value.lerp_(start[name], 1.0 - KEPT)
    if processes.first:
        _save(output, preset, model, average, optimiser, step, elapsed, seed, real, start, batches)
        if data is not None:
            load(model, average, path)
            held_out = compare_scores(np.array(real["held_out"]), data.held_out(model))
            _tell(output, {"step": step, "held_out": held_out}, report)
    return path


def _tell(output: Path, line: dict[str, Any], report: Callable[[dict[str, Any]], None] | None) -> None:
    with (output / "log.jsonl").open("a") as log:
        log.write(json.dumps(line) + "\n")
    if report is not None:
        report(line)


def _progress(step: int, elapsed: float, steps: int | None, minutes: float | None) -> float:
    return step / steps if steps is not None else elapsed / (60.0 * float(minutes or 1.0))


def _save(
    output: Path,
    preset: Preset,
    model: Autoencoder,
    average: dict[str, Tensor],
    optimiser: torch.optim.Optimizer,
    step: int,
    elapsed: float,
    seed: int,
    real: dict[str, Any],
    start: dict[str, Tensor],
    batches: int,
) -> Path:
    kinds = {"model": model.state_dict(), "average": average, "start": start}
    tensors = {f"{kind}.{name}": value for kind, values in kinds.items() for name, value in values.items()}
    for index, slots in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{k}": v for k, v in slots.items()}
    state = {"preset": preset.model_dump(), "step": step, "elapsed_s": elapsed, "seed": seed, "batches": batches}
    if real:
        state["data"] = real
    return write_checkpoint(output, state, tensors)


def _begun(
    output: Path,
    preset: Preset,
    model: Autoencoder,
    weights: Path | None,
    resume: bool,
    real: dict[str, Any],
    seed: int,
    batches: int | None,
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """State and tensors to go on from: those of the checkpoint, or such as it would have before the first step."""
    if not resume:
        if (output / STATE).exists():
            raise ModelError(
                f"{output} already holds a training run; pass --resume to go on with it or choose another folder"
            )
        if weights is not None:
            load(model, read_tensors(weights), weights)
        output.mkdir(parents=True, exist_ok=True)
        kinds = ("model", "average", "start") if real.get("gentle") else ("model", "average")
        tensors = {f"{kind}.{name}": value.clone() for kind in kinds for name, value in model.state_dict().items()}
        return {"step": 0, "elapsed_s": 0.0, "seed": seed, "batches": batches, "data": real}, tensors
    if not ((output / STATE).exists() and (output / TENSORS).exists()):
        raise ModelError(f"there is no checkpoint in {output} to resume; leave out --resume to start there")
    state, tensors = read_checkpoint(output)
    if state["preset"]["name"] != preset.name:
        raise ModelError(f"{output} holds a run of preset {state['preset']['name']!r}, not {preset.name!r}")
    begun = state.get("data", {})
    if begun.get("store") != real.get("store"):
        other = "another store" if begun and real else "a store" if begun else "simulated spectra alone"
        raise ModelError(f"{output} holds a run that was begun with {other} for --data; resume it with the same")
    if batches not in (None, state["batches"]):
        raise ModelError(
            f"{output} holds a run of {state['batches']} batches a step, not {batches}; leave --batches out"
        )
    return state | {"data": begun}, tensors
