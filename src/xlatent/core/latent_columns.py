"""The columns of a latent table: the one place that says what they are, and values put as it says."""

from collections.abc import Iterator
from functools import cache
from itertools import combinations
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from xlatent.core.bands import BANDS, FLUX_BANDS, HARDNESS_RATIOS, column_suffix
from xlatent.core.errors import ParameterError

if TYPE_CHECKING:  # which takes as long to load as everything else that embeds a spectrum
    from astropy.table import Column
    from astropy.units import UnitBase

N_LATENTS = 8

# What a table says about its origin.
META_KEYS = ("model", "model_sha256", "software")
MODEL_ID_LENGTH = 12
"""Digits of a model's sha256 that tell it from others, in messages and in column ``model_id``."""


class ColumnInfo(NamedTuple):
    """What a column holds: its name, type, unit (as in the FITS standard), UCD (IVOA UCD1+) and meaning."""

    name: str
    dtype: type
    unit: str
    ucd: str
    description: str


def _schema() -> Iterator[ColumnInfo]:
    yield ColumnInfo("name", str, "", "meta.id;meta.main", "Name of the spectrum")
    yield ColumnInfo("obsid", int, "", "meta.id;obs", "Observation identifier, where it is a whole number")
    yield ColumnInfo("obi", int, "", "meta.id.part;obs", "Observation interval (Chandra)")
    yield ColumnInfo("region_id", int, "", "meta.id.part;src", "Source region in the observation (CSC)")
    yield ColumnInfo("ra", float, "deg", "pos.eq.ra;meta.main", "Right ascension, ICRS, as in the file")
    yield ColumnInfo("dec", float, "deg", "pos.eq.dec;meta.main", "Declination, ICRS, as in the file")
    yield ColumnInfo("file", str, "", "meta.id;meta.file", "Spectrum file")
    for i in range(N_LATENTS):
        yield ColumnInfo(f"z{i}", float, "", "stat.fit.param", f"Latent variable {i}, mean of its posterior")
    for i in range(N_LATENTS):
        ucd = "stat.error;stat.fit.param"
        yield ColumnInfo(f"z{i}_err", float, "", ucd, f"Standard deviation of latent variable {i}")
    for i, j in combinations(range(N_LATENTS), 2):
        yield ColumnInfo(f"z{i}_z{j}_cov", float, "", "stat.covariance", f"Covariance of latent variables {i} and {j}")
    meaning = "Directions of latent space in which the data leave less than half of the prior's variance"
    yield ColumnInfo("active", int, "", "meta.number", meaning)
    meaning = "Effective number of posterior draws; none where the posterior is taken for a Gaussian"
    yield ColumnInfo("ess", float, "", "meta.number", meaning)
    meaning, ucd = "log10 of the 0.5-7 keV energy flux in erg cm-2 s-1", "phot.flux;em.X-ray"
    yield ColumnInfo("log_flux_b", float, "", ucd, meaning)
    yield ColumnInfo("log_flux_b_err", float, "", f"stat.error;{ucd}", f"Standard deviation of the {meaning}")
    yield ColumnInfo("counts", float, "count", "phot.count;em.X-ray", "Counts in 0.5-8 keV, background included")
    yield ColumnInfo("exposure", float, "s", "time.duration;obs.exposure", "Exposure time")
    meaning = "Lowest energy within 0.5-8 keV that response and good channels cover"
    yield ColumnInfo("energy_lo", float, "keV", "em.energy;stat.min", meaning)
    meaning = "Highest energy within 0.5-8 keV that response and good channels cover"
    yield ColumnInfo("energy_hi", float, "keV", "em.energy;stat.max", meaning)
    meaning = "W statistic (C without background) of the reconstruction, ungrouped channels of 0.5-8 keV"
    yield ColumnInfo("cstat", float, "", "stat.fit.goodness", meaning)
    yield ColumnInfo("cstat_expected", float, "", "stat.fit.goodness;stat.mean", "Mean of cstat if the model is true")
    meaning = "Standard deviation of cstat if the model is true"
    yield ColumnInfo("cstat_sigma", float, "", "stat.fit.goodness;stat.stdev", meaning)
    meaning = "(cstat - cstat_expected) / cstat_sigma: by how much the fit is worse than chance"
    yield ColumnInfo("fit_sigma", float, "", "stat.fit.goodness", meaning)
    meaning = "Verdict on the fit: good, poor (fit_sigma above 3) or fails (above 10); empty below 10 counts"
    yield ColumnInfo("fit", str, "", "meta.code.qual;stat.fit", meaning)
    for prefix, kind, unit in (("photflux", "Photon flux", "photon cm-2 s-1"), ("flux", "Energy flux", "erg cm-2 s-1")):
        for band in FLUX_BANDS:
            lo, hi = BANDS[band]
            name, meaning = f"{prefix}_{column_suffix(band)}", f"{kind}, {lo:g}-{hi:g} keV"
            yield from _with_limits(name, unit, "phot.flux;em.X-ray", meaning)
    for name, (hard, soft) in HARDNESS_RATIOS.items():
        meaning = f"Hardness ratio ({hard} - {soft}) / ({hard} + {soft}) of photon fluxes of the reconstruction"
        yield from _with_limits(name, "", "phot.color;em.X-ray", meaning)
    yield ColumnInfo("source", str, "", "meta.id;src", "Source that the spectrum is of, where several may be of one")
    yield ColumnInfo("object", str, "", "meta.id;src", "Object as the file calls it")
    yield ColumnInfo("telescope", str, "", "meta.id;instr.tel", "Telescope")
    yield ColumnInfo("instrument", str, "", "meta.id;instr", "Instrument")
    yield ColumnInfo("mjd", float, "d", "time.start;obs", "Start of the observation, modified Julian date")
    meaning = f"Model of the latents: first {MODEL_ID_LENGTH} digits of its sha256"
    yield ColumnInfo("model_id", str, "", "meta.id;meta.software", meaning)
    yield ColumnInfo(
        "flags", str, "", "meta.code", "What to know before this row is used, by docs/flags.md; separated by commas"
    )


def _with_limits(name: str, unit: str, ucd: str, description: str) -> Iterator[ColumnInfo]:
    yield ColumnInfo(name, float, unit, ucd, description)
    yield ColumnInfo(f"{name}_lolim", float, unit, f"{ucd};stat.min", f"{description}: lower end of the 68 % interval")
    yield ColumnInfo(f"{name}_hilim", float, unit, f"{ucd};stat.max", f"{description}: upper end of the 68 % interval")


COLUMNS: tuple[ColumnInfo, ...] = tuple(_schema())

# How a type is stored, and what stands in it where a value is missing.
_STORED = {str: np.str_, int: np.int64, float: np.float64}
_EMPTY: dict[type, Any] = {str: "", int: 0, float: np.nan}


def column_values(info: ColumnInfo, value: Any, n_rows: int) -> np.ndarray:
    """Put whatever was given for a column of the schema as it says [n]; whole numbers that are missing are masked.

    Raises
    ------
    ParameterError
        If there is not one value a row, of the column's type and in a unit like its own.
    """
    if value is None:
        filled: np.ndarray = np.full(n_rows, _EMPTY[info.dtype], _STORED[info.dtype])
        return np.ma.array(filled, mask=True) if info.dtype is int else filled
    if unit := str(getattr(value, "unit", None) or ""):
        value = _in_unit(info, value, unit)
    missing = _missing(value)
    if info.dtype is int:
        # Headers give identifiers as text; one that is no whole number has no place in these columns.
        missing |= np.array([isinstance(entry, str) and not entry.strip().isdigit() for entry in value], bool)
    if missing.any():
        value = [_EMPTY[info.dtype] if gone else entry for entry, gone in zip(value, missing, strict=True)]
    try:
        data: np.ndarray = np.asarray(value).astype(_STORED[info.dtype])
    except (TypeError, ValueError) as error:
        raise ParameterError(f"column {info.name} of a latent table: {error}") from error
    if data.shape != (n_rows,):
        raise ParameterError(f"column {info.name} of a latent table takes one value a row, found shape {data.shape}")
    return np.ma.array(data, mask=missing) if info.dtype is int else data


def astropy_column(info: ColumnInfo, values: np.ndarray) -> "Column":
    """Make an astropy column with the attributes of the schema."""
    from astropy.table import Column, MaskedColumn

    attributes = {"unit": _units()[info.unit], "description": info.description, "meta": {"ucd": info.ucd}}
    return (MaskedColumn if info.dtype is int else Column)(values, copy=False, **attributes)


@cache
def _units() -> "dict[str, UnitBase | None]":
    """Units of the schema by their text; to parse them takes longer than all else that makes a small table."""
    from astropy.units import Unit

    return {text: Unit(text) if text else None for text in {info.unit for info in COLUMNS}}


def _missing(value: Any) -> np.ndarray:
    """Mask of the rows that hold nothing: masked, None or NaN."""
    array = np.ma.asarray(value)
    missing = np.ma.getmaskarray(array).copy()
    if array.dtype.kind == "f":
        missing |= np.isnan(array.data)
    elif array.dtype.kind == "O":
        missing |= np.array([entry is None or entry is np.ma.masked or entry != entry for entry in array.data], bool)
    return missing


def _in_unit(info: ColumnInfo, value: Any, unit: str) -> Any:
    """The numbers of a column that brings its own unit, in the unit of the schema."""
    from astropy import units

    try:
        factor = units.Unit(unit).to(units.Unit(info.unit))
    except (ValueError, units.UnitConversionError) as error:
        expected = info.unit or "no unit"
        raise ParameterError(f"column {info.name} of a latent table is in {expected}, found {unit}") from error
    return np.ma.asarray(value) * factor if factor != 1.0 else np.ma.asarray(value)
