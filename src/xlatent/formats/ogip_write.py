"""Spectra written as OGIP files: PHA, background, ARF and RMF that Sherpa and XSPEC read."""

from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from scipy.sparse import csr_array

from xlatent.core.atomic import atomic
from xlatent.core.errors import WriteError
from xlatent.core.spectrum import Response, Spectrum


def write(spectrum: Spectrum, folder: str | Path, name: str) -> Path:
    """Write ``NAME.pha`` and, where there are any, ``NAME_bkg.pha``, ``NAME.arf`` and ``NAME.rmf``.

    Each file appears whole or not at all, and the PHA file, whose header names the others, comes last. Files of the
    same names are replaced.

    Parameters
    ----------
    spectrum : Spectrum
        What to write.
    folder : str or Path
        Where; made if it does not exist.
    name : str
        Stem of the file names.

    Returns
    -------
    Path
        The PHA file.

    Raises
    ------
    WriteError
        If the name is no file name or the folder cannot be written to.

    Examples
    --------
    >>> path = write(Spectrum(np.array([3.0, 0.0, 1.0]), exposure=1000.0), "written", "mine")
    >>> path.name
    'mine.pha'
    """
    folder = Path(folder)
    if not name or Path(name).name != name:
        raise WriteError(f"{name!r} cannot name the files of a spectrum in {folder}; give a name without slashes")
    companions = {"ANCRFILE": "none", "RESPFILE": "none", "BACKFILE": "none"}
    first = spectrum.response.first_channel if spectrum.response is not None else None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if spectrum.response is not None:
            companions["ANCRFILE"], companions["RESPFILE"] = f"{name}.arf", f"{name}.rmf"
            _save(folder / companions["ANCRFILE"], [_arf(spectrum.response)])
            _save(folder / companions["RESPFILE"], _rmf(spectrum.response))
        if spectrum.background is not None:
            companions["BACKFILE"] = f"{name}_bkg.pha"
            none = dict.fromkeys(companions, "none")
            _save(folder / companions["BACKFILE"], [_pha(spectrum.background, "BKG", none, first)])
        path = folder / f"{name}.pha"
        _save(path, [_pha(spectrum, "TOTAL", companions, first)])
    except OSError as error:
        raise WriteError(f"{folder} cannot be written to ({error.strerror or error}); give another folder") from None
    return path


def _save(path: Path, tables: list[fits.BinTableHDU]) -> None:
    """Write tables as a file."""
    with atomic(path) as temporary:
        fits.HDUList([fits.PrimaryHDU(), *tables]).writeto(temporary)


def _table(name: str, columns: list[fits.Column], keywords: dict[str, Any]) -> fits.BinTableHDU:
    table = fits.BinTableHDU.from_columns(columns, name=name)
    table.header.update({"HDUCLASS": "OGIP", **keywords})
    return table


def _origin(meta: dict[str, Any]) -> dict[str, Any]:
    """Name telescope and instrument, which OGIP wants in every file."""
    return {
        "TELESCOP": str(meta.get("telescope", "UNKNOWN")),
        "INSTRUME": str(meta.get("instrument", "UNKNOWN")),
        "FILTER": "NONE",
    }


def _pha(spectrum: Spectrum, hduclas2: str, companions: dict[str, str], first: int | None) -> fits.BinTableHDU:
    """Make the table of a spectrum (OGIP/92-007)."""
    n_chan = spectrum.counts.size
    channels = np.asarray(spectrum.channels)
    if first is not None:
        channels = np.arange(first, first + n_chan)
    whole = bool(np.all(spectrum.counts == np.rint(spectrum.counts)) and np.all(spectrum.counts < 2**31))
    columns = [
        fits.Column("CHANNEL", "J", array=channels),
        fits.Column("COUNTS", "J" if whole else "D", unit="count", array=spectrum.counts),
    ]
    keywords: dict[str, Any] = {
        "HDUCLAS1": "SPECTRUM",
        "HDUCLAS2": hduclas2,
        "HDUCLAS3": "COUNT",
        "HDUCLAS4": "TYPE:I",
        "HDUVERS": "1.2.1",
        "TLMIN1": int(channels[0]),
        "TLMAX1": int(channels[-1]),
        "CHANTYPE": "PI",
        "DETCHANS": n_chan,
        "POISSERR": True,
        "SYS_ERR": 0,
        "CORRFILE": "none",
        "CORRSCAL": 1.0,
        "EXPOSURE": spectrum.exposure,
        **companions,
        **_origin(spectrum.meta or (spectrum.response.meta if spectrum.response is not None else {})),
    }
    for keyword, value in (("BACKSCAL", spectrum.backscale), ("AREASCAL", spectrum.areascale)):
        if isinstance(value, np.ndarray):
            columns.append(fits.Column(keyword, "D", array=value))
        else:
            keywords[keyword] = value
    for keyword, flags in (("QUALITY", spectrum.quality), ("GROUPING", spectrum.grouping)):
        if flags is None:
            keywords[keyword] = 0
        else:
            columns.append(fits.Column(keyword, "I", array=flags))
    for keyword, key in (
        ("OBJECT", "object"),
        ("OBS_ID", "obsid"),
        ("OBI_NUM", "obi"),
        ("REGIONID", "region_id"),
        ("DATE-OBS", "date"),
        ("MJD-OBS", "mjd"),
        ("RA", "ra"),
        ("DEC", "dec"),
    ):
        if key in spectrum.meta:
            value = spectrum.meta[key]
            # FITS headers are ASCII.
            keywords[keyword] = value.encode("ascii", "replace").decode() if isinstance(value, str) else value
    return _table("SPECTRUM", columns, keywords)


def _grid(response: Response) -> list[fits.Column]:
    return [
        fits.Column("ENERG_LO", "E", unit="keV", array=response.energy_lo),
        fits.Column("ENERG_HI", "E", unit="keV", array=response.energy_hi),
    ]


def _arf(response: Response) -> fits.BinTableHDU:
    """Make the table of effective areas (OGIP CAL/GEN/92-002)."""
    columns = [*_grid(response), fits.Column("SPECRESP", "E", unit="cm**2", array=response.area)]
    keywords = {"HDUCLAS1": "RESPONSE", "HDUCLAS2": "SPECRESP", "HDUVERS": "1.1.0", **_origin(response.meta)}
    return _table("SPECRESP", columns, keywords)


def _rmf(response: Response) -> list[fits.BinTableHDU]:
    """Make the tables of the redistribution matrix, zeros left out, and of channel energies (OGIP CAL/GEN/92-002)."""
    matrix = csr_array(response.redistribution, copy=True)
    matrix.eliminate_zeros()
    matrix.sort_indices()
    n_energy, n_chan = matrix.shape
    row = np.repeat(np.arange(n_energy), np.diff(matrix.indptr))
    # A group of channels begins with every row, and wherever a channel does not follow the one before it.
    begins = np.flatnonzero(np.diff(row, prepend=-1) | (np.diff(matrix.indices, prepend=-2) != 1))
    length = np.diff(begins, append=matrix.nnz)
    n_grp = np.bincount(row[begins], minlength=n_energy)
    cut = np.cumsum(n_grp)[:-1]
    columns = [
        *_grid(response),
        fits.Column("N_GRP", "I", array=n_grp),
        _rows("F_CHAN", "PJ", np.split(matrix.indices[begins] + response.first_channel, cut)),
        _rows("N_CHAN", "PJ", np.split(length, cut)),
        _rows("MATRIX", "PE", np.split(matrix.data, matrix.indptr[1:-1])),
    ]
    keywords = {
        "HDUCLAS1": "RESPONSE",
        "HDUCLAS2": "RSP_MATRIX",
        "HDUCLAS3": "REDIST",
        "HDUVERS": "1.3.0",
        "CHANTYPE": "PI",
        "DETCHANS": n_chan,
        "TLMIN4": response.first_channel,
        "TLMAX4": response.first_channel + n_chan - 1,
        "NUMGRP": int(n_grp.sum()),
        "NUMELT": int(matrix.nnz),
        **_origin(response.meta),
    }
    bounds = [
        fits.Column("CHANNEL", "J", array=np.arange(response.first_channel, response.first_channel + n_chan)),
        fits.Column("E_MIN", "E", unit="keV", array=response.chan_lo),
        fits.Column("E_MAX", "E", unit="keV", array=response.chan_hi),
    ]
    keywords_bounds = {
        "HDUCLAS1": "RESPONSE",
        "HDUCLAS2": "EBOUNDS",
        "HDUVERS": "1.2.0",
        "CHANTYPE": "PI",
        "DETCHANS": n_chan,
        "TLMIN1": response.first_channel,
        "TLMAX1": response.first_channel + n_chan - 1,
        **_origin(response.meta),
    }
    return [_table("MATRIX", columns, keywords), _table("EBOUNDS", bounds, keywords_bounds)]


def _rows(name: str, form: str, rows: list[np.ndarray]) -> fits.Column:
    """Make a column of rows of variable length."""
    cells = np.empty(len(rows), dtype=object)
    for index, values in enumerate(rows):
        cells[index] = values
    return fits.Column(name, f"{form}({max(len(values) for values in rows)})", array=cells)
