"""The posterior of z for catalogue rows, from band fluxes or hardness ratios, by importance sampling."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from xlatent.core.bands import BANDS
from xlatent.core.errors import ParameterError
from xlatent.core.latents import LatentTable
from xlatent.core.version import SOFTWARE
from xlatent.infer.embed import LatentModel
from xlatent.infer.importance import normalised_weights, systematic_indices
from xlatent.infer.photometry_sampler import (
    FLUXES,
    LEAST_ESS,
    LEAST_POWER,
    PLACE,
    RATIOS,
    SIGNIFICANT,
    Row,
    WeightedPoints,
)
from xlatent.infer.quantities import quantiles

# No flux is taken to be better known than this share of it: X-ray observatories agree on the fluxes of one source to
# about 5 per cent (Nevalainen et al. 2010, A&A 523, A22; Madsen et al. 2017, AJ 153, 2), bands of one less badly.
FLUX_FLOOR = 0.03
_RATIO_FLOOR = FLUX_FLOOR / 2**0.5  # of the ratio of two equal fluxes with that error
# Three ratios of three fluxes are two numbers: each weighs two thirds.
_RATIO_STRETCH = 1.5**0.5

POOR_FIT = 9.0
"""χ² per measurement above which no point is near the data."""

_SOFT = 50.0  # effective draws to which the weights of a flagged row are spread
_N_DRAWS = 400
_CHUNK = 256  # rows at a time


@dataclass(frozen=True, eq=False)
class PhotometricColumn:
    """One quantity as measured for every row of a catalogue.

    Attributes
    ----------
    name : str
        One of `FLUXES` or `RATIOS`: ``photflux_s``, ``flux_0p5_2``, ``hard_hm`` and so on.
    value : array [n]
        Photons cm⁻² s⁻¹, erg cm⁻² s⁻¹ or a ratio; NaN where nothing was measured, 0 for an upper limit.
    lower, upper : array [n]
        Distances from the value to the ends of the 68 % interval, NaN where unknown; one stands for both where the
        other is 0 or NaN. ``upper`` of an upper limit is that limit.
    """

    name: str
    value: Float[np.ndarray, " n"]
    lower: Float[np.ndarray, " n"]
    upper: Float[np.ndarray, " n"]


def embed_photometry(
    model: LatentModel,
    measured: Sequence[PhotometricColumn],
    columns: Mapping[str, Any],
    *,
    progress: Callable[[int], None] | None = None,
) -> LatentTable:
    """Turn band fluxes or hardness ratios into latents with uncertainties.

    The posterior of z under its prior N(0, 1) and of the amplitude under a wide one. The likelihood of a measurement
    is a normal distribution with the lower error below and the upper error above; an upper limit is a value of zero.
    Of measurements that share photons (a band within another; photon and energy flux of one band) only the first in
    the order of `FLUXES` is used, since the others would count the same photons twice; ratios are used in rows without
    any flux. Where the decoder cannot reach the measurements, χ² is divided by its least value for each measurement.

    Every row weighs the same quasi-random draws of the prior. Where few of them agree with the data a larger bank is
    tried, and at last a mixture of the posteriors that follow from linearising the decoder at the points found.

    Parameters
    ----------
    model : LatentModel
    measured : sequence of PhotometricColumn
        All of the same length.
    columns : mapping
        Other columns of the table: ``name``, ``ra`` and so on.
    progress : callable, optional
        Called with the number of rows finished since the last call.

    Returns
    -------
    LatentTable
        One row for each of the catalogue, in order. ``ess`` is the effective number of draws. Fluxes are missing where
        only ratios are known. Flags: ``from_fluxes``, ``from_ratios`` or ``no_data`` (then the row is the prior);
        ``not_significant`` without a flux of three standard deviations; ``poor_fit`` where no point comes within three
        standard deviations of each measurement; ``low_ess`` below 100 effective draws; their weights are spread.

    Raises
    ------
    ParameterError
        If the model's latents are points, a quantity is unknown, or lengths differ.

    Examples
    --------
    >>> import xlatent as xl
    >>> model = xl.load_model()
    >>> flux, error = np.array([1e-13]), np.array([1e-14])
    >>> table = embed_photometry(model, [PhotometricColumn("flux_b", flux, error, error)], {"name": ["a source"]})
    >>> table.z.shape, str(table["flags"][0]), bool(abs(table["flux_b"][0] / 1e-13 - 1) < 0.1)
    ((1, 8), 'from_fluxes', True)
    """
    if not model.info.probabilistic:
        raise ParameterError(f"the latents of model {model.info.name!r} are points without a posterior to draw from")
    for one in measured:
        if one.name not in FLUXES and one.name not in RATIOS:
            raise ParameterError(f"cannot embed from {one.name!r}; known are {', '.join([*FLUXES, *RATIOS])}")
    if len({len(one.value) for one in measured}) != 1:
        raise ParameterError("embedding a catalogue takes at least one measured quantity, all of equal lengths")
    listed = sorted(measured, key=lambda one: [*FLUXES, *RATIOS].index(one.name))
    used = _independent(listed)
    n = len(listed[0].value)
    z, covariance = np.empty((n, model.info.latents)), np.empty((n, model.info.latents, model.info.latents))
    found: dict[str, Any] = {name: np.empty(n) for name in ("ess", *_QUANTITY_COLUMNS)}
    flags = []
    for begin in range(0, n, _CHUNK):
        rows = [_row(listed, used, i) for i in range(begin, min(begin + _CHUNK, n))]
        draws = np.empty((len(rows), len(FLUXES) + len(RATIOS), _N_DRAWS))
        for i, row in enumerate(rows, start=begin):
            posterior = model.photometry_sampler.posterior(row)
            found["ess"][i] = posterior.ess
            flags.append(_flags(row, posterior))
            if posterior.ess < LEAST_ESS:  # a few points by themselves would look narrow
                tempered = normalised_weights(np.log(posterior.weights), _SOFT, LEAST_POWER)
                posterior = replace(posterior, weights=tempered)
            members = np.take(posterior.points.z, posterior.members, axis=0)
            z[i] = posterior.weights @ members
            covariance[i] = (members.T * posterior.weights) @ members - np.outer(z[i], z[i])
            draws[i - begin] = _drawn(posterior)
        for name, values in _limits(draws).items():
            found[name][begin : begin + len(rows)] = values
        if progress is not None:
            progress(len(rows))
    found["active"] = (np.linalg.eigvalsh(covariance) < 0.5).sum(axis=1)
    meta = {
        "model": model.info.name,
        "model_sha256": model.info.fingerprint,
        "software": SOFTWARE,
    }
    return LatentTable.from_posterior(z, covariance, {**columns, **found, "flags": flags}, meta)


def _independent(measured: Sequence[PhotometricColumn]) -> Bool[np.ndarray, "k n"]:
    """Choose the measurements used of each row: the first that have a value and an error and share no photons."""
    known = np.array([np.isfinite(one.value) & (_error(one).min(axis=0) > 0) for one in measured])
    for i, one in enumerate(measured):
        for earlier, other in zip(known[:i], measured[:i], strict=True):
            if one.name in RATIOS:
                if other.name in FLUXES:
                    known[i] &= ~earlier
            elif other.name in FLUXES:
                (lo, hi), (other_lo, other_hi) = (BANDS[FLUXES[name][0]] for name in (one.name, other.name))
                if min(hi, other_hi) > max(lo, other_lo):
                    known[i] &= ~earlier
    return known


def _error(one: PhotometricColumn) -> Float[np.ndarray, "2 n"]:
    """Lower and upper error, each standing for the other where that is 0 or unknown; NaN where both are."""
    lower, upper = (np.where(np.isfinite(error) & (error > 0), error, np.nan) for error in (one.lower, one.upper))
    return np.array([np.where(np.isnan(lower), upper, lower), np.where(np.isnan(upper), lower, upper)])


def _row(measured: Sequence[PhotometricColumn], used: Bool[np.ndarray, "k n"], i: int) -> Row:
    chosen = [one for one, rows in zip(measured, used, strict=True) if rows[i]]
    names = [one.name for one in chosen]
    value = np.array([one.value[i] for one in chosen])
    lower, upper = np.array([_error(one)[:, i] for one in chosen]).reshape(-1, 2).T
    if names and names[0] in FLUXES:
        floor: Any = FLUX_FLOOR * np.abs(value)
    else:
        stretch = _RATIO_STRETCH if len(names) == len(RATIOS) else 1.0
        lower, upper, floor = stretch * lower, stretch * upper, _RATIO_FLOOR
    errors = np.hypot(lower, floor), np.hypot(upper, floor)
    return Row(names, *(numbers.astype(np.float32) for numbers in (value, *errors)))


_QUANTITY_COLUMNS = [name + end for name in (*FLUXES, *RATIOS) for end in ("", "_lolim", "_hilim")]
_QUANTITY_COLUMNS += ["log_flux_b", "log_flux_b_err"]


def _drawn(posterior: WeightedPoints) -> Float[np.ndarray, "n_quantities n_draws"]:
    """Equally weighted draws of all fluxes and ratios; NaN for fluxes without an amplitude."""
    chosen = systematic_indices(posterior.weights, _N_DRAWS)
    members = posterior.members[chosen]
    fluxes = posterior.points.fluxes[:, members] * np.exp(posterior.log_amplitude[chosen])
    return np.concatenate([fluxes, posterior.points.of(RATIOS, members)])


def _limits(draws: Float[np.ndarray, "n n_quantities n_draws"]) -> dict[str, Float[np.ndarray, " n"]]:
    """Medians and 68 % limits of the draws, as columns."""
    lolim, median, hilim = quantiles(draws, axis=2)
    columns: dict[str, np.ndarray] = {}
    for i, name in enumerate((*FLUXES, *RATIOS)):
        columns |= {name: median[:, i], f"{name}_lolim": lolim[:, i], f"{name}_hilim": hilim[:, i]}
    log_flux = np.log10(draws[:, PLACE["flux_b"]])
    return {**columns, "log_flux_b": log_flux.mean(axis=1), "log_flux_b_err": log_flux.std(axis=1)}


def _flags(row: Row, posterior: WeightedPoints) -> str:
    if not row.names:
        return "no_data"
    flags = ["from_fluxes" if row.of_fluxes else "from_ratios"]
    if row.of_fluxes and not np.any(row.value > SIGNIFICANT * row.lower):
        flags.append("not_significant")
    if posterior.chi2 > POOR_FIT:
        flags.append("poor_fit")
    if posterior.ess < LEAST_ESS:
        flags.append("low_ess")
    return ",".join(flags)
