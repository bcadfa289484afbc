"""The direction in z that sets accreting compact objects apart from AGN and from coronal sources."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Shaped

from xlatent.core.atomic import atomic
from xlatent.core.errors import ParameterError, ReadError
from xlatent.core.latents import LatentTable
from xlatent.science.resampling import N_FOLDS
from xlatent.science.weighted_scores import roc_area

GROUPS: dict[str, tuple[str, ...]] = {
    "compact": ("HMXB", "LMXB", "CV"),
    "AGN": ("AGN",),
    "coronal": ("YSO", "LM-STAR"),
}
"""Classes of each side. Most isolated neutron stars do not accrete, and winds of massive stars are no coronae."""

MIN_SOURCES = 20
_OTHERS = ("AGN", "coronal")  # what compact objects are told from
_RESAMPLES = 100
_MIXES = np.linspace(0.0, 1.0, 41)
_LEAST_VARIANCE = 1e-12


@dataclass(frozen=True, eq=False)
class Direction:
    """Hold a coordinate ``a = vector @ z + offset``, in standard deviations of a group, larger for compact objects.

    It is 0 halfway between their mean and that of the nearer of the two other groups.

    Attributes
    ----------
    vector, vector_err : array [8]
        Its error from resampled sources.
    offset : float
    auc : dict
        By ``AGN`` and ``coronal``: probability that a compact object has the larger value of the two, of sources left
        out of the fit, with their own errors in it.
    auc_err : dict
        Standard error of each, for the same number of sources.
    model : str
        Checksum of the model whose latents these are.
    """

    vector: Float[np.ndarray, " d"]
    vector_err: Float[np.ndarray, " d"]
    offset: float
    auc: dict[str, float]
    auc_err: dict[str, float]
    model: str = ""

    def project(
        self, z: Float[np.ndarray, "n d"], covariance: Float[np.ndarray, "n d d"]
    ) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        """Project posteriors on the direction: value of each source, and its standard deviation.

        Examples
        --------
        >>> line = Direction(np.eye(8)[0], np.zeros(8), -1.0, {}, {})
        >>> value, error = line.project(np.full((1, 8), 3.0), 0.25 * np.eye(8)[None])
        >>> value.tolist(), error.tolist()
        ([2.0], [0.5])
        """
        return z @ self.vector + self.offset, np.sqrt(np.einsum("i,nij,j->n", self.vector, covariance, self.vector))

    def columns(self, table: LatentTable) -> dict[str, np.ndarray]:
        """Place the rows of a latent table on the direction: columns ``accretion`` and ``accretion_err``.

        Examples
        --------
        >>> table = LatentTable.from_posterior(np.ones((1, 8)), np.eye(8)[None], {"name": ["a"]})
        >>> Direction(np.eye(8)[0], np.zeros(8), 0.5, {}, {}).columns(table)["accretion"].tolist()
        [1.5]
        """
        value, error = self.project(table.z, table.covariance)
        return {"accretion": value, "accretion_err": error}

    def formula(self) -> str:
        """Write the coordinate as a formula of the latents, largest term first.

        Examples
        --------
        >>> Direction(np.array([0.5, -2.0]), np.zeros(2), 0.1, {}, {}).formula()
        'a = -2.000 z1 +0.500 z0 +0.100'
        """
        order = np.argsort(-np.abs(self.vector))
        return "a = " + " ".join([*(f"{self.vector[i]:+.3f} z{i}" for i in order), f"{self.offset:+.3f}"])

    def decode_along(
        self, decode: Callable[[np.ndarray], np.ndarray], values: Float[np.ndarray, " m"]
    ) -> Float[np.ndarray, "m n_energy"]:
        """Decode spectra along the direction, each at the z nearest the origin that has the value.

        Parameters
        ----------
        decode : callable
            Decoder, z [m, 8] -> photons per bin [m, n_energy], as ``LatentModel.decode``.
        values : array [m]
            Places on the direction.

        Examples
        --------
        >>> line = Direction(np.array([0.0, 2.0]), np.zeros(2), 0.0, {}, {})
        >>> line.decode_along(lambda z: z, np.array([4.0])).tolist()
        [[0.0, 2.0]]
        """
        return decode((values - self.offset)[:, None] * self.vector / (self.vector @ self.vector))

    def save(self, path: str | Path) -> Path:
        """Write the direction as JSON, whole or not at all.

        Raises
        ------
        WriteError
            If the file cannot be written.

        Examples
        --------
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "direction.json"
        >>> line = Direction(np.eye(8)[0], np.zeros(8), 0.5, {"AGN": 0.7}, {"AGN": 0.02})
        >>> Direction.load(line.save(path)).offset
        0.5
        """
        path = Path(path)
        content = {name: getattr(self, name) for name in ("offset", "auc", "auc_err", "model")}
        content |= {"vector": self.vector.tolist(), "vector_err": self.vector_err.tolist()}
        with atomic(path) as temporary:
            temporary.write_text(json.dumps(content, indent=1) + "\n")
        return path

    @classmethod
    def load(cls, path: str | Path) -> "Direction":
        """Read a direction that `save` wrote.

        Raises
        ------
        ReadError
            If the file is missing or is no direction.
        """
        try:
            content = json.loads(Path(path).read_text())
            vector, error = (np.array(content.pop(name), float) for name in ("vector", "vector_err"))
            return cls(vector, error, **content)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ReadError(
                f"{path}: is not a direction written by xlatent accretion ({error}); make it again"
            ) from error


def learn_direction(
    z: Float[np.ndarray, "n d"],
    covariance: Float[np.ndarray, "n d d"],
    classes: Shaped[np.ndarray, " n"],
    sources: Shaped[np.ndarray, " n"],
    model: str = "",
    seed: int = 0,
) -> Direction:
    """Learn the direction in which compact objects lie farthest from AGN and coronal sources, whichever is nearer.

    Each group is a Gaussian in z, as wide as its posteriors together. For any weight of the two differences of means,
    Fisher's discriminant [1]_ is the best direction; the weight is the one for which the smaller of the two
    separations, in standard deviations, is largest. A search for the line with the largest smaller AUC found none
    better: on labelled CSC sources (three band fluxes) 0.62, on simulated spectra of the same classes 0.68, both as
    here. Classes bound it: CV and LMXB lie among the AGN, and absorbed YSO are as hard as they are. Areas under the ROC
    curve have the errors of [2]_.

    Parameters
    ----------
    z, covariance : arrays [n, 8], [n, 8, 8]
    classes : array of str [n]
        Rows of no class of `GROUPS` are passed over.
    sources : array [n]
        Source of each row: folds and resamples are of sources.
    model : str
        Checksum of the model.
    seed : int

    Raises
    ------
    ParameterError
        If a group has fewer than `MIN_SOURCES` sources with finite latents.

    References
    ----------
    .. [1] Fisher 1936, Annals of Eugenics 7, 179.
    .. [2] Hanley & McNeil 1982, Radiology 143, 29.

    Examples
    --------
    Compact objects higher in the first latent than the others:

    >>> classes = np.repeat(["LMXB", "AGN", "YSO"], 30)
    >>> z = 0.3 * np.random.default_rng(0).standard_normal((90, 8))
    >>> z[:30, 0] += 1.0
    >>> line = learn_direction(z, np.tile(0.01 * np.eye(8), (90, 1, 1)), classes, np.arange(90))
    >>> bool(line.vector[0] > 2.0), line.auc["AGN"] > 0.9
    (True, True)
    """
    finite = np.isfinite(z).all(axis=1) & np.isfinite(covariance).all(axis=(1, 2))
    members = {name: np.flatnonzero(finite & np.isin(classes, kinds)) for name, kinds in GROUPS.items()}
    for name, rows in members.items():
        if (number := len(np.unique(sources[rows]))) < MIN_SOURCES:
            raise ParameterError(
                f"the direction needs {MIN_SOURCES} or more sources of {', '.join(GROUPS[name])} with latents, "
                f"found {number}; give a table with more labels in its class column"
            )
    rng = np.random.default_rng(seed)
    place = np.unique(sources, return_inverse=True)[1]
    n_sources = place.max() + 1
    fold = rng.permutation(n_sources)[place] % N_FOLDS
    vector, offset = _fisher_direction(z, covariance, members)
    held_out_values = np.full(len(z), np.nan)
    for k in range(N_FOLDS):
        w, b = _fisher_direction(z, covariance, {name: rows[fold[rows] != k] for name, rows in members.items()})
        held_out_values[fold == k] = z[fold == k] @ w + b
    resampled = []
    for _ in range(_RESAMPLES):
        times = np.bincount(rng.integers(0, n_sources, n_sources), minlength=n_sources)
        drawn = {name: np.repeat(rows, times[place[rows]]) for name, rows in members.items()}
        if all(len(rows) > 1 for rows in drawn.values()):
            resampled.append(_fisher_direction(z, covariance, drawn)[0])
    auc, auc_err = {}, {}
    for name in _OTHERS:
        auc[name], auc_err[name] = roc_area(held_out_values[members["compact"]], held_out_values[members[name]])
    return Direction(vector, np.std(resampled, axis=0), offset, auc, auc_err, model)


def _fisher_direction(
    z: np.ndarray, covariance: np.ndarray, members: dict[str, np.ndarray]
) -> tuple[np.ndarray, float]:
    """Vector and offset of the direction for groups of these rows."""
    mean = {name: z[rows].mean(axis=0) for name, rows in members.items()}
    # Scatter of posterior means and mean posterior covariance add up to that of true z under the prior: a latent that
    # nobody knows, whose means scatter little, gets no weight.
    spread = {name: np.cov(z[rows].T) + covariance[rows].mean(axis=0) for name, rows in members.items()}
    within = 0.5 * spread["compact"] + 0.25 * (spread["AGN"] + spread["coronal"])
    steps = np.stack([mean["compact"] - mean[name] for name in _OTHERS])
    mixes = np.stack([_MIXES, 1.0 - _MIXES], axis=1)
    candidates = np.linalg.solve(within, (mixes @ steps).T).T
    both = np.stack([spread[name] + spread["compact"] for name in _OTHERS])
    variance = np.einsum("ni,gij,nj->ng", candidates, both, candidates)
    separation = candidates @ steps.T
    best = int(np.argmax(np.min(separation / np.sqrt(np.maximum(variance, _LEAST_VARIANCE)), axis=1)))
    vector = candidates[best] / np.sqrt(candidates[best] @ within @ candidates[best])
    nearer = _OTHERS[int(np.argmin(separation[best]))]
    return vector, float(-vector @ (mean["compact"] + mean[nearer]) / 2.0)
