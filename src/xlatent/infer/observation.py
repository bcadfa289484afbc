"""From a Spectrum to what the network and the likelihood need, and the encoder's posterior of z."""

import weakref
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from xlatent.core.errors import ResponseError
from xlatent.core.grid import ModelGrid, reference_response_moments
from xlatent.core.spectrum import Response, Spectrum

# The background is averaged over as many channels as make its mean good to a tenth, but no more than the wider features
# of a detector's background span (35 channels are 500 eV of ACIS).
_ENOUGH_COUNTS, _MOST_CHANNELS = 100.0, 35.0


@dataclass(frozen=True, eq=False)
class Observation:
    """One spectrum ready for the model: native channels for the likelihood, detector bins for the encoder.

    Attributes
    ----------
    n_on, n_off : array [n_selected]
        Counts of source and background in the channels that overlap the detector grid's range; ``n_off`` is zero
        where there is no background.
    alpha : array [n_selected]
        Background scale of each channel; all zero without a background.
    mean_off : array [n_selected]
        ``n_off`` averaged over neighbouring channels: an estimate of its mean.
    averaged : float
        Number of channels in that average, 1 where the background has counts enough in each.
    area : array [n_energy, n_selected]
        Response from intrinsic bins to channels, cm²; one array for all spectra that share a response.
    on_grid : array [n_energy, n_chan]
        The same to detector bins.
    bins : array [n_selected]
        Detector bin of each channel, counted from 1; 0 outside the grid.
    exposure : float
        s.
    features : dict of arrays [n_chan] (``scale``: scalar)
        What the encoder takes.
    """

    n_on: Float[np.ndarray, " n_selected"]
    n_off: Float[np.ndarray, " n_selected"]
    alpha: Float[np.ndarray, " n_selected"]
    mean_off: Float[np.ndarray, " n_selected"]
    averaged: float
    area: Float32[np.ndarray, "n_energy n_selected"]
    on_grid: Float32[np.ndarray, "n_energy n_chan"]
    bins: Int[np.ndarray, " n_selected"]
    exposure: float
    features: dict[str, Any]

    @cached_property
    def matrix(self) -> Float[np.ndarray, "n_energy n_selected"]:
        """Counts for one photon cm⁻² s⁻¹ in an intrinsic bin: area times exposure, cm² s."""
        return self.area * np.float64(self.exposure)

    @property
    def has_background(self) -> bool:
        """Whether the statistic is W (with a background) or C."""
        return bool(np.any(self.alpha > 0))


class _Projection(NamedTuple):
    """A response on the grid, in cm², as the channels that count see it; bin 0 is for channels outside the grid."""

    area: Float32[np.ndarray, "n_energy n_selected"]
    on_grid: Float32[np.ndarray, "n_energy n_chan"]
    unit: Float[np.ndarray, " n_chan"]
    spread: Float[np.ndarray, " n_chan"]
    bins: Int[np.ndarray, " n_selected"]


# A field of the sky shares its responses, and the projection is most of the work; each is half a megabyte.
_MOST_PROJECTIONS = 512
_projections: WeakKeyDictionary[Response, dict[tuple, _Projection]] = WeakKeyDictionary()


def _project(
    grid: ModelGrid, response: Response, mask: Bool[np.ndarray, " n_chan_native"], areascale: np.ndarray
) -> _Projection:
    known = _projections.setdefault(response, {})
    if len(_projections) > _MOST_PROJECTIONS:
        del _projections[next(iter(_projections))]
    key = (grid, mask.tobytes(), areascale.tobytes())
    if key not in known:
        area, on_grid = _native(grid, response, mask)
        if np.any(areascale != 1.0):
            area = area * np.broadcast_to(areascale, len(mask))[mask]
            on_grid = grid.rebin(area, response, mask)
        unit, spread = reference_response_moments(grid.reference[None], on_grid, np.log(grid.energy_mid))
        bins = grid.channel_bins(response)[mask] + 1
        known[key] = _Projection(area.astype(np.float32), on_grid.astype(np.float32), unit[0], spread[0], bins)
    return known[key]


# Redistributions that many responses share: how many did so far or, from some on, their selected channels and behind
# these the detector bins as dense arrays, which take longer to make than a few responses save.
_MANY = 4
_shared: dict[tuple[ModelGrid, int, bytes], int | Float[np.ndarray, "n_energy_native n"]] = {}


def _native(
    grid: ModelGrid, response: Response, mask: Bool[np.ndarray, " n_chan_native"]
) -> tuple[Float[np.ndarray, "n_energy n_selected"], Float[np.ndarray, "n_energy n_chan"]]:
    """Area in native channels and in detector bins: each source of a field has its own, few matrices serve them all."""
    matrix = response.redistribution
    key = (grid, id(matrix), mask.tobytes())
    if key not in _shared:
        weakref.finalize(matrix, _shared.pop, key, None)
    both = _shared.get(key, 0)
    if isinstance(both, int):
        _shared[key] = both + 1
        if both < _MANY:
            area = grid.native_response(response, mask)
            return area, grid.rebin(area, response, mask)
        dense = matrix[:, np.flatnonzero(mask)].toarray()
        both = _shared[key] = np.hstack([dense, grid.rebin(dense, response, mask)])
    found = grid.overlap(response) @ both
    return found[:, : -grid.n_chan], found[:, -grid.n_chan :]


def prepare(spectrum: Spectrum, grid: ModelGrid) -> Observation:
    """Project a spectrum and its response on to the grid.

    Raises
    ------
    ResponseError
        If the spectrum has no response, or the response sees nothing of the grid's range.
    """
    if spectrum.response is None:
        raise ResponseError(
            f"{spectrum.meta.get('file', spectrum.name)} has no response: expected an RMF and an ARF named in the "
            "header or given; give them with --arf and --rmf"
        )
    mask = spectrum.select(grid.chan_lo, grid.chan_hi)
    on = spectrum.counts[mask]
    off = spectrum.background.counts[mask] if spectrum.background is not None else np.zeros(len(on))
    scale = spectrum.background_scale
    alpha = np.full(len(on), scale) if isinstance(scale, float) else scale[mask]
    seen = _project(grid, spectrum.response, mask, np.asarray(spectrum.areascale, dtype=np.float64))
    if not seen.unit.any():
        raise ResponseError(
            f"{spectrum.meta.get('file', spectrum.name)}: the response has no effective area in "
            f"{grid.chan_lo:g}-{grid.chan_hi:g} keV; check that ARF and RMF belong to this spectrum"
        )
    features = {
        "counts": np.bincount(seen.bins, on, grid.n_chan + 1)[1:],
        "background": np.bincount(seen.bins, alpha * off, grid.n_chan + 1)[1:],
        "unit": seen.unit * spectrum.exposure,
        "spread": seen.spread,
        "scale": float(alpha.mean()),
    }
    averaged = min(max(_ENOUGH_COUNTS / max(float(off.mean()), 1e-9), 1.0), _MOST_CHANNELS)
    mean_off = _smoothed(off, averaged) if averaged > 1 else off
    return Observation(
        on, off, alpha, mean_off, averaged, seen.area, seen.on_grid, seen.bins, float(spectrum.exposure), features
    )


def _smoothed(counts: Float[np.ndarray, " n"], averaged: float) -> Float[np.ndarray, " n"]:
    """Counts averaged over as many channels by a Gaussian, as if those at the ends went on."""
    weights = _gaussian(averaged)
    ends = len(weights) // 2
    longer = np.concatenate([counts[:1].repeat(ends), counts, counts[-1:].repeat(ends)])
    return np.correlate(longer, weights, mode="valid")  # the weights are even


@lru_cache(maxsize=64)
def _gaussian(averaged: float) -> Float[np.ndarray, " n"]:
    """Weights that average over as many channels: of standard deviation s over 2 sqrt(pi) s, out to 4 s."""
    sigma = averaged / (2.0 * np.sqrt(np.pi))
    reach = int(4.0 * sigma + 0.5)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    return weights / weights.sum()


def encode(
    session: Any, observations: list[Observation], beta: float = 1.0
) -> tuple[Float[np.ndarray, "n latents"], Float[np.ndarray, "n latents latents"]]:
    """Run the encoder: mean and covariance of z for each observation.

    Parameters
    ----------
    session : onnxruntime.InferenceSession
        Of ``encoder.onnx``.
    observations : list of Observation
    beta : float
        Weight that the divergence from the prior had in training.
    """
    wanted = [i.name for i in session.get_inputs()]  # a preset may leave some inputs out of its graph
    inputs = {name: np.stack([o.features[name] for o in observations]).astype(np.float32) for name in wanted}
    mean, factor = (np.asarray(x, dtype=np.float64) for x in session.run(["z_mean", "z_factor"], inputs))
    return undo_beta_weighting(mean, factor @ factor.transpose(0, 2, 1), beta)


def undo_beta_weighting(
    mean: Float[np.ndarray, "n latents"], covariance: Float[np.ndarray, "n latents latents"], beta: float
) -> tuple[Float[np.ndarray, "n latents"], Float[np.ndarray, "n latents latents"]]:
    """Posterior under the whole prior, from one learnt with the divergence weighted by ``beta``.

    With data of precision Λ, maximising the likelihood minus β times the divergence gives a Gaussian of precision
    Q = Λ/β + 1 and mean (Λ + β)⁻¹Λx where the posterior has P = Λ + 1 and (Λ + 1)⁻¹Λx. So P = 1 + β(Q - 1), and the
    mean becomes P⁻¹ βQ times the learnt one. At β < 1 learnt errors are too small, by sqrt(β) where data dominate.
    The robust weight that training gives to spectra the decoder misfits is left out.

    Parameters
    ----------
    mean, covariance : arrays [n, latents], [n, latents, latents]
    beta : float

    Returns
    -------
    mean, covariance : arrays
    """
    if beta == 1.0:
        return mean, covariance
    learnt = np.linalg.inv(covariance)
    unit = np.eye(mean.shape[1])
    corrected = np.linalg.inv(unit + beta * (learnt - unit))
    return np.einsum("nij,njk,nk->ni", corrected, beta * learnt, mean), corrected
