"""OGIP files written for the tests with astropy alone, so that the reader is not tested against our own writer."""

import gzip
from pathlib import Path

import numpy as np
from astropy.io import fits

N_CHAN, N_ENERGY = 64, 40
ENERGY = np.linspace(0.3, 8.3, N_ENERGY + 1).astype(np.float32)
BOUNDS = np.linspace(0.2, 9.2, N_CHAN + 1).astype(np.float32)
COUNTS = np.arange(N_CHAN) % 7


def matrix(n_energy=N_ENERGY, n_chan=N_CHAN, lost=0.1):
    """Gaussian redistribution that loses some photons."""
    centre = (np.arange(n_energy) + 0.5) / n_energy * n_chan
    rows = np.exp(-0.5 * ((np.arange(n_chan) - centre[:, None]) / 2) ** 2)
    rows[rows < 1e-3] = 0
    return ((1 - lost) * rows / rows.sum(1, keepdims=True)).astype(np.float32)


def table(columns, name, **keywords):
    hdu = fits.BinTableHDU.from_columns(columns, name=name)
    for key, value in keywords.items():
        hdu.header[key] = value
    return hdu


def save(path, *hdus, zipped=False):
    fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(path, overwrite=True)
    if zipped:
        Path(path).write_bytes(gzip.compress(Path(path).read_bytes()))
    return Path(path)


def column(name, form, values):
    return fits.Column(name, form, array=values)


def spectrum_table(
    counts=COUNTS, form="J", kind="COUNTS", first=1, extra=(), name="SPECTRUM", channels=None, **keywords
):
    counts = np.asarray(counts)
    if channels is None:
        channels = np.arange(first, first + counts.shape[-1])
    columns = [column("CHANNEL", "J", channels), column(kind, form, counts), *extra]
    defaults = {"HDUCLAS1": "SPECTRUM", "HDUCLAS2": "TOTAL", "EXPOSURE": 1000.0, "TELESCOP": "TEST", "INSTRUME": "CCD"}
    merged = {key: value for key, value in {**defaults, **keywords}.items() if value is not None}
    return table(columns, name, **merged)


def pha(path, counts=COUNTS, zipped=False, **keywords):
    return save(path, spectrum_table(counts, **keywords), zipped=zipped)


def arf(path, area=None, energy=ENERGY, zipped=False, name="SPECRESP", **keywords):
    area = 100 + np.arange(energy.size - 1) if area is None else area
    columns = [
        column("ENERG_LO", "E", energy[:-1]),
        column("ENERG_HI", "E", energy[1:]),
        column("SPECRESP", "E", area),
    ]
    defaults = {"HDUCLAS1": "RESPONSE", "HDUCLAS2": "SPECRESP"}
    merged = {key: value for key, value in {**defaults, **keywords}.items() if value is not None}
    return save(path, table(columns, name, **merged), zipped=zipped)


def groups(row, first):
    """First channels and lengths of the runs of non-zero elements of a row."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], row != 0, [0]])))
    return edges[::2] + first, edges[1::2] - edges[::2]


def matrix_table(dense=None, first=1, fixed=False, energy=ENERGY, name="MATRIX", tlmin=True, **keywords):
    dense = matrix() if dense is None else dense
    found = [groups(row, first) for row in dense]
    elements = [row[row != 0] for row in dense]
    n_grp = np.array([len(starts) for starts, _ in found])
    lists = {"F_CHAN": [g[0] for g in found], "N_CHAN": [g[1] for g in found], "MATRIX": elements}
    columns = [
        column("ENERG_LO", "E", energy[:-1]),
        column("ENERG_HI", "E", energy[1:]),
        column("N_GRP", "I", n_grp),
    ]
    for key, rows in lists.items():
        letter = "E" if key == "MATRIX" else "I"
        width = max(1, *(len(row) for row in rows))
        if fixed:
            padded = np.zeros((len(rows), width), dtype=np.float32 if letter == "E" else np.int16)
            for index, row in enumerate(rows):
                padded[index, : len(row)] = row
            columns.append(
                column(key, letter if width == 1 else f"{width}{letter}", padded[:, 0] if width == 1 else padded)
            )
        else:
            cells = np.empty(len(rows), dtype=object)
            cells[:] = [np.asarray(row) for row in rows] if len({len(row) for row in rows}) > 1 else None
            for index, row in enumerate(rows):
                cells[index] = np.asarray(row)
            columns.append(column(key, f"P{letter}({width})", cells))
    if tlmin:
        keywords["TLMIN4"] = first
    defaults = {"HDUCLAS1": "RESPONSE", "HDUCLAS2": "RSP_MATRIX", "HDUCLAS3": "REDIST", "TELESCOP": "TEST"}
    merged = {key: value for key, value in {**defaults, **keywords}.items() if value is not None}
    return table(columns, name, **merged)


def bounds_table(first=1, channels=None, bounds=BOUNDS, **keywords):
    channels = np.arange(first, first + bounds.size - 1) if channels is None else channels
    columns = [column("CHANNEL", "J", channels), column("E_MIN", "E", bounds[:-1]), column("E_MAX", "E", bounds[1:])]
    defaults = {"HDUCLAS1": "RESPONSE", "HDUCLAS2": "EBOUNDS"}
    merged = {key: value for key, value in {**defaults, **keywords}.items() if value is not None}
    return table(columns, "EBOUNDS", **merged)


def rmf(path, dense=None, first=1, zipped=False, **keywords):
    return save(path, matrix_table(dense, first=first, **keywords), bounds_table(first=first), zipped=zipped)


def whole(folder, name="src", **keywords):
    """PHA file with background, ARF and RMF next to it, named by its header."""
    arf(folder / f"{name}.arf")
    rmf(folder / f"{name}.rmf")
    pha(folder / f"{name}_bkg.pi", counts=COUNTS * 3, BACKSCAL=0.5)
    defaults = {
        "ANCRFILE": f"{name}.arf", "RESPFILE": f"{name}.rmf", "BACKFILE": f"{name}_bkg.pi", "BACKSCAL": 0.1
    }  # fmt: skip
    return pha(folder / f"{name}.pi", **{**defaults, **keywords})


def type_two(path, **keywords):
    """PHA file of type II with three spectra."""
    rows = np.array([COUNTS, COUNTS + 1, COUNTS + 2])
    columns = [
        column("SPEC_NUM", "I", [3, 5, 9]),
        column("CHANNEL", f"{N_CHAN}J", np.tile(np.arange(1, N_CHAN + 1), (3, 1))),
        column("COUNTS", f"{N_CHAN}J", rows),
        column("EXPOSURE", "D", [10.0, 20.0, 30.0]),
        column("RESPFILE", "12A", ["src.rmf"] * 3),
        column("QUALITY", f"{N_CHAN}I", np.tile([0, 1], (3, N_CHAN // 2))),
    ]
    return save(path, table(columns, "SPECTRUM", HDUCLAS1="SPECTRUM", HDUCLAS4="TYPE:II", **keywords))
