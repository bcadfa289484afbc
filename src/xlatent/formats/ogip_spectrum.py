"""Spectra from OGIP PHA files with the background and the response that belong to them (OGIP/92-007, 92-007a)."""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from xlatent.core.errors import ParameterError, ReadError, ResponseError, XlatentWarning
from xlatent.core.spectrum import Spectrum
from xlatent.formats.companions import companion_of_one_name, existing, is_none, named_companion, stem
from xlatent.formats.fits_table import Block, blocks, choose
from xlatent.formats.ogip_response import FoundResponse, ResponseReader

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
# Other names of telescopes in TELESCOP.
_TELESCOPES = {"CXC": "CHANDRA", "CXO": "CHANDRA", "AXAF": "CHANDRA"}
_REMEDY = "correct the file or extract the spectrum again"


def read(
    path: str | Path,
    arf: str | Path | None = None,
    rmf: str | Path | None = None,
    background: str | Path | None = None,
    name: str | None = None,
    *,
    row: int | None = None,
    responses: ResponseReader | None = None,
) -> Spectrum:
    """Read one spectrum with its background and response.

    Parameters
    ----------
    path : str or Path
        OGIP PHA file of type I or II, plain or gzipped whatever its name says.
    arf, rmf, background : str or Path, optional
        Files that belong to it. ``"none"`` means that there is none, whatever the header says. Where one is not given,
        the header names it (ANCRFILE, RESPFILE, BACKFILE) and it is looked for next to the PHA file, with and without
        ``.gz``; a background may also be a second extension of the PHA file. Where the header of a file of type I lacks
        the keyword, or names a file that does not exist, the file that bears the name of the PHA file is taken: for
        ``source.pi`` and ``source_grp.pi`` that is ``source.corr.arf`` or ``source.arf``, ``source.rmf`` and
        ``source_bkg.pi`` (see `companion_of_one_name`).
    name : str, optional
        Name of the spectrum; the file name without its suffix if not given. For a row of a file of type II, the number
        of the spectrum (SPEC_NUM) comes after it.
    row : int, optional
        Which of the spectra of a file of type II, from 0; it must be given where there are several.
    responses : ResponseReader, optional
        Keeps responses, so that spectra that have the same share it; several threads may use one.

    Returns
    -------
    Spectrum
        ``meta`` tells what else the file says of it, `Spectrum` which keys that may be.

    Raises
    ------
    ReadError
        If a file is missing, damaged, not a PHA file, or holds values that make no sense; or if there are several
        spectra and ``row`` was not given.
    ResponseError
        If the response is damaged or does not fit the spectrum.
    ParameterError
        If there is no such row.

    Warns
    -----
    XlatentWarning
        Where a file that the header names is missing, or something was repaired; also kept in ``meta["warnings"]``.

    See Also
    --------
    xlatent.read_all : Read the spectra of many files, and all rows of files of type II.

    Examples
    --------
    >>> import xlatent as xl
    >>> sample = Path(xl.__file__).parent / "sample"
    >>> xl.read(sample / "sim17_000.pha.gz").exposure
    33000.0
    """
    # Damaged files hold any bit pattern; what matters is checked by value.
    with np.errstate(all="ignore"):
        file = _PhaFile(Path(path), arf, rmf, background, name, responses)
        spectrum = file.spectrum(row)
    file.warn()
    return spectrum


def read_spectra(
    path: str | Path,
    arf: str | Path | None = None,
    rmf: str | Path | None = None,
    background: str | Path | None = None,
    name: str | None = None,
    *,
    responses: ResponseReader | None = None,
) -> list[Spectrum]:
    """Read every spectrum of a PHA file: one, or for a file of type II one for each row.

    Parameters, errors and warnings are those of `read`.

    Returns
    -------
    list of Spectrum
        At least one.

    Examples
    --------
    >>> import xlatent as xl
    >>> sample = Path(xl.__file__).parent / "sample"
    >>> len(read_spectra(sample / "sim17_000.pha.gz"))
    1
    """
    with np.errstate(all="ignore"):
        file = _PhaFile(Path(path), arf, rmf, background, name, responses)
        spectra = [file.spectrum(row) for row in range(file.n_spectra)]
    file.warn()
    return spectra


class _PhaFile:
    """One PHA file and what was said about its companions."""

    def __init__(
        self,
        path: Path,
        arf: str | Path | None,
        rmf: str | Path | None,
        background: str | Path | None,
        name: str | None,
        responses: ResponseReader | None,
    ) -> None:
        self.path = path
        self.name = name if name is not None else stem(path)
        self.given = {"ANCRFILE": arf, "RESPFILE": rmf, "BACKFILE": background}
        self.reader = responses if responses is not None else ResponseReader()
        self.responses: dict[tuple[Path, Path | None], FoundResponse] = {}
        self.told: dict[str, XlatentWarning] = {}
        self.remarks: list[XlatentWarning] = []  # on all spectra of the file
        sources, self.backgrounds_inside = _spectrum_tables(path)
        self.table = sources[0]
        if len(sources) > 1:
            self._tell(
                self.remarks,
                f"{path} holds {len(sources)} source spectra in separate extensions, and only the first was read; "
                "give the others as files of their own",
                "of several source spectra in separate extensions, only the first was read",
            )
        if self.table.hduclas(2) == "NET":
            self._tell(
                self.remarks,
                f"{self.table.where} says that its background was subtracted (HDUCLAS2 = NET), so its counts are not "
                "Poisson; give the spectrum before subtraction",
                "the background of a spectrum was subtracted (HDUCLAS2 = NET), so its counts are not Poisson",
            )
        self.is_type_two = _is_type_two(self.table)
        self.n_spectra = self.table.n_rows if self.is_type_two else 1
        if not self.n_spectra:
            raise ReadError(f"{self.table.where} should hold at least one spectrum, and it has no rows; {_REMEDY}")

    def warn(self) -> None:
        """Give the warnings of what was read to whoever called for it."""
        for warning in self.told.values():
            warnings.warn(warning, stacklevel=3)

    def spectrum(self, row: int | None) -> Spectrum:
        """Read one of the spectra; the only one if no row is given."""
        if row is None and self.n_spectra > 1:
            raise ReadError(
                f"{self.path} holds {self.n_spectra} spectra (PHA file of type II), and one is read at a time: "
                f"give row=0 to row={self.n_spectra - 1}, or read all of them with xlatent.read_all"
            )
        row = 0 if row is None else row
        if not 0 <= row < self.n_spectra:
            raise ParameterError(
                f"row should be 0 to {self.n_spectra - 1} for the spectra of {self.path}, and it is {row}"
            )
        if not self.is_type_two:
            return self._complete(None, self.name)
        numbers = self.table.column("SPEC_NUM")
        if numbers is None or len(set(numbers.tolist())) < self.n_spectra:
            numbers = np.arange(1, self.n_spectra + 1)
        return self._complete(row, f"{self.name}_{numbers[row]}")

    def _tell(self, told: list[XlatentWarning], text: str, kind: str) -> None:
        told.append(XlatentWarning(text, kind, str(self.path)))

    def _complete(self, row: int | None, name: str) -> Spectrum:
        """Read one spectrum and join it with its background and response."""
        told = list(self.remarks)
        source = _spectrum(self.table, row)
        background = self._background(row, told)
        found = self._response(row, told)
        response = found.response if found is not None else None
        if response is not None:
            n_chan, where = response.chan_lo.size, response.meta["rmf"]
            source = _embed(source, response.first_channel, n_chan, self.table.where, where, told)
        if background is not None:
            first = int(np.min(source.channels)) if source.channels is not None else 1
            background = _embed(background, first, source.counts.size, background.meta["file"], self.table.where, [])
        meta: dict[str, Any] = {"name": name, "file": str(self.path)}
        for key, keywords in _META.items():
            values = [_value(self.table, keyword, row) for keyword in keywords]
            if _plain(values):
                meta[key] = _plain(values)[0]
        if found is not None:
            self._compare_telescopes(str(meta.get("telescope") or ""), found, told)
        if told:
            meta["warnings"] = [str(warning) for warning in told]
            self.told |= {str(warning): warning for warning in told}
        return replace(source, background=background, response=response, meta=meta)

    def _response(self, row: int | None, told: list[XlatentWarning]) -> FoundResponse | None:
        """Read ARF and RMF, where they are given, named or found; rows of one file that share them read them once."""
        # The rows of a file of type II have responses of their own, and one name would not tell them apart.
        by_name = row is None
        rmf = self._companion("RESPFILE", "response matrix", row, told, by_name)
        if by_name and self.given["ANCRFILE"] is None and not self.table.states("ANCRFILE"):
            by_name = rmf is not None and not self.reader.holds_area(rmf)
        arf = self._companion("ANCRFILE", "ARF", row, told, by_name)
        if rmf is None:
            if arf is not None:
                self._tell(
                    told,
                    f"{self.path} has an ARF ({arf}) and no RMF, so it has no response; give the RMF",
                    "a spectrum has an ARF and no RMF, so it has no response",
                )
            return None
        if (rmf, arf) not in self.responses:
            self.responses[rmf, arf] = self.reader.read(rmf, arf)
        found = self.responses[rmf, arf]
        told.extend(found.warnings)
        return found

    def _background(self, row: int | None, told: list[XlatentWarning]) -> Spectrum | None:
        """Find and read the background: a file, or a second extension of the source file."""
        given = self.given["BACKFILE"]
        if given is not None and is_none(given):
            return None
        alone = not self.backgrounds_inside
        file = self._companion("BACKFILE", "background", row, told if alone else [], alone and row is None)
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
            self._tell(told, text, "a spectrum is named as its own background, which its file does not hold")
            return None
        sources, inside = _spectrum_tables(file)
        table = (inside or sources)[0]
        if _is_type_two(table) and table.n_rows > 1:
            raise ReadError(
                f"{file}, the background of {self.path}, is a PHA file of type II with {table.n_rows} spectra, and a "
                "background should be one: extract the row that belongs to the spectrum into a file of its own and "
                "give that, or 'none'"
            )
        return _spectrum(table, None)

    def _companion(
        self, keyword: str, label: str, row: int | None, told: list[XlatentWarning], by_name: bool
    ) -> Path | None:
        """Find a file that was given, that the header names or, if it may be, that bears the name of the spectrum."""
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
        stated = self.table.states(keyword)
        value = _value(self.table, keyword, row)
        if stated and is_none(value):
            return None
        named = named_companion(self.path, str(value)) if stated else None
        if named is not None:
            return named
        file = companion_of_one_name(self.path, keyword) if by_name else None
        if stated:
            instead = f"without {label}" if file is None else f"with {file.name}, which bears its name"
            self._tell(
                told,
                f"{self.path} names {value} as its {label} ({keyword}), and there is no such file next to it, with or "
                f"without .gz: it is read {instead}; give the file, or 'none'",
                f"the {label} that a header names ({keyword}) is missing, and the spectrum was read "
                + ("without it" if file is None else "with the file that bears its name"),
            )
        return file

    def _compare_telescopes(self, ours: str, found: FoundResponse, told: list[XlatentWarning]) -> None:
        """Say so if spectrum and response both name a telescope and do not agree."""
        meta = found.response.meta
        for label, what, telescope in (
            ("RMF", f"response {meta['rmf']}", str(meta.get("telescope") or "")),
            ("ARF", f"ARF {meta.get('arf')}", found.arf_telescope),
        ):
            names = [_TELESCOPES.get(name.upper(), name.upper()) for name in (ours, telescope)]
            if names[0] != names[1] and not {"", "UNKNOWN"} & set(names):
                self._tell(
                    told,
                    f"{self.path} is a spectrum of {names[0]} and its {what} one of {names[1]} (TELESCOP); "
                    f"give the {label} that was made for this spectrum",
                    f"spectrum and {label} are of different telescopes (TELESCOP)",
                )


def _plain(values: Sequence[Any]) -> list[Any]:
    """Values that say something, as plain Python objects."""
    plain = [value.item() if isinstance(value, np.generic) else value for value in values]
    return [value for value in plain if not isinstance(value, np.ndarray) and value is not None and value != ""]


def _spectrum_tables(path: Path) -> tuple[list[Block], list[Block]]:
    """Tables of source spectra, and tables of backgrounds that stand beside them in the same file."""
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


def _is_type_two(table: Block) -> bool:
    """Tell whether each row of a table is a spectrum."""
    column = table.column("COUNTS" if "COUNTS" in table.column_names else "RATE")
    return column is not None and column.ndim > 1


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


def _embed(spectrum: Spectrum, first: int, n_chan: int, where: str, into: str, told: list[XlatentWarning]) -> Spectrum:
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
