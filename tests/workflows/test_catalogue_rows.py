"""`xl.embed_catalogue`: what ``xlatent catalog embed`` does, from Python."""

import numpy as np
import pytest
from astropy.table import Table

import xlatent as xl
from xlatent.core.errors import ParameterError, ReadError, WriteError
from xlatent.formats import latent_tables
from xlatent.infer import photometry_sampler
from xlatent.workflows.catalogue_rows import parse_columns

COLUMNS = {"s": "Fs", "s_err": "e_Fs", "m": "Fm", "m_err": "e_Fm", "h": "Fh", "h_err": "e_Fh"}


@pytest.fixture(scope="module", autouse=True)
def small_bank():
    """A small large bank, so that tests begin at once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(photometry_sampler, "_MANY", 2**14)
        yield


@pytest.fixture(scope="module")
def labelled(shared_data) -> Table:
    return Table.read(shared_data / "catalogues" / "csc2_labelled_sources.csv")[:20]


def test_a_table_and_its_file_give_the_same_latents(labelled, tmp_path):
    labelled.write(tmp_path / "some.csv")
    told = []
    latents = xl.embed_catalogue(labelled, columns=COLUMNS, progress=lambda *done: told.append(done))
    text = ",".join(f"{key}={name}" for key, name in COLUMNS.items())
    again = xl.embed_catalogue(tmp_path / "some.csv", tmp_path / "latents.fits", columns=text)
    assert len(latents) == 20 and told[-1] == (20, 20) and told == sorted(told)
    np.testing.assert_array_equal(latents.z, again.z)
    np.testing.assert_array_equal(latent_tables.read(tmp_path / "latents.fits").z, again.z)
    assert list(again["name"]) == list(labelled["name"])


def test_columns_by_key():
    assert parse_columns({"0.5-2": "F", "0.5-2_lolim": "l", "0.5-2_hilim": "h", "hm": "H"}) == {
        "flux_0p5_2": {"value": "F", "lolim": "l", "hilim": "h"},
        "hard_hm": {"value": "H"},
    }


def test_mistakes_are_told_before_any_work(labelled, tmp_path):
    with pytest.raises(ParameterError, match="'u=Fs'"):
        xl.embed_catalogue(labelled, columns={"u": "Fs"})
    with pytest.raises(ReadError, match="the table: has no column Fsoft"):
        xl.embed_catalogue(labelled, columns={"s": "Fsoft", "s_err": "e_Fs"})
    with pytest.raises(WriteError, match="there is no folder"):
        xl.embed_catalogue(labelled, tmp_path / "nowhere" / "t.fits", columns=COLUMNS)
