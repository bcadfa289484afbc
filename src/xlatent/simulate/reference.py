"""Bright simulated spectra on the model grid, always the same ones, to compare models by and to calibrate them.

Channels are as narrow as ACIS has them: models up to version 5 know no wider ones.
"""

import numpy as np
import scipy.sparse
from jaxtyping import Float

from xlatent.core.grid import ModelGrid
from xlatent.core.spectrum import Response, Spectrum
from xlatent.simulate import population
from xlatent.simulate.observe import Observatory

_SEED = 1729
_GROUPS = 8  # that share a redistribution
_EXPOSURE = 1e4  # s; counts are what is chosen, so that this only sets the scale of the fluxes


def reference_spectra(
    grid: ModelGrid, n: int, log_counts: tuple[float, float] = (3.0, 5.0)
) -> tuple[list[Spectrum], Float[np.ndarray, "n n_energy"]]:
    """Simulate bright sources of the training population.

    Parameters
    ----------
    grid : ModelGrid
        Energies of the responses are its energies, channels its detector bins.
    n : int
        Number of spectra, a multiple of 8.
    log_counts : tuple of float
        Decimal logarithms of the least and the most source counts, between which they are even.

    Returns
    -------
    spectra : list of Spectrum
        With background, where there is one, and response.
    photons : array [n, n_energy]
        The true spectra, photons cm⁻² s⁻¹ per bin.
    """
    rng = np.random.default_rng(_SEED)
    photons = population.spectra(grid.energy, population.draw(rng, n))
    counts = 10.0 ** rng.uniform(*log_counts, n)
    views = Observatory(grid, grid.energy, wide_share=0.0).observe(rng, photons, counts, _GROUPS)
    redistributions = [scipy.sparse.csr_array(matrix) for matrix in views.matrix]
    spectra = []
    for i in range(n):
        response = Response(
            grid.energy[:-1], grid.energy[1:], views.area[i], redistributions[i // (n // _GROUPS)],
            grid.chan[:-1], grid.chan[1:], meta={"telescope": "CHANDRA", "instrument": "ACIS"},
        )  # fmt: skip
        background, scale = None, float(views.scale[i])
        if scale > 0:
            background = Spectrum(np.round(views.background_counts[i] / scale), _EXPOSURE, backscale=1.0 / scale)
        meta = {"name": f"reference{i}"}
        spectra.append(
            Spectrum(views.counts[i], _EXPOSURE, backscale=1.0, background=background, response=response, meta=meta)
        )
    amplitude = counts / views.fold(photons).sum(axis=1) / _EXPOSURE
    return spectra, photons * amplitude[:, None]
