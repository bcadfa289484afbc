"""What the terminal shows of a latent table: its rows if they are few, a digest if they are many."""

import sys
from collections import Counter
from typing import Any

MANY = 40
COUNTED = ("counts", "cstat", "cstat_expected", "cstat_sigma", "flags")
SHOWN = ("name", *COUNTED, *(f"z{i}" for i in range(8)))
"""Columns that `summarise` wants: of more than `MANY` rows only those `COUNTED`."""


def summarise(table: Any) -> None:
    """Print a latent table for a person.

    Parameters
    ----------
    table : LatentTable or dict
        The columns `SHOWN` by name; of more than `MANY` rows those `COUNTED` are enough.
    """
    if len(table["flags"]) > MANY:
        _print_digest(table)
    else:
        _print_rows(table)


def _print_rows(table: Any) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=None, pad_edge=False, header_style="bold")
    shown.add_column("name", overflow="ellipsis", no_wrap=True, min_width=10)
    latents = [name for name in SHOWN if name.startswith("z")]
    widths = {"counts": 6} | dict.fromkeys(latents, 4) | {"cstat/expected": 10}
    for name, width in widths.items():
        shown.add_column(name, justify="right", no_wrap=True, min_width=width)
    shown.add_column("flags", overflow="fold", min_width=8)
    for i, name in enumerate(table["name"]):
        z = (f"{table[latent][i]:+.1f}" for latent in latents)
        fit = f"{table['cstat'][i]:.0f}/{table['cstat_expected'][i]:.0f}"
        # A Text, as names may hold the brackets of rich's markup.
        shown.add_row(Text(str(name)), f"{table['counts'][i]:.0f}", *z, fit, str(table["flags"][i]).replace(",", ", "))
    # A pipe has no width of its own.
    Console(highlight=False, width=None if sys.stdout.isatty() else 140).print(shown)


def _print_digest(table: Any) -> None:
    import numpy as np

    cstat, expected, sigma = (np.asarray(table[name]) for name in ("cstat", "cstat_expected", "cstat_sigma"))
    excess = (cstat - expected) / sigma
    flags = Counter(flag for row in table["flags"] for flag in str(row).split(",") if flag)
    tally = ", ".join(f"{flag} {number}" for flag, number in flags.most_common()) or "none"
    print(f"embedded  {len(table['flags'])}")
    print(
        f"counts    {min(table['counts']):.0f} to {max(table['counts']):.0f}, median {np.median(table['counts']):.0f}"
    )
    print(f"cstat     median excess over the expected value {np.median(excess):+.1f} standard deviations")
    print(f"flags     {tally}")
