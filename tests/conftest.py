"""Set-up of all tests: annotations are checked at run time, and the real data are found or asked for."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from jaxtyping import install_import_hook

# Before anything of ours is imported: every annotated shape and type in xlatent is checked by beartype.
install_import_hook("xlatent", "beartype.beartype")

# A busy machine is no error.
settings.register_profile("xlatent", deadline=None)
settings.load_profile("xlatent")

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real observations, ../shared/data from the repository root; it is no part of the project."""
    folder = ROOT.parent / "shared" / "data"
    if not (folder / "spectra" / "manifest.csv").is_file():
        message = f"real observations are not at {folder}"
        if os.environ.get("XLATENT_REQUIRE_DATA") == "1":
            pytest.fail(f"{message}, and XLATENT_REQUIRE_DATA=1 asks for them")
        pytest.skip(message)
    return folder


@pytest.fixture(scope="session")
def latent_table():
    """Make a table from means, one error for all latents or one for each, and other columns."""

    from xlatent.core.latents import LatentTable

    def make(z, error=0.1, **columns):
        z = np.asarray(z, float)
        covariance = np.einsum("ni,ij->nij", np.broadcast_to(error, z.shape) ** 2, np.eye(8))
        names = {"name": [f"source {i}" for i in range(len(z))]}
        return LatentTable.from_posterior(z, covariance, names | columns, {"model": "none"})

    return make


@pytest.fixture(scope="session")
def xspec():
    """Compute a model of XSPEC's own library: photons per bin, or the factor of a multiplicative model."""
    import ctypes

    library = pytest.importorskip("xspectrampoline").get_libraries()

    def compute(model, edges, parameters, abundances="wilm"):
        error = ctypes.c_int(0)
        library.lib_xs_functions.FPSOLR(abundances.encode(), ctypes.byref(error))
        out = np.zeros(len(edges) - 1)
        # Arrays are handed to C as they lie in memory.
        edges, parameters = np.ascontiguousarray(edges, float), np.asarray(parameters, float)
        library.get_model(f"C_{model}")(edges, parameters, out, np.zeros_like(out))
        return out

    return compute
