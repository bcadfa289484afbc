"""Instrument responses from OGIP ARF and RMF files (OGIP CAL/GEN/92-002 and 92-002a)."""

from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_array

from xlatent.errors import ParameterError, ResponseError
from xlatent.formats.fitsfile import Block, blocks, choose
from xlatent.spectrum import Response

RMF_NAMES = ("MATRIX", "SPECRESP MATRIX", "RSP_MATRIX", "AXAF_RMF")
ARF_NAMES = ("SPECRESP", "AXAF_ARF")

SMALLEST_ENERGY = 1e-10
"""keV; stands for an ENERG_LO of 0, where many models have no value (Sherpa's ``minimum_energy``)."""


def read_response(rmf: Path, arf: Path | None, warnings: list[str]) -> Response:
    """Read an RMF and, where there is one, its ARF.

    Parameters
    ----------
    rmf, arf
        The files.
    warnings
        What had to be repaired or assumed is appended here.

    Raises
    ------
    ReadError
        If a file is missing or damaged.
    ResponseError
        If it holds no response, or one that contradicts itself.
    """
    tables = blocks(rmf)
    matrices = choose(tables, "RESPONSE", ("RSP_MATRIX",), RMF_NAMES)
    if not matrices:
        hint = "it looks like an ARF" if choose(tables, "RESPONSE", ("SPECRESP",), ARF_NAMES) else "give an RMF"
        raise ResponseError(
            f"{rmf} should hold an extension {' or '.join(RMF_NAMES)}, and it holds {_held(tables)}; {hint}"
        )
    bounds = choose(tables, "RESPONSE", ("EBOUNDS", "PI_EBOUNDS"), ("EBOUNDS",))
    if not bounds:
        raise ResponseError(f"{rmf} should hold an extension EBOUNDS, and it holds {_held(tables)}; give a whole RMF")
    chan_lo, chan_hi, numbers = _channels(bounds[0])
    energy_lo, energy_hi = _energies(matrices[0])
    first = _first_channel(matrices[0], bounds[0], numbers, warnings)
    redistribution = _matrix(matrices[0], chan_lo.size, first)
    for other in matrices[1:]:
        lo, hi = _energies(other)
        if not _same_grid((energy_lo, energy_hi), (lo, hi)):
            raise ResponseError(
                f"{rmf} holds {len(matrices)} matrices on energy grids that differ, of {energy_lo.size} and {lo.size} "
                "bins, which cannot be added; give an RMF with one grid"
            )
        redistribution = redistribution + _matrix(
            other, chan_lo.size, _first_channel(other, bounds[0], numbers, warnings)
        )

    order = np.argsort(energy_lo, kind="stable")
    energy_lo, energy_hi = energy_lo[order], energy_hi[order]
    if np.any(np.diff(order) != 1):
        redistribution = redistribution[order]
    # Only the first bin may touch zero; anything else that does not ascend is refused by Response.
    energy_lo[0] = SMALLEST_ENERGY if energy_lo[0] == 0 else energy_lo[0]
    meta = {"rmf": str(rmf)}
    for key, keyword in (("telescope", "TELESCOP"), ("instrument", "INSTRUME")):
        value = matrices[0].keyword(keyword)
        if value is not None:
            meta[key] = str(value)
    if arf is not None:
        area = _area(arf, energy_lo, energy_hi, warnings)
        meta["arf"] = str(arf)
    else:
        area = np.ones(energy_lo.size)
        if matrices[0].kind("HDUCLAS3") == "FULL":
            meta["area"] = "contained in the RMF"
        else:
            warnings.append(
                f"{rmf} is used without an ARF, so the effective area is taken as 1 cm2 at all energies; "
                "give the ARF, unless the RMF contains the area"
            )
    try:
        return Response(energy_lo, energy_hi, area, redistribution, chan_lo, chan_hi, first, meta)
    except ParameterError as error:
        raise ResponseError(
            f"{rmf if arf is None else f'{rmf} with {arf}'}: {error}; make the response again"
        ) from None


def _held(tables: list[Block]) -> str:
    return ", ".join(table.name for table in tables) or "no table"


def _need(table: Block, name: str) -> Float[np.ndarray, "n_rows"]:
    """Return a column of one number a row that must be there."""
    values = table.column(name)
    if values is None:
        raise ResponseError(f"{table.where} should have a column {name}, and its columns are {table.column_names}")
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1 or values.dtype.kind not in "iuf" or values.size == 0:
        raise ResponseError(
            f"{table.where}: column {name} should hold one number a row, and its values are "
            f"{values.dtype} of shape {values.shape}"
        )
    values = values.astype(np.float64)
    if not np.isfinite(values).all():
        raise ResponseError(
            f"{table.where}: column {name} should be finite, and it is not; fetch or make the file again"
        )
    return values


def _energies(table: Block) -> tuple[Float[np.ndarray, "n_energy"], Float[np.ndarray, "n_energy"]]:
    """Energy bins of an ARF or a matrix, keV."""
    return _need(table, "ENERG_LO"), _need(table, "ENERG_HI")


def _same_grid(
    one: tuple[Float[np.ndarray, "n"], Float[np.ndarray, "n"]],
    two: tuple[Float[np.ndarray, "m"], Float[np.ndarray, "m"]],
) -> bool:
    """Compare two energy grids, to one part in a hundred of a bin (single precision has been seen to shift edges)."""
    if one[0].size != two[0].size:
        return False
    width = np.abs(one[1] - one[0]) * 0.01
    return all(bool(np.all(np.abs(a - b) <= width)) for a, b in zip(one, two, strict=True))


def _channels(
    table: Block,
) -> tuple[Float[np.ndarray, "n_chan"], Float[np.ndarray, "n_chan"], Int[np.ndarray, "n_chan"]]:
    """Lower and upper energy, keV, and number of each channel of EBOUNDS, in the order of the numbers."""
    lo, hi = _need(table, "E_MIN"), _need(table, "E_MAX")
    numbers = (
        _need(table, "CHANNEL").astype(np.int64) if "CHANNEL" in table.column_names else np.zeros(lo.size, np.int64)
    )
    # Some files hold zeros or scrambled bytes for channel numbers; then the rows stand in the order of the channels.
    order = np.argsort(numbers) if _count_on(np.sort(numbers)) else np.arange(lo.size)
    # Dispersed spectra have EBOUNDS whose energies fall with channel and, in some files, within a channel.
    return np.minimum(lo, hi)[order], np.maximum(lo, hi)[order], numbers[order]


def _count_on(numbers: Int[np.ndarray, "n_chan"]) -> bool:
    """Tell whether channel numbers go up by one each time, from 0 or more."""
    return bool(numbers[0] >= 0 and np.all(np.diff(numbers) == 1))


def _first_channel(matrix: Block, bounds: Block, numbers: Int[np.ndarray, "n_chan"], warnings: list[str]) -> int:
    """Find the number that F_CHAN gives the first channel.

    TLMIN of F_CHAN says it. Without TLMIN, the first channel of EBOUNDS does, unless its numbers are unusable (see
    ``_channels``) or F_CHAN contradicts them; then it is 1, OGIP's default, or 0 if F_CHAN uses 0.
    """
    stated = matrix.lowest("F_CHAN")
    if stated is not None:
        return stated
    lowest = bounds.lowest("CHANNEL")
    assumed = int(numbers[0]) if _count_on(numbers) else 1 if lowest is None else lowest
    smallest = _smallest_used(matrix)
    first = 0 if smallest == 0 else assumed
    # A grid that begins at channel 1 is what every program assumes, and one that uses channel 0 cannot begin later.
    if first != assumed or (first == 0 and smallest != 0):
        warnings.append(
            f"{matrix.where} has no TLMIN for F_CHAN, and its first channel is taken as {first}; "
            "if lines come out one channel off, set TLMIN"
        )
    return first


def _smallest_used(matrix: Block) -> int | None:
    """Lowest channel of all groups that hold channels."""
    _, first, _ = _groups(matrix)
    return int(first.min()) if first.size else None


def _groups(
    matrix: Block,
) -> tuple[Int[np.ndarray, "n_group"], Int[np.ndarray, "n_group"], Int[np.ndarray, "n_group"]]:
    """Energy row, first channel and number of channels of every group that holds channels, row after row."""
    n_grp = _need(matrix, "N_GRP").astype(np.int64)
    found = []
    for name in ("F_CHAN", "N_CHAN"):
        column = matrix.ragged(name)
        if column is None:
            raise ResponseError(
                f"{matrix.where} should have a column {name}, and its columns are {matrix.column_names}"
            )
        values, length = column
        short = np.flatnonzero((n_grp < 0) | (length < n_grp))
        if short.size:
            raise ResponseError(
                f"{matrix.where}: row {short[0] + 1} has N_GRP = {n_grp[short[0]]}, and column {name} holds "
                f"{length[short[0]]} values there; the RMF is damaged, make or fetch it again"
            )
        # Fixed columns are as wide as the row with most groups, the rest is padding.
        within = np.arange(values.size) - np.repeat(np.cumsum(length) - length, length)
        found.append(values[within < np.repeat(n_grp, length)].astype(np.int64))
    row = np.repeat(np.arange(n_grp.size), n_grp)
    first, number = found
    if np.any(number < 0):
        wrong = row[np.argmin(number)] + 1
        raise ResponseError(f"{matrix.where}: N_CHAN of row {wrong} should not be negative; the RMF is damaged")
    holds = number > 0
    return row[holds], first[holds], number[holds]


def _matrix(matrix: Block, n_chan: int, first_channel: int) -> csr_array:
    """Unpack the compressed rows of an RMF into a sparse ``[n_energy, n_chan]``, as they stand."""
    row, first, number = _groups(matrix)
    n_energy = matrix.n_rows
    column = matrix.ragged("MATRIX")
    if column is None:
        raise ResponseError(f"{matrix.where} should have a column MATRIX, and its columns are {matrix.column_names}")
    values, length = column
    last = first_channel + n_chan
    outside = np.flatnonzero((first < first_channel) | (first >= last) | (number > last - first))
    if outside.size:
        at = outside[0]
        raise ResponseError(
            f"{matrix.where}: row {row[at] + 1} reaches channels {first[at]} to {first[at] + number[at] - 1}, and "
            f"EBOUNDS has {n_chan} channels from {first_channel}; the RMF is damaged, or its TLMIN is wrong"
        )
    used = np.bincount(row, weights=number, minlength=n_energy).astype(np.int64)
    short = np.flatnonzero(length < used)
    if short.size:
        raise ResponseError(
            f"{matrix.where}: row {short[0] + 1} should hold {used[short[0]]} matrix elements, and it holds "
            f"{length[short[0]]}; the RMF is damaged, make or fetch it again"
        )
    ends = np.cumsum(used)
    counter = np.arange(ends[-1])
    # Elements of a row stand end to end, its groups one after the other.
    elements = values[np.repeat(np.cumsum(length) - length - (ends - used), used) + counter]
    channel = np.repeat(first - first_channel - (np.cumsum(number) - number), number) + counter
    indptr = np.concatenate([[0], ends])
    unpacked = csr_array((elements.astype(np.float64), channel, indptr), shape=(n_energy, n_chan))
    unpacked.sum_duplicates()
    unpacked.eliminate_zeros()
    return unpacked


def _area(
    arf: Path, energy_lo: Float[np.ndarray, "n_energy"], energy_hi: Float[np.ndarray, "n_energy"], warnings: list[str]
) -> Float[np.ndarray, "n_energy"]:
    """Effective area on the energy grid of the RMF, cm2."""
    tables = blocks(arf)
    found = choose(tables, "RESPONSE", ("SPECRESP",), ARF_NAMES)
    if not found:
        hint = "it looks like an RMF" if choose(tables, "RESPONSE", ("RSP_MATRIX",), RMF_NAMES) else "give an ARF"
        raise ResponseError(f"{arf} should hold an extension SPECRESP, and it holds {_held(tables)}; {hint}")
    lo, hi = _energies(found[0])
    area = _need(found[0], "SPECRESP")
    if np.any(area < 0):
        raise ResponseError(f"{found[0].where}: column SPECRESP should not be negative; make the ARF again")
    order = np.argsort(lo, kind="stable")
    lo, hi, area = lo[order], hi[order], area[order]
    if _same_grid((energy_lo, energy_hi), (lo, hi)):
        return area
    warnings.append(
        f"{arf} has {lo.size} energy bins of {lo[0]:.4g}-{hi[-1]:.4g} keV where the RMF has {energy_lo.size} of "
        f"{energy_lo[0]:.4g}-{energy_hi[-1]:.4g} keV: its area was interpolated on to the grid of the RMF, "
        "and is 0 beyond its ends"
    )
    middle = (energy_lo + energy_hi) / 2
    inside = (middle >= lo[0]) & (middle <= hi[-1])
    return np.where(inside, np.interp(middle, (lo + hi) / 2, area), 0.0)
