"""Observing drawn sources on the model grid: an instrument state for each, a background, and Poisson counts."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from array_api_compat import array_namespace, device
from jaxtyping import Float
from scipy.special import ndtr

from xlatent.core.grid import ModelGrid, reference_response_moments
from xlatent.core.spectrum import Response
from xlatent.simulate import acis, continuum
from xlatent.simulate.plasma import plasma

# Particle background of the chips, as measured with ACIS stowed and tabulated in soxs 2.3 (acisi_particle_bkgnd,
# aciss_particle_bkgnd), read off by hand: continuum per keV at these energies, and lines of the instrument (Al K, Si K,
# Au M, Ni K; Bartalucci et al. 2014, A&A 566, A25), keV and strength in units of the continuum times keV.
# fmt: off
_PARTICLES = {
    "FI": (([0.4, 0.5, 0.8, 1.4, 1.9, 2.5, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0],
            [0.422, 0.397, 0.381, 0.394, 0.390, 0.372, 0.355, 0.332, 0.323, 0.322, 0.323, 0.330]),
           ((1.487, 0.020), (2.14, 0.098), (7.48, 0.188))),
    "BI": (([0.4, 0.6, 0.8, 1.0, 1.3, 1.5, 1.9, 2.3, 2.6, 3.0, 4.0, 5.0, 6.0, 6.4, 6.7, 7.0, 7.4, 7.7, 8.0],
            [1.547, 1.436, 1.337, 1.248, 1.133, 1.068, 1.009, 0.916, 0.834, 0.788, 0.732, 0.731, 0.762, 0.780, 0.939,
             1.155, 1.500, 1.848, 2.304]),
           ((1.487, 0.016), (1.74, 0.340), (2.12, 0.237), (7.48, 0.142))),
}
# fmt: on
_LINE_WIDTH = 0.06  # keV, standard deviation as ACIS sees a line
# Channels may be wider than detector bins, from a bin's width to 300 eV: in training in this share of redistributions.
_WIDE_SHARE, _WIDE = 0.2, (0.03, 0.3)


@dataclass(frozen=True)
class SimulatedObservations:
    """``n`` sources as seen by ``n`` instrument states; arrays are ``[n, n_chan]`` unless said otherwise.

    ``source`` and ``background`` are expected counts, ``counts`` and ``background_counts`` the drawn ones (the latter
    already scaled to the source region), ``scale`` [n] the background scale, ``reference_counts`` and ``energy_spread``
    the state's `grid.reference_response_moments`. ``area`` [n, n_energy] (cm²) and ``matrix``
    [groups, n_energy, n_chan] fold any spectrum the same way.
    """

    counts: Any
    background_counts: Any
    source: Any
    background: Any
    scale: Any
    reference_counts: Any
    energy_spread: Any
    area: Any
    matrix: Any

    @property
    def encoder_inputs(self) -> tuple[Any, ...]:
        """What an encoder is shown: counts, background, reference counts, energy spread and background scale."""
        return self.counts, self.background_counts, self.reference_counts, self.energy_spread, self.scale

    def fold(self, photons: Any) -> Any:
        """Fold photons per bin ``[n, n_energy]`` through each view's own response."""
        return _fold(photons * self.area, self.matrix)


def _fold(photons: Any, matrix: Any) -> Any:
    groups = matrix.shape[0]
    grouped = photons.reshape((groups, photons.shape[0] // groups, photons.shape[1]))
    return (grouped @ matrix).reshape((photons.shape[0], matrix.shape[2]))


class Observatory:
    """ACIS states of every epoch, chip and off-axis angle, and what they make of photon spectra on a grid.

    Parameters
    ----------
    grid : ModelGrid
    energy : array [n_energy + 1]
        ``grid.energy`` in the array library, precision and device in which to compute.
    wide_share : float
        Share of redistributions whose channels are wider than the grid's bins, up to 300 eV.
    """

    def __init__(self, grid: ModelGrid, energy: Any, wide_share: float = _WIDE_SHARE) -> None:
        self.grid, self.energy, self.wide_share = grid, energy, wide_share
        # Dates and widths of the redistribution are paired at random, once and for all.
        rng, n = np.random.default_rng(14102), 12
        dates = np.linspace(1999.6, 2026.0, n)
        widths: dict[acis.Chip, np.ndarray] = {
            "FI": rng.permutation(np.linspace(0.65, 1.25, n)),
            "BI": rng.permutation(np.linspace(0.85, 1.3, n)),
        }
        self.chips = np.repeat(list(widths), n)
        bank = np.stack(
            [_redistribution(grid, chip, *state) for chip in widths for state in zip(dates, widths[chip], strict=True)]
        )
        self.bank = self._to(bank)
        self.log_energy = self._to(np.log(grid.energy_mid))
        self.reference = self._to(grid.reference)
        mid = 0.5 * (energy[1:] + energy[:-1])
        self._sky = continuum.powerlaw(energy, 1.4), _unit(plasma(energy, 0.2, 1.0))
        self._particles = self._to(particle_background(grid.chan))
        self._tilt = self._to(np.stack([np.log(grid.energy_mid), np.exp(-0.5 * ((grid.energy_mid - 0.6) / 0.25) ** 2)]))
        self._array = array_namespace(mid)

    def observe(
        self, rng: np.random.Generator, photons: Any, counts: Float[np.ndarray, " n"], groups: int = 8
    ) -> SimulatedObservations:
        """See each source once.

        Parameters
        ----------
        rng : numpy.random.Generator
        photons : array [n, n_energy]
            Photons per bin, from `population.spectra`; n a multiple of ``groups``.
        counts : array [n]
            Expected source counts on the detector grid.
        groups : int
            Number of redistribution matrices in this batch; areas are drawn afresh for every source.

        Returns
        -------
        SimulatedObservations
        """
        xp, n = self._array, photons.shape[0]
        chosen = rng.integers(len(self.chips), size=groups)
        together = self._sum_channels(rng, groups)
        matrix = self.bank[xp.asarray(chosen, device=device(self.energy))] @ together
        area = self._areas(rng, self.chips[np.repeat(chosen, n // groups)])
        source = _fold(photons * area, matrix)
        source = source / xp.sum(source, axis=1, keepdims=True) * self._to(counts)[:, None]
        unit, spread = reference_response_moments(
            (self.reference * area).reshape((groups, n // groups, -1)), matrix, self.log_energy
        )
        unit, spread = unit.reshape(source.shape), spread.reshape(source.shape)

        background = self._background(rng, photons, area, matrix, together, counts)
        scale = np.where(rng.random(n) < 0.2, 0.0, 10 ** rng.uniform(-2.5, 0.0, n))
        background = background * self._to(scale > 0)[:, None]
        drawn = rng.poisson(self._host(source + background))
        off = rng.poisson(self._host(background) / np.maximum(scale, 1e-9)[:, None]) * scale[:, None]
        return SimulatedObservations(
            self._to(drawn), self._to(off), source, background, self._to(scale), unit, spread, area, matrix
        )

    def _sum_channels(self, rng: np.random.Generator, groups: int) -> Any:
        """Draw channel widths, as matrices [groups, n_chan, n_chan] that sum the bins of a channel.

        Whole channels are assigned to bins (`ModelGrid.channel_bins`): of wide ones some bins hold all, others nothing.
        """
        edges, n = self.grid.chan, self.grid.n_chan
        middle = 0.5 * (edges[1:] + edges[:-1])
        together = np.zeros((groups, n, n))
        for one in together:
            target = np.arange(n)
            if rng.random() < self.wide_share:
                width = np.exp(rng.uniform(*np.log(_WIDE)))
                begin = edges[0] - rng.random() * width
                channel = np.floor((middle - begin) / width)
                centre = (begin + (channel + 0.5) * width).clip(middle[0], middle[-1])
                target = np.searchsorted(edges, centre, side="right") - 1
            one[np.arange(n), target] = 1.0
        return self._to(together)

    def _areas(self, rng: np.random.Generator, chips: np.ndarray) -> Any:
        """Draw effective areas, each with its own epoch, angle, contaminant and calibration error."""
        n, energy = len(chips), self.grid.energy_mid
        area = np.empty((n, self.grid.n_energy))
        theta = np.where(rng.random(n) < 0.5, rng.uniform(0.0, 3.0, n), rng.uniform(0.0, 14.0, n))
        years, excess = rng.uniform(1999.6, 2026.9, n), rng.normal(0.0, 0.2, n)
        for chip in ("FI", "BI"):
            rows = np.flatnonzero(chips == chip)
            if len(rows):
                known = acis.effective_area(energy, chip=chip, year=years[rows], theta=theta[rows])
                depth = acis.contamination_depth(energy, chip=chip, year=years[rows])
                area[rows] = known * np.exp(-excess[rows, None] * depth)
        # Calibration is known to some per cent; a grating, a chip edge or an odd aperture changes the slope far more.
        odd = rng.random(n) < 0.1
        error = rng.normal(0.0, [0.06, 0.08], (n, 2)) + odd[:, None] * rng.normal(0.0, [0.5, 0.3], (n, 2))
        return self._to(area) * self._array.exp(self._to(error) @ self._tilt) + 1e-3

    def _background(
        self, rng: np.random.Generator, photons: Any, area: Any, matrix: Any, together: Any, counts: np.ndarray
    ) -> Any:
        """Expected background counts: particles, sky, and in some cases light of another source."""
        n = len(counts)
        weights = rng.dirichlet(np.full(len(self._particles) + 3, 0.6), n)
        weights[:, -1] *= rng.random(n) < 0.3
        sky, galaxy = (_unit(_fold(s * area, matrix)) for s in self._sky)
        other = _unit(_fold(self._array.roll(photons, 1, axis=0) * area, matrix))
        w = self._to(weights)
        particles = _fold(w[:, :-3] @ self._particles, together)
        shape = particles + w[:, -3:-2] * sky + w[:, -2:-1] * galaxy + w[:, -1:] * other
        ratio = 10 ** np.where(rng.random(n) < 0.6, rng.uniform(-3.0, -0.5, n), rng.uniform(-0.5, 1.0, n))
        return _unit(shape) * self._to(np.minimum(counts * ratio, 2e5))[:, None] + 1e-7

    def _to(self, values: np.ndarray) -> Any:
        xp = array_namespace(self.energy)
        return xp.asarray(values, dtype=self.energy.dtype, device=device(self.energy))

    @staticmethod
    def _host(values: Any) -> np.ndarray:
        return np.asarray(values.cpu() if hasattr(values, "cpu") else values, dtype=np.float64)


def _unit(values: Any) -> Any:
    return values / values.sum(axis=-1, keepdims=True)


def _redistribution(
    grid: ModelGrid, chip: acis.Chip, year: float, width: float
) -> Float[np.ndarray, "n_energy n_chan"]:
    """Compute a state's redistribution with unit area on the grid."""
    native = acis.response(chip, year, width=width)
    flat = Response(
        native.energy_lo,
        native.energy_hi,
        np.ones_like(native.area),
        native.redistribution,
        native.chan_lo,
        native.chan_hi,
    )
    return grid.project(flat)


def particle_background(edges: Float[np.ndarray, " n_edges"]) -> Float[np.ndarray, "n_shapes n_chan"]:
    """Compute shapes that the particle background is mixed from, each of sum one.

    Front-illuminated and back-illuminated chips of ACIS as measured, and flat, rising to either side, and lines alone,
    for what other detectors, protons and times make of it.

    Parameters
    ----------
    edges : array [n_chan + 1]
        Edges of detector bins or channels in keV.

    Examples
    --------
    >>> particle_background(np.linspace(0.5, 8.0, 100)).sum(axis=1).round(6).tolist()
    [1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    """
    mid, width = 0.5 * (edges[1:] + edges[:-1]), np.diff(edges)
    measured, lines = [], 0.0 * mid
    for (energy, continuum_per_kev), strengths in _PARTICLES.values():
        bumps = [w * np.diff(ndtr((edges - e) / _LINE_WIDTH)) for e, w in strengths]
        measured.append(np.interp(mid, energy, continuum_per_kev) * width + sum(bumps))
        lines = lines + sum(bumps) / np.sum(bumps)
    return _unit(np.stack([*measured, width, width * mid**1.5, width / mid, lines]))
