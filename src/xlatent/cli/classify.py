"""``xlatent classify``: class probabilities and prediction sets of the sources of a latent table."""

from pathlib import Path
from typing import Annotated

import typer

from xlatent.cli.options import TableOutput, split_names
from xlatent.core.errors import ParameterError
from xlatent.core.outputs import TABLES, check_output

CLASSIFIER = "classifier.onnx"  # in the folder of its model


def classify(
    table: Annotated[Path, typer.Argument(help=f"Latent table: {', '.join(TABLES)}.", show_default=False)],
    output: TableOutput,
    allowed: Annotated[
        str,
        typer.Option(
            "--with",
            metavar="flux,variability,nh_gal",
            help="What may be used besides the spectrum. flux brings in the errors of z too, as those of band fluxes: "
            "misleading for latents of whole spectra, which are sharper. nh_gal, the Galactic column, tells where on "
            "the sky a source is: good for sources found as those of the training set were, misleading for others.",
        ),
    ] = "",
    join: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Another table with name and the columns that --with needs.")
    ] = None,
    classifier: Annotated[
        Path | None, typer.Option(help="Classifier (.onnx); that of the shipped model if not given.")
    ] = None,
) -> None:
    """Say which kind of source each row is, with calibrated probabilities.

    Adds p_AGN, p_YSO, p_LM_STAR, p_HM_STAR, p_NS, p_LMXB, p_CV and p_HMXB (all classes taken for equally common),
    p_compact (HMXB, LMXB, NS or CV rather than AGN, if it is one of these), class (the most probable) and
    prediction_set (what cannot be ruled out: it holds the truth in 90 % of cases).
    """
    check_output(output, TABLES)
    from xlatent.core.bundle import DEFAULT_MODEL, locate
    from xlatent.core.taxonomy import CLASSES
    from xlatent.formats.catalogue_tables import read_columns, read_joined
    from xlatent.science import classify as science

    groups = split_names(allowed)
    if unknown := [group for group in groups if group not in science.ALLOWED]:
        raise ParameterError(f"--with takes {', '.join(science.ALLOWED)}, separated by commas, not {unknown[0]!r}")
    there = [] if join is None else read_columns(join).colnames
    needed = [name for group in groups for names in science.ALLOWED[group].values() for name in names]
    latents = read_joined(table, join, [name for name in needed if name in there])
    found = science.classify(latents, science.load_classifier(classifier or locate(DEFAULT_MODEL) / CLASSIFIER), groups)
    found.write(output)
    sets = [str(names).split(",") for names in found["prediction_set"]]
    certain = [names[0] for names in sets if len(names) == 1]
    counts = ", ".join(f"{name} {certain.count(name)}" for name in CLASSES if name in certain)
    rows = "row" if len(found) == 1 else "rows"
    typer.echo(
        f"{len(found)} {rows} written to {output}; one class left in the set of {len(certain)}"
        f"{f' ({counts})' if counts else ''}, not sure of {len(found) - len(certain)}"
    )
