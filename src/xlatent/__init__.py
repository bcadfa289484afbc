"""The face of xlatent: X-ray spectra in, eight latent variables with error bars out.

Names are imported when they are first used, so that ``import xlatent`` costs next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xlatent.formats.ogip import read
    from xlatent.infer.embed import load_model
    from xlatent.latents import LatentTable
    from xlatent.spectrum import Response, Spectrum

    __version__: str

__all__ = ["LatentTable", "Response", "Spectrum", "__version__", "load_model", "read"]

_HOME = {
    "LatentTable": "xlatent.latents",
    "Response": "xlatent.spectrum",
    "Spectrum": "xlatent.spectrum",
    "load_model": "xlatent.infer.embed",
    "read": "xlatent.formats.ogip",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        value: Any = version("xlatent")
    elif name in _HOME:
        value = getattr(import_module(_HOME[name]), name)
    else:
        raise AttributeError(f"module 'xlatent' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
