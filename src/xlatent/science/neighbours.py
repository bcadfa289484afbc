"""The nearest sources to a query in z, by a distance that respects the errors of both."""

import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from xlatent.core.atomic import atomic_folder
from xlatent.core.errors import ParameterError, ReadError
from xlatent.core.latent_columns import N_LATENTS
from xlatent.science.measurement import remove_prior

_BLOCK = 256  # rows of a block
_GROUP = 32  # blocks of a group
# ln|C| is cut beside z with this weight; a factor of two either way costs little.
_ERROR_WEIGHT = 0.05
# What a query looks into, by the number of directions that it measures. Rows near one that measures few lie anywhere in
# the others, hence in many blocks, and are quick to judge. The scatter of a block's rows counts more than once: the
# nearest of them are not its typical ones. Read off where brute force finds the ten nearest of 10^7 rows.
_GROUPS = (1, 500, 500, 250, 250, 250, 100, 100, 100)
_BLOCKS = (1, 1000, 1000, 500, 500, 500, 250, 250, 250)
_SCATTER = (5.0, 5.0, 5.0, 3.0, 3.0, 3.0, 1.0, 1.0, 1.0)
_CANDIDATES = 8192  # of their rows, judged by their own errors
_CHUNK = 8192  # rows at a time, so that what is made of them stays in the processor's cache
_FILES = (
    "rows", "z", "triangle",
    *(f"{part}_{what}" for part in ("block", "group") for what in ("centre", "errors", "scatter")),
)  # fmt: skip
_LOWER = np.tril_indices(N_LATENTS)


@dataclass(frozen=True, eq=False)
class Neighbours:
    """Hold the rows of an index nearest to a query, nearest first.

    Attributes
    ----------
    rows : array of int [k]
        Row numbers of the table that was indexed.
    log_odds : array [k]
        ln of how much more likely the query's data are with the z of this row than with that of any source (a draw
        from the prior). This is what rows are ordered by: one of which little is known is near nothing.
    distance : array [k]
        Length of the difference of posterior means in units of its standard deviation, both errors considered.
    """

    rows: Int[np.ndarray, " k"]
    log_odds: Float[np.ndarray, " k"]
    distance: Float[np.ndarray, " k"]


class Index:
    """Index rows in blocks that are alike in z and in their errors, in files mapped to memory.

    Libraries for nearest neighbours know one metric; here each query has its own for each row, and one that measures
    two directions of z has its neighbours anywhere in the other six. Among 300,000 realistic posteriors the 4,096 rows
    that faiss finds nearest in z hold 1, 25 and 68 % of the ten nearest to queries of 1-2, 3-5 and 6-8 measured
    directions, eight of its indexes by size of error and four times as many rows 37, 71 and 96 %
    (`benchmarks/search.py` has the numbers of this one).

    Parameters
    ----------
    arrays : dict of arrays
        By the names of `_FILES`; covariances are their lower triangles in single precision, which costs 1e-5 in
        log odds.
    model : str
        Checksum of the model whose latents they are.
    checksum : int
        Of the first latent of all rows of the table.

    Examples
    --------
    >>> z = np.random.default_rng(0).standard_normal((100, 8))
    >>> covariance = np.tile(0.01 * np.eye(8), (100, 1, 1))
    >>> index = Index.build(z, covariance)
    >>> found = index.search(z[42], covariance[42], k=3)
    >>> int(found.rows[0]), round(float(found.distance[0]), 3)
    (42, 0.0)
    """

    def __init__(self, arrays: dict[str, np.ndarray], model: str = "", checksum: int = 0) -> None:
        self._arrays, self.model, self.checksum = arrays, model, checksum

    def check(self, z0: Float[np.ndarray, " n"], model: str) -> None:
        """Check that the index is of the table whose first latent is ``z0``, and of this model.

        Raises
        ------
        ParameterError
            If it is not.
        """
        if (model, _checksum(z0)) != (self.model, self.checksum):
            raise ParameterError("the index is of another table or another model; remove its folder and build it again")

    @classmethod
    def build(cls, z: Float[np.ndarray, "n d"], covariance: Float[np.ndarray, "n d d"], model: str = "") -> "Index":
        """Index rows by posterior mean and covariance; rows that are not finite are left out.

        Raises
        ------
        ParameterError
            If no row is finite.
        """
        finite, log_determinant = np.empty(len(z), bool), np.empty(len(z), np.float32)
        total = np.zeros((N_LATENTS, N_LATENTS))
        for part in _parts(len(z), _CHUNK):
            finite[part] = np.isfinite(z[part]).all(axis=1) & np.isfinite(covariance[part]).all(axis=(1, 2))
            known = np.where(finite[part, None, None], covariance[part], 0.0)
            log_determinant[part] = np.linalg.slogdet(known + 1e-12 * np.eye(N_LATENTS))[1]
            total += known.sum(axis=0)
        order = np.flatnonzero(finite)
        if not len(order):
            raise ParameterError("no row has latents with finite errors; give a table that has")
        # z along what these rows' data measure, in units of the share of the prior's variance that they take away.
        share, axes = np.linalg.eigh(np.eye(N_LATENTS) - total / len(order))
        scale = axes * np.clip(share, 0.01, None)
        places = np.empty((len(order), N_LATENTS + 1), np.float32)
        for part in _parts(len(order), _CHUNK):
            places[part, :-1], places[part, -1] = z[order[part]] @ scale, _ERROR_WEIGHT * log_determinant[order[part]]
        order = order[_order_by_bisection(places)]
        del places
        # The last block is filled up with its first row, under the number -1.
        n_blocks = -(-len(order) // _BLOCK)
        empty = n_blocks * _BLOCK - len(order)
        rows = np.append(order, np.full(empty, -1)).reshape(n_blocks, _BLOCK)
        place = np.where(rows < 0, rows[:, :1], rows)
        arrays = {
            "rows": rows,
            "z": np.empty((n_blocks, N_LATENTS, _BLOCK), np.float32),
            "triangle": np.empty((n_blocks, _BLOCK, len(_LOWER[0])), np.float32),
        }
        for part in _parts(n_blocks, _CHUNK // _BLOCK):
            arrays["z"][part] = z[place[part]].transpose(0, 2, 1)
            arrays["triangle"][part] = covariance[place[part]][..., *_LOWER]
        for name, width in (("block", 1), ("group", _GROUP)):
            moments = [_moments(arrays["z"][part], arrays["triangle"][part]) for part in _parts(n_blocks, width)]
            for what, column in zip(("centre", "errors", "scatter"), zip(*moments, strict=True), strict=True):
                arrays[f"{name}_{what}"] = np.stack(column)
        return cls(arrays, model, _checksum(z[:, 0]))

    def save(self, folder: str | Path) -> Path:
        """Write the index into a new folder, whole or not at all.

        Raises
        ------
        WriteError
            If the folder is there already, or cannot be made.

        Examples
        --------
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp()) / "index"
        >>> _ = Index.build(np.zeros((5, 8)), np.tile(np.eye(8), (5, 1, 1))).save(folder)
        >>> Index.load(folder).search(np.zeros(8), 0.1 * np.eye(8), k=2).distance.tolist()
        [0.0, 0.0]
        """
        folder = Path(folder)
        with atomic_folder(folder) as temporary:
            for name in _FILES:
                np.save(temporary / f"{name}.npy", self._arrays[name])
            about = {"model_sha256": self.model, "checksum": self.checksum}
            (temporary / "index.json").write_text(json.dumps(about))
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> "Index":
        """Map an index that `save` wrote to memory; rows are read from the disk when they are asked for.

        Raises
        ------
        ReadError
            If the folder is no index, or is damaged.
        """
        folder = Path(folder)
        try:
            arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in _FILES}
            about = json.loads((folder / "index.json").read_text())
            return cls(arrays, about["model_sha256"], about["checksum"])
        except (OSError, ValueError, KeyError) as error:
            raise ReadError(f"{folder}: is not an index of latents ({error}); build it again") from error

    def search(
        self, z: Float[np.ndarray, " d"], covariance: Float[np.ndarray, "d d"], k: int = 10, exact: bool = False
    ) -> Neighbours:
        """Find the ``k`` nearest rows to a posterior, judged by mean and covariance of both.

        Parameters
        ----------
        z, covariance : arrays [8], [8, 8]
            Posterior of the query under the unit normal prior.
        k : int
            How many, at most.
        exact : bool
            Compare all rows by the full distance, a second per three million; always so where ``k`` is above 2,048.

        Raises
        ------
        ParameterError
            If the query is not finite.
        """
        if not (np.isfinite(z).all() and np.isfinite(covariance).all()):
            raise ParameterError("the query has no latents with finite errors; give a spectrum that has")
        query, store = _Query(z, covariance), self._arrays
        if exact or 4 * k > _CANDIDATES:
            parts = _parts(len(store["rows"]), _CHUNK // _BLOCK)
            density = np.concatenate([query.log_density(_flat(store["z"][p]), store["triangle"][p]) for p in parts])
            block, place = np.divmod(np.arange(density.size), _BLOCK)
        else:
            block, place = self._candidates(query, self._select_blocks(query))
            density = query.log_density(store["z"][block, :, place].T, store["triangle"][block, place])
        rows = store["rows"][block, place]
        density = np.where(rows < 0, -np.inf, density)
        best = _highest(density, k)
        best = best[np.argsort(-density[best], kind="stable")]
        best = best[rows[best] >= 0]
        errors = np.zeros((len(best), N_LATENTS, N_LATENTS))
        errors[:, *_LOWER] = errors[:, *_LOWER[::-1]] = store["triangle"][block[best], place[best]]
        move = z - store["z"][block[best], :, place[best]]
        scaled = np.linalg.solve(covariance + errors, move[..., None])[..., 0]
        distance = np.sqrt(np.sum(move * scaled, axis=1))
        return Neighbours(rows[best], density[best] - query.log_density_of_prior(), distance)

    def _select_blocks(self, query: "_Query") -> np.ndarray:
        """Select blocks in which rows near the query are likely: groups of blocks first, then blocks of the best."""
        n_blocks = len(self._arrays["rows"])
        groups = np.sort(self._most_likely(query, "group", np.arange(-(-n_blocks // _GROUP)), _GROUPS[query.n]))
        blocks = (groups[:, None] * _GROUP + np.arange(_GROUP)).ravel()
        return np.sort(self._most_likely(query, "block", blocks[blocks < n_blocks], _BLOCKS[query.n]))

    def _most_likely(self, query: "_Query", part: str, chosen: np.ndarray, number: int) -> np.ndarray:
        if len(chosen) <= number:
            return chosen
        centre, errors, scatter = (self._arrays[f"{part}_{what}"][chosen] for what in ("centre", "errors", "scatter"))
        density = query.log_density(centre.T, errors, errors + np.float32(_SCATTER[query.n]) * scatter)
        return chosen[_highest(density, number)]

    def _candidates(self, query: "_Query", blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Find block and place of the rows that are nearest if all rows of a block have its mean errors."""
        store = self._arrays
        inverse = np.linalg.inv(query.spread(store["block_errors"][blocks]).transpose(2, 0, 1))
        residual = query.values[:, None] - query.slopes @ store["z"][blocks]
        density = np.linalg.slogdet(inverse)[1][:, None] - np.einsum("biw,biw->bw", inverse @ residual, residual)
        block, place = np.divmod(np.sort(_highest(density.ravel(), _CANDIDATES)), _BLOCK)
        return blocks[block], place


class _Query:
    """What the data of a query measure, ``values = slopes z`` with unit noise, and how likely that is for given rows.

    The prior is taken out of the query and stays in the rows: of those it says where they may be. Measured directions
    alone are compared, so that a query which measures two of them is judged by matrices of two rows.
    """

    def __init__(self, z: np.ndarray, covariance: np.ndarray) -> None:
        data = remove_prior(z[None], covariance[None])
        self.n = int(data.constrained.sum())
        kept = max(self.n, 1)  # one that measures nothing finds all rows alike
        self.slopes = data.slopes[0, :kept].astype(np.float32)
        self.values = data.values[0, :kept].astype(np.float32)
        # slopes C slopesᵀ as a matrix times the lower triangle of C.
        i, j = _LOWER
        both = self.slopes[:, None, i] * self.slopes[:, j]
        both = np.where(i == j, both, both + both.transpose(1, 0, 2))
        self._lower = np.tril_indices(kept)
        self._weights = both[self._lower]

    def spread(self, triangle: np.ndarray) -> np.ndarray:
        """Compute the covariance [k, k, n] of the values for rows with these triangles [n, 36]."""
        matrix = np.empty((len(self.values), len(self.values), len(triangle)), np.float32)
        matrix[self._lower] = matrix[self._lower[::-1]] = self._weights @ triangle.T
        matrix[range(len(matrix)), range(len(matrix))] += 1.0
        return matrix

    def log_density(self, z: np.ndarray, triangle: np.ndarray, extent: np.ndarray | None = None) -> np.ndarray:
        """Compute ln of the density of the values for rows of mean z [8, n], (2π)^(-k/2) left out.

        With ``extent`` [n, 36] it is that at the distance from something as wide, at which rows of these errors lie.
        """
        triangle = triangle.reshape(-1, len(_LOWER[0]))
        residual = self.values[:, None] - self.slopes @ z
        distance, log_size = _eliminate(self.spread(triangle if extent is None else extent), residual)
        if extent is not None:
            log_size = _eliminate(self.spread(triangle), np.zeros_like(residual))[1]
        return -0.5 * (distance + log_size)

    def log_density_of_prior(self) -> float:
        """Compute `log_density` of the prior."""
        prior = np.eye(N_LATENTS, dtype=np.float32)[_LOWER][None]
        return float(self.log_density(np.zeros((N_LATENTS, 1), np.float32), prior)[0])


def _eliminate(matrix: np.ndarray, vector: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return xᵀM⁻¹x and ln|M| of matrices [k, k, n] and vectors [k, n], which are lost.

    Elimination after Gauss, all matrices side by side: NumPy calls LAPACK for each, which takes ten times as long.
    """
    distance, size = np.zeros(vector.shape[1], vector.dtype), np.ones(vector.shape[1], vector.dtype)
    for j in range(len(vector)):
        factor = matrix[j + 1 :, j] / matrix[j, j]
        distance += vector[j] ** 2 / matrix[j, j]
        size *= matrix[j, j]
        vector[j + 1 :] -= factor * vector[j]
        for i in range(j + 1, len(vector)):
            matrix[i:, i] -= factor[i - j - 1 :] * matrix[i, j]
    return distance, np.log(size)


def _order_by_bisection(places: np.ndarray) -> np.ndarray:
    """Order that brings rows near each other into one block: cuts in two across the widest axis; moves ``places``."""
    order = np.arange(len(places))
    waiting = [(0, -(-len(places) // _BLOCK))]
    while waiting:
        first, last = waiting.pop()
        if last - first < 2:
            continue
        middle = (first + last) // 2
        part = slice(first * _BLOCK, last * _BLOCK)
        axis = int(np.argmax(places[part].std(axis=0)))
        cut = np.argpartition(places[part, axis], (middle - first) * _BLOCK)
        places[part], order[part] = places[part][cut], order[part][cut]
        waiting += [(first, middle), (middle, last)]
    return order


def _moments(z: np.ndarray, triangle: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centre of some blocks' rows, their mean covariance and their scatter."""
    z = _flat(z)
    centre = z.mean(axis=1)
    offset = z - centre[:, None]
    return centre, triangle.mean(axis=(0, 1)), (offset @ offset.T)[_LOWER] / z.shape[1]


def _flat(z: np.ndarray) -> np.ndarray:
    """Rows [8, n] of blocks [b, 8, rows]."""
    return z.transpose(1, 0, 2).reshape(N_LATENTS, -1)


def _highest(values: np.ndarray, number: int) -> np.ndarray:
    """Places of the highest values, in no order; all if there are no more."""
    return np.argpartition(-values, number - 1)[:number] if number < len(values) else np.arange(len(values))


def _parts(n: int, size: int) -> Iterator[slice]:
    return (slice(begin, min(begin + size, n)) for begin in range(0, n, size))


def _checksum(z0: np.ndarray) -> int:
    return zlib.crc32(np.asarray(z0, np.float32).tobytes())
