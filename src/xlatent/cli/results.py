"""What commands on latent tables share: lists of names, and results written."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from xlatent.core.errors import WriteError

if TYPE_CHECKING:
    from astropy.table import Table


RESULTS = (".ecsv", ".csv")


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
