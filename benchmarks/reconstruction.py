"""How well the shipped model reproduces real spectra: its statistic beside the best of six classical fits.

Run as `python benchmarks/reconstruction.py [MODEL]`; needs the observations at ../shared/data, prints Markdown tables.
"""

import csv
import sys
import warnings
from itertools import combinations
from pathlib import Path

import numpy as np
from scipy.stats import chi2

from xlatent.bundle import DEFAULT_MODEL
from xlatent.errors import XlatentWarning
from xlatent.formats import ogip
from xlatent.formats.inputs import find
from xlatent.infer.embed import load_model

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "spectra"
JET = "4c19-44"  # one source, observed four times in nine days


def main() -> int:
    if not (DATA / "manifest.csv").is_file():
        print(f"{DATA} holds no observations to compare with; nothing was measured")
        return 0
    model = load_model(sys.argv[1] if len(sys.argv) > 1 else DEFAULT_MODEL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", XlatentWarning)
        spectra = [
            ogip.read(s.pha, arf=s.arf, rmf=s.rmf, background=s.background, name=s.name)
            for s in find([DATA / "manifest.csv"])
        ]
    with (DATA / "reference_fits.csv").open() as file:
        best = {row["name"]: float(row["best"]) for row in csv.DictReader(file)}
    refined, amortised = model.embed(spectra), model.embed(spectra, refine=False)
    print(f"{model!r}\n")
    print("| spectrum | counts | best of six fits | refined | difference | amortised - refined | expected | flags |")
    print("|---|---:|---:|---:|---:|---:|---:|---|")
    differences = []
    for i, spectrum in enumerate(spectra):
        statistic = refined["cstat"][i]
        beside = ("", "")
        if spectrum.name in best:
            differences.append(statistic - best[spectrum.name])
            beside = (f"{best[spectrum.name]:.1f}", f"{differences[-1]:+.1f}")
        print(
            f"| {spectrum.name} | {refined['counts'][i]:.0f} | {beside[0]} | {statistic:.1f} | {beside[1]} | "
            f"{amortised['cstat'][i] - statistic:.1f} | "
            f"{refined['cstat_expected'][i]:.0f} ± {refined['cstat_sigma'][i]:.0f} | {refined['flags'][i]} |"
        )
    excess = np.array(differences)
    print(f"\nOf {len(excess)} spectra with a reference fit: {np.mean(excess <= 30):.0%} within best + 30, ", end="")
    print(f"{np.mean(excess <= 5):.0%} within best + 5, median difference {np.median(excess):+.1f}.\n")

    rows = [i for i, spectrum in enumerate(spectra) if spectrum.name.startswith(JET)]
    print("| 4C 19.44, pair | Mahalanobis distance squared | p (8 degrees of freedom) |\n|---|---:|---:|")
    for a, b in combinations(rows, 2):
        d = refined.z[a] - refined.z[b]
        squared = float(d @ np.linalg.solve(refined.covariance[a] + refined.covariance[b], d))
        print(f"| {spectra[a].name[-4:]}, {spectra[b].name[-4:]} | {squared:.2f} | {chi2.sf(squared, 8):.3f} |")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
