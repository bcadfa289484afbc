"""Draws docs/figures/acis-response.png: the ACIS response from numbers against real ARFs and RMFs.

Run from the repository root, with the real observations at ../shared/data:

    .venv/bin/python docs/make_acis_figure.py
"""

import csv
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from xlatent.formats.ogip_response import ResponseReader
from xlatent.simulate import acis

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "simulate"))
from test_acis import FILES, LINES, UNLIKE, decimal_year, width_at_half_maximum  # noqa: E402

SHOWN = {
    "ngc4258__source_bin10": "NGC 4258, S3, 2001 (ARF made 2003)",
    "dg-tau-ab__acisf04487_001n023_r0009_pha3": "DG Tau, S3, 2004",
    "pks-1127-145__q1127_src1": "PKS 1127-145, S3, 2005",
    "2masx-j17085915-2153082__chandra-spec": "2MASX J1708, S3, 2012",
    "sgr-a__magnetar_spectrum": "Sgr A magnetar, S3, 2013",
    "csc__acisf04736_000n001_r0079_pha3": "ObsID 4736, S1, 2004, 15.6 arcmin off axis",
    "csc__acisf01878_000n001_r0100_pha3": "ObsID 1878, I2, 2001, 3.9 arcmin off axis",
    "tycho-s-snr__good2-reg_src8_grp": "Tycho region 8, I0, 2009",
}
REAL, MODEL = "#000000", "#D55E00"  # black and vermilion of Okabe & Ito's colour-blind-safe set
CHIP = {"BI": ("#0072B2", "o", "back-illuminated"), "FI": ("#E69F00", "^", "front-illuminated")}


def main() -> None:
    """Draw and save the figure, and print the numbers for docs/acis.md."""
    folder = ROOT.parent / "shared" / "data" / "spectra"
    with (folder / "manifest.csv").open(newline="") as lines:
        entries = {entry["name"]: entry for entry in csv.DictReader(lines)}

    figure = plt.figure(figsize=(11, 11), layout="constrained")
    axes = figure.subplot_mosaic(
        [["a0", "a1"], ["a2", "a3"], ["a4", "a5"], ["a6", "a7"], ["widths", "widths"]], height_ratios=[1, 1, 1, 1, 1.2]
    )
    panels = {name: axes[f"a{i}"] for i, name in enumerate(SHOWN)}
    for name, (chip, theta) in FILES.items():
        entry = entries[name]
        year = decimal_year(entry["date"])
        real = ResponseReader().read(folder / entry["rmf"], folder / entry["arf"]).response
        energy = 0.5 * (real.energy_lo + real.energy_hi)
        area = acis.effective_area(energy, chip=chip, year=year, theta=theta)
        band = (energy > 0.5) & (energy < 7.0)
        scale = np.median(real.area[band] / area[band])
        deviation = np.median(np.abs(real.area[band] / area[band] / scale - 1.0))
        if name in panels:
            _draw_area(panels[name], energy, real.area, scale * area, f"{SHOWN[name]}; model x {scale:.2f}")
        ratio = _width_ratio(real, energy, chip, year)
        colour, marker, _ = CHIP[chip]
        face = "none" if name in UNLIKE else colour
        axes["widths"].plot(LINES, ratio, marker=marker, color=colour, mfc=face, lw=0.5, alpha=0.8)
        print(f"| {name} | {chip} | {scale:.2f} | {100 * deviation:.1f} | {100 * np.median(np.abs(ratio - 1)):.1f} |")

    for panel in ("a6", "a7"):
        axes[panel].set_xlabel("Photon energy (keV)")
    axes["a0"].legend(frameon=False, loc="lower center")
    _finish_widths(axes["widths"])
    figure.savefig(ROOT / "docs" / "figures" / "acis-response.png", dpi=110)


def _draw_area(axes: plt.Axes, energy: np.ndarray, real: np.ndarray, model: np.ndarray, title: str) -> None:
    axes.plot(energy, real, color=REAL, lw=2.2, label="ARF")
    axes.plot(energy, model, color=MODEL, lw=1.2, ls="--", label="model, scaled")
    axes.set(xscale="log", yscale="log", xlim=(0.4, 9.0), ylim=(4.0, 1000.0), ylabel="Area (cm²)")
    axes.set_xticks([0.5, 1, 2, 4, 8], ["0.5", "1", "2", "4", "8"])
    axes.set_xticks([], minor=True)
    axes.set_title(title, fontsize=9)


def _width_ratio(real: acis.Response, energy: np.ndarray, chip: acis.Chip, year: float) -> np.ndarray:
    rows = [int(np.argmin(np.abs(energy - line))) for line in LINES]
    ours = acis.redistribution(
        real.energy_lo[rows], real.energy_hi[rows], real.chan_lo, real.chan_hi, chip=chip, year=year
    ).toarray()
    theirs = real.redistribution[rows].toarray()
    chan, size = 0.5 * (real.chan_lo + real.chan_hi), real.chan_hi - real.chan_lo
    widths = [[width_at_half_maximum(row / size, chan) for row in matrix] for matrix in (ours, theirs)]
    return np.array(widths[0]) / np.array(widths[1])


def _finish_widths(axes: plt.Axes) -> None:
    axes.axhspan(0.85, 1.15, color="0.92", zorder=0)
    axes.axhline(1.0, color="0.5", lw=0.8)
    axes.set(xscale="log", ylim=(0.6, 1.75), xlabel="Photon energy (keV)", ylabel="FWHM, model / RMF")
    axes.set_xticks(list(LINES), [f"{line:g}" for line in LINES])
    axes.set_xticks([], minor=True)
    for colour, marker, label in CHIP.values():
        axes.plot([], [], marker=marker, color=colour, ls="none", label=label)
    axes.plot([], [], marker="s", mfc="none", color="0.3", ls="none", label="one of the four unlike files (see text)")
    axes.legend(frameon=False, ncols=3, loc="upper center")
    axes.set_title("Width of lines in all 24 RMFs; grey band: 15 %", fontsize=9)


if __name__ == "__main__":
    main()
