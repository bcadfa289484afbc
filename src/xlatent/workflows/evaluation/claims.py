"""The claims of the paper (arXiv:2510.14102), with ours and the baselines beside them."""

import re
from typing import Any

import numpy as np
from astropy.table import Table

from xlatent.workflows.evaluation.sections import ENDS, HARDNESS, LATENTS, PAPER, PCA, Part

Limits = tuple[float, float, float]
_NOTHING: Limits = (np.nan, np.nan, np.nan)
_LOWEST = ", the lowest"
# Of the abstract; it gives no numbers of the others.
_PAPER = {"8 classes": "0.40", "AGN against compact": "0.69"}


def claims(parts: dict[str, dict[str, Part]], most_labelled: str) -> Table:
    """What the paper claims (arXiv:2510.14102), with ours and the baselines beside it.

    Parameters
    ----------
    parts : dict
        Of each data set by name, its parts by the names of the functions of this module that filled them.
    most_labelled : str
        Data set whose classes are spoken of.
    """
    named = ("claim", "paper", "how", LATENTS, HARDNESS, PCA, PAPER, "from")
    rows: list[tuple] = []

    def add(claim: str, paper: str, how: str, found: dict[str, Limits], where: str) -> None:
        if LATENTS in found:
            rows.append((claim, paper, how, *(found.get(of, _NOTHING) for of in named[3:7]), where))

    for name, of_data in parts.items():
        part = of_data.get("reconstruction", Part(""))
        how = "median excess of the statistic over its expected value, in σ"
        add("reconstruction", "accurate", how, _of(part, "Reconstruction", "value", score="median"), name)
        how = "share of spectra within 3 σ"
        add("reconstruction", "accurate", how, _of(part, "Reconstruction", "value", score="share"), name)
    grouped = parts.get(most_labelled, {})
    for task in dict.fromkeys(str(row["task"]) for row in _rows(grouped.get("clusters", Part("")), "Clusters")):
        for method in ("mixture of 8", "mixture, BIC"):
            found = _of(grouped.get("clusters", Part("")), "Clusters", "balanced accuracy", task=task, method=method)
            add(f"clusters: {task}", _PAPER.get(task, "–"), f"{method}, balanced accuracy", found, most_labelled)
    part = grouped.get("classification", Part(""))
    for score in ("balanced accuracy", "AGN against compact"):
        told = _of(part, "Classification", score, key="from")
        task = "all classes" if score == "balanced accuracy" else score
        add(f"classifier: {task}", "–", "balanced accuracy, five-fold", told, most_labelled)
        extra = {key.partition(" + ")[2] for key in told if key.startswith(f"{LATENTS} + ")}
        for more in sorted(extra, key=len):
            both = {of: told[f"{of} + {more}"] for of in (LATENTS, HARDNESS)}
            add(f"classifier: {task}", "–", f"the same with {more.replace(' + ', ', ')}", both, most_labelled)
    for name, of_data in parts.items():
        part = of_data.get("regression", Part(""))
        for pattern, what in (
            (r"hard_\w\w", "hardness ratios"),
            (r".*_nh.*|nh", "N_H"),
            (r".*gamma.*", "photon index"),
        ):
            every = {column: _of(part, "R²", "boosting", target=column) for column in _targets(part, "R²", pattern)}
            if worst := _first(every, 1.0):
                how = f"R² of {worst}, boosted trees{_LOWEST * (len(every) > 1)}"
                add(f"regression: {what}", "in words", how, every[worst], name)
        part = of_data.get("expressions", Part(""))
        for pattern, what in ((r"hard_\w\w", "hardness ratios from z"), (r"z\d", "latents from band fluxes")):
            longest = {str(row["target"]): row for row in _rows(part, "Formulas")}
            every = {
                column: {LATENTS: _limits(longest[column], "r2")} for column in _targets(part, "Formulas", pattern)
            }
            if worst := _first(every, 1.0):
                how = f"R² of {worst}, held out{_LOWEST * (len(every) > 1)}"
                add(f"formulas: {what}", "in words", how, every[worst], name)
        part = of_data.get("variability", Part(""))
        heard = list(dict.fromkeys(str(row["column"]) for row in _rows(part, "Mutual")))
        every = {column: _of(part, "Mutual", "mi", column=column) for column in heard}
        if best := _first(every, -1.0):
            q = next(r["q"] for r in _rows(part, "Mutual") if r["column"] == best and r["of"] == LATENTS)
            how = f"mutual information with {best} in nat, q = {q:.1g}{', the highest' * (len(every) > 1)}"
            add("variability", "in words", how, every[best], name)
    columns: dict[str, list] = {name: [row[i] for row in rows] for i, name in enumerate(named)}
    split = {of + end: [one[i] for one in columns[of]] for of in named[3:7] for i, end in enumerate(ENDS)}
    return Table({key: columns[key] for key in named[:3]} | split | {"from": columns["from"]})


def _first(every: dict[str, dict[str, Limits]], sign: float) -> str:
    """Name of the lowest value of z, or of the highest where ``sign`` is negative; empty if there is none."""
    found = {name: sign * of[LATENTS][0] for name, of in every.items() if LATENTS in of}
    return min(found, key=lambda name: found[name]) if found else ""


def _rows(part: Part, caption: str) -> list[Any]:
    return [row for name, table in part.tables.items() if name.startswith(caption) for row in table]


def _targets(part: Part, caption: str, pattern: str) -> list[str]:
    """Targets of a table that match, without those that only the decoder gave."""
    every = dict.fromkeys(str(row["target"]) for row in _rows(part, caption))
    return [name for name in every if re.fullmatch(pattern, name.removeprefix("log10 ")) and name not in part.arrays]


def _limits(row: Any, value: str) -> Limits:
    return float(row[value]), float(row[f"{value}_lolim"]), float(row[f"{value}_hilim"])


def _of(part: Part, caption: str, value: str, key: str = "of", **wanted: str) -> dict[str, Limits]:
    """A value with its limits for z and each baseline, of the rows that begin with what is wanted."""
    method = wanted.pop("method", None)
    found: dict[str, Limits] = {}
    for row in _rows(part, caption):
        fits = all(str(row[name]).startswith(text) for name, text in wanted.items())
        # The baselines are clustered in one way only.
        if fits and method is not None:
            fits = row["method"] == method or (row["of"] != LATENTS and method == "mixture of 8")
        if fits and value in row.colnames and np.isfinite(row[value]):
            found[str(row[key])] = _limits(row, value)
    return found
