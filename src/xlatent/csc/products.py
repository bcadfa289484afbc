"""What a file of the Chandra Source Catalog is and to which detection it belongs, by its headers and its name."""

import re
from collections.abc import Iterable
from pathlib import Path

from xlatent.core.errors import ReadError
from xlatent.csc.manifest import KINDS, Detection, Product
from xlatent.formats.companions import is_none
from xlatent.formats.fits_table import Block, blocks, choose
from xlatent.formats.ogip_response import ARF_NAMES, RMF_NAMES


def identify(path: Path, name: str | None = None) -> Product:
    """Tell by its headers, and by its name, what a file of the catalogue is and to which detection it belongs.

    Parameters
    ----------
    path
        The file; it is read whole.
    name
        Its name in the archive, if that is another.

    Raises
    ------
    ReadError
        If the file is damaged or cut short, is neither spectrum nor ARF nor RMF, or does not say to which detection it
        belongs, or its header and its name differ in that.
    """
    tables = blocks(path)
    with path.open("rb") as stream:
        packed = stream.read(2) == b"\x1f\x8b"
    # FITS files are made of blocks of 2880 bytes; gzip has a checksum.
    if (not packed and path.stat().st_size % 2880) or not sum(table.n_rows for table in tables):
        raise ReadError(f"{path} should be a FITS file with tables, and it is cut short; fetch it again")
    kind, table = _main_table(path, tables)
    ours = tuple(table.number(keyword) for keyword in ("OBS_ID", "OBI_NUM", "REGIONID"))
    theirs = detection_in(path.name if name is None else name) or (None, None, None)
    if any(a is not None and b is not None and a != b for a, b in zip(ours, theirs, strict=True)):
        raise ReadError(f"{path} is named for detection {_dotted(theirs)}, and its header says {_dotted(ours)}")
    key = [a if a is not None else b for a, b in zip(ours, theirs, strict=True)]
    if any(part is None for part in key):
        raise ReadError(f"{path} should say to which detection it belongs, and it says {_dotted(key)}")
    return Product(Detection(*(int(part) for part in key if part is not None)), kind)


def _main_table(path: Path, tables: list[Block]) -> tuple[str, Block]:
    """Kind of a product and the table that makes it one; what belongs beside that table must be there."""
    spectra = choose(tables, "SPECTRUM", None, ("SPECTRUM",))
    sources = [table for table in spectra if table.hduclas(2) != "BKG"]
    if sources and "COUNTS" in sources[0].column_names:
        if len(spectra) == len(sources) and not is_none(sources[0].keyword("BACKFILE")):
            raise ReadError(
                f"{path} should hold its background as a second SPECTRUM, and it holds none; it is cut short"
            )
        return KINDS[0], sources[0]
    matrices = choose(tables, "RESPONSE", ("RSP_MATRIX",), RMF_NAMES)
    if matrices and any(table.name.upper() == "EBOUNDS" for table in tables):
        return KINDS[2], matrices[0]
    areas = choose(tables, "RESPONSE", ("SPECRESP",), ARF_NAMES)
    if areas and not matrices:
        return KINDS[1], areas[0]
    held = ", ".join(table.name for table in tables)
    raise ReadError(f"{path} should be a whole spectrum, ARF or RMF, and it holds {held}; fetch it again")


def detection_in(name: str) -> Detection | None:
    """Tell a detection by a file name of the catalogue.

    Examples
    --------
    >>> detection_in("acisf01575_001N023_r0085_pha3.fits.gz")
    Detection(obsid=1575, obi=1, region_id=85)
    """
    match = re.match(r"[a-z]+f(\d+)_(\d+)N\d+(?:_e\d)?_r(\d+)", name)
    return Detection(*map(int, match.groups())) if match else None


def _dotted(key: Iterable[int | float | None]) -> str:
    return ".".join("?" if part is None else f"{part:.0f}" for part in key)
