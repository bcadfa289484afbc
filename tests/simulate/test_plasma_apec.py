"""Our plasma against APEC: AtomDB's files summed line by line here, XSPEC's own code, and numbers kept from the former.

The environment's ATOMDB names the folder with apec_v3.0.9_line.fits and apec_v3.0.9_coco.fits.
"""

import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from xlatent.simulate.plasma import ELEMENTS, plasma

BANDS = np.array([0.3, 0.45, 0.6, 0.8, 1.1, 1.6, 2.2, 3.0, 4.5, 6.2, 7.2, 10.0])
RARER = [3, 4, 5, 9, 11, 15, 17, 19, 21, 22, 23, 24, 25, 27, 29, 30]  # atomic numbers of what goes with iron
# kT in keV, metals in solar, photons cm-2 s-1 in the bands at norm 1: `summed` over fifty parts of each;
# 0 below 1e-4 of all.
# fmt: off
REFERENCE = (
    (0.12, 0.2, 0.1679, 0.08771, 0.01183, 0.001736, 0.0001034, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
    (0.12, 1, 0.6892, 0.4099, 0.05221, 0.00753, 0.000433, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
    (0.25, 0.2, 0.2417, 0.1476, 0.1522, 0.0557, 0.006217, 0.0005815, 0.0, 0.0, 0.0, 0.0, 0.0),
    (0.25, 1, 0.8056, 0.5952, 0.6937, 0.2517, 0.02421, 0.002228, 0.0, 0.0, 0.0, 0.0, 0.0),
    (0.5, 0.2, 0.1915, 0.09907, 0.2305, 0.1884, 0.03518, 0.007577, 0.001687, 0.0002679, 0.0, 0.0, 0.0),
    (0.5, 1, 0.3559, 0.2099, 0.9669, 0.8262, 0.1178, 0.02262, 0.004811, 0.0007222, 0.0, 0.0, 0.0),
    (0.95, 0.2, 0.1933, 0.102, 0.1296, 0.2443, 0.07058, 0.02472, 0.01016, 0.003696, 0.0004985, 0.0, 0.0),
    (0.95, 1, 0.2937, 0.1404, 0.3653, 1.001, 0.1987, 0.05775, 0.02244, 0.007333, 0.0009445, 0.0, 0.0),
    (2.4, 0.2, 0.1697, 0.1031, 0.09159, 0.08853, 0.08539, 0.04673, 0.03069, 0.02244, 0.007936, 0.002856, 0.002024),
    (2.4, 1, 0.196, 0.119, 0.1188, 0.1326, 0.1485, 0.0655, 0.04325, 0.03137, 0.01078, 0.007399, 0.003213),
    (8, 0.2, 0.1328, 0.08522, 0.07869, 0.07796, 0.08067, 0.05742, 0.04656, 0.04735, 0.02713, 0.01187, 0.01622),
    (8, 1, 0.1446, 0.09289, 0.08873, 0.08686, 0.09442, 0.06528, 0.05292, 0.05429, 0.03137, 0.0218, 0.02061),
)
# fmt: on


@pytest.fixture(scope="module")
def atomdb():
    folder = Path(os.environ.get("ATOMDB", ""))
    if not (folder / "apec_v3.0.9_line.fits").is_file():
        pytest.skip("the environment's ATOMDB names no folder with AtomDB 3.0.9")
    with fits.open(folder / "apec_v3.0.9_line.fits") as lines, fits.open(folder / "apec_v3.0.9_coco.fits") as continua:
        yield lines, continua


def at_node(atomdb, node, edges, abundance):
    """Sum what AtomDB lists at one of its temperatures: photons cm3/s per bin; abundances by atomic number."""
    table = atomdb[0][node + 2].data
    weights = abundance[table["Element"]] * table["Epsilon"]
    photons = np.histogram(12.39841984 / table["Lambda"], edges, weights=weights)[0].astype(float)
    parts = (np.arange(27) + 0.5) / 27
    energy = edges[:-1, None] + np.diff(edges)[:, None] * parts
    for row in atomdb[1][node + 2].data:
        for count, x, y in (("N_Cont", "E_Cont", "Continuum"), ("N_Pseudo", "E_Pseudo", "Pseudo")):
            n = row[count]
            density = np.interp(energy, row[x][:n], row[y][:n], left=0.0, right=0.0) if n else 0.0 * energy
            photons += abundance[row["Z"]] * density.mean(1) * np.diff(edges)
    return photons


def summed(atomdb, edges, kt, metals):
    """Interpolate linearly in kT between AtomDB's temperatures, as XSPEC does: photons cm-2 s-1 per bin at norm 1."""
    abundance = np.where(np.arange(31) > 2, metals, 1.0)
    nodes = atomdb[0][1].data["kT"].astype(float)
    i = np.searchsorted(nodes, kt) - 1
    share = (kt - nodes[i]) / (nodes[i + 1] - nodes[i])
    return 1e14 * sum(w * at_node(atomdb, i + k, edges, abundance) for k, w in enumerate((1 - share, share)))


def deviation(flux, expected):
    """Deviations in bins that hold at least a thousandth of all photons."""
    counted = expected > 1e-3 * expected.sum()
    return np.abs(flux[counted] / expected[counted] - 1)


@pytest.mark.parametrize("row", REFERENCE, ids=lambda row: f"kT {row[0]}, Z {row[1]}")
def test_photons_in_broad_bands(row):
    kt, metals, *expected = row
    assert deviation(plasma(BANDS, kt, metals), np.array(expected)).max() < 0.005


@pytest.mark.parametrize("row", REFERENCE[::3], ids=lambda row: f"kT {row[0]}, Z {row[1]}")
def test_numbers_kept_are_those_of_the_files(atomdb, row):
    kt, metals, *expected = row
    parts = np.concatenate([*(np.linspace(*ends, 50, endpoint=False) for ends in pairwise(BANDS)), BANDS[-1:]])
    fine = summed(atomdb, parts, kt, metals).reshape(-1, 50).sum(1)
    np.testing.assert_allclose(fine, expected, rtol=1e-3, atol=1.1e-4 * np.sum(expected))


@pytest.mark.parametrize("kt", [0.11, 0.2, 0.37, 0.8, 1.1, 2.0, 5.0, 14.0])
@pytest.mark.parametrize("first", [0.3, 0.3025])
def test_every_narrow_bin_is_that_of_the_files(atomdb, kt, first):
    edges = np.exp(np.arange(np.log(first), np.log(10.0), 0.02))
    none, solar = (summed(atomdb, edges, kt, metals) for metals in (0.0, 1.0))
    for metals in (0.1, 0.4, 1.0, 2.0):
        expected = none + metals * (solar - none)
        off = deviation(plasma(edges, kt, metals), expected)
        assert off.max() < 0.02
        assert np.median(off) < 0.001


def test_every_narrow_bin_is_that_of_xspec(atomdb):
    library = pytest.importorskip("xspectrampoline").get_libraries()
    functions = library.lib_xs_functions
    functions.FPSOLR(b"angr", np.zeros(1, np.int32).ctypes)
    functions.FPMSTR(b"APECROOT", str(Path(os.environ["ATOMDB"]) / "apec_v3.0.9").encode())
    functions.FPMSTR(b"APEC_TRACE_ABUND", b"Fe")
    edges = np.exp(np.arange(np.log(0.3), np.log(10.0), 0.02))
    for kt, metals in ((0.15, 0.3), (0.5, 1.0), (1.3, 0.2), (4.0, 0.5), (9.0, 2.0)):
        expected = np.zeros(len(edges) - 1)
        library.get_model("C_apec")(edges, np.array([kt, metals, 0.0]), expected, np.zeros_like(expected))
        assert deviation(plasma(edges, kt, metals), expected).max() < 0.02


@pytest.mark.parametrize(("element", "numbers"), [("O", [8]), ("Ne", [10]), ("Al", [13]), ("Fe", [26, *RARER])])
def test_one_element_alone_is_that_of_the_files(atomdb, element, numbers):
    edges = np.exp(np.arange(np.log(0.4), np.log(3.0), 0.02))
    alone = np.isin(np.arange(31), numbers).astype(float)
    node = 30  # 0.862 keV
    kt = atomdb[0][1].data["kT"][node]
    rows = np.ones((2, len(ELEMENTS)))
    rows[0, ELEMENTS.index(element)] = 0.0
    without, solar = plasma(edges, kt, rows)
    expected = 1e14 * at_node(atomdb, node, edges, alone)
    # Lines that are faint beside those of other elements are only roughly in place.
    assert np.abs((solar - without - expected) / solar).max() < 0.01
    assert (solar - without).sum() == pytest.approx(expected.sum(), rel=0.003)
