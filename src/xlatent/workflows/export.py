"""Making a bundle of a training run: graphs, weights, how far they hold, fluxes for catalogues, and a proposal."""

from collections.abc import Callable
from pathlib import Path

from xlatent.core.bundle import sha256, write_info
from xlatent.core.extras import requires_extra

_N_CALIBRATION, _LOG_COUNTS = 1600, (4.0, 6.0)  # simulated spectra, bright: noise must not pass for errors
_TRAINING = "Simulated spectra (xlatent.simulate.population, seen through simulated ACIS responses of 1999 to 2026)."


def export_model(
    run: str | Path,
    output: str | Path,
    *,
    name: str,
    distil: int = 0,
    proposal: int = 100_000,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Make a bundle of a training run, which `load_model` takes.

    Beside graphs and weights it holds the errors of the decoder, found in simulated spectra whose truth is known, a
    small network for the band fluxes of draws, and one that proposes draws from exact posteriors; not where latents are
    points.

    Parameters
    ----------
    run : str or Path
        Folder of a training run.
    output : str or Path
        Folder of the bundle; made if absent.
    name : str
        Name of the model.
    distil : int
        Steps in which a narrow decoder learns to stand for the trained one; 0 for none.
    proposal : int
        Spectra from which the proposal of exact draws is learnt, in about ten minutes by default; 0 for none, and
        exact draws take several times longer.
    progress : callable, optional
        Called with the steps of the narrow decoder done and their number, then with the spectra of the proposal.

    Returns
    -------
    Path
        ``output``.

    Raises
    ------
    ModelError
        If there is no checkpoint, it is damaged, or the exported graphs disagree with the network.
    XlatentError
        If torch or what goes with it is not installed.
    """
    from xlatent.infer.calibrate import model_errors
    from xlatent.infer.decoder_errors import FILE
    from xlatent.infer.embed import FLUXES, load_model
    from xlatent.simulate.reference import reference_spectra

    with requires_extra("train", "torch", "safetensors", "onnx", "onnxscript"):
        from xlatent.model.distil import distil as distil_decoder
        from xlatent.model.export import export
        from xlatent.model.flux_head import export_flux_head
        from xlatent.model.proposal import add_proposal

    output = export(Path(run), Path(output), name=name, training=_TRAINING)
    if distil:
        distil_decoder(output, distil, progress)
    model = load_model(output, threads=1)
    if model.info.probabilistic:
        spectra, photons = reference_spectra(model.grid, _N_CALIBRATION, _LOG_COUNTS)
        model_errors(model, spectra, photons).save(output / FILE)
        export_flux_head(model.decode, model.grid, model.info.latents, output / FLUXES)
        files = model.info.files | {file: sha256(output / file) for file in (FILE, FLUXES)}
        write_info(model.info.model_copy(update={"files": files}), output)
        if proposal:
            add_proposal(output, proposal, progress)
    return output
