"""Methods of nouns that rooms above implement, such as ``Spectrum.plot``: the package's face says where, once.

So a noun offers what its user expects of it, and imports nothing of it.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any

_places: dict[str, str] = {}


def register(places: dict[str, str]) -> None:
    """Say where the implementations are: of each name, module and function as ``"package.module:function"``."""
    _places.update(places)


def implementation(name: str) -> Callable[..., Any]:
    """Load the function of a name; its module is imported when it is first asked for."""
    module, _, function = _places[name].partition(":")
    found: Callable[..., Any] = getattr(import_module(module), function)
    return found
