"""Responses and backgrounds on the model grid, one way for training and for inference."""

import weakref
from collections.abc import Hashable
from threading import Lock
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from xlatent.core.grid import ModelGrid, reference_response_moments
from xlatent.core.spectrum import Response

# The background is averaged over as many channels as make its mean good to a tenth, but no more than the wider features
# of a detector's background span (35 channels are 500 eV of ACIS).
_ENOUGH_COUNTS, _MOST_CHANNELS = 100.0, 35.0
# Spectra of a field share redistributions. Where this many responses have shared one, its selected channels and behind
# these the detector bins are kept as one dense array, which takes longer to make than a few responses save.
_MANY = 4


class Projection(NamedTuple):
    """A response on the detector grid, as the channels that count see it.

    Attributes
    ----------
    on_grid : array [n_energy, n_chan]
        From intrinsic bins to detector bins, cm².
    unit, spread : arrays [n_chan]
        `reference_response_moments` of it.
    bins : array of int [n_selected]
        Detector bin of each selected channel, counted from 1; 0 outside the grid.
    """

    on_grid: Float32[np.ndarray, "n_energy n_chan"]
    unit: Float[np.ndarray, " n_chan"]
    spread: Float[np.ndarray, " n_chan"]
    bins: Int[np.ndarray, " n_selected"]

    def rebin(self, values: Float[np.ndarray, " n_selected"]) -> Float[np.ndarray, " n_chan"]:
        """Sum values of the selected channels into detector bins."""
        return np.bincount(self.bins, values, len(self.unit) + 1)[1:]


class Projector:
    """Projects responses on to a grid, and keeps what it found for other spectra that share them.

    Threads may share one. What it keeps goes with the responses it belongs to.

    Parameters
    ----------
    grid : ModelGrid
    capacity : int
        Responses whose projections are kept: 131 kB each, and half a megabyte with native channels.

    Examples
    --------
    >>> import numpy as np
    >>> from xlatent.core.grid import ModelGrid
    >>> from xlatent.simulate import acis
    >>> response = acis.response()
    >>> projector = Projector(ModelGrid())
    >>> projector.project(response, np.ones(1024, dtype=bool), np.array(1.0)).on_grid.shape
    (256, 128)
    """

    def __init__(self, grid: ModelGrid, capacity: int = 512) -> None:
        self.grid = grid
        self._capacity = capacity
        self._lock = Lock()
        self._kept: WeakKeyDictionary[Response, dict[Hashable, Any]] = WeakKeyDictionary()
        self._shared: dict[tuple[int, bytes], int | Float[np.ndarray, "n_energy_native n"]] = {}

    def project(
        self,
        response: Response,
        mask: Bool[np.ndarray, " n_chan_native"],
        areascale: Float[np.ndarray, " *n_chan_native"],
    ) -> Projection:
        """Project a response on to the detector grid.

        Parameters
        ----------
        response : Response
        mask : array of bool [n_chan_native]
            Channels that count.
        areascale : array, scalar or [n_chan_native]
            `Spectrum.areascale`, which acts as exposure does.
        """
        key = ("bins", mask.tobytes(), areascale.tobytes())
        found = self._lookup(response, key)
        if found is None:
            weight = np.where(mask, areascale, 0.0)
            found = self._keep(response, key, self._described(response, mask, self.grid.project(response, weight)))
        return found

    def project_native(
        self,
        response: Response,
        mask: Bool[np.ndarray, " n_chan_native"],
        areascale: Float[np.ndarray, " *n_chan_native"],
    ) -> tuple[Projection, Float32[np.ndarray, "n_energy n_selected"]]:
        """Project a response on to the detector grid, and its intrinsic side alone.

        Parameters
        ----------
        response, mask, areascale
            As in `project`.

        Returns
        -------
        projection : Projection
        area : array [n_energy, n_selected]
            From intrinsic bins to the selected native channels, cm²; one array for all spectra that share a response.
        """
        key = ("native", mask.tobytes(), areascale.tobytes())
        found = self._lookup(response, key)
        if found is None:
            area, on_grid = self._native(response, mask)
            if np.any(areascale != 1.0):
                area = area * np.broadcast_to(areascale, len(mask))[mask]
                on_grid = self.grid.rebin(area, response, mask)
            made = self._described(response, mask, on_grid), area.astype(np.float32)
            found = self._keep(response, key, made)
        return found

    def _described(
        self,
        response: Response,
        mask: Bool[np.ndarray, " n_chan_native"],
        on_grid: Float[np.ndarray, "n_energy n_chan"],
    ) -> Projection:
        unit, spread = reference_response_moments(self.grid.reference[None], on_grid, np.log(self.grid.energy_mid))
        bins = self.grid.channel_bins(response)[mask] + 1
        return Projection(on_grid.astype(np.float32), unit[0], spread[0], bins)

    def _native(
        self, response: Response, mask: Bool[np.ndarray, " n_chan_native"]
    ) -> tuple[Float[np.ndarray, "n_energy n_selected"], Float[np.ndarray, "n_energy n_chan"]]:
        """Area in native channels and in detector bins: each source of a field has its own, few matrices serve all."""
        matrix, grid = response.redistribution, self.grid
        key = (id(matrix), mask.tobytes())
        with self._lock:
            if key not in self._shared:
                weakref.finalize(matrix, self._shared.pop, key, None)
            both = self._shared.get(key, 0)
            if isinstance(both, int):
                self._shared[key] = both + 1
        if isinstance(both, int):
            if both < _MANY:
                area = grid.native_response(response, mask)
                return area, grid.rebin(area, response, mask)
            dense = matrix[:, np.flatnonzero(mask)].toarray()
            both = np.hstack([dense, grid.rebin(dense, response, mask)])
            with self._lock:
                self._shared[key] = both
        found = grid.overlap(response) @ both
        return found[:, : -grid.n_chan], found[:, -grid.n_chan :]

    def _lookup(self, response: Response, key: Hashable) -> Any:
        with self._lock:
            return self._kept.get(response, {}).get(key)

    def _keep(self, response: Response, key: Hashable, made: Any) -> Any:
        """Keep what was made, unless another thread was faster, whose result is given then."""
        with self._lock:
            if response not in self._kept and len(self._kept) >= self._capacity:
                del self._kept[next(iter(self._kept))]
            return self._kept.setdefault(response, {}).setdefault(key, made)


def background_mean(off: Float[np.ndarray, " n_selected"]) -> tuple[Float[np.ndarray, " n_selected"], float]:
    """Estimate the expected counts of a background from those that it has, averaged over neighbouring channels.

    Parameters
    ----------
    off : array [n_selected]
        Background counts in the channels that count.

    Returns
    -------
    mean : array [n_selected]
        Counts averaged by a Gaussian, as if the channels at the ends went on; the counts themselves where they are
        enough.
    averaged : float
        Number of channels in the average: as many as hold 100 counts, at least 1 and at most 35.

    Examples
    --------
    >>> import numpy as np
    >>> mean, averaged = background_mean(np.array([30.0, 50.0, 40.0, 40.0]))
    >>> averaged, mean.round(1).tolist()
    (2.5, [34.2, 43.5, 42.0, 40.1])
    """
    averaged = min(max(_ENOUGH_COUNTS / max(float(off.mean()), 1e-9), 1.0), _MOST_CHANNELS)
    if averaged == 1.0:
        return off, averaged
    sigma = averaged / (2.0 * np.sqrt(np.pi))  # a Gaussian averages over 2 sqrt(pi) of these
    reach = int(4.0 * sigma + 0.5)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    longer = np.concatenate([off[:1].repeat(reach), off, off[-1:].repeat(reach)])
    return np.correlate(longer, weights / weights.sum(), mode="valid"), averaged  # the weights are even
