"""Results in Markdown, and files written whole or not at all."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any


def table(head: list[str], rows: Iterable[Iterable[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def targets(parts: Iterable[dict[str, Any]]) -> str:
    """What was asked of some parts of a benchmark beside what was found."""
    rows = [
        [what, asked, f"{value:.3g}" if isinstance(value, float) else value, {True: "yes", False: "no"}.get(met, "")]
        for part in parts
        for what, asked, value, met in part["targets"]
    ]
    return table(["target", "asked", "found", "met"], rows)


def told(part: dict[str, Any]) -> str:
    """Title, targets and tables of one part; why it was left out, or how it failed."""
    reasons = [part[key] for key in ("left_out", "failed") if key in part]
    asked = [targets([part])] if part["targets"] else []
    return "\n\n".join([f"## {part['title']}", *reasons, *asked, *part["tables"]])


def write(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.part")
    partial.write_text(text)
    partial.replace(path)
