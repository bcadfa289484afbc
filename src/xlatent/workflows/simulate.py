"""Simulated observations as OGIP files, with a table of the truth."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from astropy.table import Table

from xlatent.core.atomic import atomic
from xlatent.core.errors import ParameterError
from xlatent.core.spectrum import Response, Spectrum
from xlatent.formats import ogip_write
from xlatent.simulate import acis, population
from xlatent.simulate.observe import particle_background

TRUTH = "truth.ecsv"
_BACKGROUND_AREA = 20.0  # background region over source region
_UNITS = {
    "nh": "1e22 cm-2", "gamma": "", "kt": "keV", "cutoff": "keV", "kt_ion": "keV", "photflux": "photon cm-2 s-1",
    "exposure": "s", "year": "yr", "theta": "arcmin", "counts": "count", "background": "count",
}  # fmt: skip


def simulate(n: int, seed: int, output: str | Path, progress: Callable[[int, int], None] | None = None) -> list[Path]:
    """Write ``n`` simulated ACIS observations of sources of the training population.

    Each is a set of PHA, background, ARF and RMF; ``truth.ecsv`` says what went in.

    Parameters
    ----------
    n : int
        Number of observations.
    seed : int
        The same seed gives the same files.
    output : str or Path
        Folder, made if absent.
    progress : callable, optional
        Called with the observations written and ``n``.

    Returns
    -------
    list of Path
        The PHA files.

    Raises
    ------
    ParameterError
        If ``n`` is not positive.
    WriteError
        If the folder cannot be written to.

    Examples
    --------
    >>> import tempfile
    >>> [path] = simulate(1, 3, tempfile.mkdtemp())
    >>> path.name, (path.parent / TRUTH).is_file()
    ('sim3_000.pha', True)
    """
    if n < 1:
        raise ParameterError(f"the number of observations to simulate must be at least 1, got {n}")
    output = Path(output)
    rng = np.random.default_rng(seed)
    rows = population.draw(rng, n)
    paths, truth = [], []
    for i in range(n):
        one = {name: values[i : i + 1] for name, values in rows.items()}
        spectrum, facts = observation(rng, one, f"sim{seed}_{i:03d}")
        paths.append(ogip_write.write(spectrum, output, spectrum.name))
        truth.append(facts)
        if progress is not None:
            progress(i + 1, n)
    table = Table(rows=truth)
    for name, unit in _UNITS.items():
        for column in (name, f"{name}_1", f"{name}_2"):
            if column in table.colnames and unit:
                table[column].unit = unit
    with atomic(output / TRUTH) as temporary:
        table.write(temporary, format="ascii.ecsv")
    return paths


def observation(
    rng: np.random.Generator, source: population.Parameters, name: str
) -> tuple[Spectrum, dict[str, float | str]]:
    """Observe one source with an ACIS state drawn at random.

    Parameters
    ----------
    rng : numpy.random.Generator
    source : dict of arrays [1] or [1, k]
        From `population.draw`.
    name : str
        Name of the spectrum.

    Returns
    -------
    spectrum : Spectrum
        With background and response.
    facts : dict
        What went in, for the truth table; NaN where a parameter does not belong to the source's family.
    """
    chip: acis.Chip = "BI" if rng.random() < 0.5 else "FI"
    year, theta = float(rng.uniform(1999.7, 2026.0)), float(rng.uniform(0.0, 8.0))
    response = _as_in_files(acis.response(chip, year, theta))
    exposure = float(10 ** rng.uniform(3.8, 5.0))
    edges = np.append(response.energy_lo, response.energy_hi[-1])
    shape = population.spectra(edges, source)[0]
    in_band = (response.chan_hi > 0.5) & (response.chan_lo < 8.0)
    folded = response.fold(shape)
    counts = float(10 ** rng.uniform(1.3, 4.3))
    photflux = counts / (exposure * folded[in_band].sum())
    channels = np.append(response.chan_lo, response.chan_hi[-1])
    measured = [5.0, 0.5] if chip == "FI" else [0.5, 5.0]
    particles = rng.dirichlet([*measured, 0.5, 0.5, 0.5, 0.2]) @ particle_background(channels)
    background = particles / particles[in_band].sum() * min(counts, 300.0) * float(10 ** rng.uniform(-2.0, 0.0))
    off = rng.poisson(background * _BACKGROUND_AREA).astype(float)
    on = rng.poisson(folded * photflux * exposure + background).astype(float)
    meta = {"name": name, "object": name, "telescope": "CHANDRA", "instrument": "ACIS", "date": _date(year)}
    spectrum = Spectrum(
        counts=on,
        exposure=exposure,
        backscale=1e-6,
        background=Spectrum(off, exposure, backscale=1e-6 * _BACKGROUND_AREA, meta=meta | {"name": f"{name}_bkg"}),
        response=response,
        meta=meta,
    )
    facts: dict[str, float | str] = {"name": name, "class": population.CLASSES[int(source["class"][0])]}
    facts |= {key: float(source[key][0]) for key in ("nh", "redshift", "fraction")}
    for i in "12":
        family = population.FAMILIES[int(source[f"family_{i}"][0])]
        used = ("nh", "covering", *population.PARAMETERS[family])
        if i == "2" and facts["fraction"] == 1.0:
            family, used = "", ()
        facts[f"family_{i}"] = family
        for key in ("nh", "covering", "gamma", "kt", "cutoff", "kt_ion"):
            facts[f"{key}_{i}"] = float(source[f"{key}_{i}"][0]) if key in used else float("nan")
    facts |= {
        "photflux": photflux, "exposure": exposure, "chip": chip, "year": year, "theta": theta,
        "counts": counts, "background": float(background[in_band].sum()),
    }  # fmt: skip
    return spectrum, facts


def _date(year: float) -> str:
    day = np.datetime64(f"{int(year)}-01-01") + np.timedelta64(int(365.0 * (year % 1.0)), "D")
    return f"{day}T00:00:00"


def _as_in_files(response: Response) -> Response:
    """The response with a redistribution rounded to 1e-6 and cut below 1e-5, as files have it: they stay small."""
    matrix = response.redistribution.copy()
    matrix.data = np.where(matrix.data < 1e-5, 0.0, np.round(matrix.data, 6))
    matrix.eliminate_zeros()
    return replace(response, redistribution=matrix)
