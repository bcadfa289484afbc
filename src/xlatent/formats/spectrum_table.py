"""One SPECTRUM table of a PHA file as a spectrum: counts, scales, flags, channels and what it says of itself."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from xlatent.core.dates import modified_julian_date
from xlatent.core.errors import ParameterError, ReadError, ResponseError, XlatentWarning
from xlatent.core.spectrum import Response, Spectrum
from xlatent.formats.companions import stem
from xlatent.formats.fits_table import Block, blocks, choose

# Keys of Spectrum.meta and the keywords they come from. The pointing and target positions of the observation (RA_PNT,
# RA_TARG) are no positions of the source and are left out.
_META = {
    "object": ("OBJECT",),
    "obsid": ("OBS_ID",),
    "obi": ("OBI_NUM",),
    "region_id": ("REGIONID",),
    "telescope": ("TELESCOP",),
    "instrument": ("INSTRUME",),
    "date": ("DATE-OBS",),
    "ra": ("RA", "RA_OBJ"),
    "dec": ("DEC", "DEC_OBJ"),
}
REMEDY = "correct the file or extract the spectrum again"


def spectrum_tables(path: Path) -> tuple[list[Block], list[Block]]:
    """Find the tables of source spectra in a file, and those of backgrounds that stand beside them.

    Raises
    ------
    ReadError
        If there is no such file, or it is damaged or holds no spectrum.
    """
    tables = blocks(path)
    spectra = choose(tables, "SPECTRUM", None, ("SPECTRUM",))
    if not spectra:
        names = [table.name for table in tables]
        hint = "it is an event list, extract a spectrum from it" if "EVENTS" in names else "give a PHA file"
        held = ", ".join(names) or "no table"
        raise ReadError(f"{path} should hold an extension SPECTRUM (HDUCLAS1 = SPECTRUM), and it holds {held}; {hint}")
    backgrounds = [table for table in spectra if table.hduclas(2) == "BKG"]
    sources = [table for table in spectra if table.hduclas(2) != "BKG"]
    return (sources, backgrounds) if sources else (backgrounds, [])


def is_type_two(table: Block) -> bool:
    """Tell whether each row of a table is a spectrum."""
    column = table.column("COUNTS" if "COUNTS" in table.column_names else "RATE")
    return column is not None and column.ndim > 1


def value_of(table: Block, name: str, row: int | None) -> Any:
    """Look up a column (or one row of it) or, where there is none, a keyword."""
    column = table.column(name)
    if column is None:
        return table.keyword(name)
    return column if row is None else column[row]


def _numbers(table: Block, name: str, row: int | None) -> float | Float[np.ndarray, " n_chan"] | None:
    """Look up what must be a number, or one for each channel; None where it is absent."""
    if name not in table.column_names:
        return table.number(name)
    values = np.asarray(value_of(table, name, row))
    if values.dtype.kind not in "biuf" or values.ndim > 1:
        raise ReadError(
            f"{table.where}: column {name} should hold one number for each channel, and its values are {values.dtype} "
            f"of shape {values.shape}; {REMEDY}"
        )
    return values.astype(np.float64) if values.ndim else float(values)


def _flags(table: Block, name: str, row: int | None, n_chan: int) -> Any:
    """Read QUALITY or GROUPING; None where all of it is the default, 0."""
    values = _numbers(table, name, row)
    if values is None or (np.ndim(values) == 0 and values == 0):
        return None
    return _whole(np.broadcast_to(values, (n_chan,)), table, name)


def _whole(values: Any, table: Block, name: str) -> Any:
    """Turn values that must be whole numbers into integers."""
    values = np.asarray(values, dtype=np.float64)
    if not np.isfinite(values).all() or np.any(values != np.rint(values)) or np.any(np.abs(values) > 2**31):
        raise ReadError(f"{table.where}: column {name} should hold whole numbers, and it does not; {REMEDY}")
    return values.astype(np.int64)


def identity(table: Block, row: int | None) -> dict[str, Any]:
    """Collect what a table says of its observation, under the keys of ``Spectrum.meta``."""
    found: dict[str, Any] = {}
    for key, keywords in _META.items():
        values = _plain(value_of(table, keyword, row) for keyword in keywords)
        if values:
            found[key] = values[0]
    start = _start(table, row)
    return found if start is None else {**found, "mjd": start}


def frame_time(table: Block, row: int | None) -> float | None:
    """Find the time of a detector's frame in seconds: TIMEDEL, as Chandra's and Swift's files have it, or EXPTIME."""
    stated = (_real(table, keyword, row) for keyword in ("TIMEDEL", "EXPTIME"))
    return next((time for time in stated if time is not None and time > 0), None)


def unsuitable(table: Block, row: int | None, response: Response | None) -> list[str]:
    """List flags for what the header and the response say of an instrument that is no CCD camera.

    Spectra of gratings have a diffraction order (TG_M, of Chandra; the zeroth is a CCD's), are RGS's, or have channels
    of equal wavelength, so that energies fall with channel.
    """
    flags = []
    instrument = _text(table, "INSTRUME", row).upper()
    falling = response is not None and response.chan_lo[0] > response.chan_lo[-1]
    if _real(table, "TG_M", row) or instrument.startswith("RGS") or falling:
        flags.append("grating")
    if instrument.startswith("HRC") or _text(table, "DETNAM", row).upper().startswith("HRC"):
        flags.append("hrc")
    return flags


def _start(table: Block, row: int | None) -> float | None:
    """Find the start of the observation as Modified Julian Date, in the time system of the file."""
    stated = _real(table, "MJD-OBS", row)
    if stated is not None and stated > 0:
        return stated
    found = modified_julian_date(_text(table, "DATE-OBS", row), _text(table, "TIME-OBS", row))
    if found is not None:
        return found
    whole = _real(table, "MJDREFI", row)
    zero = _real(table, "MJDREF", row) if whole is None else whole + (_real(table, "MJDREFF", row) or 0.0)
    seconds = _real(table, "TSTART", row)
    unit = _text(table, "TIMEUNIT", row).lower()
    if zero is None or seconds is None or seconds <= 0 or unit not in ("", "s", "sec", "seconds"):
        return None
    return zero + (seconds + (_real(table, "TIMEZERO", row) or 0.0)) / 86400


def _real(table: Block, name: str, row: int | None) -> float | None:
    """Look up a column or keyword; None where it is no finite number."""
    value = value_of(table, name, row)
    if not isinstance(value, int | float | np.integer | np.floating) or not np.isfinite(value):
        return None
    return float(value)


def _text(table: Block, name: str, row: int | None) -> str:
    """Look up a column or keyword as text; empty where it says nothing."""
    return "".join(str(value) for value in _plain([value_of(table, name, row)]))


def _plain(values: Iterable[Any]) -> list[Any]:
    """Keep the values that say something, as plain Python objects."""
    plain = [value.item() if isinstance(value, np.generic) else value for value in values]
    return [value for value in plain if not isinstance(value, np.ndarray) and value is not None and value != ""]


def read_table(table: Block, row: int | None) -> Spectrum:
    """Read the spectrum of a table, or of a row of it, in ascending order of channels.

    Raises
    ------
    ReadError
        If a column or keyword is missing, or holds values that make no sense.
    """
    kind = next((name for name in ("COUNTS", "RATE") if name in table.column_names), None)
    if kind is None:
        raise ReadError(
            f"{table.where} should have a column COUNTS or RATE, and its columns are "
            f"{', '.join(table.column_names)}; give a PHA file"
        )
    if row is None and np.ndim(value_of(table, kind, None)) == 2 and table.n_rows == 1:
        row = 0
    counts = np.atleast_1d(np.asarray(_numbers(table, kind, row)))
    n_chan = counts.size

    exposure = _numbers(table, "EXPOSURE", row)
    if exposure is None:
        raise ReadError(f"{table.where} should have a keyword EXPOSURE in seconds, and it has none; add it")
    areascale = _numbers(table, "AREASCAL", row)
    areascale = 1.0 if areascale is None else areascale
    backscale = _numbers(table, "BACKSCAL", row)
    backscale = 1.0 if backscale is None else backscale
    if isinstance(exposure, np.ndarray):
        # AREASCAL acts as exposure does: what differs from channel to channel goes there.
        longest = float(np.max(exposure)) if exposure.size else 0.0
        if not longest > 0 or not np.isfinite(exposure).all() or np.any(exposure < 0):
            raise ReadError(f"{table.where}: column EXPOSURE should hold positive seconds, and it does not; {REMEDY}")
        if np.any(exposure != longest):
            areascale = areascale * exposure / longest
        exposure = longest
    if kind == "RATE":
        counts = counts * exposure

    channels = _numbers(table, "CHANNEL", row) if "CHANNEL" in table.column_names else None
    # Some tools leave the column of channel numbers at zero; then they count from 1.
    channels = None if channels is None or not np.any(channels) else _whole(channels, table, "CHANNEL")
    ascending = channels is None or bool((np.diff(channels) > 0).all())
    if channels is not None and (channels.shape != (n_chan,) or not (ascending or np.unique(channels).size == n_chan)):
        raise ReadError(f"{table.where}: column CHANNEL should number each channel once, and it does not; {REMEDY}")
    quality, grouping = (_flags(table, name, row, n_chan) for name in ("QUALITY", "GROUPING"))
    if channels is not None and not ascending:
        order = np.argsort(channels)
        counts, channels = counts[order], channels[order]
        backscale, areascale, quality, grouping = (
            value[order] if isinstance(value, np.ndarray) else value
            for value in (backscale, areascale, quality, grouping)
        )
    try:
        return Spectrum(
            counts,
            exposure,
            backscale,
            areascale,
            quality,
            grouping,
            channels,
            meta={"name": stem(table.path), "file": str(table.path)},
        )
    except ParameterError as error:
        raise ReadError(f"{table.where}: {error}; {REMEDY}") from None


def match_channels(
    spectrum: Spectrum, first: int, n_chan: int, where: str, into: str, told: list[XlatentWarning]
) -> Spectrum:
    """Place a spectrum that holds only some channels among all those of its response, by channel number.

    Channels that the file does not hold were not observed: they are marked bad (QUALITY 1).

    Parameters
    ----------
    spectrum : Spectrum
        With the channels that its file holds.
    first, n_chan : int
        Number of the first channel, and how many there are.
    where, into : str
        Table of the spectrum and file of the response, for messages.
    told : list of XlatentWarning
        What was done is appended here.

    Raises
    ------
    ResponseError
        If the spectrum has channels that the response lacks.
    """
    size = spectrum.counts.size
    if size == n_chan or spectrum.channels is None:
        return spectrum
    index = spectrum.channels - first
    if size > n_chan or index.min() < 0 or index.max() >= n_chan:
        raise ResponseError(
            f"{where} has {size} channels ({spectrum.channels.min()}-{spectrum.channels.max()}) where {into} has "
            f"{n_chan} ({first}-{first + n_chan - 1}); give the files that were made for each other"
        )
    text = (
        f"{where} holds {size} of the {n_chan} channels of {into}: they were matched by channel number, and those it "
        "does not hold are marked bad"
    )
    kind = "a spectrum holds some of the channels of its response, and the others were marked bad"
    told.append(XlatentWarning(text, kind, str(spectrum.meta["file"])))

    def spread(values: Any, fill: int) -> Any:
        if not isinstance(values, np.ndarray):
            return values
        wide = np.full(n_chan, fill, dtype=values.dtype)
        wide[index] = values
        return wide

    quality = spectrum.quality if spectrum.quality is not None else np.zeros(size, dtype=np.int64)
    return replace(
        spectrum,
        counts=spread(spectrum.counts, 0),
        backscale=spread(spectrum.backscale, 0),
        areascale=spread(spectrum.areascale, 0),
        quality=spread(quality, 1),
        grouping=spread(spectrum.grouping, 0),
        channels=np.arange(first, first + n_chan),
    )
