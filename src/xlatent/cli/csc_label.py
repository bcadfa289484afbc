"""``xlatent csc label``: the class of each selected source, and its part in training or tests."""

from pathlib import Path
from typing import Annotated

import typer

from xlatent.cli.ui import echo_status, progress_bar
from xlatent.core.outputs import check_output

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
    check_output(output, (".ecsv",))
    from xlatent.csc.matching import count_labels, label_selection
    from xlatent.csc.query import write

    with progress_bar("positions asked of SIMBAD") as progress:
        labelled = label_selection(selection, labels, simbad=simbad, server=server, seed=seed, progress=progress)
    write(labelled, output)
    found = count_labels(labelled)
    counts = ", ".join(f"{name} {number}" for name, number in found.classes.most_common())
    typer.echo(
        f"{found.classes.total()} of {found.sources} sources ({found.detections} detections) have a class"
        f"{f': {counts}' if counts else ''}; written to {output}"
    )
    if found.conflicts:
        number = len(found.conflicts)
        shown = "; ".join(f"{name} ({classes})" for name, classes in list(found.conflicts.items())[:_SHOWN])
        more = f" and {number - _SHOWN} more" if number > _SHOWN else ""
        echo_status(
            f"warning: {number} sources lie within the errors of entries of different classes and were given none: "
            f"{shown}{more}; see column class_conflict"
        )
