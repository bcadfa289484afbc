"""Ion fractions of a plasma in collisional ionisation equilibrium, and K lines of its ions with filled L shells.

`make_plasma_table.py` needs them for ionising plasma, where AtomDB's files, made for equilibrium, say how an ion shines
but not how many there are at another temperature, and leave out ions that are rare at the temperature of the electrons.
"""

from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import special

# Ionisation energies in eV, neutral first (NIST Atomic Spectra Database).
# fmt: off
_IONISATION = {
    "H": (13.60,), "He": (24.59, 54.42),
    "C": (11.26, 24.38, 47.89, 64.49, 392.1, 490.0),
    "N": (14.53, 29.60, 47.45, 77.47, 97.89, 552.1, 667.0),
    "O": (13.62, 35.12, 54.94, 77.41, 113.9, 138.1, 739.3, 871.4),
    "Ne": (21.57, 40.96, 63.42, 97.19, 126.3, 157.9, 207.3, 239.1, 1195.8, 1362.2),
    "Mg": (7.646, 15.04, 80.14, 109.3, 141.3, 186.8, 225.0, 265.9, 328.0, 367.5, 1761.8, 1962.7),
    "Al": (5.986, 18.83, 28.45, 120.0, 153.8, 190.5, 241.8, 284.6, 330.1, 398.6, 442.0, 2086.0, 2304.1),
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


_Rate = Float[np.ndarray, " n_temp"]




def _exp_e1(x: Any) -> np.ndarray:
    """Return exp(x) E1(x) without overflow."""
    small = np.minimum(x, 500.0)
    return np.where(x < 500, special.exp1(small) * np.exp(small), 1 / np.maximum(x, 500.0))


def _ionisation_rate(chi: float, n_electrons: int, kt: _Rate) -> _Rate:
    """Collisional ionisation of one subshell, cm3/s: 3.01e-6 q E1(chi/kT) / (chi sqrt(kT)), chi in keV, kT in keV.

    Lotz (1967, Z. Phys. 206, 205), the constant for eV; scaled here by 1000^-1.5.
    """
    y = chi / kt
    return 3.01e-6 / 1e3**1.5 * n_electrons * np.exp(-y) * _exp_e1(y) / (chi * np.sqrt(kt))


def _k_edge(name: str, n_electrons: int) -> float:
    """Energy in keV to take away a K electron: that of the He-like ion, less 1.5 % for each L electron."""
    return _IONISATION[name][-2] / 1e3 * (1 - 0.015 * min(n_electrons - 2, 8))


def _total_ionisation(name: str, charge: int, kt: _Rate) -> _Rate:
    """Ionisation rate of an ion from its valence shell, both subshells, and from the shell below; cm3/s."""
    potentials = _IONISATION[name]
    z = len(potentials)
    n_electrons, chi = z - charge, potentials[charge] / 1e3
    if n_electrons <= 2:
        return _ionisation_rate(chi, n_electrons, kt)
    if n_electrons <= 10:
        s_electrons = 2 if n_electrons > 4 else 0
        rate = _ionisation_rate(chi, n_electrons - 2 - s_electrons, kt)
        rate = rate + _ionisation_rate(_k_edge(name, n_electrons), 2, kt)
    else:
        s_electrons = 2 if n_electrons > 12 else 0
        l_shell = potentials[z - 10] / 1e3 * (1 - 0.44 * (n_electrons - 10) / 16)
        rate = _ionisation_rate(chi, n_electrons - 10 - s_electrons, kt) + _ionisation_rate(l_shell, 8, kt)
    return rate + _ionisation_rate(1.12 * chi, s_electrons, kt)




def _recombination(name: str, charge: int, kt: _Rate) -> _Rate:
    """Radiative recombination of an ion to all its levels, cm3/s.

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
    x = energy[:, None] / kt
    return (5.197e-14 * charge * share * x**1.5 * _exp_e1(x)).sum(0)


def _dielectronic_rate(name: str, charge: int, kt: _Rate) -> _Rate:
    """Dielectronic recombination of an ion, cm3/s: 3e-3 T^-1.5 B(z) sum of f A(x) exp(-E/(a kT)), T in K.

    Burgess (1965, ApJ 141, 1588), with A of Merts et al. (1976, LA-6220-MS) where the core electron changes its shell.
    Core energies and oscillator strengths are scaled along the isoelectronic sequence.
    """
    potentials = _IONISATION[name]
    z = len(potentials)
    n_electrons = z - charge
    if n_electrons == 0:
        return np.zeros_like(kt)
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
    total = np.zeros_like(kt)
    a = 1 + 0.015 * charge**3 / (charge + 1) ** 2
    for transitions, merts in ((same, 1), (other, 2)):
        for energy, f in transitions:
            x = energy / _RYDBERG / (charge + 1)
            reduction = np.sqrt(x) / (1 + 0.105 * merts * x + 0.015 * merts * x**2) / merts
            total += f * reduction * np.exp(-energy / (a * kt))
    b = np.sqrt(charge / (charge**2 + 13.4)) * (charge + 1) ** 2.5
    return 3e-3 * (_KELVIN * kt) ** -1.5 * b * total




def ion_fractions(name: str, kt: _Rate) -> Float[np.ndarray, "n_temp n_ion"]:
    """Fractions of the ions of an element, neutral first, in collisional ionisation equilibrium at `kt` (keV)."""
    z = len(_IONISATION[name])
    log_fraction = [np.zeros_like(kt)]
    for charge in range(z):
        recombination = _recombination(name, charge + 1, kt) + _dielectronic_rate(name, charge + 1, kt)
        ratio = _CALIBRATION.get(z - charge, 1.0) * _total_ionisation(name, charge, kt) / recombination
        log_fraction.append(log_fraction[-1] + np.log(np.maximum(ratio, 1e-300)))
    fractions = np.stack(log_fraction, axis=1)
    return special.softmax(fractions, axis=1)


def excitation(energy: Any, kt: Any, threshold: float = 0.15) -> Any:
    """Rate at which electrons excite a transition of oscillator strength 1, cm3/s: 1.703e-6 g exp(-y) / (E sqrt(T)).

    van Regemorter (1962, ApJ 136, 906), E in keV, T in K, y = E/kT, with the effective Gaunt factor
    g = threshold + 0.276 exp(y) E1(y): Bethe's slope, and a constant that meets the collision strengths in CHIANTI
    (0.08 for Fe XXV, 0.15 for Fe XVII).
    """
    y = energy / kt
    return 1.703e-6 * np.exp(-y) / (energy * np.sqrt(_KELVIN * kt)) * (threshold + 0.276 * _exp_e1(y))


def k_line(name: str, n_electrons: int, helium_like: float, kt: _Rate) -> tuple[float, _Rate] | None:
    """K line of an ion with an electron in its L shell: energy in keV, and photons cm3/s of one ion and one electron.

    Every K ionisation, and every 1s-2p excitation where 2p has room, is followed by a photon with Krause's yield. The
    energy goes from that of the neutral atom to `helium_like` (keV, that of the forbidden line), mostly with the loss
    of the L electrons. None for elements without a yield, or without three electrons.
    """
    z = len(_IONISATION[name])
    if name not in _FLUORESCENCE or not 3 <= n_electrons <= min(z - 7, 18):
        return None
    fluorescence, neutral = _FLUORESCENCE[name]
    energy = neutral + (helium_like - neutral) * (1 - 0.13 * min(n_electrons - 2, 7) - 0.01 * max(n_electrons - 9, 0))
    rate = fluorescence * _ionisation_rate(_k_edge(name, n_electrons), 2, kt)
    if n_electrons < 10:
        rate = rate + fluorescence * 0.72 * (10 - n_electrons) / 7 * excitation(energy, kt, 0.08)
    return energy, rate
