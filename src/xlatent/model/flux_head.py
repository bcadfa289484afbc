"""Band fluxes straight from z: a small network that stands for the decoder where hundreds of draws are wanted."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from xlatent.core.bands import flux_weights
from xlatent.core.grid import ModelGrid
from xlatent.model.export import to_onnx

_WIDTH, _STEPS, _BATCH, _RATE = 96, 6000, 512, 6e-3
_POINTS, _SPREAD = 40_000, (0.6, 1.8)  # drawn as far out as posteriors of bright spectra reach
_FAINT = -6.0  # ln of the share of the largest flux below which less and less care is taken


class _FluxHead(nn.Module):
    """ln of photon and energy fluxes (`xlatent.core.bands.flux_weights`) at amplitude one."""

    def __init__(self, latents: int, centre: Float[np.ndarray, " n_fluxes"]) -> None:
        super().__init__()
        last = nn.Linear(_WIDTH, len(centre))
        with torch.no_grad():
            last.bias.copy_(torch.as_tensor(centre))
        inner = (nn.Linear(latents, _WIDTH), nn.SiLU(), nn.Linear(_WIDTH, _WIDTH), nn.SiLU())
        self.layers = nn.Sequential(*inner, last)

    def forward(self, z: Tensor) -> Tensor:
        out: Tensor = self.layers(z)
        return out


def export_flux_head(decode: Callable[[np.ndarray], np.ndarray], grid: ModelGrid, latents: int, path: Path) -> None:
    """Fit a network to the decoder's band fluxes and write it as ONNX: ``z`` [batch, latents] to ``log_fluxes``.

    Parameters
    ----------
    decode : callable
        The decoder, in the frame of the bundle's latents: z [n, latents] to photons per bin [n, n_energy].
    grid : ModelGrid
    latents : int
    path : Path
        ``fluxes.onnx``.

    Raises
    ------
    ModelError
        If the graph cannot be exported.
    """
    rng = np.random.default_rng(0)
    z = rng.standard_normal((_POINTS, latents)) * rng.uniform(*_SPREAD, (_POINTS, 1))
    weights = flux_weights(grid.energy)
    found = np.concatenate([decode(some) @ weights for some in np.array_split(z, 40)])
    log_fluxes = np.log(np.maximum(found, 1e-300))
    care = 1.0 / (1.0 + np.maximum(_FAINT + log_fluxes.max(axis=0) - log_fluxes, 0.0))
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        head = _FluxHead(latents, log_fluxes.mean(axis=0))
    inputs, wanted, trust = (torch.as_tensor(x, dtype=torch.float32) for x in (z, log_fluxes, care))
    optimiser = torch.optim.Adam(head.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, _RATE, _STEPS)
    for _ in range(_STEPS):
        some = torch.randint(_POINTS, (_BATCH,), generator=generator)
        wrong = (head(inputs[some]) - wanted[some]) * trust[some]
        loss = nn.functional.smooth_l1_loss(wrong, torch.zeros_like(wrong), beta=0.05)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    to_onnx(head.eval(), (inputs[:4],), path, ["z"], ["log_fluxes"], ({0: torch.export.Dim("batch")},))
