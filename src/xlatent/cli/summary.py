"""What the terminal shows of a latent table: its rows if they are few, a digest if they are many."""

from collections import Counter
from typing import Any

from xlatent.cli.ui import print_table

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
    latents = [name for name in SHOWN if name.startswith("z")]
    columns = {"name": [str(name) for name in table["name"]], "counts": [f"{value:.0f}" for value in table["counts"]]}
    columns |= {name: [f"{value:+.1f}" for value in table[name]] for name in latents}
    fits = zip(table["cstat"], table["cstat_expected"], strict=True)
    columns["cstat/expected"] = [f"{cstat:.0f}/{expected:.0f}" for cstat, expected in fits]
    columns["flags"] = [str(flags).replace(",", ", ") for flags in table["flags"]]
    widths = {"name": 10, "counts": 6, **dict.fromkeys(latents, 4), "cstat/expected": 10, "flags": 8}
    print_table(columns, words=("name", "flags"), shortened=("name",), min_width=widths)


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
