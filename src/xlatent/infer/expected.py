"""Mean and variance of the W statistic at catalogue speed: from a table of `xlatent.core.statistics.expected_wstat`."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Float32

from xlatent.core.atomic import atomic
from xlatent.core.statistics import expected_wstat

FILE = Path(__file__).with_name("expected_wstat.npz")
"""Written by ``python -m xlatent.infer.expected``."""
# log10 of expected source counts, of background counts in the source spectrum, and of the background scale. At the
# lower ends the statistic is that without a background, at the upper ends it is χ²'s.
_LOW, _HIGH, _POINTS = (-4.5, -5.0, -4.0), (3.0, 3.0, 1.0), (40, 40, 16)
_FINER = 4  # steps between two points of the file, so close that the table is straight between them


def expected_statistic(
    source: Float[np.ndarray, " *shape"], background: Float[np.ndarray, " *shape"], alpha: Float[np.ndarray, " *shape"]
) -> tuple[Float[np.ndarray, " *shape"], Float[np.ndarray, " *shape"]]:
    """Interpolate mean and variance of the W statistic of each channel if the model is true, to about 1 %.

    Parameters
    ----------
    source : array
        Expected source counts.
    background : array
        Background counts expected in the source spectrum; 0 where there is no background.
    alpha : array
        Background scale; 0 where there is no background, and the statistic is C.

    Returns
    -------
    mean, variance : arrays

    Examples
    --------
    >>> mean, variance = expected_statistic(np.array([100.0]), np.array([0.0]), np.array([0.0]))
    >>> mean.round(2).tolist(), variance.round(1).tolist()
    ([1.0], [2.0])
    """
    counts = source + background
    place, shares = 0, []
    for axis, values in zip((2, 0, 1), (alpha, source, background), strict=True):
        last = (_POINTS[axis] - 1) * _FINER
        with np.errstate(divide="ignore"):
            at = (np.log10(values, dtype=np.float32) - np.float32(_LOW[axis])) * np.float32(
                last / (_HIGH[axis] - _LOW[axis])
            )
        np.clip(at, 0.0, np.float32(last - 0.001), out=at)
        whole = at.astype(np.int32)
        place = place * (last + 1) + whole
        shares.append(at - whole)
    # Below the table both vanish as the counts do.
    faint = np.minimum(counts * np.float32(10.0 ** -_LOW[0]), np.float32(1.0))
    mean, variance = (np.maximum(_between(table, place, shares), 0.0) * faint for table in _fine())
    return mean, variance


def _between(table: Float32[np.ndarray, "a b c"], place: Any, shares: list[Any]) -> Any:
    """Linear interpolation between the eight corners at and after a place in a table."""
    _, rows, columns = table.shape
    steps = (rows * columns, columns, 1)

    def along(axis: int, offset: int) -> Any:
        if axis == 3:
            return table.reshape(-1).take(place + offset, mode="clip")
        low, high = along(axis + 1, offset), along(axis + 1, offset + steps[axis])
        high -= low
        high *= shares[axis]
        high += low
        return high

    return along(0, 0)


@cache
def _fine() -> list[Float32[np.ndarray, "a b c"]]:
    """Tables of mean and variance by background scale, source and background, made finer by their splines."""
    bases = [_splines(n) for n in _POINTS]
    found = []
    for table in _read():
        for basis in bases:  # contracts the first axis and appends its finer self
            table = np.tensordot(table, basis, (0, 0))
        found.append(np.ascontiguousarray(np.moveaxis(table, 2, 0)))
    return found


def tabulate() -> tuple[Float32[np.ndarray, "a b c"], Float32[np.ndarray, "a b c"]]:
    """Compute coefficients of the cubic splines through exact means and variances."""
    from scipy.ndimage import spline_filter

    source, background, alpha = (np.logspace(low, high, n) for low, high, n in zip(_LOW, _HIGH, _POINTS, strict=True))
    off = background[:, None] / alpha
    exact = [expected_wstat(np.full_like(off, s), off, np.broadcast_to(alpha, off.shape)) for s in source]
    mean, variance = (spline_filter(np.array(part), 3, mode="nearest") for part in zip(*exact, strict=True))
    return mean.astype(np.float32), variance.astype(np.float32)


def _splines(n: int) -> Float32[np.ndarray, "n finer"]:
    """Values of ``n`` cubic B-splines at and between their centres; the outermost stand for those beyond."""
    at = np.arange((n - 1) * _FINER + 1) / _FINER
    below = np.floor(at)
    t = at - below
    shares = ((1 - t) ** 3 / 6, 2 / 3 - t**2 + t**3 / 2, 2 / 3 - (1 - t) ** 2 + (1 - t) ** 3 / 2, t**3 / 6)
    values = np.zeros((n, len(at)), dtype=np.float32)
    for step, share in zip((-1, 0, 1, 2), shares, strict=True):
        np.add.at(values, (np.clip(below.astype(int) + step, 0, n - 1), np.arange(len(at))), share)
    return values


@cache
def _read() -> tuple[np.ndarray, np.ndarray]:
    with np.load(FILE, allow_pickle=False) as found:
        return found["mean"], found["variance"]


if __name__ == "__main__":
    mean, variance = tabulate()
    with atomic(FILE) as temporary:
        np.savez_compressed(temporary, mean=mean, variance=variance)
