"""The autoencoder: a transformer from detector bins to a Gaussian over z, and a decoder from z to a photon spectrum."""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor, nn

from xlatent.core.grid import ModelGrid
from xlatent.model.preset import Preset


class Encoder(nn.Module):
    """Counts, background and instrument on the detector grid to mean and Cholesky factor of the posterior of z.

    All preprocessing is in here, so that it travels with the weights into the exported graph.

    Inputs of `forward`, all on the detector grid: ``counts``; ``background``, expected in those counts; ``unit``, the
    folded reference spectrum (any norm: how sensitive each bin is); ``spread``, the standard deviation in ln E of the
    photons that land in each bin (how sharp the instrument is); and ``scale``, the background scale per spectrum.
    """

    below: Tensor

    def __init__(self, preset: Preset, grid: ModelGrid) -> None:
        super().__init__()
        net = preset.network
        self.flux_like = preset.inputs == "flux"
        self.deterministic = preset.loss == "mse"
        self.latents = net.latents
        self.patch = net.patch
        n_tokens = grid.n_chan // net.patch
        features = 1 if self.flux_like else 7
        self.embed = nn.Sequential(
            nn.Linear(net.patch * features, 2 * net.width), nn.GELU(), nn.Linear(2 * net.width, net.width)
        )
        self.position = nn.Parameter(0.02 * torch.randn(n_tokens, net.width))
        self.whole = nn.Linear(1 if self.flux_like else 3, net.width)  # the class token: what concerns all bins
        layer = nn.TransformerEncoderLayer(
            net.width, net.heads, 4 * net.width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, net.layers, norm=nn.LayerNorm(net.width), enable_nested_tensor=False)
        rows, columns = torch.tril_indices(net.latents, net.latents, -1)
        self.register_buffer("below", _scatter(rows * net.latents + columns, net.latents**2))
        self.head = nn.Linear(2 * net.width, 2 * net.latents + len(rows))
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)

    def forward(
        self,
        counts: Float[Tensor, "batch chan"],
        background: Float[Tensor, "batch chan"],
        unit: Float[Tensor, "batch chan"],
        spread: Float[Tensor, "batch chan"],
        scale: Float[Tensor, " batch"],
    ) -> tuple[Float[Tensor, "batch latents"], Float[Tensor, "batch latents latents"]]:
        """Return mean of z and lower Cholesky factor of its covariance."""
        bins, whole = self.features(counts, background, unit, spread, scale)
        batch = counts.shape[0]
        patches = bins.reshape(batch, -1, self.patch * bins.shape[-1])
        tokens = torch.cat([self.whole(whole)[:, None], self.embed(patches) + self.position], dim=1)
        out = self.layers(tokens)
        out = self.head(torch.cat([out[:, 0], out[:, 1:].mean(dim=1)], dim=1))
        k = self.latents
        mean, log_diagonal, lower = out[:, :k], out[:, k : 2 * k], out[:, 2 * k :]
        if self.deterministic:
            log_diagonal, lower = 0.0 * log_diagonal - 6.0, 0.0 * lower
        # Matrix products instead of indexed writes: they export cleanly.
        factor = (lower @ self.below).reshape(batch, k, k) + torch.exp(log_diagonal.clamp(-7.0, 1.0))[
            :, :, None
        ] * torch.eye(k, dtype=out.dtype, device=out.device)
        return mean, factor

    def features(
        self, counts: Tensor, background: Tensor, unit: Tensor, spread: Tensor, scale: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return what tokens are made of: per bin ``[batch, chan, k]`` and for the whole spectrum ``[batch, m]``."""
        unit = unit / (unit.sum(dim=1, keepdim=True) + 1e-30)
        if self.flux_like:
            flux = (counts - background) / (unit + 1e-4)
            flux = flux / (flux.clamp(min=0.0).sum(dim=1, keepdim=True) + 1e-6) * flux.shape[1]
            return flux[:, :, None].clamp(-30.0, 30.0), torch.ones_like(scale)[:, None]
        net = (counts - background).sum(dim=1, keepdim=True).clamp(min=1.0)
        expected = net * unit  # what the reference spectrum would give
        sensitivity = torch.log(unit * unit.shape[1] + 1e-3)
        ratio = torch.log((counts + 0.5) / (expected + background + 0.5))
        pull = (counts - background - expected) / torch.sqrt(counts + expected + background + 1.0)
        bins = torch.stack(
            [
                torch.log1p(counts) - 2.0,
                torch.log1p(background) - 1.0,
                torch.log1p(expected) - 2.0,
                sensitivity,
                ratio,
                torch.asinh(pull),
                20.0 * spread - 1.0,
            ],
            dim=2,
        )
        whole = torch.stack(
            [torch.log(net[:, 0]) - 6.0, torch.log1p(background.sum(dim=1)) - 3.0, torch.log(scale + 1e-3) + 3.0], dim=1
        )
        return bins, 0.5 * whole


def _scatter(places: Tensor, length: int) -> Tensor:
    matrix = torch.zeros(len(places), length)
    matrix[torch.arange(len(places)), places] = 1.0
    return matrix


def _small(width: int) -> nn.Linear:
    """Layer that closes a residual block: small at first, so that the blocks begin near the identity."""
    layer = nn.Linear(width, width)
    nn.init.normal_(layer.weight, std=0.3 / width**0.5)
    return layer


class Decoder(nn.Module):
    """z to the logarithm of the photon spectrum on the intrinsic grid, normalised to one photon in 0.5-8 keV.

    Residual blocks of SiLU units without normalisation layers, so that the Jacobian in z is a second pass of the same
    matrices: refinement then needs neither automatic nor finite differences.
    """

    reference: Tensor
    band: Tensor

    def __init__(self, preset: Preset, grid: ModelGrid) -> None:
        super().__init__()
        net = preset.network
        self.latents = net.latents
        self.enter = nn.Linear(net.latents, net.decoder_width)
        self.widen = nn.ModuleList(nn.Linear(net.decoder_width, net.decoder_width) for _ in range(net.decoder_blocks))
        self.narrow = nn.ModuleList(_small(net.decoder_width) for _ in range(net.decoder_blocks))
        self.leave = nn.Linear(net.decoder_width, grid.n_energy)
        nn.init.normal_(self.leave.weight, std=0.02)
        mid = torch.as_tensor(grid.energy_mid, dtype=torch.float32)
        width = torch.as_tensor(grid.energy_width, dtype=torch.float32)
        self.register_buffer("reference", torch.log(width) - 1.7 * torch.log(mid))
        self.register_buffer("band", ((mid > 0.5) & (mid < 8.0)).to(torch.float32))

    def forward(self, z: Float[Tensor, "batch latents"]) -> Float[Tensor, "batch energy"]:
        """Return ln(photons per bin)."""
        return self.normalised(self.unbounded(z))

    def unbounded(self, z: Float[Tensor, "batch latents"]) -> Float[Tensor, "batch energy"]:
        """Return ln(photons per bin) of any norm, as the layers give it: beyond ±60 nothing of it is used."""
        h = self.enter(z)
        for widen, narrow in self._blocks():
            h = h + narrow(nn.functional.silu(widen(h)))
        return self.leave(h) + self.reference

    def with_slopes(
        self, z: Float[Tensor, "batch latents"], directions: Float[Tensor, "k latents"]
    ) -> tuple[Float[Tensor, "batch energy"], Float[Tensor, "batch energy k"]]:
        """Return ln(photons per bin) and its derivative along ``directions``: the unit matrix gives the Jacobian."""
        h = self.enter(z)
        tangent = (directions @ self.enter.weight.T)[None].expand(z.shape[0], -1, -1)  # [batch, k, width]
        for widen, narrow in self._blocks():
            a = widen(h)
            gate = torch.sigmoid(a)
            slope = gate * (1.0 + a * (1.0 - gate))
            h = h + narrow(a * gate)
            tangent = tangent + (slope[:, None] * (tangent @ widen.weight.T)) @ narrow.weight.T
        log_flux = self.normalised(self.leave(h) + self.reference)
        tangent = tangent @ self.leave.weight.T
        mean = (torch.exp(log_flux) * self.band)[:, None] * tangent
        return log_flux, (tangent - mean.sum(dim=2, keepdim=True)).transpose(1, 2)

    def _blocks(self) -> Iterator[tuple[nn.Linear, nn.Linear]]:
        yield from zip(self.widen, self.narrow, strict=True)

    def normalised(self, log_flux: Tensor) -> Tensor:
        """Bring ln(photons per bin) to one photon in 0.5-8 keV."""
        log_flux = log_flux.clamp(-60.0, 60.0)
        return log_flux - torch.log((torch.exp(log_flux) * self.band).sum(dim=1, keepdim=True))


class Autoencoder(nn.Module):
    """Encoder and decoder of one preset on one grid.

    Both work in the network's own frame, in which it is trained. ``axes`` [latents, latents] are the directions in it
    that a bundle's latents are measured along: the export finds them (`xlatent.model.axes`) and turns the graphs.
    """

    axes: Tensor

    def __init__(self, preset: Preset, grid: ModelGrid) -> None:
        super().__init__()
        self.encoder = Encoder(preset, grid)
        self.decoder = Decoder(preset, grid)
        self.register_buffer("axes", torch.eye(preset.network.latents))
