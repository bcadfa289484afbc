"""Which ARF, RMF and background belong to a spectrum: what was given, what its header names, what bears its name."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from xlatent.core.errors import ReadError, XlatentWarning
from xlatent.formats import inputs, ogip_spectrum

from . import ogip_files as files
from .ogip_files import COUNTS, N_ENERGY

KEYWORDS = ("ANCRFILE", "RESPFILE", "BACKFILE")


def whole(folder, **keywords):
    """Spectrum with companions next to it that its header does not name."""
    return files.whole(folder, **{**dict.fromkeys(KEYWORDS), **keywords})


def read_with(path):
    """File names of ARF, RMF and background that a spectrum was read with."""
    spectrum = ogip_spectrum.read(path)
    named = [spectrum.response.meta.get(key) for key in ("arf", "rmf")] if spectrum.response else [None, None]
    named.append(spectrum.background.meta["file"] if spectrum.background else None)
    return [name and Path(name).name for name in named]


def test_a_missing_keyword_does_not_hide_files(tmp_path):
    path = whole(tmp_path)
    assert read_with(path) == ["src.arf", "src.rmf", "src_bkg.pi"]
    assert "warnings" not in ogip_spectrum.read(path).meta


@pytest.mark.parametrize("name", ["src_grp.pi", "src_src.pi"])
def test_grouped_spectra_take_what_belongs_to_the_one_that_was_grouped(tmp_path, name):
    path = whole(tmp_path).rename(tmp_path / name)
    assert read_with(path) == ["src.arf", "src.rmf", "src_bkg.pi"]
    files.arf(path.with_suffix(".arf"))
    assert read_with(path)[0] == path.with_suffix(".arf").name


def test_the_corrected_area_is_better_and_older_names_are_known(tmp_path):
    path = whole(tmp_path)
    files.arf(tmp_path / "src.corr.arf", area=np.full(N_ENERGY, 7.0))
    assert read_with(path)[0] == "src.corr.arf"
    for old, new in (("src.arf", "src.warf"), ("src.rmf", "src.wrmf"), ("src_bkg.pi", "src_bg.pi")):
        (tmp_path / old).rename(tmp_path / new)
    (tmp_path / "src.corr.arf").unlink()
    assert read_with(path) == ["src.warf", "src.wrmf", "src_bg.pi"]


def test_packed_companions_are_found(tmp_path):
    path = whole(tmp_path).rename(tmp_path / "src.pi.gz")
    for name in ("src.arf", "src.rmf", "src_bkg.pi"):
        (tmp_path / name).rename(tmp_path / f"{name}.gz")
    assert read_with(path) == ["src.arf.gz", "src.rmf.gz", "src_bkg.pi.gz"]


def test_none_is_still_none(tmp_path):
    assert read_with(whole(tmp_path, ANCRFILE="none", BACKFILE="NONE", RESPFILE="none")) == [None, None, None]
    path = whole(tmp_path)
    assert ogip_spectrum.read(path, rmf="none").response is None
    assert ogip_spectrum.read(path, background="none").background is None


@pytest.mark.parametrize(
    ("keyword", "label", "found"),
    [
        ("ANCRFILE", "ARF", "src.arf"),
        ("RESPFILE", "response matrix", "src.rmf"),
        ("BACKFILE", "background", "src_bkg.pi"),
    ],
)
def test_a_name_in_vain_falls_back_and_says_so(tmp_path, keyword, label, found):
    path = whole(tmp_path, **{keyword: "gone.fits"})
    with pytest.warns(XlatentWarning, match=rf"names gone\.fits as its {label} .* is read with {found}") as told:
        assert found in read_with(path)
    (warning,) = (one.message for one in told)
    assert warning.file == str(path)
    assert "src" not in warning.kind and "gone" not in warning.kind and keyword in warning.kind


def test_a_matrix_that_contains_the_area_takes_no_arf_that_no_one_asked_for(tmp_path):
    path = whole(tmp_path)
    files.rmf(tmp_path / "src.rmf", 100 * files.matrix(), name="SPECRESP MATRIX", HDUCLAS3="FULL")
    assert read_with(path) == [None, "src.rmf", "src_bkg.pi"]
    assert ogip_spectrum.read(path, arf=tmp_path / "src.arf").response.area[0] == 100


def test_an_arf_alone_is_not_taken(tmp_path):
    path = whole(tmp_path)
    (tmp_path / "src.rmf").unlink()
    assert read_with(path) == [None, None, "src_bkg.pi"]


def test_rows_of_type_two_are_not_given_one_response_by_name(tmp_path):
    files.whole(tmp_path)
    path = files.type_two(tmp_path / "grating.pha")
    for name in ("grating.arf", "grating_bkg.pha"):
        shutil.copy(tmp_path / ("src.arf" if name.endswith("arf") else "src_bkg.pi"), tmp_path / name)
    with pytest.warns(XlatentWarning, match="without an ARF"):
        spectra = ogip_spectrum.read_spectra(path)
    assert all(spectrum.background is None for spectrum in spectra)


def test_a_background_in_the_file_is_better_than_one_by_name(tmp_path):
    path = files.save(tmp_path / "src.pi", files.spectrum_table(), files.spectrum_table(2 * COUNTS, HDUCLAS2="BKG"))
    files.pha(tmp_path / "src_bkg.pi", counts=3 * COUNTS)
    assert ogip_spectrum.read(path).background.counts.sum() == 2 * COUNTS.sum()


def test_a_folder_does_not_take_a_background_by_name_for_a_source(tmp_path):
    whole(tmp_path)
    with pytest.warns(XlatentWarning, match=r"src\.pi names no response"):
        assert [source.name for source in inputs.find([tmp_path])] == ["src"]
    whole(tmp_path, BACKFILE="gone.pi", RESPFILE="src.rmf")
    assert [source.name for source in inputs.find([tmp_path])] == ["src"]


def test_real_spectrum_whose_header_names_nothing(shared_data):
    spectrum = ogip_spectrum.read(shared_data / "spectra" / "m33__source" / "source.pi")
    assert Path(spectrum.response.meta["rmf"]).name == "source.rmf.gz"
    assert Path(spectrum.response.meta["arf"]).name == "source.arf"
    assert spectrum.background is None
    (source,) = (one for one in inputs.find([shared_data / "spectra" / "manifest.csv"]) if one.name == "m33__source")
    (same,) = source.read()
    np.testing.assert_array_equal(spectrum.response.area, same.response.area)


# ---- backgrounds of type II


@pytest.mark.parametrize("given", [True, False])
def test_a_background_of_type_two_is_called_so(tmp_path, given):
    path = files.whole(tmp_path, BACKFILE="none" if given else "bkg.pha")
    many = files.type_two(tmp_path / "bkg.pha")
    with pytest.raises(ReadError, match=r"bkg\.pha, the background of .*src\.pi, is a PHA file of type II with 3 spec"):
        ogip_spectrum.read(path, background=many if given else None)


def test_a_background_of_type_two_with_one_row_is_read(tmp_path):
    row = files.table(
        [files.column("COUNTS", f"{COUNTS.size}J", COUNTS[None])], "SPECTRUM", HDUCLAS1="SPECTRUM", EXPOSURE=5.0
    )
    files.save(tmp_path / "bkg.pha", row)
    path = files.whole(tmp_path, BACKFILE="bkg.pha")
    np.testing.assert_array_equal(ogip_spectrum.read(path).background.counts, COUNTS)


# ---- telescopes


@pytest.mark.parametrize("ours", ["CXC", "Chandra", "AXAF"])
def test_chandra_has_several_names(tmp_path, ours):
    path = files.whole(tmp_path, TELESCOP=ours)
    files.rmf(tmp_path / "src.rmf", TELESCOP="CHANDRA")
    files.arf(tmp_path / "src.arf", TELESCOP="CXC")
    assert "warnings" not in ogip_spectrum.read(path).meta


def test_an_area_of_another_telescope_is_pointed_out(tmp_path):
    path = files.whole(tmp_path)
    files.arf(tmp_path / "src.arf", TELESCOP="OTHER")
    with pytest.warns(XlatentWarning, match=r"src\.pi is a spectrum of TEST and its ARF .*src\.arf one of OTHER"):
        ogip_spectrum.read(path)
