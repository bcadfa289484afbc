"""Absorbed power laws and nothing else: whether the photon spectrum shows lines and edges that are not there."""

from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from judges import cameras, xspec
from judges.families import EDGES, QUANTITIES, optical_depth, rebinned, truth
from judges.found import embedded
from words import table
from xlatent.figures import style
from xlatent.infer.embed import LatentModel

TITLE = "Power laws"
COUNTS = (300, 3_000, 30_000)
EACH, EACH_QUICK = 300, 18
SEED = 72_000
INDEX, COLUMN = (1.4, 2.2), (0.01, 1.0)  # photon index; 10²² cm⁻²
SHOWN, IRON = (0.6, 7.0), (6.3, 7.1)  # keV
MOST = {300: 0.05, 3_000: 0.03, 30_000: 0.02}  # bias at the iron line that is asked for
ANYWHERE, FLUX = 0.05, 0.01


def judge(model: LatentModel, quick: bool = False) -> dict[str, Any]:
    """Compare the median photon spectrum with the true one, bin by bin of the model's grid.

    Returns
    -------
    dict
        ``targets``: what, asked, found, met; ``tables``: Markdown; ``figures``; ``energy``, and by counts ``bias``,
        ``mean_bias``, ``within`` [n_energy] and ``flux_bias``.
    """
    energy = model.grid.energy_mid
    n = EACH_QUICK if quick else EACH
    by_counts = {counts: _scores(model, counts, n) for counts in COUNTS}
    shown = (energy > SHOWN[0]) & (energy < SHOWN[1])
    iron = (energy > IRON[0]) & (energy < IRON[1])
    targets: list[list[Any]] = []
    for counts, scores in by_counts.items():
        bias = scores["bias"]
        worst = float(bias[iron][np.argmax(np.abs(bias[iron]))])
        asked = MOST[counts]
        name = f"median photon spectrum at 6.3-7.1 keV, {counts:,} counts (worst bin)"
        targets.append([name, f"≤ {asked:.0%}", f"{worst:+.1%}", abs(worst) <= asked])
    bright = np.stack([scores["bias"][shown] for counts, scores in by_counts.items() if counts >= 1_000])
    low, high = float(bright.min()), float(bright.max())
    met = max(-low, high) <= ANYWHERE
    targets.append(
        ["any bin 0.6-7 keV, 1,000 counts and more", f"within {ANYWHERE:.0%}", f"{low:+.1%} to {high:+.1%}", met]
    )
    for counts, scores in by_counts.items():
        bias = scores["flux_bias"]
        targets.append([f"2-7 keV flux, {counts:,} counts", f"within {FLUX:.0%}", f"{bias:+.1%}", abs(bias) <= FLUX])
    figure = _figure(energy[shown], {counts: scores["bias"][shown] for counts, scores in by_counts.items()})
    return {
        "targets": targets,
        "tables": [_table(energy, by_counts)],
        "figures": {"judges-powerlaws": ("Bias of the photon spectrum of power laws", figure)},
        "energy": energy.tolist(),
        "counts": {
            str(c): {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in s.items()}
            for c, s in by_counts.items()
        },
    }


def _scores(model: LatentModel, counts: int, n: int) -> dict[str, Any]:
    """Bias (median over sources, and mean) and coverage in each bin, and the median bias of the 2-7 keV flux."""
    rng = np.random.default_rng([SEED, counts])
    by = sorted(list(cameras.ACIS)[i % len(cameras.ACIS)] for i in range(n))
    spectra, photons = [], np.empty((n, len(EDGES) - 1))
    for i in range(n):
        column = np.exp(rng.uniform(*np.log(COLUMN)))
        shape = xspec.evaluate("powerlaw", EDGES, rng.uniform(*INDEX)) * np.exp(-column * optical_depth("wilm"))
        spectrum, amplitude = cameras.observe(rng, cameras.camera(by[i]), shape, counts, f"power law {i}")
        spectra.append(spectrum)
        photons[i] = shape * amplitude
    found = embedded(model, spectra, closely=True)
    true = rebinned(photons, model.grid.energy)
    ratio = found.photons[:, 1] / true - 1.0
    hard = QUANTITIES.index("flux_h")
    return {
        "bias": np.median(ratio, axis=0),
        "mean_bias": ratio.mean(axis=0),
        "within": np.mean((true >= found.photons[:, 0]) & (true <= found.photons[:, 2]), axis=0),
        "flux_bias": float(np.median(found.median[:, hard] / truth(photons)[:, hard]) - 1.0),
    }


def _table(energy: np.ndarray, by_counts: dict[int, dict[str, Any]]) -> str:
    """Bias and coverage in broad pieces of the spectrum: the worst bin, and the average coverage."""
    edges = (0.6, 0.8, 1.0, 1.3, 1.6, 2.0, 2.6, 3.3, 4.2, 5.3, 6.3, 7.1)
    rows = []
    for low, high in pairwise(edges):
        inside = (energy > low) & (energy < high)
        cells = []
        for scores in by_counts.values():
            bias = scores["bias"][inside]
            cells += [f"{100 * bias.min():+.1f} to {100 * bias.max():+.1f}", f"{scores['within'][inside].mean():.2f}"]
        rows.append([f"{low:g}-{high:g}", *cells])
    head = [cell for counts in by_counts for cell in (f"bias, {counts:,}", "in 68 %")]
    return (
        "Median photon spectrum of absorbed power laws against the true one: lowest and highest bias (median over the "
        "sources, per cent) of the bins of a piece, and how often their 68 % intervals hold the truth:\n\n"
        + table(["keV", *head], rows)
    )


def _figure(energy: np.ndarray, bias: dict[int, np.ndarray]) -> Figure:
    """Bias against energy, for each number of counts."""
    with style.style():
        figure = Figure(figsize=(6.4, 3.4), layout="constrained")
        ax = figure.add_subplot()
        ax.axhspan(-100 * ANYWHERE, 100 * ANYWHERE, color=style.GREY, alpha=0.2, linewidth=0)
        colours = (style.SKY, style.BLUE, style.VERMILION)
        for colour, (counts, values) in zip(colours, bias.items(), strict=True):
            ax.plot(energy, 100.0 * values, color=colour, linewidth=1.2, label=f"{counts:,} counts")
        ax.set(xscale="log", xlim=SHOWN, xlabel="energy (keV)", ylabel="bias of the median photon spectrum (%)")
        ax.set_xticks([0.6, 1, 2, 3, 5, 7], ["0.6", "1", "2", "3", "5", "7"])
        ax.minorticks_off()
        ax.legend(loc="upper left")
    return figure
