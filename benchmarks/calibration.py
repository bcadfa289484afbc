"""Whether errors mean what they say: simulated spectra with known truth, by decade of counts.

Run as `python benchmarks/calibration.py [MODEL]`; prints a Markdown table. The sources come from the training
population with a seed that training never uses, through native ACIS responses. It takes about five minutes.
"""

import sys

import numpy as np
from rich.progress import track

from xlatent.bands import energy_flux, hardness_ratios
from xlatent.bundle import DEFAULT_MODEL
from xlatent.infer.embed import load_model
from xlatent.simulate import population
from xlatent.simulate.files import observation

SEED, N = 20_261_122, 400
QUANTITIES = ("flux_b", "flux_s", "flux_m", "flux_h", "hard_hm", "hard_hs", "hard_ms")
DECADES = ((20, 100), (100, 1000), (1000, 10_000), (10_000, 100_000))


def main() -> None:
    model = load_model(sys.argv[1] if len(sys.argv) > 1 else DEFAULT_MODEL, threads=1)
    rng = np.random.default_rng(SEED)
    rows = population.draw(rng, N)
    spectra, truth, expected = [], [], []
    for i in track(range(N), description="simulating"):
        source = {key: value[i : i + 1] for key, value in rows.items()}
        spectrum, facts = observation(rng, source, f"test{i}")
        response = spectrum.response
        edges = np.append(response.energy_lo, response.energy_hi[-1])
        photons = population.spectra(edges, source)[0] * facts["photflux"]
        known = {f"flux_{band}": float(energy_flux(photons, edges, band)) for band in "bsmh"}
        truth.append(known | {name: float(value) for name, value in hardness_ratios(photons, edges).items()})
        expected.append(response.fold(photons) * spectrum.exposure)
        spectra.append(spectrum)
    refined, amortised = model.embed(spectra), model.embed(spectra, refine=False)
    net = np.array([e[s.select(0.5, 8.0)].sum() for e, s in zip(expected, spectra, strict=True)])
    print(f"{model!r}, {N} simulated spectra\n")
    print(
        "| source counts | n | amortised - refined, median | (W - E)/sigma | latents known to half |",
        end="",
    )
    print("".join(f" {name} |" for name in QUANTITIES))
    print("|---|---:|---:|---:|---:|" + "---:|" * len(QUANTITIES))
    for low, high in DECADES:
        chosen = np.flatnonzero((net >= low) & (net < high))
        if not len(chosen):
            continue
        gap = np.median(np.asarray(amortised["cstat"] - refined["cstat"])[chosen])
        pull = np.asarray((refined["cstat"] - refined["cstat_expected"]) / refined["cstat_sigma"])[chosen]
        active = np.mean(np.sum(refined.z_err[chosen] ** 2 < 0.5, axis=1))
        print(
            f"| {low}-{high} | {len(chosen)} | {gap:.1f} | {pull.mean():+.2f} ± {pull.std():.2f} | {active:.1f} |",
            end="",
        )
        for name in QUANTITIES:
            value = np.array([truth[i][name] for i in chosen])
            inside = (value >= refined[f"{name}_lolim"][chosen]) & (value <= refined[f"{name}_hilim"][chosen])
            print(f" {np.mean(inside):.0%} |", end="")
        print()
    print("\nThe columns named after quantities hold how often their 68 % interval contains the truth.")


if __name__ == "__main__":
    main()
