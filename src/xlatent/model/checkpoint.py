"""Reading what training left: a checkpoint's two files and a bundle's weights, or one sentence on what is wrong."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from xlatent.errors import ModelError
from xlatent.model.autoencoder import Autoencoder

STATE, TENSORS = "checkpoint.json", "checkpoint.safetensors"
_REMEDY = "train again in another folder, or with --from a bundle"


def read_state(run: Path) -> dict[str, Any]:
    """Read the description of a checkpoint: ``preset`` (a dict), ``step``, ``elapsed_s`` and ``seed``.

    Raises
    ------
    ModelError
        If it is damaged.
    """
    path = run / STATE
    try:
        state = json.loads(path.read_text())
    except ValueError as error:  # no JSON, or no text
        raise ModelError(f"{path} is damaged: it is no JSON ({error}); {_REMEDY}") from error
    for key, kind in {"preset": dict, "step": int, "elapsed_s": float | int, "seed": int}.items():
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


def chosen(tensors: dict[str, Tensor], kind: str) -> dict[str, Tensor]:
    """The tensors of a checkpoint that are named ``kind.``..., without it."""
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
