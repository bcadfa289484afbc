"""Small HTML tables, as notebooks show objects."""

from collections.abc import Iterable
from html import escape


def html_table(heading: str, rows: Iterable[Iterable[object]]) -> str:
    r"""Write a heading and rows of cells as HTML.

    Examples
    --------
    >>> html_table("a & b", [("counts", 12)])
    '<p>a &amp; b</p>\n<table><tr><td>counts</td><td>12</td></tr></table>'
    """
    cells = ("".join(f"<td>{escape(str(cell))}</td>" for cell in row) for row in rows)
    return f"<p>{escape(heading)}</p>\n<table>{''.join(f'<tr>{row}</tr>' for row in cells)}</table>"
