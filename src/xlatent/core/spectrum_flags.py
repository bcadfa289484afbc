"""What a spectrum says of itself without any model: the band it covers, and what makes its numbers wrong."""

import numpy as np

from xlatent.core.bands import FIT_BAND
from xlatent.core.spectrum import Spectrum

# Of the largest effective area in the band. ACIS's at 0.5 keV has fallen to a hundredth of it.
_LEAST_AREA = 1e-3
# Of a band in ln(energy), that must be seen. What lies between is the model's word, and its error knows that.
_COVERED = 0.9
_WHOLE = 1e-2  # counts by which rates in single precision times the exposure may miss whole numbers
# Counts a frame from which a point source is piled up, by telescope and longest frame in seconds. Chandra: about 5 %
# of events (The Chandra ABC Guide to Pileup, 2010). Swift XRT: 100 counts/s in windowed timing of 1.8 ms frames (Romano
# et al. 2006, A&A 456, 917), 0.6 counts/s in photon counting of 2.5 s frames (Vaughan et al. 2006, ApJ 638, 920).
_PILED_UP = {"CHANDRA": ((np.inf, 0.1),), "SWIFT": ((0.1, 0.18), (np.inf, 1.5))}
# BACKSCAL of CIAO is the share of a field of 8192² pixels of 0.492 arcsec. Regions wider than 10 arcsec are of extended
# sources, or so far off the axis that the telescope itself spreads the photons.
_POINT_LIKE = np.pi * (10.0 / 0.492) ** 2 / 8192.0**2


def covered_band(spectrum: Spectrum) -> tuple[float, float]:
    """Find the energies within 0.5-8 keV that good channels and the effective area cover.

    Parameters
    ----------
    spectrum : Spectrum
        With its response.

    Returns
    -------
    tuple of float
        Lowest and highest energy in keV; both NaN if none is covered.

    Raises
    ------
    ResponseError
        If the spectrum has no response.

    Examples
    --------
    >>> from pathlib import Path
    >>> import xlatent as xl
    >>> covered_band(xl.read(Path(xl.__file__).parent / "sample" / "sim17_000.pha.gz"))
    (0.5, 8.0)
    """
    chosen, response = spectrum.select(*FIT_BAND), spectrum.response
    if response is None or not chosen.any():
        return np.nan, np.nan
    lo, hi = response.chan_lo[chosen], response.chan_hi[chosen]
    middle = 0.5 * (response.energy_lo + response.energy_hi)
    area = np.interp(0.5 * (lo + hi), middle, response.area, left=0.0, right=0.0)
    seen = area > _LEAST_AREA * area.max()
    if not seen.any():
        return np.nan, np.nan
    return max(float(lo[seen].min()), FIT_BAND[0]), min(float(hi[seen].max()), FIT_BAND[1])


def covers(covered: tuple[float, float], band: tuple[float, float]) -> bool:
    """Tell whether a band is covered, but for a tenth of it in ln(energy).

    Parameters
    ----------
    covered, band : tuple of float
        Lowest and highest energy, keV.

    Examples
    --------
    >>> covers((0.55, 8.0), (0.5, 2.0)), covers((3.0, 8.0), (2.0, 7.0))
    (True, False)
    """
    seen = np.log(min(covered[1], band[1]) / max(covered[0], band[0]))
    return bool(seen >= _COVERED * np.log(band[1] / band[0]))


def spectrum_flags(spectrum: Spectrum) -> list[str]:
    """List the flags that follow from a spectrum alone: those of its reader first, then `net_counts` and `piled_up`.

    Parameters
    ----------
    spectrum : Spectrum

    Returns
    -------
    list of str
        Names of `xlatent.core.flags.FLAGS`.

    Examples
    --------
    >>> spectrum_flags(Spectrum(np.array([3.2, 0.0]), exposure=1e4, meta={"flags": ["no_arf"]}))
    ['no_arf', 'net_counts']
    """
    flags = list(spectrum.meta.get("flags", ()))
    if np.any(np.abs(spectrum.counts - np.rint(spectrum.counts)) > _WHOLE + 1e-6 * spectrum.counts):
        flags.append("net_counts")
    if _is_piled_up(spectrum):
        flags.append("piled_up")
    return flags


def _is_piled_up(spectrum: Spectrum) -> bool:
    """Compare the counts a frame, where the header tells the frame, with what the telescope's CCDs tell apart."""
    telescope, frame = str(spectrum.meta.get("telescope", "")).upper(), spectrum.meta.get("frame_time")
    if frame is None or telescope not in _PILED_UP:
        return False
    size = float(np.mean(spectrum.backscale))
    if telescope == "CHANDRA" and _POINT_LIKE < size < 1.0:  # 1 where nobody set it
        return False
    limit = next(limit for longest, limit in _PILED_UP[telescope] if frame <= longest)
    return float(spectrum.counts.sum()) / spectrum.exposure * frame > limit
