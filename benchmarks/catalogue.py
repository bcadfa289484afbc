"""Latents without a spectrum: photon indices of CSC sources from hardness ratios, and how honest the errors are."""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from rich.progress import Progress
from scipy.stats import spearmanr
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.model_selection import KFold, cross_val_predict

from command import alone
from xlatent.core.absorption import transmission
from xlatent.core.bands import hardness_ratios, photon_flux
from xlatent.core.bundle import DEFAULT_MODEL
from xlatent.core.grid import ModelGrid
from xlatent.core.latents import LatentTable
from xlatent.infer.embed import LatentModel, load_model
from xlatent.infer.photometry import FLUX_FLOOR, RATIOS, PhotometricColumn, embed_photometry
from xlatent.simulate import acis
from xlatent.simulate.continuum import powerlaw
from xlatent.workflows.catalogue_rows import RATIO_ERROR

SOURCES = Path(__file__).parents[2] / "shared" / "data" / "catalogues" / "csc2_source_properties.csv"
GAMMA = np.arange(-3.0, 10.01, 0.1)
NH = np.append(0.0, np.geomspace(0.01, 30.0, 36))  # 1e22 cm-2
BANDS = ("s", "m", "h")
FAINT, BRIGHT = 0.3, 0.03  # errors of the simulated fluxes, as a share of what a typical source has in all bands


def run(
    name: str = DEFAULT_MODEL, paper: str | None = None, n: int = 1000, workers: int | None = None
) -> dict[str, Any]:
    """Both checks of one model; ``paper`` and ``workers`` are not used."""
    from astropy.table import Table

    model = load_model(name)
    catalogue = Table.read(SOURCES, format="ascii.csv")
    ratios = {ratio: np.asarray(catalogue[ratio], dtype=float) for ratio in RATIOS}
    truth = np.asarray(catalogue["powlaw_gamma"], dtype=float)
    trees = ExtraTreesRegressor(300, min_samples_leaf=3, random_state=0)
    folds = KFold(5, shuffle=True, random_state=0)
    error = np.full(len(truth), RATIO_ERROR)
    with Progress() as progress:
        bar = progress.add_task("Embedding", total=len(truth))
        measured = [PhotometricColumn(ratio, values, error, error) for ratio, values in ratios.items()]
        latents = embed_photometry(model, measured, {}, progress=lambda done: progress.advance(bar, done))
    found = {
        "z": photon_index(model.decode(latents.z), model.grid),
        "extremely randomised trees": cross_val_predict(trees, np.stack(list(ratios.values()), 1), truth, cv=folds),
    }
    scores = {how: agreement(truth, gamma) for how, gamma in found.items()}
    covered = {error: coverage(model, n, error) for error in (FAINT, BRIGHT)}
    z = scores["z"]
    targets = [
        ("rank correlation of Γ from z", ">= 0.77", z["rank correlation"], z["rank correlation"] >= 0.77),
        ("median bias of Γ from z", "within 0.15", z["median bias"], abs(z["median bias"]) < 0.15),
    ]
    return {"targets": targets, "tables": [_gammas(scores, len(truth)), _coverages(covered, n)], "scores": scores}


def photon_index(photons: Float[np.ndarray, "n n_energy"], grid: ModelGrid) -> Float[np.ndarray, " n"]:
    """Γ of the absorbed power law that is most likely, N_H free, if 0.5-7 keV spectra are seen through ACIS.

    The area is the mean of front- and back-illuminated chips in 2007. Counts in bins of the model's grid are Poisson
    and the norm is free: the best of a grid in Γ and N_H maximises sum(c ln m) with m of sum one.
    """
    inside = (grid.energy[:-1] >= 0.5) & (grid.energy[1:] <= 7.0)
    middle = grid.energy_mid[inside]
    area = 0.5 * (
        acis.effective_area(middle, chip="FI", year=2007.0) + acis.effective_area(middle, chip="BI", year=2007.0)
    )
    models = (powerlaw(grid.energy, GAMMA)[:, None, inside] * transmission(middle, NH) * area).reshape(-1, len(middle))
    log_shape = np.log(models / models.sum(axis=1, keepdims=True) + 1e-12)
    best = [np.argmax(log_shape @ counts) for counts in photons[:, inside] * area]
    return np.repeat(GAMMA, len(NH))[best]


def agreement(truth: Float[np.ndarray, " n"], found: Float[np.ndarray, " n"]) -> dict[str, float]:
    """Rank correlation, median difference, and half the central 68 % of the differences."""
    low, middle, high = np.quantile(found - truth, (0.15865, 0.5, 0.84135))
    return {
        "rank correlation": float(spearmanr(truth, found)[0]),
        "median bias": float(middle),
        "scatter": float(0.5 * (high - low)),
    }


def coverage(model: LatentModel, n: int, error: float) -> dict[str, tuple[float, float]]:
    """Share of sources of the prior whose truth lies within the 68 and, for z, the 95 % limits.

    Amplitudes scatter by a factor e; fluxes in s, m and h have a normal error of a share ``error`` of the typical
    source's 0.5-7 keV flux, and the calibration's that is always assumed.
    """
    rng = np.random.default_rng(4)
    z = rng.standard_normal((n, model.info.latents))
    typical = model.decode(np.zeros_like(z[0]))
    sigma = error * float(photon_flux(typical, model.grid.energy, "b"))
    photons = model.decode(z) * np.exp(rng.standard_normal((n, 1)))
    measured, truth = [], hardness_ratios(photons, model.grid.energy)
    for band in BANDS:
        flux = truth[f"photflux_{band}"] = photon_flux(photons, model.grid.energy, band)
        seen = flux + np.hypot(sigma, FLUX_FLOOR * flux) * rng.standard_normal(n)
        measured.append(PhotometricColumn(f"photflux_{band}", seen, np.full(n, sigma), np.full(n, sigma)))
    truth["photflux_b"] = photon_flux(photons, model.grid.energy, "b")
    latents = embed_photometry(model, measured, {})
    shares = {name: (_inside(latents, name, values), np.nan) for name, values in truth.items()}
    pull = np.abs(z - latents.z) / latents.z_err
    return {f"z{i}": tuple(np.mean(pull[:, i] < k) for k in (1.0, 1.96)) for i in range(z.shape[1])} | shares


def _inside(latents: LatentTable, name: str, truth: Float[np.ndarray, " n"]) -> float:
    return float(np.mean((truth > latents[f"{name}_lolim"]) & (truth < latents[f"{name}_hilim"])))


def _gammas(scores: dict[str, dict[str, float]], n: int) -> str:
    lines = [
        f"Photon index of {n} CSC 2.0 sources from their three hardness ratios (errors taken to be {RATIO_ERROR}): an "
        "absorbed power law, N_H free, fitted to what the posterior mean of z decodes to, against the catalogue's fits "
        "to the spectra; and a regression from the same ratios, five-fold.",
        "",
        "| Γ from | rank correlation | median bias | scatter (half the central 68 %) |",
        "|---|---:|---:|---:|",
    ]
    return "\n".join(
        lines + [f"| {how} | " + " | ".join(f"{x:+.3f}" for x in s.values()) + " |" for how, s in scores.items()]
    )


def _coverages(covered: dict[float, dict[str, tuple[float, float]]], n: int) -> str:
    head = " | ".join(f"{level} %, errors {error:.0%}" for error in covered for level in (68, 95))
    lines = [
        f"Share of {n} simulated sources of the prior whose truth is within the limits (photon fluxes in s, m, h with "
        "errors as a share of the typical source's 0.5-7 keV flux).",
        "",
        f"| quantity | {head} |",
        "|---|" + "---:|" * 2 * len(covered),
    ]
    for name in next(iter(covered.values())):
        shares = [share for values in covered.values() for share in values[name]]
        lines.append(f"| {name} | " + " | ".join("" if np.isnan(x) else f"{x:.1%}" for x in shares) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    alone(run, __doc__, 1000)
