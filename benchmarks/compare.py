"""Compare two results of benchmarks/speed.py, B against A: `python benchmarks/compare.py A.json B.json`.

A figure that was measured in several rounds is kept with the least and the greatest of them. Two such figures are taken
to be the same where these ranges overlap; single numbers where they differ by less than 5 per cent.
"""

import argparse
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from words import table

NOISE = 0.05
SAME = "same"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("a", type=Path)
    parser.add_argument("b", type=Path)
    given = parser.parse_args()
    print(compared(*(json.loads(path.read_text()) for path in (given.a, given.b))))


def compared(a: dict[str, Any], b: dict[str, Any]) -> str:
    """Warnings, targets and numbers of two results, what has changed before what is the same."""
    parts = [warning for warning in warnings(a, b)]
    judged, other = judgements(a), judgements(b)
    rows = [
        [what, other[what][0], *(said(of[what][1]) for of in (judged, other)), turned(judged[what][2], other[what][2])]
        for what in judged
        if what in other
    ]
    rows.sort(key=lambda row: row[-1] in ("met", "not met", ""))
    parts.append("## Targets\n\n" + table(["target", "asked", "A", "B", "B met it"], rows))
    figures, against = ({name: value for name, value in numbers(of)} for of in (a, b))
    lines = []
    for name, mine in figures.items():
        if name in against:
            ratio = against[name][1] / mine[1] if mine[1] else math.nan
            changed = "" if not same(mine, against[name]) else SAME
            lines.append([name, f"{ratio:.3f}", f"{mine[1]:.4g}", f"{against[name][1]:.4g}", changed])
    lines.sort(key=lambda line: line[-1] == SAME)
    parts.append("## Numbers\n\n" + table(["", "B / A", "A", "B", ""], lines))
    for name, of, than in (("A", figures, against), ("B", against, figures)):
        if alone := [key for key in of if key not in than]:
            parts.append(f"Only in {name}: {', '.join(alone)}.")
    return "\n\n".join(parts)


def warnings(a: dict[str, Any], b: dict[str, Any]) -> Iterator[str]:
    """What speaks against comparing the two at all."""
    for name in ("cpu", "cores", "memory_gb", "system", "python", "libraries", "blas"):
        was, now = a["machine"].get(name), b["machine"].get(name)
        if was != now:
            yield f"Warning: another machine or other libraries: {name} was {was}, is {now}."
    if abs(math.log(b["machine"]["gflops"] / a["machine"]["gflops"])) > NOISE:
        speeds = f"{a['machine']['gflops']:.0f} and {b['machine']['gflops']:.0f} GFLOP/s"
        yield f"Warning: matrix products ran at {speeds}: one of the machines was busy, or they are not alike."
    for name, one in (("A", a), ("B", b)):
        if one["quick"]:
            yield f"Warning: {name} is of a quick run, whose times mean nothing."


def judgements(found: dict[str, Any]) -> dict[str, list[Any]]:
    return {what: rest for one in found["parts"].values() for what, *rest in one["targets"]}


def numbers(found: dict[str, Any]) -> Iterator[tuple[str, tuple[float, float, float]]]:
    """Every number with its place, as least, median and greatest."""
    for name, one in found["parts"].items():
        yield from _within(name, one["scores"])


def _within(place: str, value: Any) -> Iterator[tuple[str, tuple[float, float, float]]]:
    if isinstance(value, dict) and {"min", "median", "max"} <= value.keys():
        yield place, (value["min"], value["median"], value["max"])
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _within(f"{place}: {key}", inner)
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            yield from _within(f"{place}: {i}", inner)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield place, (value, value, value)


def same(a: tuple[float, float, float], b: tuple[float, float, float]) -> bool:
    """Whether two figures differ by no more than noise."""
    if a[0] < a[2] or b[0] < b[2]:
        return a[0] <= b[2] and b[0] <= a[2]
    return a[1] == b[1] or (a[1] * b[1] > 0 and abs(math.log(b[1] / a[1])) < NOISE)


def turned(was: bool | None, now: bool | None) -> str:
    known = {True: "met", False: "not met", None: ""}
    return known[now] if was == now else f"{known[now]} (was {known[was] or 'not judged'})"


def said(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
