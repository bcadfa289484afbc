"""Mean and variance of the W statistic at catalogue speed: from a table of `xlatent.statistics.expected_wstat`."""

from functools import cache
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32
from scipy.ndimage import map_coordinates, spline_filter

from xlatent.statistics import expected_wstat

FILE = Path(__file__).with_name("expected_wstat.npz")
"""Written by ``python -m xlatent.infer.expected``."""
# log10 of expected source counts, of background counts in the source spectrum, and of the background scale. At the
# lower ends the statistic is that without a background, at the upper ends it is χ²'s.
_LOW, _HIGH, _POINTS = np.array([-4.5, -5.0, -4.0]), np.array([3.0, 3.0, 1.0]), (40, 40, 16)


def expected_statistic(
    source: Float[np.ndarray, "*shape"], background: Float[np.ndarray, "*shape"], alpha: Float[np.ndarray, "*shape"]
) -> tuple[Float[np.ndarray, "*shape"], Float[np.ndarray, "*shape"]]:
    """Mean and variance of the W statistic of each channel if the model is true, to about 1 %.

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
    """
    with np.errstate(divide="ignore"):
        place = [np.log10(values) for values in (source, background, alpha)]
    scaled = [
        (np.clip(values, low, high) - low) / (high - low) * (n - 1)
        for values, low, high, n in zip(place, _LOW, _HIGH, _POINTS, strict=True)
    ]
    mean, variance = (map_coordinates(table, scaled, order=3, mode="nearest", prefilter=False) for table in _read())
    # Below the table both vanish as the counts do.
    faint = np.minimum((source + background) / (10.0 ** _LOW[0]), 1.0)
    return np.maximum(mean, 0.0) * faint, np.maximum(variance, 0.0) * faint


def tabulate() -> tuple[Float32[np.ndarray, "a b c"], Float32[np.ndarray, "a b c"]]:
    """Coefficients of the cubic splines through exact means and variances."""
    source, background, alpha = (np.logspace(low, high, n) for low, high, n in zip(_LOW, _HIGH, _POINTS, strict=True))
    off = background[:, None] / alpha
    exact = [expected_wstat(np.full_like(off, s), off, np.broadcast_to(alpha, off.shape)) for s in source]
    mean, variance = (spline_filter(np.array(part), 3, mode="nearest") for part in zip(*exact, strict=True))
    return mean.astype(np.float32), variance.astype(np.float32)


@cache
def _read() -> tuple[np.ndarray, np.ndarray]:
    with np.load(FILE, allow_pickle=False) as found:
        return found["mean"], found["variance"]


if __name__ == "__main__":
    mean, variance = tabulate()
    np.savez_compressed(FILE, mean=mean, variance=variance)
