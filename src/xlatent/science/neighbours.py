"""The nearest sources to a query in z, by a distance that respects the errors of both."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from xlatent.errors import ParameterError, ReadError, WriteError
from xlatent.science.measurement import measured

_BLOCK = 512  # rows of a block at most
_GROUP = 32  # blocks of a group
_GROUPS = 32  # groups whose blocks a query considers
_LOOK = 96  # blocks a query reads, nearest first
_CANDIDATES = 1024  # of their rows, judged by the full distance
_FILES = (
    "rows", "z", "covariance", "block_centre", "block_extent", "block_covariance", "group_centre", "group_extent",
)  # fmt: skip
_UNMEASURED = 1e4  # variance of what the query does not measure, where that of the prior is 1


@dataclass(frozen=True, eq=False)
class Neighbours:
    """The rows of an index nearest to a query, nearest first.

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

    rows: Int[np.ndarray, "k"]
    log_odds: Float[np.ndarray, "k"]
    distance: Float[np.ndarray, "k"]


class Index:
    """Blocks of rows that are close in z, in files mapped to memory: cuts at the median of the widest axis.

    SciPy's exact tree cannot be mapped and knows one metric for all queries, where each query has its own; this reads
    the blocks nearest in the query's metric, and ranks their rows by the full distance.

    Parameters
    ----------
    arrays : dict of arrays
        By the names of `_FILES`.
    model : str
        Checksum of the model whose latents they are.
    """

    def __init__(self, arrays: dict[str, np.ndarray], model: str = "") -> None:
        self._arrays, self.model = arrays, model

    def check(self, z: Float[np.ndarray, "n d"], model: str) -> None:
        """Make sure that these are the latents that were indexed.

        Raises
        ------
        ParameterError
            If they are not.
        """
        rows = np.asarray(self._arrays["rows"]).ravel()
        filled = rows >= 0
        finite = np.isfinite(z).all(axis=1)
        same = model == self.model and filled.sum() == finite.sum() and rows.max() < len(z)
        if not same or not np.array_equal(
            self._arrays["z"].reshape(-1, z.shape[1])[filled], np.float32(z[rows[filled]])
        ):
            raise ParameterError("the index is of another table or another model; remove its folder and build it again")

    @classmethod
    def build(cls, z: Float[np.ndarray, "n d"], covariance: Float[np.ndarray, "n d d"], model: str = "") -> "Index":
        """Index rows by posterior mean and covariance; rows that are not finite are left out.

        Raises
        ------
        ParameterError
            If no row is finite.
        """
        rows = np.flatnonzero(np.isfinite(z).all(axis=1) & np.isfinite(covariance).all(axis=(1, 2)))
        if not len(rows):
            raise ParameterError("no row has latents with finite errors; give a table that has")
        size = np.log(np.trace(covariance[rows], axis1=1, axis2=2))
        # Errors are cut as z is: one typical covariance then speaks for a block.
        places = np.column_stack([z[rows], size])
        blocks, waiting = [], [np.arange(len(rows))]
        while waiting:
            block = waiting.pop()
            if len(block) <= _BLOCK:
                blocks.append(rows[block])
                continue
            axis = int(np.argmax(np.ptp(places[block], axis=0)))
            cut = np.argpartition(places[block, axis], len(block) // 2)
            waiting += [block[cut[: len(block) // 2]], block[cut[len(block) // 2 :]]]
        # All blocks have as many places; those that stay empty have row -1 and repeat the block's first row.
        width = max(map(len, blocks))
        order = np.stack([np.append(block, np.full(width - len(block), -1)) for block in blocks])
        place = np.where(order < 0, order[:, :1], order)
        centre, errors = _moments([(z[block], covariance[block]) for block in blocks])
        inner = np.stack([covariance[block].mean(axis=0) for block in blocks])
        groups = np.arange(0, len(blocks), _GROUP)
        coarse, extent = _moments([(centre[g : g + _GROUP], errors[g : g + _GROUP]) for g in groups])
        arrays = {
            "rows": order,
            "z": z[place].astype(np.float32),
            "covariance": covariance[place].astype(np.float32),
            "block_centre": centre,
            "block_extent": errors,
            "block_covariance": inner,
            "group_centre": coarse,
            "group_extent": extent,
        }
        return cls(arrays, model)

    def save(self, folder: str | Path) -> Path:
        """Write the index into a new folder, whole or not at all.

        Raises
        ------
        WriteError
            If the folder is there already, or cannot be made.
        """
        folder = Path(folder)
        if folder.exists():
            raise WriteError(f"{folder} is there already; name a new folder for the index or remove this one")
        unfinished = folder.with_name(f".{folder.name}.{os.getpid()}")
        try:
            unfinished.mkdir()
            for name in _FILES:
                np.save(unfinished / f"{name}.npy", self._arrays[name])
            (unfinished / "index.json").write_text(
                json.dumps({"model_sha256": self.model, "rows": int(np.sum(self._arrays["rows"] >= 0))})
            )
            unfinished.replace(folder)
        except OSError as error:
            raise WriteError(f"{folder} cannot be made ({error.strerror or error}); choose another folder") from error
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> "Index":
        """Map an index that `save` wrote; rows are read from the disk when they are asked for.

        Raises
        ------
        ReadError
            If it is none.
        """
        folder = Path(folder)
        try:
            arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in _FILES}
            model = json.loads((folder / "index.json").read_text())["model_sha256"]
        except (OSError, ValueError, KeyError) as error:
            raise ReadError(f"{folder}: is not an index of latents ({error}); build it again") from error
        return cls(arrays, model)

    def search(
        self, z: Float[np.ndarray, "d"], covariance: Float[np.ndarray, "d d"], k: int = 10, exact: bool = False
    ) -> Neighbours:
        """Find the ``k`` nearest rows to a posterior, judged by mean and covariance of both.

        Parameters
        ----------
        z, covariance : arrays [8], [8, 8]
            Posterior of the query under the unit normal prior.
        k : int
            How many, at most.
        exact : bool
            Judge all rows by the full distance, which takes as long as it takes.

        Raises
        ------
        ParameterError
            If the query is not finite.
        """
        if not (np.isfinite(z).all() and np.isfinite(covariance).all()):
            raise ParameterError("the query has no latents with finite errors; give a spectrum that has")
        known, spread = _without_prior(z, covariance)
        store = self._arrays
        blocks = np.arange(len(store["rows"])) if exact else self._near(known, spread)
        rows = np.asarray(store["rows"][blocks]).ravel()
        filled = np.flatnonzero(rows >= 0)
        z_rows = np.asarray(store["z"][blocks], np.float64)
        if not exact and len(filled) > _CANDIDATES:
            root = np.linalg.cholesky(spread + store["block_covariance"][blocks])
            left = (known - z_rows) @ np.linalg.inv(root).transpose(0, 2, 1)
            near = 0.5 * np.sum(left**2, axis=-1) + np.log(np.diagonal(root, axis1=1, axis2=2)).sum(axis=1)[:, None]
            best = np.argpartition(near.ravel()[filled], _CANDIDATES - 1)[:_CANDIDATES]
            filled = filled[best]
        rows, z_rows = rows[filled], z_rows.reshape(-1, len(z))[filled]
        block, place = np.divmod(filled, store["rows"].shape[1])
        covariances = store["covariance"][blocks[block], place]
        spreads = covariances.astype(np.float64)
        log_odds = _log_density(known - z_rows, spread + spreads)
        log_odds -= _log_density(known[None], spread[None] + np.eye(len(z)))
        best = np.argsort(-log_odds, kind="stable")[:k]
        move = z - z_rows[best]
        scaled = np.linalg.solve(covariance + spreads[best], move[..., None])[..., 0]
        return Neighbours(rows[best], log_odds[best], np.sqrt(np.sum(move * scaled, axis=1)))

    def _near(self, z: np.ndarray, spread: np.ndarray) -> np.ndarray:
        """Blocks in which rows near the query are likely: groups of blocks first, then the blocks of the best."""
        store = self._arrays
        density = _log_density(z - store["group_centre"], spread + store["group_extent"])
        groups = np.argsort(-density, kind="stable")[:_GROUPS]
        blocks = np.sort((groups[:, None] * _GROUP + np.arange(_GROUP)).ravel())
        blocks = blocks[blocks < len(store["rows"])]
        density = _log_density(z - store["block_centre"][blocks], spread + store["block_extent"][blocks])
        return np.sort(blocks[np.argsort(-density, kind="stable")[:_LOOK]])


def _moments(parts: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Centre of each part, and its mean covariance with the scatter of its members added."""
    centre = np.stack([z.mean(axis=0) for z, _ in parts])
    extent = np.stack([c.mean(axis=0) + np.cov(z.T, bias=True) for z, c in parts])
    return centre, extent


def _without_prior(z: np.ndarray, covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What the query's data alone say of z: mean and covariance, wide where they say nothing."""
    data = measured(z[None], covariance[None])
    slopes = data.slopes[0]
    information = slopes.T @ slopes
    spread = np.linalg.inv(information + np.eye(len(z)) / _UNMEASURED)
    return spread @ slopes.T @ data.values[0], spread


def _log_density(left: np.ndarray, covariance: np.ndarray) -> Any:
    """Logarithm of centred normal densities, (2π)^(-d/2) left out."""
    root = np.linalg.cholesky(covariance)
    white = np.linalg.solve(root, left[..., None])[..., 0]
    return -0.5 * np.sum(white**2, axis=-1) - np.sum(np.log(np.diagonal(root, axis1=-2, axis2=-1)), axis=-1)
