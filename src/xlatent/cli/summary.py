"""What the terminal shows of a latent table: its rows if they are few, a digest if they are many."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from xlatent.cli.ui import print_table

MANY = 40
COUNTED = ("counts", "cstat", "cstat_expected", "cstat_sigma", "flags")
_LATENTS = tuple(f"z{i}" for i in range(8))
SHOWN = ("name", *COUNTED, *_LATENTS)
"""Columns that `summarise` wants: of more than `MANY` rows only those `COUNTED`."""


def summarise(columns: Mapping[str, Sequence[Any]]) -> None:
    """Print a latent table for a person.

    Parameters
    ----------
    columns : mapping
        The columns `SHOWN` by name; of more than `MANY` rows those `COUNTED` are enough.
    """
    if len(columns["flags"]) > MANY:
        _print_digest(columns)
    else:
        _print_rows(columns)


def _print_rows(columns: Mapping[str, Sequence[Any]]) -> None:
    fits = zip(columns["cstat"], columns["cstat_expected"], strict=True)
    shown = {
        "name": [str(name) for name in columns["name"]],
        "counts": [f"{counts:.0f}" for counts in columns["counts"]],
        **{name: [f"{z:+.1f}" for z in columns[name]] for name in _LATENTS},
        "cstat/expected": [f"{cstat:.0f}/{expected:.0f}" for cstat, expected in fits],
        "flags": [str(flags).replace(",", ", ") for flags in columns["flags"]],
    }
    widths = {"name": 10, "counts": 6} | dict.fromkeys(_LATENTS, 4) | {"cstat/expected": 10, "flags": 8}
    print_table(shown, words=("name", "flags"), shortened=("name",), min_width=widths)


def _print_digest(columns: Mapping[str, Sequence[Any]]) -> None:
    import numpy as np

    counts, cstat, expected, sigma = (np.asarray(columns[name]) for name in COUNTED[:4])
    excess = (cstat - expected) / sigma
    flags = Counter(flag for row in columns["flags"] for flag in str(row).split(",") if flag)
    tally = ", ".join(f"{flag} {number}" for flag, number in flags.most_common()) or "none"
    print(f"embedded  {counts.size}")
    print(f"counts    {counts.min():.0f} to {counts.max():.0f}, median {np.median(counts):.0f}")
    print(f"cstat     median excess over the expected value {np.median(excess):+.1f} standard deviations")
    print(f"flags     {tally}")
