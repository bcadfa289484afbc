"""From the encoder's proposal to the exact posterior mode: Fisher scoring on the native-channel statistic."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Int

from xlatent.core.statistics import cstat, wstat, wstat_background, wstat_given_background
from xlatent.infer.decoder_errors import ModelErrors, propagate_decoder_errors, weight
from xlatent.infer.expected import expected_statistic
from xlatent.infer.observation import Observation
from xlatent.infer.starts import PriorSpectra

# Width of the prior of ln(amplitude): far wider than any data leave it, it keeps a spectrum without counts finite.
AMPLITUDE_WIDTH = 3.0
COUNT_FLOOR = 1e-12  # counts in every channel, so that no count is impossible
_ITERATIONS = 60
_PATIENCE = 10  # iterations after which few of a group are left
_CONVERGED = 1e-2  # by which the statistic may still be above its least value
_JACOBIAN_RADIUS = 0.3  # standard deviations, within which a Jacobian is taken to hold
# Standard deviations of the statistic above its expected value at which other starts are tried, and how many: a few for
# those that chance alone puts there, more for those that stay where chance seldom puts one.
_RESTARTS = ((2.0, 2), (3.0, 10))
_MAX_DAMPING = 1e6  # damping at which no step helps


@dataclass(frozen=True, eq=False)
class RefinedFits:
    """Gaussian posterior of (z, ln amplitude) of ``n`` spectra, and the statistic at its centre.

    Attributes
    ----------
    z : array [n, latents]
    log_amplitude : array [n]
        ln of photons cm⁻² s⁻¹ in 0.5-8 keV.
    statistical : array [n, latents + 1, latents + 1]
        Covariance of z and ln amplitude, in this order, if the decoder makes no errors.
    statistic, expected, sigma : array [n]
        W or C statistic, its mean and standard deviation if the model is true.
    error_modes : array [n, latents + 1, k]
        By which independent errors of the decoder, each of unit variance, move z and ln amplitude; k is 0 for a decoder
        whose errors are not known.
    log_flux : array [n, k, n_energy]
        What the same errors add to ln(photons per bin).
    excess : array [n]
        By which they may raise the statistic: see `xlatent.infer.decoder_errors.DecoderErrorShift`.
    decoded : array [n, n_energy]
        ln(photons per bin) at z, for one photon cm⁻² s⁻¹.
    jacobian : array [n, latents, n_energy]
        Its derivatives in z, there or close by.
    """

    z: Float[np.ndarray, "n latents"]
    log_amplitude: Float[np.ndarray, " n"]
    statistical: Float[np.ndarray, "n latents_1 latents_1"]
    statistic: Float[np.ndarray, " n"]
    expected: Float[np.ndarray, " n"]
    sigma: Float[np.ndarray, " n"]
    error_modes: Float[np.ndarray, "n latents_1 k"]
    log_flux: Float[np.ndarray, "n k n_energy"]
    excess: Float[np.ndarray, " n"]
    decoded: Float32[np.ndarray, "n n_energy"]
    jacobian: Float32[np.ndarray, "n latents n_energy"]

    @property
    def covariance(self) -> Float[np.ndarray, "n latents_1 latents_1"]:
        """Covariance of z and ln amplitude, with what errors of the decoder add."""
        return self.statistical + self.error_modes @ self.error_modes.transpose(0, 2, 1)


class Decoder:
    """The exported decoder: z to ln(photons per bin) and its Jacobian."""

    def __init__(self, session: Any) -> None:
        self._session = session

    def __call__(
        self, z: Float[np.ndarray, "n latents"]
    ) -> tuple[Float32[np.ndarray, "n n_energy"], Float32[np.ndarray, "n n_energy latents"]]:
        """Return ln(photons per bin) and its derivative in z."""
        log_flux, slopes = self._run(z, np.eye(z.shape[1]))
        return log_flux, slopes

    def log_flux(self, z: Float[np.ndarray, "n latents"]) -> Float[np.ndarray, "n n_energy"]:
        """Return ln(photons per bin) alone."""
        return self._run(z, np.empty((0, z.shape[1])))[0].astype(np.float64)

    @cached_property
    def prior_spectra(self) -> PriorSpectra:
        """Spectra of the prior, from which fits may start; drawn for the first spectrum that is fitted poorly."""
        return PriorSpectra.draw(self.log_flux, self._session.get_inputs()[0].shape[1])

    def _run(self, z: np.ndarray, directions: np.ndarray) -> list[np.ndarray]:
        inputs = {"z": z.astype(np.float32), "directions": directions.astype(np.float32)}
        return self._session.run(["log_flux", "slopes"], inputs)


class Proposal(NamedTuple):
    """The encoder's word on a group of spectra.

    Attributes
    ----------
    observations : list of Observation
    z, covariance : arrays [n, latents], [n, latents, latents]
    """

    observations: list[Observation]
    z: Float[np.ndarray, "n latents"]
    covariance: Float[np.ndarray, "n latents latents"]


def refine(
    decoder: Decoder, proposals: Sequence[Proposal], *, frozen: bool = False, errors: ModelErrors | None = None
) -> Iterator[RefinedFits]:
    """Maximise the posterior of z and the amplitude, and give the covariance there.

    Minimises statistic + |z|² by Fisher scoring damped after Levenberg and Marquardt, the spectra of a group side by
    side. The few that take many steps take them together with those of other groups. The Jacobian, which costs as much
    as eight decoded spectra, is found at the start, after a step that fails, and at an end more than 0.3 standard
    deviations from where it was found last; between, it learns from each step (Broyden 1965, Math. Comp. 19, 577).

    The statistic is W (C without background) over native channels, with one difference to the W that is reported: where
    a channel's background counts are few, their average over K neighbours stands for them with scale α/K. Plain W
    gives each channel a background of its own; with few counts it explains every source count away as background, and
    a clear detection ends with no flux (the bias that the XSPEC manual warns of, appendix B). The information of a
    channel with source mean m and background mean b is 1/(m + αb + α²b/K): background counts add their own noise.

    Parameters
    ----------
    decoder : Decoder
    proposals : sequence of Proposal
        Groups small enough for a processor's caches.
    frozen : bool
        Fit the amplitude only and keep the proposal for z.
    errors : ModelErrors, optional
        Of the decoder. Eight numbers do not hold every spectrum exactly, and then the counts overstate what is known.

    Yields
    ------
    RefinedFits of each group.
    """
    groups = [_BatchedFit(decoder, observations, z, frozen) for observations, z, _ in proposals]
    slow = [_levenberg_marquardt(fits, frozen, _PATIENCE) for fits in groups]
    _restart(groups, slow, [fits.theta[rows, :-1] for fits, rows in zip(groups, slow, strict=True)], frozen)
    found = [fits.statistic(np.arange(len(fits.theta))) for fits in groups]
    if not frozen:
        _start_elsewhere(groups, found)
    for fits, fit, proposal in zip(groups, found, proposals, strict=True):
        yield fits.posterior(fit, proposal.covariance if frozen else None, errors)


def _start_elsewhere(groups: list["_BatchedFit"], found: list[Float[np.ndarray, "3 _"]]) -> None:
    """Fit spectra that are above what is expected again, from the likeliest spectra of the prior on.

    The way down from the encoder's proposal may end beside the lowest place. Ways from elsewhere end there too or not,
    each by a chance of its own.
    """
    tried = 0
    for sigma, more in _RESTARTS:
        poor = [np.flatnonzero(fit[0] - fit[1] > sigma * fit[2]) for fit in found]
        starts = [fits.likeliest_starts(rows, tried + more)[:, tried:] for fits, rows in zip(groups, poor, strict=True)]
        # Start by start, so that those of one spectrum stand side by side with the same of its neighbours.
        _restart(
            more * groups, more * poor, [own[:, rank] for rank in range(more) for own in starts], False, _CONVERGED
        )
        for fits, fit, rows in zip(groups, found, poor, strict=True):
            fit[:, rows] = fits.statistic(rows)
        tried += more


def _restart(
    groups: list["_BatchedFit"],
    chosen: list[Int[np.ndarray, " _"]],
    starts: list[Float[np.ndarray, "_ latents"]],
    frozen: bool,
    least: float = 0.0,
) -> None:
    """Fit some spectra of each group again from other starts, and keep what is better by more than the least."""
    if not sum(map(len, chosen)):
        return
    observations = [fits.observations[i] for fits, rows in zip(groups, chosen, strict=True) for i in rows]
    together = _BatchedFit(groups[0].decoder, observations, np.concatenate(starts), frozen)
    _levenberg_marquardt(together, frozen, _ITERATIONS)
    begin = 0
    for fits, rows in zip(groups, chosen, strict=True):
        fits.accept_improvements(rows, together, begin, least)
        begin += len(rows)


def _levenberg_marquardt(fits: "_BatchedFit", frozen: bool, iterations: int) -> Int[np.ndarray, " _"]:
    """Minimise the objective of each spectrum by damped steps; give those that have not converged yet."""
    n, dim = fits.theta.shape
    free = slice(dim - 1 if frozen else 0, None)
    damping = np.full(n, 0.1)
    walked = np.zeros(n)  # since the Jacobian was found, in standard deviations
    active = np.arange(n)
    for _ in range(iterations):
        gradient, curvature = fits.derivatives(active, free)
        more = (damping[active, None] * np.einsum("nii->ni", curvature))[:, :, None] * np.eye(gradient.shape[1])
        step = -np.linalg.solve(curvature + more, gradient[:, :, None])[:, :, 0]
        gain = -np.sum(gradient * step, axis=1)  # twice what the step is expected to gain
        # Rounding of sums over 10⁷ counts and more may turn a step uphill: then more damping is wanted, not an end.
        done = (np.abs(gain) < _CONVERGED) | (damping[active] > _MAX_DAMPING)
        # Far from where it was found, the decoder's own Jacobian may say that this is not the end.
        again = active[done & (walked[active] > _JACOBIAN_RADIUS)]
        if len(again):
            fits.linearise(again)
            walked[again] = 0.0
        going = ~done
        moving, active = active[going], np.sort(np.concatenate([active[going], again]))
        if not len(active):
            break
        curvature = curvature[going]
        whole = np.zeros((len(moving), dim))
        # A long step leaves the region where the decoder is known; three units of the prior is far enough.
        whole[:, free] = step = (
            step[going] * np.minimum(1.0, 3.0 / np.abs(step[going]).max(axis=1, initial=3.0))[:, None]
        )
        better = fits.move(moving, whole)
        if not frozen:  # of the amplitude alone the Jacobian is always exact
            length = np.sqrt(np.einsum("ni,nij,nj->n", step, curvature, step))
            walked[moving] += np.where(better, length, 0.0)
        damping[moving] = np.where(better, np.maximum(damping[moving] / 5.0, 1e-6), damping[moving] * 8.0)
        failed = moving[~better & (walked[moving] > 0.0)]
        if len(failed):
            fits.linearise(failed)
            walked[failed] = 0.0
    if len(rest := active[walked[active] > _JACOBIAN_RADIUS]):
        fits.linearise(rest)
    return active


def net_counts(o: Observation) -> float:
    """Estimate the source counts above the background, at least one."""
    return max(float(np.sum(o.n_on - o.alpha * o.n_off)), 1.0)


def amplitude_centre(decoder: Decoder, observations: list[Observation], latents: int) -> Float[np.ndarray, " n"]:
    """Find the centre of the wide prior of ln(amplitude), where the spectrum at z = 0 gives the `net_counts`."""
    typical = np.exp(decoder.log_flux(np.zeros((1, latents)))[0])
    return np.array([np.log(net_counts(o) / float(np.sum(typical @ o.matrix))) for o in observations])


def source_counts(
    o: Observation, theta: Float[np.ndarray, "m latents_1"], log_flux: Float[np.ndarray, "m n_energy"]
) -> Float[np.ndarray, "m n_selected"]:
    """Compute expected source counts at ``m`` points (z, ln amplitude) from the decoder's ln(photons per bin) there."""
    return np.exp(log_flux + theta[:, -1:]) @ o.matrix + COUNT_FLOOR


def objective(
    o: Observation,
    theta: Float[np.ndarray, "m latents_1"],
    source: Float[np.ndarray, "m n_selected"],
    prior_mean: Float[np.ndarray, " latents_1"],
    precision: Float[np.ndarray, " latents_1"],
) -> Float[np.ndarray, " m"]:
    """Compute minus twice the ln of the posterior density of one spectrum, up to a constant, at ``m`` points.

    The statistic on the averaged background (C without one) plus the prior's share.

    Parameters
    ----------
    o : Observation
    theta : array [m, latents + 1]
        Points (z, ln amplitude).
    source : array [m, n_selected]
        Their `source_counts`.
    prior_mean, precision : arrays [latents + 1]
        Of the Gaussian prior, independent in each of z and ln amplitude.
    """
    if o.has_background:
        off, alpha = averaged_background(o)
        statistic = wstat(o.n_on, off, source, alpha).sum(axis=1)
    else:
        statistic = cstat(o.n_on, source).sum(axis=1)
    return statistic + (theta - prior_mean) ** 2 @ precision


def averaged_background(o: Observation) -> tuple[np.ndarray, np.ndarray]:
    """Background counts and scale as if the averaged background had been measured `averaged` times longer."""
    return o.averaged * o.mean_off, o.alpha / o.averaged


class _BatchedFit:
    """Spectra at their present points (z, ln amplitude), side by side and padded to the same number of channels.

    Sums over channels are of single precision, ten times finer than any decision that hangs on them.

    Parameters
    ----------
    decoder : Decoder
    observations : list of Observation
    z : array [n, latents]
        Where to begin, with the amplitude at which the net counts are expected.
    fixed : bool
        Whether z stays there.
    """

    def __init__(
        self, decoder: Decoder, observations: list[Observation], z: Float[np.ndarray, "n latents"], fixed: bool
    ) -> None:
        n, latents = z.shape
        self.decoder, self.observations = decoder, observations
        width = max(len(o.n_on) for o in observations)
        self._n_on, self._n_off, self._scale, self._mean_off = np.zeros((4, n, width), dtype=np.float32)
        for i, o in enumerate(observations):
            own = o.n_on, o.n_off, o.alpha, o.mean_off
            for whole, values in zip((self._n_on, self._n_off, self._scale, self._mean_off), own, strict=True):
                whole[i, : len(values)] = values
        averaged = np.array([[o.averaged] for o in observations], dtype=np.float32)
        self._off, self._alpha = averaged * self._mean_off, self._scale / averaged
        self._background = self._scale * self._mean_off
        self._noise = self._background * (1.0 + self._alpha)
        self._exposure = np.array([o.exposure for o in observations], dtype=np.float32)
        shared: dict[int, list[int]] = {}
        for i, o in enumerate(observations):
            shared.setdefault(id(o.area), []).append(i)
        self._responses = [observations[rows[0]].area for rows in shared.values()]
        self._on_grid = [observations[rows[0]].on_grid for rows in shared.values()]
        self._bins = [observations[rows[0]].bins for rows in shared.values()]
        self._response_of = np.empty(n, dtype=int)
        for number, rows in enumerate(shared.values()):
            self._response_of[rows] = number
        self._precision = np.append(np.zeros(latents) if fixed else np.ones(latents), AMPLITUDE_WIDTH**-2)
        net = np.log([net_counts(o) for o in observations])
        everything = np.arange(n)
        typical = np.exp(decoder.log_flux(np.zeros((1, latents)))[0])
        expected = np.array([np.sum(typical @ area) for area in self._responses])[self._response_of]
        self._prior_mean = np.zeros((n, latents + 1))
        self._prior_mean[:, -1] = net - np.log(expected * self._exposure)
        self.theta = np.column_stack([z, np.zeros(n)])
        self._log_flux, jacobian = decoder(z)
        self._jacobian = jacobian.transpose(0, 2, 1).copy()
        folded = self._fold(everything, np.exp(self._log_flux)[:, None])[:, 0]
        self.theta[:, -1] = net - np.log(folded.sum(axis=1))
        # Derivatives of ln(source counts) in z and in ln amplitude, which are one.
        self._relative = np.ones((n, latents + 1, width), dtype=np.float32)
        self._objective, self._source, self._background_mle = self._evaluated(everything, self.theta, folded)
        self._set_slopes(everything)

    def linearise(self, rows: Int[np.ndarray, " m"]) -> None:
        """Find the exact slopes of the expected counts at the present points."""
        self._log_flux[rows], jacobian = self.decoder(self.theta[rows, :-1])
        self._jacobian[rows] = jacobian.transpose(0, 2, 1)
        self._set_slopes(rows)

    def likeliest_starts(self, rows: Int[np.ndarray, " m"], n: int) -> Float[np.ndarray, "m n latents"]:
        """Choose ``n`` spectra of the prior for each, far from the present point, that the counts like best."""
        if not len(rows):
            return np.empty((0, n, self.theta.shape[1] - 1))
        return self.decoder.prior_spectra.likeliest([self.observations[i] for i in rows], self.theta[rows, :-1], n)

    def derivatives(
        self, rows: Int[np.ndarray, " m"], free: slice = slice(None)
    ) -> tuple[Float[np.ndarray, "m free"], Float[np.ndarray, "m free free"]]:
        """Compute half the gradient of the objective, and its expected curvature, in what is free to move."""
        source, n_on = self._source[rows], self._n_on[rows]
        relative = self._relative[:, free][rows]
        pull = source - n_on * (source / (source + self._alpha[rows] * self._background_mle[rows]))
        gradient = (relative @ pull[:, :, None])[:, :, 0].astype(np.float64)
        gradient += (self._precision * (self.theta[rows] - self._prior_mean[rows]))[:, free]
        weighted = relative * (source**2 / (source + self._noise[rows]))[:, None]
        curvature = (weighted @ relative.transpose(0, 2, 1)).astype(np.float64)
        return gradient, curvature + np.diag(self._precision[free])

    def move(self, rows: Int[np.ndarray, " m"], step: Float[np.ndarray, "m latents_1"]) -> np.ndarray:
        """Take those steps that lower the objective, learn from them, and say which [m] they are."""
        trial = self.theta[rows] + step
        fixed = not step[:, :-1].any()
        if fixed:
            log_flux = self._log_flux[rows]
            folded = (self._source[rows] - COUNT_FLOOR) * np.exp(-self.theta[rows, -1:]).astype(np.float32)
        else:
            log_flux, _ = self.decoder._run(trial[:, :-1], np.empty((0, step.shape[1] - 1)))
            folded = self._fold(rows, np.exp(log_flux)[:, None])[:, 0]
        objective, source, behind = self._evaluated(rows, trial, folded)
        better = objective < self._objective[rows]
        took, step, source = rows[better], step[better].astype(np.float32), source[better]
        if not fixed:
            change = np.log(source / self._source[took])
            surprise = change - (step[:, None] @ self._relative[took])[:, 0]
            length = np.maximum(np.sum(step[:, :-1] ** 2, axis=1), 1e-30)  # the amplitude alone teaches nothing
            self._relative[took, :-1] += (step[:, :-1] / length[:, None])[:, :, None] * surprise[:, None]
        self.theta[took], self._source[took], self._background_mle[took] = trial[better], source, behind[better]
        self._objective[took], self._log_flux[took] = objective[better], log_flux[better]
        return better

    def accept_improvements(self, rows: Int[np.ndarray, " m"], other: "_BatchedFit", begin: int, least: float) -> None:
        """Take the points of other fits of the same spectra, there from ``begin`` on, that are better by the least."""
        theirs = np.arange(begin, begin + len(rows))
        better = other._objective[theirs] < self._objective[rows] - least
        rows, theirs = rows[better], theirs[better]
        width = min(self._n_on.shape[1], other._n_on.shape[1])
        self.theta[rows], self._objective[rows] = other.theta[theirs], other._objective[theirs]
        self._log_flux[rows], self._jacobian[rows] = other._log_flux[theirs], other._jacobian[theirs]
        self._source[rows, :width], self._background_mle[rows, :width] = (
            own[theirs, :width] for own in (other._source, other._background_mle)
        )
        self._relative[rows, :, :width] = other._relative[theirs, :, :width]

    def statistic(self, rows: Int[np.ndarray, " m"]) -> Float[np.ndarray, "3 m"]:
        """Compute the W statistic of each spectrum, its expected value and its standard deviation."""
        source, scale = self._source[rows], self._scale[rows]
        measured = wstat(self._n_on[rows], self._n_off[rows], source, scale)
        mean, variance = expected_statistic(source, self._background[rows], scale)
        mean, square = mean.sum(axis=1, dtype=float), variance.sum(axis=1, dtype=float)
        return np.stack([measured.sum(axis=1, dtype=float), mean, np.sqrt(square)])

    def posterior(
        self, fit: Float[np.ndarray, "3 n"], proposal: np.ndarray | None, errors: ModelErrors | None
    ) -> RefinedFits:
        """Compute the covariance at the present points; z keeps that of the proposal, where there is one."""
        n, latents = len(self.theta), self.theta.shape[1] - 1
        everything = np.arange(n)
        statistic, expected, sigma = fit
        information = self._information()
        if proposal is None:
            # By way of its root, so that the inverse has no negative eigenvalue either.
            root = np.linalg.inv(np.linalg.cholesky(information + np.diag(self._precision)))
            statistical = root.transpose(0, 2, 1) @ root
        else:
            # The amplitude follows z as the data want: ln a given z has variance 1/I_aa and slope -I_az/I_aa.
            alone = 1.0 / (information[:, -1, -1] + self._precision[-1])
            slope = -information[:, -1, :-1] * alone[:, None]
            statistical = np.empty_like(information)
            statistical[:, :-1, :-1] = proposal
            statistical[:, -1, :-1] = statistical[:, :-1, -1] = (proposal @ slope[:, :, None])[:, :, 0]
            statistical[:, -1, -1] = np.sum(statistical[:, -1, :-1] * slope, axis=1) + alone
        if errors is None:
            none = np.zeros((n, 0, self._log_flux.shape[1]))
            shifts, shapes, excess = np.zeros((n, latents + 1, 0)), none, np.zeros(n)
        else:
            photons = np.exp(self._log_flux)
            seen = np.stack([area.sum(axis=1) for area in self._responses])[self._response_of]
            own = errors.shapes * weight(photons * seen)[:, None]
            photons *= self._exposure[:, None] * np.exp(self.theta[:, -1:]).astype(np.float32)
            # The errors that are known are wider than detector bins, of which there are fewer than channels.
            changes = self._through(everything, photons[:, None] * own, self._on_grid)
            in_channels = np.concatenate([self._relative * self._source[:, None], self._noise[:, None]], axis=1)
            in_bins = self._through(everything, in_channels, self._gather())
            slopes, variance = in_bins[:, :-1], in_bins[:, -2] + in_bins[:, -1]
            variance += np.float32(COUNT_FLOOR)
            found = propagate_decoder_errors(
                errors, own, changes, slopes, variance, self._precision, statistic - expected, sigma,
            )  # fmt: skip
            shifts, shapes, excess = found.theta, found.log_flux, found.excess
        return RefinedFits(
            self.theta[:, :-1].copy(), self.theta[:, -1].copy(), statistical, statistic, expected, sigma, shifts,
            shapes, excess, self._log_flux, self._jacobian,
        )  # fmt: skip

    def _information(self) -> Float[np.ndarray, "n latents_1 latents_1"]:
        """Compute what the counts alone say of z and ln amplitude, as the inverse of a covariance.

        In double precision: rounding single sums of 10⁷ adds or takes more than the prior's one, and with it the
        information of a direction that the counts do not see.
        """
        relative, source = self._relative.astype(np.float64), self._source.astype(np.float64)
        weighted = relative * (source**2 / (source + self._noise))[:, None]
        return weighted @ relative.transpose(0, 2, 1)

    def _gather(self) -> list[Float32[np.ndarray, "width n_chan"]]:
        """Make matrices from padded channels to detector bins, one for each response."""
        out = []
        for bins, area in zip(self._bins, self._on_grid, strict=True):
            matrix = np.zeros((self._n_on.shape[1], area.shape[1]), dtype=np.float32)
            inside = np.flatnonzero(bins)
            matrix[inside, bins[inside] - 1] = 1.0
            out.append(matrix)
        return out

    def _fold(
        self, rows: Int[np.ndarray, " m"], photons: Float32[np.ndarray, "m k n_energy"]
    ) -> Float32[np.ndarray, "m k width"]:
        """Fold photon spectra through the responses of the rows."""
        out = self._through(rows, photons, self._responses)
        out *= self._exposure[rows, None, None]
        return out

    def _through(
        self,
        rows: Int[np.ndarray, " m"],
        vectors: Float32[np.ndarray, "m k l"],
        matrices: list[Float32[np.ndarray, "l _"]],
    ) -> Float32[np.ndarray, "m k widest"]:
        """Multiply vectors of the rows by what their responses have of some matrices, padded."""
        m, k, length = vectors.shape
        out = np.zeros((m, k, max(matrix.shape[1] for matrix in matrices)), dtype=np.float32)
        numbers = self._response_of[rows]
        changes = np.flatnonzero(numbers[1:] != numbers[:-1]) + 1
        for begin, end in pairwise([0, *changes, m]):  # neighbours that share one
            matrix = matrices[numbers[begin]]
            product = vectors[begin:end].reshape(-1, length) @ matrix
            out[begin:end, :, : matrix.shape[1]] = product.reshape(end - begin, k, -1)
        return out

    def _evaluated(
        self, rows: np.ndarray, theta: np.ndarray, folded: Float32[np.ndarray, "m width"]
    ) -> tuple[Float[np.ndarray, " m"], Float32[np.ndarray, "m width"], Float32[np.ndarray, "m width"]]:
        """Compute objective, expected source counts and fitted background, from the counts at amplitude one."""
        source = folded * np.exp(theta[:, -1:]).astype(np.float32) + np.float32(COUNT_FLOOR)
        measured = self._n_on[rows], self._off[rows], source, self._alpha[rows]
        behind = wstat_background(*measured)
        statistic = wstat_given_background(*measured, behind).sum(axis=1, dtype=float)
        return statistic + (theta - self._prior_mean[rows]) ** 2 @ self._precision, source, behind

    def _set_slopes(self, rows: np.ndarray) -> None:
        photons = np.exp(self._log_flux[rows] + self.theta[rows, -1:].astype(np.float32))
        slopes = self._fold(rows, photons[:, None] * self._jacobian[rows])
        slopes /= self._source[rows, None]
        self._relative[rows, :-1] = slopes
