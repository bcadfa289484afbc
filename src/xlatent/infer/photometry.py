"""The posterior of z for catalogue rows, from band fluxes or hardness ratios, by importance sampling."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.special import logsumexp, ndtri, stdtrit
from scipy.stats import qmc
from scipy.stats import t as student

from xlatent.core.bands import BANDS, HARDNESS_RATIOS, column, energy_flux, hardness, photon_flux
from xlatent.core.errors import ParameterError
from xlatent.core.grid import ModelGrid
from xlatent.core.latents import LatentTable
from xlatent.core.version import SOFTWARE
from xlatent.infer.embed import LatentModel
from xlatent.infer.quantities import quantiles
from xlatent.infer.refine import AMPLITUDE_WIDTH, Decoder

# What can be measured, by the names of `LatentTable`: the band and the integral over it. Narrow bands come first and
# photon fluxes before energy fluxes: of measurements that share photons only the first is used.
FLUXES: dict[str, tuple[str, Callable[..., Any]]] = {
    f"{prefix}_{column(band)}": (band, integral)
    for band in ("s", "m", "h", "0.5-2", "2-8", "b")
    for prefix, integral in (("photflux", photon_flux), ("flux", energy_flux))
}
RATIOS = tuple(HARDNESS_RATIOS)

# No flux is taken to be better known than this share of it: X-ray observatories agree on the fluxes of one source to
# about 5 per cent (Nevalainen et al. 2010, A&A 523, A22; Madsen et al. 2017, AJ 153, 2), bands of one less badly.
FLUX_FLOOR = 0.03
_RATIO_FLOOR = FLUX_FLOOR / 2**0.5  # of the ratio of two equal fluxes with that error
# Three ratios of three fluxes are two numbers: each weighs two thirds.
_RATIO_STRETCH = 1.5**0.5

# Where measurements tell too little or too much, in the flags.
SIGNIFICANT = 3.0
LEAST_ESS = 100.0
POOR_FIT = 9.0  # χ² per measurement

_SEED = 20251015
_FEW, _MANY = 2**13, 2**17  # draws of the prior in the small bank and in the large
_ENOUGH = 200.0  # effective draws that end the search
_SOFT = 50  # effective draws to which the weights of a flagged row are spread
_FAR = 30.0  # χ² above the best beyond which a draw has no weight
_FAINTEST = 1e-20  # flux of a photon cm⁻² s⁻¹ in 0.5-8 keV below which a band is as good as dark
_SHARPEST = 1e10  # precision of z that rounding still allows
_TRIES, _COMPONENTS, _POINTS, _ROUNDS = 4, 16, 500, 5  # of the last resort, `_Sampler._linearised`
_DOF = 5.0  # degrees of freedom of all Student's t proposals
_N_DRAWS = 400
_CHUNK = 256  # rows, or points to decode, at a time


@dataclass(frozen=True, eq=False)
class Measured:
    """One quantity as measured for every row of a catalogue.

    Attributes
    ----------
    name : str
        One of `FLUXES` or `RATIOS`: ``photflux_s``, ``flux_0p5_2``, ``hard_hm`` and so on.
    value : array [n]
        Photons cm⁻² s⁻¹, erg cm⁻² s⁻¹ or a ratio; NaN where nothing was measured, 0 for an upper limit.
    lower, upper : array [n]
        Distances from the value to the ends of the 68 % interval, NaN where unknown; one stands for both where the
        other is 0 or NaN. ``upper`` of an upper limit is that limit.
    """

    name: str
    value: Float[np.ndarray, " n"]
    lower: Float[np.ndarray, " n"]
    upper: Float[np.ndarray, " n"]


@dataclass(frozen=True, eq=False)
class _Row:
    """The measurements that are used of one row: all fluxes, or all ratios, or none."""

    names: list[str]
    value: Float[np.ndarray, " k"]
    lower: Float[np.ndarray, " k"]
    upper: Float[np.ndarray, " k"]

    @property
    def of_fluxes(self) -> bool:
        return bool(self.names) and self.names[0] in FLUXES

    def chi2(self, predicted: Float[np.ndarray, "k m"]) -> Float[np.ndarray, " m"]:
        apart = predicted - self.value[:, None]
        with np.errstate(over="ignore"):  # what is beyond single precision has no weight
            return np.sum((apart / np.where(apart > 0, self.upper[:, None], self.lower[:, None])) ** 2, axis=0)

    def amplitude(self, fluxes: Float[np.ndarray, "k m"]) -> tuple[Float[np.ndarray, " m"], Float[np.ndarray, " m"]]:
        """Centre and width of a proposal of ln(amplitude), with the fluxes at amplitude one."""
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
class _Points:
    """Points of z, and the decoder's `FLUXES` for one photon cm⁻² s⁻¹ in 0.5-8 keV."""

    z: Float[np.ndarray, "m latents"]
    fluxes: Float[np.ndarray, "n_fluxes m"]

    def quantity(
        self, name: str, members: slice | Int[np.ndarray, " kept"] = slice(None)
    ) -> Float[np.ndarray, " kept"]:
        if name in FLUXES:
            return self.fluxes[_PLACE[name], members]
        hard, soft = (self.fluxes[_PLACE[f"photflux_{band}"], members] for band in HARDNESS_RATIOS[name])
        return hardness(hard, soft)

    def of(
        self, names: Sequence[str], members: slice | Int[np.ndarray, " kept"] = slice(None)
    ) -> Float[np.ndarray, "k kept"]:
        if not names:
            return np.empty((0, len(self.z[members])))
        return np.array([self.quantity(name, members) for name in names])


@dataclass(frozen=True, eq=False)
class _Bank:
    """Draws of the prior, and a Student's t variate of each that places its amplitude, with its ln density."""

    points: _Points
    steps: Float[np.ndarray, " m"]
    log_density: Float[np.ndarray, " m"]


_PLACE = {name: i for i, name in enumerate(FLUXES)}


@dataclass(frozen=True, eq=False)
class _Weighted:
    """Members of some points with normalised weights; ``chi2`` is the least of them, for one measurement."""

    points: _Points
    members: Int[np.ndarray, " kept"]
    log_amplitude: Float[np.ndarray, " kept"]
    weights: Float[np.ndarray, " kept"]
    chi2: float

    @property
    def ess(self) -> float:
        return float(1.0 / np.sum(self.weights**2))

    @property
    def quality(self) -> float:
        """Effective draws, as far as more are better, for a χ² that is small enough."""
        return min(self.ess, LEAST_ESS) / max(1.0, self.chi2)


def embed_measured(
    model: LatentModel,
    measured: Sequence[Measured],
    columns: Mapping[str, Any],
    *,
    progress: Callable[[int], None] | None = None,
) -> LatentTable:
    """Turn band fluxes or hardness ratios into latents with uncertainties.

    The posterior of z under its prior N(0, 1) and of the amplitude under a wide one. The likelihood of a measurement
    is a normal distribution with the lower error below and the upper error above; an upper limit is a value of zero.
    Of measurements that share photons (a band within another; photon and energy flux of one band) only the first in
    the order of `FLUXES` is used, since the others would count the same photons twice; ratios are used in rows without
    any flux. Where the decoder cannot reach the measurements, χ² is divided by its least value for each measurement.

    Every row weighs the same quasi-random draws of the prior. Where few of them agree with the data a larger bank is
    tried, and at last a mixture of the posteriors that follow from linearising the decoder at the points found.

    Parameters
    ----------
    model : LatentModel
    measured : sequence of Measured
        All of the same length.
    columns : mapping
        Other columns of the table: ``name``, ``ra`` and so on.
    progress : callable, optional
        Called with the number of rows finished since the last call.

    Returns
    -------
    LatentTable
        One row for each of the catalogue, in order. ``ess`` is the effective number of draws. Fluxes are missing where
        only ratios are known. Flags: ``from_fluxes``, ``from_ratios`` or ``no_data`` (then the row is the prior);
        ``not_significant`` without a flux of three standard deviations; ``poor_fit`` where no point comes within three
        standard deviations of each measurement; ``low_ess`` below 100 effective draws; their weights are spread.

    Raises
    ------
    ParameterError
        If the model's latents are points, a quantity is unknown, or lengths differ.
    """
    if not model.info.probabilistic:
        raise ParameterError(f"the latents of model {model.info.name!r} are points without a posterior to draw from")
    for one in measured:
        if one.name not in FLUXES and one.name not in RATIOS:
            raise ParameterError(f"cannot embed from {one.name!r}; known are {', '.join([*FLUXES, *RATIOS])}")
    if len({len(one.value) for one in measured}) != 1:
        raise ParameterError("embedding a catalogue takes at least one measured quantity, all of equal lengths")
    listed = sorted(measured, key=lambda one: [*FLUXES, *RATIOS].index(one.name))
    used = _independent(listed)
    sampler = _sampler(model)
    n = len(listed[0].value)
    z, covariance = np.empty((n, model.info.latents)), np.empty((n, model.info.latents, model.info.latents))
    found: dict[str, Any] = {name: np.empty(n) for name in ("ess", *_QUANTITY_COLUMNS)}
    flags = []
    for begin in range(0, n, _CHUNK):
        rows = [_row(listed, used, i) for i in range(begin, min(begin + _CHUNK, n))]
        draws = np.empty((len(rows), len(FLUXES) + len(RATIOS), _N_DRAWS))
        for i, row in enumerate(rows, start=begin):
            posterior = sampler.posterior(row)
            found["ess"][i] = posterior.ess
            flags.append(_flags(row, posterior))
            if posterior.ess < LEAST_ESS:  # a few points by themselves would look narrow
                posterior = replace(posterior, weights=_softened(posterior.weights, _SOFT))
            members = np.take(posterior.points.z, posterior.members, axis=0)
            z[i] = posterior.weights @ members
            covariance[i] = (members.T * posterior.weights) @ members - np.outer(z[i], z[i])
            draws[i - begin] = _drawn(posterior)
        for name, values in _limits(draws).items():
            found[name][begin : begin + len(rows)] = values
        if progress is not None:
            progress(len(rows))
    found["active"] = (np.linalg.eigvalsh(covariance) < 0.5).sum(axis=1)
    meta = {
        "model": model.info.name,
        "model_sha256": model.info.fingerprint,
        "software": SOFTWARE,
    }
    return LatentTable.from_posterior(z, covariance, {**columns, **found, "flags": flags}, meta)


class _Sampler:
    """A decoder, its band fluxes, and the banks of prior draws."""

    def __init__(self, decoder: Decoder, grid: ModelGrid, latents: int) -> None:
        self._decoder, self._latents = decoder, latents
        unit = np.eye(len(grid.energy) - 1)
        self._integrals = np.stack([integral(unit, grid.energy, band) for band, integral in FLUXES.values()], axis=1)
        self._typical = self._decoded(np.zeros((1, latents)))
        self._orders: dict[tuple[str, ...], tuple[np.ndarray, np.ndarray]] = {}

    def posterior(self, row: _Row) -> _Weighted:
        """Weighted points: from the small bank if that is enough, the large one, or the linearised decoder."""
        best = self._weighted(row, self._small, slice(None))
        if best.ess >= _ENOUGH and best.chi2 <= 1.0:
            return best
        best = self._weighted(row, self._large, self._near(row, best.chi2))
        for _ in range(_TRIES):
            if best.quality >= LEAST_ESS:
                break
            found = self._linearised(row, best)
            if found.quality <= best.quality:
                break
            best = found
        return best

    @cached_property
    def _small(self) -> _Bank:
        return self._bank(_FEW)

    @cached_property
    def _large(self) -> _Bank:
        return self._bank(_MANY)

    def _bank(self, n: int) -> _Bank:
        """Quasi-random draws of the prior, decoded; single precision is plenty and half the time."""
        uniform = qmc.Sobol(self._latents + 1, rng=_SEED).random(n)
        steps = stdtrit(_DOF, uniform[:, -1])
        points = self._decoded(ndtri(uniform[:, :-1]))
        points = _Points(points.z.astype(np.float32), points.fluxes.astype(np.float32))
        return _Bank(points, steps.astype(np.float32), student.logpdf(steps, _DOF).astype(np.float32))

    def _decoded(self, z: Float[np.ndarray, "m latents"]) -> _Points:
        chunks = range(0, len(z), _CHUNK)
        fluxes = [np.exp(self._decoder.log_flux(z[i : i + _CHUNK])) @ self._integrals for i in chunks]
        return _Points(z, np.maximum(np.concatenate(fluxes).T, _FAINTEST))

    def _weighted(self, row: _Row, bank: _Bank, members: slice | np.ndarray) -> _Weighted:
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
        return _Weighted(bank.points, places, log_amplitude[kept], weights, chi2)

    def _amplitude_pull(self, row: _Row, log_amplitude: Float[np.ndarray, " m"]) -> Float[np.ndarray, " m"]:
        """Ln of the wide prior of the amplitude, centred where the spectrum at z = 0 meets the data."""
        centre = row.amplitude(self._typical.of(row.names))[0]
        return -0.5 * ((log_amplitude - centre) / AMPLITUDE_WIDTH) ** 2

    def _near(self, row: _Row, chi2: float) -> Int[np.ndarray, " m"]:
        """Members of the large bank that can come within `_FAR` of a χ² already found, by the row's hardness alone."""
        points = self._large.points
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

    def _linearised(self, row: _Row, start: _Weighted) -> _Weighted:
        """Draw from the posteriors that follow from linearising the decoder at points near the data."""
        rng = np.random.default_rng(_SEED)
        means, covariances = self._laplace(row, start)
        roots = np.linalg.cholesky(covariances)
        inverses = np.linalg.inv(roots)
        dim = means.shape[1]
        log_scale = np.log(np.diagonal(roots, axis1=1, axis2=2)).sum(axis=1)
        theta = np.empty((0, dim))
        parts = []
        for _ in range(_ROUNDS):
            stretch = np.sqrt(_DOF / rng.chisquare(_DOF, (_POINTS, 1)))
            which = rng.integers(len(means), size=_POINTS)
            fresh = means[which] + np.einsum("mij,mj->mi", roots[which], stretch * rng.standard_normal((_POINTS, dim)))
            theta = np.concatenate([theta, fresh])
            parts.append(self._decoded(fresh[:, : self._latents]))
            points = _Points(theta[:, : self._latents], np.concatenate([part.fluxes for part in parts], axis=1))
            white = np.einsum("kij,kmj->kmi", inverses, theta[None] - means[:, None])
            distance = np.sum(white**2, axis=2)
            density = logsumexp(-0.5 * (_DOF + dim) * np.log1p(distance / _DOF) - log_scale[:, None], axis=0)
            prior = -0.5 * np.sum(points.z**2, axis=1) - density
            predicted = points.of(row.names)
            log_amplitude = np.full(len(theta), np.nan)
            if row.of_fluxes:
                log_amplitude = theta[:, -1]
                prior = prior + self._amplitude_pull(row, log_amplitude)
                predicted = predicted * np.exp(log_amplitude)
            kept, weights, chi2 = _weights(row, row.chi2(predicted), prior)
            posterior = _Weighted(points, kept, log_amplitude[kept], weights, chi2)
            if posterior.ess >= LEAST_ESS:
                break
        return posterior

    def _laplace(
        self, row: _Row, start: _Weighted
    ) -> tuple[Float[np.ndarray, "k dim"], Float[np.ndarray, "k dim dim"]]:
        """Mean and covariance of the posterior of z (and ln amplitude) of the decoder linearised at several points."""
        chosen = _systematic(_softened(start.weights, _COMPONENTS), _COMPONENTS)
        z = start.points.z[start.members[chosen]]
        log_flux, jacobian = (part.astype(np.float64) for part in self._decoder(z))
        photons = np.exp(log_flux)
        at = _Points(z, np.maximum((photons @ self._integrals).T, _FAINTEST))
        slopes = np.einsum("me,mel,eq->qml", photons, jacobian, self._integrals) / at.fluxes[..., None]  # of ln flux
        error = 0.5 * (row.lower + row.upper)
        predicted = at.of(row.names)
        if row.of_fluxes:
            log_amplitude = start.log_amplitude[chosen]
            theta = np.column_stack([z, log_amplitude])
            precision = np.append(np.ones(self._latents), AMPLITUDE_WIDTH**-2)
            middle = np.append(np.zeros(self._latents), row.amplitude(self._typical.of(row.names))[0])
            predicted = predicted * np.exp(log_amplitude)
            slopes = slopes[[_PLACE[name] for name in row.names]]
            slopes = np.concatenate([slopes, np.ones((*slopes.shape[:2], 1))], axis=2)
            # A well measured flux is nearly linear in its logarithm, a limit is not.
            well = (row.value > SIGNIFICANT * error)[:, None]
            safe = np.where(row.value > 0, row.value, 1.0)[:, None]
            apart = np.where(well, np.log(safe / predicted), row.value[:, None] - predicted)
            slopes = np.where(well[..., None], slopes, slopes * predicted[..., None])
            error = np.where(well, error[:, None] / safe, error[:, None])
        else:
            theta, precision, middle = z, np.ones(self._latents), np.zeros(self._latents)
            pairs = [[_PLACE[f"photflux_{band}"] for band in HARDNESS_RATIOS[name]] for name in row.names]
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


@lru_cache(maxsize=1)
def _sampler(model: LatentModel) -> _Sampler:
    """The banks of a model, kept for the next call."""
    return _Sampler(model._decoder, model.grid, model.info.latents)


def _weights(
    row: _Row, chi2: Float[np.ndarray, " m"], log_rest: Float[np.ndarray, " m"]
) -> tuple[Int[np.ndarray, " kept"], Float[np.ndarray, " kept"], float]:
    """Points with a weight, their weights from χ² and the ln of prior over proposal; least χ² for a measurement."""
    least = float(chi2.min()) / max(len(row.names), 1)
    log_weights = log_rest - 0.5 * chi2 / max(1.0, least)
    log_weights -= log_weights.max()
    kept = np.flatnonzero(log_weights > -0.5 * _FAR)
    weights = np.exp(log_weights[kept], dtype=np.float64)
    return kept, weights / weights.sum(), least


def _softened(weights: np.ndarray, least: int) -> np.ndarray:
    """Weights raised to a power below one where fewer than ``least`` would be effective."""
    for power in 0.8 ** np.arange(20):
        soft = weights**power / np.sum(weights**power)
        if np.sum(soft**2) * least <= 1.0:
            break
    return soft


def _systematic(weights: np.ndarray, n: int) -> Int[np.ndarray, " n"]:
    """Indices of ``n`` equally weighted points: each taken as often as its weight says, to within one."""
    return np.minimum(np.searchsorted(np.cumsum(weights), (np.arange(n) + 0.5) / n), len(weights) - 1)


def _independent(measured: Sequence[Measured]) -> Bool[np.ndarray, "k n"]:
    """Which measurements are used of each row: the first that have a value and an error and share no photons."""
    known = np.array([np.isfinite(one.value) & (_error(one).min(axis=0) > 0) for one in measured])
    for i, one in enumerate(measured):
        for earlier, other in zip(known[:i], measured[:i], strict=True):
            if one.name in RATIOS:
                if other.name in FLUXES:
                    known[i] &= ~earlier
            elif other.name in FLUXES:
                (lo, hi), (other_lo, other_hi) = (BANDS[FLUXES[name][0]] for name in (one.name, other.name))
                if min(hi, other_hi) > max(lo, other_lo):
                    known[i] &= ~earlier
    return known


def _error(one: Measured) -> Float[np.ndarray, "2 n"]:
    """Lower and upper error, each standing for the other where that is 0 or unknown; NaN where both are."""
    lower, upper = (np.where(np.isfinite(error) & (error > 0), error, np.nan) for error in (one.lower, one.upper))
    return np.array([np.where(np.isnan(lower), upper, lower), np.where(np.isnan(upper), lower, upper)])


def _row(measured: Sequence[Measured], used: Bool[np.ndarray, "k n"], i: int) -> _Row:
    chosen = [one for one, rows in zip(measured, used, strict=True) if rows[i]]
    names = [one.name for one in chosen]
    value = np.array([one.value[i] for one in chosen])
    lower, upper = np.array([_error(one)[:, i] for one in chosen]).reshape(-1, 2).T
    if names and names[0] in FLUXES:
        floor: Any = FLUX_FLOOR * np.abs(value)
    else:
        stretch = _RATIO_STRETCH if len(names) == len(RATIOS) else 1.0
        lower, upper, floor = stretch * lower, stretch * upper, _RATIO_FLOOR
    errors = np.hypot(lower, floor), np.hypot(upper, floor)
    return _Row(names, *(numbers.astype(np.float32) for numbers in (value, *errors)))


_QUANTITY_COLUMNS = [name + end for name in (*FLUXES, *RATIOS) for end in ("", "_lolim", "_hilim")]
_QUANTITY_COLUMNS += ["log_flux_b", "log_flux_b_err"]


def _drawn(posterior: _Weighted) -> Float[np.ndarray, "n_quantities n_draws"]:
    """Equally weighted draws of all fluxes and ratios; NaN for fluxes without an amplitude."""
    chosen = _systematic(posterior.weights, _N_DRAWS)
    members = posterior.members[chosen]
    fluxes = posterior.points.fluxes[:, members] * np.exp(posterior.log_amplitude[chosen])
    return np.concatenate([fluxes, posterior.points.of(RATIOS, members)])


def _limits(draws: Float[np.ndarray, "n n_quantities n_draws"]) -> dict[str, Float[np.ndarray, " n"]]:
    """Medians and 68 % limits of the draws, as columns."""
    lolim, median, hilim = quantiles(draws, axis=2)
    columns: dict[str, np.ndarray] = {}
    for i, name in enumerate((*FLUXES, *RATIOS)):
        columns |= {name: median[:, i], f"{name}_lolim": lolim[:, i], f"{name}_hilim": hilim[:, i]}
    log_flux = np.log10(draws[:, _PLACE["flux_b"]])
    return {**columns, "log_flux_b": log_flux.mean(axis=1), "log_flux_b_err": log_flux.std(axis=1)}


def _flags(row: _Row, posterior: _Weighted) -> str:
    if not row.names:
        return "no_data"
    flags = ["from_fluxes" if row.of_fluxes else "from_ratios"]
    if row.of_fluxes and not np.any(row.value > SIGNIFICANT * row.lower):
        flags.append("not_significant")
    if posterior.chi2 > POOR_FIT:
        flags.append("poor_fit")
    if posterior.ess < LEAST_ESS:
        flags.append("low_ess")
    return ",".join(flags)
