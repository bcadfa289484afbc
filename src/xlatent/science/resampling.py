"""What is split and resampled is sources, never rows: folds, errors, and the rows and columns fit for use."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from xlatent.core.errors import ParameterError, XlatentError, XlatentWarning
from xlatent.core.latents import LatentTable

N_FOLDS = 5
_LOW, _HIGH = 15.865, 84.135  # per cent: one standard deviation of a normal distribution


@contextmanager
def sklearn_needed() -> Iterator[None]:
    """Turn a failed import of scikit-learn into one sentence."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "sklearn":
            raise
        raise XlatentError('scikit-learn is not installed, and this needs it: pip install "xlatent[science]"') from None


def usable(table: LatentTable) -> Bool[np.ndarray, " n"]:
    """Rows that say something: latents with finite errors, without the flag ``no_data``."""
    finite = np.isfinite(table.z).all(axis=1) & np.isfinite(table.z_err).all(axis=1)
    return finite & np.array(["no_data" not in str(flags).split(",") for flags in table["flags"]], bool)


def source_of(table: LatentTable) -> Int[np.ndarray, " n"]:
    """Number of the source of each row, by the column ``source``, or else ``name``; a row without one is alone."""
    alone = [name or f"\0{row}" for row, name in enumerate(table.source_names.tolist())]
    return np.unique(alone, return_inverse=True)[1].astype(int)


def folds(
    sources: Int[np.ndarray, " n"], classes: Shaped[np.ndarray, " n"] | None = None, seed: int = 0
) -> Int[np.ndarray, " n"]:
    """Fold (0 to 4) of each row, the same for all rows of a source; the classes, if given, are spread evenly."""
    _, first, place = np.unique(sources, return_index=True, return_inverse=True)
    random = np.random.default_rng(seed).random(len(first))
    order = np.lexsort((random,) if classes is None else (random, classes[first]))
    fold = np.empty(len(first), int)
    fold[order] = np.arange(len(first)) % N_FOLDS
    return fold[place]


def source_weights(sources: Int[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Weight of each row such that every source counts once."""
    return 1.0 / np.bincount(sources)[sources]


def bootstrap(
    statistic: Callable[[np.ndarray], float], sources: Int[np.ndarray, " n"], seed: int = 0, n_draws: int = 500
) -> tuple[float, float]:
    """68 % interval of a statistic of weighted rows, sources drawn with replacement.

    Parameters
    ----------
    statistic : callable
        Takes the weights of the rows [n]: a multiple of that of `source_weights`.
    """
    rng = np.random.default_rng(seed)
    _, place = np.unique(sources, return_inverse=True)
    n_sources, weights = place.max() + 1, source_weights(place)
    draws = [
        statistic(weights * np.bincount(rng.integers(n_sources, size=n_sources), minlength=n_sources)[place])
        for _ in range(n_draws)
    ]
    low, high = np.nanpercentile(draws, [_LOW, _HIGH])
    return float(low), float(high)


def half_sampling(
    statistic: Callable[[np.ndarray], float], sources: Int[np.ndarray, " n"], seed: int = 0, n_draws: int = 50
) -> float:
    """Standard deviation of a statistic that repeated rows would spoil, such as one of neighbours or pairs.

    The scatter over random halves of the sources, drawn without replacement, is that of the whole over new samples:
    the variance of a half is twice that of the whole, of which the choice of the half makes one part (delete-d
    jackknife, Shao & Wu 1989, Annals of Statistics 17, 1176).

    Parameters
    ----------
    statistic : callable
        Takes row numbers.
    """
    rng = np.random.default_rng(seed)
    unique = np.unique(sources)
    halves = (rng.permutation(unique)[: len(unique) // 2] for _ in range(n_draws))
    return float(np.std([statistic(np.flatnonzero(np.isin(sources, half))) for half in halves], ddof=1))


def thin(rows: Int[np.ndarray, " n"], limit: int, seed: int = 0) -> Int[np.ndarray, " m"]:
    """At most ``limit`` of the rows, at random, in order."""
    if len(rows) <= limit:
        return rows
    return np.sort(np.random.default_rng(seed).choice(rows, limit, replace=False))


def numbers(table: LatentTable, name: str) -> Float[np.ndarray, " n"]:
    """A column as numbers, NaN where it is missing or infinite.

    Raises
    ------
    ParameterError
        If there is no such column or it does not hold one number a row.
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


def enough(name: str, values: Shaped[np.ndarray, " n"], sources: Int[np.ndarray, " n"], least: int) -> bool:
    """Whether a column has ``least`` sources and more than one value; a warning says what it lacks."""
    n_sources = len(np.unique(sources))
    if n_sources < least:
        reason = f"has values for {n_sources} sources with latents and needs {least}"
    elif len(np.unique(values)) < 2:
        reason = f"is {values[0]} everywhere"
    else:
        return True
    warnings.warn(f"column {name} {reason}; it is left out", XlatentWarning, stacklevel=3)
    return False
