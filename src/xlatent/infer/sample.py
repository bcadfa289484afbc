"""Draws from the exact posterior of (z, ln amplitude): adaptive importance sampling, an ensemble sampler in reserve."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.special import ndtri

from xlatent.infer.density import ExactDensity
from xlatent.infer.importance import (
    DOF,
    StudentComponents,
    effective_number,
    normalised_weights,
    student_log_density,
    student_stretch,
    systematic_indices,
)
from xlatent.infer.observation import Observation
from xlatent.infer.proposal import Frame, TriangularMaps, context
from xlatent.infer.refine import AMPLITUDE_WIDTH, Decoder, RefinedFits, net_counts

FEW_DRAWS = 200.0
"""Effective draws below which importance sampling is given up, and below which a table says so."""

_SEED = 20251015
# Importance sampling: points a round, rounds at most, and components of the proposal besides the prior.
_POINTS, _ROUNDS, _COMPONENTS = 1280, 18, 8
_STEP = 256  # points by which later rounds are shorter, if they may be
_EFFICIENT = 0.5  # effective draws that a point of a fitted proposal is expected to be worth
_FITTED_AT_FIRST = 2  # steps of the fit after the first round; more follow its few points too closely
# Shares at first: of Student's t at the mode, narrow and wide, and of the prior; the same where no source is clearly
# detected, and the prior itself proposes well; and of the learnt proposal beside them.
_AROUND, _UNDETECTED = np.array([0.4, 0.3, 0.3]), np.array([0.1, 0.1, 0.8])
_LEARNT, _LEARNT_UNDETECTED = 0.8, 0.4
_DETECTED = 6.0  # standard deviations of the net counts from which on a source is there beyond doubt
_LEAST_PRIOR = 0.03  # share of the proposal that stays with the prior, so that no part of it is forgotten
_LEAST_SHARE = 0.01  # of any other component; the largest stays with it in any case
# The ensemble: walkers, steps between two looks at it, looks at most, and autocorrelation times that are long enough.
_WALKERS, _STEPS, _LOOKS, _LONG_ENOUGH = 64, 250, 16, 50.0

LogDensity = Callable[[np.ndarray], np.ndarray]


def sample(
    decoder: Decoder,
    observations: list[Observation],
    posterior: RefinedFits,
    n_draws: int = 1000,
    learnt: Any | None = None,
) -> tuple[Float[np.ndarray, "n n_draws latents_1"], Float[np.ndarray, " n"]]:
    """Draw (z, ln amplitude) from the exact posterior of each spectrum.

    The density is that whose mode refinement finds, its objective being minus twice the logarithm. Draws are the same
    in every call and do not depend on the other spectra. Errors of the decoder are not in them
    (`xlatent.infer.quantities.Draws` adds them).

    Points come from a mixture of the learnt proposal (`xlatent.infer.proposal`), of Student's t distributions and of
    the prior with the amplitude that the counts want. Where the points of the first round are too few effective draws,
    the mixture is fitted to them, weighted, round by round; rounds count by their effective draws. Where this ends with
    fewer than `FEW_DRAWS`, an ensemble of walkers goes on from the points found.

    Parameters
    ----------
    decoder : Decoder
    observations : list of Observation
    posterior : RefinedFits
        As refined.
    n_draws : int
        Equally weighted draws for each spectrum.
    learnt : onnxruntime.InferenceSession, optional
        Of ``proposal.onnx``; without it the first round is drawn around the mode, and more rounds follow.

    Returns
    -------
    draws : array [n, n_draws, latents + 1]
    ess : array [n]
        Effective number of independent draws behind them, which may be more or fewer: (sum of weights)² / sum of
        squared weights, or for the ensemble its size over the autocorrelation time.

    References
    ----------
    Fitting the mixture, and rounds weighted by their own proposals: Cappé et al. 2008, Stat. Comput. 18, 447. The
    ensemble: Foreman-Mackey et al. 2013, PASP 125, 306.
    """
    n, latents_1 = posterior.statistical.shape[:2]
    draws, ess = np.empty((n, n_draws, latents_1)), np.empty(n)
    for i, observation in enumerate(observations):
        target = _Target(decoder, observation, posterior, i)
        rng = np.random.default_rng(_SEED)
        white, log_amplitude, weights = _importance(target, _first(target, learnt), rng, float(n_draws))
        ess[i] = effective_number(weights)
        if ess[i] < FEW_DRAWS:
            spread = normalised_weights(np.log(weights + 1e-300), float(_WALKERS))
            walkers = white[systematic_indices(spread, _WALKERS, rng.random())]
            white, ess[i] = _ensemble(target.log_density, walkers, rng, n_draws)
            log_amplitude = target(white)[1]
        else:
            chosen = systematic_indices(weights, n_draws, rng.random())
            white, log_amplitude = white[chosen], log_amplitude[chosen]
        draws[i] = np.column_stack([target.frame.points(white)[:, :-1], log_amplitude])
    return draws, ess


def with_moments_of(posterior: RefinedFits, draws: Float[np.ndarray, "n n_draws latents_1"]) -> RefinedFits:
    """Return a posterior with the mean and statistical covariance of draws; its statistic stays that of the mode."""
    mean = draws.mean(axis=1)
    apart = draws - mean[:, None]
    covariance = apart.transpose(0, 2, 1) @ apart / (draws.shape[1] - 1)
    return replace(posterior, z=mean[:, :-1], log_amplitude=mean[:, -1], statistical=covariance)


class _Target:
    """The posterior of one spectrum and its prior, in the whitened coordinates of `xlatent.infer.proposal.Frame`."""

    def __init__(self, decoder: Decoder, observation: Observation, posterior: RefinedFits, i: int) -> None:
        self.observation = observation
        self.density = ExactDensity(decoder, observation, posterior.z.shape[1])
        self.frame = Frame.of(self.density, posterior, i)
        self.dim = len(self.frame.centre)
        net = net_counts(observation)
        noise = float(np.sum(observation.n_on + observation.alpha**2 * observation.n_off)) + 1.0
        self._ln_net = np.log(net)
        width = min(float(np.sqrt(noise)) / net, AMPLITUDE_WIDTH)
        self.detected = width < 1.0 / _DETECTED
        # Without a clear detection the source may be as faint as the prior of its amplitude allows.
        self._widths = np.array([width] if self.detected else [width, AMPLITUDE_WIDTH])
        self._log_volume = float(np.log(np.diagonal(self.frame.root)).sum())

    def __call__(self, white: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Compute the ln of the density up to a constant, and ln(amplitude)."""
        return self.density(self.frame.points(white))

    def log_density(self, white: np.ndarray) -> np.ndarray:
        return self(white)[0]

    def draw_from_prior(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """Draw z from its prior, and the counts around those found, by turns narrowly and widely."""
        log_counts = self._ln_net + np.resize(self._widths, n) * rng.standard_t(DOF, n)
        return self.frame.whitened(np.column_stack([rng.standard_normal((n, self.dim - 1)), log_counts]))

    def prior_log_density(self, white: np.ndarray) -> np.ndarray:
        points = self.frame.points(white)
        gaussian = -0.5 * np.sum(points[:, :-1] ** 2, axis=1) - 0.5 * (self.dim - 1) * np.log(2.0 * np.pi)
        pull = (points[:, -1] - self._ln_net) / self._widths[:, None]
        counts = np.mean(np.exp(student_log_density(pull**2, 1)) / self._widths[:, None], axis=0)
        return gaussian + np.log(counts) + self._log_volume


@dataclass(frozen=True, eq=False)
class _Mixture:
    """Proposal: Student's t components, the prior of z with the counts found, and the learnt one, in this order."""

    shares: Float[np.ndarray, " k"]
    components: StudentComponents
    target: _Target
    learnt: TriangularMaps | None

    def draw(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """Draw points, of each part as many as its share says."""
        ends = np.round(n * np.cumsum(self.shares)).astype(int)
        numbers = np.diff(ends, prepend=0).tolist()
        means, roots = self.components.means, self.components.roots
        parts = []
        for number, mean, root in zip(numbers, means, roots, strict=False):
            stretch = student_stretch(rng, number)
            parts.append(mean + stretch * (rng.standard_normal((number, self.target.dim)) @ root.T))
        parts.append(self.target.draw_from_prior(rng, numbers[len(means)]))
        if self.learnt is not None:
            parts.append(self.learnt.transform(_even_normals(rng, numbers[-1], self.target.dim))[0])
        return np.concatenate(parts)

    def fixed_log_densities(self, white: np.ndarray) -> np.ndarray:
        """Ln of the densities of the prior and of the learnt proposal, which no fit changes."""
        parts = [self.target.prior_log_density(white)]
        if self.learnt is not None:
            parts.append(self.learnt.log_density(white))
        return np.stack(parts)

    def log_densities(self, white: np.ndarray, fixed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Ln of share times density of each part [k, n], and squared distances from Student's components."""
        densities, distance = self.components.log_densities(white)
        return np.log(self.shares)[:, None] + np.vstack([densities, fixed]), distance

    def log_density(self, white: np.ndarray, fixed: np.ndarray) -> np.ndarray:
        densities, _ = self.log_densities(white, fixed)
        largest = densities.max(axis=0)
        return np.log(np.exp(densities - largest).sum(axis=0)) + largest

    def fitted(self, white: np.ndarray, fixed: np.ndarray, weights: np.ndarray) -> "_Mixture":
        """One step of expectation and maximisation with weighted points, for t components of fixed tails."""
        densities, distance = self.log_densities(white, fixed)
        members = np.exp(densities - densities.max(axis=0))
        members *= weights / members.sum(axis=0)
        shares = members.sum(axis=1)
        k = len(distance)
        means, roots, kept = [], [], []
        for member, far, root, share in zip(members, distance, self.components.roots, shares, strict=False):
            if share < _LEAST_SHARE:  # too few points for a covariance
                continue
            pull = member * (DOF + self.target.dim) / (DOF + far)
            mean = pull @ white / pull.sum()
            apart = white - mean
            # A little of the old covariance keeps the new one from collapsing on few points.
            covariance = (apart.T * pull) @ apart / share + 0.03 * root @ root.T
            means.append(mean)
            roots.append(np.linalg.cholesky(covariance))
            kept.append(share)
        if not kept:
            largest = int(np.argmax(shares[:k]))
            means, roots, kept = [self.components.means[largest]], [self.components.roots[largest]], [_LEAST_SHARE]
        all_shares = np.array([*kept, max(shares[k], _LEAST_PRIOR), *np.maximum(shares[k + 1 :], _LEAST_SHARE)])
        components = StudentComponents(np.array(means), np.array(roots))
        return replace(self, shares=all_shares / all_shares.sum(), components=components)


def _even_normals(rng: np.random.Generator, n: int, dim: int) -> Float[np.ndarray, "n dim"]:
    """Draw normal variates, in each coordinate one from each n-th of its distribution (McKay et al. 1979)."""
    places = rng.permuted(np.tile(np.arange(n), (dim, 1)), axis=1).T
    return ndtri((places + rng.random((n, dim))) / n)


def _first(target: _Target, learnt: Any | None) -> _Mixture:
    """Begin with the learnt proposal, where there is one, and around the mode."""
    unit = np.eye(target.dim)
    components = StudentComponents(np.zeros((2, target.dim)), np.stack([unit, 1.7 * unit]))
    around, share = (_AROUND, _LEARNT) if target.detected else (_UNDETECTED, _LEARNT_UNDETECTED)
    if learnt is None:
        return _Mixture(around, components, target, None)
    described = context(target.frame, target.density, target.observation)
    [coefficients] = learnt.run(["coefficients"], {"context": described[None]})
    shares = np.append((1.0 - share) * around, share)
    return _Mixture(shares, components, target, TriangularMaps(coefficients[0], target.dim))


def _importance(
    target: _Target, proposal: _Mixture, rng: np.random.Generator, wanted_ess: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points, their ln(amplitude) and normalised weights, from rounds that end when these are effective enough."""
    white, log_amplitude, weights = np.empty((0, target.dim)), np.empty(0), np.empty(0)
    fixed = proposal.fixed_log_densities(white)
    ess, points = 0.0, _POINTS
    for turn in range(_ROUNDS):
        fresh = proposal.draw(rng, points)
        value, fresh_amplitude = target(fresh)
        fresh_fixed = proposal.fixed_log_densities(fresh)
        # A round is weighted by its own proposal: with the average of all, points would weigh less wherever later
        # proposals were fitted to them.
        own = normalised_weights(value - proposal.log_density(fresh, fresh_fixed))
        own_ess = effective_number(own)
        share = own_ess / (ess + own_ess)
        ess += own_ess
        white, fixed = np.concatenate([white, fresh]), np.concatenate([fixed, fresh_fixed], axis=1)
        log_amplitude = np.append(log_amplitude, fresh_amplitude)
        weights = np.append((1.0 - share) * weights, share * own)
        if ess >= wanted_ess:
            break
        # Whole steps, so that rounding of the fit hardly ever changes the random numbers that a point gets.
        points = _STEP * min(int(np.ceil((wanted_ess - ess) / _EFFICIENT / _STEP)), _POINTS // _STEP)
        tempered = normalised_weights(np.log(weights + 1e-300), FEW_DRAWS)
        if turn == 0:
            proposal = _scattered(proposal, white, tempered, rng)
        for _ in range(_FITTED_AT_FIRST if turn == 0 else 1):
            proposal = proposal.fitted(white, fixed, tempered)
    return white, log_amplitude, weights


def _scattered(proposal: _Mixture, white: np.ndarray, weights: np.ndarray, rng: np.random.Generator) -> _Mixture:
    """Equal components between the weighted mean and points drawn by weight, for the fit to move apart."""
    mean = weights @ white
    apart = white - mean
    root = np.linalg.cholesky(0.7 * (apart.T * weights) @ apart)
    chosen = white[systematic_indices(weights, _COMPONENTS, rng.random())]
    shares = np.append(np.full(_COMPONENTS, 0.9 / _COMPONENTS), 0.1)
    if proposal.learnt is not None:
        shares = np.append(0.5 * shares, 0.5)
    return replace(
        proposal, shares=shares, components=StudentComponents(0.5 * (chosen + mean), np.stack([root] * _COMPONENTS))
    )


def _ensemble(
    log_density: LogDensity, walkers: np.ndarray, rng: np.random.Generator, n_draws: int
) -> tuple[np.ndarray, float]:
    """Draw from an ensemble sampler that runs for many autocorrelation times, and their effective number."""
    import emcee  # rarely needed, and a second to import

    # Points drawn twice would leave the ensemble flat.
    start = walkers + 1e-3 * walkers.std(axis=0) * rng.standard_normal(walkers.shape)
    # Not emcee's snooker move: of a normal distribution in nine dimensions it makes one that is a fifth too narrow.
    moves = [(emcee.moves.DEMove(), 0.8), (emcee.moves.StretchMove(), 0.2)]
    sampler = emcee.EnsembleSampler(*start.shape, log_density, moves=moves, vectorize=True)
    state = emcee.State(start, random_state=np.random.RandomState(rng.integers(2**32)).get_state())
    for _ in range(_LOOKS):
        state = sampler.run_mcmc(state, _STEPS)
        time = float(np.max(sampler.get_autocorr_time(tol=0)))
        if sampler.iteration > _LONG_ENOUGH * time:
            break
    chain = sampler.get_chain(discard=min(int(5.0 * time), sampler.iteration // 2), flat=True)
    return chain[np.linspace(0, len(chain) - 1, n_draws).astype(int)], len(chain) / time
