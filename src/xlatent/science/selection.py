"""Rows and columns of a latent table that are fit for use, and the source that each row belongs to."""

import warnings
from collections.abc import Collection, Iterable

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from xlatent.core.errors import ParameterError, XlatentWarning
from xlatent.core.latent_columns import COLUMNS
from xlatent.core.latents import LatentTable

_DECADES = 2.0
_DECODED = ("flux_", "photflux_", "hard_")


def valid_rows(table: LatentTable) -> Bool[np.ndarray, " n"]:
    """Find the rows that say something: latents with finite errors, without the flag ``no_data``.

    Examples
    --------
    >>> z = np.zeros((3, 8))
    >>> z[1, 0] = np.nan
    >>> columns = {"name": ["a", "b", "c"], "flags": ["", "", "no_data"]}
    >>> table = LatentTable.from_posterior(z, np.tile(np.eye(8), (3, 1, 1)), columns)
    >>> valid_rows(table).tolist()
    [True, False, False]
    """
    finite = np.isfinite(table.z).all(axis=1) & np.isfinite(table.z_err).all(axis=1)
    return finite & np.array(["no_data" not in str(flags).split(",") for flags in table["flags"]], bool)


def source_ids(table: LatentTable) -> Int[np.ndarray, " n"]:
    """Number the sources of a table: rows of one source share a number.

    A source is told by the column ``source`` or, where that is empty, by ``name``. A row without either is a source of
    its own.

    Examples
    --------
    >>> columns = {"name": ["a 1", "a 2", "b", ""], "source": ["a", "a", "", ""]}
    >>> table = LatentTable.from_posterior(np.zeros((4, 8)), np.tile(np.eye(8), (4, 1, 1)), columns)
    >>> source_ids(table).tolist()
    [1, 1, 2, 0]
    """
    alone = [name or f"\0{row}" for row, name in enumerate(table.source_names.tolist())]
    return np.unique(alone, return_inverse=True)[1].astype(int)


def class_labels(table: LatentTable) -> Shaped[np.ndarray, " n"]:
    """Read the column ``class`` as texts [n]; empty where it is missing, and all of it where there is none.

    Examples
    --------
    >>> kinds = np.ma.array(["AGN", "CV "], mask=[True, False])
    >>> class_labels(LatentTable({"name": ["a", "b"], "class": kinds})).tolist()
    ['', 'CV']
    """
    if "class" not in table.colnames:
        return np.full(len(table), "")
    return np.char.strip(np.ma.filled(np.ma.asarray(table["class"]).astype(str), ""))


def warn_of_decoded(columns: Iterable[str], measured: Collection[str] = ()) -> None:
    """Warn of fluxes and hardness ratios that were computed from the latents themselves.

    Parameters
    ----------
    columns : iterable of str
        Those that latents are compared with.
    measured : collection of str
        Those of them that were joined from another table.
    """
    decoded = {info.name for info in COLUMNS if info.name.startswith(_DECODED)}
    if found := [name for name in columns if name in decoded and name not in measured]:
        warnings.warn(
            f"{', '.join(found)}: computed from the same latents, which they then follow closely; give measured "
            "values with --join",
            XlatentWarning,
            stacklevel=3,
        )


def numeric_column(table: LatentTable, name: str) -> Float[np.ndarray, " n"]:
    """Read a column as numbers, NaN where it is missing or infinite.

    Raises
    ------
    ParameterError
        If there is no such column or it does not hold one number a row.

    Examples
    --------
    >>> columns = {"name": ["a", "b"], "nh": [0.3, np.inf]}
    >>> table = LatentTable.from_posterior(np.zeros((2, 8)), np.tile(np.eye(8), (2, 1, 1)), columns)
    >>> numeric_column(table, "nh").tolist()
    [0.3, nan]
    """
    if name not in table.colnames:
        raise ParameterError(f"the table has no column {name}; its last ones are {', '.join(table.colnames[-8:])}")
    try:
        values = np.ma.filled(np.ma.asarray(table[name]).astype(float), np.nan)
    except (TypeError, ValueError):
        raise ParameterError(f"column {name} should hold numbers and holds {table[name][0]!r}") from None
    if values.ndim != 1:
        raise ParameterError(f"column {name} should hold one number a row, found shape {values.shape}")
    return np.where(np.isfinite(values), values, np.nan)


def has_enough_sources(
    name: str, values: Shaped[np.ndarray, " n"], sources: Int[np.ndarray, " n"], at_least: int
) -> bool:
    """Check that a column has values of ``at_least`` sources and not one value only; warn of what it lacks.

    Examples
    --------
    >>> has_enough_sources("nh", np.array([0.1, 0.2, 0.3]), np.array([0, 1, 2]), 3)
    True
    """
    n_sources = len(np.unique(sources))
    if n_sources < at_least:
        reason = f"has values for {n_sources} sources with latents and needs {at_least}"
    elif len(np.unique(values)) < 2:
        reason = f"is {values[0]} everywhere"
    else:
        return True
    warnings.warn(f"column {name} {reason}; it is left out", XlatentWarning, stacklevel=3)
    return False


def log_if_wide(name: str, values: Float[np.ndarray, " n"]) -> tuple[str, Float[np.ndarray, " n"]]:
    """Take logarithms of a quantity that is positive and spans two decades (1st to 99th percentile).

    Returns
    -------
    name : str
        With ``log10`` before it if logarithms were taken.
    values : array [n]

    Examples
    --------
    >>> log_if_wide("flux", np.array([1e-14, 1e-13, 1e-11]))
    ('log10 flux', array([-14., -13., -11.]))
    """
    low, high = np.percentile(values, (1, 99))
    if values.min() > 0 and high > 10**_DECADES * low:
        return f"log10 {name}", np.log10(values)
    return name, values
