"""The population behind measured latents: a mixture of Gaussians with the measurement errors taken out."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from xlatent.science.measurement import GaussianLikelihood

_MAX_STEPS = 60
_TOLERANCE = 3e-4  # of the mean log-likelihood
# An inverse-Wishart prior worth one source, with this variance: no component shrinks to a point.
_PRIOR_VARIANCE = 0.01


@dataclass(frozen=True, eq=False)
class Population:
    """Hold a mixture of K Gaussians in z.

    Attributes
    ----------
    weights : array [K]
    means : array [K, 8]
    covariances : array [K, 8, 8]
    """

    weights: Float[np.ndarray, " k"]
    means: Float[np.ndarray, "k d"]
    covariances: Float[np.ndarray, "k d d"]

    def whiten(self, data: GaussianLikelihood) -> tuple[Float[np.ndarray, "n k m m"], Float[np.ndarray, "n k"]]:
        """Find what whitens each measurement under each component: matrices, and ln of weight times determinant."""
        slopes = data.slopes[:, None]
        spread = slopes @ self.covariances @ slopes.transpose(0, 1, 3, 2) + np.eye(data.values.shape[1])
        white = np.linalg.inv(np.linalg.cholesky(spread))
        log_size = np.sum(np.log(np.diagonal(white, axis1=-2, axis2=-1)), axis=-1)
        return white, log_size + np.log(self.weights)

    def component_log_densities(self, data: GaussianLikelihood) -> Float[np.ndarray, "n k"]:
        """Compute ln of weight times density of each measurement under each component, the normal constant left out."""
        white, log_size = self.whiten(data)
        residual = data.values[:, None] - self.means @ data.slopes.transpose(0, 2, 1)
        return log_size - 0.5 * np.sum((white @ residual[..., None])[..., 0] ** 2, axis=-1)


def fit_population(data: GaussianLikelihood, n_components: int, seed: int = 0) -> Population:
    """Fit a mixture by expectation and maximisation with each source's own errors.

    What no source measures keeps the covariance at which it starts, that of the prior of the latents.

    Parameters
    ----------
    data : GaussianLikelihood
    n_components : int
    seed : int
        Of the sources around which the components start.

    References
    ----------
    Bovy, Hogg & Roweis 2011, AnApS 5, 1657, equations 16 (extreme deconvolution).

    Examples
    --------
    A population of variance 0.5 in the one latent that is measured, with errors of variance 1/4:

    >>> from xlatent.science.measurement import remove_prior
    >>> z = np.zeros((1000, 8))
    >>> z[:, 0] = 0.8 * np.sqrt(0.75) * np.random.default_rng(0).standard_normal(1000)
    >>> covariance = np.tile(np.diag([0.2] + [1.0] * 7), (1000, 1, 1))
    >>> population = fit_population(remove_prior(z, covariance), 1)
    >>> bool(0.4 < population.covariances[0, 0, 0] < 0.6)
    True
    """
    d = data.slopes.shape[-1]
    mixture = _initial_population(data, n_components, seed)
    before = -np.inf
    for _ in range(_MAX_STEPS):
        responsibilities, log_likelihood, centres, spreads = _expectation_step(mixture, data)
        weights = responsibilities.sum(axis=0)
        means = np.einsum("nk,nki->ki", responsibilities, centres) / np.maximum(weights, 1e-9)[:, None]
        offsets = (centres - means).transpose(1, 0, 2)
        scatter = (offsets * responsibilities.T[..., None]).transpose(0, 2, 1) @ offsets
        scatter += np.einsum("nk,nkij->kij", responsibilities, spreads)
        covariances = (scatter + _PRIOR_VARIANCE * np.eye(d)) / (weights + 1.0)[:, None, None]
        mixture = Population((weights + 1e-3) / np.sum(weights + 1e-3), means, covariances)
        if log_likelihood - before < _TOLERANCE:
            break
        before = log_likelihood
    return mixture


def select_population(
    data: GaussianLikelihood, candidates: tuple[int, ...] = (1, 2, 4, 8), seed: int = 0
) -> Population:
    """Fit mixtures of more and more components for as long as the Bayesian information criterion falls.

    Parameters
    ----------
    data : GaussianLikelihood
    candidates : tuple of int
        Numbers of components to try, one or more, in rising order.
    seed : int

    References
    ----------
    Schwarz 1978, Annals of Statistics 6, 461.

    Examples
    --------
    >>> from xlatent.science.measurement import remove_prior
    >>> z = np.random.default_rng(0).standard_normal((100, 8))
    >>> len(select_population(remove_prior(z, np.tile(0.1 * np.eye(8), (100, 1, 1)))).weights)
    1
    """
    best = fit_population(data, candidates[0], seed)
    lowest = _information_criterion(best, data)
    for n_components in candidates[1:]:
        mixture = fit_population(data, n_components, seed)
        if (criterion := _information_criterion(mixture, data)) >= lowest:
            break
        best, lowest = mixture, criterion
    return best


def _information_criterion(mixture: Population, data: GaussianLikelihood) -> float:
    """Bayesian information criterion p ln n - 2 ln L."""
    k, d = mixture.means.shape
    n_parameters = k * (1 + d + d * (d + 1) // 2) - 1
    log_likelihood = np.logaddexp.reduce(mixture.component_log_densities(data), axis=1).sum()
    return float(n_parameters * np.log(len(data)) - 2.0 * log_likelihood)


def _initial_population(data: GaussianLikelihood, n_components: int, seed: int) -> Population:
    """Components as wide as the prior, around sources of the table."""
    prior_covariance = np.eye(data.slopes.shape[-1])[None]
    prior = Population(np.ones(1), np.zeros((1, len(prior_covariance[0]))), prior_covariance)
    if n_components == 1:
        return prior
    rows = np.random.default_rng(seed).choice(len(data), n_components, replace=n_components > len(data))
    means = _expectation_step(prior, data[rows])[2][:, 0]
    weights = np.full(n_components, 1.0 / n_components)
    return Population(weights, means, np.repeat(prior_covariance, n_components, axis=0))


def _expectation_step(
    mixture: Population, data: GaussianLikelihood
) -> tuple[np.ndarray, float, np.ndarray, np.ndarray]:
    """Responsibilities of the components, mean log-likelihood, and mean and covariance of z under each component."""
    white, log_size = mixture.whiten(data)
    residual = data.values[:, None] - mixture.means @ data.slopes.transpose(0, 2, 1)
    residual = white @ residual[..., None]
    log_densities = log_size - 0.5 * np.sum(residual[..., 0] ** 2, axis=-1)
    log_total = np.logaddexp.reduce(log_densities, axis=1)
    # W A V: its square is what the measurement takes off the component's covariance.
    gain = white @ data.slopes[:, None] @ mixture.covariances
    gain_transposed = gain.transpose(0, 1, 3, 2)
    centres = mixture.means + (gain_transposed @ residual)[..., 0]
    responsibilities = np.exp(log_densities - log_total[:, None])
    return responsibilities, float(log_total.mean()), centres, mixture.covariances - gain_transposed @ gain
