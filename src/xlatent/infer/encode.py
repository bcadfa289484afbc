"""From a Spectrum to what the network and the likelihood need, and the encoder's posterior of z."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.ndimage import gaussian_filter1d

from xlatent.errors import ResponseError
from xlatent.grid import ModelGrid, sensitivity
from xlatent.spectrum import Spectrum

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
    matrix : array [n_energy, n_selected]
        Counts for one photon cm⁻² s⁻¹ in an intrinsic bin: response times exposure, cm² s.
    features : dict of arrays [n_chan] (``scale``: scalar)
        What the encoder takes.
    """

    n_on: Float[np.ndarray, "n_selected"]
    n_off: Float[np.ndarray, "n_selected"]
    alpha: Float[np.ndarray, "n_selected"]
    mean_off: Float[np.ndarray, "n_selected"]
    averaged: float
    matrix: Float[np.ndarray, "n_energy n_selected"]
    features: dict[str, Any]

    @property
    def has_background(self) -> bool:
        """Whether the statistic is W (with a background) or C."""
        return bool(np.any(self.alpha > 0))


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
    response = spectrum.response
    mask = spectrum.select(grid.chan_lo, grid.chan_hi)
    n = len(spectrum.counts)
    time = np.broadcast_to(spectrum.exposure * np.asarray(spectrum.areascale), n)
    alpha = np.broadcast_to(np.asarray(spectrum.background_scale, dtype=np.float64), n)
    off = spectrum.background.counts if spectrum.background is not None else np.zeros(n)
    matrix = grid.native(response, mask) * time[mask]
    projected = matrix @ grid.gather(response, mask)
    unit, spread = sensitivity(grid.reference[None], projected, np.log(grid.energy_mid))
    if not unit.any():
        raise ResponseError(
            f"{spectrum.meta.get('file', spectrum.name)}: the response has no effective area in "
            f"{grid.chan_lo:g}-{grid.chan_hi:g} keV; check that ARF and RMF belong to this spectrum"
        )
    features = {
        "counts": grid.rebin_counts(spectrum.counts, response, mask),
        "background": grid.rebin_counts(alpha * off, response, mask),
        "unit": unit[0],
        "spread": spread[0],
        "scale": float(np.mean(alpha[mask])),
    }
    averaged = float(np.clip(_ENOUGH_COUNTS / max(off[mask].mean(), 1e-9), 1.0, _MOST_CHANNELS))
    # A Gaussian of standard deviation s averages over 2 sqrt(pi) s channels.
    mean_off = (
        gaussian_filter1d(off[mask], averaged / (2.0 * np.sqrt(np.pi)), mode="nearest") if averaged > 1 else off[mask]
    )
    return Observation(spectrum.counts[mask], off[mask], alpha[mask], mean_off, averaged, matrix, features)


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
    return untempered(mean, factor @ factor.transpose(0, 2, 1), beta)


def untempered(
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
