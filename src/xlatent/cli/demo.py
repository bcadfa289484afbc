"""``xlatent demo``: the simulated observations that come with the package, embedded and drawn."""

from pathlib import Path
from typing import Annotated

import typer

from xlatent.cli.summary import SHOWN, summarise
from xlatent.cli.ui import FAILED, abort, echo_status


def demo(output: Annotated[Path, typer.Option(help="Folder for the results; made if absent.")] = Path("demo")) -> None:
    """Embed the sample of simulated observations that comes with xlatent, and draw each of them."""
    from xlatent.formats.inputs import find
    from xlatent.infer.embed import load_model
    from xlatent.workflows.embed import embed_files
    from xlatent.workflows.show import copy_sample, draw_file

    spectra, table_file = copy_sample(output / "spectra"), output / "latents.parquet"
    result = embed_files(spectra, table_file)
    if result.failures:
        for failure in result.failures:
            echo_status(f"failed: {failure.name}: {failure.reason}")
        abort("the sample that comes with xlatent should embed, and it does not; install xlatent again", FAILED)
    summarise(result.columns(SHOWN))
    typer.echo(
        f"\nwritten to {output}:\n  spectra/  {result.n_embedded} simulated observations and the truth about them"
    )
    typer.echo(f"  {table_file.name}  the table above with uncertainties, fluxes and hardness ratios")
    model = load_model(threads=1)
    sources = find([spectra])
    for source in sources:
        draw_file(source.pha, output / f"{source.name}.png", model=model, name=source.name)
        typer.echo(f"  {source.name}.png")
    typer.echo(f"\nThe same by hand: xlatent embed {spectra} --output {table_file}")
    typer.echo(f"                  xlatent show {sources[0].pha} --output {output / sources[0].name}.png")
