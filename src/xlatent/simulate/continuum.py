"""Photon spectra without lines of their own, and the Gaussian line: photons per energy bin.

Every function takes bin edges ``energy`` ``[n_energy + 1]`` (or ``[n_batch, n_energy + 1]``, as for redshifted
edges) in keV, parameters as floats or arrays ``[n_batch]``, and returns photons cm⁻² s⁻¹ per bin,
``[n_batch, n_energy]`` (``[n_energy]`` for scalar parameters and edges). All run on NumPy arrays and torch tensors
alike. Where no closed integral exists the bin is integrated by Simpson's rule, good to 1e-4 on bins narrower than a
tenth of their energy.

A source at redshift z is made by passing ``energy * (1 + z)``: photons per bin are then those of the emitted bin,
and the overall factor 1/(1 + z) belongs to the norm.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from array_api_compat import array_namespace

_HC2 = 1.0344e-3  # XSPEC's constant of bbodyrad and diskbb: photons cm^-2 s^-1 keV^-1 for (R_km / D_10kpc)^2


def _column(parameter: Any) -> Any:
    """Make a parameter [n_batch] broadcast against [n_batch, n_energy]; floats pass."""
    return parameter if isinstance(parameter, float | int) else parameter[..., None]


def _simpson(energy: Any, density: Callable[[Any], Any]) -> Any:
    lo, hi = energy[..., :-1], energy[..., 1:]
    return (density(lo) + 4.0 * density(0.5 * (lo + hi)) + density(hi)) * (hi - lo) / 6.0


def powerlaw(energy: Any, gamma: Any) -> Any:
    """Power law E^-Γ, 1 photon cm⁻² s⁻¹ keV⁻¹ at 1 keV, integrated exactly (XSPEC ``powerlaw``).

    Parameters
    ----------
    energy : array [n_energy + 1]
        Bin edges in keV.
    gamma : array [n_batch] or float
        Photon index Γ.

    Returns
    -------
    array [n_batch, n_energy]
    """
    xp = array_namespace(energy)
    slope = 1.0 - _column(gamma)
    # The integral is lo^s (r^s - 1)/s with r = hi/lo; expm1 keeps it exact through s = 0.
    lo = energy[..., :-1]
    log_ratio = xp.log(energy[..., 1:] / lo)
    x = slope * log_ratio
    small = xp.abs(x) < 1e-4
    safe = xp.where(small, 0.0 * x + 1.0, x)
    growth = xp.where(small, 1.0 + 0.5 * x, xp.expm1(safe) / safe)
    return lo**slope * log_ratio * growth


def cutoff_powerlaw(energy: Any, gamma: Any, cutoff: Any) -> Any:
    """Power law with exponential cut-off, E^-Γ exp(-E/E_c) (XSPEC ``cutoffpl``).

    Parameters
    ----------
    energy : array [n_energy + 1]
        Bin edges in keV.
    gamma : array [n_batch] or float
        Photon index Γ.
    cutoff : array [n_batch] or float
        E_c in keV.

    Returns
    -------
    array [n_batch, n_energy]
    """
    xp = array_namespace(energy)
    return _simpson(energy, lambda e: e ** (-_column(gamma)) * xp.exp(-e / _column(cutoff)))


def comptonised(energy: Any, gamma: Any, seed_kt: Any, kt: Any) -> Any:
    """Comptonised soft photons: a power law Γ between a seed blackbody and a thermal cut-off.

    ``x³/(e^x - 1)`` with x = E/kT_seed rises into ``E^-Γ`` above the seeds and is cut off as ``exp(-E/(2 kT))``: the
    shape of thermal Comptonisation (Sunyaev & Titarchuk 1980, A&A 86, 121) in elementary functions, not their solution.

    Parameters
    ----------
    energy : array [n_energy + 1]
        Bin edges in keV.
    gamma : array [n_batch] or float
        Photon index above the seeds.
    seed_kt, kt : array [n_batch] or float
        Temperatures of seeds and plasma in keV.

    Returns
    -------
    array [n_batch, n_energy]
    """
    xp = array_namespace(energy)

    def density(e: Any) -> Any:
        x = e / (3.0 * _column(seed_kt))
        rise = -xp.expm1(-(x ** (_column(gamma) + 1.0)))
        return e ** (-_column(gamma)) * rise * xp.exp(-e / (2.0 * _column(kt)))

    return _simpson(energy, density)


def blackbody(energy: Any, kt: Any) -> Any:
    """Blackbody, 1.0344e-3 E²/(exp(E/kT) - 1), norm (R_km/D_10kpc)² (XSPEC ``bbodyrad``).

    Parameters
    ----------
    energy : array [n_energy + 1]
        Bin edges in keV.
    kt : array [n_batch] or float
        Temperature in keV.

    Returns
    -------
    array [n_batch, n_energy]
    """
    xp = array_namespace(energy)
    # exp(-x)/(1 - exp(-x)) does not overflow where kT is far below the band.
    return _simpson(energy, lambda e: _HC2 * e**2 * xp.exp(-e / _column(kt)) / -xp.expm1(-e / _column(kt)))


# Gauss-Legendre nodes in ln T for the disk integral below.
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(20)


def disk_blackbody(energy: Any, kt_in: Any) -> Any:
    """Multicolour disk, T ∝ r^(-3/4), seen face on (Mitsuda et al. 1984, PASJ 36, 741; XSPEC ``diskbb``).

    The disk integral ∫ B(E, T(r)) 2πr dr becomes (8/3) ∫ (T/T_in)^(-8/3) B(E, T) dlnT over blackbodies, summed with 20
    Gauss-Legendre nodes in ln T from T_in down to T_in/200.

    Parameters
    ----------
    energy : array [n_energy + 1]
        Bin edges in keV.
    kt_in : array [n_batch] or float
        Temperature at the inner edge in keV.

    Returns
    -------
    array [n_batch, n_energy]
        Norm (R_in,km/D_10kpc)² cos θ = 1.
    """
    xp = array_namespace(energy)
    span = float(np.log(200.0))

    def density(e: Any) -> Any:
        total = 0.0 * e
        for node, weight in zip(_NODES.tolist(), _WEIGHTS.tolist(), strict=True):
            ln_t = 0.5 * span * (node - 1.0)
            x = e / (_column(kt_in) * float(np.exp(ln_t)))
            planck = _HC2 * e**2 * xp.exp(-x) / -xp.expm1(-x)
            total = total + (8.0 / 3.0) * 0.5 * span * weight * float(np.exp(-8.0 / 3.0 * ln_t)) * planck
        return total

    return _simpson(energy, density)


def bremsstrahlung(energy: Any, kt: Any) -> Any:
    """Thermal bremsstrahlung g(E/kT) exp(-E/kT)/E with the Gaunt factor of the Born approximation.

    g = (sqrt(3)/π) exp(x/2) K₀(x/2) with x = E/kT (Rybicki & Lightman 1979, sect. 5.2), right for kT well above
    13.6 eV Z². XSPEC's ``bremss`` uses Karzas & Latter (1961) tables with helium instead.

    Parameters
    ----------
    energy : array [n_energy + 1]
        Bin edges in keV.
    kt : array [n_batch] or float
        Electron temperature in keV.

    Returns
    -------
    array [n_batch, n_energy]
        Norm: g exp(-E/kT)/E photons cm⁻² s⁻¹ keV⁻¹.
    """
    xp = array_namespace(energy)

    def density(e: Any) -> Any:
        x = e / _column(kt)
        return 0.551329 * _scaled_bessel_k0(0.5 * x) * xp.exp(-x) / e

    return _simpson(energy, density)


# Polynomials of Abramowitz & Stegun 1964, 9.8.1, 9.8.5 and 9.8.6, lowest order first; errors below 2e-7.
_I0 = (1.0, 3.5156229, 3.0899424, 1.2067492, 0.2659732, 0.0360768, 0.0045813)
_K0_SMALL = (-0.57721566, 0.42278420, 0.23069756, 0.03488590, 0.00262698, 0.00010750, 0.00000740)
_K0_LARGE = (1.25331414, -0.07832358, 0.02189568, -0.01062446, 0.00587872, -0.00251540, 0.00053208)


def _scaled_bessel_k0(y: Any) -> Any:
    """exp(y) K₀(y), which neither NumPy nor the array API has."""
    xp = array_namespace(y)
    small = xp.where(y < 2.0, y, 2.0 + 0.0 * y)
    large = xp.where(y < 2.0, 2.0 + 0.0 * y, y)
    k0 = _polynomial(_K0_SMALL, (small / 2.0) ** 2) - xp.log(small / 2.0) * _polynomial(_I0, (small / 3.75) ** 2)
    return xp.where(y < 2.0, xp.exp(small) * k0, _polynomial(_K0_LARGE, 2.0 / large) / xp.sqrt(large))


def _polynomial(coefficients: tuple[float, ...], x: Any) -> Any:
    total = 0.0 * x
    for coefficient in reversed(coefficients):
        total = total * x + coefficient
    return total


def gaussian_line(energy: Any, line_energy: Any, sigma: Any) -> Any:
    """Gaussian emission line of one photon cm⁻² s⁻¹, integrated exactly over the bins (XSPEC ``gaussian``).

    Parameters
    ----------
    energy : array [n_energy + 1]
        Bin edges in keV.
    line_energy, sigma : array [n_batch] or float
        Centre and standard deviation in keV.

    Returns
    -------
    array [n_batch, n_energy]
    """
    xp = array_namespace(energy)
    # The array API has tanh and no erf; this form of the normal integral is within 2e-4 of it.
    x = (energy - _column(line_energy)) / _column(sigma)
    cumulative = 0.5 * (1.0 + xp.tanh(0.7978845608 * x * (1.0 + 0.044715 * x**2)))
    return cumulative[..., 1:] - cumulative[..., :-1]
