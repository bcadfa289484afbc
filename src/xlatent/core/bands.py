"""Energy bands of the Chandra Source Catalog, and the fluxes and hardness ratios of a model spectrum in them."""

import numpy as np
from jaxtyping import Float

from xlatent.core.errors import ParameterError

FIT_BAND = (0.5, 8.0)
"""keV: what a spectrum is fitted and its counts are told in, the range of the detector grid."""

# b, u, s, m and h as the Chandra Source Catalog defines them (cxc.cfa.harvard.edu/csc/columns/ebands.html); the last
# two are the bands of Chandra's deep surveys.
BANDS: dict[str, tuple[float, float]] = {
    "b": (0.5, 7.0),
    "u": (0.2, 0.5),
    "s": (0.5, 1.2),
    "m": (1.2, 2.0),
    "h": (2.0, 7.0),
    "0.5-2": (0.5, 2.0),
    "2-8": (2.0, 8.0),
}
"""Energy bands by name, keV."""

FLUX_BANDS = ("b", "s", "m", "h", "0.5-2", "2-8")
"""The bands that a latent table has fluxes in. u lies outside of what the detector grid holds."""

HARDNESS_RATIOS: dict[str, tuple[str, str]] = {"hard_hm": ("h", "m"), "hard_hs": ("h", "s"), "hard_ms": ("m", "s")}
"""Hardness ratios of the catalogue: name, the harder and the softer band."""

KEV_IN_ERG = 1.602176634e-9
"""1 keV in erg, exact in the SI of 2019."""

Band = str | tuple[float, float]
"""A name of `BANDS`, or limits in keV."""


def column_suffix(band: str) -> str:
    """Spell a band as the names of columns do.

    Examples
    --------
    >>> column_suffix("b"), column_suffix("0.5-2")
    ('b', '0p5_2')
    """
    return band.replace(".", "p").replace("-", "_")


def photon_flux(
    spectrum: Float[np.ndarray, "*batch n_energy"], edges: Float[np.ndarray, " n_edges"], band: Band
) -> Float[np.ndarray, " *batch"]:
    """Integrate the photon flux in a band.

    Parameters
    ----------
    spectrum : array [..., n_energy]
        Photons/cm2/s in each energy bin.
    edges : array [n_energy + 1]
        Bin edges in keV, increasing.
    band : str or (float, float)
        A name of `BANDS`, or limits in keV.

    Returns
    -------
    array [...]
        Photons/cm2/s. Of a bin that is cut by a limit of the band, the share by energy width counts.

    Raises
    ------
    ParameterError
        If the band is unknown or reaches beyond the edges, or spectrum and edges do not belong together.

    Examples
    --------
    >>> edges = np.array([0.5, 1.0, 2.0, 8.0])
    >>> float(photon_flux(np.array([4.0, 2.0, 6.0]), edges, "0.5-2")), float(photon_flux(np.ones(3), edges, (0.5, 1.5)))
    (6.0, 1.5)
    """
    share, _ = _overlap(spectrum.shape[-1], edges, band)
    return np.asarray(spectrum @ share)


def energy_flux(
    spectrum: Float[np.ndarray, "*batch n_energy"], edges: Float[np.ndarray, " n_edges"], band: Band
) -> Float[np.ndarray, " *batch"]:
    """Integrate the energy flux in a band.

    Parameters
    ----------
    spectrum : array [..., n_energy]
        Photons/cm2/s in each energy bin.
    edges : array [n_energy + 1]
        Bin edges in keV, increasing.
    band : str or (float, float)
        A name of `BANDS`, or limits in keV.

    Returns
    -------
    array [...]
        erg/cm2/s. The photons of a bin are taken to be spread evenly over it, so that each carries the mean energy of
        the part of the bin inside the band.

    Raises
    ------
    ParameterError
        If the band is unknown or reaches beyond the edges, or spectrum and edges do not belong together.

    Examples
    --------
    A photon cm-2 s-1 of 1.5 keV:

    >>> float(energy_flux(np.array([0.0, 1.0, 0.0]), np.array([0.5, 1.0, 2.0, 8.0]), "0.5-2"))
    2.403264951e-09
    """
    share, mean_energy = _overlap(spectrum.shape[-1], edges, band)
    return np.asarray(spectrum @ (share * mean_energy * KEV_IN_ERG))


def flux_weights(edges: Float[np.ndarray, " n_edges"]) -> Float[np.ndarray, "n_energy n_fluxes"]:
    """Build the matrix that turns a spectrum into its photon fluxes in `FLUX_BANDS`, then its energy fluxes there.

    Parameters
    ----------
    edges : array [n_energy + 1]
        Bin edges in keV, increasing; they must cover 0.5-8 keV.

    Returns
    -------
    array [n_energy, 12]
        Photons/cm2/s and erg/cm2/s for one photon/cm2/s in each bin.

    Examples
    --------
    >>> (np.ones(3) @ flux_weights(np.array([0.5, 2.0, 7.0, 8.0])))[:4].tolist()
    [2.0, 0.4666666666666666, 0.5333333333333333, 1.0]
    """
    parts = [_overlap(len(edges) - 1, edges, band) for band in FLUX_BANDS]
    return np.stack([share for share, _ in parts] + [share * mean * KEV_IN_ERG for share, mean in parts], axis=1)


def hardness(hard: Float[np.ndarray, " *batch"], soft: Float[np.ndarray, " *batch"]) -> Float[np.ndarray, " *batch"]:
    """Compute the hardness ratio ``(F_hard - F_soft) / (F_hard + F_soft)`` of two photon fluxes; NaN if both are zero.

    References
    ----------
    Chandra Source Catalog 2, cxc.cfa.harvard.edu/csc/columns/spectral_properties.html.

    Examples
    --------
    >>> hardness(np.array([3.0, 0.0]), np.array([1.0, 0.0])).tolist()
    [0.5, nan]
    """
    total = hard + soft
    return np.divide(hard - soft, total, out=np.full(total.shape, np.nan, dtype=total.dtype), where=total != 0)


def hardness_ratios(
    spectrum: Float[np.ndarray, "*batch n_energy"], edges: Float[np.ndarray, " n_edges"]
) -> dict[str, Float[np.ndarray, " *batch"]]:
    """Compute the three hardness ratios of the Chandra Source Catalog, from photon fluxes.

    Parameters
    ----------
    spectrum : array [..., n_energy]
        Photons/cm2/s in each energy bin.
    edges : array [n_energy + 1]
        Bin edges in keV, increasing; they must cover 0.5-7 keV.

    Returns
    -------
    dict of array [...]
        ``hard_hm``, ``hard_hs`` and ``hard_ms``, each in [-1, 1] and larger for a harder spectrum.

    Examples
    --------
    >>> ratios = hardness_ratios(np.array([1.0, 1.0, 3.0]), np.array([0.5, 1.2, 2.0, 7.0]))
    >>> {name: float(value) for name, value in ratios.items()}
    {'hard_hm': 0.5, 'hard_hs': 0.5, 'hard_ms': 0.0}
    """
    flux = {band: photon_flux(spectrum, edges, band) for band in "smh"}
    return {name: hardness(flux[hard], flux[soft]) for name, (hard, soft) in HARDNESS_RATIOS.items()}


def _overlap(
    n_energy: int, edges: Float[np.ndarray, " n_edges"], band: Band
) -> tuple[Float[np.ndarray, " n_energy"], Float[np.ndarray, " n_energy"]]:
    """Share of each bin inside the band, and the mean energy in keV of that part."""
    if isinstance(band, str):
        if band not in BANDS:
            raise ParameterError(f"unknown band {band!r}: expected one of {', '.join(BANDS)}, or two limits in keV")
        lo, hi = BANDS[band]
    else:
        lo, hi = band
    if len(edges) != n_energy + 1:
        raise ParameterError(f"a spectrum of {n_energy} bins needs {n_energy + 1} edges, found {len(edges)}")
    # Half a part in a million: edges that were stored in single precision still cover their own band.
    if lo >= hi or lo < edges[0] * (1 - 5e-7) or hi > edges[-1] * (1 + 5e-7):
        covered = f"{edges[0]:g}-{edges[-1]:g} keV"
        raise ParameterError(f"band {lo:g}-{hi:g} keV does not lie within the spectrum's {covered}")
    bin_lo, bin_hi = np.clip(edges[:-1], lo, hi), np.clip(edges[1:], lo, hi)
    return (bin_hi - bin_lo) / np.diff(edges), 0.5 * (bin_lo + bin_hi)
