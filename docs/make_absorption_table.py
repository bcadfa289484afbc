"""Makes src/xlatent/core/tbabs.npz: the cross-section of the interstellar medium as XSPEC's model ``tbabs`` has it.

Run from the repository root, with xspectrampoline (XSPEC's model library, from PyPI) installed:

    .venv/bin/python docs/make_absorption_table.py

The optical depth of one column is sampled from 0.05 to 90 keV at steps of 0.01 %, which resolve edges and the
resonances below them, for each table of abundances; samples that lie on a straight line in log-log between others, to
0.03 %, are left out. Made with XSPEC's library as of HEASOFT 6.35, ``tbabs`` version 2.3.

What the numbers are: absorption by gas, dust grains and molecules of Wilms, Allen & McCray (2000, ApJ 542, 914), atomic
cross-sections of Verner et al. (1996, ApJ 465, 487), with the abundances of Wilms et al. (``wilm``) or of Anders &
Grevesse (1989, GeCoA 53, 197; ``angr``).
"""

import ctypes
from pathlib import Path

import numpy as np
import xspectrampoline
from jaxtyping import Float

ABUNDANCES = ("wilm", "angr")
FILE = Path(__file__).resolve().parents[1] / "src" / "xlatent" / "core" / "tbabs.npz"
STEP, TOLERANCE = 1e-4, 3e-4  # of ln E, of ln σ


def sample(energy: Float[np.ndarray, " n"], abundances: str) -> Float[np.ndarray, " n"]:
    """Ask XSPEC for the cross-section in 1e-22 cm² at energies in keV; ``abundances`` as its command ``abund`` has."""
    library = xspectrampoline.get_libraries()
    error = ctypes.c_int(0)
    library.lib_xs_functions.FPSOLR(abundances.encode(), ctypes.byref(error))
    # XSPEC gives each bin the mean of the cross-sections at its edges: every second of these bins is a point.
    edges = np.stack([energy, energy * (1.0 + 1e-10)], axis=1).ravel()
    out, unused = np.ones(len(edges) - 1), np.zeros(len(edges) - 1)
    column = 1e-3  # in 1e22 cm⁻², so thin that the softest photons pass
    library.get_model("C_tbabs")(edges, np.array([column]), out, unused)
    return -np.log(out[::2]) / column


def thin(x: Float[np.ndarray, " n"], y: Float[np.ndarray, "k n"]) -> list[int]:
    """Choose points between which every curve y(x) is straight to `TOLERANCE`: halve at the worst point until it is."""
    kept, pending = {0, len(x) - 1}, [(0, len(x) - 1)]
    while pending:
        first, last = pending.pop()
        share = (x[first : last + 1] - x[first]) / (x[last] - x[first])
        straight = y[:, first, None] * (1.0 - share) + y[:, last, None] * share
        off = np.abs(y[:, first : last + 1] - straight).max(axis=0)
        worst = int(np.argmax(off))
        if off[worst] > TOLERANCE:
            kept.add(first + worst)
            pending += [(first, first + worst), (first + worst, last)]
    return sorted(kept)


def main() -> None:
    """Sample, thin and write the table, and say how large it is."""
    log_energy = np.arange(np.log(0.05), np.log(90.0), STEP)
    energy = np.exp(log_energy)
    # The cross-section falls nearly as E⁻³; what is left is kept as small numbers.
    sigma = {name: np.log(sample(energy, name) * energy**3) for name in ABUNDANCES}
    kept = thin(log_energy, np.stack(list(sigma.values())))
    columns = {name: values[kept].astype(np.float32) for name, values in sigma.items()}
    np.savez_compressed(FILE, log_energy=log_energy[kept], **columns)
    print(f"{len(kept)} of {len(energy)} points, {FILE.stat().st_size / 1000:.1f} kB")


if __name__ == "__main__":
    main()
