"""From a training checkpoint to a bundle: ONNX graphs in canonical axes, and weights to train on."""

import logging
import warnings
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from pydantic import ValidationError
from safetensors.torch import save_file
from torch import Tensor, nn

from xlatent.core.bundle import BundleInfo, sha256, write_info
from xlatent.core.errors import ModelError
from xlatent.core.grid import ModelGrid
from xlatent.model.autoencoder import Autoencoder
from xlatent.model.axes import canonical_axes
from xlatent.model.checkpoint import STATE, TENSORS, load, read_state, read_tensors, select_tensors
from xlatent.model.preset import Preset

AGREEMENT = 1e-4
"""Largest difference between ONNX and torch, relative to the larger of 1 and the value, that an export may have."""


class _Rows(nn.Module):
    """The layers of a transformer, with the tokens of all spectra as rows of one matrix.

    In ONNX Runtime an eighth less time than what torch exports of its own layers, which turns every token about.
    """

    def __init__(self, layers: nn.TransformerEncoder) -> None:
        super().__init__()
        self.layers, self.norm = layers.layers, layers.norm or nn.Identity()

    def forward(self, tokens: Tensor) -> Tensor:
        _, n, width = tokens.shape
        rows = tokens.reshape(-1, width)
        for layer in self.layers:
            rows = rows + self._attention(layer.self_attn, layer.norm1(rows), n)
            rows = rows + layer.linear2(layer.activation(layer.linear1(layer.norm2(rows))))
        return self.norm(rows).reshape(-1, n, width)

    @staticmethod
    def _attention(attention: nn.MultiheadAttention, rows: Tensor, n: int) -> Tensor:
        weights, biases = (x.unflatten(0, (3, -1)) for x in (attention.in_proj_weight, attention.in_proj_bias))
        heads = (-1, n, attention.num_heads, attention.head_dim)
        q, k, v = (nn.functional.linear(rows, weights[i], biases[i]).reshape(heads) for i in range(3))
        share = torch.softmax((q.transpose(1, 2) @ k.permute(0, 2, 3, 1)) * attention.head_dim**-0.5, dim=-1)
        return attention.out_proj((share @ v.transpose(1, 2)).transpose(1, 2).reshape(rows.shape))


class _TurnedEncoder(nn.Module):
    def __init__(self, autoencoder: Autoencoder) -> None:
        super().__init__()
        self.encoder, self.axes = deepcopy(autoencoder.encoder), autoencoder.axes
        self.encoder.register_module("layers", _Rows(self.encoder.layers))

    def forward(
        self, counts: Tensor, background: Tensor, unit: Tensor, spread: Tensor, scale: Tensor
    ) -> tuple[Tensor, Tensor]:
        mean, factor = self.encoder(counts, background, unit, spread, scale)
        return mean @ self.axes.T, self.axes @ factor


class _TurnedDecoder(nn.Module):
    def __init__(self, autoencoder: Autoencoder) -> None:
        super().__init__()
        self.decoder, self.axes = autoencoder.decoder, autoencoder.axes

    def forward(self, z: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        return self.decoder.with_slopes(z @ self.axes, directions @ self.axes)


def export(run: Path, output: Path, *, name: str, training: str) -> Path:
    """Write the averaged weights of a training run as a bundle, its latents along canonical axes.

    The graphs are turned (`xlatent.model.axes`); the weights beside them stay in the frame they were trained in, with
    ``axes`` among them, so that training goes on from a bundle exactly where it was. What spectra of 10³ to 10⁵ counts
    tell of each latent is recorded as ``information_nats``. The encoder's ``z_factor`` times
    its transpose is the covariance; turned, it is no longer triangular.

    Parameters
    ----------
    run : Path
        Folder of a training run, with its checkpoint.
    output : Path
        Folder of the bundle; made if absent.
    name : str
        Name of the bundle.
    training : str
        What it was trained on and for how long, in words.

    Returns
    -------
    Path
        ``output``.

    Raises
    ------
    ModelError
        If there is no checkpoint, it is damaged, or the exported graphs disagree with the network.
    """
    if not (run / STATE).exists():
        raise ModelError(f"there is no training run in {run}: {STATE} is missing; train one with xlatent train")
    state = read_state(run)
    try:
        preset = Preset.model_validate(state["preset"])
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ModelError(
            f"{run / STATE}: preset: {where}: {first['msg']}; export it with the xlatent it was trained with"
        ) from error
    grid = ModelGrid()
    model = Autoencoder(preset, grid)
    load(model, select_tensors(read_tensors(run / TENSORS), "average"), run / TENSORS)
    model.eval()
    axes, information = canonical_axes(model, preset, grid)
    model.axes.copy_(axes)
    output.mkdir(parents=True, exist_ok=True)
    inputs = example_inputs(grid, 4)
    batch = torch.export.Dim("batch")
    to_onnx(
        _TurnedEncoder(model).eval(),
        inputs,
        output / "encoder.onnx",
        ["counts", "background", "unit", "spread", "scale"],
        ["z_mean", "z_factor"],
        tuple({0: batch} for _ in inputs),
    )
    export_decoder(model, output)
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, output / "weights.safetensors")
    (output / "weights.safetensors").chmod(0o644)  # safetensors lets nobody else read what it writes
    difference = disagreement(model, grid, output)
    if difference > AGREEMENT:
        raise ModelError(
            f"{output}: the exported graphs differ from the network by {difference:.1e}, above {AGREEMENT:.0e}"
        )
    found = {} if information.isnan().any() else {"information_nats": [round(float(x), 2) for x in information]}
    files = {f: sha256(output / f) for f in ("encoder.onnx", "decoder.onnx", "weights.safetensors")}
    info = BundleInfo(
        name=name,
        latents=preset.network.latents,
        grid={
            "energy_lo": grid.energy_lo,
            "energy_hi": grid.energy_hi,
            "n_energy": grid.n_energy,
            "chan_lo": grid.chan_lo,
            "chan_hi": grid.chan_hi,
            "n_chan": grid.n_chan,
        },
        preset=preset.model_dump(),
        training=f"{training} And {seen['spectra']:,} spectra of a store." if (seen := state.get("data")) else training,
        steps=state["step"],
        training_hours=round(state["elapsed_s"] / 3600, 2),
        metrics=found,
        files=files,
    )
    write_info(info, output)
    return output


def export_decoder(model: Autoencoder, bundle: Path) -> None:
    """Write ``decoder.onnx``, along the model's axes.

    Raises
    ------
    ModelError
        If the exporter gives nothing.
    """
    latents = model.decoder.latents
    to_onnx(
        _TurnedDecoder(model).eval(),
        (torch.randn(4, latents), torch.eye(latents)),
        bundle / "decoder.onnx",
        ["z", "directions"],
        ["log_flux", "slopes"],
        ({0: torch.export.Dim("batch")}, {0: torch.export.Dim("directions")}),
    )


def example_inputs(grid: ModelGrid, n: int, seed: int = 0) -> tuple[Tensor, ...]:
    """Make random but plausible encoder inputs: counts, background, unit, spread, scale."""
    rng = np.random.default_rng(seed)
    unit = rng.gamma(2.0, 1.0, (n, grid.n_chan))
    background = rng.gamma(1.0, 1.0, (n, grid.n_chan))
    counts = rng.poisson(unit * 10 ** rng.uniform(0, 3, (n, 1)) + background)
    spread = rng.uniform(0.01, 0.1, (n, grid.n_chan))
    scale = rng.uniform(0.0, 1.0, n)
    return tuple(torch.as_tensor(x, dtype=torch.float32) for x in (counts, background, unit, spread, scale))


def disagreement(model: Autoencoder, grid: ModelGrid, bundle: Path, n: int = 256) -> float:
    """Return the largest difference between graphs and network on ``n`` random inputs, relative to max(1, value)."""
    inputs = example_inputs(grid, n, seed=1)
    z = torch.as_tensor(np.random.default_rng(2).standard_normal((n, model.encoder.latents)), dtype=torch.float32)
    with torch.no_grad():
        wanted = [*_TurnedEncoder(model)(*inputs), *_TurnedDecoder(model)(z, torch.eye(z.shape[1]))]
    named = dict(zip(["counts", "background", "unit", "spread", "scale"], inputs, strict=True))
    found = _run(bundle / "encoder.onnx", named) + _run(
        bundle / "decoder.onnx", {"z": z, "directions": torch.eye(z.shape[1])}
    )
    return max(
        float(np.max(np.abs(f - w.numpy()) / np.maximum(1.0, np.abs(w.numpy()))))
        for f, w in zip(found, wanted, strict=True)
    )


def _run(path: Path, inputs: dict[str, Tensor]) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    wanted = {i.name for i in session.get_inputs()}  # a preset may leave some inputs out of its graph
    return session.run(None, {k: v.numpy() for k, v in inputs.items() if k in wanted})


def to_onnx(
    module: nn.Module,
    inputs: tuple[Tensor, ...],
    path: Path,
    names: list[str],
    outputs: list[str],
    dynamic: tuple[Any, ...],
) -> None:
    """Write a network as an ONNX graph with named inputs and outputs, axes named in ``dynamic`` of any length.

    Raises
    ------
    ModelError
        If the exporter gives nothing.
    """
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(
        logging.ERROR
    )  # that torchvision is absent
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        program = torch.onnx.export(
            module, inputs, input_names=names, output_names=outputs, dynamic_shapes=dynamic, dynamo=True, verbose=False
        )
    if program is None:
        raise ModelError(f"{path}: the exporter returned nothing")
    program.save(path, external_data=False)
