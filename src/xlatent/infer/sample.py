"""Draws from the exact posterior of (z, ln amplitude): adaptive importance sampling, an ensemble sampler in reserve."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float
from scipy.special import logsumexp

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
from xlatent.infer.refine import (
    AMPLITUDE_WIDTH,
    Decoder,
    RefinedFits,
    amplitude_centre,
    net_counts,
    objective,
    source_counts,
)

_SEED = 20251015
# Importance sampling: points a round, rounds at most, and components of the proposal besides the prior.
_POINTS, _ROUNDS, _COMPONENTS = 2000, 12, 8
_LEAST_PRIOR = 0.03  # share of the proposal that stays with the prior, so that no part of it is forgotten
_LEAST_SHARE = 0.01  # of any other component, but the largest always stays
_FEW = 200.0  # effective draws below which importance sampling is given up
# The ensemble: walkers, steps between two looks at it, looks at most, and autocorrelation times that are long enough.
_WALKERS, _STEPS, _LOOKS, _LONG_ENOUGH = 64, 250, 16, 50.0

LogDensity = Callable[[np.ndarray], np.ndarray]


def sample(
    decoder: Decoder, observations: list[Observation], posterior: RefinedFits, n_draws: int = 1000
) -> tuple[Float[np.ndarray, "n n_draws latents_1"], Float[np.ndarray, " n"]]:
    """Draw (z, ln amplitude) from the exact posterior of each spectrum.

    The density is that whose mode refinement finds, its objective being minus twice the logarithm. Draws are the same
    in every call and do not depend on the other spectra. Errors of the decoder are not in them
    (`xlatent.infer.quantities.Draws` adds them).

    Points come from a mixture of Student's t distributions and of the prior with the amplitude that the counts want.
    It begins around the refined mode and is fitted to the weighted points round by round; every point is weighted with
    the average of all rounds' mixtures. Where this ends with fewer than 200 effective draws, an ensemble of walkers
    goes on from the points found.

    Parameters
    ----------
    decoder : Decoder
    observations : list of Observation
    posterior : RefinedFits
        As refined.
    n_draws : int
        Equally weighted draws for each spectrum.

    Returns
    -------
    draws : array [n, n_draws, latents + 1]
    ess : array [n]
        Effective number of independent draws behind them, which may be more or fewer: (sum of weights)² / sum of
        squared weights, or for the ensemble its size over the autocorrelation time.

    References
    ----------
    Fitting the mixture: Cappé et al. 2008, Stat. Comput. 18, 447. Averaged mixtures as weights: Cornuet et al. 2012,
    Scand. J. Stat. 39, 798. The ensemble: Foreman-Mackey et al. 2013, PASP 125, 306.
    """
    n, latents_1 = posterior.statistical.shape[:2]
    draws, ess = np.empty((n, n_draws, latents_1)), np.empty(n)
    for i, observation in enumerate(observations):
        target = _Target(decoder, observation, latents_1 - 1)
        rng = np.random.default_rng(_SEED)
        centre = np.append(posterior.z[i], posterior.log_amplitude[i])
        points, weights = _importance(target, centre, posterior.statistical[i], rng, 2.0 * n_draws)
        ess[i] = effective_number(weights)
        if ess[i] >= _FEW:
            draws[i] = points[systematic_indices(weights, n_draws, rng.random())]
        else:
            spread = normalised_weights(np.log(weights + 1e-300), float(_WALKERS))
            walkers = points[systematic_indices(spread, _WALKERS, rng.random())]
            draws[i], ess[i] = _ensemble(target.log_density, walkers, rng, n_draws)
    return draws, ess


def with_moments_of(posterior: RefinedFits, draws: Float[np.ndarray, "n n_draws latents_1"]) -> RefinedFits:
    """Return a posterior with the mean and statistical covariance of draws; its statistic stays that of the mode."""
    mean = draws.mean(axis=1)
    apart = draws - mean[:, None]
    covariance = apart.transpose(0, 2, 1) @ apart / (draws.shape[1] - 1)
    return replace(posterior, z=mean[:, :-1], log_amplitude=mean[:, -1], statistical=covariance)


class _Target:
    """The posterior density of one spectrum, and where the counts want the amplitude at a given z."""

    def __init__(self, decoder: Decoder, observation: Observation, latents: int) -> None:
        self._decoder, self._observation = decoder, observation
        self._mean = np.append(np.zeros(latents), amplitude_centre(decoder, [observation], latents))
        self._precision = np.append(np.ones(latents), AMPLITUDE_WIDTH**-2)
        net = net_counts(observation)
        noise = float(np.sum(observation.n_on + observation.alpha**2 * observation.n_off)) + 1.0
        self._ln_net = np.log(net)
        self.width = min(float(np.sqrt(noise)) / net, AMPLITUDE_WIDTH)

    def evaluate(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the ln of the density up to a constant, and the wanted ln(amplitude) at the same z."""
        source = source_counts(self._observation, theta, self._decoder.log_flux(theta[:, :-1]))
        value = objective(self._observation, theta, source, self._mean, self._precision)
        return -0.5 * value, theta[:, -1] + self._ln_net - np.log(source.sum(axis=1))

    def log_density(self, theta: np.ndarray) -> np.ndarray:
        return self.evaluate(theta)[0]

    def wanted(self, z: np.ndarray) -> np.ndarray:
        return self.evaluate(np.column_stack([z, np.full(len(z), self._mean[-1])]))[1]


@dataclass(frozen=True, eq=False)
class _Mixture:
    """Proposal: Student's t components, and the prior of z with the amplitude that the counts want (last share)."""

    shares: Float[np.ndarray, " k_1"]
    components: StudentComponents
    target: _Target

    def draw(self, rng: np.random.Generator, n: int) -> np.ndarray:
        *numbers, of_prior = rng.multinomial(n, self.shares).tolist()
        means, roots = self.components.means, self.components.roots
        dim = means.shape[1]
        parts = []
        for number, mean, root in zip(numbers, means, roots, strict=True):
            stretch = student_stretch(rng, number)
            parts.append(mean + stretch * (rng.standard_normal((number, dim)) @ root.T))
        z = rng.standard_normal((of_prior, dim - 1))
        log_amplitude = self.target.wanted(z) + self.target.width * rng.standard_t(DOF, of_prior)
        return np.concatenate([*parts, np.column_stack([z, log_amplitude])])

    def log_densities(self, theta: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Ln of share times density of each component [k + 1, n], and squared distances from the first k [k, n]."""
        densities, distance = self.components.log_densities(theta)
        dim = theta.shape[1]
        gaussian = -0.5 * np.sum(theta[:, :-1] ** 2, axis=1) - 0.5 * (dim - 1) * np.log(2.0 * np.pi)
        pull = (theta[:, -1] - wanted) / self.target.width
        prior = gaussian + student_log_density(pull**2, 1) - np.log(self.target.width)
        return np.log(self.shares)[:, None] + np.vstack([densities, prior]), distance

    def fitted(self, theta: np.ndarray, wanted: np.ndarray, weights: np.ndarray) -> "_Mixture":
        """One step of expectation and maximisation with weighted points, for t components of fixed tails."""
        densities, distance = self.log_densities(theta, wanted)
        members = weights * np.exp(densities - logsumexp(densities, axis=0))
        shares = members.sum(axis=1)
        dim = theta.shape[1]
        means, roots, kept = [], [], []
        for member, far, root, share in zip(members, distance, self.components.roots, shares, strict=False):
            if share < min(_LEAST_SHARE, shares[:-1].max()):  # too few points for a covariance
                continue
            pull = member * (DOF + dim) / (DOF + far)
            mean = pull @ theta / pull.sum()
            apart = theta - mean
            # A little of the old covariance keeps the new one from collapsing on few points.
            covariance = (apart.T * pull) @ apart / max(share, 1e-6) + 0.03 * root @ root.T
            means.append(mean)
            roots.append(np.linalg.cholesky(covariance))
            kept.append(max(share, _LEAST_SHARE))
        all_shares = np.array([*kept, max(shares[-1], _LEAST_PRIOR)])
        return _Mixture(all_shares / all_shares.sum(), StudentComponents(np.array(means), np.array(roots)), self.target)


def _importance(
    target: _Target, centre: np.ndarray, covariance: np.ndarray, rng: np.random.Generator, wanted_ess: float
) -> tuple[np.ndarray, np.ndarray]:
    """Points and their normalised weights, from rounds that end when the effective number is reached."""
    root = np.linalg.cholesky(covariance)
    components = StudentComponents(np.stack([centre] * 2), np.stack([root, 1.7 * root]))
    proposal = _Mixture(np.array([0.4, 0.3, 0.3]), components, target)
    theta, value, wanted = np.empty((0, len(centre))), np.empty(0), np.empty(0)
    proposals: list[_Mixture] = []
    density = np.empty(0)  # ln of the sum of all rounds' proposals at every point
    for turn in range(_ROUNDS):
        fresh = proposal.draw(rng, _POINTS)
        fresh_value, fresh_wanted = target.evaluate(fresh)
        earlier = [logsumexp(p.log_densities(fresh, fresh_wanted)[0], axis=0) for p in proposals]
        fresh_density = logsumexp(earlier, axis=0) if earlier else np.full(_POINTS, -np.inf)
        theta = np.concatenate([theta, fresh])
        value, wanted = np.append(value, fresh_value), np.append(wanted, fresh_wanted)
        density = np.append(density, fresh_density)
        density = np.logaddexp(density, logsumexp(proposal.log_densities(theta, wanted)[0], axis=0))
        proposals.append(proposal)
        log_weights = value - density
        weights = normalised_weights(log_weights)
        if effective_number(weights) >= wanted_ess:
            break
        tempered = normalised_weights(log_weights, _FEW)
        first = turn == 0
        proposal = _scattered(theta, tempered, rng, target) if first else proposal.fitted(theta, wanted, tempered)
    return theta, weights


def _scattered(theta: np.ndarray, weights: np.ndarray, rng: np.random.Generator, target: _Target) -> _Mixture:
    """Equal components between the weighted mean and points drawn by weight, for the fit to move apart."""
    mean = weights @ theta
    apart = theta - mean
    root = np.linalg.cholesky(0.7 * (apart.T * weights) @ apart)
    chosen = theta[systematic_indices(weights, _COMPONENTS, rng.random())]
    shares = np.append(np.full(_COMPONENTS, 0.9 / _COMPONENTS), 0.1)
    return _Mixture(shares, StudentComponents(0.5 * (chosen + mean), np.stack([root] * _COMPONENTS)), target)


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
