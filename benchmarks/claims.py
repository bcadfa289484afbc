"""What the paper claims (arXiv:2510.14102), with what an evaluation finds and the baselines beside it.

The options are those of ``xlatent evaluate``; to the report comes ``claims.json``. ``make claims`` takes the catalogues
and spectra beside the checkout. The paper's numbers are of spectra, and those here of what the column ``from`` says;
its abstract gives no number where the column ``paper`` says "in words".
"""

import argparse
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import Table

from xlatent.cli.ui import print_table
from xlatent.core.atomic import atomic
from xlatent.workflows.evaluation.inputs import HARDNESS, LATENTS, MADE_FROM, PAPER, PCA
from xlatent.workflows.evaluation.run import Evaluation, evaluate
from xlatent.workflows.evaluation.sections import ENDS, Section

Limits = tuple[float, float, float]
_REPRESENTATIONS = (LATENTS, HARDNESS, PCA, PAPER)
_NOTHING: Limits = (np.nan, np.nan, np.nan)
_LOWEST = ", the lowest"
# Of the abstract; it gives no numbers of the others.
_PAPER = {"8 classes": "0.40", "AGN against compact": "0.69"}

Add = Callable[[str, str, str, dict[str, Limits], str], None]


def compare(found: Evaluation) -> Table:
    """Put what was found beside what the paper claims, one row a claim; values with ``_lolim`` and ``_hilim``."""
    rows: list[tuple[str, str, str, dict[str, Limits], str]] = []
    origin = {one.name: MADE_FROM.get(one.origin, "") for one in found.datasets}

    def add(claim: str, paper: str, how: str, values: dict[str, Limits], dataset: str) -> None:
        if LATENTS in values:
            rows.append((claim, paper, how, values, ", ".join(filter(None, (dataset, origin.get(dataset, ""))))))

    for one in found.sections:
        if one.key == "reconstruction":
            _reconstruction(one, add)
    labelled = found.labelled.name
    if (section := found.section("clusters", labelled)) is not None:
        _clusters(section, add)
    if (section := found.section("classification", labelled)) is not None:
        _classification(section, add)
    for dataset in found.datasets:
        for key, compare_section in (
            ("regression", _regression),
            ("formulas", _formulas),
            ("variability", _information),
        ):
            if (section := found.section(key, dataset.name)) is not None:
                compare_section(section, add)
    columns: dict[str, list] = {name: [row[i] for row in rows] for i, name in enumerate(("claim", "paper", "how"))}
    for of in _REPRESENTATIONS:
        for i, end in enumerate(ENDS):
            columns[of + end] = [row[3].get(of, _NOTHING)[i] for row in rows]
    return Table(columns | {"from": [row[4] for row in rows]})


def _reconstruction(section: Section, add: Add) -> None:
    for start, how in (
        ("median", "median excess of the statistic over its expected value, in σ"),
        ("share", "share of spectra within 3 σ"),
    ):
        rows = [row for row in _rows(section, "statistic") if str(row["score"]).startswith(start)]
        add("reconstruction", "accurate", how, _by(rows, "value"), section.dataset)


def _clusters(section: Section, add: Add) -> None:
    every = _rows(section, "scores")
    for task in dict.fromkeys(str(row["task"]) for row in every):
        for method in ("mixture of 8", "mixture, BIC"):
            # The baselines are clustered as a mixture of 8 only.
            rows = [row for row in every if row["task"] == task and row["method"] == method]
            how = f"{method}, balanced accuracy"
            add(f"clusters: {task}", _PAPER.get(task, "–"), how, _by(rows, "balanced accuracy"), section.dataset)


def _classification(section: Section, add: Add) -> None:
    for score in ("balanced accuracy", "AGN against compact"):
        values = _by(_rows(section, "scores"), score, "from")
        task = "all classes" if score == "balanced accuracy" else score
        add(f"classifier: {task}", "–", "balanced accuracy, five-fold", values, section.dataset)
        extras = {label.partition(" + ")[2] for label in values if label.startswith(f"{LATENTS} + ")}
        for extra in sorted(extras, key=len):
            both = {of: values[f"{of} + {extra}"] for of in (LATENTS, HARDNESS)}
            how = f"the same with {extra.replace(' + ', ', ')}"
            add(f"classifier: {task}", "–", how, both, section.dataset)


def _regression(section: Section, add: Add) -> None:
    rows = _rows(section, "r2")
    for pattern, what in ((r"hard_\w\w", "hardness ratios"), (r".*_nh.*|nh", "N_H"), (r".*gamma.*", "photon index")):
        targets = _targets(rows, pattern)
        every = {name: _by([row for row in rows if row["target"] == name], "boosting") for name in targets}
        if worst := _first(every, 1.0):
            how = f"R² of {worst}, boosted trees{_LOWEST * (len(every) > 1)}"
            add(f"regression: {what}", "in words", how, every[worst], section.dataset)


def _formulas(section: Section, add: Add) -> None:
    # What the latents decode to is no claim.
    rows = [row for row in _rows(section, "formulas") if row["target"] not in section.values["decoded"]]
    longest = {str(row["target"]): row for row in rows}
    for pattern, what in ((r"hard_\w\w", "hardness ratios from z"), (r"z\d", "latents from band fluxes")):
        every = {target: {LATENTS: _limits(longest[target], "r2")} for target in _targets(rows, pattern)}
        if worst := _first(every, 1.0):
            how = f"R² of {worst}, held out{_LOWEST * (len(every) > 1)}"
            add(f"formulas: {what}", "in words", how, every[worst], section.dataset)


def _information(section: Section, add: Add) -> None:
    rows = _rows(section, "information")
    names = dict.fromkeys(str(row["column"]) for row in rows)
    every = {name: _by([row for row in rows if row["column"] == name], "mi") for name in names}
    if best := _first(every, -1.0):
        q = next(row["q"] for row in rows if row["column"] == best and row["of"] == LATENTS)
        how = f"mutual information with {best} in nat, q = {q:.1g}{', the highest' * (len(every) > 1)}"
        add("variability", "in words", how, every[best], section.dataset)


def _rows(section: Section, key: str) -> list[Any]:
    table = section.table(key)
    return [] if table is None else list(table)


def _targets(rows: list[Any], pattern: str) -> list[str]:
    every = dict.fromkeys(str(row["target"]) for row in rows)
    return [name for name in every if re.fullmatch(pattern, name.removeprefix("log10 "))]


def _first(every: dict[str, dict[str, Limits]], sign: float) -> str:
    """Name of the lowest value of z, or of the highest where ``sign`` is negative; empty if there is none."""
    found = {name: sign * values[LATENTS][0] for name, values in every.items() if LATENTS in values}
    return min(found, key=lambda name: found[name]) if found else ""


def _limits(row: Any, value: str) -> Limits:
    return float(row[value]), float(row[f"{value}_lolim"]), float(row[f"{value}_hilim"])


def _by(rows: list[Any], value: str, key: str = "of") -> dict[str, Limits]:
    """A value with its limits for z and each baseline, where it is known."""
    return {str(row[key]): _limits(row, value) for row in rows if value in row.colnames and np.isfinite(row[value])}


def write(claims: Table, path: Path) -> None:
    """Write the claims as JSON, what is missing as null."""

    def plain(value: Any) -> Any:
        return value if not isinstance(value, float) else float(value) if np.isfinite(value) else None

    rows = [{name: plain(row[name]) for name in claims.colnames} for row in claims]
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(rows, indent=1, ensure_ascii=False, default=str) + "\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", action="append", required=True)
    parser.add_argument("--labels")
    parser.add_argument("--join", action="append", default=[])
    parser.add_argument("--spectra", action="append", default=[])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, required=True)
    given = parser.parse_args()
    result = evaluate(
        given.data, given.output, labels=given.labels, join=given.join, spectra=given.spectra, seed=given.seed
    )
    table = compare(result)
    write(table, given.output / "claims.json")
    print_table(table[["claim", "paper", "how", *_REPRESENTATIONS, "from"]])
