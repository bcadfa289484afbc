"""What the data alone say of z: the prior taken out of each posterior."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

MIN_INFORMATION = 1.0
"""Least Fisher information of a direction that counts as measured: that of the prior, as in the column ``active``."""


@dataclass(frozen=True, eq=False)
class Measurement:
    """Linear measurements ``values = slopes @ z + noise``, with unit normal noise, of ``n`` sources.

    Attributes
    ----------
    slopes : array [n, k, 8]
        Most informative first; k is as many as any source has.
    values : array [n, k]
    known : array of bool [n, k]
        Which of them were made; slopes and values of the others are zero, and they have no noise.
    """

    slopes: Float[np.ndarray, "n k d"]
    values: Float[np.ndarray, "n k"]
    known: Bool[np.ndarray, "n k"]

    def __getitem__(self, rows: Any) -> "Measurement":
        return Measurement(self.slopes[rows], self.values[rows], self.known[rows])

    def __len__(self) -> int:
        return len(self.values)


def measured(z: Float[np.ndarray, "n d"], covariance: Float[np.ndarray, "n d d"]) -> Measurement:
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
    """
    finite = np.isfinite(z).all(axis=1) & np.isfinite(covariance).all(axis=(1, 2))
    z = np.where(finite[:, None], z, 0.0)
    variance, axes = np.linalg.eigh(np.where(finite[:, None, None], covariance, np.eye(z.shape[1])))
    variance = np.maximum(variance, 1e-8)
    information = 1.0 / variance - 1.0
    known = information >= MIN_INFORMATION
    root = np.sqrt(np.where(known, information, 1.0))
    values = np.einsum("nji,nj->ni", axes, z) / (variance * root)
    slopes = axes.transpose(0, 2, 1) * (root * known)[:, :, None]
    # Eigenvalues come in rising order, so that what is known comes first.
    most = max(1, int(known.sum(axis=1).max(initial=0)))
    return Measurement(slopes[:, :most], (values * known)[:, :most], known[:, :most])
