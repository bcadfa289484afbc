"""Every column that is taken from the Chandra Source Catalog, once: name, type, unit, level, meaning."""

from collections.abc import Iterator
from typing import NamedTuple

BANDS = {"b": "0.5-7", "s": "0.5-1.2", "m": "1.2-2", "h": "2-7"}  # keV; CSC page "Energy Bands"
LEVELS = {"o": "observation_source", "s": "stack_source", "m": "master_source"}
KEYS = ("obsid", "obi", "region_id")  # of a detection


class CatalogueColumn(NamedTuple):
    """What a column holds: CSC name, type, unit (astropy; empty where there is none), levels and meaning.

    Levels are ``o`` (a detection in one observation), ``s`` (in a stack of observations) and ``m`` (the source, from
    all observations). Where a name exists at several, a selection takes the first.
    """

    name: str
    dtype: type
    unit: str
    levels: str
    description: str


def _columns() -> Iterator[CatalogueColumn]:
    # Names and meanings after the CSC 2.1 pages "Master Sources Table" and "Per-Observation Detections Table"
    # (cxc.cfa.harvard.edu/csc/columns). Norms of bremsstrahlung and APEC, and the blackbody's amplitude, have
    # whatever unit the service states.
    yield CatalogueColumn("name", str, "", "m", "Source name, 2CXO Jhhmmss.s+ddmmss, with X behind where extended")
    yield CatalogueColumn("obsid", int, "", "o", "Observation identifier")
    yield CatalogueColumn("obi", int, "", "o", "Observation interval")
    yield CatalogueColumn("region_id", int, "", "o", "Detection region in the stack and its observations")
    yield CatalogueColumn("ra", float, "deg", "m", "Right ascension of the source, ICRS")
    yield CatalogueColumn("dec", float, "deg", "m", "Declination of the source, ICRS")
    yield CatalogueColumn("theta", float, "arcmin", "o", "Off-axis angle")
    yield CatalogueColumn("phi", float, "deg", "o", "Azimuth about the optical axis")
    yield CatalogueColumn("err_ellipse_r0", float, "arcsec", "m", "Major radius of the position's 95 % error ellipse")
    yield CatalogueColumn("err_ellipse_r1", float, "arcsec", "m", "Minor radius of the position's 95 % error ellipse")
    yield CatalogueColumn("err_ellipse_ang", float, "deg", "m", "Position angle of the major axis of the error ellipse")
    yield CatalogueColumn("detect_stack_id", str, "", "s", "Stack of observations in which it was detected")
    yield CatalogueColumn("instrument", str, "", "o", "Instrument, ACIS or HRC")
    yield CatalogueColumn("gti_obs", str, "", "o", "Start of the observation, date and time")
    yield CatalogueColumn("gti_mjd_obs", float, "d", "o", "Start of the observation, modified Julian date, TT")
    yield CatalogueColumn("livetime", float, "s", "o", "Exposure time, dead time taken off")

    yield CatalogueColumn(
        "significance", float, "", "m", "Highest flux significance over bands, stacks and observations"
    )
    yield CatalogueColumn("likelihood", float, "", "m", "Highest detection log likelihood")
    yield CatalogueColumn("likelihood_class", str, "", "m", "TRUE or MARGINAL, by the detection likelihood")
    for band, energies in BANDS.items():
        kev = f"{energies} keV"
        yield CatalogueColumn(f"flux_significance_{band}", float, "", "om", f"Flux over its error, {kev}")
        yield CatalogueColumn(f"cnts_aper_{band}", float, "count", "o", f"Counts in the source aperture, {kev}")
        yield CatalogueColumn(f"cnts_aperbkg_{band}", float, "count", "o", f"Counts in the background aperture, {kev}")
        yield from _limits(f"src_cnts_aper{{}}_{band}", "count", "o", f"Net counts of the source, {kev}")
        yield from _limits(f"flux_aper{{}}_{band}", "erg cm-2 s-1", "om", f"Energy flux, {kev}")
        yield from _limits(f"photflux_aper{{}}_{band}", "photon cm-2 s-1", "om", f"Photon flux, {kev}")
    for hard, soft in ("hm", "hs", "ms"):
        meaning = f"Hardness ratio ({hard} - {soft}) / ({hard} + {soft}) of photon fluxes"
        yield from _limits(f"hard_{hard}{soft}{{}}", "", "om", meaning)

    amplitude = "photon cm-2 s-1 keV-1"
    fits: dict[str, tuple[str, dict[str, tuple[str, str]]]] = {
        "powlaw": ("power law", {"gamma": ("", "photon index"), "ampl": (amplitude, "amplitude at 1 keV")}),
        "bb": ("blackbody", {"kt": ("keV", "temperature kT"), "ampl": ("", "amplitude")}),
        "brems": ("bremsstrahlung", {"kt": ("keV", "temperature kT"), "norm": ("", "normalisation")}),
        "apec": (
            "APEC plasma",
            {
                "kt": ("keV", "temperature kT"),
                "abund": ("", "abundance"),
                "z": ("", "redshift"),
                "norm": ("", "normalisation"),
            },
        ),
    }
    for model, (words, parameters) in fits.items():
        yield from _limits(f"flux_{model}{{}}", "erg cm-2 s-1", "om", f"Energy flux of the absorbed {words}, 0.5-7 keV")
        parameters = {"nh": ("1e20 cm-2", "column density N_H"), **parameters}
        for parameter, (unit, meaning) in parameters.items():
            yield from _limits(f"{model}_{parameter}{{}}", unit, "om", f"Absorbed {words}: {meaning}")
        yield CatalogueColumn(
            f"{model}_stat", float, "", "om", f"Absorbed {words}: fit statistic per degree of freedom"
        )
    yield CatalogueColumn(
        "nh_gal", float, "1e20 cm-2", "m", "Galactic column density N_H in the direction of the source"
    )

    for band, energies in BANDS.items():
        kev = f"{energies} keV"
        # High means variable in all of these.
        within, between = f"within the observation, {kev}", f"between observations, {kev}"
        any_one = f"within any one observation, {kev}"
        yield CatalogueColumn(f"var_prob_{band}", float, "", "o", f"Gregory-Loredo probability of variability {within}")
        yield CatalogueColumn(f"var_index_{band}", int, "", "o", f"Gregory-Loredo variability index, 0 to 10, {within}")
        yield CatalogueColumn(f"ks_prob_{band}", float, "", "o", f"K-S test's probability of variability {within}")
        yield CatalogueColumn(f"kp_prob_{band}", float, "", "o", f"Kuiper test's probability of variability {within}")
        yield CatalogueColumn(f"var_intra_prob_{band}", float, "", "m", f"Highest probability of variability {any_one}")
        yield CatalogueColumn(f"var_intra_index_{band}", int, "", "m", f"Highest variability index {any_one}")
        yield CatalogueColumn(f"var_inter_prob_{band}", float, "", "m", f"Probability of variability {between}")
        yield CatalogueColumn(f"var_inter_index_{band}", int, "", "m", f"Variability index, 0 to 10, {between}")
        unit = "photon cm-2 s-1"
        yield CatalogueColumn(f"var_inter_sigma_{band}", float, unit, "m", f"Photon flux variability {between}")
    for ratio in ("hm", "hs", "ms"):
        meaning = f"Probability that hard_{ratio} varies between observations"
        yield CatalogueColumn(f"var_inter_hard_prob_{ratio}", float, "", "m", meaning)
    yield CatalogueColumn("var_inter_hard_flag", bool, "", "m", "A hardness ratio varies between observations")
    yield CatalogueColumn("var_flag", bool, "", "m", "Variable within or between observations, in any band")

    yield CatalogueColumn("conf_code", int, "", "o", "Overlaps with other regions, bits; 0 is none")
    yield CatalogueColumn("extent_code", int, "", "o", "Bands in which it is extended, bits; 0 is none")
    yield CatalogueColumn("dither_warning_flag", bool, "", "om", "Period of a light curve peak is one of the dither")
    yield CatalogueColumn("sat_src_flag", bool, "", "om", "Saturated: fluxes and spectra are unreliable")
    yield CatalogueColumn("streak_src_flag", bool, "", "om", "On a readout streak of another source")
    yield CatalogueColumn("conf_flag", bool, "", "m", "Source regions are confused")
    yield CatalogueColumn("extent_flag", bool, "", "m", "Extended in some band")
    yield CatalogueColumn("pileup_flag", bool, "", "m", "Photons pile up: spectra are distorted")


def _limits(name: str, unit: str, levels: str, meaning: str) -> Iterator[CatalogueColumn]:
    """A value and its 68 % limits; ``{}`` in the name is where the CSC writes ``_lolim`` or ``_hilim``."""
    yield CatalogueColumn(name.format(""), float, unit, levels, meaning)
    yield CatalogueColumn(name.format("_lolim"), float, unit, levels, f"{meaning}: lower 68 % limit")
    yield CatalogueColumn(name.format("_hilim"), float, unit, levels, f"{meaning}: upper 68 % limit")


COLUMNS: tuple[CatalogueColumn, ...] = tuple(_columns())
"""The columns of a selection, in its order."""
