"""Photoelectric absorption by neutral gas: cross-section and transmission on any energy grid."""

from typing import Any

import numpy as np
from array_api_compat import array_namespace

# Morrison & McCammon 1983, ApJ 270, 119, table 2: sigma = (c0 + c1 E + c2 E^2) / E^3 in 1e-24 cm^2 per hydrogen atom,
# E in keV, valid between the edges below; abundances of Anders & Ebihara 1982. The last is carried on above 10 keV.
_EDGES = np.array([0.1, 0.284, 0.4, 0.532, 0.707, 0.867, 1.303, 1.84, 2.471, 3.21, 4.038, 7.111, 8.331])
_COEFFICIENTS = np.array(
    [
        [17.3, 608.1, -2150.0],
        [34.6, 267.9, -476.1],
        [78.1, 18.8, 4.3],
        [71.4, 66.8, -51.4],
        [95.5, 145.8, -61.1],
        [308.9, -380.6, 294.0],
        [120.6, 169.3, -47.7],
        [141.3, 146.8, -31.5],
        [202.7, 104.7, -17.0],
        [342.7, 18.7, 0.0],
        [352.2, 18.7, 0.0],
        [433.9, -2.4, 0.75],
        [629.0, 30.9, 0.0],
        [701.2, 25.2, 0.0],
    ]
)


def cross_section(energy: Any) -> Any:
    """Compute the photoelectric cross-section per hydrogen atom of neutral gas of solar composition.

    Parameters
    ----------
    energy : array, any shape
        Photon energy in keV, at least 0.03.

    Returns
    -------
    array, same shape
        Cross-section in 1e-22 cm², so that ``nh`` in 1e22 cm⁻² times it is an optical depth.

    Notes
    -----
    Morrison & McCammon 1983, ApJ 270, 119 (XSPEC's ``wabs``), with the abundances of Anders & Ebihara 1982,
    GeCoA 46, 2363. Above 10 keV the last polynomial is carried on.

    Examples
    --------
    >>> cross_section(np.array([1.0, 7.0])).round(4)
    array([2.422 , 0.0132])
    """
    xp = array_namespace(energy)
    sigma = 0.0 * energy
    for i, (c0, c1, c2) in enumerate(_COEFFICIENTS):
        inside = energy >= (_EDGES[i - 1] if i else -1.0)
        sigma = xp.where(inside, (c0 + c1 * energy + c2 * energy**2) / energy**3, sigma)
    return 1e-2 * sigma


def transmission(energy: Any, nh: Any, covering: Any = 1.0) -> Any:
    """Compute the fraction of photons that pass a column of neutral gas, f exp(-N_H σ) + (1 - f).

    Parameters
    ----------
    energy : array [..., n_energy]
        Photon energy in keV in the frame of the absorber: for an absorber at redshift z pass ``energy * (1 + z)``.
    nh : array [n_batch] or float
        Hydrogen column in 1e22 cm⁻².
    covering : array [n_batch] or float
        Covered fraction f of the source, 0 to 1.

    Returns
    -------
    array [n_batch, n_energy] or [n_energy]

    Examples
    --------
    >>> transmission(np.array([1.0, 7.0]), 1.0).round(2)
    array([0.09, 0.99])
    """
    xp = array_namespace(energy)
    depth = _column(nh) * cross_section(energy)
    fraction = _column(covering)
    return fraction * xp.exp(-depth) + (1.0 - fraction)


def _column(parameter: Any) -> Any:
    return parameter if isinstance(parameter, float | int) else parameter[..., None]
