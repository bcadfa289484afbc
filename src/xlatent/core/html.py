"""Short descriptions as HTML, for notebooks."""

from collections.abc import Iterable
from html import escape


def html_table(caption: str, rows: Iterable[tuple[str, str]]) -> str:
    """Lay out labels and what they say as a table of two columns; all text is escaped.

    Parameters
    ----------
    caption : str
        Stands above the table.
    rows : iterable of (str, str)
        Label and text of each row.

    Examples
    --------
    >>> html_table("Spectrum", [("counts", "< 5")])
    '<table><caption>Spectrum</caption><tr><th>counts</th><td>&lt; 5</td></tr></table>'
    """
    cells = "".join(f"<tr><th>{escape(label)}</th><td>{escape(text)}</td></tr>" for label, text in rows)
    return f"<table><caption>{escape(caption)}</caption>{cells}</table>"
