"""Learning the first proposal of exact draws: a conditional density, trained on spectra of a model's own decoder."""

import math
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from xlatent.core.bundle import sha256, write_info
from xlatent.infer.embed import load_model
from xlatent.infer.proposal import BEND, LAYERS, PROPOSAL, SQUEEZE, n_coefficients, n_terms, places
from xlatent.model.export import to_onnx
from xlatent.model.proposal_pairs import Pairs, draw_pairs

N_PAIRS = 100_000
"""Spectra from which it is learnt, six minutes' work."""

_WIDTH, _NARROW, _DROPOUT = 128, 64, 0.05
_EPOCHS, _BATCH, _RATE, _DECAY = 30, 256, 2e-3, 1e-4
_AVERAGE = 0.998  # decay of the moving average of the weights, which is what is kept
_TAIL = 0.4  # largest logarithm of the power of a tail
_FARTHEST = 8.0  # standard deviations to which the inputs of the network are held
_TRUTH = 0.3  # weight of the truth, which alone knows of places far from the mode, beside the other draws
_WORST = -200.0  # ln of the density below which a draw no longer pulls
_SEED = 20261128


def add_proposal(bundle: Path, n_pairs: int = N_PAIRS, progress: Callable[[int, int], None] | None = None) -> None:
    """Learn a proposal for the model of a bundle, and put it there as ``proposal.onnx``.

    Also ``python -m xlatent.model.proposal BUNDLE``.

    Parameters
    ----------
    bundle : Path
        Of a model with a posterior; ``bundle.json`` gets the new file.
    n_pairs : int
        Spectra from which it is learnt.
    progress : callable, optional
        Called with the number of spectra done and ``n_pairs``.

    Raises
    ------
    ModelError
        If the bundle is damaged, or the graph cannot be exported.
    """
    model = load_model(bundle, threads=1)
    pairs = draw_pairs(model, n_pairs, _SEED, progress)
    network, example = train_proposal(pairs), torch.as_tensor(pairs.context[:4])
    to_onnx(network, (example,), bundle / PROPOSAL, ["context"], ["coefficients"], ({0: torch.export.Dim("batch")},))
    files = model.info.files | {PROPOSAL: sha256(bundle / PROPOSAL)}
    write_info(model.info.model_copy(update={"files": files}), bundle)


class ProposalNetwork(nn.Module):
    """From a context to the coefficients of `xlatent.infer.proposal.TriangularMaps`; untrained, those of a Gaussian.

    Parameters
    ----------
    context : array [n, n_context]
        Typical contexts, for the scale of each input.
    dim : int
        Number of coordinates.
    """

    def __init__(self, context: Float[Tensor, "n n_context"], dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.centre = nn.Buffer(context.mean(dim=0))
        self.scale = nn.Buffer(context.std(dim=0) + 1e-3)
        inputs, outputs = context.shape[1], n_coefficients(dim)
        self.straight = nn.Sequential(nn.Linear(inputs, _NARROW), _silent(_NARROW, outputs))
        self.layers = nn.Sequential(
            nn.Linear(inputs, _WIDTH), nn.SiLU(), nn.Dropout(_DROPOUT), nn.Linear(_WIDTH, _WIDTH), nn.SiLU(),
            nn.Dropout(_DROPOUT), nn.Linear(_WIDTH, _WIDTH), nn.SiLU(), _silent(_WIDTH, outputs),
        )  # fmt: skip

    def forward(self, context: Float[Tensor, "n n_context"]) -> Float[Tensor, "n n_coefficients"]:
        """Compute the coefficients."""
        scaled = ((context - self.centre) / self.scale).clamp(-_FARTHEST, _FARTHEST)
        parts = []
        for numbers in (self.straight(scaled) + self.layers(scaled)).chunk(LAYERS, dim=1):
            polynomials, asymmetry, tail = numbers.split([numbers.shape[1] - 2 * self.dim, self.dim, self.dim], dim=1)
            parts += [polynomials, torch.tanh(asymmetry), _TAIL * torch.tanh(tail / _TAIL)]
        return torch.cat(parts, dim=1)


def _silent(inputs: int, outputs: int) -> nn.Linear:
    """Make a layer that gives nothing before it is trained."""
    layer = nn.Linear(inputs, outputs)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def log_density(coefficients: Float[Tensor, "n k"], white: Float[Tensor, "n m dim"]) -> Float[Tensor, "n m"]:
    """Evaluate the ln of the density of ``m`` draws of each spectrum, as `TriangularMaps.log_density` does for one."""
    n, dim = len(white), white.shape[2]
    used = [torch.as_tensor(some) for some in places(dim)]
    x = white.transpose(1, 2)
    out = torch.full(white.shape[:2], -0.5 * dim * math.log(2.0 * math.pi))
    for numbers in coefficients.chunk(LAYERS, dim=1):
        *polynomials, asymmetry, tail = numbers.split([*map(len, used), dim, dim], dim=1)
        asymmetry, tail = asymmetry[:, :, None], tail[:, :, None]
        wanted = [
            torch.zeros(n, dim * n_terms(dim - 1)).index_copy(1, where, some).unflatten(1, (dim, -1))
            for where, some in zip(used, polynomials, strict=True)
        ]
        shift, width = (torch.cat(wanted, dim=1) @ _terms(x[:, :-1])).chunk(2, dim=1)
        width = SQUEEZE * torch.tanh(width / SQUEEZE)
        scaled = (x - shift) * torch.exp(-width)
        y = torch.sinh(tail.exp() * torch.arcsinh(scaled) - asymmetry)
        out = out + (0.5 * torch.log1p(y**2) + tail - 0.5 * torch.log1p(scaled**2) - width).sum(dim=1)
        x = y.flip(1)
    return out - 0.5 * (x**2).sum(dim=1)


def _terms(x: Float[Tensor, "n k m"]) -> Float[Tensor, "n terms m"]:
    """Compute polynomials of second degree in the bent coordinates, in the order in which coordinates come."""
    bent = BEND * torch.tanh(x / BEND)
    parts = [torch.ones_like(x[:, :1])]
    for i in range(x.shape[1]):
        parts += [bent[:, i : i + 1], bent[:, : i + 1] * bent[:, i : i + 1]]
    return torch.cat(parts, dim=1)


def train_proposal(pairs: Pairs, epochs: int = _EPOCHS) -> ProposalNetwork:
    """Learn the density of draws about the mode, given the context.

    Parameters
    ----------
    pairs : Pairs
    epochs : int
        Times each pair is shown.

    Returns
    -------
    ProposalNetwork
        With averaged weights, ready for use.
    """
    context, draws = torch.as_tensor(pairs.context), torch.as_tensor(pairs.draws)
    n, dim = len(draws), draws.shape[2]
    generator = torch.Generator().manual_seed(_SEED)
    with torch.random.fork_rng():
        torch.manual_seed(_SEED)
        network = ProposalNetwork(context, dim)
        average = torch.optim.swa_utils.AveragedModel(
            network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.998)
        )
        optimiser = torch.optim.AdamW(network.parameters(), weight_decay=_DECAY)
        batch = min(_BATCH, n)
        steps = epochs * (n // batch)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, _RATE, steps)
        for _ in range(epochs):
            for some in torch.randperm(n, generator=generator).split(batch)[: n // batch]:
                found = log_density(network(context[some]), draws[some]).clamp(min=_WORST)
                loss = -_TRUTH * found[:, 0].mean() - (1.0 - _TRUTH) * found[:, 1:].mean()
                optimiser.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(network.parameters(), 1.0)
                optimiser.step()
                schedule.step()
                average.update_parameters(network)
    network.load_state_dict(average.module.state_dict())
    return network.eval()


if __name__ == "__main__":
    add_proposal(Path(sys.argv[1]))
