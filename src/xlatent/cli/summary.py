"""What the terminal shows of a latent table: its rows if they are few, a digest if they are many."""

import sys
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xlatent.latents import LatentTable

MANY = 40


def summarise(table: "LatentTable") -> None:
    """Print a latent table for a person.

    Parameters
    ----------
    table : LatentTable
    """
    if len(table) > MANY:
        _print_digest(table)
    else:
        _print_rows(table)


def _print_rows(table: "LatentTable") -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=None, pad_edge=False, header_style="bold")
    shown.add_column("name", overflow="ellipsis", no_wrap=True, min_width=10)
    widths = {"counts": 6} | {f"z{i}": 4 for i in range(table.z.shape[1])} | {"cstat/expected": 10}
    for name, width in widths.items():
        shown.add_column(name, justify="right", no_wrap=True, min_width=width)
    shown.add_column("flags", overflow="fold", min_width=8)
    for row, z in zip(table.to_astropy(), table.z, strict=True):
        fit = f"{row['cstat']:.0f}/{row['cstat_expected']:.0f}"
        latents = (f"{value:+.1f}" for value in z)
        # A Text, as names may hold the brackets of rich's markup.
        shown.add_row(
            Text(str(row["name"])), f"{row['counts']:.0f}", *latents, fit, str(row["flags"]).replace(",", ", ")
        )
    # A pipe has no width of its own.
    Console(highlight=False, width=None if sys.stdout.isatty() else 140).print(shown)


def _print_digest(table: "LatentTable") -> None:
    import numpy as np

    excess = (np.asarray(table["cstat"]) - table["cstat_expected"]) / table["cstat_sigma"]
    flags = Counter(flag for row in table["flags"] for flag in str(row).split(",") if flag)
    tally = ", ".join(f"{flag} {number}" for flag, number in flags.most_common()) or "none"
    print(f"embedded  {len(table)}")
    print(
        f"counts    {min(table['counts']):.0f} to {max(table['counts']):.0f}, median {np.median(table['counts']):.0f}"
    )
    print(f"cstat     median excess over the expected value {np.median(excess):+.1f} standard deviations")
    print(f"flags     {tally}")
