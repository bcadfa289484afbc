"""What the Chandra Source Catalog says of one source, in words for a person."""

from collections.abc import Iterator

import numpy as np
from astropy.table import Row, Table

_SHOWN = {
    "obsid": "obsid",
    "obi": "obi",
    "region_id": "region",
    "instrument": "instrument",
    "gti_obs": "start",
    "livetime": "livetime",
    "theta": "theta",
    "src_cnts_aper_b": "counts",
    "flux_significance_b": "significance",
    "flux_aper_b": "flux",
    "var_prob_b": "P(variable)",
}
"""Columns of a detection that are listed, and their titles."""


def list_detections(detections: Table) -> dict[str, list[str]]:
    """Put the detections of a source in order of time, as texts.

    Parameters
    ----------
    detections : astropy.table.Table
        As `Catalogue.source` gives them.

    Returns
    -------
    dict of list of str
        By title: observation, instrument, start, livetime (s), off-axis angle (arcmin), net counts, significance, flux
        (erg cm⁻² s⁻¹) and probability of variability of 0.5-7 keV; empty where the catalogue has none.
    """
    rows = detections.copy()
    rows.sort(["gti_mjd_obs", "obsid", "obi"])
    return {
        title: [str(row[name]) if rows[name].dtype.kind in "iU" else _text(row, name) for row in rows]
        for name, title in _SHOWN.items()
    }


def describe_source(source: Table) -> Iterator[tuple[str, str]]:
    """Say what the catalogue says of a source, in pairs of a title and a text.

    Parameters
    ----------
    source : astropy.table.Table
        The source's own properties, one row, as `Catalogue.source` gives them.

    Yields
    ------
    tuple of str
        Position, fluxes, hardness ratios, best fits, variability and flags; what the catalogue leaves empty is left
        out.

    Examples
    --------
    >>> source = Table({"name": ["2CXO J004248.5+411521"], "ra": [10.7], "dec": [41.3], "significance": [12.0]})
    >>> source["likelihood_class"] = ["TRUE"]
    >>> list(describe_source(source))[1]
    ('position', '10.700000, 41.300000 deg (ICRS)')
    """
    row = source[0]
    yield "name", row["name"]
    yield "position", f"{row['ra']:.6f}, {row['dec']:.6f} deg (ICRS)"
    ellipse = [_text(row, f"err_ellipse_{part}") for part in ("r0", "r1", "ang")]
    if all(ellipse):
        yield "error ellipse", f"{ellipse[0]} x {ellipse[1]} arcsec, {ellipse[2]} deg, 95 %"
    yield "significance", _text(row, "significance") + f"  {row['likelihood_class'].lower()}"
    for band in "bsmh":
        if flux := _text(row, f"flux_aper_{band}", f"flux_aper{{}}_{band}"):
            yield f"flux {band}", f"{flux} erg cm-2 s-1"
    for ratio in ("hm", "hs", "ms"):
        if value := _text(row, f"hard_{ratio}", f"hard_{ratio}{{}}"):
            yield f"hardness {ratio}", value
    if value := _text(row, "nh_gal"):
        yield "Galactic N_H", f"{value}e20 cm-2"
    for model, parameter, words in (
        ("powlaw", "gamma", "photon index"),
        ("bb", "kt", "kT keV"),
        ("brems", "kt", "kT keV"),
        ("apec", "kt", "kT keV"),
    ):
        if value := _text(row, f"{model}_{parameter}", f"{model}_{parameter}{{}}"):
            nh = _text(row, f"{model}_nh", f"{model}_nh{{}}") or "unknown"
            statistic = _text(row, f"{model}_stat") or "unknown"
            yield f"fit {model}", f"{words} {value}, N_H/1e20 cm-2 {nh}, statistic {statistic}"
    for kind, words in (("intra", "within one observation"), ("inter", "between observations")):
        if value := _text(row, f"var_{kind}_prob_b"):
            index = _text(row, f"var_{kind}_index_b") or "unknown"
            yield "variable", f"{words} with probability {value}, index {index}"
    flags = [name for name in source.colnames if source[name].dtype.kind == "b"]
    raised = [flag.removesuffix("_flag") for flag in flags if not np.ma.is_masked(row[flag]) and row[flag]]
    yield "flags", ", ".join(raised) or "none"


def _text(row: Row, name: str, limits: str = "") -> str:
    """A value, with its 68 % limits where ``limits`` says how their columns are named; empty where masked."""
    if name not in row.colnames or np.ma.is_masked(row[name]):
        return ""
    text = f"{row[name]:.4g}"
    if limits:
        low, high = (row[limits.format(end)] for end in ("_lolim", "_hilim"))
        if not np.ma.is_masked(low) and not np.ma.is_masked(high):
            text += f" ({low:.4g} to {high:.4g})"
    return text
