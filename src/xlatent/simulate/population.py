"""The population of sources that models are trained on: classes of X-ray sources, broad on purpose, drawn from a seed.

Parameters are always drawn with a NumPy generator, so that a seed gives the same sources everywhere; the spectra are
then computed in whatever array library the energy grid is given in.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from array_api_compat import array_namespace, device
from jaxtyping import Float

from xlatent.core import absorption
from xlatent.core.errors import ParameterError
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

_HOT = ("bremsstrahlung", "plasma", "ionising")

Range = tuple[float, float]


class SourceClass(NamedTuple):
    """How the sources of one class are drawn. Ranges are uniform, in the decimal logarithm where they say ``log_``.

    Attributes
    ----------
    share : float
        Of the population.
    first, second : dict
        Families of the two components, by weight.
    two : float
        Chance of a second component.
    gamma : tuple
        Mean and standard deviation of the photon index; in a fifth of the sources it is anything from -0.5 to 5.
    log_kt, log_seed : tuple
        Temperatures in keV: of hot gas and bremsstrahlung, and of blackbodies, disks and Comptonised seeds.
    log_metals, scatter : tuple
        Abundance of all elements beside solar, and the standard deviations of single ones to choose from, in dex.
    redshift : tuple or None
        Shape and scale of the gamma distribution that ln(1 + z) follows; none within the Galaxy.
    log_nh : tuple
        Least, most frequent and largest foreground column, 1e22 cm⁻², triangular.
    absorbed, log_nh_own : float, tuple
        Chance that a component has an absorber of its own, at the redshift, and its column, 1e22 cm⁻².
    iron, log_iron_ew : float, tuple
        Chance of a fluorescence line of iron and its equivalent width in keV.
    anywhere : float
        Chance of a line at any energy.
    warm : float
        Chance of edges of O VII and O VIII.
    source : str
        Where the numbers come from.
    """

    share: float
    first: dict[str, float]
    two: float
    second: dict[str, float]
    source: str
    gamma: tuple[float, float] = (1.8, 0.4)
    log_kt: Range = (-1.1, 1.18)
    log_seed: Range = (-1.4, 0.48)
    log_metals: Range = (-1.0, 0.3)
    scatter: tuple[float, ...] = (0.05, 0.15)
    redshift: tuple[float, float] | None = None
    log_nh: tuple[float, float, float] = (-2.0, -0.6, 1.2)
    absorbed: float = 0.2
    log_nh_own: Range = (-1.5, 1.0)
    iron: float = 0.0
    log_iron_ew: Range = (-1.7, -0.7)
    anywhere: float = 0.02
    warm: float = 0.0


POPULATION: dict[str, SourceClass] = {
    "agn": SourceClass(
        0.20, {"powerlaw": 0.85, "cutoff": 0.15}, 0.35, {"blackbody": 0.4, "comptonised": 0.3, "powerlaw": 0.3},
        "Index: Nandra & Pounds 1994 (MNRAS 268, 405). Soft excess: Crummy et al. 2006 (MNRAS 365, 1067). Iron: "
        "Bianchi et al. 2007 (A&A 467, L19). Warm absorbers: Reynolds 1997 (MNRAS 286, 513). Redshifts: Luo et al. "
        "2017 (ApJS 228, 2).",
        gamma=(1.85, 0.3), log_seed=(-1.3, -0.6), redshift=(1.5, 0.35), log_nh=(-2.0, -1.4, 0.0), absorbed=0.3,
        log_nh_own=(-1.5, 0.5), iron=0.15, warm=0.15,
    ),
    "obscured agn": SourceClass(
        0.10, {"powerlaw": 0.9, "cutoff": 0.1}, 0.5, {"powerlaw": 0.6, "plasma": 0.4},
        "Columns: Ueda et al. 2014 (ApJ 786, 104). Iron: Fukazawa et al. 2011 (ApJ 727, 19). Scattered and thermal "
        "soft light: Bianchi et al. 2006 (A&A 448, 499).",
        gamma=(1.8, 0.3), log_kt=(-1.0, 0.1), redshift=(1.3, 0.3), log_nh=(-2.0, -1.4, 0.0), absorbed=0.9,
        log_nh_own=(0.3, 2.5), iron=0.5, log_iron_ew=(-1.5, 0.0),
    ),
    "x-ray binary": SourceClass(
        0.16, {"powerlaw": 0.4, "cutoff": 0.15, "comptonised": 0.15, "disk": 0.3}, 0.5,
        {"disk": 0.4, "blackbody": 0.3, "powerlaw": 0.3},
        "Black holes: Remillard & McClintock 2006 (ARA&A 44, 49). Neutron stars: Lin et al. 2007 (ApJ 667, 1073). High-"
        "mass systems: Torrejon et al. 2010 (ApJ 715, 947), iron of theirs too.",
        gamma=(1.7, 0.5), log_seed=(-1.0, 0.48), absorbed=0.4, log_nh_own=(-1.0, 1.6), iron=0.15,
        log_iron_ew=(-1.8, -0.5),
    ),
    "neutron star": SourceClass(
        0.12, {"blackbody": 0.65, "powerlaw": 0.25, "disk": 0.1}, 0.5, {"powerlaw": 0.6, "blackbody": 0.4},
        "Magnetars: Olausen & Kaspi 2014 (ApJS 212, 6). Cooling and rotation: Potekhin et al. 2015 (SSRv 191, 239). "
        "Nebulae: Kargaltsev & Pavlov 2008 (AIPC 983, 171). Supersoft sources: Kahabka & van den Heuvel 1997 (ARA&A "
        "35, 69).",
        gamma=(2.0, 0.7), log_seed=(-1.4, 0.0), absorbed=0.1, anywhere=0.01,
    ),
    "white dwarf": SourceClass(
        0.06, {"plasma": 0.5, "bremsstrahlung": 0.5}, 0.4, {"plasma": 0.5, "blackbody": 0.5},
        "Accreting white dwarfs: Mukai 2017 (PASP 129, 062001). Iron: Ezuka & Ishida 1999 (ApJS 120, 277).",
        log_kt=(-0.3, 1.4), log_seed=(-1.5, -0.8), log_metals=(-1.0, 0.2), absorbed=0.5, log_nh_own=(-1.0, 1.2),
        iron=0.5, log_iron_ew=(-1.5, -0.5),
    ),
    "star": SourceClass(
        0.11, {"plasma": 1.0}, 0.6, {"plasma": 1.0},
        "Temperatures and abundances: Guedel 2004 (A&ARv 12, 71); young ones: Preibisch et al. 2005 (ApJS 160, 401).",
        log_kt=(-1.0, 0.8), log_metals=(-1.2, 0.2), scatter=(0.1, 0.2, 0.35), log_nh=(-2.0, -1.0, 0.8),
    ),
    "hot gas": SourceClass(
        0.06, {"plasma": 1.0}, 0.4, {"plasma": 0.6, "powerlaw": 0.4},
        "Clusters: Mernier et al. 2018 (SSRv 214, 129). Galaxies: Mineo et al. 2012 (MNRAS 426, 1870).",
        log_kt=(-0.7, 1.18), log_metals=(-0.8, 0.2), redshift=(1.1, 0.2), log_nh=(-2.0, -1.4, 0.0), absorbed=0.1,
    ),
    "supernova remnant": SourceClass(
        0.07, {"ionising": 0.75, "plasma": 0.25}, 0.4, {"ionising": 0.4, "powerlaw": 0.6},
        "Ejecta and ionisation ages: Vink 2012 (A&ARv 20, 49). Synchrotron: Reynolds 2008 (ARA&A 46, 89).",
        gamma=(2.5, 0.4), log_kt=(-0.9, 0.8), log_metals=(-0.7, 0.6), scatter=(0.15, 0.4), absorbed=0.1,
    ),
    "anything": SourceClass(
        0.12,
        {"powerlaw": 0.3, "cutoff": 0.1, "comptonised": 0.1, "blackbody": 0.1, "disk": 0.1, "bremsstrahlung": 0.1,
         "plasma": 0.12, "ionising": 0.08},
        0.5,
        {"powerlaw": 0.3, "cutoff": 0.1, "comptonised": 0.1, "blackbody": 0.1, "disk": 0.1, "bremsstrahlung": 0.1,
         "plasma": 0.12, "ionising": 0.08},
        "No class: every family with every other, so that what no class holds is not foreign either.",
        gamma=(1.9, 1.0), log_metals=(-1.3, 0.48), scatter=(0.05, 0.15, 0.4), redshift=(0.7, 0.5), absorbed=0.4,
        log_nh_own=(-1.5, 2.5), iron=0.1, log_iron_ew=(-1.7, -0.3), anywhere=0.1,
    ),
}  # fmt: skip
"""What the training population holds. At least half of it is continuum without a narrow line."""

CLASSES = tuple(POPULATION)

_N_NODES = 7  # of the smooth distortion
_IRON = (6.4, 6.7, 6.97)  # keV, neutral, He-like and H-like
_EDGES = np.array([0.7393, 0.8714])  # keV, O VII and O VIII (Verner et al. 1996, ApJ 465, 487)

Parameters = dict[str, np.ndarray]


def draw(rng: np.random.Generator, n: int, shares: Mapping[str, float] | None = None) -> Parameters:
    """Draw the parameters of ``n`` sources.

    Every source has a first component and, by its class, a second one, each with its own spectrum and redshifted
    (partial) absorber, behind one foreground column; some have Gaussian lines, edges, or a smooth distortion.

    Parameters
    ----------
    rng : numpy.random.Generator
        ``np.random.default_rng(seed)`` makes the draw reproducible.
    n : int
        Number of sources.
    shares : mapping, optional
        Classes of `POPULATION` and their shares, of any sum, instead of those that stand there.

    Returns
    -------
    dict of arrays [n] or [n, k]
        Columns: ``class`` (index into `CLASSES`), ``nh`` (foreground, 1e22 cm⁻²), ``redshift``, ``fraction`` (of the
        photons in 0.5-8 keV that are the first component's; 1 without a second), for i = 1, 2 ``family_i`` (index into
        `FAMILIES`), ``gamma_i``, ``kt_i`` (keV), ``cutoff_i`` (keV), ``abundance_i`` [n, elements], ``kt_ion_i`` (keV),
        ``nh_i`` (1e22 cm⁻², at the redshift), ``covering_i``, and ``line_energy``, ``line_sigma``, ``line_ew`` [n, 2]
        (keV, as observed), ``edge_depth`` [n, 2], ``distortion`` [n, 7].

    Raises
    ------
    ParameterError
        If a class of ``shares`` is unknown, or they do not add up to more than nothing.

    Examples
    --------
    >>> rows = draw(np.random.default_rng(1), 1000, {"star": 1.0})
    >>> {CLASSES[k] for k in rows["class"]}, bool(rows["redshift"].any())
    ({'star'}, False)
    """
    wanted = {name: kind.share for name, kind in POPULATION.items()} if shares is None else shares
    if unknown := sorted(set(wanted) - set(POPULATION)):
        raise ParameterError(f"no class of sources is called {unknown[0]!r}; there are {', '.join(CLASSES)}")
    weights = np.array([wanted.get(name, 0.0) for name in CLASSES])
    if not (np.isfinite(weights).all() and weights.min() >= 0.0 and weights.sum() > 0.0):
        raise ParameterError("shares of classes of sources must not be negative, and at least one positive")
    classes = rng.choice(len(CLASSES), n, p=weights / weights.sum())
    order = np.argsort(classes, kind="stable")
    parts = [_draw_class(rng, int(np.sum(classes == k)), POPULATION[CLASSES[k]]) for k in np.unique(classes)]
    back = np.argsort(order)
    return {"class": classes} | {name: np.concatenate([part[name] for part in parts])[back] for name in parts[0]}


def _draw_class(rng: np.random.Generator, n: int, kind: SourceClass) -> Parameters:
    """Draw sources of one class."""
    rows: Parameters = {"nh": 10 ** rng.triangular(*kind.log_nh, n)}
    redshift = np.zeros(n) if kind.redshift is None else np.expm1(rng.gamma(*kind.redshift, n)).clip(0.0, 6.0)
    rows["redshift"] = redshift
    rows["fraction"] = np.where(rng.random(n) < kind.two, rng.uniform(0.1, 0.95, n), 1.0)
    _draw_component(rng, n, rows, "1", kind, kind.first)
    _draw_component(rng, n, rows, "2", kind, kind.second)

    # Iron's lines in the frame of the source, mostly of the neutral atom, some of them broad; and a line anywhere.
    iron = rng.choice(_IRON, n, p=[0.7, 0.2, 0.1]) / (1.0 + redshift)
    energy = np.stack([iron, np.exp(rng.uniform(np.log(0.5), np.log(8.0), n))], axis=1)
    broad = np.where(rng.random(n) < 0.2, 10 ** rng.uniform(-1.0, -0.4, n), 0.02)
    width = np.stack([broad, 10 ** rng.uniform(-2.0, -0.7, n)], axis=1)
    strength = 10 ** rng.uniform([kind.log_iron_ew[0], -1.7], [kind.log_iron_ew[1], -0.5], (n, 2))
    strength *= rng.random((n, 2)) < [kind.iron, kind.anywhere]
    # An equivalent width in the frame of the source is seen smaller.
    strength[:, 0] /= 1.0 + redshift
    rows.update(line_energy=energy, line_sigma=width, line_ew=strength)
    rows["edge_depth"] = rng.uniform(0.05, 1.2, (n, 2)) * (rng.random(n) < kind.warm)[:, None]
    amplitude = np.where(rng.random(n) < 0.3, 10 ** rng.uniform(-1.5, -0.4, n), 0.0)
    rows["distortion"] = amplitude[:, None] * rng.standard_normal((n, _N_NODES))
    return rows


def _draw_component(
    rng: np.random.Generator, n: int, rows: Parameters, i: str, kind: SourceClass, families: dict[str, float]
) -> None:
    weights = np.array(list(families.values()))
    family = rng.choice([FAMILIES.index(name) for name in families], n, p=weights / weights.sum())
    rows[f"family_{i}"] = family
    odd = rng.random(n) < 0.2
    gamma = np.where(odd, rng.uniform(-0.5, 5.0, n), rng.normal(*kind.gamma, n)).clip(-0.5, 5.0)
    # Detector background left in a spectrum is flat in counts: divided by the mirror's area it rises like E^3.
    left_in = rng.random(n) < 0.03
    gamma = np.where(left_in, rng.uniform(-5.0, -0.5, n), gamma)
    # Comptonisation has no solution with an index of 1 or less.
    least = np.where(family == FAMILIES.index("comptonised"), 1.05, -5.0)
    rows[f"gamma_{i}"] = np.maximum(gamma, least)
    hot = np.isin(family, [FAMILIES.index(name) for name in _HOT])
    rows[f"kt_{i}"] = kt = 10 ** np.where(hot, rng.uniform(*kind.log_kt, n), rng.uniform(*kind.log_seed, n))
    rows[f"cutoff_{i}"] = 10 ** rng.uniform(0.0, 2.0, n)
    metals = 10 ** rng.uniform(*kind.log_metals, n)
    scatter = rng.choice(kind.scatter, n)
    abundance = metals[:, None] * 10 ** (scatter[:, None] * rng.standard_normal((n, len(ELEMENTS))))
    rows[f"abundance_{i}"] = abundance.clip(0.01, 20.0)
    lag = 10 ** rng.uniform(-0.9, 0.15, n)
    ionising = family == FAMILIES.index("ionising")
    rows[f"kt_ion_{i}"] = np.where(ionising, (kt * lag).clip(0.08, 15.0), kt)
    absorbed = rng.random(n) < kind.absorbed
    rows[f"nh_{i}"] = np.where(absorbed, 10 ** rng.uniform(*kind.log_nh_own, n), 0.0)
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
    redshifted = mid * (1.0 + _to(energy, rows["redshift"])[:, None])
    for k, edge in enumerate(_EDGES.tolist()):
        depth = _to(energy, rows["edge_depth"][:, k])[:, None] * (redshifted / edge) ** -3.0
        total = total * xp.where(redshifted >= edge, xp.exp(-depth), 1.0 + 0.0 * depth)
    lines = 0.0 * total
    for k in range(rows["line_ew"].shape[1]):
        profile = continuum.gaussian_line(
            energy, _to(energy, rows["line_energy"][:, k]), _to(energy, rows["line_sigma"][:, k])
        )
        # A line of equivalent width EW has EW times the continuum's density at its energy.
        lines = lines + _to(energy, rows["line_ew"][:, k])[:, None] * profile * total / (energy[1:] - energy[:-1])
    total = (total + lines) * absorption.bin_transmission(energy, _to(energy, rows["nh"]))
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
        parts.append(flux * absorption.bin_transmission(shifted, par["nh"], par["covering"]))
    return xp.take(xp.concat(parts, axis=0), xp.asarray(np.argsort(order), device=device(energy)), axis=0)


_PARAMETERS = ("gamma", "kt", "cutoff", "abundance", "kt_ion", "nh", "covering")
_MODELS = {
    "powerlaw": lambda e, p: continuum.powerlaw(e, p["gamma"]),
    "cutoff": lambda e, p: continuum.cutoff_powerlaw(e, p["gamma"], p["cutoff"]),
    "comptonised": lambda e, p: continuum.comptonised(e, p["gamma"], p["kt"], p["cutoff"]),
    "blackbody": lambda e, p: continuum.blackbody(e, p["kt"]),
    "disk": lambda e, p: continuum.disk_blackbody(e, p["kt"]),
    "bremsstrahlung": lambda e, p: continuum.bremsstrahlung(e, p["kt"]),
    "plasma": lambda e, p: plasma(e, p["kt"], p["abundance"]),
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
