"""XSPEC's models, called as they are in its own library, which the package xspectrampoline brings (GPL-3)."""

import ctypes
import importlib.util
from functools import cache
from typing import Any

import numpy as np
from jaxtyping import Float


def installed() -> bool:
    return importlib.util.find_spec("xspectrampoline") is not None


@cache
def _library() -> Any:
    import xspectrampoline

    return xspectrampoline.get_libraries()


def evaluate(name: str, edges: Float[np.ndarray, " n_edges"], *parameters: float) -> Float[np.ndarray, " n_bins"]:
    """Evaluate a model in bins: photons cm⁻² s⁻¹ of an additive one at norm 1, the factor of a multiplicative one.

    Parameters
    ----------
    name : str
        As users of XSPEC write it, such as ``powerlaw``.
    edges : array [n_bins + 1]
        keV, ascending.
    *parameters : float
        In XSPEC's order, without the norm.
    """
    values, errors = np.zeros(len(edges) - 1), np.zeros(len(edges) - 1)
    model = _library().get_model(f"C_{name}")
    model(np.ascontiguousarray(edges, dtype=float), np.array(parameters, dtype=float), values, errors)
    return values


def set_abundances(table: str) -> None:
    """Choose the abundances of all absorption: ``wilm`` or ``angr``, as XSPEC's command ``abund`` does."""
    failed = ctypes.c_int(0)
    _library().lib_xs_functions.FPSOLR(table.encode(), ctypes.byref(failed))
    if failed.value:
        raise ValueError(f"XSPEC has no abundances {table!r}: give wilm or angr")
