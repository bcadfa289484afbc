"""What training leaves: a checkpoint's two files, written whole, and read again or one sentence on what is wrong."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from xlatent.core.atomic import atomic
from xlatent.core.errors import ModelError
from xlatent.model.autoencoder import Autoencoder

STATE, TENSORS = "checkpoint.json", "checkpoint.safetensors"
_REMEDY = "train again in another folder, or with --from a bundle"


def write_checkpoint(run: Path, state: dict[str, Any], tensors: dict[str, Tensor]) -> Path:
    """Put a checkpoint in the place of the one before; killed at any moment, one of them is there and whole.

    The state is in both files: two cannot be put in place at once, and `read_checkpoint` believes the tensors'.
    """
    described = json.dumps(state, indent=1)
    with atomic(run / STATE) as partial:
        partial.write_text(described)
        with atomic(run / TENSORS) as whole:
            save_file({k: v.contiguous().cpu().clone() for k, v in tensors.items()}, whole, {"state": described})
    return run / TENSORS


def remove_unfinished(run: Path) -> None:
    """Remove what a process that was killed while it wrote a checkpoint has left."""
    for name in (STATE, TENSORS):
        for unfinished in run.glob(f".*.{name}"):
            unfinished.unlink(missing_ok=True)


def read_checkpoint(run: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read state, as `read_state` does, and tensors of a checkpoint, of the same step.

    Raises
    ------
    ModelError
        If either is missing or damaged.
    """
    state, tensors = read_state(run), read_tensors(run / TENSORS)
    with safe_open(run / TENSORS, "pt") as opened:
        described = (opened.metadata() or {}).get("state")
    return (_checked(described, run / TENSORS) if described else state), tensors


def read_state(run: Path) -> dict[str, Any]:
    """Read a checkpoint's description: ``preset`` (a dict), ``step``, ``elapsed_s``, ``seed``, ``batches`` a step.

    Raises
    ------
    ModelError
        If it is damaged.
    """
    path = run / STATE
    try:
        return _checked(path.read_text(), path)
    except UnicodeDecodeError as error:
        raise ModelError(f"{path} is damaged: it is no text ({error}); {_REMEDY}") from error


def _checked(described: str, path: Path) -> dict[str, Any]:
    try:
        state = json.loads(described)
    except ValueError as error:
        raise ModelError(f"{path} is damaged: it is no JSON ({error}); {_REMEDY}") from error
    if isinstance(state, dict):
        state.setdefault("batches", 1)  # a run from before there could be more
    for key, kind in {"preset": dict, "step": int, "elapsed_s": float | int, "seed": int, "batches": int}.items():
        if not isinstance(state, dict) or not isinstance(state.get(key), kind):
            raise ModelError(f"{path} is damaged: it does not say {key}; {_REMEDY}")
    if not isinstance(state["preset"].get("name"), str):
        raise ModelError(f"{path} is damaged: its preset has no name; {_REMEDY}")
    return state


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file.

    Raises
    ------
    ModelError
        If it is missing or damaged.
    """
    if not path.is_file():
        raise ModelError(f"{path} is missing; {_REMEDY}")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ModelError(f"{path} is damaged ({error}); {_REMEDY}") from error


def select_tensors(tensors: dict[str, Tensor], kind: str) -> dict[str, Tensor]:
    """Select the tensors of a checkpoint that are named ``kind.``..., and leave the prefix away."""
    return {name.removeprefix(f"{kind}."): value for name, value in tensors.items() if name.startswith(f"{kind}.")}


def load(model: Autoencoder, tensors: dict[str, Tensor], source: Path) -> None:
    """Put weights into a network; those from before latents had axes by rule are in the network's own.

    Raises
    ------
    ModelError
        If they belong to another network.
    """
    own = {"axes": torch.eye(model.encoder.latents)}
    try:
        model.load_state_dict(own | tensors)
    except RuntimeError as error:
        raise ModelError(
            f"{source} holds weights of another network than the preset describes; use the preset it was trained with"
        ) from error


def load_optimiser(optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor], source: Path) -> None:
    """Put the moments of an AdamW optimiser back.

    Raises
    ------
    ModelError
        If some are missing, or of another size than their parameters.
    """
    slots: dict[int, dict[str, Tensor]] = {}
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    for index, parameter in enumerate(parameters):
        for slot, shape in {"step": (), "exp_avg": parameter.shape, "exp_avg_sq": parameter.shape}.items():
            value = tensors.get(f"{index}.{slot}")
            if value is None or value.shape != torch.Size(shape):
                raise ModelError(f"{source} is damaged: the optimiser's {slot} {index} is amiss; {_REMEDY}")
            slots.setdefault(index, {})[slot] = value
    optimiser.load_state_dict({"state": slots, "param_groups": optimiser.state_dict()["param_groups"]})
