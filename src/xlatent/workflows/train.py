"""Training as the command does it: alone or among processes, from a bundle, with the spectra of a store."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from xlatent.core.bundle import locate
from xlatent.core.errors import XlatentWarning
from xlatent.core.extras import requires_extra
from xlatent.core.grid import ModelGrid


def train_model(
    preset: str,
    output: str | Path,
    *,
    steps: int | None = None,
    minutes: float | None = None,
    resume: bool = False,
    start: str | Path | None = None,
    data: str | Path | None = None,
    seed: int = 0,
    batches: int | None = None,
    report: Callable[[dict[str, Any]], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
    on_status: Callable[[str], None] | None = None,
) -> Path | None:
    """Train a model on simulated spectra, and on those of a store if there is one.

    Where torchrun has started several processes they share the batches of each step.

    Parameters
    ----------
    preset : str
        ``response-aware`` or ``paper``.
    output : str or Path
        Folder for checkpoints and log.
    steps, minutes : int, float
        Length of the training; give one.
    resume : bool
        Go on from the checkpoint in ``output``.
    start : str or Path, optional
        Name or folder of a model whose weights to start from.
    data : str or Path, optional
        Store of real spectra, which then make up half of each batch.
    seed : int
        Of simulated spectra and initial weights.
    batches : int, optional
        Batches averaged over in a step; one for each process if not given.
    report : callable, optional
        Called with each line of the log, a dict.
    progress : callable, optional
        Called with steps or seconds done and their number; while the store is read or held-out counts are scored,
        with those of spectra.
    on_status : callable, optional
        Called with what was found, in words. Of several processes the first alone calls back.

    Returns
    -------
    Path or None
        The checkpoint; None in all processes but the first.

    Raises
    ------
    ParameterError
        If not exactly one of ``steps`` and ``minutes`` is given, or the data do not fit preset or processes.
    ModelError
        If there is no such preset or model, nothing to resume, a run where none should be, or a process is lost.
    ReadError
        If the store is missing or damaged.
    XlatentError
        If torch or what goes with it is not installed.

    Warns
    -----
    XlatentWarning
        If spectra of the store are of no use.
    """
    with requires_extra("train", "torch", "safetensors", "onnx", "onnxscript"):
        from xlatent.model.distributed import distributed_context
        from xlatent.model.observed import Observed
        from xlatent.model.preset import load_preset
        from xlatent.model.train import train

    output = Path(output)

    def looked_at(what: str, done: int, total: int) -> None:
        if progress is not None:
            progress(done, total)

    with distributed_context(output) as context:
        if not context.first:
            report = progress = on_status = None
        weights = None if start is None else locate(start) / "weights.safetensors"
        observed = None if data is None else Observed(data, ModelGrid(), looked_at)
        if observed is not None:
            if on_status is not None:
                on_status(f"{data}: {len(observed.train)} spectra to train on, {len(observed.validation)} to judge by")
            if observed.passed_over and context.first:
                passed = f"{observed.passed_over.total()} spectra are passed over: {observed.reasons}"
                warnings.warn(f"{data}: {passed}", XlatentWarning, stacklevel=2)
        checkpoint = train(
            load_preset(preset), output, steps=steps, minutes=minutes, resume=resume, weights=weights, seed=seed,
            data=observed, report=report, progress=progress, batches=batches, context=context,
        )  # fmt: skip
        return checkpoint if context.first else None
