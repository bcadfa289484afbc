"""What defines a model and its training: a preset, read from TOML and checked."""

import tomllib
from importlib import resources
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from xlatent.core.errors import ModelError


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Network(_Strict):
    """Sizes of encoder and decoder."""

    latents: int = Field(8, ge=1)
    patch: int = Field(8, ge=1)
    width: int = Field(96, ge=8)
    layers: int = Field(3, ge=1)
    heads: int = Field(4, ge=1)
    decoder_width: int = Field(384, ge=8)
    decoder_blocks: int = Field(3, ge=1)


class Training(_Strict):
    """Optimiser, loss weights and the range of counts."""

    batch: int = Field(128, ge=2)
    learning_rate: float = Field(1.2e-3, gt=0)
    warmup_steps: int = Field(300, ge=0)
    weight_decay: float = Field(1e-4, ge=0)
    gradient_clip: float = Field(1.0, gt=0)
    beta_start: float = Field(0.05, ge=0)
    beta_end: float = Field(0.5, ge=0)
    spread_weight: float = Field(1.0, ge=0)
    pair_weight: float = Field(0.2, ge=0)
    prior_weight: float = Field(0.0, ge=0)
    robust_scale: float = Field(64.0, gt=0)
    sharp_counts: float = Field(300.0, ge=0)
    average_decay: float = Field(0.9995, ge=0, lt=1)
    min_counts: float = Field(5.0, gt=0)
    max_counts: float = Field(1e6, gt=0)


class Preset(_Strict):
    """A named choice of inputs, loss, network and training."""

    name: str
    inputs: Literal["response-aware", "flux"]
    loss: Literal["poisson", "mse"]
    network: Network = Network()
    training: Training = Training()


def load_preset(name: str) -> Preset:
    """Read a preset that ships with the package.

    Parameters
    ----------
    name : str
        ``response-aware`` or ``paper``.

    Raises
    ------
    ModelError
        If there is no such preset, or it does not validate.
    """
    folder = resources.files("xlatent.model") / "presets"
    known = sorted(p.name.removesuffix(".toml") for p in folder.iterdir() if p.name.endswith(".toml"))
    if name not in known:
        raise ModelError(f"there is no preset {name!r}; known are {', '.join(known)}")
    try:
        return Preset.model_validate(tomllib.loads((folder / f"{name}.toml").read_text()))
    except ValidationError as error:
        first = error.errors()[0]
        raise ModelError(f"preset {name}.toml: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
