"""What the data alone say of z: the prior taken out of each posterior."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

MIN_INFORMATION = 1.0
"""Least Fisher information of a direction that counts as measured: that of the prior, as in the column ``active``."""
_LEAST_VARIANCE = 1e-8


@dataclass(frozen=True, eq=False)
class GaussianLikelihood:
    """Hold linear measurements ``values = slopes @ z + noise``, with unit normal noise, of ``n`` sources.

    Attributes
    ----------
    slopes : array [n, k, 8]
        Most informative first; k is as many as any source has.
    values : array [n, k]
    constrained : array of bool [n, k]
        Which of them were made; slopes and values of the others are zero, and they have no noise.
    """

    slopes: Float[np.ndarray, "n k d"]
    values: Float[np.ndarray, "n k"]
    constrained: Bool[np.ndarray, "n k"]

    def __getitem__(self, rows: Any) -> "GaussianLikelihood":
        return GaussianLikelihood(self.slopes[rows], self.values[rows], self.constrained[rows])

    def __len__(self) -> int:
        return len(self.values)


def remove_prior(z: Float[np.ndarray, "n d"], covariance: Float[np.ndarray, "n d d"]) -> GaussianLikelihood:
    """Take the unit normal prior out of Gaussian posteriors.

    Posterior means are drawn towards the prior, those of faint spectra more than those of bright ones, so that means
    of one source differ where its data differ; what was measured does not. With eigenvectors u and eigenvalues λ of
    the covariance, the data have information f = 1/λ − 1 along u (posterior precision less that of the prior), and
    uᵀz / (λ √f) is √f uᵀz_true with noise of unit variance. Directions with f below `MIN_INFORMATION` are left out.

    Parameters
    ----------
    z : array [n, 8]
        Posterior means; a row that is not finite measures nothing.
    covariance : array [n, 8, 8]

    Examples
    --------
    A source whose data have information 3 along the first latent, and nothing on the others:

    >>> covariance = np.eye(8)[None].copy()
    >>> covariance[0, 0, 0] = 0.25
    >>> z = np.zeros((1, 8))
    >>> z[0, 0] = 0.75
    >>> likelihood = remove_prior(z, covariance)
    >>> likelihood.constrained.tolist(), bool(np.isclose(abs(likelihood.slopes[0, 0, 0]), np.sqrt(3)))
    ([[True]], True)
    """
    finite = np.isfinite(z).all(axis=1) & np.isfinite(covariance).all(axis=(1, 2))
    z = np.where(finite[:, None], z, 0.0)
    variance, axes = np.linalg.eigh(np.where(finite[:, None, None], covariance, np.eye(z.shape[1])))
    variance = np.maximum(variance, _LEAST_VARIANCE)
    information = 1.0 / variance - 1.0
    constrained = information >= MIN_INFORMATION
    root = np.sqrt(np.where(constrained, information, 1.0))
    values = np.einsum("nji,nj->ni", axes, z) / (variance * root)
    slopes = axes.transpose(0, 2, 1) * (root * constrained)[:, :, None]
    # Eigenvalues come in rising order, so that constrained directions come first.
    most = max(1, int(constrained.sum(axis=1).max(initial=0)))
    return GaussianLikelihood(slopes[:, :most], (values * constrained)[:, :most], constrained[:, :most])
