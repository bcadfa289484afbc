"""``xlatent demo``: the simulated observations that come with the package, embedded and drawn."""

import shutil
from importlib import resources
from pathlib import Path
from typing import Annotated

import typer

from xlatent.cli.show import draw_to
from xlatent.cli.summary import SHOWN, summarise
from xlatent.cli.ui import FAILED, abort, echo_status
from xlatent.core.errors import WriteError


def demo(output: Annotated[Path, typer.Option(help="Folder for the results; made if absent.")] = Path("demo")) -> None:
    """Embed the sample of simulated observations that comes with xlatent, and draw each of them."""
    from xlatent.core.bundle import DEFAULT_MODEL
    from xlatent.formats.inputs import find
    from xlatent.formats.ogip_spectrum import read
    from xlatent.infer.embed import load_model
    from xlatent.workflows.embed import embed_files

    spectra, table_file = output / "spectra", output / "latents.parquet"
    try:
        with resources.as_file(resources.files("xlatent") / "sample") as sample:
            shutil.copytree(sample, spectra, dirs_exist_ok=True)
    except OSError as error:
        raise WriteError(f"the sample cannot be copied to {spectra} ({error}); choose another folder") from error
    sources = find([spectra])
    result = embed_files(spectra, table_file)
    if result.failures:
        for failure in result.failures:
            echo_status(f"failed: {failure.name}: {failure.reason}")
        abort("the sample that comes with xlatent should embed, and it does not; install xlatent again", FAILED)
    summarise(result.columns(SHOWN))
    typer.echo(f"\nwritten to {output}:\n  spectra/  {len(sources)} simulated observations and the truth about them")
    typer.echo(f"  {table_file.name}  the table above with uncertainties, fluxes and hardness ratios")
    model = load_model(DEFAULT_MODEL, threads=1)
    for source in sources:
        draw_to(output / f"{source.name}.png", read(source.pha, name=source.name), model)
        typer.echo(f"  {source.name}.png")
    typer.echo(f"\nThe same by hand: xlatent embed {spectra} --output {table_file}")
    typer.echo(f"                  xlatent show {sources[0].pha} --output {output / sources[0].name}.png")
