"""``xlatent csc label``: the class of each selected source, and its part in training or tests."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xlatent.cli.ui import USAGE, abort, echo_status, progress_bar
from xlatent.core.outputs import check_output

if TYPE_CHECKING:
    from astropy.table import Table

_SHOWN = 5  # conflicts in full


def label(
    selection: Annotated[Path, typer.Argument(help="Table of `xlatent csc select`.", show_default=False)],
    output: Annotated[Path, typer.Option(help="Table to write: .ecsv.", show_default=False)],
    labels: Annotated[
        Path | None,
        typer.Option(
            help="Table with ra, dec, class and perhaps pos_err (arcsec); VizieR if not given.", metavar="FILE"
        ),
    ] = None,
    simbad: Annotated[bool, typer.Option("--simbad", help="Classes from the object types of SIMBAD.")] = False,
    server: Annotated[
        str | None, typer.Option(help="Host of a mirror of VizieR or SIMBAD.", show_default=False, metavar="HOST")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the split into train, validation and test.")] = 0,
) -> None:
    """Label a selection: classes from Yang et al. 2022 (VizieR), SIMBAD or a file, matched on position.

    Every row and column is kept. Where entries of two classes lie within the error, the source gets none of them, and
    both are named in class_conflict.
    """
    if labels is not None and (simbad or server is not None):
        abort(
            "--labels takes the classes from a file, so --simbad and --server have nothing to do; leave them out", USAGE
        )
    check_output(output, (".ecsv",))
    from xlatent.csc import labels as labelling
    from xlatent.csc.query import write
    from xlatent.formats.catalogue_tables import read_columns

    table = read_columns(selection, ("name", "ra", "dec"))
    if labels is not None:
        known, catalogue = labelling.from_file(labels), labels.name
    elif simbad:
        known, catalogue = _simbad(table, server or labelling.SIMBAD), "SIMBAD"
    else:
        known, catalogue = labelling.from_vizier(server or labelling.VIZIER), labelling.YANG
    labelled = labelling.match(table, known, catalogue, seed)
    write(labelled, output)
    _report(labelled, output)


def _simbad(table: "Table", server: str) -> "Table":
    """Objects of SIMBAD around the sources, each of which is asked for once."""
    from xlatent.csc.labels import from_simbad, positions_of

    positions = positions_of(table)
    with progress_bar("positions asked of SIMBAD", len(positions)) as advance:
        return from_simbad(positions, server, advance)


def _report(labelled: "Table", output: Path) -> None:
    """Say how many sources have a class, and which could have two."""
    sources = {str(row["name"]): row for row in labelled["name", "class", "class_conflict"].filled("")}
    classes = Counter(str(row["class"]) for row in sources.values() if row["class"])
    conflicts = [f"{name} ({row['class_conflict']})" for name, row in sources.items() if row["class_conflict"]]
    counts = ", ".join(f"{name} {number}" for name, number in classes.most_common())
    typer.echo(
        f"{classes.total()} of {len(sources)} sources ({len(labelled)} detections) have a class"
        f"{f': {counts}' if counts else ''}; written to {output}"
    )
    if conflicts:
        more = f" and {len(conflicts) - _SHOWN} more" if len(conflicts) > _SHOWN else ""
        echo_status(
            f"warning: {len(conflicts)} sources lie within the errors of entries of different classes and were given "
            f"none: {'; '.join(conflicts[:_SHOWN])}{more}; see column class_conflict"
        )
