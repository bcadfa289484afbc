"""Photoelectric absorption by the interstellar medium: cross-section and transmission on any energy grid."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from array_api_compat import array_namespace, device
from jaxtyping import Float32

from xlatent.core.errors import ParameterError

ABUNDANCES = ("wilm", "angr")
"""Of Wilms, Allen & McCray 2000, ApJ 542, 914, and of Anders & Grevesse 1989, GeCoA 53, 197; XSPEC's names."""

_FILE = Path(__file__).with_name("tbabs.npz")  # made by docs/make_absorption_table.py
_STEP = 1e-4  # of ln E: as finely as XSPEC was sampled, so that edges and resonances stay sharp


def cross_section(energy: Any, abundances: str = "wilm") -> Any:
    """Interpolate the cross-section per hydrogen atom of the neutral interstellar medium: gas, grains and molecules.

    Parameters
    ----------
    energy : array, any shape
        Photon energy in keV. Below 0.05 and above 90 keV the cross-section goes on as E⁻³.
    abundances : str
        ``"wilm"`` or ``"angr"`` (see `ABUNDANCES`).

    Returns
    -------
    array, same shape
        Cross-section in 1e-22 cm², so that ``nh`` in 1e22 cm⁻² times it is an optical depth.

    Raises
    ------
    ParameterError
        If there is no such table of abundances.

    Notes
    -----
    XSPEC's ``tbabs``: Wilms, Allen & McCray 2000, ApJ 542, 914, with the atomic cross-sections of Verner et al. 1996,
    ApJ 465, 487; docs/make_absorption_table.py says how its table was made. Between the points of the table ln σ is
    linear in ln E.

    Examples
    --------
    >>> cross_section(np.array([1.0, 7.0])).round(3)
    array([1.737, 0.009])
    >>> cross_section(np.array([1.0, 7.0]), "angr").round(3)
    array([2.532, 0.014])
    """
    xp = array_namespace(energy)
    start, scaled = _scaled_cross_section(abundances)
    last = len(scaled) - 1
    place = xp.clip((xp.log(energy) - start) / _STEP, 0.0, last - 0.01)
    whole = xp.astype(place, xp.int64)
    table = xp.asarray(scaled, dtype=energy.dtype, device=device(energy))
    low = table[whole]
    return (low + (place - whole) * (table[whole + 1] - low)) / energy**3


def transmission(energy: Any, nh: Any, covering: Any = 1.0, abundances: str = "wilm") -> Any:
    """Compute the fraction of photons that pass a column of neutral gas, f exp(-N_H σ) + (1 - f).

    Parameters
    ----------
    energy : array [..., n_energy]
        Photon energy in keV in the frame of the absorber: for an absorber at redshift z pass ``energy * (1 + z)``.
    nh : array [n_batch] or float
        Hydrogen column in 1e22 cm⁻².
    covering : array [n_batch] or float
        Covered fraction f of the source, 0 to 1.
    abundances : str
        As in `cross_section`.

    Returns
    -------
    array [n_batch, n_energy] or [n_energy]

    Raises
    ------
    ParameterError
        If there is no such table of abundances.

    Examples
    --------
    >>> transmission(np.array([1.0, 7.0]), 1.0).round(2)
    array([0.18, 0.99])
    """
    xp = array_namespace(energy)
    depth = _column(nh) * cross_section(energy, abundances)
    fraction = _column(covering)
    return fraction * xp.exp(-depth) + (1.0 - fraction)


def bin_transmission(edges: Any, nh: Any, covering: Any = 1.0, abundances: str = "wilm") -> Any:
    """Average `transmission` over energy bins, as bins need that are wider than edges and resonances are sharp.

    The mean at four points of each bin. In bins 1.4 % wide, columns to 1e22 cm⁻² and redshifts to 1, what a CCD sees
    is then right to 0.7 % at the worst energy of most spectra and to 2.9 % in all; the middles of the bins alone, which
    hit or miss the resonance of oxygen at 0.528 keV, leave 2 % in most and up to 20 %.

    Parameters
    ----------
    edges : array [..., n_energy + 1]
        Bin edges in keV in the frame of the absorber.
    nh, covering, abundances
        As in `transmission`.

    Returns
    -------
    array [n_batch, n_energy] or [n_energy]

    Raises
    ------
    ParameterError
        If there is no such table of abundances.

    Examples
    --------
    >>> bin_transmission(np.array([0.52, 0.56, 0.6]), 0.1).round(3)
    array([0.541, 0.543])
    """
    low, width = edges[..., :-1], edges[..., 1:] - edges[..., :-1]
    parts = [transmission(low + share * width, nh, covering, abundances) for share in (0.125, 0.375, 0.625, 0.875)]
    return 0.25 * sum(parts)


def _column(parameter: Any) -> Any:
    return parameter if isinstance(parameter, float | int) else parameter[..., None]


@cache
def _scaled_cross_section(abundances: str) -> tuple[float, Float32[np.ndarray, " n"]]:
    """Read σ E³ at every `_STEP` of ln E, and the first ln E."""
    if abundances not in ABUNDANCES:
        raise ParameterError(f"there are no abundances {abundances!r}; choose one of {', '.join(ABUNDANCES)}")
    with np.load(_FILE) as file:
        log_energy, values = file["log_energy"], file[abundances]
    start = float(log_energy[0])
    fine = np.arange(start, float(log_energy[-1]), _STEP)
    return start, np.exp(np.interp(fine, log_energy, values)).astype(np.float32)
