"""Makes src/xlatent/simulate/bremsstrahlung.npz: the free-free Gaunt factor of hot gas as XSPEC's ``bremss`` has it.

Run from the repository root, with xspectrampoline (XSPEC's model library, from PyPI) installed:

    .venv/bin/python docs/make_gaunt_table.py

What the numbers are: Gaunt factors of Karzas & Latter (1961, ApJS 6, 167) in the polynomials of Kellogg, Baldwin & Koch
(1975, ApJ 199, 299), for hydrogen and 8.5 % of helium by number, as XSPEC's library (HEASOFT 6.35) adds them up, to
30 kT. Its ``bremss`` of norm 1, in photons cm⁻² s⁻¹ keV⁻¹, is exp(-E/kT)/(E sqrt(kT)) times exp of the table; the axes
are the natural logarithms of kT in keV and of E/kT.
"""

from pathlib import Path

import numpy as np
import xspectrampoline

FILE = Path(__file__).resolve().parents[1] / "src" / "xlatent" / "simulate" / "bremsstrahlung.npz"
# At 10 and 1000 times 13.6 eV, and for helium 4 times these, XSPEC goes from one set of polynomials to the next and
# jumps by up to 6 %: there is a temperature on each side.
JUMPS = 0.01358 * np.array([10.0, 40.0, 1000.0, 4000.0])
SIDES = np.array([1.0 - 3e-4, 1.0 + 3e-4])
SPACING, WIDTH = 0.1, 1e-3  # of both logarithms; of the bins that XSPEC is asked for, in E


def temperatures() -> np.ndarray:
    """Lay temperatures from 0.05 to 100 keV, at most `SPACING` apart and on both sides of every jump."""
    ends = np.concatenate([[0.05], np.outer(JUMPS, SIDES).ravel(), [100.0]]).reshape(-1, 2)
    return np.concatenate([np.geomspace(*pair, 2 + int(np.log(pair[1] / pair[0]) / SPACING)) for pair in ends])


def density(energy: float, kt: float) -> float:
    """Ask XSPEC for photons per keV at one energy, which it gives as the mean of the edges of a bin."""
    # In single precision, as XSPEC takes them.
    edges = (energy * np.array([1.0 - 0.5 * WIDTH, 1.0 + 0.5 * WIDTH])).astype(np.float32).astype(float)
    out, unused = np.zeros(1), np.zeros(1)
    xspectrampoline.get_libraries().get_model("C_bremss")(edges, np.array([kt]), out, unused)
    return float(out[0] / (edges[1] - edges[0]))


def main() -> None:
    """Sample and write the table, and say how large it is."""
    kt, ratio = temperatures(), np.exp(np.arange(np.log(2e-3), np.log(30.0), SPACING))
    table = [[density(x * t, t) * x * t * np.sqrt(t) * np.exp(x) for x in ratio] for t in kt]
    log_gaunt = np.log(table).astype(np.float32)
    np.savez_compressed(FILE, log_kt=np.log(kt), log_ratio=np.log(ratio), log_gaunt=log_gaunt)
    print(f"{len(kt)} temperatures, {len(ratio)} ratios, {FILE.stat().st_size / 1000:.1f} kB")


if __name__ == "__main__":
    main()
