"""Training: simulate, encode, decode, compare, step; a checkpoint every few minutes; killed and resumed it goes on."""

import itertools
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from xlatent.core.errors import ModelError, ParameterError
from xlatent.core.grid import ModelGrid
from xlatent.model.autoencoder import Autoencoder
from xlatent.model.batches import SimulatedBatches, n_loader_workers, prefetch_batches
from xlatent.model.checkpoint import (
    STATE,
    TENSORS,
    load,
    load_optimiser,
    read_checkpoint,
    read_tensors,
    remove_unfinished,
    select_tensors,
    write_checkpoint,
)
from xlatent.model.distributed import DistributedContext
from xlatent.model.objectives import mse_loss, observed_loss, poisson_loss
from xlatent.model.observed import SHARE, Observed, compare_scores
from xlatent.model.preset import Preset

CHECKPOINT_SECONDS = 120.0
LOG_EVERY = 50
# Of the preset's learning rate, to teach a trained model real spectra: with all of it, it forgets others.
FINETUNE_LR_SCALE = 0.1
# Of the change that fine-tuning makes to the weights: half way between two sets most of what is new is there, and
# little of the old is lost (Wortsman et al. 2022, arXiv:2109.01903).
WEIGHT_INTERPOLATION = 0.5


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
    progress: Callable[[int, int], None] | None = None,
    batches: int | None = None,
    context: DistributedContext | None = None,
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
        Called with each line of the log, a dict: ``step``, ``loss``, ``spectra_per_s`` and so on, or ``held_out``.
    progress : callable, optional
        Called with the steps done and ``steps``, or the seconds done and those in ``minutes``.
    batches : int, optional
        Batches of the preset that are averaged over in each step; those of the run that is resumed, or else one for
        each process. Each has numbers of its own, so that the steps of a run do not depend on who does them.
    context : DistributedContext, optional
        This process among those that share the batches. In the others nothing is called back.

    Returns
    -------
    Path
        The checkpoint.

    Raises
    ------
    ParameterError
        If not exactly one of ``steps`` and ``minutes`` is given, there are ``data`` for a preset without likelihood, or
        fewer ``batches`` than processes.
    ModelError
        If there is nothing to resume or no weights to start from, or a run is there and ``resume`` is not asked for,
        or was begun with other data or another number of batches.
    """
    context = context or DistributedContext()
    resume = resume or context.broadcast(lambda: context.restarted and (output / STATE).exists())
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
    batches = batches or (None if resume else context.number)
    state, tensors = context.broadcast(
        lambda: _initial_state(output, preset, model, weights, resume, real, seed, batches)
    )
    step, elapsed, seed, real, batches = (state[key] for key in ("step", "elapsed_s", "seed", "data", "batches"))
    if context.number > batches:
        raise ParameterError(
            f"a step of this run is {batches} batch{'es' if batches > 1 else ''}, too few for {context.number} "
            f"processes to share: use {batches} at most"
        )
    device, path = context.device, output / TENSORS
    load(model, select_tensors(tensors, "average"), path)
    average = {name: value.detach().clone() for name, value in model.to(device).state_dict().items()}
    load(model, select_tensors(tensors, "model"), path)
    # What fine-tuning began with.
    start = {name: value.to(device) for name, value in select_tensors(tensors, "start").items()}
    t = preset.training
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=t.learning_rate, weight_decay=t.weight_decay, betas=(0.9, 0.98)
    )
    if resume:
        load_optimiser(optimiser, select_tensors(tensors, "optimiser"), path)

    energy = torch.as_tensor(grid.energy, dtype=torch.float32)
    sources = t.batch if data is None else t.batch - round(SHARE * t.batch)
    made = SimulatedBatches(grid, t.model_copy(update={"batch": sources}), seed, energy)

    def own(step: int) -> range:
        """Numbers of the batches of a step that this process does."""
        return range(step * batches + context.rank, (step + 1) * batches, context.number)

    numbers = (number for later in itertools.count(step) for number in own(later))
    made_ahead = prefetch_batches(made, numbers, device, n_loader_workers(device))
    if data is not None and not resume:
        real["held_out"] = context.broadcast(lambda: data.held_out(model).tolist())
        if context.first:
            _log(output, {"step": step, "held_out": {"start": float(np.mean(real["held_out"]))}}, report)
    finetuning = real.get("gentle", False)  # so called in checkpoints
    generator = torch.Generator()  # seeded with each batch, so that a resumed run draws what an unbroken one does
    started = last_saved = time.monotonic()
    before = elapsed
    sums: dict[str, float] = {}
    since, spectra = time.monotonic(), 0
    while (done := _share_done(step, elapsed, steps, minutes)) < 1.0:
        rate = t.learning_rate * min(1.0, (step + 1) / max(t.warmup_steps, 1)) * 0.5 * (1 + math.cos(math.pi * done))
        for group in optimiser.param_groups:
            group["lr"] = rate * (FINETUNE_LR_SCALE if finetuning else 1.0)
        risen = 1.0 if finetuning else min(1.0, done / 0.6)
        beta = t.beta_start + (t.beta_end - t.beta_start) * risen
        optimiser.zero_grad(set_to_none=True)
        for number in own(step):
            photons, views = next(made_ahead)
            if preset.loss == "poisson":
                # As many draws from the prior again as posteriors.
                noise = torch.randn(2 * len(photons), preset.network.latents, generator=generator.manual_seed(number))
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
        context.all_reduce([p.grad for p in model.parameters() if p.grad is not None])
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), t.gradient_clip)
        if torch.isfinite(norm):
            optimiser.step()
        with torch.no_grad():
            decay = min(t.average_decay, (step + 1) / (step + 10))
            for name, value in model.state_dict().items():
                average[name].lerp_(value, 1.0 - decay)
        step += 1
        spectra += 2 * t.batch * batches
        elapsed = context.broadcast(lambda: before + time.monotonic() - started)
        if step % LOG_EVERY == 0:
            totals = torch.tensor(list(sums.values()), dtype=torch.float64, device=device)
            context.all_reduce([totals])
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
            if context.first:
                _log(output, line, report)
                if progress is not None and steps is not None:
                    progress(step, steps)
                elif progress is not None and minutes is not None:
                    progress(min(round(elapsed), round(60 * minutes)), round(60 * minutes))
            since, spectra, sums = time.monotonic(), 0, {}
        if context.first and time.monotonic() - last_saved > CHECKPOINT_SECONDS:
            _save(output, preset, model, average, optimiser, step, elapsed, seed, real, start, batches)
            last_saved = time.monotonic()
    if finetuning and not real.get("mixed"):
        real["mixed"] = True
        for name, value in average.items():
            value.lerp_(start[name], 1.0 - WEIGHT_INTERPOLATION)
    if context.first:
        _save(output, preset, model, average, optimiser, step, elapsed, seed, real, start, batches)
        if data is not None:
            load(model, average, path)
            held_out = compare_scores(np.array(real["held_out"]), data.held_out(model))
            _log(output, {"step": step, "held_out": held_out}, report)
    return path


def _log(output: Path, line: dict[str, Any], report: Callable[[dict[str, Any]], None] | None) -> None:
    """Append a line to the log and report it."""
    with (output / "log.jsonl").open("a") as log:
        log.write(json.dumps(line) + "\n")
    if report is not None:
        report(line)


def _share_done(step: int, elapsed: float, steps: int | None, minutes: float | None) -> float:
    """Share of the training that is done; 1 or more at its end."""
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


def _initial_state(
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
    remove_unfinished(output)
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
