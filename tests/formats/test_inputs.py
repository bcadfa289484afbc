"""Files, folders, patterns and manifests all come down to the same list of spectra."""

import warnings
from pathlib import Path

import pytest

from xlatent.core.errors import ReadError, XlatentWarning
from xlatent.formats import inputs, ogip_spectrum
from xlatent.formats.ogip_response import ResponseReader

from . import ogip_files as files


def names(found):
    return [source.name for source in found]


def test_file_is_taken_as_it_is(tmp_path):
    path = files.whole(tmp_path)
    assert inputs.find([path]) == [inputs.Source("src", path)]


def test_folder_gives_source_spectra_only(tmp_path):
    files.whole(tmp_path)
    (tmp_path / "deep").mkdir()
    path = files.whole(tmp_path / "deep", name="inner")
    (tmp_path / "notes.txt").write_text("SIMPLE notes")
    (tmp_path / "bad.pi").write_bytes(b"")
    files.pha(tmp_path / "lonely_background.pi", HDUCLAS2="BKG")
    found = inputs.find([tmp_path])
    assert names(found) == ["inner", "src"]
    assert found[0].pha == path
    assert ogip_spectrum.read(found[0].pha, found[0].arf, found[0].rmf, found[0].background).background is not None


def test_background_named_without_gz_is_still_no_source(tmp_path):
    files.whole(tmp_path)
    (tmp_path / "src_bkg.pi").rename(tmp_path / "src_bkg.pi.gz")
    assert names(inputs.find([tmp_path])) == ["src"]


def test_file_that_holds_its_own_background_is_a_source(tmp_path):
    files.save(
        tmp_path / "csc_pha3.fits",
        files.spectrum_table(BACKFILE="csc_pha3.fits", RESPFILE="csc_rmf3.fits"),
        files.spectrum_table(HDUCLAS2="BKG"),
    )
    assert names(inputs.find([tmp_path])) == ["csc_pha3"]


def test_pattern(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        files.whole(tmp_path / folder, name=f"src_{folder}")
    assert names(inputs.find([str(tmp_path / "*" / "*")])) == ["src_a", "src_b"]
    assert names(inputs.find([f"{tmp_path}/**/*_b.pi"])) == ["src_b"]


def test_relative_pattern(tmp_path, monkeypatch):
    files.whole(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert names(inputs.find(["s*.pi"])) == ["src"]


def test_manifest(tmp_path):
    (tmp_path / "data").mkdir()
    files.whole(tmp_path / "data")
    rows = [
        "name,pha,arf,rmf,background,comment",
        "one,data/src.pi,data/src.arf,data/src.rmf,,kept as it is",
        ",data/src.pi,,,NONE,",
    ]
    (tmp_path / "list.csv").write_text("\ufeff" + "\n".join(rows) + "\n", encoding="utf-8")
    one, two = inputs.find([tmp_path / "list.csv"])
    data = tmp_path / "data"
    assert one == inputs.Source("one", data / "src.pi", data / "src.arf", data / "src.rmf", None)
    assert two == inputs.Source("src", data / "src.pi", background=Path("none"))
    assert ogip_spectrum.read(two.pha, two.arf, two.rmf, two.background).background is None


def test_equal_names_are_told_apart_and_equal_files_are_taken_once(tmp_path):
    paths = []
    for folder in ("x/a", "x/b", "y/a"):
        (tmp_path / folder).mkdir(parents=True)
        paths.append(files.whole(tmp_path / folder))
    found = inputs.find([*paths, paths[0]])
    assert names(found) == ["a_src", "b_src", "a_src_2"]


def test_spectrum_without_response_gets_the_only_one_of_its_folder(tmp_path):
    files.whole(tmp_path, RESPFILE="none", ANCRFILE="none")
    with pytest.warns(XlatentWarning, match=r"src\.pi names no response and is read with src\.rmf and src\.arf"):
        (source,) = inputs.find([tmp_path])
    assert (source.arf, source.rmf) == (tmp_path / "src.arf", tmp_path / "src.rmf")


def test_spectrum_without_response_is_left_alone_where_there_are_two(tmp_path):
    files.whole(tmp_path, RESPFILE="none", ANCRFILE="none")
    files.rmf(tmp_path / "other.rmf")
    (source,) = inputs.find([tmp_path])
    assert source.rmf is None


def test_damaged_file_in_a_folder_is_named(tmp_path):
    files.whole(tmp_path)
    raw = (tmp_path / "src.rmf").read_bytes()
    (tmp_path / "cut.fits").write_bytes(raw[:1000])
    with pytest.warns(XlatentWarning, match=r"cut\.fits .* passed over"):
        assert names(inputs.find([tmp_path])) == ["src"]


@pytest.mark.parametrize("given", ["gone.pi", "gone*.pi", "gone.csv"])
def test_nothing_there(tmp_path, given):
    with pytest.raises(ReadError, match="gone"):
        inputs.find([str(tmp_path / given)])


def test_folder_without_spectra(tmp_path):
    files.arf(tmp_path / "a.arf")
    with pytest.raises(ReadError, match="should hold at least one source spectrum"):
        inputs.find([tmp_path])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name,file\na,b\n", "should have a column pha, and its columns are file, name"),
        ("name,pha\na,\n", "row 1 should name a file in column pha"),
        ("name,pha\n", "should hold at least one source spectrum"),
    ],
)
def test_bad_manifest(tmp_path, text, words):
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(ReadError, match=words):
        inputs.find([tmp_path / "list.csv"])


def test_manifest_that_is_no_text(tmp_path):
    (tmp_path / "list.csv").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(ReadError, match="cannot be read as a manifest"):
        inputs.find([tmp_path / "list.csv"])


def test_real_folders(shared_data):
    with pytest.warns(XlatentWarning, match="target_sr.pha names no response"):
        assert sorted(names(inputs.find([shared_data / "other-missions"]))) == ["PN", "s0_mar24_bin", "target_sr"]
    with pytest.warns(XlatentWarning, match="source.pi names no response"):
        folder = inputs.find([shared_data / "spectra"])
    manifest = inputs.find([shared_data / "spectra" / "manifest.csv"])
    assert len(manifest) == 24
    assert {source.pha for source in folder} == {source.pha for source in manifest}


# ---- spectra of all that was found


def test_all_spectra_of_files_folders_manifests_and_patterns(tmp_path):
    (tmp_path / "folder").mkdir()
    path = files.whole(tmp_path / "folder")
    manifest = tmp_path / "list.csv"
    manifest.write_text("name,pha,background\none,folder/src.pi,none\n")
    for given in (path, str(path), tmp_path / "folder", f"{tmp_path}/f*/src.pi", [path], iter([path, path])):
        (spectrum,) = inputs.read_all(given)
        assert spectrum.name == "src" and spectrum.background is not None and spectrum.response is not None
    one, other = inputs.read_all([manifest, tmp_path / "folder"])
    assert (one.name, one.background) == ("one", None)
    assert other.background is not None
    assert one.response is other.response
    assert inputs.read_all([]) == []


def test_all_rows_of_type_two(tmp_path):
    files.whole(tmp_path)
    spectra = inputs.read_all([files.type_two(tmp_path / "grating.pha", ANCRFILE="src.arf"), tmp_path / "src.pi"])
    assert [spectrum.name for spectrum in spectra] == ["grating_3", "grating_5", "grating_9", "src"]
    assert len({id(spectrum.response) for spectrum in spectra}) == 1


def test_a_reader_is_shared_between_calls(tmp_path):
    path = files.whole(tmp_path)
    reader = ResponseReader()
    (one,), (other,) = (inputs.read_all(path, responses=reader) for _ in range(2))
    assert one.response is other.response
    assert inputs.read_all(path)[0].response is not one.response


def test_the_first_spectrum_that_cannot_be_read_is_named(tmp_path):
    files.whole(tmp_path, EXPOSURE=-1.0)
    with pytest.raises(ReadError, match=r"src\.pi.*exposure must be a positive number"):
        inputs.read_all(tmp_path)


def test_real_spectra_share_responses(shared_data):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", XlatentWarning)
        spectra = inputs.read_all(shared_data / "other-missions")
    assert {spectrum.meta["telescope"] for spectrum in spectra} == {"ASCA", "SWIFT", "XMM"}


def test_warnings_know_their_kind_and_file(tmp_path):
    path = files.whole(tmp_path, RESPFILE="none", ANCRFILE="none")
    (tmp_path / "cut.fits").write_bytes((tmp_path / "src.rmf").read_bytes()[:1000])
    with pytest.warns(XlatentWarning) as told:
        inputs.find([tmp_path])
    found = {warning.message.kind: warning.message.file for warning in told}
    assert found == {
        "a damaged file was passed over": str(tmp_path / "cut.fits"),
        "a spectrum names no response and is read with the only one in its folder": str(path),
    }
