"""How large the errors of a model are that its fit statistics do not show."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from scipy.optimize import brentq

from xlatent.bands import FLUX_BANDS, column, energy_flux
from xlatent.infer.embed import LatentModel
from xlatent.spectrum import Spectrum

_SHARE = 0.6827  # of the truths that 68 % intervals should hold
_RANGE = (1e2, 1e9)  # counts; beyond, such errors are everything, or nothing


def model_error_counts(
    model: LatentModel, spectra: Sequence[Spectrum], photons: Float[np.ndarray, "n n_energy"]
) -> float | None:
    """Source counts N₀ of `xlatent.infer.refine.refine` that make intervals of band fluxes as wide as they should be.

    Widths grow by (1 + N/N₀)^¼. N₀ is where 68 % of the intervals, over all spectra and bands, hold the truth.

    Parameters
    ----------
    model : LatentModel
        Whose bundle says nothing of such errors yet.
    spectra : sequence of Spectrum
        Simulated and bright.
    photons : array [n, n_energy]
        Their true spectra, photons cm⁻² s⁻¹ per bin of the model's grid.

    Returns
    -------
    float or None
        None if intervals are wide enough as they are.
    """
    table = model.embed(spectra)
    pulls = []
    for band in FLUX_BANDS:
        name = f"flux_{column(band)}"
        truth = np.log(energy_flux(photons, model.grid.energy, band))
        low, middle, high = (np.log(np.asarray(table[f"{name}{end}"])) for end in ("_lolim", "", "_hilim"))
        pulls.append((truth - middle) / np.where(truth > middle, high - middle, middle - low))
    net = np.array([s.band_counts(model.grid.chan_lo, model.grid.chan_hi).net for s in spectra]).clip(1.0)

    def excess(log_counts: float) -> float:
        wider = (1.0 + net / np.exp(log_counts)) ** 0.25
        return float(np.mean(np.abs(pulls) < wider)) - _SHARE

    low, high = np.log(_RANGE)
    if excess(high) >= 0.0:
        return None
    return float(np.exp(brentq(excess, low, high))) if excess(low) > 0.0 else _RANGE[0]
