"""Classes of sources from other catalogues: VizieR, SIMBAD or a user's own table."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from astropy import units
from astropy.table import Table
from jaxtyping import Bool, Float

from xlatent.core.errors import ParameterError, ReadError, XlatentWarning
from xlatent.core.taxonomy import CLASSES
from xlatent.formats.catalogue_tables import read_columns

YANG = "J/ApJ/941/104"
VIZIER, SIMBAD = "vizier.cds.unistra.fr", "simbad.cds.unistra.fr"

SIMBAD_CLASSES = {
    **dict.fromkeys(("AGN", "SyG", "Sy1", "Sy2", "rG", "LIN", "QSO", "Bla", "BLL"), "AGN"),
    **dict.fromkeys(("Y*O", "Or*", "TT*", "Ae*"), "YSO"),
    **dict.fromkeys(("LM*", "BY*", "RS*"), "LM-STAR"),
    **dict.fromkeys(("Ma*", "WR*", "s*b", "bC*", "Be*"), "HM-STAR"),
    **dict.fromkeys(("N*", "Psr"), "NS"),
    **dict.fromkeys(("CV*", "No*"), "CV"),
    "LXB": "LMXB",
    "HXB": "HMXB",
}
"""Class of each SIMBAD object type that stands for one of the eight.

The types are those of https://simbad.cds.unistra.fr/guide/otypes.htx (2022 hierarchy): all below active galactic
nucleus and young stellar object that are sources themselves (no outflows), low-mass stars with the active binaries
BY Dra and RS CVn, massive stars without the cool supergiants (high-mass stars of Yang et al. are Wolf-Rayet, O and B
stars), neutron stars and pulsars, novae among the cataclysmic variables. Candidates (codes with a question mark) and
types that leave the class open (X-ray binary ``XB*``, variable, emission-line or high proper motion star) have none.
"""

NEIGHBOURHOOD = 5.0 * units.arcmin
"""In which the density of a catalogue's entries is measured."""
# From one sigma to the radius that holds 95 per cent of a normal distribution in two dimensions.
_TO_95 = np.sqrt(-2.0 * np.log(0.05))
_SIMBAD_CHUNK = 500  # positions a query

# Names under which catalogues give what a match needs, lower case, and phrases of descriptions that give it away.
_NAMES = {
    "ra": (("ra", "_raj2000", "raj2000", "ra_icrs", "radeg"), ()),
    "dec": (("dec", "_dej2000", "dej2000", "de_icrs", "decdeg", "dedeg"), ()),
    "class": (("class",), ()),
    "true class": (("true_class", "trueclass", "tclass"), ("true class",)),
    "pos_err": (
        ("pos_err", "poserr", "pu", "cscv2_pu", "err_ellipse_r0"),
        ("err_ellipse_r0", "95% confidence level pos"),
    ),
}


def from_file(path: str | Path) -> Table:
    r"""Read labels from a user's own table.

    Parameters
    ----------
    path : str or Path
        A table as in `formats.catalogue_tables.read_columns` with columns ``ra`` and ``dec`` (ICRS, degrees) and
        ``class``, one of `CLASSES`; ``pos_err`` (arcsec, 95 %) if positions are uncertain. Upper and lower case are
        the same.

    Returns
    -------
    Table with ``ra, dec`` (deg), ``pos_err`` (arcsec, 0 where unknown) and ``class``.

    Raises
    ------
    ReadError
        If the file cannot be read or lacks a column.

    Warns
    -----
    XlatentWarning
        If rows are left out because their class is none of `CLASSES` or their position is missing.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "mine.csv"
    >>> _ = path.write_text("RA,Dec,class\n83.63,22.01,ns\n")
    >>> from_file(path)["class"][0]
    np.str_('NS')
    """
    return _standardise(read_columns(path), str(path), "class")


def from_vizier(server: str = VIZIER) -> Table:
    """Fetch the training set of Yang et al. 2022 (ApJ 941, 104; catalogue J/ApJ/941/104) from VizieR.

    Of the catalogue's tables the one is taken that states the true class of its sources; the others only predict one.

    Parameters
    ----------
    server : str
        Host (and port) of VizieR or a mirror.

    Returns
    -------
    Table
        As of `from_file`.

    Raises
    ------
    ReadError
        If the server cannot be reached or has no such table.
    """
    with _translate_errors(server):
        from astroquery import cache_conf
        from astroquery.vizier import VizierClass

        vizier = VizierClass(columns=["**", "_RAJ2000", "_DEJ2000"], row_limit=1, vizier_server=server)
        with cache_conf.set_temp("cache_active", False):
            heads = vizier.get_catalogs(YANG) or {}  # None where the answer is no VOTable
            names = [name for name in heads.keys() if _find(heads[name], "true class")]  # noqa: SIM118 (no dict)
            if names:
                vizier.ROW_LIMIT = -1
                tables = vizier.get_catalogs(names[0])
    if not names:
        found = ", ".join(heads.keys()) or "no tables"
        raise ReadError(
            f"{server}: expected a table of {YANG} with the true class of each source, found {found}; "
            "give the training set as a file with --labels"
        )
    return _standardise(tables[0], f"{YANG} from {server}", "true class")


def positions_of(selection: Table) -> Float[np.ndarray, "n 2"]:
    """List the positions of a selection's sources (right ascension, declination, deg), each once."""
    places = np.stack([as_numbers(selection["ra"]), as_numbers(selection["dec"])], axis=1)
    return np.unique(places[np.isfinite(places).all(axis=1)], axis=0)


def from_simbad(
    positions: Float[np.ndarray, "n 2"],
    server: str = SIMBAD,
    progress: Callable[[int, int], None] | None = None,
) -> Table:
    """Fetch the objects of SIMBAD around some positions whose type stands for a class.

    Parameters
    ----------
    positions : array [n, 2]
        As of `positions_of`. All objects within 5 arcmin are fetched, for their density is needed too.
    server : str
        Host (and port) of SIMBAD or a mirror.
    progress : callable, optional
        Called with the number of positions done so far, and of all.

    Returns
    -------
    Table
        As of `from_file`; classes by `SIMBAD_CLASSES`, position errors from ``coo_err_maj`` (one sigma, mas).

    Raises
    ------
    ReadError
        If the server cannot be reached or does not answer with a table.
    """
    types = ", ".join(f"'{otype}'" for otype in SIMBAD_CLASSES)
    query = (
        "SELECT DISTINCT b.main_id, b.ra, b.dec, b.coo_err_maj, b.otype FROM basic AS b "
        "JOIN TAP_UPLOAD.positions AS p ON 1 = CONTAINS(POINT('ICRS', b.ra, b.dec), "
        f"CIRCLE('ICRS', p.ra, p.dec, {NEIGHBOURHOOD.to_value('deg'):.6f})) WHERE b.otype IN ({types})"
    )
    names = ("ra", "dec", "pos_err", "class")
    objects: dict[str, tuple] = {}  # by name, for circles overlap
    with _translate_errors(server):
        from pyvo.dal import DALOverflowWarning, TAPService

        service = TAPService(f"https://{server}/simbad/sim-tap")
        for begin in range(0, len(positions), _SIMBAD_CHUNK):
            chunk = positions[begin : begin + _SIMBAD_CHUNK]
            with warnings.catch_warnings():
                warnings.simplefilter("error", DALOverflowWarning)  # a list cut short is no answer
                found = service.run_sync(
                    query, maxrec=1_000_000, uploads={"positions": Table(chunk, names=("ra", "dec"))}
                ).to_table()
            kinds = [SIMBAD_CLASSES.get(otype, "") for otype in as_texts(found["otype"])]
            errors = 1e-3 * _TO_95 * as_numbers(found["coo_err_maj"])
            rows = zip(as_numbers(found["ra"]), as_numbers(found["dec"]), errors, kinds, strict=True)
            objects.update(zip(as_texts(found["main_id"]), rows, strict=True))
            if progress is not None:
                progress(begin + len(chunk), len(positions))
    table = Table(rows=list(objects.values()) or None, names=names, dtype=(float, float, float, str))
    return _standardise(table, server, "class")


def _standardise(table: Table, where: str, class_column: str) -> Table:
    """Columns that a match needs, under their own names; rows of no use are left out."""
    found = {}
    for what in ("ra", "dec", class_column, "pos_err"):
        name = _find(table, what)
        if name is None and what != "pos_err":
            columns = ", ".join(table.colnames[:8]) or "no columns"
            raise ReadError(f"{where}: should have a column {what}, and its columns are {columns}; add or rename it")
        found[what] = name
    error = as_numbers(table[found["pos_err"]], "arcsec") if found["pos_err"] else np.zeros(len(table))
    try:
        ra, dec = (as_numbers(table[found[what]], "deg") for what in ("ra", "dec"))
    except ValueError:
        raise ReadError(
            f"{where}: columns ra and dec should be decimal degrees, and they are text; convert them"
        ) from None
    kinds = np.char.upper(np.array(as_texts(table[found[class_column]]), dtype=str))
    kept: Bool[np.ndarray, " n"] = np.isin(kinds, CLASSES) & np.isfinite(ra) & (np.abs(dec) <= 90.0)
    if not kept.all():
        others = ", ".join(sorted(set(kinds[~np.isin(kinds, CLASSES)].tolist()))[:5])
        warnings.warn(
            f"{where}: {np.sum(~kept)} of {len(kept)} rows have no position or a class that is none of "
            f"{', '.join(CLASSES)}{f' ({others})' if others else ''}, and were left out",
            XlatentWarning,
            stacklevel=3,
        )
    error = np.where(error > 0, error, 0.0)
    return Table({"ra": ra[kept], "dec": dec[kept], "pos_err": error[kept], "class": kinds[kept]})


def _find(table: Table, what: str) -> str | None:
    """Name of the column that holds something, by its name or else its description."""
    names, phrases = _NAMES[what]
    lower = {name.lower(): name for name in reversed(table.colnames)}
    by_name = [lower[name] for name in names if name in lower]
    by_description = [
        name
        for name in table.colnames
        if any(phrase in str(table[name].info.description or "").lower() for phrase in phrases)
    ]
    return next(iter(by_name + by_description), None)


def as_numbers(column: Any, unit: str | None = None) -> Float[np.ndarray, " n"]:
    """Take the values of a column as float64, NaN where missing, converted where it states a unit."""
    values = np.ma.filled(np.ma.asarray(getattr(column, "value", column)).astype(np.float64), np.nan)
    given = getattr(column, "unit", None)
    return values if unit is None or given is None else (values * given).to_value(unit)


def as_texts(column: Any) -> list[str]:
    """Take the values of a column as text without spaces around it, empty where missing."""
    values = np.ma.asarray(column)
    return [
        "" if gone else (value.decode() if isinstance(value, bytes) else str(value)).strip()
        for value, gone in zip(values.data, np.ma.getmaskarray(values), strict=True)
    ]


@contextmanager
def _translate_errors(server: str) -> Iterator[None]:
    """Tell in one sentence what goes wrong while a server is asked."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise ParameterError(
            f"{error.name} is not installed, and labels from a server need it: pip install 'xlatent[csc]'"
        ) from error
    except Exception as error:  # of requests, pyvo and astroquery, which share none
        cause = getattr(error, "cause", None) or error  # pyvo keeps there what requests said
        if isinstance(cause, OSError) and getattr(cause, "response", None) is None:
            reason = "cannot be reached"
        else:
            damaged = type(error).__name__ == "TableParseError"  # astroquery says no more than where it put the pieces
            first_line = (str(error).splitlines() or [type(error).__name__])[0]
            reason = f"gave no labels ({'its answer is damaged' if damaged else first_line[:200]})"
        raise ReadError(f"{server} {reason}; check the connection, or give a file with --labels") from error
