"""What commands on latent tables share: columns joined from another table, results printed and written."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from xlatent.core.errors import ReadError, WriteError

if TYPE_CHECKING:
    from astropy.table import Table

    from xlatent.core.latents import LatentTable

RESULTS = (".ecsv", ".csv")


def read_joined(path: Path, other: Path | None, wanted: Sequence[str]) -> "LatentTable":
    """Read a latent table, and the columns wanted of another table by the sources' names.

    Names are compared without spaces: ``name`` of the other table with ``source``, or else ``name``, of the latent
    table. Where both tables have a column, the other's is taken.

    Raises
    ------
    ReadError
        If a table cannot be read, neither has a column, the other names a source twice, or no name is in both.
    """
    import numpy as np
    from astropy.table import MaskedColumn

    from xlatent.core.latents import LatentTable
    from xlatent.formats import latent_tables

    table = latent_tables.read(path)
    extra = latent_tables.read_columns(other, ("name",)) if other is not None else None
    there = [] if extra is None else extra.colnames
    if absent := [name for name in wanted if name not in table.colnames and name not in there]:
        hint = (
            f"and {other} has {', '.join(there[:12])}" if extra is not None else "give a table that has it with --join"
        )
        raise ReadError(f"{path}: has no column {', '.join(absent)}, {hint}")
    if extra is None:
        return table
    names = [_plain(name) for name in extra["name"]]
    place = {name: row for row, name in enumerate(names)}
    if len(place) < len(names):
        twice = next(name for row, name in enumerate(names) if place[name] != row)
        raise ReadError(f"{other}: has several rows for {twice}; give a table with one row for each source")
    own = [_plain(name) for name in table["source" if "source" in table.colnames else "name"]]
    rows = np.array([place.get(name, -1) for name in own], int)
    if (rows < 0).all():
        raise ReadError(
            f"{other}: none of its names is in {path}, it has for example {names[0]!r}, and {path} has "
            f"{own[0] if own else 'no rows'!r}; give a table of the same sources"
        )
    columns = {name: table[name] for name in table.colnames}
    for name in [name for name in wanted if name in there]:
        column = np.ma.asarray(extra[name])
        columns[name] = MaskedColumn(column[rows], mask=np.ma.getmaskarray(column)[rows] | (rows < 0))
    return LatentTable(columns, table.meta)


def names_of(text: str) -> list[str]:
    """Names separated by commas, each once."""
    return list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def write(results: "Table", path: Path) -> None:
    """Write a table of results as ECSV or CSV, whole or not at all.

    Raises
    ------
    WriteError
        If the file cannot be written.
    """
    unfinished = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        results.write(unfinished, format={".ecsv": "ascii.ecsv", ".csv": "ascii.csv"}[path.suffix], overwrite=True)
        unfinished.replace(path)
    except OSError as error:
        raise WriteError(f"{path} cannot be written: {error.strerror or error}; choose another folder") from error
    finally:
        unfinished.unlink(missing_ok=True)


def _plain(name: object) -> str:
    return "".join(str(name).split())
