"""Thermal Comptonisation of blackbody photons: the Kompaneets equation, solved for a batch of sources at once.

The model of Lightman & Zdziarski (1987, ApJ 319, 643) and Zdziarski, Johnson & Magdziarz (1996, MNRAS 283, 193),
XSPEC's ``nthcomp``: photons of a blackbody diffuse in energy among the hot electrons of a sphere, and leak out of it.
With x = E/511 keV, θ = kT_e/511 keV and n photons per state, in units of the Thomson time,

    d/dx [x⁴/(1 + 4.6 x + 1.1 x²) (θ dn/dx + n)] = x² (p n - s).

The denominator stands for the recoil of fast photons (Cooper 1971, Phys. Rev. D 3, 2312). The seeds are
s = 1/(exp(E/kT_seed) - 1). Photons escape from the optical depth τ with p = 1/(τ (1 + f τ σ/3σ_T)), where σ is the
cross-section of Klein and Nishina and f falls from 1 at the last point below x = 0.1 to 0 at x = 1, where a scattering
takes most of the energy, or at 40 θ if that is lower. The depth follows from the photon index Γ between seeds and
electrons:
3/(θ ((Γ + 1/2)² - 9/4)) = (τ + 3/2)² - 9/4.
"""

import math
from typing import Any

from array_api_compat import array_namespace, device

_REST = 511.0  # keV, of an electron
# The points are nthcomp's, whole steps above 1e-4 kT_seed and up to 40 kT_e, as its spectrum depends on them: with half
# the step it is 4 % higher at 10 kT_e. So many reach down to 0.01 kT_seed if kT_e is at most 10,000 times as high.
_POINTS, _STEP, _ORIGIN, _HIGHEST = 384, 0.02 * math.log(10.0), 1e-4, 40.0


def escaping_photons(energy: Any, gamma: Any, seed_kt: Any, kt: Any) -> Any:
    """Compute the photons per keV that leave a cloud of hot electrons, 1 at 1 keV.

    Parameters
    ----------
    energy : array [..., n_energy]
        Photon energies in keV, at least 0.01 ``seed_kt``; above 40 ``kt`` there are no photons.
    gamma : array [n_batch] or float
        Photon index between seeds and electrons, above 1.
    seed_kt, kt : array [n_batch] or float
        Temperatures of seeds and electrons in keV.

    Returns
    -------
    array [n_batch, n_energy] or [n_energy]
        Computed in double precision, whose type ``energy`` need not have.
    """
    xp = array_namespace(energy)
    gamma, seed, theta = (
        xp.asarray(parameter, dtype=xp.float64, device=device(energy))[..., None] for parameter in (gamma, seed_kt, kt)
    )
    seed, theta = seed / _REST, theta / _REST
    steps = xp.floor(xp.log(_HIGHEST * theta / (_ORIGIN * seed)) / _STEP)
    low = xp.log(_ORIGIN * seed) + _STEP * (steps - (_POINTS - 1))
    x = xp.exp(low + _STEP * xp.arange(_POINTS, dtype=xp.float64, device=device(energy)))
    depth = xp.sqrt(2.25 + 3.0 / (theta * ((gamma + 0.5) ** 2 - 2.25))) - 1.5
    first = xp.exp(low + _STEP * xp.floor((math.log(0.1) - low) / _STEP))
    last = xp.clip(_HIGHEST * theta, 0.1001, 1.0)
    fading = xp.clip((last - x) / (last - first), 0.0, 1.0)
    escape = 1.0 / (depth * (1.0 + fading * depth * _klein_nishina(x) / 3.0))

    # In ln x, what flows between two points is ``up`` times n of the upper one less ``down`` times n of the lower one.
    between = x * math.exp(0.5 * _STEP)
    flow = between**4 / (1.0 + 4.6 * between + 1.1 * between**2) / _STEP
    up, down = flow * (theta / (_STEP * between) + 0.5), flow * (theta / (_STEP * between) - 0.5)
    inside = xp.asarray(xp.arange(_POINTS, device=device(energy)) < _POINTS - 1, dtype=xp.float64)
    up, down = up * inside, down * inside  # nothing flows out at the ends
    from_below = _shift(up, 1)
    seeds = x**3 * xp.exp(-x / seed) / -xp.expm1(-x / seed)
    photons = _solve_tridiagonal(-_shift(down, 1), x**3 * escape + down + from_below, -up, seeds)

    # E² times photons per keV bends least, so that it is straight enough between points.
    scaled = x**4 * photons * escape
    log_x = xp.log(xp.astype(energy, xp.float64) / _REST)
    spectrum = _interpolate(scaled, (log_x - low) / _STEP) / xp.astype(energy, xp.float64) ** 2
    at_1_kev = _interpolate(scaled, (-xp.log(_REST + 0.0 * low) - low) / _STEP)
    return xp.astype(spectrum / at_1_kev, energy.dtype)


def _klein_nishina(x: Any) -> Any:
    """Cross-section in units of Thomson's (Rybicki & Lightman 1979, eqs. 7.5 and 7.6a)."""
    xp = array_namespace(x)
    large = xp.where(x > 0.05, x, 1.0 + 0.0 * x)
    twice = 1.0 + 2.0 * large
    log = xp.log(twice)
    exact = (1.0 + large) / large**3 * (2.0 * large * (1.0 + large) / twice - log) + 0.5 * log / large
    exact = 0.75 * (exact - (1.0 + 3.0 * large) / twice**2)
    return xp.where(x > 0.05, exact, 1.0 - 2.0 * x + 5.2 * x**2)


def _shift(values: Any, by: int) -> Any:
    """Move values along the last axis, to larger indices if ``by`` is positive; zeros come in at the end."""
    xp = array_namespace(values)
    end = 0.0 * values[..., : abs(by)]
    return xp.concat([end, values[..., :-by]] if by > 0 else [values[..., -by:], end], axis=-1)


def _solve_tridiagonal(lower: Any, diagonal: Any, upper: Any, right: Any) -> Any:
    """Solve lower_j n_{j-1} + diagonal_j n_j + upper_j n_{j+1} = right_j by cyclic reduction of all rows at once.

    Each pass writes every row in terms of neighbours twice as far (Hockney & Jesshope 1981, Parallel Computers,
    sect. 5.4.3), until none are left: nine passes for 384 points, whatever the size of the batch.
    """
    lower, upper, right = lower / diagonal, upper / diagonal, right / diagonal
    by = 1
    while by < _POINTS:
        lower_of_next, upper_of_last = _shift(lower, -by), _shift(upper, by)
        diagonal = 1.0 - lower * upper_of_last - upper * lower_of_next
        right = (right - lower * _shift(right, by) - upper * _shift(right, -by)) / diagonal
        lower, upper = -lower * _shift(lower, by) / diagonal, -upper * _shift(upper, -by) / diagonal
        by *= 2
    return right


def _interpolate(values: Any, place: Any) -> Any:
    """Interpolate values at points equal in ln x, linearly in x, at fractional indices ``place``; 0 above the last."""
    xp = array_namespace(values)
    whole = xp.astype(xp.clip(place, 0.0, _POINTS - 1.001), xp.int64)
    share = xp.expm1(xp.clip(place - whole, 0.0, 1.0) * _STEP) / math.expm1(_STEP)
    rows = values.shape[:-1]
    first = _POINTS * xp.reshape(xp.arange(math.prod(rows), device=device(values)), (*rows, 1))
    flat = xp.reshape(values, (-1,))
    between = flat[first + whole] * (1.0 - share) + flat[first + whole + 1] * share
    return xp.where(place < _POINTS - 1, between, 0.0 * between)
