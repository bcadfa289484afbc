"""Spectra from OGIP PHA files with the background and the response that belong to them (OGIP/92-007, 92-007a)."""

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from xlatent.core.errors import ParameterError, ReadError, XlatentWarning
from xlatent.core.spectrum import Spectrum
from xlatent.formats.companions import companion_of_one_name, existing, is_none, named_companion, stem
from xlatent.formats.ogip_response import FoundResponse, ResponseReader
from xlatent.formats.spectrum_table import (
    REMEDY,
    frame_time,
    identity,
    is_type_two,
    match_channels,
    read_table,
    spectrum_tables,
    unsuitable,
    value_of,
)

# Other names of telescopes in TELESCOP.
_TELESCOPES = {"CXC": "CHANDRA", "CXO": "CHANDRA", "AXAF": "CHANDRA"}


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
    >>> spectrum = xl.read(sample / "sim17_000.pha.gz")
    >>> spectrum.counts.size, spectrum.meta["mjd"]
    (1024, 53989.0)
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
        sources, self.backgrounds_inside = spectrum_tables(path)
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
                "net_counts",
            )
        self.is_type_two = is_type_two(self.table)
        self.n_spectra = self.table.n_rows if self.is_type_two else 1
        if not self.n_spectra:
            raise ReadError(f"{self.table.where} should hold at least one spectrum, and it has no rows; {REMEDY}")

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

    def _tell(self, told: list[XlatentWarning], text: str, kind: str, flag: str = "") -> None:
        told.append(XlatentWarning(text, kind, str(self.path), flag))

    def _complete(self, row: int | None, name: str) -> Spectrum:
        """Read one spectrum and join it with its background and response."""
        told = list(self.remarks)
        source = read_table(self.table, row)
        background = self._background(row, told)
        found = self._response(row, told)
        response = found.response if found is not None else None
        if response is not None:
            n_chan, where = response.chan_lo.size, response.meta["rmf"]
            source = match_channels(source, response.first_channel, n_chan, self.table.where, where, told)
        if background is not None:
            first = int(np.min(source.channels)) if source.channels is not None else 1
            n_chan, where = source.counts.size, background.meta["file"]
            background = match_channels(background, first, n_chan, where, self.table.where, [])
        meta: dict[str, Any] = {"name": name, "file": str(self.path), **identity(self.table, row)}
        frame = frame_time(self.table, row)
        if frame is not None:
            meta["frame_time"] = frame
        if found is not None:
            self._compare_telescopes(str(meta.get("telescope") or ""), found, told)
        if told:
            meta["warnings"] = [str(warning) for warning in told]
            self.told |= {str(warning): warning for warning in told}
        flags = [warning.flag for warning in told if warning.flag] + unsuitable(self.table, row, response)
        if flags:
            meta["flags"] = tuple(dict.fromkeys(flags))
        return replace(source, background=background, response=response, meta=meta)

    def _response(self, row: int | None, told: list[XlatentWarning]) -> FoundResponse | None:
        """Read ARF and RMF, where they are given, named or found; rows of one file that share them read them once."""
        # The rows of a file of type II have responses of their own, and one name would not tell them apart.
        by_name = row is None
        rmf = self._companion("RESPFILE", "response matrix", row, told, by_name)
        # An ARF that no one asks for would count the area of such an RMF twice.
        asked_for = self.given["ANCRFILE"] is not None or self.table.states("ANCRFILE")
        by_name = by_name and rmf is not None and (asked_for or not self.reader.holds_area(rmf))
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
                return read_table(self.backgrounds_inside[0], row)
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
        sources, inside = spectrum_tables(file)
        table = (inside or sources)[0]
        if is_type_two(table) and table.n_rows > 1:
            raise ReadError(
                f"{file}, the background of {self.path}, is a PHA file of type II with {table.n_rows} spectra, and a "
                "background should be one: extract the row that belongs to the spectrum into a file of its own and "
                "give that, or 'none'"
            )
        return read_table(table, None)

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
        value = value_of(self.table, keyword, row)
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
                "" if file is None else "guessed_background" if keyword == "BACKFILE" else "guessed_response",
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
                    "other_telescope",
                )
