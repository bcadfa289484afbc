"""From a Spectrum to what the network and the likelihood need, and the encoder's posterior of z."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Int

from xlatent.core.errors import ResponseError
from xlatent.core.projection import Projector, background_mean
from xlatent.core.spectrum import Spectrum


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


def prepare(spectrum: Spectrum, projector: Projector) -> Observation:
    """Project a spectrum and its response on to the grid.

    Parameters
    ----------
    spectrum : Spectrum
    projector : Projector
        To the grid of the model; `LatentModel.projector`.

    Raises
    ------
    ResponseError
        If the spectrum has no response, or the response sees nothing of the grid's range.
    """
    if spectrum.response is None:
        raise ResponseError(
            f"{spectrum.meta.get('file', spectrum.name) or 'the spectrum'} has no response: expected an RMF and an ARF "
            "named in the header or given; give them with --arf and --rmf"
        )
    grid = projector.grid
    mask = spectrum.select(grid.chan_lo, grid.chan_hi)
    on = spectrum.counts[mask]
    off = spectrum.background.counts[mask] if spectrum.background is not None else np.zeros(len(on))
    scale = spectrum.background_scale
    alpha = np.full(len(on), scale) if isinstance(scale, float) else scale[mask]
    areascale = np.asarray(spectrum.areascale, dtype=np.float64)
    seen, area = projector.project_native(spectrum.response, mask, areascale)
    if not seen.unit.any():
        raise ResponseError(
            f"{spectrum.meta.get('file', spectrum.name)}: the response has no effective area in "
            f"{grid.chan_lo:g}-{grid.chan_hi:g} keV; check that ARF and RMF belong to this spectrum"
        )
    features = {
        "counts": seen.rebin(on),
        "background": seen.rebin(alpha * off),
        "unit": seen.unit * spectrum.exposure,
        "spread": seen.spread,
        "scale": float(alpha.mean()),
    }
    mean_off, averaged = background_mean(off)
    return Observation(
        on, off, alpha, mean_off, averaged, area, seen.on_grid, seen.bins, float(spectrum.exposure), features
    )


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
    """Correct a posterior for the whole prior, where it was learnt with the divergence weighted by ``beta``.

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
