"""Lists of spectra to read, from files, folders, patterns and manifests."""

import csv
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xlatent.core.errors import ReadError, XlatentWarning
from xlatent.formats.companions import companion_of_one_name, is_none, named_companion, stem
from xlatent.formats.fits_table import headers, is_fits

if TYPE_CHECKING:
    from xlatent.core.spectrum import Spectrum
    from xlatent.formats.ogip_response import ResponseReader

SHARDS = (".hdf5", ".h5")
"""Suffixes of files of the Multimodal Universe, which hold many spectra each."""


@dataclass(frozen=True)
class Source:
    """One file to read; what is None is left to the header of the PHA file, ``none`` means that there is none."""

    name: str
    pha: Path
    arf: Path | None = None
    rmf: Path | None = None
    background: Path | None = None
    guessed: bool = False  # the response, by the folder it is in

    def read(self, *, responses: "ResponseReader | None" = None, spread: bool = False) -> "list[Spectrum]":
        """Read all spectra of the file.

        Parameters
        ----------
        responses : ResponseReader, optional
            Keeps responses, so that spectra that have the same share it; several threads may use one.
        spread : bool
            Share the counts of a group evenly among its channels; of files of the Multimodal Universe, see
            `multimodal_universe.read`.

        Raises
        ------
        ReadError, ResponseError
            If a file is missing, damaged, or not what it should be.
        XlatentError
            If it is a file of the Multimodal Universe, and h5py is not installed.

        Examples
        --------
        >>> import xlatent as xl
        >>> sample = Path(xl.__file__).parent / "sample"
        >>> [spectrum.name for spectrum in Source("mine", sample / "sim17_000.pha.gz").read()]
        ['mine']
        """
        from xlatent.formats.ogip_response import ResponseReader

        responses = responses if responses is not None else ResponseReader()
        if self.pha.suffix in SHARDS:
            from xlatent.formats import multimodal_universe

            return multimodal_universe.read(self.pha, responses.nominal, spread=spread)
        from xlatent.formats.ogip_spectrum import read_spectra

        spectra = read_spectra(self.pha, self.arf, self.rmf, self.background, self.name, responses=responses)
        if self.guessed:
            for spectrum in spectra:
                spectrum.meta["flags"] = ("guessed_response", *spectrum.meta.get("flags", ()))
        return spectra


def read_all(
    inputs: str | Path | Iterable[str | Path], *, responses: "ResponseReader | None" = None, spread: bool = False
) -> "list[Spectrum]":
    """Read the spectra of many files with their backgrounds and responses.

    Parameters
    ----------
    inputs : str or Path, or several of them
        PHA file (of type II: every row of it), folder, pattern, manifest or file of the Multimodal Universe, as `find`
        takes them.
    responses : ResponseReader, optional
        Keeps responses between calls. Within a call, spectra that have the same share it.
    spread : bool
        Share the counts of a group evenly among its channels; of files of the Multimodal Universe, see
        `multimodal_universe.read`.

    Returns
    -------
    list of Spectrum
        In the order of the inputs, each file once, with names of which no two are equal.

    Raises
    ------
    ReadError, ResponseError
        If an input does not exist or holds no spectrum, or a spectrum cannot be read.

    Warns
    -----
    XlatentWarning
        Where something was repaired, assumed or passed over.

    Examples
    --------
    >>> import xlatent as xl
    >>> sample = Path(xl.__file__).parent / "sample"
    >>> [spectrum.name for spectrum in xl.read_all(sample)][:2]
    ['sim17_000', 'sim17_001']
    """
    from xlatent.formats.ogip_response import ResponseReader

    responses = responses if responses is not None else ResponseReader()
    given = [inputs] if isinstance(inputs, str | Path) else list(inputs)
    return [spectrum for source in find(given) for spectrum in source.read(responses=responses, spread=spread)]


def find(inputs: Sequence[str | Path]) -> list[Source]:
    """Find the files that a list of inputs stands for.

    Parameters
    ----------
    inputs : sequence of str or Path
        Each one a PHA file (taken as it is), a manifest (``.csv`` with columns ``name, pha, arf, rmf, background``, of
        which only ``pha`` must be there; paths relative to it), a folder (searched with all folders in it) or a
        pattern with ``*``, ``?``, ``[]`` or ``**``. Among the files of folders and patterns those are taken that hold a
        source spectrum: no responses, no backgrounds. Where the header of such a spectrum names no response, and its
        folder holds one RMF, at most one ARF and no other source spectrum, these are taken, with a warning.

    Returns
    -------
    list of Source
        In the order of the inputs, each once, with names of which no two are equal.

    Raises
    ------
    ReadError
        If an input does not exist, or no spectrum is found in it.

    Warns
    -----
    XlatentWarning
        Where a damaged file was passed over, or a response was found by its folder.

    Examples
    --------
    >>> import xlatent as xl
    >>> sample = Path(xl.__file__).parent / "sample"
    >>> [source.name for source in find([sample / "sim17_000.pha.gz"])]
    ['sim17_000']
    """
    found: list[Source] = []
    told: list[XlatentWarning] = []
    for item in inputs:
        sources = list(_expand(item, told))
        if not sources:
            raise ReadError(
                f"{item} should hold at least one source spectrum (an extension with HDUCLAS1 = SPECTRUM), and it "
                "holds none; give PHA files, a folder or a manifest"
            )
        found.extend(sources)
    for warning in {str(warning): warning for warning in told}.values():
        warnings.warn(warning, stacklevel=2)
    return _named_apart(list(dict.fromkeys(found)))


def _expand(item: str | Path, told: list[XlatentWarning]) -> Iterator[Source]:
    """List the files of one input."""
    path = Path(item)
    if path.is_dir():
        shards = sorted(path.rglob("*.hdf5"))  # of the Multimodal Universe: many spectra each
        yield from (Source(stem(file), file) for file in shards)
        yield from _spectra_among((file for file in path.rglob("*") if not file.name.startswith(".")), told)
    elif path.suffix.lower() == ".csv" and path.exists():
        yield from _manifest(path)
    elif path.exists():
        yield Source(stem(path), path)
    elif any(mark in str(item) for mark in "*?["):
        start = Path(path.anchor or ".")
        matches = list(start.glob(str(path.relative_to(path.anchor) if path.anchor else path)))
        if not matches:
            raise ReadError(f"{item} should match at least one file, and it matches none; check the pattern")
        yield from _spectra_among(matches, told)
    else:
        raise ReadError(f"{item} does not exist; give a PHA file, a folder, a pattern or a manifest")


def _manifest(path: Path) -> list[Source]:
    """Read the rows of a manifest."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            rows = [
                {(key or "").strip().lower(): value for key, value in row.items()} for row in csv.DictReader(stream)
            ]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ReadError(f"{path} cannot be read as a manifest ({error}); give a CSV file in UTF-8") from None
    if rows and "pha" not in rows[0]:
        columns = ", ".join(sorted(rows[0]))
        raise ReadError(f"{path} should have a column pha, and its columns are {columns}; name them in the first line")
    sources = []
    for number, row in enumerate(rows, start=1):
        cells = {key: str(row.get(key) or "").strip() for key in ("name", "pha", "arf", "rmf", "background")}
        if is_none(cells["pha"]):
            raise ReadError(f"{path}: row {number} should name a file in column pha, and it is empty; fill it in")
        files = {
            key: None if not cells[key] else Path("none") if is_none(cells[key]) else path.parent / cells[key]
            for key in ("arf", "rmf", "background")
        }
        pha = path.parent / cells["pha"]
        sources.append(Source(cells["name"] or stem(pha), pha, files["arf"], files["rmf"], files["background"]))
    return sources


def _spectra_among(files: Iterable[Path], told: list[XlatentWarning]) -> list[Source]:
    """Pick the files that hold source spectra and serve none of the others as background."""
    spectra = _spectra(_contents(files, told))
    backgrounds = set()
    for file, table in spectra.items():
        background = _background(file, table)
        if background != file:  # files of the Chandra Source Catalog hold their own background
            backgrounds.add(background)
    kept = {file: table for file, table in spectra.items() if file not in backgrounds}
    in_folder = Counter(file.parent for file in kept)
    return [
        _with_lone_response(Source(stem(file), file), told)
        if is_none(table.get("RESPFILE")) and in_folder[file.parent] == 1
        else Source(stem(file), file)
        for file, table in kept.items()
    ]


def _background(file: Path, table: dict[str, Any]) -> Path | None:
    """Find the background of a spectrum, as `ogip_spectrum.read` does."""
    if "BACKFILE" not in table:
        return companion_of_one_name(file, "BACKFILE")
    named = table["BACKFILE"]
    if is_none(named):
        return None
    return named_companion(file, str(named)) or companion_of_one_name(file, "BACKFILE")


def _contents(files: Iterable[Path], told: list[XlatentWarning]) -> dict[Path, list[dict[str, Any]]]:
    """Describe the extensions of those files that are FITS files."""
    found = {}
    for file in sorted(files):
        if file.is_file() and is_fits(file):
            try:
                found[file] = headers(file)
            except ReadError as error:
                told.append(XlatentWarning(f"{error}; it was passed over", "a damaged file was passed over", str(file)))
    return found


def _spectra(contents: dict[Path, list[dict[str, Any]]]) -> dict[Path, dict[str, Any]]:
    """Find the first source spectrum of each file that holds one."""
    found = {}
    for file, tables in contents.items():
        sources = [table for table in tables if _is_source(table)]
        if sources:
            found[file] = sources[0]
    return found


def _is_source(table: dict[str, Any]) -> bool:
    """Tell whether an extension holds a source spectrum: by HDUCLAS or, where that is missing, by name."""
    kind = str(table.get("HDUCLAS1") or table.get("EXTNAME") or "").upper()
    return kind == "SPECTRUM" and str(table.get("HDUCLAS2") or "").upper() != "BKG"


def _with_lone_response(source: Source, told: list[XlatentWarning]) -> Source:
    """Pair a spectrum that names no response with the only RMF and ARF of its folder."""
    contents = _contents(source.pha.parent.iterdir(), told)
    rmfs, arfs = (
        [file for file, tables in contents.items() if any(table.get("HDUCLAS2") == kind for table in tables)]
        for kind in ("RSP_MATRIX", "SPECRESP")
    )
    if len(rmfs) != 1 or len(arfs) > 1:
        return source
    names = " and ".join(file.name for file in (*rmfs, *arfs))
    text = (
        f"{source.pha} names no response and is read with {names}, the only ones in its folder; "
        "give a manifest if that is wrong"
    )
    kind = "a spectrum names no response and is read with the only one in its folder"
    told.append(XlatentWarning(text, kind, str(source.pha)))
    return replace(source, rmf=rmfs[0], arf=arfs[0] if arfs else None, guessed=True)


def _named_apart(sources: list[Source]) -> list[Source]:
    """Give sources of equal names the name of their folder too and, if that is not enough, a number."""
    times = Counter(source.name for source in sources)
    taken = {name for name, number in times.items() if number == 1}
    apart = []
    for source in sources:
        name = source.name
        if times[name] > 1:
            base = name = f"{source.pha.resolve().parent.name}_{source.name}"
            number = 1
            while name in taken:
                number += 1
                name = f"{base}_{number}"
            taken.add(name)
        apart.append(replace(source, name=name))
    return apart
