"""Set-up of all tests: annotations are checked at run time, and the real data are found or asked for."""

import os
from pathlib import Path

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
