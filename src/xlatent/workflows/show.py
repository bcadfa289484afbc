"""A spectrum with its reconstruction, latents and fluxes as a figure in a file; and the sample to try it on."""

import shutil
from importlib import resources
from pathlib import Path

from xlatent.core.bundle import DEFAULT_MODEL
from xlatent.core.errors import ReadError, WriteError
from xlatent.core.outputs import FIGURES, check_output
from xlatent.infer.embed import LatentModel, load_model


def draw_file(
    pha: str | Path,
    output: str | Path,
    *,
    model: LatentModel | str | Path = DEFAULT_MODEL,
    posterior: str = "gaussian",
    arf: str | Path | None = None,
    rmf: str | Path | None = None,
    background: str | Path | None = None,
    name: str | None = None,
) -> str:
    """Draw the spectrum of a file with its reconstruction, residuals, photon spectrum, latents and fluxes.

    Parameters
    ----------
    pha : str or Path
        PHA file that holds one spectrum.
    output : str or Path
        Figure to write, whole or not at all: ``.png``, ``.pdf`` or ``.svg``.
    model : LatentModel, str or Path
        Ready, or the name of a model or folder of a bundle.
    posterior : str
        As in `LatentModel.reconstruct`.
    arf, rmf, background : str or Path, optional
        In place of those the header names; ``"none"`` for none.
    name : str, optional
        What the figure calls the spectrum.

    Returns
    -------
    str
        What the fit statistic says, in words.

    Raises
    ------
    ReadError, ResponseError
        If the file cannot be read, or holds several spectra.
    ModelError
        If there is no such model, or it is damaged.
    WriteError
        If the figure cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> sample = resources.files("xlatent") / "sample"
    >>> draw_file(sample / "sim17_000.pha.gz", Path(tempfile.mkdtemp()) / "sim17_000.png")
    'W = ... expected ...'
    """
    from xlatent.figures.spectrum import describe_fit, plot_reconstruction
    from xlatent.figures.style import save
    from xlatent.formats.ogip_spectrum import read_spectra

    check_output(output, FIGURES)
    loaded = model if isinstance(model, LatentModel) else load_model(model, threads=1)
    spectra = read_spectra(pha, arf, rmf, background, name)
    if len(spectra) > 1:
        raise ReadError(
            f"{pha} holds {len(spectra)} spectra (type II), and one can be drawn; split the file or use xlatent embed"
        )
    [spectrum] = spectra
    reconstruction = loaded.reconstruct(spectrum, posterior=posterior)
    save(plot_reconstruction(reconstruction), output)
    return describe_fit(reconstruction)


def copy_sample(folder: str | Path) -> Path:
    """Copy the simulated observations that come with the package, and the truth about them.

    Parameters
    ----------
    folder : str or Path
        Made if absent.

    Raises
    ------
    WriteError
        If they cannot be copied there.

    Examples
    --------
    >>> import tempfile
    >>> len(list(copy_sample(tempfile.mkdtemp()).glob("*.rmf.gz")))
    6
    """
    try:
        with resources.as_file(resources.files("xlatent") / "sample") as sample:
            shutil.copytree(sample, folder, dirs_exist_ok=True)
    except OSError as error:
        raise WriteError(f"the sample cannot be copied to {folder} ({error}); choose another folder") from error
    return Path(folder)
