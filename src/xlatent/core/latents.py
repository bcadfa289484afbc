"""The table of latents: one row a spectrum, and the one place that says what its columns are."""

from collections.abc import Iterator, Mapping
from functools import cache, cached_property
from itertools import combinations
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float, Shaped

from xlatent.core.errors import ModelError, ParameterError

if TYPE_CHECKING:  # which takes as long to load as everything else that embeds a spectrum
    from astropy.table import Column, Table
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
    meaning = "W statistic (C without background) of the reconstruction, ungrouped channels of 0.5-8 keV"
    yield ColumnInfo("cstat", float, "", "stat.fit.goodness", meaning)
    yield ColumnInfo("cstat_expected", float, "", "stat.fit.goodness;stat.mean", "Mean of cstat if the model is true")
    meaning = "Standard deviation of cstat if the model is true"
    yield ColumnInfo("cstat_sigma", float, "", "stat.fit.goodness;stat.stdev", meaning)
    energies = {"b": "0.5-7", "s": "0.5-1.2", "m": "1.2-2", "h": "2-7", "0p5_2": "0.5-2", "2_8": "2-8"}
    for prefix, kind, unit in (("photflux", "Photon flux", "photon cm-2 s-1"), ("flux", "Energy flux", "erg cm-2 s-1")):
        for band, energy in energies.items():
            yield from _with_limits(f"{prefix}_{band}", unit, "phot.flux;em.X-ray", f"{kind}, {energy} keV")
    for hard, soft in ("hm", "hs", "ms"):
        meaning = f"Hardness ratio ({hard} - {soft}) / ({hard} + {soft}) of photon fluxes of the reconstruction"
        yield from _with_limits(f"hard_{hard}{soft}", "", "phot.color;em.X-ray", meaning)
    yield ColumnInfo("flags", str, "", "meta.code", "What to know before this row is used; separated by commas")


def _with_limits(name: str, unit: str, ucd: str, description: str) -> Iterator[ColumnInfo]:
    yield ColumnInfo(name, float, unit, ucd, description)
    yield ColumnInfo(f"{name}_lolim", float, unit, f"{ucd};stat.min", f"{description}: lower end of the 68 % interval")
    yield ColumnInfo(f"{name}_hilim", float, unit, f"{ucd};stat.max", f"{description}: upper end of the 68 % interval")


COLUMNS: tuple[ColumnInfo, ...] = tuple(_schema())
_UPPER = np.triu_indices(N_LATENTS, 1)

# How a type is stored, and what stands in it where a value is missing.
_STORED = {str: np.str_, int: np.int64, float: np.float64}
_EMPTY: dict[type, Any] = {str: "", int: 0, float: np.nan}


class LatentTable:
    """Latents, their uncertainties and what follows from them, one row a spectrum.

    Parameters
    ----------
    columns : mapping or astropy.table.Table
        Columns of equal length by name. Columns of `COLUMNS` that are absent are filled with missing values: NaN, an
        empty string, or a masked whole number. Others are kept behind them. A column of plain numbers takes the
        unit of the schema; one that brings a unit must agree with it.
    meta : mapping, optional
        Origin of the latents, with keys among ``model``, ``model_sha256`` and ``software``.

    Raises
    ------
    ParameterError
        If a column has the wrong type or unit, the lengths differ, or `meta` has another key.

    Examples
    --------
    >>> table = LatentTable.from_posterior(np.zeros((2, 8)), np.tile(np.eye(8), (2, 1, 1)), {"name": ["a", "b"]})
    >>> len(table), table.z.shape, table.covariance.shape
    (2, (2, 8), (2, 8, 8))
    """

    def __init__(self, columns: "Mapping[str, Any] | Table", meta: Mapping[str, str] | None = None) -> None:
        given = {name: columns[name] for name in columns.keys()}  # noqa: SIM118 (a Table iterates over its rows)
        lengths = {name: len(value) for name, value in given.items()}
        if len(set(lengths.values())) > 1:
            raise ParameterError(f"the columns of a latent table must have equal lengths, found {lengths}")
        n_rows = next(iter(lengths.values()), 0)
        if unknown := set(meta or {}) - set(META_KEYS):
            raise ParameterError(f"unknown meta {sorted(unknown)}: a latent table takes {', '.join(META_KEYS)}")
        self._known = {info.name: _values(info, given.pop(info.name, None), n_rows) for info in COLUMNS}
        self._more = given
        self.meta: dict[str, str] = {key: str(value) for key, value in (meta or {}).items()}

    @classmethod
    def from_posterior(
        cls,
        z: Float[np.ndarray, "n 8"],
        covariance: Float[np.ndarray, "n 8 8"],
        columns: Mapping[str, Any],
        meta: Mapping[str, str] | None = None,
    ) -> "LatentTable":
        """Table from posterior means and covariance matrices, and the other columns by name."""
        latent: dict[str, Any] = {f"z{i}": z[:, i] for i in range(N_LATENTS)}
        latent |= {f"z{i}_err": np.sqrt(covariance[:, i, i]) for i in range(N_LATENTS)}
        latent |= {f"z{i}_z{j}_cov": covariance[:, i, j] for i, j in combinations(range(N_LATENTS), 2)}
        return cls(latent | dict(columns), meta)

    @cached_property
    def _table(self) -> "Table":
        """All columns with their attributes, which take longer to make than what is in them."""
        from astropy.table import Table

        table = Table({info.name: _column(info, self._known[info.name]) for info in COLUMNS}, copy=False)
        for name, column in self._more.items():
            table[name] = column
        return table

    @property
    def z(self) -> Float[np.ndarray, "n 8"]:
        """Posterior means of the latents [n, 8]."""
        return self._stack([f"z{i}" for i in range(N_LATENTS)])

    @property
    def z_err(self) -> Float[np.ndarray, "n 8"]:
        """Standard deviations of the latents [n, 8]."""
        return self._stack([f"z{i}_err" for i in range(N_LATENTS)])

    @property
    def covariance(self) -> Float[np.ndarray, "n 8 8"]:
        """Covariance matrices of the latents [n, 8, 8], symmetric, with ``z_err ** 2`` on the diagonal."""
        matrix = np.zeros((len(self), N_LATENTS, N_LATENTS))
        off_diagonal = self._stack([f"z{i}_z{j}_cov" for i, j in combinations(range(N_LATENTS), 2)])
        matrix[:, _UPPER[0], _UPPER[1]] = matrix[:, _UPPER[1], _UPPER[0]] = off_diagonal
        matrix[:, range(N_LATENTS), range(N_LATENTS)] = self.z_err**2
        return matrix

    @property
    def source_names(self) -> Shaped[np.ndarray, " n"]:
        """Name of the source of each row: column ``source``, or ``name`` where that is absent or empty.

        Examples
        --------
        >>> LatentTable({"name": ["obs 1", "obs 2"], "source": ["3C 273", ""]}).source_names.tolist()
        ['3C 273', 'obs 2']
        """
        names = np.char.strip(self._known["name"])
        if "source" not in self.colnames:
            return names
        sources = np.char.strip(np.ma.filled(np.ma.asarray(self["source"]).astype(str), ""))
        return np.where(sources == "", names, sources)

    @property
    def colnames(self) -> list[str]:
        """Names of all columns, in order."""
        return [*self._known, *self._more]

    def values(self, name: str) -> np.ndarray:
        """Values of a column of `COLUMNS` [n], without its attributes."""
        return self._known[name]

    def to_astropy(self) -> "Table":
        """Copy as an astropy Table, with units, descriptions, UCDs (``column.meta["ucd"]``) and ``meta``."""
        table = self._table.copy()
        table.meta.update(self.meta)
        return table

    def __len__(self) -> int:
        return len(self._known["name"])

    def __getitem__(self, key: Any) -> Any:
        """A column by its name; or, by a slice, a mask or a list of row numbers, a table of those rows."""
        if isinstance(key, str):
            if key not in self.colnames:
                raise KeyError(f"no column {key!r} in this latent table; its columns are {', '.join(self.colnames)}")
            return self._table[key]
        if isinstance(key, int | np.integer):
            raise TypeError("rows are selected by a slice, a mask or a list of row numbers, columns by name")
        return LatentTable(self._table[key], self.meta)

    def __repr__(self) -> str:
        model = self.meta.get("model", "unknown model")
        head = f"LatentTable: {len(self)} spectra, 8 latents, {len(self.colnames)} columns; {model}"
        if len(self) == 0:
            return head
        shown = self._table[["name", "counts", "log_flux_b", *(f"z{i}" for i in range(N_LATENTS))]]
        for name in shown.colnames[1:]:
            shown[name].format = ".0f" if name == "counts" else ".2f"
        return "\n".join([head, *shown.pformat(max_lines=14, max_width=-1, show_unit=False)])

    def _stack(self, names: list[str]) -> Float[np.ndarray, "n m"]:
        return np.stack([self._known[name] for name in names], axis=1)


def check_same_model(
    given: Mapping[str, LatentTable | Mapping[str, str] | str],
    remedy: str = "embed both with one model",
    *,
    unknown_passes: bool = False,
) -> str:
    """Make sure that latents are of one model, so that their numbers mean the same.

    Parameters
    ----------
    given : mapping
        By a name for the message, such as a file's: a table, the ``meta`` of one, or the sha256 of a model itself.
    remedy : str
        What to do where they differ, for the end of the message.
    unknown_passes : bool
        Whether what does not say its model agrees with any; otherwise only with others that do not say it.

    Returns
    -------
    str
        sha256 of the model; empty if none says it.

    Raises
    ------
    ModelError
        If two of them are of different models.

    Examples
    --------
    >>> old, new = LatentTable({}, {"model_sha256": "ab" * 32}), LatentTable({}, {"model_sha256": "cd" * 32})
    >>> check_same_model({"a.fits": old, "b.fits": old})[:6]
    'ababab'
    >>> check_same_model({"old": old, "new": new}, "embed again")
    Traceback (most recent call last):
        ...
    xlatent.core.errors.ModelError: old is of model abababababab, and new of cdcdcdcdcdcd: embed again
    """
    found = {name: _model_of(one) for name, one in given.items()}
    if unknown_passes:
        found = {name: sha256 for name, sha256 in found.items() if sha256}
    if not found:
        return ""
    (first, model), *others = found.items()
    for name, other in others:
        if other != model:
            shown = (sha256[:MODEL_ID_LENGTH] or "unknown" for sha256 in (model, other))
            raise ModelError(f"{first} is of model {next(shown)}, and {name} of {next(shown)}: {remedy}")
    return model


def _model_of(given: LatentTable | Mapping[str, str] | str) -> str:
    """Tell the sha256 of a model from whatever says it."""
    if isinstance(given, str):
        return given
    return (given.meta if isinstance(given, LatentTable) else given).get("model_sha256", "")


def _values(info: ColumnInfo, value: Any, n_rows: int) -> np.ndarray:
    """Values of a column of the schema from whatever was given for it; whole numbers that are missing are masked."""
    if value is None:
        value = [None] * n_rows
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


def _column(info: ColumnInfo, values: np.ndarray) -> "Column":
    from astropy.table import Column, MaskedColumn

    attributes = {"unit": _unit(info.unit), "description": info.description, "meta": {"ucd": info.ucd}}
    return (MaskedColumn if info.dtype is int else Column)(values, copy=False, **attributes)


@cache
def _unit(text: str) -> "UnitBase | None":
    """A unit of the schema; to parse them takes longer than all else that makes a small table."""
    from astropy.units import Unit

    return Unit(text) if text else None


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
