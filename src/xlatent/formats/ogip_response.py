"""Instrument responses from OGIP ARF and RMF files (OGIP CAL/GEN/92-002 and 92-002a)."""

from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_array

from xlatent.core.errors import ParameterError, ResponseError, XlatentWarning
from xlatent.core.hooks import implementation
from xlatent.core.spectrum import Response
from xlatent.formats.fits_table import Block, checksum, choose, decompress, read_bytes, tables

RMF_NAMES = ("MATRIX", "SPECRESP MATRIX", "RSP_MATRIX", "AXAF_RMF")
ARF_NAMES = ("SPECRESP", "AXAF_ARF")

SMALLEST_ENERGY = 1e-10
"""keV; stands for an ENERG_LO of 0, where many models have no value (Sherpa's ``minimum_energy``)."""


@dataclass(frozen=True, eq=False)
class _Rmf:
    """What an RMF file holds, and the responses made with it; files of the same content share it.

    Attributes
    ----------
    contents
        The file as it was found, and uncompressed once that has been needed to recognise another.
    parts
        What makes a `Response` together with an area.
    meta
        What of its ``meta`` the header says.
    holds_area
        Whether the area is part of the matrix.
    remarks
        What was assumed: kind, and text to be read after the name of the file.
    made
        What was made of it, by the names of RMF and ARF and the content of the ARF.
    """

    contents: list[bytes | bytearray]
    parts: dict[str, Any]
    meta: dict[str, str]
    holds_area: bool
    remarks: list[tuple[str, str]]
    made: dict[tuple[Path, Path | None, bytes], "FoundResponse"] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes in memory, about."""
        areas = sum(found.response.area.nbytes + len(key[2]) for key, found in self.made.items())
        return sum(map(len, self.contents)) + self.parts["redistribution"].nnz * 12 + areas


class FoundResponse(NamedTuple):
    """A response and what its files said.

    Attributes
    ----------
    response : Response
        RMF and ARF together.
    warnings : list of XlatentWarning
        What had to be repaired or assumed.
    arf_telescope : str
        TELESCOP of the ARF; empty where there is none.
    """

    response: Response
    warnings: list[XlatentWarning]
    arf_telescope: str


class ResponseReader:
    """A reader of responses that keeps what it read: the sources of a field often share their RMF.

    An RMF whose content is that of one read before, under whatever name, is not decoded again: its arrays are shared.
    Where names and content of both files are those of before, the response is the very same object. Several threads may
    share a reader.

    Parameters
    ----------
    max_bytes : int
        Bytes of matrices, of the files they came from and of areas to keep.
    max_areas : int
        Responses to keep of one RMF, whose projections others may keep.

    Examples
    --------
    >>> import xlatent as xl
    >>> sample = Path(xl.__file__).parent / "sample"
    >>> reader = ResponseReader()
    >>> first, again = (xl.read(sample / "sim17_000.pha.gz", responses=reader) for _ in range(2))
    >>> first.response is again.response
    True
    """

    def __init__(self, max_bytes: int = 256 * 2**20, max_areas: int = 32) -> None:
        self._max_bytes, self._max_areas = max_bytes, max_areas
        # By checksum and length of the content, the latest last.
        self._rmfs: OrderedDict[tuple[int, int], _Rmf] = OrderedDict()
        self._nominal: dict[int, Response] = {}
        self._lock = Lock()

    def read(self, rmf: Path, arf: Path | None = None) -> FoundResponse:
        """Read an RMF and, where there is one, its ARF.

        Parameters
        ----------
        rmf, arf : Path
            The files.

        Raises
        ------
        ReadError
            If a file is missing or damaged.
        ResponseError
            If it holds no response, or one that contradicts itself.

        Examples
        --------
        >>> import xlatent as xl
        >>> sample = Path(xl.__file__).parent / "sample"
        >>> found = ResponseReader().read(sample / "sim17_000.rmf.gz", sample / "sim17_000.arf.gz")
        >>> found.response.redistribution.shape
        (1070, 1024)
        """
        raw, content = read_bytes(rmf), b"" if arf is None else read_bytes(arf)
        key = (rmf, arf, content)
        with self._lock:
            matrix = self._rmf(rmf, raw)
            if key not in matrix.made:
                matrix.made[key] = _response(matrix, rmf, arf, content)
            found = matrix.made[key]
            while len(matrix.made) > self._max_areas:
                del matrix.made[next(iter(matrix.made))]
            while sum(kept.size for kept in self._rmfs.values()) > self._max_bytes:
                self._rmfs.popitem(last=False)
        return found

    def holds_area(self, rmf: Path) -> bool:
        """Tell whether an RMF contains the effective area (HDUCLAS3 = FULL), so that an ARF would count it twice.

        Raises
        ------
        ReadError, ResponseError
            As `read`.
        """
        raw = read_bytes(rmf)
        with self._lock:
            return self._rmf(rmf, raw).holds_area

    def nominal(self, year: int) -> Response:
        """Return the response that stands in where a file has none: ACIS, back-illuminated chip, on axis, in a year."""
        with self._lock:
            if year not in self._nominal:
                self._nominal[year] = implementation("nominal_response")("BI", float(year))
            return self._nominal[year]

    def clear_cache(self) -> None:
        """Let go of all responses that were kept to be shared."""
        with self._lock:
            self._rmfs.clear()
            self._nominal.clear()

    def _rmf(self, rmf: Path, raw: bytes) -> _Rmf:
        """Decode an RMF file, or find what was decoded from the same content."""
        key = checksum(raw)
        known = self._rmfs.get(key)
        if known is not None and raw not in known.contents:
            # The same with other compression, or another file that the checksum does not tell apart.
            content = decompress(rmf, raw)
            if content not in known.contents:
                if content == decompress(rmf, known.contents[0]):
                    known.contents.append(content)
                else:
                    known = None
        if known is None:
            known = self._rmfs[key] = _decoded(rmf, raw)
        self._rmfs.move_to_end(key)
        return known


def _response(matrix: _Rmf, rmf: Path, arf: Path | None, content: bytes) -> FoundResponse:
    """Join a decoded RMF with the area that the bytes of an ARF file hold."""
    told = [XlatentWarning(f"{rmf}{text}", kind, str(rmf), "guessed_channels") for kind, text in matrix.remarks]
    lo, hi = matrix.parts["energy_lo"], matrix.parts["energy_hi"]
    meta = {"rmf": str(rmf), **matrix.meta}
    telescope = ""
    if arf is not None:
        area, telescope = _area(arf, content, lo, hi, told)
        meta["arf"] = str(arf)
    else:
        area = np.ones(lo.size)
        if matrix.holds_area:
            meta["area"] = "contained in the RMF"
        else:
            told.append(
                XlatentWarning(
                    f"{rmf} is used without an ARF, so the effective area is taken as 1 cm2 at all energies; "
                    "give the ARF, unless the RMF contains the area",
                    "an RMF was used without an ARF, its area taken as 1 cm2 at all energies",
                    str(rmf),
                    "no_arf",
                )
            )
    try:
        return FoundResponse(Response(**matrix.parts, area=area, meta=meta), told, telescope)
    except ParameterError as error:
        raise ResponseError(
            f"{rmf if arf is None else f'{rmf} with {arf}'}: {error}; make the response again"
        ) from None


def _decoded(rmf: Path, raw: bytes) -> _Rmf:
    """Decode the matrices of an RMF file and its channels."""
    found = tables(rmf, decompress(rmf, raw))
    matrices = choose(found, "RESPONSE", ("RSP_MATRIX",), RMF_NAMES)
    if not matrices:
        hint = "it looks like an ARF" if choose(found, "RESPONSE", ("SPECRESP",), ARF_NAMES) else "give an RMF"
        raise ResponseError(
            f"{rmf} should hold an extension {' or '.join(RMF_NAMES)}, and it holds {_held(found)}; {hint}"
        )
    bounds = choose(found, "RESPONSE", ("EBOUNDS", "PI_EBOUNDS"), ("EBOUNDS",))
    if not bounds:
        raise ResponseError(f"{rmf} should hold an extension EBOUNDS, and it holds {_held(found)}; give a whole RMF")
    chan_lo, chan_hi, numbers = _channels(bounds[0])
    energy_lo, energy_hi = _energies(matrices[0])
    remarks: list[tuple[str, str]] = []
    first = _first_channel(matrices[0], bounds[0], numbers, remarks)
    redistribution = _matrix(matrices[0], chan_lo.size, first)
    for other in matrices[1:]:
        lo, hi = _energies(other)
        if not _same_grid((energy_lo, energy_hi), (lo, hi)):
            raise ResponseError(
                f"{rmf} holds {len(matrices)} matrices on energy grids that differ, of {energy_lo.size} and {lo.size} "
                "bins, which cannot be added; give an RMF with one grid"
            )
        redistribution = redistribution + _matrix(
            other, chan_lo.size, _first_channel(other, bounds[0], numbers, remarks)
        )

    order = np.argsort(energy_lo, kind="stable")
    energy_lo, energy_hi = energy_lo[order], energy_hi[order]
    if np.any(np.diff(order) != 1):
        redistribution = redistribution[order]
    # Only the first bin may touch zero; anything else that does not ascend is refused by Response.
    energy_lo[0] = SMALLEST_ENERGY if energy_lo[0] == 0 else energy_lo[0]
    meta = {}
    for key, keyword in (("telescope", "TELESCOP"), ("instrument", "INSTRUME")):
        value = matrices[0].keyword(keyword)
        if value is not None:
            meta[key] = str(value)
    parts = {
        "energy_lo": energy_lo,
        "energy_hi": energy_hi,
        "redistribution": redistribution,
        "chan_lo": chan_lo,
        "chan_hi": chan_hi,
        "first_channel": first,
    }
    return _Rmf([raw], parts, meta, matrices[0].hduclas(3) == "FULL", remarks)


def _held(found: list[Block]) -> str:
    """Name the tables of a file."""
    return ", ".join(table.name for table in found) or "no table"


def _need(table: Block, name: str) -> Float[np.ndarray, " n_rows"]:
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


def _energies(table: Block) -> tuple[Float[np.ndarray, " n_energy"], Float[np.ndarray, " n_energy"]]:
    """Read the energy bins of an ARF or a matrix, keV."""
    return _need(table, "ENERG_LO"), _need(table, "ENERG_HI")


def _same_grid(
    one: tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]],
    two: tuple[Float[np.ndarray, " m"], Float[np.ndarray, " m"]],
) -> bool:
    """Compare two energy grids, to one part in a hundred of a bin (single precision has been seen to shift edges)."""
    if one[0].size != two[0].size:
        return False
    width = np.abs(one[1] - one[0]) * 0.01
    return all(bool(np.all(np.abs(a - b) <= width)) for a, b in zip(one, two, strict=True))


def _channels(
    table: Block,
) -> tuple[Float[np.ndarray, " n_chan"], Float[np.ndarray, " n_chan"], Int[np.ndarray, " n_chan"]]:
    """Read lower and upper energy, keV, and number of each channel of EBOUNDS, in the order of the numbers."""
    lo, hi = _need(table, "E_MIN"), _need(table, "E_MAX")
    numbers = (
        _need(table, "CHANNEL").astype(np.int64) if "CHANNEL" in table.column_names else np.zeros(lo.size, np.int64)
    )
    # Some files hold zeros or scrambled bytes for channel numbers; then the rows stand in the order of the channels.
    order = np.argsort(numbers) if _count_on(np.sort(numbers)) else np.arange(lo.size)
    # Dispersed spectra have EBOUNDS whose energies fall with channel and, in some files, within a channel.
    return np.minimum(lo, hi)[order], np.maximum(lo, hi)[order], numbers[order]


def _count_on(numbers: Int[np.ndarray, " n_chan"]) -> bool:
    """Tell whether channel numbers go up by one each time, from 0 or more."""
    return bool(numbers[0] >= 0 and np.all(np.diff(numbers) == 1))


def _first_channel(
    matrix: Block, bounds: Block, numbers: Int[np.ndarray, " n_chan"], remarks: list[tuple[str, str]]
) -> int:
    """Find the number that F_CHAN gives the first channel.

    TLMIN of F_CHAN says it. Without TLMIN, the first channel of EBOUNDS does, unless its numbers are unusable (see
    ``_channels``) or F_CHAN contradicts them; then it is 1, OGIP's default, or 0 if F_CHAN uses 0.
    """
    stated = matrix.tlmin("F_CHAN")
    if stated is not None:
        return stated
    lowest = bounds.tlmin("CHANNEL")
    assumed = int(numbers[0]) if _count_on(numbers) else 1 if lowest is None else lowest
    smallest = _smallest_used(matrix)
    first = 0 if smallest == 0 else assumed
    # A grid that begins at channel 1 is what every program assumes, and one that uses channel 0 cannot begin later.
    if first != assumed or (first == 0 and smallest != 0):
        text = (
            f"[{matrix.name}] has no TLMIN for F_CHAN, and its first channel is taken as {first}; "
            "if lines come out one channel off, set TLMIN"
        )
        remarks.append(("an RMF has no TLMIN for F_CHAN, and its first channel was assumed", text))
    return first


def _smallest_used(matrix: Block) -> int | None:
    """Find the lowest channel of all groups that hold channels."""
    _, first, _ = _groups(matrix)
    return int(first.min()) if first.size else None


def _groups(
    matrix: Block,
) -> tuple[Int[np.ndarray, " n_group"], Int[np.ndarray, " n_group"], Int[np.ndarray, " n_group"]]:
    """Read energy row, first channel and number of channels of every group that holds channels, row after row."""
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
        found.append(values[within < np.repeat(n_grp, length)].astype(np.int64, copy=False))
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
    # Elements of a row stand end to end, its groups one after the other.
    counter = np.arange(used.sum(), dtype=np.int32)
    if np.any(length > used):
        values = values[np.repeat(np.cumsum(length) - length - (np.cumsum(used) - used), used) + counter]
    channel = np.repeat((first - first_channel - (np.cumsum(number) - number)).astype(np.int32), number)
    channel += counter
    indptr = np.concatenate([[0], np.cumsum(used)]).astype(np.int32)
    unpacked = csr_array((values.astype(np.float64, copy=False), channel, indptr), shape=(n_energy, n_chan))
    if np.any((np.diff(row) == 0) & (first[1:] < (first + number)[:-1])):
        unpacked.sum_duplicates()
    else:  # nearly always: groups in ascending order, with nothing in common
        unpacked.has_canonical_format = True
    if not values.all():
        unpacked.eliminate_zeros()
    return unpacked


def _area(
    arf: Path,
    raw: bytes,
    energy_lo: Float[np.ndarray, " n_energy"],
    energy_hi: Float[np.ndarray, " n_energy"],
    told: list[XlatentWarning],
) -> tuple[Float[np.ndarray, " n_energy"], str]:
    """Find the effective area on the energy grid of the RMF, cm2, and TELESCOP, from the bytes of an ARF file."""
    held = tables(arf, decompress(arf, raw))
    found = choose(held, "RESPONSE", ("SPECRESP",), ARF_NAMES)
    if not found:
        hint = "it looks like an RMF" if choose(held, "RESPONSE", ("RSP_MATRIX",), RMF_NAMES) else "give an ARF"
        raise ResponseError(f"{arf} should hold an extension SPECRESP, and it holds {_held(held)}; {hint}")
    telescope = str(found[0].keyword("TELESCOP") or "")
    lo, hi = _energies(found[0])
    area = _need(found[0], "SPECRESP")
    if np.any(area < 0):
        raise ResponseError(f"{found[0].where}: column SPECRESP should not be negative; make the ARF again")
    order = np.argsort(lo, kind="stable")
    lo, hi, area = lo[order], hi[order], area[order]
    if _same_grid((energy_lo, energy_hi), (lo, hi)):
        return area, telescope
    text = (
        f"{arf} has {lo.size} energy bins of {lo[0]:.4g}-{hi[-1]:.4g} keV where the RMF has {energy_lo.size} of "
        f"{energy_lo[0]:.4g}-{energy_hi[-1]:.4g} keV: its area was interpolated on to the grid of the RMF, "
        "and is 0 beyond its ends"
    )
    kind = "the energy bins of an ARF are not those of its RMF, and its area was interpolated"
    told.append(XlatentWarning(text, kind, str(arf), "interpolated_arf"))
    middle = (energy_lo + energy_hi) / 2
    inside = (middle >= lo[0]) & (middle <= hi[-1])
    return np.where(inside, np.interp(middle, (lo + hi) / 2, area), 0.0), telescope
