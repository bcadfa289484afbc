"""The model grid: one intrinsic energy grid, one detector grid, and the projection of any response on to both."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse
from array_api_compat import array_namespace
from jaxtyping import Bool, Float, Int, Shaped

from xlatent.core.errors import ParameterError
from xlatent.core.spectrum import Response


@dataclass(frozen=True)
class ModelGrid:
    """Energies on which every spectrum, whatever its instrument, is described.

    Parameters
    ----------
    energy_lo, energy_hi : float
        Range of the intrinsic photon spectrum in keV.
    n_energy : int
        Number of intrinsic bins, equal in the logarithm of energy.
    chan_lo, chan_hi : float
        Range of the detector grid in keV.
    n_chan : int
        Number of detector bins. Their widths grow as the square root of energy, as the resolution of a silicon
        detector limited by charge statistics does.

    Raises
    ------
    ParameterError
        If the ranges do not lie within each other.

    Examples
    --------
    >>> grid = ModelGrid()
    >>> grid.energy.shape, grid.chan[[0, -1]].round(6).tolist()
    ((257,), [0.5, 8.0])
    """

    energy_lo: float = 0.3
    energy_hi: float = 10.0
    n_energy: int = 256
    chan_lo: float = 0.5
    chan_hi: float = 8.0
    n_chan: int = 128

    def __post_init__(self) -> None:
        if not (0 < self.energy_lo <= self.chan_lo < self.chan_hi <= self.energy_hi):
            raise ParameterError(
                "a model grid needs 0 < energy_lo <= chan_lo < chan_hi <= energy_hi, "
                f"got {self.energy_lo}, {self.chan_lo}, {self.chan_hi}, {self.energy_hi}"
            )

    @cached_property
    def energy(self) -> Float[np.ndarray, " n_edges"]:
        """Edges of the intrinsic bins in keV, ``[n_energy + 1]``."""
        return np.geomspace(self.energy_lo, self.energy_hi, self.n_energy + 1)

    @cached_property
    def chan(self) -> Float[np.ndarray, " n_edges"]:
        """Edges of the detector bins in keV, ``[n_chan + 1]``."""
        return np.linspace(self.chan_lo**0.5, self.chan_hi**0.5, self.n_chan + 1) ** 2

    @cached_property
    def energy_mid(self) -> Float[np.ndarray, " n_energy"]:
        """Centres of the intrinsic bins in keV."""
        return 0.5 * (self.energy[1:] + self.energy[:-1])

    @cached_property
    def energy_width(self) -> Float[np.ndarray, " n_energy"]:
        """Widths of the intrinsic bins in keV."""
        return np.diff(self.energy)

    @cached_property
    def reference(self) -> Float[np.ndarray, " n_energy"]:
        """Photons per bin of the reference spectrum, a power law of index 1.7: what sensitivity is measured with."""
        return self.energy_mid**-1.7 * self.energy_width

    def channel_bins(self, response: Response) -> Int[np.ndarray, " n_chan_native"]:
        """Find the detector bin that holds the centre of each native channel, -1 outside the grid.

        Whole channels are assigned, never split, so that counts on the grid stay Poisson and the projected response
        stays exact.
        """
        centre = 0.5 * (response.chan_lo + response.chan_hi)
        bins = np.searchsorted(self.chan, centre, side="right") - 1
        return np.where((centre >= self.chan_lo) & (centre < self.chan_hi), bins, -1)

    def rebin_counts(
        self,
        counts: Float[np.ndarray, " n_chan_native"],
        response: Response,
        mask: Bool[np.ndarray, " n_chan_native"],
    ) -> Float[np.ndarray, " n_chan"]:
        """Sum native channels into detector bins, leaving out those where ``mask`` is False."""
        bins = self.channel_bins(response)
        use = mask & (bins >= 0)
        return np.bincount(bins[use], weights=counts[use], minlength=self.n_chan)

    def native_response(
        self, response: Response, mask: Bool[np.ndarray, " n_chan_native"]
    ) -> Float[np.ndarray, "n_energy n_selected"]:
        """Project a response from intrinsic bins to the selected native channels, in cm².

        Photons are taken as uniform in energy within an intrinsic bin, which is shared among the response's own
        energy bins by overlap; photons where the response has no energies are lost, as they are in the telescope.
        """
        shared = self.overlap(response)
        # Channels are left out last: that is far quicker on rows that are dense and few.
        return np.asarray((shared @ response.redistribution).toarray()).take(np.flatnonzero(mask), axis=1)

    def rebin(
        self,
        matrix: Float[np.ndarray, "n_energy n_selected"],
        response: Response,
        mask: Bool[np.ndarray, " n_chan_native"],
    ) -> Float[np.ndarray, "n_energy n_chan"]:
        """Sum the selected native channels of `native_response` into detector bins."""
        bins = self.channel_bins(response)[mask]
        inside = bins >= 0
        begins = np.concatenate([[0], np.cumsum(inside)])
        gather = scipy.sparse.csr_array((np.ones(begins[-1]), bins[inside], begins), shape=(len(bins), self.n_chan))
        return np.asarray(matrix @ gather)

    def project(
        self, response: Response, weight: Shaped[np.ndarray, " n_chan_native"] | None = None
    ) -> Float[np.ndarray, "n_energy n_chan"]:
        """Project a response from intrinsic bins to detector bins, in cm².

        Parameters
        ----------
        response : Response
        weight : array [n_chan_native], optional
            By which native channels count, such as the mask with which the counts were rebinned; all by default.

        Returns
        -------
        array [n_energy, n_chan]
        """
        bins = self.channel_bins(response)
        inside = np.flatnonzero(bins >= 0)
        values = np.ones(len(inside)) if weight is None else weight[inside].astype(np.float64)
        gather = scipy.sparse.csr_array((values, (inside, bins[inside])), shape=(len(bins), self.n_chan))
        # Channels are summed first: the product with the whole matrix takes many times longer.
        return np.asarray((self.overlap(response) @ (response.redistribution @ gather)).toarray())

    def overlap(self, response: Response) -> scipy.sparse.csr_array:
        """Find area times the fraction of each intrinsic bin in each native energy bin, ``[n_energy, n_native]``."""
        lo, hi = response.energy_lo, response.energy_hi
        first = np.clip(np.searchsorted(self.energy, lo, side="right") - 1, 0, self.n_energy - 1)
        last = np.clip(np.searchsorted(self.energy, hi, side="left") - 1, 0, self.n_energy - 1)
        spans = np.maximum(last - first + 1, 1)
        native = np.repeat(np.arange(len(lo), dtype=np.int32), spans)  # as in the matrix, which is not copied then
        grid = np.repeat(first - (np.cumsum(spans) - spans), spans) + np.arange(len(native))
        common = np.minimum(hi[native], self.energy[grid + 1]) - np.maximum(lo[native], self.energy[grid])
        area = np.maximum(common, 0.0) / self.energy_width[grid] * response.area[native]
        seen = area > 0.0
        rows = grid[seen].astype(np.int32)
        return scipy.sparse.csr_array((area[seen], (rows, native[seen])), shape=(self.n_energy, len(lo)))


def reference_response_moments(weights: Any, matrix: Any, log_energy: Any) -> tuple[Any, Any]:
    """Fold the reference spectrum: how many of its photons each detector bin sees, and how sharply.

    Parameters
    ----------
    weights : array [..., n_spectra, n_energy]
        Photons of `ModelGrid.reference` times whatever part of the area is not in ``matrix``.
    matrix : array [..., n_energy, n_chan]
        Response to the detector grid.
    log_energy : array [n_energy]
        Logarithm of the intrinsic bin centres.

    Returns
    -------
    unit : array [..., n_spectra, n_chan]
        The folded reference spectrum.
    spread : array [..., n_spectra, n_chan]
        Standard deviation of ln E of the photons that land in each bin, 0 where none land.
    """
    xp = array_namespace(weights)
    unit = weights @ matrix
    safe = unit + 1e-12 * (xp.sum(unit, axis=-1, keepdims=True) + 1e-30)
    mean = ((weights * log_energy) @ matrix) / safe
    square = ((weights * log_energy**2) @ matrix) / safe
    variance = square - mean**2
    return unit, xp.sqrt(xp.where(variance > 0.0, variance, 0.0 * variance))
