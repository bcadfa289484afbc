"""A decoder small enough for catalogues: it learns to stand for the one that was trained."""

from collections.abc import Callable
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from xlatent.core.bundle import read_info, sha256, write_info
from xlatent.core.grid import ModelGrid
from xlatent.model.autoencoder import Autoencoder, Decoder
from xlatent.model.batches import simulated_batches
from xlatent.model.checkpoint import load, read_tensors
from xlatent.model.export import export_decoder
from xlatent.model.preset import Preset

# Of the arithmetic of width 384 an eighth.
_WIDTH, _BATCH, _RATE, _WARM_UP = 128, 256, 3e-3, 0.01
_SEED, _SOURCES = 6174, 65_536
_WIDER, _PRIOR = 2.0, (0.5, 1.6)  # standard deviations: of posteriors at most, and of what is drawn like the prior
_CARE = 0.02  # for bins of hardly any photons
_EXACT = 0.03  # of ln(photons), beyond which an error counts only as itself and not as its square
_HOW = "The decoder is one of width {}, which learnt in {:,} steps to stand for the trained one of width {}."


def distil(bundle: Path, steps: int, progress: Callable[[int, int], None] | None = None) -> None:
    """Train a narrow decoder to give what that in a bundle's weights gives, and make it the bundle's decoder.

    Half of the points at which they are compared are draws from posteriors of simulated spectra, somewhat widened, half
    are drawn like the prior, nearer and farther. What counts is ln(photons) where there are photons.

    Parameters
    ----------
    bundle : Path
        With ``weights.safetensors``, which stay as they are; ``decoder.onnx`` is replaced and ``bundle.json`` says so.
    steps : int
    progress : callable, optional
        Called with the number of steps done and ``steps``.

    Raises
    ------
    ModelError
        If the bundle is damaged, or the graph cannot be exported.
    """
    info = read_info(bundle)
    preset, grid = Preset.model_validate(info.preset), info.model_grid()
    whole = Autoencoder(preset, grid)
    load(whole, read_tensors(bundle / "weights.safetensors"), bundle / "weights.safetensors")
    whole.requires_grad_(False).eval()
    network = preset.network.model_copy(update={"decoder_width": _WIDTH})
    with torch.random.fork_rng():
        torch.manual_seed(_SEED)
        small = Decoder(preset.model_copy(update={"network": network}), grid)
    points = _Points(whole, preset, grid)
    optimiser = torch.optim.Adam(small.parameters(), betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, _RATE, steps, pct_start=_WARM_UP, cycle_momentum=False, final_div_factor=1e3
    )
    for step in range(steps):
        z = points.draw()
        wanted = whole.decoder(z)
        share = torch.softmax(wanted, dim=1)
        care = (share * share.shape[1]).clamp(max=1.0).sqrt() + _CARE
        wrong = nn.functional.smooth_l1_loss(small(z), wanted, beta=_EXACT, reduction="none")
        optimiser.zero_grad()
        (care * wrong).mean().div(_EXACT).backward()
        optimiser.step()
        schedule.step()
        if progress is not None:
            progress(step + 1, steps)
    whole.decoder = small
    export_decoder(whole.eval(), bundle)
    files = info.files | {"decoder.onnx": sha256(bundle / "decoder.onnx")}
    training = f"{info.training} {_HOW.format(_WIDTH, steps, preset.network.decoder_width)}"
    write_info(info.model_copy(update={"files": files, "training": training}), bundle)


class _Points:
    """Where decoders are compared."""

    def __init__(self, model: Autoencoder, preset: Preset, grid: ModelGrid) -> None:
        batches = simulated_batches(grid, preset.training, _SEED, 0, torch.as_tensor(grid.energy, dtype=torch.float32))
        found = []
        for _ in range(_SOURCES // (2 * preset.training.batch)):
            _, views = next(batches)
            found.append(model.encoder(*views.encoder_inputs))
        self._mean, self._factor = (torch.cat(parts) for parts in zip(*found, strict=True))
        self._generator = torch.Generator().manual_seed(_SEED)

    def draw(self) -> Float[Tensor, "batch latents"]:
        half = _BATCH // 2
        normal = torch.randn(_BATCH, self._mean.shape[1], generator=self._generator)
        even = torch.rand(_BATCH, 1, generator=self._generator)
        of = torch.randint(len(self._mean), (half,), generator=self._generator)
        away = _WIDER * even[:half] * normal[:half]
        near = self._mean[of] + (self._factor[of] @ away[:, :, None])[:, :, 0]
        low, high = _PRIOR
        return torch.cat([near, normal[half:] * (low + (high - low) * even[half:])])
