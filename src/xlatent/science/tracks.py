"""Sources observed several times: whether z moves, how far, how significantly and in which physical direction."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from astropy.table import Table
from jaxtyping import Float, Shaped

from xlatent.core.absorption import cross_section
from xlatent.core.bands import FIT_BAND
from xlatent.core.errors import ParameterError
from xlatent.core.latents import LatentTable
from xlatent.science.measurement import GaussianLikelihood, remove_prior

Decode = Callable[[Float[np.ndarray, "n 8"]], Float[np.ndarray, "n n_energy"]]
"""Photons per bin at z, up to a factor, as ``LatentModel.decode`` gives them."""

_STEP = 0.05  # of z, for slopes of the decoder
_PRIOR_WIDTH = 2.0  # of z in latents that a source does not measure, where the prior has 1
_MAX_SPREAD = 3.0  # most that z adds to the variance of what is tested, where noise adds 1
# Posteriors are Gaussian only nearly, and far out there is more than χ² allows. χ² / dof is taken for Fisher's F, with
# this many degrees of freedom of the errors' size. The number is calibrated, not derived: of 399 simulated constant
# sources, two spectra each of 10 to 30,000 counts through different states of ACIS, 9.3 is the most likely and 8 to 11
# are within one standard deviation. At 8, 4.5, 1.0 and 0.3 % have p below 0.05, 0.01 and 0.001 and none survives
# correction (χ²: 10, 5 and 3 %, and 12 of them do).
_ERROR_DOF = 8
_RIDGE = 0.03  # of ln(photons) per unit of z: a direction takes no large step in z for a small gain in likeness


class PhysicalChange(NamedTuple):
    """Say what adds to ln(photons) at an energy in keV per unit of a change, and how the change is called."""

    log_photons: Callable[[np.ndarray], np.ndarray]
    unit: str
    increase: str
    decrease: str


DIRECTIONS: dict[str, PhysicalChange] = {
    "slope": PhysicalChange(np.log, "decrease of photon index", "hardening", "softening"),
    "column": PhysicalChange(
        lambda energy: -cross_section(energy), "1e22 cm-2 of column density", "absorbing", "uncovering"
    ),
    "temperature": PhysicalChange(lambda energy: -energy, "keV-1 of inverse temperature", "cooling", "heating"),
}

_COLUMNS = ("source", "n", "chi2", "dof", "p", "first", "last", "shift", "shift_err")
_DIRECTION_COLUMNS = ("direction", "amount", "amount_err", "unit", "explained")


def find_tracks(
    table: LatentTable,
    sources: Shaped[np.ndarray, " n"] | None = None,
    time: Float[np.ndarray, " n"] | None = None,
    decode: Decode | None = None,
    energy: Float[np.ndarray, " n_energy"] | None = None,
) -> Table:
    """Test whether the spectrum of each source with several rows changes.

    A constant source has one z behind all its measurements (prior taken out, see `xlatent.science.measurement`); the χ²
    of their differences says how well that holds.

    Parameters
    ----------
    table : LatentTable
    sources : array [n], optional
        Source of each row; ``source``, or else ``name``, if not given.
    time : array [n], optional
        When each row was observed, in any unit; the order of rows, if not given.
    decode : callable, optional
        Decoder, z [n, 8] -> photons per bin [n, n_energy]; with it, physical directions are named.
    energy : array [n_energy], optional
        Centres of its bins in keV.

    Returns
    -------
    Table
        One row a source with at least two rows that measure z, most significant first: ``source``, ``n``
        observations; ``chi2`` and ``dof`` of constancy; ``p`` by Fisher's F, whose degrees of freedom are calibrated on
        simulated constant sources; ``q``, corrected for the number of sources (Benjamini & Hochberg 1995, JRSSB 57,
        289); ``first`` and ``last``, rows of the two observations that differ most, in order of time, and ``shift``,
        ``shift_err``, the distance of their posterior means. With a decoder:
        ``direction``, the word of `DIRECTIONS` for what explains most of χ² with one number per observation;
        ``amount``, ``amount_err`` and ``unit``, by how much from first to last; ``explained``, the share of χ².

    Raises
    ------
    ParameterError
        If no source has two rows, or energies of the decoder are missing.

    Examples
    --------
    A source that moves by twenty standard deviations, and one that does not:

    >>> z = np.zeros((4, 8))
    >>> z[1, 0] = 2.0
    >>> covariance = np.tile(np.diag([0.005] + [1.0] * 7), (4, 1, 1))
    >>> found = find_tracks(LatentTable.from_posterior(z, covariance, {"name": ["a", "a", "b", "b"]}))
    >>> found["source"].tolist(), found["dof"].tolist(), bool(found["p"][0] < 1e-4 < found["p"][1])
    (['a', 'b'], [1, 1], True)
    """
    from scipy.stats import f, false_discovery_control

    if decode is not None and energy is None:
        raise ParameterError("directions need the energies of the decoder's bins; give energy with decode")
    data, z, covariance = remove_prior(table.z, table.covariance), table.z, table.covariance
    sources = table.source_names if sources is None else np.asarray(sources)
    order = np.arange(len(table)) if time is None else np.argsort(time, kind="stable")
    order = order[data.constrained[order].any(axis=1)]
    found: list[tuple] = []
    for rows in _group_rows(sources, order):
        chi2, dof, mean = _test_constancy(data[rows])
        if dof == 0:  # nothing was measured twice
            continue
        first, last = _most_different_pair(z[rows], covariance[rows])
        move = z[rows[last]] - z[rows[first]]
        length = float(np.linalg.norm(move))
        along = move / length if length else np.zeros_like(move)
        error = float(np.sqrt(along @ (covariance[rows[first]] + covariance[rows[last]]) @ along))
        p = float(f.sf(chi2 / dof, dof, _ERROR_DOF))
        row: tuple = (sources[rows[0]], len(rows), chi2, dof, p, rows[first], rows[last], length, error)
        if decode is not None and energy is not None:
            row += _best_direction(data[rows], physical_directions(decode, energy, mean), chi2, first, last)
        found.append(row)
    if not found:
        raise ParameterError("no source has two rows that measure z; name the column that says which rows belong to it")
    names = _COLUMNS if decode is None else _COLUMNS + _DIRECTION_COLUMNS
    result = Table(rows=found, names=names)
    result.add_column(false_discovery_control(result["p"]), name="q", index=names.index("p") + 1)
    result.sort(["p", "source"])
    return result


def physical_directions(
    decode: Decode, energy: Float[np.ndarray, " n_energy"], z: Float[np.ndarray, " 8"]
) -> dict[str, Float[np.ndarray, " 8"]]:
    """Find the directions in z that change the spectrum at ``z`` as `DIRECTIONS` say, per unit of change.

    Least squares over 0.5-8 keV, weighted by photons, of the decoder's slopes to the change of ln(photons), whose
    constant is free.

    Examples
    --------
    A decoder of power laws whose first latent is the photon index:

    >>> energy = np.geomspace(0.5, 8.0, 20)
    >>> slope = physical_directions(lambda z: energy ** -z[:, :1], energy, np.zeros(8))["slope"]
    >>> slope.round(1).tolist()
    [-1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    """
    inside = (energy >= FIT_BAND[0]) & (energy <= FIT_BAND[1])
    steps = _STEP * np.eye(len(z))
    slopes = np.log(decode(z + steps) / decode(z - steps))[:, inside].T / (2.0 * _STEP)
    weight = decode(z[None])[0, inside]
    weight = weight / weight.sum()
    root = np.sqrt(weight)[:, None]
    design = np.vstack([root * (slopes - weight @ slopes), _RIDGE * np.eye(len(z))])
    found = {}
    for name, change in DIRECTIONS.items():
        wanted = change.log_photons(energy[inside])
        target = np.append(root[:, 0] * (wanted - weight @ wanted), np.zeros(len(z)))
        found[name] = np.linalg.lstsq(design, target, rcond=None)[0]
    return found


def _group_rows(sources: np.ndarray, order: np.ndarray) -> list[np.ndarray]:
    """Rows of each source with at least two, in the order given."""
    _, number = np.unique(sources[order], return_inverse=True)
    together = order[np.argsort(number, kind="stable")]
    return [rows for rows in np.split(together, np.cumsum(np.bincount(number))[:-1]) if len(rows) > 1]


def _test_constancy(data: GaussianLikelihood) -> tuple[float, int, np.ndarray]:
    """χ² and degrees of freedom of one z behind all measurements, and that z.

    Combinations of the measurements that are independent under one z ~ N(0, w²), w = `_PRIOR_WIDTH`, have variances
    1 + w² σ², by the singular values σ of the slopes. Those that z itself spreads by more than noise say where it is,
    the others whether it is one.
    """
    slopes, values = data.slopes[data.constrained], data.values[data.constrained]
    left, size, right = np.linalg.svd(slopes)
    spread = np.zeros(len(values))
    spread[: len(size)] = (_PRIOR_WIDTH * size) ** 2
    turned = left.T @ values
    test = spread < _MAX_SPREAD
    shrunk = turned[: len(size)] * size * _PRIOR_WIDTH**2 / (1.0 + spread[: len(size)])
    return float(np.sum(turned[test] ** 2 / (1.0 + spread[test]))), int(test.sum()), right[: len(size)].T @ shrunk


def _most_different_pair(z: np.ndarray, covariance: np.ndarray) -> tuple[int, int]:
    """The two observations of a source that differ most for their errors."""
    first, last = np.triu_indices(len(z), 1)
    move = z[last] - z[first]
    scaled = np.linalg.solve(covariance[first] + covariance[last], move[..., None])[..., 0]
    best = int(np.argmax(np.einsum("ni,ni->n", move, scaled)))
    return int(first[best]), int(last[best])


def _best_direction(
    data: GaussianLikelihood, candidates: dict[str, np.ndarray], chi2: float, first: int, last: int
) -> tuple[str, float, float, str, float]:
    """Word, amount, its error, unit and share of χ² of the direction that explains most."""
    n, m, d = data.slopes.shape
    best = ("", np.nan, np.nan, "", -np.inf)
    for name, direction in candidates.items():
        design = np.zeros((n, m, d + n))
        design[..., :d] = data.slopes
        design[range(n), :, range(d, d + n)] = data.slopes @ direction
        design = np.delete(design, d + first, axis=-1)[data.constrained]  # amounts count from the first
        values = data.values[data.constrained]
        solved = np.linalg.lstsq(design, values, rcond=1e-6)[0]
        explained = 1.0 - float(np.sum((values - design @ solved) ** 2)) / chi2 if chi2 > 0 else 0.0
        if explained > best[-1]:
            column = d + last - (last > first)
            error = float(np.sqrt(np.linalg.pinv(design.T @ design, rcond=1e-10)[column, column]))
            change, amount = DIRECTIONS[name], float(solved[column])
            word = change.increase if amount > 0 else change.decrease
            best = (word, abs(amount), error, change.unit, explained)
    return best
