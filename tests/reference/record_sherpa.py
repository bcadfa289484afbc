"""Record what Sherpa makes of the real spectra: run with Python that has Sherpa 4.19, writes sherpa.json.

    python tests/reference/record_sherpa.py ../shared/data

Per spectrum: counts (sum and first two moments over channel index, which pin every channel), exposures, background
counts and scale, ARF (sum and 20 values), channel energies (moments of both edges), channels and counts in
notice(0.5, 8), and a power law of index 1.7, 1 photon/keV/cm2/s at 1 keV, integrated over
the energy bins and folded through ARF and RMF, in every channel (nine significant digits).
"""

import csv
import json
import logging
import sys
from pathlib import Path

import numpy as np
import sherpa
from sherpa.astro import io
from sherpa.astro.instrument import RSPModelNoPHA
from sherpa.models.basic import PowLaw1D

logging.getLogger("sherpa").setLevel(logging.CRITICAL)

OTHER = [
    ("asca-sis0", "asca-sis0__he-1104-1805", "s0_mar24_bin.pha", "s0_mar24.arf", "s0_mar24.rmf.gz", ""),
    ("swift-xrt", "swift-xrt__2m02594633", "target_sr.pha", "target_sr.arf", "swxpc0to12s6_20130101v014.rmf.gz", ""),
    ("xmm-pn", "xmm-pn__cxou-j235750", "PN.pha", "PN.arf", "PN.rmf.gz", "PNbackground_spectrum.fits"),
]


def sources(data: Path) -> list[dict[str, str]]:
    """Name and paths, relative to the data folder, of the 24 Chandra spectra and the 3 of other missions."""
    found = []
    with (data / "spectra" / "manifest.csv").open() as stream:
        for row in csv.DictReader(stream):
            paths = {key: f"spectra/{row[key]}" if row[key] else "" for key in ("pha", "arf", "rmf", "background")}
            found.append({"name": row["name"], **paths})
    for name, folder, *files in OTHER:
        paths = {
            key: f"other-missions/{folder}/{file}" if file else ""
            for key, file in zip(("pha", "arf", "rmf", "background"), files, strict=True)
        }
        found.append({"name": name, **paths})
    return found


def moments(values: np.ndarray) -> list[float]:
    k = np.arange(values.size)
    return [float(np.sum(values)), float(np.sum(k * values)), float(np.sum(k**2 * values))]


def digits(values: np.ndarray) -> list[float]:
    """Nine significant digits; what is below 1e-12 of the peak is 0."""
    floor = 1e-12 * np.max(np.abs(values))
    return [float(f"{value:.9g}") if abs(value) > floor else 0 for value in values]


def record(data: Path, source: dict[str, str]) -> dict[str, object]:
    pha = io.read_pha(str(data / source["pha"]))
    arf = io.read_arf(str(data / source["arf"]))
    rmf = io.read_rmf(str(data / source["rmf"]))
    model = PowLaw1D()
    model.gamma, model.ref, model.ampl = 1.7, 1.0, 1.0
    folded = RSPModelNoPHA(arf, rmf, model)(np.arange(rmf.detchans))
    index = np.linspace(0, len(arf.specresp) - 1, 20).astype(int)
    pha.set_arf(arf)
    pha.set_rmf(rmf)
    pha.ungroup()
    pha.units = "energy"
    pha.notice(0.5, 8)
    noticed = pha.mask
    pha.notice()
    out = {
        "name": source["name"],
        "files": {key: path for key, path in source.items() if key != "name"},
        "counts": moments(pha.counts),
        "exposure": pha.exposure,
        "background": None,
        "area": [float(np.sum(arf.specresp)), *digits(np.asarray(arf.specresp)[index])],
        "bounds": [moments(rmf.e_min), moments(rmf.e_max)],
        "notice": [int(noticed.sum()), float(pha.counts[noticed].sum())],
        "folded": digits(folded),
    }
    if source["background"] == source["pha"]:
        background = pha.get_background()
    elif source["background"]:
        background = io.read_pha(str(data / source["background"]), use_background=False)
        pha.set_background(background)
    else:
        return out
    out["background"] = {
        "counts": moments(background.counts),
        "exposure": background.exposure,
        "scale": float(pha.get_background_scale(group=False)),
    }
    return out


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    recorded = {
        "about": f"Sherpa {sherpa.__version__} by tests/reference/record_sherpa.py",
        "spectra": [record(folder, source) for source in sources(folder)],
    }
    text = json.dumps(recorded, separators=(",", ":")).replace('{"name"', '\n{"name"')
    Path(__file__).with_name("sherpa.json").write_text(text + "\n")
