"""``xlatent show``: one spectrum with its reconstruction, latents and fluxes as a figure."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xlatent.cli.options import FigureOutput, ModelOption, PosteriorKind
from xlatent.core.errors import ReadError
from xlatent.core.outputs import FIGURES, check_output

if TYPE_CHECKING:
    from xlatent.core.spectrum import Spectrum
    from xlatent.infer.embed import LatentModel


def show(
    pha: Annotated[Path, typer.Argument(help="PHA file.", show_default=False)],
    output: FigureOutput,
    arf: Annotated[Path | None, typer.Option(help="ARF, or 'none'.")] = None,
    rmf: Annotated[Path | None, typer.Option(help="RMF, or 'none'.")] = None,
    background: Annotated[Path | None, typer.Option(help="Background, or 'none'.")] = None,
    posterior: Annotated[
        PosteriorKind, typer.Option(help="Normal distribution at the mode, or draws from the exact one (a second).")
    ] = PosteriorKind.GAUSSIAN,
    model: ModelOption = None,
) -> None:
    """Draw a spectrum with its reconstruction, residuals, photon spectrum, latents and fluxes."""
    check_output(output, FIGURES)
    from xlatent.core.bundle import DEFAULT_MODEL
    from xlatent.infer.embed import load_model

    loaded = load_model(model or DEFAULT_MODEL, threads=1)
    spectrum = _read_one(pha, arf, rmf, background)
    typer.echo(f"{draw_to(output, spectrum, loaded, posterior)}\nwritten to {output}")


def _read_one(pha: Path, arf: Path | None, rmf: Path | None, background: Path | None) -> "Spectrum":
    """Read a spectrum from a file that holds one."""
    from xlatent.formats.ogip_spectrum import read_spectra

    spectra = read_spectra(pha, arf, rmf, background)
    if len(spectra) > 1:
        raise ReadError(
            f"{pha} holds {len(spectra)} spectra (type II), and one can be drawn; split the file or use xlatent embed"
        )
    return spectra[0]


def draw_to(path: Path, spectrum: "Spectrum", model: "LatentModel", posterior: str = PosteriorKind.GAUSSIAN) -> str:
    """Draw one spectrum into a file, and return what its fit statistic says in words.

    The posterior is of a kind that `LatentModel.reconstruct` takes.
    """
    from xlatent.figures.spectrum import describe_fit, plot_reconstruction
    from xlatent.figures.style import save

    reconstruction = model.reconstruct(spectrum, posterior=posterior)
    save(plot_reconstruction(reconstruction, spectrum), path)
    return describe_fit(reconstruction, spectrum.background is not None)
