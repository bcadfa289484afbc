"""From the encoder's proposal to the exact posterior mode: Fisher scoring on the native-channel statistic."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from xlatent.infer.encode import Observation
from xlatent.statistics import cstat, expected_cstat, expected_wstat, wstat, wstat_background

# Width of the prior of ln(amplitude): far wider than any data leave it, it keeps a spectrum without counts finite.
_AMPLITUDE_WIDTH = 3.0
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
    covariance : array [n, latents + 1, latents + 1]
        Of z and ln amplitude, in this order.
    statistic, expected, sigma : array [n]
        W or C statistic, its mean and standard deviation if the model is true.
    """

    z: Float[np.ndarray, "n latents"]
    log_amplitude: Float[np.ndarray, "n"]
    covariance: Float[np.ndarray, "n latents_1 latents_1"]
    statistic: Float[np.ndarray, "n"]
    expected: Float[np.ndarray, "n"]
    sigma: Float[np.ndarray, "n"]


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
    """One spectrum at one point: the function to minimise, its gradient and the Fisher information of the data."""

    objective: float
    gradient: np.ndarray
    information: np.ndarray


def refine(
    decoder: Decoder,
    observations: list[Observation],
    start: Float[np.ndarray, "n latents"],
    covariance: Float[np.ndarray, "n latents latents"],
    *,
    frozen: bool = False,
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

    Returns
    -------
    Posterior
    """
    n, latents = start.shape
    theta = np.column_stack([start, np.zeros(n)])
    log_flux, jacobian = decoder(theta[:, :latents])
    centre = np.empty(n)
    for i, o in enumerate(observations):
        net = max(float(np.sum(o.n_on - o.alpha * o.n_off)), 1.0)
        centre[i] = np.log(net / float(np.sum(np.exp(log_flux[i]) @ o.matrix)))
    theta[:, latents] = centre
    precision = np.append(np.zeros(latents) if frozen else np.ones(latents), _AMPLITUDE_WIDTH**-2)
    prior_mean = np.column_stack([np.zeros((n, latents)), centre])

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
    return _posterior(decoder, observations, theta, states, precision, covariance if frozen else None)


def _evaluate(
    o: Observation,
    theta: np.ndarray,
    log_flux: np.ndarray,
    jacobian: np.ndarray,
    prior_mean: np.ndarray,
    precision: np.ndarray,
) -> _State:
    photons = np.exp(log_flux + theta[-1])
    source = photons @ o.matrix + 1e-12
    slopes = (photons[:, None] * jacobian).T @ o.matrix
    slopes = np.vstack([slopes, source])
    if o.has_background:
        # W on the averaged background, as if it had been measured `averaged` times longer.
        off, alpha = o.averaged * o.mean_off, o.alpha / o.averaged
        likelihood = float(np.sum(wstat(o.n_on, off, source, alpha)))
        background = alpha * wstat_background(o.n_on, off, source, alpha)
        variance = source + o.alpha * o.mean_off * (1.0 + alpha)
    else:
        likelihood, background, variance = float(np.sum(cstat(o.n_on, source))), 0.0, source
    pull = theta - prior_mean
    gradient = slopes @ (1.0 - o.n_on / (source + background)) + precision * pull
    information = (slopes / variance) @ slopes.T
    return _State(likelihood + float(np.sum(precision * pull**2)), gradient, information)


def _posterior(
    decoder: Decoder,
    observations: list[Observation],
    theta: np.ndarray,
    states: list[_State],
    precision: np.ndarray,
    proposal: np.ndarray | None,
) -> Posterior:
    n, latents = len(theta), theta.shape[1] - 1
    covariance = np.empty((n, latents + 1, latents + 1))
    statistic, expected, sigma = np.empty(n), np.empty(n), np.empty(n)
    log_flux, _ = decoder(theta[:, :latents])
    for i, (o, state) in enumerate(zip(observations, states, strict=True)):
        if proposal is None:
            covariance[i] = np.linalg.inv(state.information + np.diag(precision))
        else:
            # The amplitude follows z as the data want: ln a given z has variance 1/I_aa and slope -I_az/I_aa.
            slope = -state.information[-1, :-1] / (state.information[-1, -1] + precision[-1])
            covariance[i, :-1, :-1] = proposal[i]
            covariance[i, -1, :-1] = covariance[i, :-1, -1] = proposal[i] @ slope
            covariance[i, -1, -1] = slope @ proposal[i] @ slope + 1.0 / (state.information[-1, -1] + precision[-1])
        source = np.exp(log_flux[i] + theta[i, -1]) @ o.matrix
        if o.has_background:
            statistic[i] = wstat(o.n_on, o.n_off, source, o.alpha).sum()
            mean, variance = expected_wstat(source, o.mean_off, o.alpha)
        else:
            statistic[i] = cstat(o.n_on, source).sum()
            mean, variance = expected_cstat(source)
        expected[i], sigma[i] = mean.sum(), np.sqrt(variance.sum())
    return Posterior(theta[:, :latents].copy(), theta[:, -1].copy(), covariance, statistic, expected, sigma)
