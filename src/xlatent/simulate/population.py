"""The population of sources that models are trained on: broad on purpose, drawn from a seed.

Parameters are always drawn with a NumPy generator, so that a seed gives the same sources everywhere; the spectra are
then computed in whatever array library the energy grid is given in.
"""

from typing import Any

import numpy as np
from array_api_compat import array_namespace, device
from jaxtyping import Float

from xlatent.core import absorption
from xlatent.simulate import continuum
from xlatent.simulate.plasma import ELEMENTS, plasma

FAMILIES = ("powerlaw", "cutoff", "comptonised", "blackbody", "disk", "bremsstrahlung", "plasma", "ionising")
PARAMETERS = {
    "powerlaw": ("gamma",),
    "cutoff": ("gamma", "cutoff"),
    "comptonised": ("gamma", "kt", "cutoff"),
    "blackbody": ("kt",),
    "disk": ("kt",),
    "bremsstrahlung": ("kt",),
    "plasma": ("kt", "abundance"),
    "ionising": ("kt", "abundance", "kt_ion"),
}
"""Which parameters shape a component, besides its absorber's; for Comptonisation ``kt`` is that of the seeds."""

_WEIGHTS = (0.26, 0.08, 0.06, 0.09, 0.09, 0.06, 0.24, 0.12)

_N_NODES = 7  # of the smooth distortion

Parameters = dict[str, np.ndarray]


def draw(rng: np.random.Generator, n: int) -> Parameters:
    """Draw the parameters of ``n`` sources.

    Every source has a first component and, in half of the cases, a second one, each with its own spectrum and
    redshifted (partial) absorber, behind one foreground column; some have Gaussian lines or a smooth distortion.

    Parameters
    ----------
    rng : numpy.random.Generator
        ``np.random.default_rng(seed)`` makes the draw reproducible.
    n : int
        Number of sources.

    Returns
    -------
    dict of arrays [n] or [n, k]
        Columns: ``nh`` (foreground, 1e22 cm⁻²), ``redshift``, ``fraction`` (of the photons in 0.5-8 keV that are the
        first component's; 1 without a second), for i = 1, 2 ``family_i`` (index into `FAMILIES`), ``gamma_i``,
        ``kt_i`` (keV), ``cutoff_i`` (keV), ``abundance_i`` [n, elements], ``kt_ion_i`` (keV), ``nh_i`` (1e22 cm⁻², at
        the redshift), ``covering_i``, and ``line_energy``, ``line_sigma``, ``line_ew`` [n, 2] (keV), ``distortion``
        [n, 7].
    """
    rows: Parameters = {"nh": 10 ** rng.triangular(-2.0, -0.9, 1.2, n)}
    redshifted = rng.random(n) < 0.45
    rows["redshift"] = np.where(redshifted, np.expm1(rng.gamma(1.5, 0.35, n)).clip(0.0, 6.0), 0.0)
    rows["fraction"] = np.where(rng.random(n) < 0.5, 1.0, rng.uniform(0.1, 0.95, n))
    for i in "12":
        _draw_component(rng, n, rows, i)

    # Fluorescence of neutral iron in the frame of the source, and a line anywhere; most sources have neither.
    energy = np.stack([6.4 / (1.0 + rows["redshift"]), np.exp(rng.uniform(np.log(0.5), np.log(8.0), n))], axis=1)
    width = np.stack([np.full(n, 0.02), 10 ** rng.uniform(-2.0, -0.7, n)], axis=1)
    strength = 10 ** rng.uniform([-1.7, -1.7], [-0.5, -0.5], (n, 2)) * (rng.random((n, 2)) < [0.2, 0.1])
    # Where the continuum at 6 keV is hidden and the reflecting matter is not, the fluorescent line stands out.
    strength[:, 0] *= np.where(rows["nh_1"] > 30.0, 5.0, 1.0)
    rows.update(line_energy=energy, line_sigma=width, line_ew=strength)
    amplitude = np.where(rng.random(n) < 0.35, 10 ** rng.uniform(-1.5, -0.4, n), 0.0)
    rows["distortion"] = amplitude[:, None] * rng.standard_normal((n, _N_NODES))
    return rows


def _draw_component(rng: np.random.Generator, n: int, rows: Parameters, i: str) -> None:
    family = rng.choice(len(FAMILIES), n, p=_WEIGHTS)
    rows[f"family_{i}"] = family
    # Detector background left in a spectrum is flat in counts: divided by the mirror's area it rises like E^3.
    left_in = rng.random(n) < 0.05
    broad = rng.random(n) < 0.25
    gamma = np.where(broad, rng.uniform(-0.5, 5.0, n), rng.normal(1.9, 0.5, n)).clip(-0.5, 5.0)
    rows[f"gamma_{i}"] = np.where(left_in, rng.uniform(-5.0, -0.5, n), gamma)
    hot = np.isin(family, [FAMILIES.index("bremsstrahlung"), FAMILIES.index("plasma"), FAMILIES.index("ionising")])
    thermal = 10 ** rng.uniform(np.log10(0.08), np.log10(15.0), n)
    rows[f"kt_{i}"] = np.where(hot, thermal, 10 ** rng.uniform(np.log10(0.04), np.log10(3.0), n))
    rows[f"cutoff_{i}"] = 10 ** rng.uniform(0.0, 2.0, n)
    metals = 10 ** rng.uniform(np.log10(0.05), np.log10(3.0), n)
    scatter = rng.choice([0.05, 0.15, 0.4], n)
    # Ejecta, seen ionising, differ element by element.
    scatter = np.where(family == FAMILIES.index("ionising"), 0.4, scatter)
    abundance = metals[:, None] * 10 ** (scatter[:, None] * rng.standard_normal((n, len(ELEMENTS))))
    rows[f"abundance_{i}"] = abundance.clip(0.01, 20.0)
    kt = rows[f"kt_{i}"]
    lag = 10 ** rng.uniform(-0.9, 0.15, n)
    rows[f"kt_ion_{i}"] = np.where(family == FAMILIES.index("ionising"), (kt * lag).clip(0.08, 15.0), kt)
    absorbed = rng.random(n) < 0.4
    rows[f"nh_{i}"] = np.where(absorbed, 10 ** rng.uniform(-1.5, 2.5, n), 0.0)
    # Something is always scattered round an absorber, if only a thousandth.
    covering = 1.0 - np.where(rng.random(n) < 0.5, 1e-3, 10 ** rng.uniform(-2.5, -0.2, n))
    rows[f"covering_{i}"] = np.where(absorbed, covering, 1.0)


def spectra(energy: Any, rows: Parameters) -> Any:
    """Photon spectra of drawn sources, each normalised to one photon cm⁻² s⁻¹ in 0.5-8 keV.

    Parameters
    ----------
    energy : array [n_energy + 1]
        Bin edges in keV, covering at least 0.5-8 keV; NumPy or torch, whose type and device the result has.
    rows : dict
        From `draw`.

    Returns
    -------
    array [n, n_energy]
        Photons cm⁻² s⁻¹ per bin.
    """
    xp = array_namespace(energy)
    mid = 0.5 * (energy[1:] + energy[:-1])
    band = xp.astype((mid > 0.5) & (mid < 8.0), energy.dtype)
    first = _normalised(_component(energy, rows, "1"), band)
    second = _normalised(_component(energy, rows, "2"), band)
    fraction = _to(energy, rows["fraction"])[:, None]
    total = fraction * first + (1.0 - fraction) * second
    lines = 0.0 * total
    for k in range(rows["line_ew"].shape[1]):
        profile = continuum.gaussian_line(
            energy, _to(energy, rows["line_energy"][:, k]), _to(energy, rows["line_sigma"][:, k])
        )
        # A line of equivalent width EW has EW times the continuum's density at its energy.
        lines = lines + _to(energy, rows["line_ew"][:, k])[:, None] * profile * total / (energy[1:] - energy[:-1])
    total = (total + lines) * absorption.transmission(mid, _to(energy, rows["nh"]))
    nodes = np.linspace(np.log(0.3), np.log(10.0), _N_NODES)
    basis = _bumps(np.log(np.asarray(mid.cpu() if hasattr(mid, "cpu") else mid)), nodes)
    total = total * xp.exp(_to(energy, rows["distortion"]) @ _to(energy, basis))
    return _normalised(total, band)


def _bumps(
    x: Float[np.ndarray, " n_energy"], nodes: Float[np.ndarray, " n_nodes"]
) -> Float[np.ndarray, "n_nodes n_energy"]:
    """Overlapping Gaussians in log energy, whose random sum is smooth."""
    return np.exp(-0.5 * ((x - nodes[:, None]) / (nodes[1] - nodes[0])) ** 2)


def _component(energy: Any, rows: Parameters, i: str) -> Any:
    """One component of every source: sources are computed family by family, then put back in order."""
    xp = array_namespace(energy)
    family = rows[f"family_{i}"]
    order = np.argsort(family, kind="stable")
    parts = []
    for index in np.unique(family):
        where = np.flatnonzero(family == index)
        shifted = energy * (1.0 + _to(energy, rows["redshift"][where])[:, None])
        par = {name: _to(energy, rows[f"{name}_{i}"][where]) for name in _PARAMETERS}
        flux = _MODELS[FAMILIES[index]](shifted, par)
        mid = 0.5 * (shifted[:, 1:] + shifted[:, :-1])
        parts.append(flux * absorption.transmission(mid, par["nh"], par["covering"]))
    return xp.take(xp.concat(parts, axis=0), xp.asarray(np.argsort(order), device=device(energy)), axis=0)


_PARAMETERS = ("gamma", "kt", "cutoff", "abundance", "kt_ion", "nh", "covering")
_MODELS = {
    "powerlaw": lambda e, p: continuum.powerlaw(e, p["gamma"]),
    "cutoff": lambda e, p: continuum.cutoff_powerlaw(e, p["gamma"], p["cutoff"]),
    "comptonised": lambda e, p: continuum.comptonised(e, p["gamma"], p["kt"], p["cutoff"]),
    "blackbody": lambda e, p: continuum.blackbody(e, p["kt"]),
    "disk": lambda e, p: continuum.disk_blackbody(e, p["kt"]),
    "bremsstrahlung": lambda e, p: continuum.bremsstrahlung(e, p["kt"]),
    "plasma": lambda e, p: plasma(e, p["kt"], p["abundance"], p["kt_ion"]),
    "ionising": lambda e, p: plasma(e, p["kt"], p["abundance"], p["kt_ion"]),
}


def _normalised(flux: Any, band: Any) -> Any:
    # A floor far below anything observable keeps logarithms finite where a cold blackbody underflows.
    xp = array_namespace(flux)
    total = xp.sum(flux * band, axis=-1, keepdims=True)
    return flux / (total + 1e-30) + 1e-12


def _to(energy: Any, values: np.ndarray) -> Any:
    xp = array_namespace(energy)
    return xp.asarray(values, dtype=energy.dtype, device=device(energy))
