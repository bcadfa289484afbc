"""From the encoder's proposal to the exact posterior mode: Fisher scoring on the native-channel statistic."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from xlatent.infer.encode import Observation
from xlatent.infer.model_error import ModelErrors, moved
from xlatent.statistics import cstat, expected_cstat, expected_wstat, wstat, wstat_background

# Width of the prior of ln(amplitude): far wider than any data leave it, it keeps a spectrum without counts finite.
AMPLITUDE_WIDTH = 3.0
_ALMOST_NOTHING = 1e-12  # counts in every channel, so that no count is impossible
_ITERATIONS = 40
_CONVERGED = 1e-3  # change of the statistic below which a spectrum is done


@dataclass(frozen=True, eq=False)
class Posterior:
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
    moved : array [n, latents + 1, k]
        By which independent errors of the decoder, each of unit variance, move z and ln amplitude; k is 0 for a decoder
        whose errors are not known.
    log_flux : array [n, k, n_energy]
        What the same errors add to ln(photons per bin).
    excess : array [n]
        By which they may raise the statistic: see `xlatent.infer.model_error.Moved`.
    """

    z: Float[np.ndarray, "n latents"]
    log_amplitude: Float[np.ndarray, "n"]
    statistical: Float[np.ndarray, "n latents_1 latents_1"]
    statistic: Float[np.ndarray, "n"]
    expected: Float[np.ndarray, "n"]
    sigma: Float[np.ndarray, "n"]
    moved: Float[np.ndarray, "n latents_1 k"]
    log_flux: Float[np.ndarray, "n k n_energy"]
    excess: Float[np.ndarray, "n"]

    @property
    def covariance(self) -> Float[np.ndarray, "n latents_1 latents_1"]:
        """Covariance of z and ln amplitude, with what errors of the decoder add."""
        return self.statistical + self.moved @ self.moved.transpose(0, 2, 1)


class Decoder:
    """The exported decoder: z to ln(photons per bin) and its Jacobian, in double precision outside."""

    def __init__(self, session: Any) -> None:
        self._session = session

    def __call__(
        self, z: Float[np.ndarray, "n latents"]
    ) -> tuple[Float[np.ndarray, "n n_energy"], Float[np.ndarray, "n n_energy latents"]]:
        """Return ln(photons per bin) and its derivative in z."""
        log_flux, slopes = self._run(z, np.eye(z.shape[1]))
        return log_flux, slopes

    def log_flux(self, z: Float[np.ndarray, "n latents"]) -> Float[np.ndarray, "n n_energy"]:
        """Return ln(photons per bin) alone."""
        return self._run(z, np.empty((0, z.shape[1])))[0]

    def _run(self, z: np.ndarray, directions: np.ndarray) -> list[np.ndarray]:
        inputs = {"z": z.astype(np.float32), "directions": directions.astype(np.float32)}
        return [out.astype(np.float64) for out in self._session.run(["log_flux", "slopes"], inputs)]


@dataclass
class _State:
    """One spectrum at one point: the function to minimise, its gradient, slopes of the counts and their variance."""

    objective: float
    gradient: np.ndarray
    slopes: np.ndarray
    variance: np.ndarray

    @property
    def information(self) -> np.ndarray:
        """Fisher information of the data."""
        return (self.slopes / self.variance) @ self.slopes.T


def refine(
    decoder: Decoder,
    observations: list[Observation],
    start: Float[np.ndarray, "n latents"],
    covariance: Float[np.ndarray, "n latents latents"],
    *,
    frozen: bool = False,
    errors: ModelErrors | None = None,
) -> Posterior:
    """Maximise the posterior of z and the amplitude, and give the covariance there.

    Minimises statistic + |z|² by Fisher scoring damped after Levenberg and Marquardt, all spectra side by side. The
    statistic is W (C without background) over native channels, with one difference to the W that is reported: where
    a channel's background counts are few, their average over K neighbours stands for them with scale α/K. Plain W
    gives each channel a background of its own; with few counts it explains every source count away as background, and
    a clear detection ends with no flux (the bias that the XSPEC manual warns of, appendix B). The information of a
    channel with source mean m and background mean b is 1/(m + αb + α²b/K): background counts add their own noise.

    Parameters
    ----------
    decoder : Decoder
    observations : list of Observation
    start, covariance : arrays [n, latents], [n, latents, latents]
        The encoder's proposal.
    frozen : bool
        Fit the amplitude only and keep the proposal for z.
    errors : ModelErrors, optional
        Of the decoder. Eight numbers do not hold every spectrum exactly, and then the counts overstate what is known.

    Returns
    -------
    Posterior
    """
    n, latents = start.shape
    theta = np.column_stack([start, np.zeros(n)])
    log_flux, jacobian = decoder(theta[:, :latents])
    for i, o in enumerate(observations):
        theta[i, latents] = np.log(net_counts(o) / float(np.sum(np.exp(log_flux[i]) @ o.matrix)))
    precision = np.append(np.zeros(latents) if frozen else np.ones(latents), AMPLITUDE_WIDTH**-2)
    prior_mean = np.column_stack([np.zeros((n, latents)), amplitude_centre(decoder, observations, latents)])

    def evaluate(i: int, point: np.ndarray, log_flux: np.ndarray, jacobian: np.ndarray) -> _State:
        return _evaluate(observations[i], point, log_flux, jacobian, prior_mean[i], precision)

    free = np.append(np.full(latents, not frozen), True)
    states = [evaluate(i, theta[i], log_flux[i], jacobian[i]) for i in range(n)]
    damping = np.full(n, 1e-2)
    active = np.arange(n)
    for _ in range(_ITERATIONS):
        trial = theta[active]
        for row, i in enumerate(active.tolist()):
            hessian = states[i].information + np.diag(precision)
            hessian = hessian + damping[i] * np.diag(np.diag(hessian))
            step = np.linalg.solve(hessian[np.ix_(free, free)], states[i].gradient[free])
            # A long step leaves the region where the decoder is known; three units of the prior is far enough.
            trial[row, free] -= step * min(1.0, 3.0 / max(float(np.abs(step).max()), 1e-9))
        log_flux, jacobian = decoder(trial[:, :latents])
        going = []
        for row, i in enumerate(active.tolist()):
            state = evaluate(i, trial[row], log_flux[row], jacobian[row])
            gain = states[i].objective - state.objective
            if gain > 0:
                theta[i], states[i] = trial[row], state
                damping[i] = max(damping[i] / 5.0, 1e-6)
            else:
                damping[i] *= 8.0
            if not (0 <= gain < _CONVERGED) and damping[i] < 1e6:
                going.append(i)
        active = np.array(going, dtype=int)
        if not len(active):
            break
    proposal = covariance if frozen else None
    return _posterior(decoder, observations, theta, states, precision, proposal, errors)


def net_counts(o: Observation) -> float:
    """Source counts above the background, at least one."""
    return max(float(np.sum(o.n_on - o.alpha * o.n_off)), 1.0)


def amplitude_centre(decoder: Decoder, observations: list[Observation], latents: int) -> Float[np.ndarray, "n"]:
    """Centre of the wide prior of ln(amplitude): where the spectrum at z = 0 gives the net counts (at least one)."""
    typical = np.exp(decoder.log_flux(np.zeros((1, latents)))[0])
    return np.array([np.log(net_counts(o) / float(np.sum(typical @ o.matrix))) for o in observations])


def source_counts(
    o: Observation, theta: Float[np.ndarray, "m latents_1"], log_flux: Float[np.ndarray, "m n_energy"]
) -> Float[np.ndarray, "m n_selected"]:
    """Expected source counts at ``m`` points (z, ln amplitude), with the decoder's ln(photons per bin) there."""
    return np.exp(log_flux + theta[:, -1:]) @ o.matrix + _ALMOST_NOTHING


def objective(
    o: Observation,
    theta: Float[np.ndarray, "m latents_1"],
    source: Float[np.ndarray, "m n_selected"],
    prior_mean: Float[np.ndarray, "latents_1"],
    precision: Float[np.ndarray, "latents_1"],
) -> Float[np.ndarray, "m"]:
    """Return minus twice the ln of the posterior density of one spectrum, up to a constant, at ``m`` points.

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
        off, alpha = _averaged_background(o)
        statistic = wstat(o.n_on, off, source, alpha).sum(axis=1)
    else:
        statistic = cstat(o.n_on, source).sum(axis=1)
    return statistic + (theta - prior_mean) ** 2 @ precision


def _averaged_background(o: Observation) -> tuple[np.ndarray, np.ndarray]:
    """Background counts and scale as if the averaged background had been measured `averaged` times longer."""
    return o.averaged * o.mean_off, o.alpha / o.averaged


def _evaluate(
    o: Observation,
    theta: np.ndarray,
    log_flux: np.ndarray,
    jacobian: np.ndarray,
    prior_mean: np.ndarray,
    precision: np.ndarray,
) -> _State:
    photons = np.exp(log_flux + theta[-1])
    source = photons @ o.matrix + _ALMOST_NOTHING
    slopes = (photons[:, None] * jacobian).T @ o.matrix
    slopes = np.vstack([slopes, source])
    if o.has_background:
        off, alpha = _averaged_background(o)
        background = alpha * wstat_background(o.n_on, off, source, alpha)
        variance = source + o.alpha * o.mean_off * (1.0 + alpha)
    else:
        background, variance = 0.0, source
    pull = theta - prior_mean
    gradient = slopes @ (1.0 - o.n_on / (source + background)) + precision * pull
    value = float(objective(o, theta[None], source[None], prior_mean, precision)[0])
    return _State(value, gradient, slopes, np.broadcast_to(variance, source.shape))


def _posterior(
    decoder: Decoder,
    observations: list[Observation],
    theta: np.ndarray,
    states: list[_State],
    precision: np.ndarray,
    proposal: np.ndarray | None,
    errors: ModelErrors | None,
) -> Posterior:
    n, latents = len(theta), theta.shape[1] - 1
    k = 0 if errors is None else len(errors.shapes)
    statistical, shifts = np.empty((n, latents + 1, latents + 1)), np.empty((n, latents + 1, k))
    statistic, expected, sigma, excess = np.empty(n), np.empty(n), np.empty(n), np.zeros(n)
    log_flux = decoder.log_flux(theta[:, :latents])
    shapes = np.empty((n, k, log_flux.shape[1]))
    for i, (o, state) in enumerate(zip(observations, states, strict=True)):
        photons = np.exp(log_flux[i] + theta[i, -1])
        source = photons @ o.matrix
        if o.has_background:
            statistic[i] = wstat(o.n_on, o.n_off, source, o.alpha).sum()
            mean, variance = expected_wstat(source, o.mean_off, o.alpha)
        else:
            statistic[i] = cstat(o.n_on, source).sum()
            mean, variance = expected_cstat(source)
        expected[i], sigma[i] = mean.sum(), np.sqrt(variance.sum())
        if errors is not None:
            own = errors.at(photons, o.matrix)
            found = moved(
                errors, own, (photons * own) @ o.matrix, state.slopes, state.variance, precision,
                float(statistic[i] - expected[i]), float(sigma[i]),
            )  # fmt: skip
            shifts[i], shapes[i], excess[i] = found.theta, found.log_flux, found.excess
        information = state.information
        if proposal is None:
            statistical[i] = np.linalg.inv(information + np.diag(precision))
        else:
            # The amplitude follows z as the data want: ln a given z has variance 1/I_aa and slope -I_az/I_aa.
            slope = -information[-1, :-1] / (information[-1, -1] + precision[-1])
            statistical[i, :-1, :-1] = proposal[i]
            statistical[i, -1, :-1] = statistical[i, :-1, -1] = proposal[i] @ slope
            statistical[i, -1, -1] = slope @ proposal[i] @ slope + 1.0 / (information[-1, -1] + precision[-1])
    return Posterior(
        theta[:, :latents].copy(), theta[:, -1].copy(), statistical, statistic, expected, sigma, shifts, shapes, excess
    )
