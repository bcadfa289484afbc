"""One space for every CCD: the same sources through eight cameras, a nebula in three, channels summed.

Two populations. Where a draw of the latents is to tell no camera, sources are what the model expects, its latents drawn
from their prior: of any other population, draws differ between cameras of unequal knowledge even where every posterior
is right, for those that know less are nearer to the prior. What each camera makes of sources that the model did not
make is told by the others, those of all families.
"""

import warnings
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.sparse import csr_array
from scipy.stats import chi2

from judges import cameras
from judges.families import EDGES, FAMILIES, draw
from judges.found import Found, embedded
from two_samples import squared_differences, told_apart
from words import table
from xlatent.core.errors import XlatentWarning
from xlatent.core.spectrum import Response, Spectrum
from xlatent.formats.inputs import read_all
from xlatent.infer.embed import LatentModel

TITLE = "Instruments"
CAMERAS = ("ACIS-S 2001", "ACIS-I 2016", *cameras.OTHERS)
COUNTS = (1_000, 10_000)
EACH, EACH_QUICK = 1_500, 40
SEED = 74_000
TOLD_APART, MOVED = 0.52, 0.3
WHITENED = (5.0, 9.0)
SUMMED = (4, 16)  # of ACIS's channels: 58 and 234 eV
ENOUGH = 100  # counts of a real spectrum whose channels are summed
KEPT = 1.03  # growth of a latent's error, up to which its information is left: 6 % of it go, which move it by 0.25 σ


def judge(model: LatentModel, quick: bool = False) -> dict[str, Any]:
    """Embed both populations through every camera, without background, so that nothing but the response tells it.

    Returns
    -------
    dict
        ``targets``: what, asked, found, met; ``tables``: Markdown; ``told_apart``, ``whitened``, ``nebula`` and
        ``summed``: numbers.
    """
    n = EACH_QUICK if quick else EACH
    rng = np.random.default_rng(SEED)
    expected = list(_expected(model, rng, n))
    families = [draw(list(FAMILIES)[i % len(FAMILIES)], rng).photons for i in range(n)]
    apart: dict[str, dict[str, list[float]]] = {}
    whitened: dict[str, dict[str, float]] = {}
    for counts in COUNTS:
        draws = {name: _drawn(rng, _through(model, name, expected, counts)) for name in CAMERAS}
        found = {name: _through(model, name, families, counts) for name in CAMERAS}
        for a, b in combinations(CAMERAS, 2):
            pair = f"{a}, {b}"
            apart.setdefault(pair, {})[str(counts)] = list(told_apart(np.stack([draws[a], draws[b]])))
            both = found[a].covariance + found[b].covariance
            squares = squared_differences(found[a].z - found[b].z, both)
            whitened.setdefault(pair, {})[str(counts)] = float(np.mean(squares))
    nebula = _nebula(model)
    summed = _summed(model)
    targets: list[list[Any]] = []
    for counts in COUNTS:
        pair = max(apart, key=lambda name: apart[name][str(counts)][0])
        value, error = apart[pair][str(counts)]
        said = f"{value:.3f} ± {error:.3f} ({pair})"
        targets.append(
            [f"told apart by a draw, any pair, {counts:,} counts", f"≤ {TOLD_APART}", said, value <= TOLD_APART]
        )
        values = [of[str(counts)] for of in whitened.values()]
        low, high = min(values), max(values)
        met = WHITENED[0] <= low and high <= WHITENED[1]
        targets.append(
            [
                f"whitened difference, any pair, {counts:,} counts (8 is right)",
                "5 to 9",
                f"{low:.1f} to {high:.1f}",
                met,
            ]
        )
    least = min(nebula.values())
    targets.append(["a nebula in three cameras: least p of a pair", "> 0.05", f"{least:.2f}", least > 0.05])
    for width, moved in summed.items():
        worst = moved["largest where information is left"]
        targets.append(
            [f"channels summed to {width}: latents moved, worst", f"≤ {MOVED} σ", f"{worst:.2f} σ", worst <= MOVED]
        )
    return {
        "targets": targets,
        "tables": _tables(apart, whitened, nebula, summed, n),
        "told_apart": apart, "whitened": whitened, "nebula": nebula, "summed": summed,
    }  # fmt: skip


def _expected(model: LatentModel, rng: np.random.Generator, n: int) -> Float[np.ndarray, "n n_bins"]:
    """Photons of latents drawn from the prior, evenly spread over each bin of the model's grid."""
    made = model.decode(rng.standard_normal((n, model.info.latents))) / model.grid.energy_width
    middle = 0.5 * (EDGES[1:] + EDGES[:-1])
    bins = np.searchsorted(model.grid.energy, middle) - 1
    inside = (bins >= 0) & (bins < model.grid.n_energy)
    return np.where(inside, made[:, np.clip(bins, 0, model.grid.n_energy - 1)], 0.0)


def _through(model: LatentModel, name: str, photons: list[Float[np.ndarray, " n_bins"]], counts: int) -> Found:
    rng = np.random.default_rng([SEED, CAMERAS.index(name), counts])
    by = cameras.camera(name)
    return embedded(model, [cameras.observe(rng, by, one, counts, background=False)[0] for one in photons])


def _drawn(rng: np.random.Generator, found: Found) -> Float[np.ndarray, "n latents"]:
    noise = rng.standard_normal(found.z.shape)
    return found.z + np.einsum("nij,nj->ni", np.linalg.cholesky(found.covariance), noise)


def _read(manifest: str) -> list[Spectrum]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", XlatentWarning)
        return read_all(cameras.DATA / manifest)


def _nebula(model: LatentModel) -> dict[str, float]:
    """Probability of a difference as large, for each pair of the three spectra of PSR J0855-4644's nebula."""
    spectra = [s for s in _read("missions/manifest.csv") if s.name.startswith("psr-j0855")]
    found = embedded(model, spectra)
    out = {}
    for a, b in combinations(range(len(spectra)), 2):
        difference, covariance = found.z[a] - found.z[b], found.covariance[a] + found.covariance[b]
        square = squared_differences(difference[None], covariance[None])[0]
        out[f"{spectra[a].name}, {spectra[b].name}"] = float(chi2.sf(square, len(difference)))
    return out


def _summed(model: LatentModel) -> dict[str, dict[str, float]]:
    """By how much latents of real ACIS spectra move when neighbouring channels are summed, in their own errors."""
    spectra = [s for s in _read("spectra/manifest.csv") if s.counts[s.select(*cameras.BAND)].sum() >= ENOUGH]
    fine = embedded(model, spectra)
    sigma = _errors(fine)
    out = {}
    for several in SUMMED:
        coarse = embedded(model, [summed(s, several) for s in spectra])
        moved = np.abs(coarse.z - fine.z) / sigma
        left = _errors(coarse) / sigma < KEPT
        width = float(np.median(spectra[0].response.chan_hi - spectra[0].response.chan_lo)) * several * 1e3
        out[f"{width:.0f} eV"] = {
            "median": float(np.median(moved)),
            "90 %": float(np.quantile(moved, 0.9)),
            "largest": float(moved.max()),
            "90 % where information is left": float(np.quantile(moved[left], 0.9)),
            "largest where information is left": float(moved[left].max()),
            "share of latents whose information is left": float(left.mean()),
        }
    return out


def _errors(found: Found) -> Float[np.ndarray, "n latents"]:
    return np.sqrt(np.diagonal(found.covariance, axis1=1, axis2=2))


def summed(spectrum: Spectrum, several: int) -> Spectrum:
    """Sum so many neighbouring channels of a spectrum, its background and its response; what is left over is dropped.

    A sum is bad where any of its channels is; scales are those of the first.
    """
    n = len(spectrum.counts) // several
    to = csr_array((np.ones(n * several), (np.arange(n * several), np.repeat(np.arange(n), several))))
    response = spectrum.response
    first, last = np.arange(n) * several, np.arange(n) * several + several - 1

    def joined(one: Spectrum) -> dict[str, Any]:
        scales = {
            name: value if isinstance(value := getattr(one, name), float) else value[first]
            for name in ("backscale", "areascale")
        }
        good = to.T @ one.good[: n * several] == several
        return {
            "counts": one.counts[: n * several] @ to, "quality": np.where(good, 0, 1), "grouping": None,
            "channels": None, **scales,
        }  # fmt: skip

    coarse = Response(
        response.energy_lo, response.energy_hi, response.area, response.redistribution[:, : n * several] @ to,
        response.chan_lo[first], response.chan_hi[last], meta=response.meta,
    )  # fmt: skip
    behind = spectrum.background
    behind = None if behind is None else replace(behind, response=None, background=None, **joined(behind))
    return replace(spectrum, response=coarse, background=behind, **joined(spectrum))


def _tables(
    apart: dict[str, dict[str, list[float]]],
    whitened: dict[str, dict[str, float]],
    nebula: dict[str, float],
    summed_by: dict[str, dict[str, float]],
    n: int,
) -> list[str]:
    rows = []
    for pair, scores in apart.items():
        accuracies = [f"{value:.3f} ± {error:.3f}" for value, error in scores.values()]
        rows.append([pair, *accuracies, *(f"{value:.1f}" for value in whitened[pair].values())])
    head = ["pair", *(f"told apart, {c:,}" for c in COUNTS), *(f"whitened, {c:,}" for c in COUNTS)]
    kinds = list(next(iter(summed_by.values())))
    return [
        f"The same {n:,} sources through each camera. Told apart: balanced accuracy with which gradient boosting tells "
        "two cameras from one draw of the latents of each source (0.5: blind), sources being drawn from the model's "
        "prior (of others, draws differ where one camera knows less, however right its posteriors). Whitened: mean "
        "squared difference of the latents under their summed covariances, of sources of all families from AtomDB and "
        "XSPEC:\n\n" + table(head, rows),
        "The wind nebula of PSR J0855-4644 in three cameras of XMM-Newton:\n\n"
        + table(["pair", "p"], [[pair, f"{p:.2f}"] for pair, p in nebula.items()]),
        "Latents of real ACIS spectra of 100 counts and more, moved by summing channels, in their errors; a latent's "
        "information is left where its error grows by less than 3 %:\n\n"
        + table(["channels", *kinds], [[w, *(f"{x:.2f}" for x in m.values())] for w, m in summed_by.items()]),
    ]
