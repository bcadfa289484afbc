"""Emission of an optically thin thermal plasma at the energy resolution of a CCD.

Atomic numbers stand in the tables below. What depends on temperature alone is computed from them once, on a grid of
temperatures. A call interpolates in that grid, sums the emission in fine logarithmic cells of energy and reads its
integral at the bin edges: coarse bins are exactly the sums of fine ones, and fluxes vary smoothly with the edges.
"""

from functools import cache, lru_cache
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

import array_api_compat
import numpy as np
from jaxtyping import Float
from scipy import special

from xlatent.core.errors import ParameterError

__all__ = ["ELEMENTS", "SOLAR", "plasma"]

# Number relative to hydrogen, Anders & Grevesse 1989 (Geochim. Cosmochim. Acta 53, 197), table 2, photosphere.
SOLAR = {
    "C": 3.63e-4, "N": 1.12e-4, "O": 8.51e-4, "Ne": 1.23e-4, "Mg": 3.80e-5, "Si": 3.55e-5,
    "S": 1.62e-5, "Ar": 3.63e-6, "Ca": 2.29e-6, "Fe": 4.68e-5, "Ni": 1.78e-6,
}  # fmt: skip
ELEMENTS = tuple(SOLAR)
_NUMBER = {"H": 1.0, "He": 9.77e-2, **SOLAR}
_SPECIES = tuple(_NUMBER)

# Ionisation energies in eV, neutral first (NIST Atomic Spectra Database).
# fmt: off
_IONISATION = {
    "H": (13.60,), "He": (24.59, 54.42),
    "C": (11.26, 24.38, 47.89, 64.49, 392.1, 490.0),
    "N": (14.53, 29.60, 47.45, 77.47, 97.89, 552.1, 667.0),
    "O": (13.62, 35.12, 54.94, 77.41, 113.9, 138.1, 739.3, 871.4),
    "Ne": (21.57, 40.96, 63.42, 97.19, 126.3, 157.9, 207.3, 239.1, 1195.8, 1362.2),
    "Mg": (7.646, 15.04, 80.14, 109.3, 141.3, 186.8, 225.0, 265.9, 328.0, 367.5, 1761.8, 1962.7),
    "Si": (8.152, 16.35, 33.49, 45.14, 166.8, 205.3, 246.6, 303.6, 351.3, 401.4, 476.3, 523.4, 2437.7, 2673.2),
    "S": (10.36, 23.34, 34.86, 47.22, 72.59, 88.05, 280.9, 328.8, 379.8, 447.7, 504.6, 564.4, 652.0, 707.0, 3223.8,
          3494.2),
    "Ar": (15.76, 27.63, 40.74, 59.58, 74.84, 91.29, 124.4, 143.5, 422.6, 479.8, 540.4, 619.0, 685.5, 755.1, 855.5,
           918.4, 4120.7, 4426.2),
    "Ca": (6.113, 11.87, 50.91, 67.27, 84.34, 108.8, 127.2, 147.2, 188.5, 211.3, 591.6, 658.2, 728.6, 817.2, 894.0,
           973.7, 1086.8, 1157.7, 5128.9, 5469.9),
    "Fe": (7.903, 16.20, 30.65, 54.91, 75.0, 98.99, 125.0, 151.1, 233.6, 262.1, 290.9, 330.8, 361.0, 392.2, 456.2,
           489.3, 1262.7, 1357.8, 1460.0, 1575.6, 1687.0, 1798.4, 1950.4, 2045.8, 8828.2, 9277.7),
    "Ni": (7.640, 18.17, 35.19, 54.92, 76.06, 108.0, 132.0, 162.0, 193.2, 224.7, 319.5, 351.6, 384.5, 429.3, 462.8,
           495.4, 571.1, 607.0, 1540.1, 1646.0, 1758.0, 1880.0, 2008.1, 2130.5, 2295.6, 2399.3, 10289.0, 10775.0),
}

# Line energies in keV (NIST, rounded): He-like 1s2p resonance, mean of intercombination and forbidden, 1s3p, 1s4p;
# H-like Lyman alpha.
_K_LINES = {
    "C": (0.3079, 0.3000, 0.3545, 0.3708, 0.3675), "N": (0.4307, 0.4210, 0.4979, 0.5214, 0.5003),
    "O": (0.5740, 0.5630, 0.6656, 0.6978, 0.6536), "Ne": (0.9220, 0.9075, 1.0738, 1.1270, 1.0215),
    "Mg": (1.3523, 1.3345, 1.5793, 1.6600, 1.4723), "Si": (1.8650, 1.8440, 2.1827, 2.2940, 2.0056),
    "S": (2.4606, 2.4360, 2.8840, 3.0330, 2.6212), "Ar": (3.1396, 3.1120, 3.6846, 3.8750, 3.3213),
    "Ca": (3.9024, 3.8720, 4.5835, 4.8220, 4.1050), "Fe": (6.7004, 6.6550, 7.8810, 8.2950, 6.9660),
    "Ni": (7.8056, 7.7600, 9.1830, 9.6650, 8.0930),
}

# Fe L: spectroscopic stage -> (energy keV, effective strength) of lines and blends, at the well-known wavelengths (cf.
# Brown et al. 1998, ApJ 502, 1015, and 2002, ApJS 140, 589). The sum over n = 3 is that of all collision strengths from
# the ground level in CHIANTI for Fe XVII (5.4, and cascades from above) and Fe XXI (2.5), each excitation ending in one
# photon, and linear in the number of 2p electrons between and beyond. Its division among lines follows f for 2p-3d, and
# is by eye for the rest. Good to about 20 % a stage, not line by line.
_FE_L = {
    16: ((0.195, 0.10), (0.228, 0.25), (0.247, 0.15)),
    17: ((0.7262, 2.9), (0.7389, 1.2), (0.8124, 0.60), (0.8258, 2.0), (0.8965, 0.20), (1.0109, 0.33), (1.0226, 0.33),
         (1.1080, 0.35), (1.1550, 0.16)),
    18: ((0.7711, 0.80), (0.7748, 0.55), (0.7870, 0.55), (0.8540, 0.50), (0.8620, 0.55), (0.8728, 1.45),
         (0.8890, 0.20), (1.0756, 0.24), (1.0856, 0.24), (1.0943, 0.14), (1.1800, 0.20)),
    19: ((0.8221, 0.65), (0.8455, 0.50), (0.8986, 0.55), (0.9090, 0.45), (0.9179, 1.60), (0.9400, 0.20),
         (1.1460, 0.38), (1.2600, 0.20)),
    20: ((0.8680, 0.40), (0.9005, 0.50), (0.9580, 0.70), (0.9656, 1.30), (0.9850, 0.35), (1.2410, 0.32),
         (1.3700, 0.16)),
    21: ((0.9360, 0.30), (0.9700, 0.35), (1.0003, 0.35), (1.0093, 1.07), (1.0450, 0.45), (1.3080, 0.27),
         (1.4500, 0.14)),
    22: ((0.9720, 0.30), (1.0200, 0.25), (1.0393, 0.45), (1.0534, 0.85), (1.3820, 0.20), (1.5400, 0.10)),
    23: ((1.0196, 0.32), (1.0564, 0.70), (1.1272, 0.55), (1.4063, 0.18), (1.4935, 0.20), (1.6600, 0.10)),
    24: ((1.0848, 0.10), (1.1093, 0.33), (1.1242, 0.17), (1.1660, 0.41), (1.4980, 0.12), (1.5514, 0.12),
         (1.7290, 0.06)),
}
# fmt: on

# K shell: fluorescence yield (Krause 1979, J. Phys. Chem. Ref. Data 8, 307) and K alpha of the neutral atom in keV.
_FLUORESCENCE = {
    "Mg": (0.030, 1.254), "Si": (0.050, 1.740), "S": (0.078, 2.308), "Ar": (0.118, 2.957), "Ca": (0.163, 3.691),
    "Fe": (0.340, 6.402), "Ni": (0.406, 7.475),
}  # fmt: skip

# By the number of electrons of an ion: factor on the ratio of the next ion to it, that brings the formulas below to the
# equilibrium of CHIANTI (chianti.ioneq) near the peaks of the ions of iron; for 2 electrons, of O, Si and Fe. It stands
# for what the formulas leave out: autoionisation after excitation (11), ways of dielectronic recombination (3 to 9).
_CALIBRATION = {2: 0.72, 3: 0.80, 4: 0.62, 5: 0.80, 6: 0.63, 7: 0.69, 8: 0.62, 9: 0.64, 10: 0.83, 11: 2.0}

_RYDBERG = 0.0136057  # keV
_KELVIN = 1.160452e7  # K per keV
_FLUX = 1e14  # photons/cm2/s at norm 1 for an emissivity of 1 photon cm3/s

# Temperatures of the tables; edges of the cells in which emission is summed, 0.5 % wide, less than a CCD can see.
_LOG_KT = np.linspace(np.log(0.02), np.log(40.0), 96)
_KT = np.exp(_LOG_KT)
_LOG_ENERGY = np.linspace(np.log(0.05), np.log(100.0), 1537)
_LINE_WIDTH = 0.0025  # standard deviation of a line over its energy: 17 eV at 6.7 keV
_N_GAUNT = 9  # coefficients of the polynomial for the Gaunt factor
_LOG_U = np.log(2e-3), np.log(200.0)  # range of log(E/kT) it is fitted in


_Rate = Float[np.ndarray, " n_temp"]  # at the temperatures _KT


class _Term(NamedTuple):
    """One process feeding one feature: photons per second = rate(kT_e) times abundance times fraction of one ion."""

    species: int
    ion: int  # column of the table of ion fractions
    energy: float  # keV: of the line, of the edge, or the sum of two photons
    rate: _Rate  # cm3/s
    two_photon: bool = False


def _exp_e1(x: Any) -> np.ndarray:
    """Return exp(x) E1(x) without overflow."""
    small = np.minimum(x, 500.0)
    return np.where(x < 500, special.exp1(small) * np.exp(small), 1 / np.maximum(x, 500.0))


def _ionisation_rate(chi: float, n_electrons: int) -> _Rate:
    """Collisional ionisation of one subshell, cm3/s: 3.01e-6 q E1(chi/kT) / (chi sqrt(kT)), chi in keV, kT in keV.

    Lotz (1967, Z. Phys. 206, 205), the constant for eV; scaled here by 1000^-1.5.
    """
    y = chi / _KT
    return 3.01e-6 / 1e3**1.5 * n_electrons * np.exp(-y) * _exp_e1(y) / (chi * np.sqrt(_KT))


def _k_edge(name: str, n_electrons: int) -> float:
    """Energy in keV to take away a K electron: that of the He-like ion, less 1.5 % for each L electron."""
    return _IONISATION[name][-2] / 1e3 * (1 - 0.015 * min(n_electrons - 2, 8))


def _total_ionisation(name: str, charge: int) -> _Rate:
    """Ionisation rate of an ion from its valence shell, both subshells, and from the shell below; cm3/s."""
    potentials = _IONISATION[name]
    z = len(potentials)
    n_electrons, chi = z - charge, potentials[charge] / 1e3
    if n_electrons <= 2:
        return _ionisation_rate(chi, n_electrons)
    if n_electrons <= 10:
        s_electrons = 2 if n_electrons > 4 else 0
        rate = _ionisation_rate(chi, n_electrons - 2 - s_electrons) + _ionisation_rate(_k_edge(name, n_electrons), 2)
    else:
        s_electrons = 2 if n_electrons > 12 else 0
        l_shell = potentials[z - 10] / 1e3 * (1 - 0.44 * (n_electrons - 10) / 16)
        rate = _ionisation_rate(chi, n_electrons - 10 - s_electrons) + _ionisation_rate(l_shell, 8)
    return rate + _ionisation_rate(1.12 * chi, s_electrons)


def _recombination(name: str, charge: int) -> tuple[Float[np.ndarray, " n_level"], Float[np.ndarray, "n_level n_temp"]]:
    """Radiative recombination of an ion: binding energies [n_level] keV, and rates [n_level, n_temp] cm3/s.

    Hydrogenic, Seaton (1959, MNRAS 119, 81): 5.197e-14 z x^1.5 exp(x) E1(x), x = I_n/kT; the ground shell with its true
    ionisation energy, and times the share of it that is vacant.
    """
    potentials = _IONISATION[name]
    n_electrons = len(potentials) - charge
    if n_electrons < 2:
        ground, vacant = 1, 1 - n_electrons / 2
    elif n_electrons < 10:
        ground, vacant = 2, 1 - (n_electrons - 2) / 8
    else:
        ground, vacant = 3, max(1 - (n_electrons - 10) / 18, 0.1)
    n = np.arange(ground, 40)
    energy = _RYDBERG * charge**2 / n**2
    energy[0] = potentials[charge - 1] / 1e3
    share = np.where(n == ground, 0.9 * vacant, 1.0)[:, None]  # 0.9: mean bound-free Gaunt factor of the ground state
    x = energy[:, None] / _KT
    return energy, 5.197e-14 * charge * share * x**1.5 * _exp_e1(x)


def _dielectronic_rate(name: str, charge: int) -> _Rate:
    """Dielectronic recombination of an ion, cm3/s: 3e-3 T^-1.5 B(z) sum of f A(x) exp(-E/(a kT)), T in K.

    Burgess (1965, ApJ 141, 1588), with A of Merts et al. (1976, LA-6220-MS) where the core electron changes its shell.
    Core energies and oscillator strengths are scaled along the isoelectronic sequence.
    """
    potentials = _IONISATION[name]
    z = len(potentials)
    n_electrons = z - charge
    if n_electrons == 0:
        return np.zeros_like(_KT)
    i = potentials[charge] / 1e3
    same, other = {  # (energy keV, f) of core excitations within the shell and out of it
        1: ((), ((0.75 * i, 0.416),)),
        2: ((), ((0.76 * i, 0.75), (0.89 * i, 0.15))),
        3: (((2.2e-3 * (z - 1.9), 1.7 / z),), ((0.57 * i, 0.35),)),
        4: (((3.7e-3 * (z - 1.5), 4.0 / z),), ((0.57 * i, 0.5),)),
        10: ((), ((0.65 * i, 3.0),)),
    }.get(n_electrons, (((5.5e-3 * charge, 6.5 / z),), ((0.64 * i, 0.5 * (n_electrons - 4) + 0.2),)))
    if n_electrons > 10:
        same, other = ((2.5e-3 * charge, 0.9),), ()
    total = np.zeros_like(_KT)
    a = 1 + 0.015 * charge**3 / (charge + 1) ** 2
    for transitions, merts in ((same, 1), (other, 2)):
        for energy, f in transitions:
            x = energy / _RYDBERG / (charge + 1)
            reduction = np.sqrt(x) / (1 + 0.105 * merts * x + 0.015 * merts * x**2) / merts
            total += f * reduction * np.exp(-energy / (a * _KT))
    b = np.sqrt(charge / (charge**2 + 13.4)) * (charge + 1) ** 2.5
    return 3e-3 * (_KELVIN * _KT) ** -1.5 * b * total


def _ion_fractions(name: str) -> Float[np.ndarray, "n_temp n_ion"]:
    """Collisional ionisation equilibrium, log of the fractions [n_temp, Z + 1], neutral first."""
    z = len(_IONISATION[name])
    log_fraction = [np.zeros_like(_KT)]
    for charge in range(z):
        recombination = _recombination(name, charge + 1)[1].sum(0) + _dielectronic_rate(name, charge + 1)
        ratio = _CALIBRATION.get(z - charge, 1.0) * _total_ionisation(name, charge) / recombination
        log_fraction.append(log_fraction[-1] + np.log(np.maximum(ratio, 1e-300)))
    fractions = np.stack(log_fraction, axis=1)
    return np.maximum(fractions - special.logsumexp(fractions, axis=1, keepdims=True), -70.0)


def _excitation(energy: float, strength: float, threshold: float) -> _Rate:
    """Excitation with a dipole, cm3/s: 1.703e-6 f g exp(-y) / (E sqrt(T)), E in keV, T in K, y = E/kT.

    van Regemorter (1962, ApJ 136, 906), with the effective Gaunt factor g = threshold + 0.276 exp(y) E1(y): Bethe's
    slope and a constant that meets the collision strengths in CHIANTI (O VIII, Fe XVII, Fe XXV).
    """
    y = energy / _KT
    return _per_strength(energy) * strength * (threshold + 0.276 * _exp_e1(y))


def _exchange_excitation(energy: float, strength: float) -> _Rate:
    """Excitation without a dipole, cm3/s: as `_excitation` for a collision strength that falls as 1/E^2."""
    y = energy / _KT
    return _per_strength(energy) * strength * y * (1 - y * _exp_e1(y))


def _per_strength(energy: float) -> _Rate:
    return 1.703e-6 * np.exp(-energy / _KT) / (energy * np.sqrt(_KELVIN * _KT))


def _k_shell(species: int, name: str, neutral: int) -> list[_Term]:
    """Lines and two-photon continua of the H- and He-like ion, and K lines of ions with more electrons."""
    z = len(_IONISATION[name])
    resonance, triplet, beta, gamma, lyman = _K_LINES[name]
    to_he, to_h = (_recombination(name, charge)[1][1:].sum(0) for charge in (z - 1, z))
    bare, hydrogen, helium = neutral + z, neutral + z - 1, neutral + z - 2
    w = _excitation(resonance, 0.72, 0.08)
    terms = [
        _Term(species, helium, resonance, 1.08 * w),
        _Term(
            species, helium, triplet, _exchange_excitation(triplet, 0.23 - 0.0025 * z) + _dielectronic_rate(name, z - 2)
        ),
        _Term(species, helium, beta, _excitation(beta, 0.148, 0.10)),
        _Term(species, helium, gamma, _excitation(gamma, 0.10, 0.10)),
        _Term(species, helium, resonance, 0.25 * w, two_photon=True),
        _Term(species, hydrogen, triplet, 0.75 * to_he),
        _Term(species, hydrogen, resonance, 0.18 * to_he),
        _Term(species, hydrogen, lyman, _excitation(lyman, 1.15 * 0.4162, 0.13)),
        _Term(species, hydrogen, 32 / 27 * lyman, _excitation(32 / 27 * lyman, 0.88 * 0.0791, 0.20)),
        _Term(species, hydrogen, 1.25 * lyman, _excitation(1.25 * lyman, 0.055, 0.20)),
        _Term(species, hydrogen, 0.99 * lyman, _dielectronic_rate(name, z - 1)),
        # 1s-2s: Z^2 times the effective collision strength is 0.68.
        _Term(species, hydrogen, lyman, 0.0352 * _per_strength(lyman), two_photon=True),
        _Term(species, bare, lyman, 0.75 * to_h),
        _Term(species, bare, lyman, 0.25 * to_h, two_photon=True),
    ]
    if name in _FLUORESCENCE:
        yield_, neutral_line = _FLUORESCENCE[name]
        for n in range(3, min(z - 7, 18) + 1):
            energy = neutral_line + (triplet - neutral_line) * (1 - 0.13 * min(n - 2, 7) - 0.01 * max(n - 9, 0))
            rate = yield_ * _ionisation_rate(_k_edge(name, n), 2)
            if n < 10:  # room in 2p
                rate = rate + yield_ * _excitation(energy, 0.72 * (10 - n) / 7, 0.08)
            terms.append(_Term(species, neutral + z - n, energy, rate))
    return terms


def _l_shell(species: int, name: str, neutral: int) -> list[_Term]:
    """Lines from n = 3 and above to n = 2."""
    potentials = _IONISATION[name]
    z = len(potentials)
    if name == "Fe":
        return [
            _Term(species, neutral + stage - 1, energy, _excitation(energy, strength, 0.15))
            for stage, lines in _FE_L.items()
            for energy, strength in lines
        ]
    terms = []
    for n in (
        range(3, 11) if z >= 10 else ()
    ):  # sequences Li to Ne: the two complexes, as fractions of the ionisation energy
        i = potentials[z - n] / 1e3
        lines = (
            ((0.577 * i, 0.35), (0.538 * i, 0.40))
            if n < 5
            else ((0.645 * i, 0.45 * (n - 4)), (0.575 * i, 0.3 * (n - 4)))
        )
        terms += [_Term(species, neutral + z - n, e, _excitation(e, f, 0.15)) for e, f in lines]
    return terms


def _free_bound(species: int, name: str, neutral: int) -> list[_Term]:
    """Recombination continua: rate exp(-(E - I)/kT) / (E exp(x) E1(x)) photons per keV above the edge I, x = I/kT.

    This is the spectrum of a cross-section falling as E^-3. Taken are n < 5 of bare ions, n < 4 of H-like ions, and the
    ground shell of ions down to nine electrons; of metals only edges above 0.03 keV.
    """
    z = len(_IONISATION[name])
    terms = []
    for charge in range(z, max(z - 9, 0), -1):
        n_level = {z: 4, z - 1: 3}.get(charge, 1)
        energies, rates = _recombination(name, charge)
        for energy, rate in zip(energies[:n_level], rates[:n_level], strict=True):
            if energy > 0.03 or z < 3:
                terms.append(_Term(species, neutral + charge, float(energy), rate / _exp_e1(energy / _KT)))
    return terms


def _gaunt_polynomials() -> tuple[Float[np.ndarray, " n_gamma"], Float[np.ndarray, "n_gamma n_gaunt"]]:
    """Free-free Gaunt factor: log(Z^2 Ry/kT) [n_gamma], and polynomials [n_gamma, n_gaunt] in scaled log(E/kT).

    Thermal average of the Born formula with the Coulomb correction of Elwert (1939, Ann. Phys. 426, 178).
    """
    log_gamma = np.linspace(np.log(1e-4), np.log(500.0), 60)
    log_u = np.linspace(*_LOG_U, 160)
    x, weight = special.roots_laguerre(32)
    u, gamma = np.exp(log_u)[None, :, None], np.exp(log_gamma)[:, None, None]
    k_in, k_out = np.sqrt(x + u), np.sqrt(x)
    eta_in, eta_out = np.sqrt(gamma) / k_in, np.sqrt(gamma) / k_out
    elwert = eta_out / eta_in * np.expm1(-2 * np.pi * eta_in) / np.expm1(-2 * np.pi * eta_out)
    gaunt = (np.sqrt(3) / np.pi * np.log((k_in + k_out) ** 2 / u) * elwert) @ weight
    powers = np.vander(_scaled_log_u(log_u), _N_GAUNT, increasing=True)
    importance = 1 / gaunt / (1 + np.exp(log_u) / 30)  # relative, and where there are photons
    fits = [np.linalg.lstsq(powers * w[:, None], g * w, rcond=None)[0] for g, w in zip(gaunt, importance, strict=True)]
    return log_gamma, np.stack(fits)


def _scaled_log_u(log_u: Any) -> Any:
    return (2 * log_u - float(_LOG_U[0] + _LOG_U[1])) / float(_LOG_U[1] - _LOG_U[0])


def _profiles(terms: list[_Term]) -> Float[np.ndarray, "n_term n_cell"]:
    """Share of the photons of each term in each cell, [n_term, n_cell]: a Gaussian line, or two photons."""
    log_line = np.log([t.energy for t in terms])[:, None]
    lines = np.diff(special.ndtr((_LOG_ENERGY - log_line) / _LINE_WIDTH), axis=1)
    # Two photons: Nussbaumer & Schmutz (1984, A&A 138, 495), the shape in y = E/E0, both photons counted.
    y = np.linspace(0, 1, 2001)
    w = y * (1 - y)
    shape = w * (1 - (4 * w) ** 0.8) + 0.88 * w**1.53 * (4 * w) ** 0.8
    below = np.cumsum(shape) / shape.sum()
    pairs = 2 * np.diff(np.interp(np.exp(_LOG_ENERGY - log_line), y, below), axis=1)
    return np.where([[t.two_photon] for t in terms], pairs, lines)


@cache
def _tables() -> SimpleNamespace:
    """Compute everything that does not depend on the call, once."""
    log_gamma, gaunt = _gaunt_polynomials()
    fractions, lines, edges, free_free = [], [], [], []
    neutral = 0
    for species, name in enumerate(_SPECIES):
        log_fraction = _ion_fractions(name)
        fractions.append(log_fraction)
        if name in _K_LINES:
            lines += _k_shell(species, name, neutral) + _l_shell(species, name, neutral)
        edges += _free_bound(species, name, neutral)
        neutral += log_fraction.shape[1]
        charge_squared = np.exp(log_fraction) @ np.arange(log_fraction.shape[1]) ** 2.0
        gamma = np.log(np.maximum(charge_squared, 1e-3) * _RYDBERG / _KT)
        coefficients = [np.interp(gamma, log_gamma, gaunt[:, i]) for i in range(_N_GAUNT)]
        free_free.append(_NUMBER[name] * charge_squared[:, None] * np.stack(coefficients, axis=1))

    def log_rates(terms: list[_Term]) -> Float[np.ndarray, "n_temp n_term"]:
        number = _FLUX * np.array([_NUMBER[_SPECIES[t.species]] for t in terms])
        return np.log(np.maximum(np.stack([t.rate for t in terms], axis=1), 1e-45) * number)

    edge_energy = np.array([t.energy for t in edges])
    cell = _LOG_ENERGY[1] - _LOG_ENERGY[0]
    centre = _LOG_ENERGY[1:] - cell / 2
    return SimpleNamespace(
        log_fractions=np.concatenate(fractions, axis=1),
        line_rates=log_rates(lines),
        line_ion=np.array([t.ion for t in lines]),
        line_species=np.array([t.species for t in lines]),
        line_profile=_profiles(lines),
        edge_rates=log_rates(edges),
        edge_ion=np.array([t.ion for t in edges]),
        edge_species=np.array([t.species for t in edges]),
        edge_energy=edge_energy,
        edge_step=np.clip((_LOG_ENERGY[1:] - np.log(edge_energy)[:, None]) / cell, 0, 1),
        free_free=np.stack(free_free, axis=1),
        log_centre=centre,
    )


@lru_cache(maxsize=8)
def _tables_for(xp: ModuleType, dtype: Any, device: Any) -> SimpleNamespace:
    """Return the tables as arrays of one namespace, type and device."""
    kinds = {"f": dtype, "i": xp.int64}
    return SimpleNamespace(
        **{k: xp.asarray(v, dtype=kinds[v.dtype.kind], device=device) for k, v in vars(_tables()).items()}
    )


def _in_temperature(xp: ModuleType, table: Any, kt: Any) -> Any:
    """Interpolate the first axis of a table linearly in log kT; kt [n_batch] -> [n_batch, ...]."""
    position = (xp.log(kt) - float(_LOG_KT[0])) / float(_LOG_KT[1] - _LOG_KT[0])
    position = xp.clip(position, 0.0, len(_LOG_KT) - 1.001)
    index = xp.astype(xp.floor(position), xp.int64)
    share = xp.reshape(position - xp.astype(index, position.dtype), (-1,) + (1,) * (table.ndim - 1))
    return (1 - share) * xp.take(table, index, axis=0) + share * xp.take(table, index + 1, axis=0)


def plasma(energy: Any, kt: Any, abundance: Any, kt_ion: Any = None) -> Any:
    """Compute the photon flux of an optically thin plasma: bremsstrahlung, recombination, two-photon continua, lines.

    The ions are in collisional ionisation equilibrium at `kt_ion`, the electrons at `kt`. Left alone, the two are the
    same; a lower `kt_ion` imitates an ionising plasma such as the ejecta of a young supernova remnant.

    Photons per second for n_e = n_H = 1 cm⁻³ and one cm³, with n_i the number of an ion relative to hydrogen, energies
    in keV: free-free, sum of 3.031e-15 Z_i² n_i g(E/kT) exp(-E/kT) / (E sqrt(kT)) per keV; recombination into a shell
    bound by I at the rate a(kT), n_i a exp(-(E - I)/kT) / (E exp(I/kT) E1(I/kT)) per keV above I; a line, n_i q(kT), q
    from collision strengths, recombination cascades, dielectronic satellites and inner-shell ionisation.

    Parameters
    ----------
    energy : array [n_energy + 1] or [n_batch, n_energy + 1]
        Ascending bin edges in keV, NumPy or torch, float32 or float64. There is no emission outside 0.05-100 keV.
    kt : array [n_batch] or float
        Electron temperature in keV, for which 0.08 to 15 is meant.
    abundance : array [n_batch, 11] or [n_batch] or float
        Relative to solar (Anders & Grevesse 1989); a second axis is in the order of `ELEMENTS`.
    kt_ion : array [n_batch] or float, optional
        Temperature of the ion fractions in keV; `kt` if not given.

    Returns
    -------
    array [n_batch, n_energy], or [n_energy] where everything is scalar
        Photons cm⁻² s⁻¹ per bin for norm 1, the norm of XSPEC's ``apec``: 1e-14 / (4 pi D²) times the integral of
        n_e n_H dV, all in cgs units.

    Raises
    ------
    ParameterError
        If `abundance` has a second axis that has neither 1 nor 11 columns.

    Notes
    -----
    Continuum good to a few per cent. Ratios of neighbouring ion fractions near their peaks: within 15 % of CHIANTI for
    iron, 25 % for oxygen and silicon. Lines of H- and He-like ions: 20 to 30 %. Fe L complex: 30 % in strength, 20 eV
    in centroid. Below 0.4 keV, where hundreds of L-shell lines crowd: a factor of two. Lines have a standard deviation
    of 0.25 % of their energy. No sodium, no aluminium, no dependence on density, no optical depth. One ionisation
    temperature is not an ionisation time-scale: real ionising plasmas have broader mixtures of ions.
    """
    xp = array_api_compat.array_namespace(energy)
    dtype, device = energy.dtype, array_api_compat.device(energy)
    kt = xp.asarray(kt, dtype=dtype, device=device)
    abundance = xp.asarray(abundance, dtype=dtype, device=device)
    kt_ion = kt if kt_ion is None else xp.asarray(kt_ion, dtype=dtype, device=device)
    scalar = energy.ndim == 1 and kt.ndim == 0 and abundance.ndim == 0 and kt_ion.ndim == 0
    if abundance.ndim < 2:
        abundance = xp.reshape(abundance, (-1, 1))
    if abundance.shape[1] not in (1, len(ELEMENTS)):
        raise ParameterError(
            f"abundance has {abundance.shape[1]} columns; give 1 or {len(ELEMENTS)}, in the order of ELEMENTS"
        )
    kt, kt_ion = xp.reshape(kt, (-1,)), xp.reshape(kt_ion, (-1,))
    n_batch = max(kt.shape[0], kt_ion.shape[0], abundance.shape[0], energy.shape[0] if energy.ndim == 2 else 1)
    kt, kt_ion = xp.broadcast_to(kt, (n_batch,)), xp.broadcast_to(kt_ion, (n_batch,))
    abundance = xp.broadcast_to(abundance, (n_batch, len(ELEMENTS)))
    tables = _tables_for(xp, dtype, device)

    # Hydrogen and helium come first among the species and keep their abundance.
    abundance = xp.concat([xp.ones_like(abundance[:, :2]), abundance], axis=1)

    fractions = xp.exp(_in_temperature(xp, tables.log_fractions, kt_ion))
    lines = xp.exp(_in_temperature(xp, tables.line_rates, kt))
    lines = lines * xp.take(fractions, tables.line_ion, axis=1) * xp.take(abundance, tables.line_species, axis=1)
    # exp(I/kT) is kept below 1e35, for float32: only an ion far too hot for its gas comes near.
    edges = xp.exp(_in_temperature(xp, tables.edge_rates, kt) + xp.clip(tables.edge_energy / kt[:, None], 0.0, 80.0))
    edges = edges * xp.take(fractions, tables.edge_ion, axis=1) * xp.take(abundance, tables.edge_species, axis=1)

    coefficients = xp.sum(_in_temperature(xp, tables.free_free, kt) * abundance[:, :, None], axis=1)
    log_u = tables.log_centre - xp.log(kt)[:, None]
    x = _scaled_log_u(xp.clip(log_u, float(_LOG_U[0]), float(_LOG_U[1])))
    gaunt = coefficients[:, -1:]
    for i in range(_N_GAUNT - 2, -1, -1):
        gaunt = gaunt * x + coefficients[:, i : i + 1]
    # Rybicki & Lightman (1979), eq. 5.14, in photons per dE/E: 3.031e-15 g exp(-E/kT) / sqrt(kT) n_e n_i Z^2, cm3/s.
    continuum = 3.031e-15 * _FLUX / xp.sqrt(kt)[:, None] * gaunt + edges @ tables.edge_step
    cell = float(_LOG_ENERGY[1] - _LOG_ENERGY[0])
    photons = continuum * xp.exp(-xp.exp(log_u)) * cell + lines @ tables.line_profile
    return _integrate(xp, photons, energy, scalar)


def _integrate(xp: ModuleType, photons: Any, energy: Any, scalar: bool) -> Any:
    """Turn photons in the fine cells [n_batch, n_cell] into photons between the edges."""
    # Summed from the top, where photons are few, so that float32 keeps their digits.
    above = xp.flip(xp.cumulative_sum(xp.flip(photons, axis=1), axis=1), axis=1)
    above = xp.concat([above, xp.zeros_like(above[:, :1])], axis=1)
    n_batch, n_node = above.shape
    position = (xp.log(xp.clip(energy, 0.05, 100.0)) - float(_LOG_ENERGY[0])) / float(_LOG_ENERGY[1] - _LOG_ENERGY[0])
    position = xp.clip(position, 0.0, n_node - 1.001)
    index = xp.astype(xp.floor(position), xp.int64)
    share = position - xp.astype(index, position.dtype)
    if energy.ndim == 1:
        low, high = xp.take(above, index, axis=1), xp.take(above, index + 1, axis=1)
    else:
        row = xp.reshape(xp.arange(n_batch, dtype=xp.int64, device=array_api_compat.device(energy)), (-1, 1)) * n_node
        flat = xp.reshape(above, (-1,))
        where = xp.reshape(row + index, (-1,))
        low = xp.reshape(xp.take(flat, where), index.shape)
        high = xp.reshape(xp.take(flat, where + 1), index.shape)
    integral = (1 - share) * low + share * high
    flux = integral[:, :-1] - integral[:, 1:]
    flux = xp.clip(flux, 0.0, None)
    return flux[0, :] if scalar else flux
