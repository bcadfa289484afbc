"""Simulated spectra with known truth, on the model grid, through ACIS states that training never draws."""

from dataclasses import dataclass

import numpy as np
import scipy.sparse
from jaxtyping import Float, Int

from xlatent.core.bands import FLUX_BANDS, column_suffix, energy_flux, hardness_ratios
from xlatent.core.grid import ModelGrid
from xlatent.core.spectrum import Response, Spectrum
from xlatent.simulate import acis, continuum, population
from xlatent.simulate.observe import particle_background

EXPOSURE = 3e4  # s; counts are what is chosen, so that this only sets the scale of the fluxes


@dataclass(frozen=True)
class TestSet:
    """``n`` simulated spectra and what is known of them.

    ``rows`` are the sources' parameters (`population.draw`); ``photons`` [n, n_energy] their photons cm⁻² s⁻¹ per bin;
    ``source`` and ``background`` [n, n_chan] the expected counts on the detector grid; ``counts`` [n] the expected
    source counts; ``state`` [n] the index of the response.
    """

    spectra: list[Spectrum]
    rows: population.Parameters
    photons: Float[np.ndarray, "n n_energy"]
    source: Float[np.ndarray, "n n_chan"]
    background: Float[np.ndarray, "n n_chan"]
    counts: Float[np.ndarray, " n"]
    state: Int[np.ndarray, " n"]

    def truth(self, grid: ModelGrid) -> dict[str, Float[np.ndarray, " n"]]:
        """Return true band fluxes and hardness ratios by the names of a latent table's columns."""
        known = {f"flux_{column_suffix(band)}": energy_flux(self.photons, grid.energy, band) for band in FLUX_BANDS}
        return known | hardness_ratios(self.photons, grid.energy)


def response(grid: ModelGrid, chip: acis.Chip, year: float, theta: float, width: float = 1.0) -> Response:
    """ACIS response of one state, exactly projected on to the model grid."""
    native = acis.response(chip, year, theta, width=width)
    matrix = grid.project(native)
    area = matrix.sum(axis=1)
    share = matrix / np.maximum(area, 1e-12)[:, None]
    return Response(
        grid.energy[:-1], grid.energy[1:], area, scipy.sparse.csr_array(share), grid.chan[:-1], grid.chan[1:],
        meta={"telescope": "CHANDRA", "instrument": "ACIS", "chip": chip, "year": year, "theta": theta},
    )  # fmt: skip


def unseen_responses(grid: ModelGrid, n: int = 16) -> list[Response]:
    """States of both kinds of chip between 2000 and 2026, on and off axis, none of them ever drawn in training."""
    rng = np.random.default_rng(77)
    years = np.linspace(2000.37, 2025.71, n)
    angles, widths = rng.uniform(0.0, 10.0, n), rng.uniform(0.9, 1.15, n)
    chips: list[acis.Chip] = ["FI", "BI"]
    return [response(grid, chips[i % 2], years[i], angles[i], widths[i]) for i in range(n)]


def observe(
    grid: ModelGrid,
    rng: np.random.Generator,
    rows: population.Parameters,
    counts: Float[np.ndarray, " n"],
    responses: list[Response],
    state: Int[np.ndarray, " n"],
    photons: Float[np.ndarray, "n n_energy"] | None = None,
) -> TestSet:
    """Observe each source once, with ``counts`` expected, through the response that ``state`` names.

    Backgrounds are those of the training: none at all for a fifth of the spectra, else 0.001 to 10 times the source,
    measured in a region of up to 300 times the area. ``photons`` stand for the spectra of ``rows`` where given.
    """
    n = len(counts)
    shapes = population.spectra(grid.energy, rows) if photons is None else photons
    matrices = [r.area[:, None] * r.redistribution.toarray() * EXPOSURE for r in responses]
    folded = np.stack([shapes[i] @ matrices[state[i]] for i in range(n)])
    amplitude = counts / folded.sum(axis=1)
    source = folded * amplitude[:, None]
    particles = particle_background(grid.chan)
    sky = np.stack([continuum.powerlaw(grid.energy, 1.4) @ m for m in matrices])
    sky /= sky.sum(axis=1, keepdims=True)
    weights = rng.dirichlet(np.full(len(particles) + 1, 0.6), n)
    shape = weights[:, :-1] @ particles + weights[:, -1:] * sky[state]
    ratio = 10 ** np.where(rng.random(n) < 0.6, rng.uniform(-3.0, -0.5, n), rng.uniform(-0.5, 1.0, n))
    background = shape / shape.sum(axis=1, keepdims=True) * np.minimum(counts * ratio, 2e5)[:, None]
    scale = np.where(rng.random(n) < 0.2, 0.0, 10 ** rng.uniform(-2.5, 0.0, n))
    background *= (scale > 0)[:, None]
    drawn = rng.poisson(source + background).astype(float)
    off = rng.poisson(background / np.maximum(scale, 1e-9)[:, None]).astype(float)
    spectra = [
        Spectrum(
            counts=drawn[i],
            exposure=EXPOSURE,
            backscale=1.0,
            background=Spectrum(off[i], EXPOSURE, backscale=1.0 / scale[i]) if scale[i] > 0 else None,
            response=responses[state[i]],
            meta={"name": f"sim{i}"},
        )
        for i in range(n)
    ]
    return TestSet(spectra, rows, shapes * amplitude[:, None], source, background, counts, state)
