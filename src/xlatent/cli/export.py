"""``xlatent export``: a bundle that inference can use from a training run."""

from pathlib import Path
from typing import Annotated

import typer

from xlatent.cli.ui import progress_bar, torch_needed

_N_CALIBRATION, _LOG_COUNTS = 1600, (4.0, 6.0)  # simulated spectra, bright: noise must not pass for errors
_TRAINING = "Simulated spectra (xlatent.simulate.population, seen through simulated ACIS responses of 1999 to 2026)."


def export(
    run: Annotated[Path, typer.Argument(help="Folder of a training run.", show_default=False)],
    output: Annotated[Path, typer.Option(help="Folder of the bundle; made if absent.", show_default=False)],
    name: Annotated[str, typer.Option(help="Name of the model.", show_default=False)],
    distil: Annotated[
        int,
        typer.Option(
            min=0,
            help="Steps in which a narrow decoder learns to stand for the trained one, 60 a second: 100000 for "
            "catalogues, which are embedded half as fast again with it.",
        ),
    ] = 0,
) -> None:
    """Write the weights of a training run as a bundle: ONNX graphs, weights, what they are, how far they hold."""
    with torch_needed():
        from xlatent.model import distil as distilling
        from xlatent.model import export as exporting
        from xlatent.model.flux_head import export_flux_head
    from xlatent.core.bundle import sha256, write_info
    from xlatent.infer.calibrate import model_errors
    from xlatent.infer.decoder_errors import FILE
    from xlatent.infer.embed import FLUXES, load_model
    from xlatent.simulate.reference import reference_spectra

    exporting.export(run, output, name=name, training=_TRAINING)
    if distil:
        with progress_bar("distilling", distil) as progress:
            distilling.distil(output, distil, progress)
    model = load_model(output, threads=1)
    if model.info.probabilistic:
        spectra, photons = reference_spectra(model.grid, _N_CALIBRATION, _LOG_COUNTS)
        model_errors(model, spectra, photons).save(output / FILE)
        export_flux_head(model.decode, model.grid, model.info.latents, output / FLUXES)
        files = model.info.files | {name: sha256(output / name) for name in (FILE, FLUXES)}
        write_info(model.info.model_copy(update={"files": files}), output)
    typer.echo(f"{output} written; use it with --model {output}")
