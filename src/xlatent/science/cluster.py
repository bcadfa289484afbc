"""Clusters of sources in latent space."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int

from xlatent.core.errors import ParameterError
from xlatent.core.extras import requires_extra
from xlatent.core.latent_columns import N_LATENTS
from xlatent.core.latents import LatentTable
from xlatent.science.resampling import subsample
from xlatent.science.selection import valid_rows

MAX_CLUSTERS = 12
MAX_ROWS = 20_000
"""Rows that clusters are found from; others are then given to them."""
_DRAWS = 8  # from the posterior of each row
_CHUNK = 50_000
_MIN_CLUSTER_SHARE = 0.01  # of the rows, that makes a cluster of HDBSCAN
_MIN_VARIANCE_SHARE = 0.1  # of the scatter between sources in the whole variance, along a direction that was measured
_ROWS_EACH = 10  # to a component, or it is not tried
_RIDGE = 1e-4  # variance below which no error and no component shrinks

Method = Literal["mixture", "hdbscan"]


@dataclass(frozen=True, eq=False)
class Clustering:
    """Hold the cluster of each row.

    Attributes
    ----------
    label : array of int [n]
        Number of the cluster, the largest first; -1 for a row in none.
    probability : array [n]
        That the row is in its cluster; 0 for a row in none, NaN for one without latents.
    membership : array [n, n_clusters]
        Probability of each cluster. HDBSCAN knows that of the row's own cluster only, and the others are 0.
    bic : dict
        Bayesian information criterion by number of components; empty where it was not asked.
    """

    label: Int[np.ndarray, " n"]
    probability: Float[np.ndarray, " n"]
    membership: Float[np.ndarray, "n n_clusters"]
    bic: dict[int, float]

    @property
    def columns(self) -> dict[str, np.ndarray]:
        """Columns for a latent table: ``cluster``, ``cluster_prob`` and, for each cluster, ``p_cluster0`` and so on."""
        columns = {"cluster": self.label, "cluster_prob": self.probability}
        return columns | {f"p_cluster{k}": values for k, values in enumerate(self.membership.T)}

    @property
    def sizes(self) -> list[int]:
        """Number of rows in each cluster, the largest first; those in none are left out."""
        return np.bincount(self.label + 1, minlength=1)[1:].tolist()


def find_clusters(
    table: LatentTable, method: Method = "mixture", n_clusters: int | None = None, seed: int = 0
) -> Clustering:
    """Find clusters in latent space, with errors considered and without looking at labels.

    Both methods work in the directions of latent space that were measured: those in which the variance of the rows'
    means is a tenth or more of the sum of it and the mean posterior variance, in units of the latter. The others hold
    nothing that could part sources.

    ``mixture`` fits normal distributions with full covariance to eight draws from the posterior of every row, so that
    a row counts where it may be; the information criterion counts rows, not draws, and a row's probability is the mean
    over its draws. Nothing is deconvolved: the draws hold the prior, and clusters are as wide as they are blurred.

    ``hdbscan`` takes the means. A cluster has at least 1 % of the rows, and 5.

    Parameters
    ----------
    table : LatentTable
        Rows without latents or with the flag ``no_data`` are left out. Of more than `MAX_ROWS` the clusters are found
        from as many, drawn at random.
    method : {"mixture", "hdbscan"}
    n_clusters : int, optional
        Number of components of a mixture; that of the lowest BIC up to `MAX_CLUSTERS` if not given.
    seed : int
        Of draws and starts.

    Raises
    ------
    ParameterError
        If there are fewer than 5 rows with latents, fewer than clusters asked for, or a number is given for HDBSCAN.
    XlatentError
        If scikit-learn is missing.

    References
    ----------
    Schwarz 1978, Annals of Statistics 6, 461 (information criterion); Campello, Moulavi & Sander 2013, PAKDD, 160
    (HDBSCAN).

    Examples
    --------
    >>> z = 0.1 * np.random.default_rng(0).standard_normal((60, 8))
    >>> z[:40, 0] += 2.0
    >>> table = LatentTable.from_posterior(z, np.tile(0.01 * np.eye(8), (60, 1, 1)), {"name": ["source"] * 60})
    >>> np.bincount(find_clusters(table, n_clusters=2).label).tolist()
    [40, 20]
    """
    valid = np.flatnonzero(valid_rows(table))
    least = max(5, n_clusters or 0)
    if len(valid) < least:
        raise ParameterError(f"clusters need {least} rows with latents, the table has {len(valid)}; add spectra")
    if n_clusters is not None and n_clusters < 1:
        raise ParameterError(f"the number of clusters is 1 or more, found {n_clusters}")
    if method == "hdbscan" and n_clusters is not None:
        raise ParameterError("HDBSCAN finds the number of clusters itself; leave it out, or take a mixture")
    sample = subsample(valid, MAX_ROWS, seed)
    axes = _measured_directions(table[sample])
    if method == "hdbscan":
        found, bic = _run_hdbscan(table.z @ axes, sample, valid), dict[int, float]()
    else:
        found, bic = _fit_mixture(table, axes, sample, valid, n_clusters, seed)
    found = found[:, np.argsort(-found.sum(axis=0), kind="stable")]
    membership = np.full((len(table), found.shape[1]), np.nan)
    membership[valid] = found
    label = np.full(len(table), -1)
    probability = np.full(len(table), np.nan)
    probability[valid] = found.max(axis=1, initial=0.0)
    inside = valid[probability[valid] > 0.0]
    label[inside] = membership[inside].argmax(axis=1) if found.shape[1] else -1
    return Clustering(label, probability, membership, bic)


def _measured_directions(table: LatentTable) -> Float[np.ndarray, "8 d"]:
    """Directions of latent space in which sources differ by more than a share of their errors, in units of these."""
    from scipy.linalg import eigh

    error = table.covariance.mean(axis=0) + _RIDGE * np.eye(N_LATENTS)
    ratio, axes = eigh(np.cov(table.z.T), error)
    share = ratio / (1.0 + ratio)
    return axes[:, share >= min(_MIN_VARIANCE_SHARE, float(np.max(share)))]


def _fit_mixture(
    table: LatentTable,
    axes: Float[np.ndarray, "8 d"],
    sample: Int[np.ndarray, " s"],
    valid: Int[np.ndarray, " m"],
    n_clusters: int | None,
    seed: int,
) -> tuple[Float[np.ndarray, "m n_clusters"], dict[int, float]]:
    """Membership of the valid rows in a mixture fitted to draws of the sample, and the criterion by components."""
    with requires_extra("science", "sklearn"):
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.mixture import GaussianMixture

    rng = np.random.default_rng(seed)
    n_axes = axes.shape[1]
    draws = np.concatenate([chunk.reshape(-1, n_axes) for chunk in _posterior_draws(table, axes, sample, rng)])

    def fit(n_components: int) -> Any:
        with warnings.catch_warnings():
            # There may be fewer different points than components.
            warnings.simplefilter("ignore", ConvergenceWarning)
            mixture = GaussianMixture(n_components, reg_covar=_RIDGE, max_iter=500, random_state=seed)
            return mixture.fit(draws)

    if n_clusters is not None:
        best, bic = fit(n_clusters), {}
    else:
        fits = {n: fit(n) for n in range(1, 1 + max(1, min(MAX_CLUSTERS, len(sample) // _ROWS_EACH)))}
        bic = {n: _bic(fits[n], draws, len(sample)) for n in fits}
        best = fits[min(bic, key=lambda n: bic[n])]
    membership = [
        best.predict_proba(chunk.reshape(-1, n_axes)).reshape(*chunk.shape[:2], -1).mean(axis=1)
        for chunk in _posterior_draws(table, axes, valid, rng)
    ]
    return np.concatenate(membership), bic


def _bic(mixture: Any, draws: Float[np.ndarray, "n_draws d"], n_rows: int) -> float:
    """Bayesian information criterion -2 ln L + p ln n, a row's ln L the mean of its draws'."""
    n_axes = draws.shape[1]
    n_parameters = mixture.n_components * (1 + n_axes + n_axes * (n_axes + 1) // 2) - 1
    return float(-2.0 * n_rows * mixture.score(draws) + n_parameters * np.log(n_rows))


def _posterior_draws(
    table: LatentTable, axes: Float[np.ndarray, "8 d"], rows: Int[np.ndarray, " m"], rng: np.random.Generator
) -> Iterator[Float[np.ndarray, "k draws d"]]:
    """Draws from the posteriors of the rows along some axes, chunk by chunk."""
    for begin in range(0, len(rows), _CHUNK):
        chunk = table[rows[begin : begin + _CHUNK]]
        # Rounding may have made a matrix indefinite: eigenvalues below zero are zero.
        values, vectors = np.linalg.eigh(axes.T @ chunk.covariance @ axes)
        root = vectors * np.sqrt(np.maximum(values, 0.0))[:, None, :]
        normal = rng.standard_normal((len(chunk), _DRAWS, axes.shape[1]))
        yield (chunk.z @ axes)[:, None, :] + np.einsum("nij,ndj->ndi", root, normal)


def _run_hdbscan(
    z: Float[np.ndarray, "n d"], sample: Int[np.ndarray, " s"], valid: Int[np.ndarray, " m"]
) -> Float[np.ndarray, "m n_clusters"]:
    """Membership of the valid rows in the clusters of the sample."""
    with requires_extra("science", "sklearn"):
        from sklearn.cluster import HDBSCAN
    from scipy.spatial import KDTree

    found = HDBSCAN(min_cluster_size=max(5, int(_MIN_CLUSTER_SHARE * len(sample))), copy=True).fit(z[sample])
    # A row that was not in the sample belongs where its nearest does.
    nearest = KDTree(z[sample]).query(z[valid])[1]
    label, probability = found.labels_[nearest], found.probabilities_[nearest]
    return np.where(label[:, None] == np.arange(found.labels_.max() + 1), probability[:, None], 0.0)
