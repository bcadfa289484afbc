"""Chandra spectra of the Multimodal Universe: HDF5 shards of grouped, background-subtracted rates.

The layout is that of ``scripts/chandra/build_parent_sample.py`` in github.com/MultimodalUniverse/MultimodalUniverse:
``healpix=*/001-of-001.hdf5``, one row a detection, ``spectrum_ene_lo``, ``spectrum_ene_hi`` (keV), ``spectrum_flux``
(counts/s/keV in spite of its name) and ``spectrum_flux_err`` of another length in each row, and columns of the Chandra
Source Catalog. The spectra are Sherpa's: 0.5-8 keV, background subtracted, channels grouped until they hold 5 counts.
Counts, exposure, background and response are not in the file; the first three can be worked out from it.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.sparse import csr_array

from xlatent.core.errors import ParameterError, ReadError, XlatentWarning
from xlatent.core.extras import requires_extra
from xlatent.core.spectrum import Response, Spectrum

NOMINAL_FLAG = "nominal_response"

GROUP_COUNTS = 5.0
"""Counts, background included, in every group but the last (``group_counts(5)`` of the script)."""

BACKGROUND_SCALE = 1.0 / 24.0
"""Scale that is assumed from background to source region: that of ACIS spectra in the Chandra Source Catalog."""

YEAR = 2005
"""Date that is assumed where a shard lacks ``gti_mjd_obs``."""

_SPECTRUM = ("spectrum_ene_lo", "spectrum_ene_hi", "spectrum_flux", "spectrum_flux_err")
_IDENTITY = ("name", "obsid", "obi", "region_id", "ra", "dec")
_MJD_2000, _DAYS = 51544.0, 365.25


def read(path: str | Path, nominal: Callable[[int], Response], *, spread: bool = False) -> list[Spectrum]:
    """Read all spectra of a shard.

    Parameters
    ----------
    path : str or Path
        HDF5 file.
    nominal : callable
        Makes the response that stands in for the one the file lacks, from the year of the observation.
    spread : bool
        False: each group is a channel, and the response is summed over it; the likelihood of the counts is exact.
        True: the counts of a group are shared evenly among its channels, the flat rate that the file gives; for models
        that take a spectrum for a curve (preset ``paper``).

    Returns
    -------
    list of Spectrum
        Counts, exposure and background by `recover`, with ``meta["flags"]`` ``("nominal_response",)``.

    Raises
    ------
    ReadError
        If the file is missing, damaged, or not a shard of Chandra spectra.
    XlatentError
        If h5py is not installed.

    Warns
    -----
    XlatentWarning
        For each row that holds no spectrum, which is left out.
    """
    path = Path(path)
    spectra = []
    with _opened(path) as shard:
        columns = _columns(path, shard)
        for row in range(len(columns["name"])):
            meta = _meta(path, columns, row)
            year = int(2000.0 + (meta["mjd"] - _MJD_2000) / _DAYS) if "mjd" in meta else YEAR
            try:
                spectra.append(_spectrum([columns[key][row] for key in _SPECTRUM], nominal(year), meta, spread))
            except ParameterError as error:
                text = f"{path}: row {row} ({meta['name']}) was left out: {error}"
                kind = "a row of a file of the Multimodal Universe holds no spectrum and was left out"
                warnings.warn(XlatentWarning(text, kind, str(path)), stacklevel=2)
    return spectra


def recover(
    width: Float[np.ndarray, " n_group"], rate: Float[np.ndarray, " n_group"], error: Float[np.ndarray, " n_group"]
) -> tuple[Float[np.ndarray, " n_group"], Float[np.ndarray, " n_group"], float]:
    """Work out counts and exposure from background-subtracted rates and their errors.

    Sherpa's errors (statistic ``chi2gehrels``, the default; Gehrels 1986, ApJ 303, 336) of N counts on a background
    of B are, in counts, σ² = (1 + (N + 3/4)^½)² + α²(1 + (B + 3/4)^½)², and the rate stands for N - αB. The second
    term is small for the small α of point sources; without it, each group gives two lower bounds on the exposure T:

    - σ/error, with N at least 5 in all groups but the last;
    - N/rate, from rate/error, which is N/(1 + (N + 3/4)^½) where there is no background and less where there is.

    The largest bound is taken for T. It is exact if one group has no background, or one has 5 counts. N then follows
    from the error and is rounded, as counts are whole numbers; the background is N less the net counts. On five
    spectra of the Chandra Source Catalog grouped by Sherpa 4.19 all counts came out as they were, and exposures within
    0.4 per cent.

    Parameters
    ----------
    width : array [n_group]
        Widths of the groups, keV.
    rate, error : arrays [n_group]
        Net rate and its error, counts/s/keV.

    Returns
    -------
    counts : array [n_group]
        Source and background together, whole numbers.
    background : array [n_group]
        Background among them, at least 0.
    exposure : float
        Seconds.

    Raises
    ------
    ParameterError
        If no group has a positive rate and there is no more than one, so that nothing fixes the exposure.

    Examples
    --------
    >>> counts, exposure = np.array([5.0, 7.0]), 1000.0  # without background, and with Gehrels' errors
    >>> recover(np.ones(2), counts / exposure, (1 + np.sqrt(counts + 0.75)) / exposure)[0]
    array([5., 7.])
    """
    ratio = np.maximum(rate / error, 0.0)
    twice = 2.0 * ratio + ratio**2
    n = 0.5 * (twice + np.sqrt(np.maximum(twice**2 - ratio**2, 0.0)))  # the root of n/(1 + (n + 3/4)^½) = ratio
    bounds = np.concatenate(
        [n[rate > 0] / (rate * width)[rate > 0], (1.0 + np.sqrt(GROUP_COUNTS + 0.75)) / (error * width)[:-1]]
    )
    if not bounds.size:
        raise ParameterError("one group of no positive rate does not tell the exposure")
    exposure = float(bounds.max())
    counts = np.maximum(np.rint((exposure * error * width - 1.0) ** 2 - 0.75), 0.0)
    return counts, np.maximum(counts - exposure * rate * width, 0.0), exposure


def _spectrum(values: list[Any], response: Response, meta: dict[str, Any], spread: bool) -> Spectrum:
    """Make a spectrum of one row."""
    lo, hi, rate, error = (np.asarray(value, dtype=np.float64) for value in values)
    sizes = {value.size for value in (lo, hi, rate, error)}
    if len(sizes) > 1 or not lo.size:
        raise ParameterError(f"its arrays should be of one length above 0, and their lengths are {sorted(sizes)}")
    if not all(np.isfinite(value).all() for value in (lo, hi, rate, error)):
        raise ParameterError("its energies, rates and errors should be finite, and some are not")
    if np.any(hi <= lo) or np.any(np.diff(lo) <= 0) or np.any(error <= 0):
        raise ParameterError("its energies should ascend and its errors be positive, and some do not")
    counts, background, exposure = recover(hi - lo, rate, error)
    centre = 0.5 * (response.chan_lo + response.chan_hi)
    group = np.searchsorted(lo, centre, side="right") - 1
    channel = np.flatnonzero((group >= 0) & (centre < hi[group]))
    group = group[channel]
    held = np.bincount(group, minlength=lo.size)
    if not held.all():
        raise ParameterError(
            f"group {int(np.argmin(held))} should hold at least one channel of ACIS, and it holds none"
        )
    quality = None
    if spread:
        counts, background = (
            np.bincount(channel, weights=(value / held)[group], minlength=centre.size) for value in (counts, background)
        )
        quality = np.ones(centre.size, dtype=np.int64)
        quality[channel] = 0  # what lies outside the groups was not kept
    else:
        summed = csr_array((np.ones(channel.size), (channel, group)), shape=(centre.size, lo.size))
        response = Response(
            response.energy_lo,
            response.energy_hi,
            response.area,
            response.redistribution @ summed,
            lo,
            hi,
            meta=response.meta,
        )
    off = Spectrum(background / BACKGROUND_SCALE, exposure, backscale=1.0 / BACKGROUND_SCALE)
    return Spectrum(counts, exposure, background=off, response=response, quality=quality, meta=meta)


def _meta(path: Path, columns: dict[str, Any], row: int) -> dict[str, Any]:
    """Collect what a row says of its observation."""
    known = {key: value for key in _IDENTITY if (value := _value(columns, key, row)) is not None}
    mjd = _value(columns, "gti_mjd_obs", row)
    if mjd is not None:
        known["mjd"] = mjd
    parts = (str(known[key]).replace(" ", "") for key in ("name", "obsid", "obi", "region_id") if key in known)
    fixed = {"file": str(path), "telescope": "CHANDRA", "instrument": "ACIS", "flags": (NOMINAL_FLAG,)}
    return known | {"object": known["name"], "name": "_".join(parts)} | fixed


def _value(columns: dict[str, Any], key: str, row: int) -> Any:
    """Look up a catalogue column, None where it is missing or not a number."""
    if key not in columns:
        return None
    value = columns[key][row]
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace").strip()
    number = value.item()
    return number if np.isfinite(number) else None


def _columns(path: Path, shard: Any) -> dict[str, Any]:
    """Read what is needed of the shard's datasets, all of one length."""
    missing = [key for key in ("name", *_SPECTRUM) if key not in shard]
    if missing:
        found = ", ".join(list(shard)[:8]) or "none"
        raise ReadError(
            f"{path}: should have a dataset {missing[0]}, and its datasets are {found}; "
            "give a shard of the Multimodal Universe's Chandra spectra"
        )
    wanted = [key for key in (*_IDENTITY, "gti_mjd_obs", *_SPECTRUM) if key in shard]
    columns = {key: shard[key][()] for key in wanted}
    lengths = {key: len(values) for key, values in columns.items()}
    if len(set(lengths.values())) > 1:
        described = ", ".join(f"{key} {length}" for key, length in lengths.items())
        raise ReadError(f"{path}: its datasets should be of one length, and they are not ({described}); fetch it again")
    return columns


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open an HDF5 file, whose faults are told in one sentence."""
    with requires_extra("multimodal", "h5py"):
        import h5py
    if not path.is_file():
        raise ReadError(f"{path}: there is no such file")
    try:
        with h5py.File(path, "r") as shard:
            yield shard
    except (OSError, RuntimeError, KeyError, TypeError, ValueError) as error:  # what h5py raises on damaged files
        if isinstance(error, ParameterError):
            raise
        reason = " ".join(str(error).split())
        raise ReadError(f"{path}: is not a readable HDF5 file ({reason}); fetch it again") from error
