"""What an observed spectrum and its instrument response are: checked arrays in physical units."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_array

from xlatent.core.errors import ParameterError, ResponseError
from xlatent.core.hooks import implementation
from xlatent.core.html import html_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CSC_BROAD_BAND = (0.5, 7.0)
"""The broad band of the Chandra Source Catalog, keV (Evans et al. 2024, ApJS 274, 22)."""


class BandCounts(NamedTuple):
    """Counts of a spectrum in an energy band.

    Attributes
    ----------
    total : float
        Observed counts, source and background together.
    background : float
        Background counts expected in the source region (scaled).
    net : float
        ``total - background``.
    net_err : float
        Standard deviation of ``net`` from Poisson variances, sqrt(total + sum(scale**2 * background counts));
        a poor guide below about ten counts.
    """

    total: float
    background: float
    net: float
    net_err: float


@dataclass(frozen=True, eq=False, repr=False)
class Response:
    """The way from photons that reach the telescope to counts in detector channels.

    Parameters
    ----------
    energy_lo, energy_hi : array [n_energy]
        Edges of the energy bins, keV, ascending; ``energy_lo > 0``.
    area : array [n_energy]
        Effective area in each energy bin, cm2 (1 where no ARF was given).
    redistribution : sparse array [n_energy, n_chan]
        Probability that a photon of the energy bin is counted in the channel. Rows are never renormalised; sums below
        one are photons that the instrument loses.
    chan_lo, chan_hi : array [n_chan]
        Nominal energy edges of the channels, keV (EBOUNDS).
    first_channel : int
        Number of the first channel (0 or 1 with most missions).
    meta : dict
        What is known of its origin: ``arf``, ``rmf`` (file names), ``telescope``, ``instrument``.

    Raises
    ------
    ParameterError
        If shapes disagree, or values are not finite or not in order.

    Examples
    --------
    >>> edges = np.array([1.0, 2.0, 3.0])
    >>> Response(edges[:-1], edges[1:], np.full(2, 100.0), csr_array(np.eye(2)), edges[:-1], edges[1:])
    <Response: 2 energy bins 1-3 keV, 2 channels, area up to 100 cm2>
    """

    energy_lo: Float[np.ndarray, " n_energy"]
    energy_hi: Float[np.ndarray, " n_energy"]
    area: Float[np.ndarray, " n_energy"]
    redistribution: csr_array
    chan_lo: Float[np.ndarray, " n_chan"]
    chan_hi: Float[np.ndarray, " n_chan"]
    first_channel: int = 1
    meta: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Make every array float64 and check that they fit each other."""
        for name in ("energy_lo", "energy_hi", "area", "chan_lo", "chan_hi"):
            _set(self, name, _vector(getattr(self, name), name))
        if not isinstance(self.redistribution, csr_array) or self.redistribution.dtype != np.float64:
            _set(self, "redistribution", csr_array(self.redistribution, dtype=np.float64))
        _set(self, "first_channel", int(self.first_channel))
        shape = (self.energy_lo.size, self.chan_lo.size)
        sizes = (self.energy_hi.size, self.area.size, self.chan_hi.size)
        if self.redistribution.shape != shape or sizes != (shape[0], shape[0], shape[1]):
            raise ParameterError(
                f"the redistribution has shape {self.redistribution.shape} where {shape[0]} energy bins and {shape[1]} "
                f"channels were given (energy_hi {sizes[0]}, area {sizes[1]}, chan_hi {sizes[2]} long)"
            )
        if shape[0] == 0 or shape[1] == 0:
            raise ParameterError("a response needs at least one energy bin and one channel, and this one is empty")
        if (
            np.any(self.energy_lo <= 0)
            or np.any(self.energy_hi <= self.energy_lo)
            or np.any(np.diff(self.energy_lo) < 0)
        ):
            raise ParameterError(
                "the energy bins must ascend, start above 0 keV and each have energy_hi above energy_lo"
            )
        if np.any(self.area < 0):
            raise ParameterError("the effective area must not be negative in any energy bin")
        if np.any(self.chan_hi < self.chan_lo):
            raise ParameterError("chan_hi must not lie below chan_lo in any channel")
        if not np.isfinite(self.redistribution.data).all():
            raise ParameterError("the redistribution matrix holds values that are not finite")

    def fold(self, photon_flux: Float[np.ndarray, "*batch n_energy"]) -> Float[np.ndarray, "*batch n_chan"]:
        """Fold a photon flux into the count rate in each channel.

        Parameters
        ----------
        photon_flux : array [n_energy] or [n_batch, n_energy]
            Photons/cm2/s in each energy bin (integrated over the bin).

        Returns
        -------
        array [n_chan] or [n_batch, n_chan]
            Counts/s: ``rate_k = sum_e photon_flux_e * area_e * redistribution_ek`` (OGIP CAL/GEN/92-002).

        Raises
        ------
        ParameterError
            If the last axis does not have one value for each energy bin.

        Examples
        --------
        >>> edges = np.array([1.0, 2.0, 3.0])
        >>> r = Response(edges[:-1], edges[1:], np.full(2, 100.0), csr_array(np.eye(2)), edges[:-1], edges[1:])
        >>> r.fold(np.array([0.01, 0.02]))
        array([1., 2.])
        """
        if photon_flux.shape[-1:] != self.energy_lo.shape:
            raise ParameterError(
                f"a photon flux of shape {photon_flux.shape} cannot be folded through a response of "
                f"{self.energy_lo.size} energy bins: give photons/cm2/s in each of its bins"
            )
        return (photon_flux * self.area) @ self.redistribution

    def __repr__(self) -> str:
        """One line: instrument, energy grid, channels, peak area."""
        who = _instrument(self.meta)
        return f"<Response{' of ' + who if who else ''}: {self._grid()}>"

    def _repr_html_(self) -> str:
        """Tell the same as a table, for notebooks."""
        return html_table("Response", [(_instrument(self.meta), self._grid())])

    def _grid(self) -> str:
        return (
            f"{self.energy_lo.size} energy bins {self.energy_lo[0]:.3g}-{self.energy_hi[-1]:.4g} keV, "
            f"{self.chan_lo.size} channels, area up to {self.area.max():.4g} cm2"
        )


@dataclass(frozen=True, eq=False, repr=False)
class Spectrum:
    """Counts of one source in detector channels, with what is needed to model them.

    The counts in channel k are Poisson with mean
    ``exposure * areascale_k * response.fold(photon flux)_k + background_scale_k * background_k``.

    Parameters
    ----------
    counts : array [n_chan]
        Counts in each channel, as in the file (backgrounds that were combined need not be whole numbers).
    exposure : float
        Exposure time, s.
    backscale, areascale : float or array [n_chan]
        OGIP BACKSCAL and AREASCAL: size of the extraction region, and a factor that acts as exposure does; a number
        or one for each channel.
    quality, grouping : int array [n_chan], optional
        OGIP flags as in the file; carried and never applied to the counts.
    channels : int array [n_chan], optional
        Channel numbers; 1 to n_chan if not given.
    background, response : Spectrum and Response, optional
        The background spectrum and the instrument response, where there are any.
    meta : dict
        What else is known: ``name, file, object, obsid, obi, region_id, telescope, instrument, date, ra, dec``, ``mjd``
        (start of the observation as Modified Julian Date, in the time system of the file), ``frame_time`` (of the
        detector, s), ``warnings`` (what was repaired or missing at reading) and ``flags`` (those of
        `xlatent.core.flags.FLAGS` that the reader raised); keys without a value are absent.

    Raises
    ------
    ParameterError
        If values are not finite, counts are negative, exposure is not positive, or shapes disagree.
    ResponseError
        If the response has another number of channels.

    Examples
    --------
    >>> spectrum = Spectrum(np.array([3.0, 0.0, 1.0]), exposure=1000.0, meta={"name": "mine"})
    >>> spectrum.counts.sum(), spectrum.background_scale
    (np.float64(4.0), 0.0)
    """

    counts: Float[np.ndarray, " n_chan"]
    exposure: float
    backscale: float | Float[np.ndarray, " n_chan"] = 1.0
    areascale: float | Float[np.ndarray, " n_chan"] = 1.0
    quality: Int[np.ndarray, " n_chan"] | None = None
    grouping: Int[np.ndarray, " n_chan"] | None = None
    channels: Int[np.ndarray, " n_chan"] | None = None
    background: "Spectrum | None" = None
    response: Response | None = None
    meta: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Bring the values to one type each and check them."""
        counts = _vector(self.counts, "counts")
        _set(self, "counts", counts)
        n = counts.size
        if n == 0:
            raise ParameterError("counts must hold at least one channel, and it is empty")
        if counts.min() < 0:
            worst = int(np.argmin(counts))
            raise ParameterError(
                f"counts must not be negative, and channel index {worst} holds {counts[worst]:g}: give those before a "
                "background is subtracted, and the background beside them"
            )
        _set(self, "exposure", float(self.exposure))
        if not (np.isfinite(self.exposure) and self.exposure > 0):
            raise ParameterError(f"exposure must be a positive number of seconds, and it is {self.exposure:g}")
        for name in ("backscale", "areascale"):
            _set(self, name, _scale(getattr(self, name), name, n))
        if self.channels is None:
            _set(self, "channels", np.arange(1, n + 1))
        for name in ("quality", "grouping", "channels"):
            value = getattr(self, name)
            if value is not None:
                if np.shape(value) != (n,):
                    raise ParameterError(f"{name} has shape {np.shape(value)} where {n} channels were expected")
                _set(self, name, np.asarray(value).astype(np.int64))
        if self.background is not None and self.background.counts.size != n:
            raise ParameterError(
                f"the background has {self.background.counts.size} channels where the source has {n}: "
                "both must be extracted with the same channels"
            )
        if self.response is not None and self.response.chan_lo.size != n:
            raise ResponseError(
                f"the response has {self.response.chan_lo.size} channels where the spectrum has {n}: "
                "give the RMF that was made for this spectrum"
            )

    @property
    def name(self) -> str:
        """Name of the spectrum, from ``meta``; empty if it has none."""
        return str(self.meta.get("name", ""))

    @property
    def good(self) -> Bool[np.ndarray, " n_chan"]:
        """Channels whose QUALITY is neither 1 nor 5 (OGIP/92-007: bad by software, bad by the user)."""
        if self.quality is None:
            return np.ones(self.counts.size, dtype=bool)
        return (self.quality != 1) & (self.quality != 5)

    @property
    def background_scale(self) -> float | Float[np.ndarray, " n_chan"]:
        """Factor from background counts to those expected in the source region; 0 without a background.

        (T_s/T_b)(BACKSCAL_s/BACKSCAL_b)(AREASCAL_s/AREASCAL_b), OGIP/92-007; one number for each channel where one of
        the scales is a column, and 0 in channels whose background scales are 0.
        """
        if self.background is None:
            return 0.0
        above: Any = self.exposure * self.backscale * self.areascale
        below: Any = self.background.exposure * self.background.backscale * self.background.areascale
        if isinstance(above, float) and isinstance(below, float):
            return above / below if below > 0 else 0.0
        above, below = np.broadcast_arrays(above, below)
        scale = np.divide(above, below, out=np.zeros(above.shape), where=below > 0)
        return scale

    def select(self, energy_lo: float | int, energy_hi: float | int) -> Bool[np.ndarray, " n_chan"]:
        """Select the good channels that overlap an energy band, as Sherpa's ``notice`` takes them.

        Parameters
        ----------
        energy_lo, energy_hi : float
            Band edges, keV.

        Returns
        -------
        bool array [n_chan]
            True where a channel is taken.

        Raises
        ------
        ResponseError
            If the spectrum has no response, so that the energies of its channels are unknown.

        Examples
        --------
        >>> import xlatent as xl
        >>> spectrum = xl.read(Path(xl.__file__).parent / "sample" / "sim17_000.pha.gz")
        >>> int(spectrum.select(0.5, 8.0).sum())
        514
        """
        if self.response is None:
            raise ResponseError(
                f"{self.name or 'the spectrum'} has no response, so its channels have no energies: give an RMF"
            )
        return self.good & (self.response.chan_hi > energy_lo) & (self.response.chan_lo < energy_hi)

    def band_counts(self, energy_lo: float | int, energy_hi: float | int) -> BandCounts:
        """Count what the good channels of a band hold: total, background and net.

        Parameters
        ----------
        energy_lo, energy_hi : float
            Band edges, keV.

        Returns
        -------
        BandCounts
            ``total``, ``background``, ``net`` and ``net_err``.

        Raises
        ------
        ResponseError
            If the spectrum has no response.

        Examples
        --------
        >>> import xlatent as xl
        >>> spectrum = xl.read(Path(xl.__file__).parent / "sample" / "sim17_000.pha.gz")
        >>> spectrum.band_counts(0.5, 7.0).total
        506.0
        """
        return self._sum(self.select(energy_lo, energy_hi), np.ones(self.counts.size))

    def net_rate(self, energy_lo: float | int, energy_hi: float | int) -> tuple[float, float]:
        """Compute the net count rate in a band and its standard deviation.

        AREASCAL acts as exposure does, so each channel is divided by ``exposure * areascale``.

        Parameters
        ----------
        energy_lo, energy_hi : float
            Band edges, keV.

        Returns
        -------
        tuple of float
            Rate and standard deviation, counts/s.

        Raises
        ------
        ResponseError
            If the spectrum has no response.

        Examples
        --------
        >>> import xlatent as xl
        >>> spectrum = xl.read(Path(xl.__file__).parent / "sample" / "sim17_000.pha.gz")
        >>> rate, error = spectrum.net_rate(0.5, 7.0)
        >>> round(rate, 4)
        0.0088
        """
        time = np.broadcast_to(self.exposure * np.asarray(self.areascale), self.counts.shape)
        weight = np.divide(1.0, time, out=np.zeros(time.shape), where=time > 0)
        summed = self._sum(self.select(energy_lo, energy_hi), weight)
        return summed.net, summed.net_err

    def to_ogip(self, folder: str | Path, name: str | None = None) -> Path:
        """Write PHA, background, ARF and RMF as OGIP files.

        Parameters
        ----------
        folder : str or Path
            Where to write; made if it does not exist.
        name : str, optional
            Stem of the file names; the spectrum's own name if not given.

        Returns
        -------
        Path
            The PHA file, whose header names the others.

        Raises
        ------
        WriteError
            If the folder cannot be written to, or there is no name.

        Examples
        --------
        >>> import xlatent as xl
        >>> spectrum = xl.read(Path(xl.__file__).parent / "sample" / "sim17_000.pha.gz")
        >>> spectrum.to_ogip("written", "copy").name
        'copy.pha'
        """
        path: Path = implementation("write_ogip")(self, folder, name if name is not None else self.name)
        return path

    def plot(self, ax: "Axes | None" = None, *, colour: str | None = None, label: str | None = None) -> "Axes":
        """Plot counts and background against energy, joined for display; without a response, against channels.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw, over what is there; axes of a new figure (``ax.figure``) if not given.
        colour : str, optional
            Of counts and background, in any of Matplotlib's ways; black and orange if not given.
        label : str, optional
            In the legend; the spectrum's name if not given.

        Returns
        -------
        matplotlib.axes.Axes
            Nothing is shown or written.

        Raises
        ------
        ParameterError
            If no channel is good.

        Examples
        --------
        >>> import xlatent as xl
        >>> spectrum = xl.read(Path(xl.__file__).parent / "sample" / "sim17_000.pha.gz")
        >>> ax = spectrum.plot()
        >>> ax.figure.savefig("spectrum.png")
        """
        axes: Axes = implementation("plot_spectrum")(self, ax, colour=colour, label=label)
        return axes

    def _sum(self, mask: Bool[np.ndarray, " n_chan"], weight: Float[np.ndarray, " n_chan"]) -> BandCounts:
        """Sum weighted counts and scaled background over the channels of a mask."""
        total = float(np.sum((weight * self.counts)[mask]))
        variance = float(np.sum((weight**2 * self.counts)[mask]))
        background = 0.0
        if self.background is not None:
            scale = weight * self.background_scale
            background = float(np.sum((scale * self.background.counts)[mask]))
            variance += float(np.sum((scale**2 * self.background.counts)[mask]))
        return BandCounts(total, background, total - background, variance**0.5)

    def __repr__(self) -> str:
        """Name and instrument, counts and exposure, background, response: a line each."""
        (_, counts), *others = self._facts()
        return "\n".join([f"<{self._title()}", f"  {counts}", *(f"  {label}: {text}" for label, text in others)]) + ">"

    def _repr_html_(self) -> str:
        """Tell the same as a table, for notebooks."""
        return html_table(self._title(), self._facts())

    def _title(self) -> str:
        what = ", ".join(part for part in (str(self.meta.get("object", "")), _instrument(self.meta)) if part)
        return f"Spectrum {self.name!r}{': ' + what if what else ''}"

    def _facts(self) -> list[tuple[str, str]]:
        """Give label and text of what a short description tells."""
        counts = f"{self.counts.sum():.6g} counts in {self.counts.size} channels"
        if self.response is not None:
            counts = f"{self.band_counts(*CSC_BROAD_BAND).total:.6g} counts in 0.5-7 keV, {counts}"
        background = "none"
        if self.background is not None:
            scale = float(np.mean(self.background_scale))
            background = f"{self.background.counts.sum():.6g} counts, scale {scale:.4g}"
        return [
            ("counts", f"{counts}, exposure {self.exposure / 1e3:.4g} ks"),
            ("background", background),
            ("response", self.response._grid() if self.response is not None else "none"),
        ]


def _instrument(meta: dict[str, Any]) -> str:
    """Name telescope and instrument, as far as they are known."""
    return " ".join(str(meta[key]) for key in ("telescope", "instrument") if meta.get(key))


def _set(frozen: Response | Spectrum, name: str, value: Any) -> None:
    """Give a field of a frozen dataclass its checked value."""
    object.__setattr__(frozen, name, value)


def _vector(values: Any, name: str) -> Float[np.ndarray, " n"]:
    """Make a one-dimensional finite float64 array in native byte order."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1:
        raise ParameterError(f"{name} must be one-dimensional, and its shape is {array.shape}")
    if not np.isfinite(array).all():
        wrong = np.flatnonzero(~np.isfinite(array))
        raise ParameterError(
            f"{name} must be finite, and {wrong.size} of {array.size} values are not, the first at index {wrong[0]}"
        )
    return array


def _scale(value: Any, name: str, n_chan: int) -> float | Float[np.ndarray, " n_chan"]:
    """Check for a positive number, or a column of which at least one value is positive and none negative."""
    if isinstance(value, float) and 0.0 < value < math.inf:
        return float(value)
    array = np.asarray(value, dtype=np.float64)
    if array.shape not in ((), (n_chan,)):
        raise ParameterError(f"{name} has shape {array.shape} where one number or {n_chan} were expected")
    if not np.isfinite(array).all() or np.any(array < 0) or not np.any(array > 0):
        found = f"{float(array):g}" if array.ndim == 0 else "a column with other values"
        raise ParameterError(f"{name} must be positive and finite, and it is {found}")
    return array if array.ndim else float(array)
