"""The report of an evaluation: one HTML page that needs nothing else, and the numbers as JSON."""

import base64
import json
import os
from collections.abc import Mapping, Sequence
from importlib import resources
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import Table

from xlatent.core.atomic import atomic
from xlatent.core.errors import WriteError
from xlatent.core.extras import requires_extra
from xlatent.figures.style import save
from xlatent.workflows.evaluation.figures import Captioned
from xlatent.workflows.evaluation.sections import ENDS, Section

_MAX_ROWS = 60
_HEADS = {"n_sources": "sources", "n_rows": "rows", "n_spectra": "spectra", "r2": "R²", "mi": "information"}


def prepare_folder(folder: Path) -> None:
    """Make sure, before any work, that a report can be written.

    Raises
    ------
    WriteError
        If the folder cannot be made or written to.
    XlatentError
        If jinja2 is missing.
    """
    with requires_extra("science", "jinja2"):
        import jinja2  # noqa: F401
    try:
        (folder / "figures").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError(f"{folder} cannot be made ({error.strerror or error}); choose another folder") from error
    if not os.access(folder, os.W_OK):
        raise WriteError(f"{folder} is read-only; choose another folder")


def write_report(
    folder: Path,
    title: str,
    notes: Sequence[str],
    sections: Sequence[Section],
    figures: Mapping[str, Mapping[str, Captioned]],
    about: Mapping[str, Any],
) -> Path:
    """Write ``report.html``, ``report.json`` and the figures, each as PNG and PDF, into a folder.

    Parameters
    ----------
    folder : Path
        That `prepare_folder` made.
    title : str
    notes : sequence of str
        Sentences on the first page.
    sections : sequence of Section
        Those of one title stand together.
    figures : mapping of mapping
        By the sections' key, figures with captions by file name.
    about : mapping
        Origin of the numbers: ``model``, ``model_sha256``, ``software``, ``seed``, ``data``.

    Returns
    -------
    Path
        The HTML page. It has everything in itself.

    Raises
    ------
    WriteError
        If a file cannot be written.
    """
    import jinja2

    for_page, for_json = [], []
    for (key, heading), of_each in groupby(sections, key=lambda section: (section.key, section.title)):
        group = list(of_each)
        pictures = []
        for name, (figure, caption) in figures.get(key, {}).items():
            save(figure, folder / "figures" / f"{name}.pdf")
            picture = save(figure, folder / "figures" / f"{name}.png").read_bytes()
            pictures.append((base64.b64encode(picture).decode(), caption, round(96 * figure.get_figwidth())))
        tables = [(section.dataset, one) for section in group for one in section.tables]
        remarks = [f"{section.dataset}: {note}" for section in group for note in section.notes]
        for_page.append((heading, [(one.caption, *_cells(one.table)) for _, one in tables], pictures, remarks))
        for_json.append(
            {
                "key": key,
                "title": heading,
                "tables": [
                    {"key": one.key, "dataset": dataset, "caption": one.caption, "rows": _json_rows(one.table)}
                    for dataset, one in tables
                ],
                "notes": remarks,
                "figures": list(figures.get(key, {})),
            }
        )
    template = resources.files("xlatent.workflows.evaluation").joinpath("report.html").read_text(encoding="utf-8")
    page = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(template)
    html = page.render(title=title, notes=notes, sections=for_page, about=about)
    numeric_column = {**about, "notes": list(notes), "parts": for_json}
    with atomic(folder / "report.json") as temporary:
        text = json.dumps(numeric_column, indent=1, ensure_ascii=False, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")
    with atomic(folder / "report.html") as temporary:
        temporary.write_text(html, encoding="utf-8")
    return folder / "report.html"


def _json_rows(table: Table) -> list[dict[str, Any]]:
    """Rows for JSON, what is missing as null."""

    def plain(value: Any) -> Any:
        value = value.item() if isinstance(value, np.generic) else value
        return None if isinstance(value, float) and not np.isfinite(value) else value

    return [{name: plain(row[name]) for name in table.colnames} for row in table]


def _cells(table: Table) -> tuple[list[str], list[list[tuple[str, str]]], int]:
    """Heads, rows of (value, limits), and how many rows were left out; limits stand with their value."""
    heads = [name for name in table.colnames if not (name.endswith(ENDS[1:]) and name[:-6] in table.colnames)]
    rows = []
    for row in table[:_MAX_ROWS]:
        cells = []
        for name in heads:
            limits = ""
            if f"{name}_lolim" in table.colnames and np.isfinite(row[f"{name}_lolim"]):
                limits = f"{_format(name, row[f'{name}_lolim'])} to {_format(name, row[f'{name}_hilim'])}"
            cells.append((_format(name, row[name]), limits))
        rows.append(cells)
    return [_HEADS.get(name, name) for name in heads], rows, len(table) - len(rows)


def _format(name: str, entry: Any) -> str:
    if not isinstance(entry, float | np.floating):
        return str(entry)
    value = float(entry)
    if not np.isfinite(value):
        return "–"
    if name in ("p", "q") and value < 0.01:
        return f"{value:.1g}"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}" if abs(value) < 1000 else f"{value:.0f}"
