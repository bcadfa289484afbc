"""Real labelled sources, and commands as functions."""

import numpy as np
import pytest
import typer
from typer.testing import CliRunner


@pytest.fixture(scope="session")
def labelled(shared_data):
    """Latents of a third of the real labelled sources, from their band fluxes, with catalogue columns beside them."""
    from xlatent.core.bundle import DEFAULT_MODEL
    from xlatent.formats import catalogue_tables
    from xlatent.infer import photometry, photometry_sampler
    from xlatent.infer.embed import load_model

    rows = catalogue_tables.read_columns(shared_data / "catalogues" / "csc2_labelled_sources.csv")
    rows = rows[np.asarray(rows["significance"] > 5)][::3]
    measured = []
    for band in "smh":
        flux, error = (np.asarray(rows[f"{prefix}F{band}"], float) for prefix in ("", "e_"))
        measured.append(photometry.PhotometricColumn(f"flux_{band}", flux, error, error))
    columns = {"name": rows["name"], "class": rows["class"], "nh_gal": rows["nh_gal"], "P_intra": rows["P_intra"]}
    total = {band: np.asarray(rows[f"F{band}"], float) for band in "smh"}
    for hard, soft in ("hm", "hs", "ms"):
        columns[f"measured_{hard}{soft}"] = (total[hard] - total[soft]) / (total[hard] + total[soft])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(photometry_sampler, "_MANY", 2**14)
        return photometry.embed_photometry(load_model(DEFAULT_MODEL), measured, columns)


@pytest.fixture(scope="session")
def run():
    """Run a command in this process; the result has exit_code, output and exception."""

    def command(function, *arguments):
        app = typer.Typer()
        app.command()(function)
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    return command
