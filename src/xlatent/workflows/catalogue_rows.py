"""Embedding a catalogue without its spectra: which columns of a table are which fluxes or ratios, and their latents."""

import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from xlatent.core.errors import ParameterError, ReadError, XlatentWarning
from xlatent.core.outputs import TABLES, check_output

if TYPE_CHECKING:
    import numpy as np
    from astropy.table import Table

    from xlatent.core.latents import LatentTable
    from xlatent.infer.photometry import PhotometricColumn

KEYS = ("name", "obsid", "obi", "region_id", "ra", "dec")
"""Columns that are kept beside the latents."""
CSC_BANDS = ("s", "m", "h", "b")
RATIO_ERROR = 0.1
"""Error of a hardness ratio that comes without limits: about that at 100 counts, (1 - H²)^½ / N^½."""
_KEY = re.compile(r"(flux_|photflux_)?(s|m|h|b|0p5_2|2_8)(_err|_lolim|_hilim)?|(hard_)?(hm|hs|ms)(_err|_lolim|_hilim)?")


def embed_catalogue(
    table: "str | Path | Table",
    output: str | Path | None = None,
    *,
    columns: str | Mapping[str, str] | None = None,
    model: str | Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> "LatentTable":
    """Embed a catalogue: the latents that its band fluxes or hardness ratios allow, with their uncertainties.

    Parameters
    ----------
    table : str, Path or astropy.table.Table
        Catalogue, or its file: ``.ecsv``, ``.csv``, ``.fits``, ``.vot``, ``.xml`` or ``.parquet``.
    output : str or Path, optional
        Table to write, whole or not at all: ``.parquet``, ``.fits``, ``.vot`` or ``.ecsv``.
    columns : mapping or str, optional
        Column for each key, or ``KEY=COLUMN,...``, if they are not those of the Chandra Source Catalog. Keys: ``s``,
        ``m``, ``h``, ``b``, ``0.5-2``, ``2-8`` for energy fluxes (erg cm⁻² s⁻¹), ``photflux_s`` and so on for photon
        fluxes (photons cm⁻² s⁻¹), ``hm``, ``hs``, ``ms`` for hardness ratios; each with ``_err``, or ``_lolim`` and
        ``_hilim``, for its error or 68 % limits. A column that brings another unit is converted.
    model : str or Path, optional
        Name of a model or folder of a bundle; the shipped one if not given.
    progress : callable, optional
        Called with the number of rows done and of all.

    Returns
    -------
    LatentTable
        Every row, in order; one without a usable flux or ratio gets the prior and the flag ``no_data``.

    Raises
    ------
    ReadError
        If the file is missing or damaged, or a column is missing, holds no numbers or has the wrong unit.
    ParameterError
        If a key is unknown, or the model's latents are points.
    ModelError
        If there is no such model, or it is damaged.
    WriteError
        If the output cannot be written.

    Warns
    -----
    XlatentWarning
        If ratios have no limits, or values lie outside theirs.

    Examples
    --------
    >>> from astropy.table import Table
    >>> import xlatent as xl
    >>> sources = Table({"name": ["a", "b"], "Fs": [2e-14, 5e-15], "Fh": [8e-14, 2e-15]})
    >>> sources["e_Fs"], sources["e_Fh"] = 0.1 * sources["Fs"], 0.2 * sources["Fh"]
    >>> latents = xl.embed_catalogue(sources, columns={"s": "Fs", "s_err": "e_Fs", "h": "Fh", "h_err": "e_Fh"})
    >>> latents.z.shape
    (2, 8)
    """
    if output is not None:
        check_output(output, TABLES)
    from xlatent.core.bundle import DEFAULT_MODEL
    from xlatent.formats import latent_tables
    from xlatent.formats.catalogue_tables import read_columns
    from xlatent.infer.embed import load_model
    from xlatent.infer.photometry import embed_photometry

    named = None if columns is None else parse_columns(columns)
    path = table if isinstance(table, str | Path) else "the table"
    rows = read_columns(table) if isinstance(table, str | Path) else table
    measured = measurements(rows, named, path)
    keys = {key: rows[key] for key in KEYS if key in rows.colnames}
    done = 0

    def advance(finished: int) -> None:
        nonlocal done
        done += finished
        if progress is not None:
            progress(done, len(rows))

    latents = embed_photometry(load_model(DEFAULT_MODEL if model is None else model), measured, keys, progress=advance)
    if output is not None:
        latent_tables.write(latents, output)
    return latents


def parse_columns(columns: str | Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Sort columns by quantity (``flux_s``, ``hard_hm``) and part (``value``, ``err``, ``lolim``, ``hilim``).

    Parameters
    ----------
    columns : str or mapping
        As `embed_catalogue` takes them.

    Raises
    ------
    ParameterError
        If a key is unknown, an item of a text is not KEY=COLUMN, or a quantity has no value.

    Examples
    --------
    >>> parse_columns({"s": "Fs", "s_err": "e_Fs"})
    {'flux_s': {'value': 'Fs', 'err': 'e_Fs'}}
    """
    items = columns.split(",") if isinstance(columns, str) else [f"{key}={name}" for key, name in columns.items()]
    named: dict[str, dict[str, str]] = {}
    for item in items:
        key, equals, name = (part.strip() for part in item.partition("="))
        found = _KEY.fullmatch(key.replace("0.5-2", "0p5_2").replace("2-8", "2_8"))
        if not (equals and name and found):
            raise ParameterError(
                f"--columns has {item.strip()!r}, not KEY=COLUMN with keys such as s, m_err, photflux_h_lolim or hm"
            )
        prefix, band, part, _, ratio, ratio_part = found.groups()
        quantity = f"hard_{ratio}" if ratio else f"{prefix or 'flux_'}{band}"
        named.setdefault(quantity, {})[(part or ratio_part or "_value")[1:]] = name
    for quantity, parts in named.items():
        if "value" not in parts:
            raise ParameterError(f"--columns has an error or limit of {quantity} but no column for its value; name it")
    return named


def measurements(
    table: "Table", named: Mapping[str, Mapping[str, str]] | None, path: str | Path
) -> "list[PhotometricColumn]":
    """Take the measured quantities of a catalogue, by the columns named or by those of the Chandra Source Catalog.

    Parameters
    ----------
    table : astropy.table.Table
        A null value with an upper limit is an upper limit.
    named : mapping, optional
        From `parse_columns`.
    path : str or Path
        What messages call the table.

    Raises
    ------
    ReadError
        If a column is missing, is not made of numbers, has the wrong unit, or has negative errors.
    """
    import numpy as np

    from xlatent.infer.photometry import RATIOS, PhotometricColumn

    if named is None:
        named = _csc_columns(table, path)
    measured = []
    for quantity, parts in named.items():
        column = {part: _numbers(table, name, quantity, path) for part, name in parts.items()}
        value = column["value"]
        if "err" in column:
            lower = upper = column["err"]
            if (negative := np.flatnonzero(lower < 0)).size:
                raise ReadError(
                    f"{path}: column {parts['err']} should hold errors and is negative in row {negative[0] + 1}; "
                    "put null where there is none"
                )
        elif "lolim" in column and "hilim" in column:
            limit = np.isnan(value) & (column["hilim"] > 0) & (quantity not in RATIOS)
            value = np.where(limit, 0.0, value)
            lower, upper = np.where(limit, np.nan, value - column["lolim"]), column["hilim"] - value
            if (outside := int(np.sum((lower < 0) | (upper < 0)))) > 0:
                warnings.warn(
                    f"{path}: {outside} values of {parts['value']} lie outside their limits; the distance to the other "
                    "limit stands for both",
                    XlatentWarning,
                    stacklevel=3,
                )
        elif quantity in RATIOS:
            warnings.warn(
                f"{path}: {parts['value']} has no limits; its error is taken to be {RATIO_ERROR}",
                XlatentWarning,
                stacklevel=3,
            )
            lower = upper = np.full(len(table), RATIO_ERROR)
        else:
            raise ReadError(
                f"{path}: {parts['value']} has no error; name its column with {quantity}_err, or those of its 68 % "
                f"limits with {quantity}_lolim and {quantity}_hilim, in --columns"
            )
        measured.append(PhotometricColumn(quantity, value, lower, upper))
    return measured


def _csc_columns(table: "Table", path: str | Path) -> dict[str, dict[str, str]]:
    """Columns as the Chandra Source Catalog names them, of those that the table has."""
    from xlatent.infer.photometry import RATIOS

    # The CSC writes flux_aper_lolim_b, with the band last, and hard_hm_lolim.
    names = {f"{kind}_{band}": f"{kind}_aper{{}}_{band}" for kind in ("photflux", "flux") for band in CSC_BANDS}
    names |= {ratio: f"{ratio}{{}}" for ratio in RATIOS}
    found = {}
    for quantity, pattern in names.items():
        name = pattern.format("")
        if name in table.colnames:
            limits = {end: pattern.format(f"_{end}") for end in ("lolim", "hilim")}
            present = {end: limit for end, limit in limits.items() if limit in table.colnames}
            if len(present) < 2 and quantity not in RATIOS:
                missing = next(limit for end, limit in limits.items() if end not in present)
                raise ReadError(f"{path}: has {name} but no column {missing}; add it, or name the errors in --columns")
            found[quantity] = {"value": name, **present}
    if not found:
        raise ReadError(
            f"{path}: has none of the columns flux_aper_s, photflux_aper_s, hard_hm and their like, it has "
            f"{_listed(table)}; say which to take with --columns s=...,s_err=...,m=..."
        )
    return found


def _numbers(table: "Table", name: str, quantity: str, path: str | Path) -> "np.ndarray":
    """A column in the unit of its quantity, NaN where it is null."""
    import numpy as np
    from astropy import units

    if name not in table.colnames:
        raise ReadError(f"{path}: has no column {name}, it has {_listed(table)}; correct --columns")
    column = table[name]
    try:
        values = np.ma.filled(np.ma.asarray(column).astype(float), np.nan)
    except (TypeError, ValueError) as error:
        raise ReadError(f"{path}: column {name} should hold numbers for {quantity} and holds {column[0]!r}") from error
    if values.ndim != 1:
        raise ReadError(f"{path}: column {name} should hold one number a row, found shape {values.shape}")
    given = str(column.unit or "").replace("ergs", "erg").replace("photons", "photon")
    unit = units.Unit(given, parse_strict="silent")
    if given and quantity.partition("_")[0] != "hard" and not isinstance(unit, units.UnrecognizedUnit):
        expected = "photon / (cm2 s)" if quantity.startswith("photflux") else "erg / (cm2 s)"
        try:
            values = values * unit.to(units.Unit(expected))
        except units.UnitConversionError as error:
            kind = "photflux_s and the like" if "photon" in given or "ph" in given else "s, flux_s and the like"
            raise ReadError(
                f"{path}: column {name} is in {given} and {quantity} in {expected}; use the keys {kind} for it"
            ) from error
    return values


def _listed(table: "Table") -> str:
    more = len(table.colnames) - 12
    return ", ".join(table.colnames[:12]) + (f" and {more} more" if more > 0 else "")
