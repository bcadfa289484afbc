"""How many spectra a second are simulated, taken by the model, and trained on: by threads, processes, and on a GPU.

The model's operations are those of its matrix products, forwards and backwards, and are told as a fraction of the rate
at which the same device multiplies matrices in the same round. Processes are started by torchrun, as a user would.
"""

import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from machine import seconds, spread
from words import table
from xlatent.core.grid import ModelGrid
from xlatent.model import batches, objectives, train
from xlatent.model.autoencoder import Autoencoder
from xlatent.model.distributed import distributed_context
from xlatent.model.preset import load_preset
from xlatent.simulate.observe import SimulatedObservations

PRESET = load_preset("response-aware")
GRID = ModelGrid()
SPECTRA = 2 * PRESET.training.batch  # of a batch: each source is seen twice
SIMULATION, STEP, SHARE = "simulation", "step of the model", "step, of the matrix product"
STARVED = "simulation by step"


def run(quick: bool = False) -> dict[str, Any]:
    """Simulation, the model's step and a matrix product beside each other; then training as a whole."""
    energy = torch.as_tensor(GRID.energy, dtype=torch.float32)
    made = batches.SimulatedBatches(GRID, PRESET.training, 0, energy)
    counts = {SIMULATION: _operations(lambda: made[0])}
    step = _step(made[0], "cpu")
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        step()
    each = counter.get_total_flops() / SPECTRA
    counts[STEP] = _operations(step)

    numbers = itertools.count(1)
    rates: dict[str, list[dict[str, float]]] = {}
    for _ in range(2 if quick else 7):
        for threads in (1,) if quick else (1, 2):
            torch.set_num_threads(threads)
            found = _rates(lambda: made[next(numbers)], step, each, lambda work, n=threads: seconds(work, n))
            rates.setdefault(f"CPU, {threads} thread{'s' if threads > 1 else ''}", []).append(found)
    torch.set_num_threads(1)
    if torch.cuda.is_available():
        rates[torch.cuda.get_device_name()] = list(_on_gpu(made, each, rounds=7))

    scores: dict[str, Any] = {
        where: {name: spread([found[name] for found in of]) for name in of[0]} for where, of in rates.items()
    }
    targets = []
    for where in rates:
        ratio = scores[where][STARVED]["median"]
        targets.append([f"simulation, by the rate of the model's step ({where})", "≥ 1", f"{ratio:.1f}", ratio >= 1.0])
    tables = [_rate_table({where: scores[where] for where in rates}), _cost_table(each, counts)]
    if not torch.cuda.is_available():
        tables.append("There is no GPU here.")
    if not quick:
        whole = {f"{n} of {threads}": _trained(n, threads) for n, threads in ((1, 1), (1, 2), (2, 1))}
        tables.append(_whole_table(whole))
        scores["training"] = whole
    return {"targets": targets, "tables": tables, "scores": scores | {"operations": counts, "flop": each}}


def _step(batch: tuple[torch.Tensor, SimulatedObservations], device: str) -> Callable[[], None]:
    """A step of training on a batch that is at hand."""
    model = Autoencoder(PRESET, GRID).to(device)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4)
    photons, views = batch
    noise = torch.randn(2 * SPECTRA, PRESET.network.latents, device=device)

    def step() -> None:
        loss, _ = objectives.poisson_loss(model, GRID, photons, views, PRESET.training, 0.3, noise)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), PRESET.training.gradient_clip)
        optimiser.step()

    step()
    return step


def _rates(
    simulate: Callable[[], Any], step: Callable[[], None], each: float, timed: Callable[[Callable[[], Any]], float],
    side: int = 1024, device: str = "cpu",
) -> dict[str, float]:  # fmt: skip
    """Spectra a second of simulation and of the step, and the latter's operations by those of a matrix product."""
    a, b = torch.randn(2, side, side, device=device)
    a @ b
    product = 2.0 * side**3 / min(timed(lambda: a @ b) for _ in range(5))
    simulated, stepped = SPECTRA / timed(simulate), SPECTRA / timed(step)
    return {
        SIMULATION: simulated, STEP: stepped, STARVED: simulated / stepped, SHARE: stepped * each / product,
        "matrix product (GFLOP/s)": product / 1e9,
    }  # fmt: skip


def _on_gpu(made: batches.SimulatedBatches, each: float, rounds: int) -> Iterator[dict[str, float]]:
    device = torch.device("cuda")
    supply = batches.prefetch_batches(made, itertools.count(), device, batches.n_loader_workers(device))
    step, many = _step(next(supply), "cuda"), 64  # more than are made ahead

    def timed(work: Callable[[], Any]) -> float:
        torch.cuda.synchronize()
        began = time.perf_counter()
        work()
        torch.cuda.synchronize()
        return time.perf_counter() - began

    def simulate() -> None:
        began = time.perf_counter()
        for _ in range(many):
            next(supply)
        torch.cuda.synchronize()
        taken.append((time.perf_counter() - began) / many)

    for _ in range(rounds):
        taken: list[float] = []
        simulate()
        found = _rates(lambda: None, step, each, timed, side=8192, device="cuda")
        simulated = SPECTRA / taken[0]
        yield found | {SIMULATION: simulated, STARVED: simulated / found[STEP]}


def _operations(work: Callable[[], Any]) -> int:
    """How many operations torch is asked for: a GPU starts a kernel for each."""

    class Counter(TorchDispatchMode):
        number = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            self.number += 1
            return func(*args, **(kwargs or {}))

    with Counter() as counter:
        work()
    return counter.number


def _trained(processes: int, threads: int, steps: int = 24, line: int = 8) -> dict[str, float]:
    """Spectra a second by the log of a run, whose first lines are those of a start."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        command = ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", __file__, run, steps, line]
        environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
        subprocess.run(
            [sys.executable, "-m", *map(str, command)], env=environment, check=True, capture_output=True, text=True
        )
        lines = [json.loads(text) for text in (run / "log.jsonl").read_text().splitlines()]
    return {"spectra_per_s": median(found["spectra_per_s"] for found in lines[1:])}


def _one_of_some(run: str, steps: str, line: str) -> None:
    """What each process does that `_trained` starts."""
    train.LOG_EVERY = int(line)
    with distributed_context(Path(run)) as context:
        train.train(PRESET, Path(run), steps=int(steps), context=context)


def _rate_table(scores: dict[str, dict[str, dict[str, float]]]) -> str:
    rows = [
        [
            where, f"{of[STARVED]['median']:.1f}", f"{of[SHARE]['median']:.0%}", f"{of[SIMULATION]['median']:,.0f}",
            f"{of[STEP]['median']:,.0f}", f"{of['matrix product (GFLOP/s)']['median']:,.0f}",
        ]
        for where, of in scores.items()
    ]  # fmt: skip
    head = ["", "simulation by step", SHARE, "simulation (spectra/s)", "step (spectra/s)", "matrix product (GFLOP/s)"]
    return table(head, rows)


def _cost_table(each: float, counts: dict[str, int]) -> str:
    rows = [["operations of matrix products for a spectrum", f"{each / 1e6:.0f} million"]]
    rows += [[f"kernels a GPU would start for a batch: {name}", f"{count:,}"] for name, count in counts.items()]
    return table([f"a step of {SPECTRA} spectra", ""], rows)


def _whole_table(whole: dict[str, dict[str, float]]) -> str:
    base = whole["1 of 1"]["spectra_per_s"]
    rows = [[name, f"{of['spectra_per_s'] / base:.2f}", f"{of['spectra_per_s']:,.0f}"] for name, of in whole.items()]
    return table(["training whole: processes of threads", "by 1 of 1", "spectra/s"], rows)


if __name__ == "__main__":
    if len(sys.argv) == 4:
        _one_of_some(*sys.argv[1:])
    else:
        found = run()
        print(*found["tables"], table(["", "target", "found", "reached"], found["targets"]), sep="\n\n")
