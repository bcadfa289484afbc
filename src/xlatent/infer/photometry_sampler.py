"""The posterior of z for one catalogue row: draws of the prior weighted by its fluxes or hardness ratios."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy.special import logsumexp, ndtri, stdtrit
from scipy.stats import qmc

from xlatent.core.bands import BANDS, HARDNESS_RATIOS, column_suffix, energy_flux, hardness, photon_flux
from xlatent.core.grid import ModelGrid
from xlatent.infer.importance import (
    DOF,
    StudentComponents,
    effective_number,
    normalised_weights,
    student_log_density,
    student_stretch,
    systematic_indices,
)
from xlatent.infer.refine import AMPLITUDE_WIDTH, Decoder

# What can be measured, by the names of `LatentTable`: the band and the integral over it. Narrow bands come first and
# photon fluxes before energy fluxes: of measurements that share photons only the first is used.
FLUXES: dict[str, tuple[str, Callable[..., Any]]] = {
    f"{prefix}_{column_suffix(band)}": (band, integral)
    for band in ("s", "m", "h", "0.5-2", "2-8", "b")
    for prefix, integral in (("photflux", photon_flux), ("flux", energy_flux))
}
RATIOS = tuple(HARDNESS_RATIOS)
PLACE = {name: i for i, name in enumerate(FLUXES)}

SIGNIFICANT = 3.0
"""Standard deviations from which on a flux is more than a limit."""

LEAST_ESS = 100.0
"""Effective draws that describe a posterior."""

LEAST_POWER = 0.015
"""To which weights of few draws are raised at the least."""

_SEED = 20251015
_FEW, _MANY = 2**13, 2**17  # draws of the prior in the small bank and in the large
_ENOUGH = 200.0  # effective draws that end the search
_FAR = 30.0  # χ² above the best beyond which a draw has no weight
_FAINTEST = 1e-20  # flux of a photon cm⁻² s⁻¹ in 0.5-8 keV below which a band is as good as dark
_SHARPEST = 1e10  # precision of z that rounding still allows
_TRIES, _COMPONENTS, _POINTS, _ROUNDS = 4, 16, 500, 5  # of the last resort, `PriorSampler._linearised`
_CHUNK = 256  # points to decode at a time


@dataclass(frozen=True, eq=False)
class Row:
    """The measurements that are used of one row: all fluxes, or all ratios, or none."""

    names: list[str]
    value: Float[np.ndarray, " k"]
    lower: Float[np.ndarray, " k"]
    upper: Float[np.ndarray, " k"]

    @property
    def of_fluxes(self) -> bool:
        """Whether these are fluxes, which know the amplitude."""
        return bool(self.names) and self.names[0] in FLUXES

    def chi2(self, predicted: Float[np.ndarray, "k m"]) -> Float[np.ndarray, " m"]:
        """Compare predictions with the measurements."""
        apart = predicted - self.value[:, None]
        with np.errstate(over="ignore"):  # what is beyond single precision has no weight
            return np.sum((apart / np.where(apart > 0, self.upper[:, None], self.lower[:, None])) ** 2, axis=0)

    def amplitude(self, fluxes: Float[np.ndarray, "k m"]) -> tuple[Float[np.ndarray, " m"], Float[np.ndarray, " m"]]:
        """Propose centre and width of ln(amplitude), from the fluxes at amplitude one."""
        error = 0.5 * (self.lower + self.upper)[:, None]
        scaled = fluxes / error
        information = np.sum(scaled**2, axis=0)
        sigma = 1.0 / np.sqrt(information)
        best = np.maximum(np.sum(scaled * self.value[:, None] / error, axis=0) / information, 0.0)
        centre = np.hypot(best, sigma)
        share = sigma / centre
        # Where the data only bound it from above, the amplitude is as free downwards as its prior.
        return np.log(centre), share * (1.0 + (AMPLITUDE_WIDTH - 1.0) * share**4)


@dataclass(frozen=True, eq=False)
class FluxPoints:
    """Points of z, and the decoder's `FLUXES` for one photon cm⁻² s⁻¹ in 0.5-8 keV."""

    z: Float[np.ndarray, "m latents"]
    fluxes: Float[np.ndarray, "n_fluxes m"]

    def quantity(
        self, name: str, members: slice | Int[np.ndarray, " kept"] = slice(None)
    ) -> Float[np.ndarray, " kept"]:
        """Take one of `FLUXES` or `RATIOS`."""
        if name in FLUXES:
            return self.fluxes[PLACE[name], members]
        hard, soft = (self.fluxes[PLACE[f"photflux_{band}"], members] for band in HARDNESS_RATIOS[name])
        return hardness(hard, soft)

    def of(
        self, names: Sequence[str], members: slice | Int[np.ndarray, " kept"] = slice(None)
    ) -> Float[np.ndarray, "k kept"]:
        """Take several of them."""
        if not names:
            return np.empty((0, len(self.z[members])))
        return np.array([self.quantity(name, members) for name in names])


@dataclass(frozen=True, eq=False)
class _Bank:
    """Draws of the prior, and a Student's t variate of each that places its amplitude, with its ln density."""

    points: FluxPoints
    steps: Float[np.ndarray, " m"]
    log_density: Float[np.ndarray, " m"]


@dataclass(frozen=True, eq=False)
class WeightedPoints:
    """Members of some points with normalised weights; ``chi2`` is the least of them, for one measurement."""

    points: FluxPoints
    members: Int[np.ndarray, " kept"]
    log_amplitude: Float[np.ndarray, " kept"]
    weights: Float[np.ndarray, " kept"]
    chi2: float

    @property
    def ess(self) -> float:
        """Effective number of draws."""
        return effective_number(self.weights)

    @property
    def quality(self) -> float:
        """Effective draws, as far as more are better, for a χ² that is small enough."""
        return min(self.ess, LEAST_ESS) / max(1.0, self.chi2)


class PriorSampler:
    """A decoder, its band fluxes, and the banks of prior draws; threads may share it.

    Parameters
    ----------
    decoder : Decoder
    grid : ModelGrid
    latents : int
    """

    def __init__(self, decoder: Decoder, grid: ModelGrid, latents: int) -> None:
        self._decoder, self._latents = decoder, latents
        unit = np.eye(len(grid.energy) - 1)
        self._integrals = np.stack([integral(unit, grid.energy, band) for band, integral in FLUXES.values()], axis=1)
        self._typical = self._decoded(np.zeros((1, latents)))
        self._banks: dict[int, _Bank] = {}
        self._orders: dict[tuple[str, ...], tuple[np.ndarray, np.ndarray]] = {}
        self._lock = Lock()

    def posterior(self, row: Row) -> WeightedPoints:
        """Weighted points: from the small bank if that is enough, the large one, or the linearised decoder."""
        best = self._weighted(row, self._bank(_FEW), slice(None))
        if best.ess >= _ENOUGH and best.chi2 <= 1.0:
            return best
        best = self._weighted(row, self._bank(_MANY), self._near(row, best.chi2))
        for _ in range(_TRIES):
            if best.quality >= LEAST_ESS:
                break
            found = self._linearised(row, best)
            if found.quality <= best.quality:
                break
            best = found
        return best

    def _bank(self, n: int) -> _Bank:
        """Bank of ``n`` draws, made when it is first asked for."""
        with self._lock:
            if n not in self._banks:
                self._banks[n] = self._drawn(n)
            return self._banks[n]

    def _drawn(self, n: int) -> _Bank:
        """Quasi-random draws of the prior, decoded; single precision is plenty and half the time."""
        uniform = qmc.Sobol(self._latents + 1, rng=_SEED).random(n)
        steps = stdtrit(DOF, uniform[:, -1])
        points = self._decoded(ndtri(uniform[:, :-1]))
        points = FluxPoints(points.z.astype(np.float32), points.fluxes.astype(np.float32))
        return _Bank(points, steps.astype(np.float32), student_log_density(steps**2, 1).astype(np.float32))

    def _decoded(self, z: Float[np.ndarray, "m latents"]) -> FluxPoints:
        chunks = range(0, len(z), _CHUNK)
        fluxes = [np.exp(self._decoder.log_flux(z[i : i + _CHUNK])) @ self._integrals for i in chunks]
        return FluxPoints(z, np.maximum(np.concatenate(fluxes).T, _FAINTEST))

    def _weighted(self, row: Row, bank: _Bank, members: slice | np.ndarray) -> WeightedPoints:
        """Weigh draws of the prior, each at an amplitude that the data want, a step off."""
        predicted, steps = bank.points.of(row.names, members), bank.steps[members]
        if row.of_fluxes:
            centre, width = row.amplitude(predicted)
            log_amplitude = centre + width * steps
            log_rest = self._amplitude_pull(row, log_amplitude) - bank.log_density[members] + np.log(width)
            predicted = predicted * np.exp(log_amplitude)
        else:
            log_amplitude, log_rest = np.full_like(steps, np.nan), np.zeros_like(steps)
        kept, weights, chi2 = _weights(row, row.chi2(predicted), log_rest)
        places = kept if isinstance(members, slice) else members[kept]
        return WeightedPoints(bank.points, places, log_amplitude[kept], weights, chi2)

    def _amplitude_pull(self, row: Row, log_amplitude: Float[np.ndarray, " m"]) -> Float[np.ndarray, " m"]:
        """Ln of the wide prior of the amplitude, centred where the spectrum at z = 0 meets the data."""
        centre = row.amplitude(self._typical.of(row.names))[0]
        return -0.5 * ((log_amplitude - centre) / AMPLITUDE_WIDTH) ** 2

    def _near(self, row: Row, chi2: float) -> Int[np.ndarray, " m"]:
        """Members of the large bank that can come within `_FAR` of a χ² already found, by the row's hardness alone."""
        points = self._bank(_MANY).points
        reach = np.sqrt(chi2 * len(row.names) + _FAR * max(1.0, chi2))
        lo, hi = row.value - reach * row.lower, row.value + reach * row.upper
        if row.of_fluxes:
            # Softest and hardest of the measurements, by the middle of their bands.
            ordered = sorted(range(len(row.names)), key=lambda k: sum(BANDS[FLUXES[row.names[k]][0]]))
            soft, hard = ordered[0], ordered[-1]
            names: tuple[str, ...] = (row.names[soft], row.names[hard])
            lo_ratio, hi_ratio = max(lo[hard], 0.0) / hi[soft], hi[hard] / lo[soft] if lo[soft] > 0 else np.inf
        else:
            names, lo_ratio, hi_ratio = (row.names[0],), lo[0], hi[0]
        if names not in self._orders:
            key = points.quantity(names[-1]) / (points.quantity(names[0]) if row.of_fluxes else 1.0)
            order = np.argsort(key)
            self._orders[names] = order, key[order]
        order, key = self._orders[names]
        return order[slice(*np.searchsorted(key, [lo_ratio, hi_ratio * (1.0 + 1e-9)]))]

    def _linearised(self, row: Row, start: WeightedPoints) -> WeightedPoints:
        """Draw from the posteriors that follow from linearising the decoder at points near the data."""
        rng = np.random.default_rng(_SEED)
        means, covariances = self._laplace(row, start)
        proposal = StudentComponents(means, np.linalg.cholesky(covariances))
        dim = means.shape[1]
        theta = np.empty((0, dim))
        parts = []
        for _ in range(_ROUNDS):
            stretch = student_stretch(rng, _POINTS)
            which = rng.integers(len(means), size=_POINTS)
            normal = stretch * rng.standard_normal((_POINTS, dim))
            theta = np.concatenate([theta, means[which] + np.einsum("mij,mj->mi", proposal.roots[which], normal)])
            parts.append(self._decoded(theta[-_POINTS:, : self._latents]))
            points = FluxPoints(theta[:, : self._latents], np.concatenate([part.fluxes for part in parts], axis=1))
            density = logsumexp(proposal.log_densities(theta)[0], axis=0)
            prior = -0.5 * np.sum(points.z**2, axis=1) - density
            predicted = points.of(row.names)
            log_amplitude = np.full(len(theta), np.nan)
            if row.of_fluxes:
                log_amplitude = theta[:, -1]
                prior = prior + self._amplitude_pull(row, log_amplitude)
                predicted = predicted * np.exp(log_amplitude)
            kept, weights, chi2 = _weights(row, row.chi2(predicted), prior)
            posterior = WeightedPoints(points, kept, log_amplitude[kept], weights, chi2)
            if posterior.ess >= LEAST_ESS:
                break
        return posterior

    def _laplace(
        self, row: Row, start: WeightedPoints
    ) -> tuple[Float[np.ndarray, "k dim"], Float[np.ndarray, "k dim dim"]]:
        """Mean and covariance of the posterior of z (and ln amplitude) of the decoder linearised at several points."""
        tempered = normalised_weights(np.log(start.weights), float(_COMPONENTS), LEAST_POWER)
        chosen = systematic_indices(tempered, _COMPONENTS)
        z = start.points.z[start.members[chosen]]
        log_flux, jacobian = (part.astype(np.float64) for part in self._decoder(z))
        photons = np.exp(log_flux)
        at = FluxPoints(z, np.maximum((photons @ self._integrals).T, _FAINTEST))
        slopes = np.einsum("me,mel,eq->qml", photons, jacobian, self._integrals) / at.fluxes[..., None]  # of ln flux
        error = 0.5 * (row.lower + row.upper)
        predicted = at.of(row.names)
        if row.of_fluxes:
            log_amplitude = start.log_amplitude[chosen]
            theta = np.column_stack([z, log_amplitude])
            precision = np.append(np.ones(self._latents), AMPLITUDE_WIDTH**-2)
            middle = np.append(np.zeros(self._latents), row.amplitude(self._typical.of(row.names))[0])
            predicted = predicted * np.exp(log_amplitude)
            slopes = slopes[[PLACE[name] for name in row.names]]
            slopes = np.concatenate([slopes, np.ones((*slopes.shape[:2], 1))], axis=2)
            # A well measured flux is nearly linear in its logarithm, a limit is not.
            well = (row.value > SIGNIFICANT * error)[:, None]
            safe = np.where(row.value > 0, row.value, 1.0)[:, None]
            apart = np.where(well, np.log(safe / predicted), row.value[:, None] - predicted)
            slopes = np.where(well[..., None], slopes, slopes * predicted[..., None])
            error = np.where(well, error[:, None] / safe, error[:, None])
        else:
            theta, precision, middle = z, np.ones(self._latents), np.zeros(self._latents)
            pairs = [[PLACE[f"photflux_{band}"] for band in HARDNESS_RATIOS[name]] for name in row.names]
            slopes = np.stack([slopes[hard] - slopes[soft] for hard, soft in pairs])
            slopes = slopes * 0.5 * (1.0 - predicted**2)[..., None]
            apart = row.value[:, None] - predicted
            error = np.broadcast_to(error[:, None], apart.shape)
        whitened = slopes / error[..., None]
        information = np.einsum("qmi,qmj->mij", whitened, whitened)
        values, vectors = np.linalg.eigh(information + np.diag(precision))
        covariance = (vectors / np.minimum(values, _SHARPEST)[:, None]) @ vectors.transpose(0, 2, 1)
        pull = np.einsum("qmi,qm->mi", whitened, apart / error) - precision * (theta - middle)
        return theta + np.einsum("mij,mj->mi", covariance, pull), covariance


def _weights(
    row: Row, chi2: Float[np.ndarray, " m"], log_rest: Float[np.ndarray, " m"]
) -> tuple[Int[np.ndarray, " kept"], Float[np.ndarray, " kept"], float]:
    """Points with a weight, their weights from χ² and the ln of prior over proposal; least χ² for a measurement."""
    least = float(chi2.min()) / max(len(row.names), 1)
    log_weights = log_rest - 0.5 * chi2 / max(1.0, least)
    log_weights -= log_weights.max()
    kept = np.flatnonzero(log_weights > -0.5 * _FAR)
    weights = np.exp(log_weights[kept], dtype=np.float64)
    return kept, weights / weights.sum(), least
