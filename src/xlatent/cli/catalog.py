"""``xlatent catalog embed``: a catalogue table in, latents from its band fluxes or hardness ratios out."""

from pathlib import Path
from typing import Annotated

import typer

from xlatent.cli.options import ModelOption, TableOutput
from xlatent.cli.ui import progress_bar

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Latents of a catalogue without its spectra.")


@app.callback()
def _group() -> None:
    """Latents of a catalogue without its spectra."""


@app.command()
def embed(
    table: Annotated[
        Path, typer.Argument(help="Catalogue: .ecsv, .csv, .fits, .vot, .xml or .parquet.", show_default=False)
    ],
    output: TableOutput,
    columns: Annotated[
        str | None,
        typer.Option(
            metavar="KEY=COLUMN,...",
            help="Which columns to take, if not those of the Chandra Source Catalog. Keys: s, m, h, b, 0.5-2, 2-8 for "
            "energy fluxes, photflux_s and so on for photon fluxes, hm, hs, ms for hardness ratios; each with _err, or "
            "_lolim and _hilim, for its error or 68 % limits.",
            show_default=False,
        ),
    ] = None,
    model: ModelOption = None,
) -> None:
    """Embed a catalogue: the latents that its band fluxes or hardness ratios allow, with their uncertainties.

    Every row is kept, in order; one without a usable flux or ratio gets the prior and the flag no_data.
    """
    from xlatent.workflows.catalogue_rows import embed_catalogue

    with progress_bar("rows") as show:
        latents = embed_catalogue(table, output, columns=columns, model=model, progress=show)
    flags = [set(text.split(",")) for text in latents["flags"]]
    notes = {"no_data": "without usable data", "low_ess": "of few effective draws", "poor_fit": "out of reach"}
    counts = {note: sum(flag in row for row in flags) for flag, note in notes.items()}
    said = "".join(f", {number} {note}" for note, number in counts.items() if number)
    typer.echo(f"{len(latents)} {'row' if len(latents) == 1 else 'rows'} written to {output}{said}")
