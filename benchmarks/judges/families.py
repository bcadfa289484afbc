"""Families of sources, drawn at random: AtomDB's plasmas and XSPEC's continua behind XSPEC's absorption."""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from judges import atomdb, xspec
from xlatent.core.bands import BANDS, FLUX_BANDS, HARDNESS_RATIOS, KEV_IN_ERG, column_suffix, hardness

WIDTH = 0.0025
EDGES = np.round(np.arange(0.2, 15.0 + WIDTH / 2, WIDTH), 6)
"""keV: bins far narrower than any CCD resolves, on which the limits of every band lie."""
QUANTITIES = (*(f"flux_{column_suffix(band)}" for band in FLUX_BANDS), *HARDNESS_RATIOS)
"""Columns whose truth is known: six energy fluxes and three hardness ratios."""
PLASMA = (0.2, 10.0)  # keV


class Source(NamedTuple):
    """A source: the parameters it was drawn with and ``photons`` [n_bins] on `EDGES`, of any norm."""

    parameters: dict[str, Any]
    photons: Float[np.ndarray, " n_bins"]


def _log(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _plasma(rng: np.random.Generator, temperatures: int) -> Source:
    """Plasma of one redshift and abundance; half are at redshift 0, as stars and remnants are."""
    kt = atomdb.temperatures()
    numbers = rng.choice(np.flatnonzero((kt >= PLASMA[0]) & (kt <= PLASMA[1])), temperatures, replace=False)
    metals, redshift = _log(rng, 0.1, 2.0), float(rng.choice([0.0, rng.uniform(0.0, 1.0)]))
    shares = [1.0, _log(rng, 0.1, 10.0)][:temperatures]
    made = [atomdb.photons(EDGES, number, metals, redshift) for number in numbers]
    # Shares of the photons, not of the emission measure, so that both temperatures are seen.
    photons = sum(share * one / one.sum() for share, one in zip(shares, made, strict=True))
    return Source({"kT": kt[numbers].tolist(), "metals": metals, "redshift": redshift, "shares": shares}, photons)


def _xspec(name: str, **parameters: float) -> Source:
    return Source(parameters, xspec.evaluate(name, EDGES, *parameters.values()))


def _covered(rng: np.random.Generator) -> Source:
    """Power law behind a thick column that covers part of it."""
    power_law = _xspec("powerlaw", index=rng.uniform(1.4, 2.4))
    thick, share = _log(rng, 1.0, 30.0), rng.uniform(0.5, 0.98)
    photons = power_law.photons * partly_covered(thick, share)
    return Source({**power_law.parameters, "thick": thick, "covered": share}, photons)


FAMILIES: dict[str, Callable[[np.random.Generator], Source]] = {
    "apec": lambda rng: _plasma(rng, 1),
    "apec+apec": lambda rng: _plasma(rng, 2),
    "powerlaw": lambda rng: _xspec("powerlaw", index=rng.uniform(1.0, 3.0)),
    "cutoffpl": lambda rng: _xspec("cutoffpl", index=rng.uniform(0.5, 2.0), cutoff=_log(rng, 2.0, 15.0)),
    "diskbb": lambda rng: _xspec("diskbb", kT=_log(rng, 0.2, 2.0)),
    "bbodyrad": lambda rng: _xspec("bbodyrad", kT=_log(rng, 0.1, 2.0)),
    "nthcomp": lambda rng: _xspec(
        "nthcomp", index=rng.uniform(1.5, 3.0), kT_e=_log(rng, 2.0, 100.0), kT_bb=_log(rng, 0.05, 0.5), disk=0, z=0
    ),
    "bremss": lambda rng: _xspec("bremss", kT=_log(rng, 0.3, 10.0)),
    "pcfabs*powerlaw": _covered,
}  # fmt: skip
PLASMAS = ("apec", "apec+apec")


def draw(family: str, rng: np.random.Generator, columns: tuple[float, float] = (0.01, 3.0)) -> Source:
    """Draw a source of a family behind ``tbabs``, with abundances of either table.

    Parameters
    ----------
    family : str
        Key of `FAMILIES`.
    rng : numpy.random.Generator
    columns : (float, float)
        Range of the column, 10²² cm⁻², evenly in its logarithm.
    """
    source = FAMILIES[family](rng)
    column, abundances = _log(rng, *columns), str(rng.choice(["wilm", "angr"]))
    absorbed = source.photons * np.exp(-column * optical_depth(abundances))
    return Source({**source.parameters, "N_H": column, "abundances": abundances}, absorbed)


@cache
def optical_depth(abundances: str, model: str = "tbabs") -> Float[np.ndarray, " n_bins"]:
    """Optical depth of 10²² cm⁻² on `EDGES`: of ``tbabs`` (Wilms, Allen & McCray 2000, ApJ 542, 914), or ``phabs``."""
    xspec.set_abundances(abundances)
    return -10.0 * np.log(xspec.evaluate(model, EDGES, 0.1))


def partly_covered(column: float, share: float) -> Float[np.ndarray, " n_bins"]:
    """Transmission of XSPEC's ``pcfabs``: a share of the source behind ``phabs`` of a column in 10²² cm⁻²."""
    return 1.0 - share + share * np.exp(-column * optical_depth("angr", "phabs"))


def truth(photons: Float[np.ndarray, "n n_bins"]) -> Float[np.ndarray, "n 9"]:
    """Compute `QUANTITIES` of photons cm⁻² s⁻¹ on `EDGES`: energy fluxes in erg cm⁻² s⁻¹, and hardness ratios.

    Bins lie wholly in a band or out of it; they are far too narrow for it to matter where in a bin its photons are.
    """
    middle = 0.5 * (EDGES[1:] + EDGES[:-1])
    inside = {band: ((middle > BANDS[band][0]) & (middle < BANDS[band][1])).astype(float) for band in FLUX_BANDS}
    fluxes = [photons @ (inside[band] * middle * KEV_IN_ERG) for band in FLUX_BANDS]
    ratios = [hardness(photons @ inside[hard], photons @ inside[soft]) for hard, soft in HARDNESS_RATIOS.values()]
    return np.stack([*fluxes, *ratios], axis=1)


def rebinned(
    photons: Float[np.ndarray, "*batch n_bins"], edges: Float[np.ndarray, " n_edges"]
) -> Float[np.ndarray, "*batch n_out"]:
    """Put photons on `EDGES` into other bins, spread evenly over each of the narrow ones; none are beyond `EDGES`."""
    total = np.concatenate([np.zeros((*photons.shape[:-1], 1)), np.cumsum(photons, axis=-1)], axis=-1)
    position = np.clip((edges - EDGES[0]) / WIDTH, 0.0, len(EDGES) - 1.0)
    below = np.minimum(position.astype(int), len(EDGES) - 2)
    at_edges = total[..., below] + (position - below) * photons[..., below]
    return np.diff(at_edges, axis=-1)
