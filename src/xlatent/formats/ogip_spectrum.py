"""Spectra from OGIP PHA files with the background and the response that belong to them (OGIP/92-007, 92-007a)."""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from xlatent.core.errors import ParameterError, ReadError, ResponseError, XlatentWarning
from xlatent.core.spectrum import Response, Spectrum
from xlatent.formats.fits_table import Block, blocks, choose, companion, existing, is_none, stem
from xlatent.formats.ogip_response import read_response

if TYPE_CHECKING:
    from xlatent.formats.ogip_write import write as write

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
_REMEDY = "correct the file or extract the spectrum again"


def __getattr__(name: str) -> Any:
    """Import the writer when it is asked for: it needs astropy, and readers do not."""
    if name == "write":
        from xlatent.formats.ogip_write import write

        return write
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def read(
    path: str | Path,
    arf: str | Path | None = None,
    rmf: str | Path | None = None,
    background: str | Path | None = None,
    name: str | None = None,
) -> Spectrum | list[Spectrum]:
    """Read a spectrum with its background and response.

    Parameters
    ----------
    path
        OGIP PHA file of type I or II, plain or gzipped whatever its name says.
    arf, rmf, background
        Files that belong to it. Where one is not given, the header names it (ANCRFILE, RESPFILE, BACKFILE) and it is
        looked for next to the PHA file, with and without ``.gz``; a background may also be a second extension of the
        PHA file. ``"none"`` means that there is none, whatever the header says.
    name
        Name of the spectrum; the file name without its suffix if not given.

    Returns
    -------
    One Spectrum, or for a file of type II a list with one for each row.

    Raises
    ------
    ReadError
        If a file is missing, damaged, not a PHA file, or holds values that make no sense.
    ResponseError
        If the response is damaged or does not fit the spectrum.

    Warns
    -----
    XlatentWarning
        Where a file that the header names is missing, or something was repaired; also kept in ``meta["warnings"]``.
    """
    path = Path(path)
    # Damaged files hold any bit pattern; what matters is checked by value.
    with np.errstate(all="ignore"):
        result = _Reader(path, arf, rmf, background, name).spectra()
    spectra = result if isinstance(result, list) else [result]
    for text in dict.fromkeys(text for spectrum in spectra for text in spectrum.meta.get("warnings", ())):
        warnings.warn(text, XlatentWarning, stacklevel=2)
    return result


class _Reader:
    """One PHA file and what was said about its companions."""

    def __init__(
        self,
        path: Path,
        arf: str | Path | None,
        rmf: str | Path | None,
        background: str | Path | None,
        name: str | None,
    ) -> None:
        self.path = path
        self.name = name if name is not None else stem(path)
        self.given = {"ANCRFILE": arf, "RESPFILE": rmf, "BACKFILE": background}
        self.warnings: list[str] = []
        sources, self.backgrounds_inside = _spectrum_tables(path)
        self.table = sources[0]
        if len(sources) > 1:
            self.warnings.append(
                f"{path} holds {len(sources)} source spectra in separate extensions, and only the first was read; "
                "give the others as files of their own"
            )
        if self.table.kind("HDUCLAS2") == "NET":
            self.warnings.append(
                f"{self.table.where} says that its background was subtracted (HDUCLAS2 = NET), so its counts are not "
                "Poisson; give the spectrum before subtraction"
            )
        self.responses: dict[tuple[Path, Path | None], tuple[Response, list[str]]] = {}

    def spectra(self) -> Spectrum | list[Spectrum]:
        """Read the only spectrum, or every row of a file of type II."""
        column = self.table.column("COUNTS" if "COUNTS" in self.table.column_names else "RATE")
        if column is None or column.ndim == 1:
            return self._complete(None, self.name)
        numbers = self.table.column("SPEC_NUM")
        if numbers is None or len(set(numbers.tolist())) < len(column):
            numbers = np.arange(1, len(column) + 1)
        found = [self._complete(row, f"{self.name}_{numbers[row]}") for row in range(len(column))]
        if not found:
            raise ReadError(f"{self.table.where} should hold at least one spectrum, and it has no rows; {_REMEDY}")
        return found

    def _complete(self, row: int | None, name: str) -> Spectrum:
        """Read one spectrum and join it with its background and response."""
        told = list(self.warnings)
        source = _spectrum(self.table, row)
        background = self._background(row, told)
        response = self._response(row, told)
        if response is not None:
            n_chan, where = response.chan_lo.size, response.meta["rmf"]
            source = _embed(source, response.first_channel, n_chan, self.table.where, where, told)
        if background is not None:
            first = int(np.min(source.channels)) if source.channels is not None else 1
            background = _embed(background, first, source.counts.size, background.meta["file"], self.table.where, [])
        meta: dict[str, Any] = {"name": name, "file": str(self.path)}
        for key, keywords in _META.items():
            values = [_value(self.table, keyword, row) for keyword in keywords]
            if _known(values):
                meta[key] = _known(values)[0]
        if response is not None:
            told.extend(_other_telescope(self.path, meta, response.meta))
        if told:
            meta["warnings"] = told
        return replace(source, background=background, response=response, meta=meta)

    def _response(self, row: int | None, told: list[str]) -> Response | None:
        """Read ARF and RMF, where they are given or named; rows of one file that share them read them once."""
        rmf = self._companion("RESPFILE", "response matrix", row, told)
        arf = self._companion("ANCRFILE", "ARF", row, told)
        if rmf is None:
            if arf is not None:
                told.append(f"{self.path} has an ARF ({arf}) and no RMF, so it has no response; give the RMF")
            return None
        if (rmf, arf) not in self.responses:
            remarks: list[str] = []
            self.responses[rmf, arf] = (read_response(rmf, arf, remarks), remarks)
        response, remarks = self.responses[rmf, arf]
        told.extend(remarks)
        return response

    def _background(self, row: int | None, told: list[str]) -> Spectrum | None:
        """Find and read the background: a file, or a second extension of the source file."""
        given = self.given["BACKFILE"]
        if given is not None and is_none(given):
            return None
        file = self._companion("BACKFILE", "background", row, [] if self.backgrounds_inside else told)
        if file is None or file.samefile(self.path):
            if self.backgrounds_inside:
                return _spectrum(self.backgrounds_inside[0], row)
            if file is None:
                return None
            # Reading the source again as its own background would hide the source.
            text = (
                f"{self.path} is named as its own background, and it holds no second SPECTRUM extension "
                "with HDUCLAS2 = BKG; give the background file"
            )
            if given is not None:
                raise ReadError(text)
            told.append(text)
            return None
        sources, inside = _spectrum_tables(file)
        return _spectrum((inside or sources)[0], None)

    def _companion(self, keyword: str, label: str, row: int | None, told: list[str]) -> Path | None:
        """Path of a file that was given or that the header names; None where there is none."""
        given = self.given[keyword]
        if given is not None:
            if is_none(given):
                return None
            file = existing(Path(given))
            if file is None:
                raise ReadError(
                    f"{given}, given as the {label} of {self.path}, does not exist; give the path of a file"
                )
            return file
        value = _value(self.table, keyword, row)
        if is_none(value):
            return None
        file = companion(self.path, str(value))
        if file is None:
            told.append(
                f"{self.path} names {value} as its {label} ({keyword}), and there is no such file next to it, with or "
                f"without .gz: it is read without {label}; give the file, or 'none'"
            )
        return file


def _known(values: Sequence[Any]) -> list[Any]:
    """Values that say something, as plain Python objects."""
    plain = [value.item() if isinstance(value, np.generic) else value for value in values]
    return [value for value in plain if not isinstance(value, np.ndarray) and value is not None and value != ""]


def _other_telescope(path: Path, ours: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    """Say so if spectrum and response both name a telescope and do not agree."""
    names = [str(meta.get("telescope") or "UNKNOWN").upper() for meta in (ours, theirs)]
    if "UNKNOWN" in names or names[0] == names[1]:
        return []
    return [
        f"{path} is a spectrum of {names[0]} and its response {theirs['rmf']} one of {names[1]} (TELESCOP); "
        "give the RMF that was made for this spectrum"
    ]


def _spectrum_tables(path: Path) -> tuple[list[Block], list[Block]]:
    """Tables of source spectra, and tables of backgrounds that stand beside them in the same file."""
    tables = blocks(path)
    spectra = choose(tables, "SPECTRUM", None, ("SPECTRUM",))
    if not spectra:
        names = [table.name for table in tables]
        hint = "it is an event list, extract a spectrum from it" if "EVENTS" in names else "give a PHA file"
        held = ", ".join(names) or "no table"
        raise ReadError(f"{path} should hold an extension SPECTRUM (HDUCLAS1 = SPECTRUM), and it holds {held}; {hint}")
    backgrounds = [table for table in spectra if table.kind("HDUCLAS2") == "BKG"]
    sources = [table for table in spectra if table.kind("HDUCLAS2") != "BKG"]
    return (sources, backgrounds) if sources else (backgrounds, [])


def _value(table: Block, name: str, row: int | None) -> Any:
    """Value of a column (of one row of it) or, where there is none, of a keyword: column beats keyword."""
    column = table.column(name)
    if column is None:
        return table.keyword(name)
    return column if row is None else column[row]


def _numbers(table: Block, name: str, row: int | None) -> float | Float[np.ndarray, " n_chan"] | None:
    """Value of a column or keyword that must be a number, or one for each channel; None where it is absent."""
    if name not in table.column_names:
        return table.number(name)
    values = np.asarray(_value(table, name, row))
    if values.dtype.kind not in "biuf" or values.ndim > 1:
        raise ReadError(
            f"{table.where}: column {name} should hold one number for each channel, and its values are {values.dtype} "
            f"of shape {values.shape}; {_REMEDY}"
        )
    return values.astype(np.float64) if values.ndim else float(values)


def _flags(table: Block, name: str, row: int | None, n_chan: int) -> Any:
    """QUALITY or GROUPING; None where all of it is the default, 0."""
    values = _numbers(table, name, row)
    if values is None or (np.ndim(values) == 0 and values == 0):
        return None
    return _whole(np.broadcast_to(values, (n_chan,)), table, name)


def _whole(values: Any, table: Block, name: str) -> Any:
    """Integers from values that must be whole numbers."""
    values = np.asarray(values, dtype=np.float64)
    if not np.isfinite(values).all() or np.any(values != np.rint(values)) or np.any(np.abs(values) > 2**31):
        raise ReadError(f"{table.where}: column {name} should hold whole numbers, and it does not; {_REMEDY}")
    return values.astype(np.int64)


def _spectrum(table: Block, row: int | None) -> Spectrum:
    """Read one spectrum alone, in ascending order of channels."""
    kind = next((name for name in ("COUNTS", "RATE") if name in table.column_names), None)
    if kind is None:
        raise ReadError(
            f"{table.where} should have a column COUNTS or RATE, and its columns are "
            f"{', '.join(table.column_names)}; give a PHA file"
        )
    if row is None and np.ndim(_value(table, kind, None)) == 2 and table.n_rows == 1:
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
            raise ReadError(f"{table.where}: column EXPOSURE should hold positive seconds, and it does not; {_REMEDY}")
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
        raise ReadError(f"{table.where}: column CHANNEL should number each channel once, and it does not; {_REMEDY}")
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
        raise ReadError(f"{table.where}: {error}; {_REMEDY}") from None


def _embed(spectrum: Spectrum, first: int, n_chan: int, where: str, into: str, told: list[str]) -> Spectrum:
    """Place a spectrum that holds only some channels among all those of its response, by channel number.

    Channels that the file does not hold were not observed: they are marked bad (QUALITY 1).
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
    told.append(
        f"{where} holds {size} of the {n_chan} channels of {into}: they were matched by channel number, and those it "
        "does not hold are marked bad"
    )

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
