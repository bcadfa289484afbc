"""Real spectra, of Chandra and of other telescopes: fluxes beside those of Sherpa's best simple model, all of them."""

import logging
import warnings
from collections.abc import Callable, Sequence
from functools import cache
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.ndimage import gaussian_filter1d

from judges import cameras, xspec
from judges.families import EDGES, QUANTITIES, truth
from judges.found import CENTRAL, Found, embedded
from words import table
from xlatent.core.errors import XlatentWarning
from xlatent.core.spectrum import Spectrum
from xlatent.formats.inputs import Source, find, read_all
from xlatent.infer.embed import LatentModel
from xlatent.infer.quantities import quantiles

TITLE = "Real spectra"
MANIFESTS = ("spectra/manifest.csv", "missions/manifest.csv")
EACH_QUICK = 3  # spectra
SEED = 75_000
ENOUGH = 100  # counts of those whose 2-7 keV flux is judged
FITS = 3.0  # σ above expectation, up to which a model fits
WITHIN = 0.02
MOST = 10.0  # times as much: Sherpa's faintest fits end without any flux, and then there is nothing to compare
N_DRAWS = 100
SMOOTHING = 20.0  # channels, of a background of few counts
FLUXES = slice(0, 6)  # of QUANTITIES
COLUMNS = (0.03, 0.3, 3.0)  # 10²² cm⁻², from which each model is tried
POLISHED = 2  # models that are fitted again, by a method that leaves valleys


class Component(NamedTuple):
    """An additive model of XSPEC with one free parameter besides its norm: name of both, its starts, its range."""

    model: str
    parameter: str
    starts: tuple[float, ...]
    low: float
    high: float


POWER_LAW = Component("powerlaw", "index", (1.7,), -3.0, 10.0)
BLACKBODY = Component("bbody", "kT", (0.2, 1.0), 0.03, 10.0)
THERMAL, COOL = (Component("bremss", "kT", (start,), 0.05, 100.0) for start in (5.0, 0.5))
MODELS: dict[str, tuple[Component, ...]] = {
    "power law": (POWER_LAW,),
    "blackbody": (BLACKBODY,),
    "bremsstrahlung": (THERMAL,),
    "disk": (Component("diskbb", "kT", (1.0,), 0.05, 10.0),),
    "power law + blackbody": (POWER_LAW, BLACKBODY),
    "two bremsstrahlung": (THERMAL, COOL),
}


class Fit(NamedTuple):
    """The best of six fits: model, statistic, `QUANTITIES` [9] of it, and draws of them [n_draws, 9] in its errors."""

    model: str
    statistic: float
    best: Float[np.ndarray, " 9"]
    values: Float[np.ndarray, "n_draws 9"]


def judge(model: LatentModel, quick: bool = False) -> dict[str, Any]:
    """Fit every spectrum with both.

    Returns
    -------
    dict
        ``targets``: what, asked, found, met; ``tables``: Markdown; ``spectra``: numbers of each.
    """
    sources = [source for manifest in MANIFESTS for source in find([cameras.DATA / manifest])]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", XlatentWarning)
        spectra = [spectrum for manifest in MANIFESTS for spectrum in read_all(cameras.DATA / manifest)]
        n = EACH_QUICK if quick else len(spectra)
        found = embedded(model, spectra[:n], closely=True)
        fits = [fit(source) for source in sources[:n]]
    rows = [_row(spectrum, found, i, one) for i, (spectrum, one) in enumerate(zip(spectra[:n], fits, strict=True))]
    return {"targets": _targets(rows), "tables": [_table(rows)], "spectra": rows}


# -- Sherpa with XSPEC's models


def fit(source: Source) -> Fit:
    """Fit six models under ``tbabs`` (wilm) to the ungrouped channels of 0.5-8 keV, by W or C, and keep the best.

    Levenberg and Marquardt from several places, then Nelder and Mead from the best two. Errors are draws from the
    normal distribution whose covariance is the inverse of the Fisher information, held within the parameters' ranges.
    """
    quiet = logging.getLogger("sherpa")
    quiet.setLevel(logging.CRITICAL)
    from sherpa.astro import ui

    quiet.setLevel(logging.CRITICAL)  # which its import undoes
    ui.clean()
    ui.load_pha(str(source.pha))
    data = ui.get_data()
    if source.arf is not None and source.rmf is not None:
        ui.load_arf(str(source.arf))
        ui.load_rmf(str(source.rmf))
    if source.background is not None and str(source.background) != "none" and not data.background_ids:
        ui.load_bkg(str(source.background))
    ui.ungroup()
    ui.notice(*cameras.BAND)
    ui.set_stat("wstat" if data.background_ids else "cstat")
    tried = []
    for name, components in MODELS.items():
        for starts in product(COLUMNS, *(component.starts for component in components)):
            sky = _sky(ui, components, starts)
            ui.set_method("levmar")
            ui.fit()
            tried.append((float(ui.calc_stat()), name, [p.val for p in sky.pars]))
    best_of = {name: min(one for one in tried if one[1] == name) for name in MODELS}
    ui.set_method("neldermead")
    ends = []
    for _, name, parameters in sorted(best_of.values())[:POLISHED]:
        sky = _sky(ui, MODELS[name], parameters[::2])
        sky.thawedpars = parameters
        ui.fit()
        ends.append((float(ui.calc_stat()), name, [p.val for p in sky.pars]))
    statistic, name, best = min(ends)
    sky = _sky(ui, MODELS[name], best[::2])
    sky.thawedpars = best
    known = [_photons(MODELS[name])(p, EDGES) for p in [best, *_within_errors(data, ui.get_model(), sky)]]
    values = truth(np.array(known))
    return Fit(name, statistic, values[0], values[1:])


def _sky(ui: Any, components: tuple[Component, ...], starts: Sequence[float]) -> Any:
    """Set Sherpa's model, from a column and a parameter of each component on, with norms as the counts want them."""
    photons = _photons(components)
    ui.load_user_model(lambda parameters, lo, hi: photons(parameters, np.append(lo, hi[-1])), "sky")
    names = ["column", *(f"{what}{k}" for k in range(len(components)) for what in ("norm", "shape"))]
    values = [starts[0], *(value for start in starts[1:] for value in (1.0, start))]
    lows = [0.0, *(value for c in components for value in (0.0, c.low))]
    highs = [100.0, *(value for c in components for value in (1e6, c.high))]
    ui.add_user_pars("sky", names, values, lows, highs)
    sky = ui.get_model_component("sky")
    ui.set_source(sky)
    norms = sky.pars[1::2]
    alone = []
    for one in norms:  # every component begins with as many counts
        for norm in norms:
            norm.val = float(norm is one)
        alone.append(max(ui.calc_data_sum(), 1.0) / ui.calc_model_sum() / len(norms))
    for norm, value in zip(norms, alone, strict=True):
        norm.val = min(value, norm.max)
    return sky


def _within_errors(data: Any, folded: Any, sky: Any) -> list[Float[np.ndarray, " n_parameters"]]:
    """Draw parameters from the normal distribution of the Fisher information, held within their ranges."""
    best = np.array([p.val for p in sky.pars])
    low, high = np.array([[p.min, p.max] for p in sky.pars]).T
    steps = 1e-3 * np.maximum(np.abs(best), [1e-2 if k % 2 == 0 else 1e-9 for k in range(len(best))])
    expected = data.eval_model_to_fit(folded)
    slopes = []
    for k, step in enumerate(steps):
        sky.pars[k].val = best[k] + (step if best[k] + step <= high[k] else -step)
        slopes.append((data.eval_model_to_fit(folded) - expected) * np.sign(sky.pars[k].val - best[k]))
        sky.pars[k].val = best[k]
    behind = np.zeros(len(expected))
    if data.background_ids:
        alpha = np.broadcast_to(data.get_background_scale(units="counts", group=False), len(data.counts))[data.mask]
        off = gaussian_filter1d(data.get_background().counts.astype(float), SMOOTHING)[data.mask]
        behind = alpha * (1.0 + alpha) * off
    slopes = np.array(slopes)
    covariance = np.linalg.pinv((slopes / np.maximum(expected + behind, 1e-9)) @ slopes.T, rcond=1e-10, hermitian=True)
    drawn = np.random.default_rng(SEED).multivariate_normal(np.zeros(len(best)), covariance, N_DRAWS, method="svd")
    return list(np.clip(best + drawn * steps, low, high))


def _photons(components: tuple[Component, ...]) -> Callable[[Any, np.ndarray], np.ndarray]:
    """Photons of a sum of components under absorption: column, then norm and parameter of each."""

    def photons(parameters: Any, edges: np.ndarray) -> np.ndarray:
        pairs = zip(components, parameters[1::2], parameters[2::2], strict=True)
        emitted = sum(norm * xspec.evaluate(c.model, edges, shape) for c, norm, shape in pairs)
        return emitted * np.exp(-parameters[0] * _optical_depth(edges.tobytes()))

    return photons


@cache
def _optical_depth(edges: bytes) -> Float[np.ndarray, " n_bins"]:
    """Optical depth of 10²² cm⁻² in bins, from XSPEC's ``tbabs`` with the abundances ``wilm``."""
    xspec.set_abundances("wilm")
    return -100.0 * np.log(np.maximum(xspec.evaluate("tbabs", np.frombuffer(edges), 0.01), 1e-300))


# -- the two side by side


def _row(spectrum: Spectrum, found: Found, i: int, sherpa: Fit) -> dict[str, Any]:
    """Numbers of one spectrum: ln flux ours minus Sherpa's, and that in the larger of both errors."""
    levels = (CENTRAL[68][0], 0.5, CENTRAL[68][1])
    with np.errstate(divide="ignore", invalid="ignore"):  # a fit may leave a band without any flux
        ours, theirs = (quantiles(np.log(v[:, FLUXES]), levels) for v in (found.values[i], sherpa.values))
        difference = ours[1] - np.log(sherpa.best[FLUXES])
        sigma = np.maximum(ours[2] - ours[0], theirs[2] - theirs[0]) / 2.0
        pull = difference / sigma
    statistic, expected, spread = found.statistic[i]
    return {
        "name": spectrum.name,
        "telescope": str(spectrum.meta.get("telescope", "")),
        "counts": float(spectrum.counts[spectrum.select(*cameras.BAND)].sum()),
        "best": sherpa.model,
        "statistic": float(statistic),
        "sherpa_statistic": sherpa.statistic,
        "misfit": float(found.misfit[i]),
        "sherpa_fits": bool(sherpa.statistic <= expected + FITS * spread),
        "difference": [float(d) if np.isfinite(d) else None for d in difference],
        "pull": [float(p) if np.isfinite(p) else None for p in pull],
        "gain": float(found.gain[i]),
        "line": float(found.line[i]),
        "flags": str(found.flags[i]),
    }


def _targets(rows: list[dict[str, Any]]) -> list[list[Any]]:
    both = [row for row in rows if row["sherpa_fits"] and row["misfit"] < FITS and row["counts"] >= ENOUGH]
    hard = np.expm1(np.array([row["difference"][QUANTITIES.index("flux_h")] for row in both], dtype=float))
    pulls = np.abs(np.array([row["pull"] for row in both], dtype=float))
    pulls = pulls[np.isfinite(pulls)]
    poor = [row for row in rows if row["misfit"] > FITS]
    flagged = sum("poor_fit" in row["flags"].split(",") for row in poor)
    median = float(np.nanmedian(hard))
    said = f"{median:+.1%}; higher in {(hard > 0).sum()} of {len(both)}"
    return [
        ["2-7 keV flux beside Sherpa's where both fit, median", f"within {WITHIN:.0%}", said, abs(median) <= WITHIN],
        [f"pulls of {pulls.size} fluxes where both fit, below 1 and 2 σ", "(no target)",
         f"{(pulls < 1).mean():.0%}, {(pulls < 2).mean():.0%}", None],
        ["above 3 σ that carry `poor_fit`", "all", f"{flagged} of {len(poor)}", flagged == len(poor)],
    ]  # fmt: skip


def _table(rows: list[dict[str, Any]]) -> str:
    cells = []
    for row in rows:
        difference = row["difference"][QUANTITIES.index("flux_h")]
        hard = "" if difference is None or difference > np.log(MOST) else f"{np.expm1(difference):+.0%}"
        statistics = (f"{row[key]:.0f}" for key in ("sherpa_statistic", "statistic"))
        pulls = ["" if pull is None else f"{pull:+.1f}" for pull in row["pull"]]
        tests = [f"{row['gain']:+.1f}", f"{row['line']:.1f}"]
        cells.append([
            row["name"], row["telescope"], f"{row['counts']:,.0f}", row["best"], *statistics, f"{row['misfit']:+.1f}",
            *pulls, hard, *tests, row["flags"].replace(",", ", "),
        ])  # fmt: skip
    head = [
        "spectrum", "telescope", "counts", "best of six", "its C", "our C", "(C - E)/σ", *QUANTITIES[FLUXES],
        "2-7 keV", "gain", "line", "flags",
    ]  # fmt: skip
    return (
        "Fluxes of the reconstruction against those of the best of six models that Sherpa fits with XSPEC's `tbabs` "
        "(wilm): pulls, ln of the ratio in the larger of both errors, in six bands. Where a simple model does not fit, "
        "a pull says nothing against either. Gain and line are the score tests of the judge of misfits.\n\n"
        + table(head, cells)
    )
