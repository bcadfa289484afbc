"""The population behind measured latents: a mixture of Gaussians with the measurement errors taken out."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from xlatent.science.measurement import Measurement

_MAX_STEPS = 60
_TOLERANCE = 3e-4  # of the mean log-likelihood
# An inverse-Wishart prior worth one source, with this variance: no component shrinks to a point.
_FLOOR = 0.01


@dataclass(frozen=True, eq=False)
class Population:
    """A mixture of K Gaussians in z.

    Attributes
    ----------
    weights : array [K]
    means : array [K, 8]
    covariances : array [K, 8, 8]
    """

    weights: Float[np.ndarray, " k"]
    means: Float[np.ndarray, "k d"]
    covariances: Float[np.ndarray, "k d d"]

    def whitening(self, data: Measurement) -> tuple[Float[np.ndarray, "n k m m"], Float[np.ndarray, "n k"]]:
        """Matrices that whiten each measurement under each component, and the logarithm of weight times their size."""
        slopes = data.slopes[:, None]
        spread = slopes @ self.covariances @ slopes.transpose(0, 1, 3, 2) + np.eye(data.values.shape[1])
        white = np.linalg.inv(np.linalg.cholesky(spread))
        size = np.sum(np.log(np.diagonal(white, axis1=-2, axis2=-1)), axis=-1)
        return white, size + np.log(self.weights)

    def log_parts(self, data: Measurement) -> Float[np.ndarray, "n k"]:
        """Return ln of weight times density of each measurement under each component, the normal constant left out."""
        white, size = self.whitening(data)
        left = data.values[:, None] - self.means @ data.slopes.transpose(0, 2, 1)
        return size - 0.5 * np.sum((white @ left[..., None])[..., 0] ** 2, axis=-1)


def fit(data: Measurement, n_components: int, seed: int = 0) -> Population:
    """Fit a mixture by expectation and maximisation with each source's own errors.

    Extreme deconvolution: Bovy, Hogg & Roweis 2011, AnApS 5, 1657, equations 16. What no source measures keeps the
    covariance at which it starts, that of the prior of the latents.

    Parameters
    ----------
    data : Measurement
    n_components : int
    seed : int
        Of the sources around which the components start.
    """
    d = data.slopes.shape[-1]
    mixture = _start(data, n_components, seed)
    before = -np.inf
    for _ in range(_MAX_STEPS):
        share, total, centres, spreads = _expected(mixture, data)
        weights = share.sum(axis=0)
        means = np.einsum("nk,nki->ki", share, centres) / np.maximum(weights, 1e-9)[:, None]
        off = (centres - means).transpose(1, 0, 2)
        scatter = (off * share.T[..., None]).transpose(0, 2, 1) @ off + np.einsum("nk,nkij->kij", share, spreads)
        covariances = (scatter + _FLOOR * np.eye(d)) / (weights + 1.0)[:, None, None]
        mixture = Population((weights + 1e-3) / np.sum(weights + 1e-3), means, covariances)
        if total - before < _TOLERANCE:
            break
        before = total
    return mixture


def choose(data: Measurement, candidates: tuple[int, ...] = (1, 2, 4, 8), seed: int = 0) -> Population:
    """Fit mixtures of more and more components for as long as the Bayesian information criterion falls."""
    d = data.slopes.shape[-1]
    best, lowest = fit(data, candidates[0], seed), np.inf
    for n_components in candidates:
        mixture = fit(data, n_components, seed)
        likelihood = np.logaddexp.reduce(mixture.log_parts(data), axis=1).sum()
        free = n_components * (1 + d + d * (d + 1) // 2) - 1
        if (criterion := free * np.log(len(data)) - 2.0 * likelihood) >= lowest:
            break
        best, lowest = mixture, criterion
    return best


def _start(data: Measurement, n_components: int, seed: int) -> Population:
    """Components as wide as the prior, around sources of the table."""
    everything = np.eye(data.slopes.shape[-1])[None]
    one = Population(np.ones(1), np.zeros((1, len(everything[0]))), everything)
    if n_components == 1:
        return one
    rows = np.random.default_rng(seed).choice(len(data), n_components, replace=n_components > len(data))
    means = _expected(one, data[rows])[2][:, 0]
    return Population(np.full(n_components, 1.0 / n_components), means, np.repeat(everything, n_components, axis=0))


def _expected(mixture: Population, data: Measurement) -> tuple[np.ndarray, float, np.ndarray, np.ndarray]:
    """Share of each component in each source, mean log-likelihood, and mean and covariance of z under each."""
    white, size = mixture.whitening(data)
    left = data.values[:, None] - mixture.means @ data.slopes.transpose(0, 2, 1)
    left = white @ left[..., None]
    parts = size - 0.5 * np.sum(left[..., 0] ** 2, axis=-1)
    total = np.logaddexp.reduce(parts, axis=1)
    # W A V: its square is what the measurement takes off the component's covariance.
    reach = white @ data.slopes[:, None] @ mixture.covariances
    turned = reach.transpose(0, 1, 3, 2)
    centres = mixture.means + (turned @ left)[..., 0]
    return np.exp(parts - total[:, None]), float(total.mean()), centres, mixture.covariances - turned @ reach
