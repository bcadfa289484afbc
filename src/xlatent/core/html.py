"""Short descriptions as HTML, for notebooks."""

from collections.abc import Iterable
from html import escape


def html_table(caption: str, rows: Iterable[tuple[str, object]]) -> str:
    """Lay out labels and what they say as a table of two columns; all text is escaped.

    Parameters
    ----------
    caption : str
        Stands above the table.
    rows : iterable of (str, object)
        Label of each row, and what stands beside it.

    Examples
    --------
    >>> html_table("Spectrum", [("counts", "< 5")])
    '<table><caption>Spectrum</caption><tr><th>counts</th><td>&lt; 5</td></tr></table>'
    """
    cells = "".join(f"<tr><th>{escape(label)}</th><td>{escape(str(what))}</td></tr>" for label, what in rows)
    return f"<table><caption>{escape(caption)}</caption>{cells}</table>"
