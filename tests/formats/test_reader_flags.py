"""Whatever the reader has to say that makes a number wrong becomes a flag, of files, folders and stores."""

import warnings

import numpy as np
import pytest

from xlatent.core.errors import ReadError, XlatentWarning
from xlatent.formats import inputs, ogip_spectrum, store

from . import ogip_files as files


def flags(path, **given):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", XlatentWarning)
        return set(ogip_spectrum.read(path, **given).meta.get("flags", ()))


def test_nothing_wrong_no_flag(tmp_path):
    assert flags(files.whole(tmp_path)) == set()


@pytest.mark.parametrize(
    ("keywords", "expected"),
    [
        ({"HDUCLAS2": "NET"}, {"net_counts"}),
        ({"ANCRFILE": "none"}, {"no_arf"}),
        ({"RESPFILE": "other.rmf"}, {"guessed_response"}),
        ({"ANCRFILE": "other.arf"}, {"guessed_response"}),
        ({"BACKFILE": "other.pi"}, {"guessed_background"}),
        ({"TELESCOP": "OTHER"}, {"other_telescope"}),
        ({"TG_M": -1}, {"grating"}),
        ({"TG_M": 0, "GRATING": "HETG"}, set()),  # the zeroth order is an image on a CCD
        ({"INSTRUME": "RGS1"}, {"grating"}),
        ({"INSTRUME": "HRC"}, {"hrc"}),
        ({"DETNAM": "HRC-I"}, {"hrc"}),
        ({"INSTRUME": "HRC", "TG_M": 1}, {"hrc", "grating"}),
    ],
)
def test_what_the_header_says(tmp_path, keywords, expected):
    assert flags(files.whole(tmp_path, **keywords)) == expected


def test_an_arf_of_another_telescope_or_on_another_grid(tmp_path):
    path = files.whole(tmp_path)
    files.arf(tmp_path / "src.arf", TELESCOP="OTHER")
    assert flags(path) == {"other_telescope"}
    files.arf(tmp_path / "src.arf", energy=np.linspace(0.2, 9.0, 31).astype(np.float32))
    assert flags(path) == {"interpolated_arf"}


@pytest.mark.parametrize("ours", ["CHANDRA", "CXC", "Chandra"])
@pytest.mark.parametrize("theirs", ["CHANDRA", "CXC"])
def test_cxc_is_chandra(tmp_path, ours, theirs):
    path = files.whole(tmp_path, TELESCOP=ours)
    files.rmf(tmp_path / "src.rmf", TELESCOP=theirs)
    files.arf(tmp_path / "src.arf", TELESCOP=theirs)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "flags" not in ogip_spectrum.read(path).meta


def test_channels_of_equal_wavelength_are_those_of_a_grating(tmp_path):
    path = files.whole(tmp_path)
    bounds = files.bounds_table(bounds=files.BOUNDS[::-1])
    bounds.data["E_MIN"], bounds.data["E_MAX"] = files.BOUNDS[:-1][::-1], files.BOUNDS[1:][::-1]
    files.save(tmp_path / "src.rmf", files.matrix_table(), bounds)
    assert flags(path) == {"grating"}


def test_channels_that_were_assumed(tmp_path):
    path = files.whole(tmp_path)
    files.save(
        tmp_path / "src.rmf", files.matrix_table(tlmin=False, first=0), files.bounds_table(channels=np.zeros(64))
    )
    assert flags(path) == {"guessed_channels"}


def test_the_only_response_of_a_folder_is_a_guess_and_a_store_says_so_too(tmp_path):
    folder = tmp_path / "spectra"
    folder.mkdir()
    files.whole(folder, RESPFILE="none", ANCRFILE="none", TIMEDEL=3.2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", XlatentWarning)
        [spectrum] = inputs.read_all(folder)
    assert spectrum.meta["flags"] == ("guessed_response",) and spectrum.meta["frame_time"] == 3.2
    [again] = store.write([spectrum], tmp_path / "store")
    assert list(again.meta["flags"]) == ["guessed_response"] and again.meta["frame_time"] == 3.2


def test_negative_counts_are_refused_with_a_remedy(tmp_path):
    path = files.whole(tmp_path, counts=files.COUNTS - 1.5, form="E")
    with pytest.raises(ReadError, match=r"counts must not be negative.*before a background is subtracted"):
        ogip_spectrum.read(path)
