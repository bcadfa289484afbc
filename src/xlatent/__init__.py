"""The face of xlatent: X-ray spectra in, eight latent variables with error bars out.

Names are imported when they are first used, so that ``import xlatent`` costs next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from xlatent.core.hooks import register

if TYPE_CHECKING:
    from xlatent.core.errors import (
        InputError,
        ModelError,
        ParameterError,
        ReadError,
        ResponseError,
        WorkerError,
        WriteError,
        XlatentError,
        XlatentWarning,
    )
    from xlatent.core.latents import LatentTable
    from xlatent.core.spectrum import Response, Spectrum
    from xlatent.core.version import __version__
    from xlatent.formats.inputs import read_all
    from xlatent.formats.ogip_spectrum import read
    from xlatent.infer.embed import LatentModel, load_model
    from xlatent.infer.posterior import Posterior
    from xlatent.infer.reconstruction import Reconstruction
    from xlatent.workflows.build import BuildResult, build_store
    from xlatent.workflows.catalogue_rows import embed_catalogue
    from xlatent.workflows.embed import EmbeddingResult, embed_files
    from xlatent.workflows.evaluation.run import Evaluation, evaluate

__all__ = [
    "BuildResult",
    "EmbeddingResult",
    "Evaluation",
    "InputError",
    "LatentModel",
    "LatentTable",
    "ModelError",
    "ParameterError",
    "Posterior",
    "ReadError",
    "Reconstruction",
    "Response",
    "ResponseError",
    "Spectrum",
    "WorkerError",
    "WriteError",
    "XlatentError",
    "XlatentWarning",
    "__version__",
    "build_store",
    "embed_catalogue",
    "embed_files",
    "evaluate",
    "load_model",
    "read",
    "read_all",
]

_HOME = {
    "BuildResult": "xlatent.workflows.build",
    "EmbeddingResult": "xlatent.workflows.embed",
    "Evaluation": "xlatent.workflows.evaluation.run",
    "InputError": "xlatent.core.errors",
    "LatentModel": "xlatent.infer.embed",
    "LatentTable": "xlatent.core.latents",
    "ModelError": "xlatent.core.errors",
    "ParameterError": "xlatent.core.errors",
    "Posterior": "xlatent.infer.posterior",
    "ReadError": "xlatent.core.errors",
    "Reconstruction": "xlatent.infer.reconstruction",
    "Response": "xlatent.core.spectrum",
    "ResponseError": "xlatent.core.errors",
    "Spectrum": "xlatent.core.spectrum",
    "WorkerError": "xlatent.core.errors",
    "WriteError": "xlatent.core.errors",
    "XlatentError": "xlatent.core.errors",
    "XlatentWarning": "xlatent.core.errors",
    "__version__": "xlatent.core.version",
    "build_store": "xlatent.workflows.build",
    "embed_catalogue": "xlatent.workflows.catalogue_rows",
    "embed_files": "xlatent.workflows.embed",
    "evaluate": "xlatent.workflows.evaluation.run",
    "load_model": "xlatent.infer.embed",
    "read": "xlatent.formats.ogip_spectrum",
    "read_all": "xlatent.formats.inputs",
}

# Who implements the methods of nouns that need more than their own room.
register(
    {
        "nominal_response": "xlatent.simulate.acis:response",
        "plot_latents": "xlatent.figures.latent_space:plot_latents",
        "plot_reconstruction": "xlatent.figures.spectrum:plot_reconstruction",
        "plot_spectrum": "xlatent.figures.spectrum:plot_spectrum",
        "read_all": "xlatent.formats.inputs:read_all",
        "read_latent_table": "xlatent.formats.latent_tables:read",
        "write_latent_table": "xlatent.formats.latent_tables:write",
        "write_ogip": "xlatent.formats.ogip_write:write",
    }
)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'xlatent' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
