"""Responses are recognised by what is in the files: decoded once, shared, and never mistaken for each other."""

import gzip
import shutil
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from xlatent.core.errors import ReadError, XlatentWarning
from xlatent.formats import ogip_spectrum
from xlatent.formats.ogip_response import ResponseReader

from . import ogip_files as files
from .ogip_files import N_ENERGY


@pytest.fixture
def reader():
    return ResponseReader()


def matrix_memory(spectrum):
    return spectrum.response.redistribution.data


def test_the_same_files_give_the_same_object(tmp_path, reader):
    path = files.whole(tmp_path)
    other = files.pha(tmp_path / "other.pi", RESPFILE="src.rmf", ANCRFILE="src.arf")
    assert (
        ogip_spectrum.read(path, responses=reader).response
        is ogip_spectrum.read(path, responses=reader).response
        is ogip_spectrum.read(other, responses=reader).response
    )


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("known_packed", [False, True])
def test_copies_under_other_names_share_the_matrix_and_keep_their_names(tmp_path, known_packed, packed, reader):
    one = ogip_spectrum.read(files.whole(tmp_path), rmf=copy(tmp_path, "one.rmf", known_packed), responses=reader)
    two = ogip_spectrum.read(tmp_path / "src.pi", rmf=copy(tmp_path, "two.rmf", packed), responses=reader)
    assert np.shares_memory(matrix_memory(one), matrix_memory(two))
    assert [s.response.meta["rmf"] for s in (one, two)] == [str(tmp_path / "one.rmf"), str(tmp_path / "two.rmf")]
    np.testing.assert_array_equal(one.response.area, two.response.area)


def copy(folder, name, packed):
    raw = (folder / "src.rmf").read_bytes()
    (folder / name).write_bytes(gzip.compress(raw) if packed else raw)
    return folder / name


def test_many_compressions_of_one_file_are_kept_no_more_than_twice(tmp_path, reader):
    path = files.whole(tmp_path)
    raw = (tmp_path / "src.rmf").read_bytes()
    first = ogip_spectrum.read(path, responses=reader)
    for level in range(10):
        (tmp_path / "packed.rmf").write_bytes(gzip.compress(raw, level, mtime=level))
        assert np.shares_memory(
            matrix_memory(first), matrix_memory(ogip_spectrum.read(path, rmf=tmp_path / "packed.rmf", responses=reader))
        )
    (known,) = reader._rmfs.values()
    assert len(known.contents) <= 2


def test_sources_of_a_field_share_the_matrix_and_have_areas_of_their_own(tmp_path, reader):
    path = files.whole(tmp_path)
    areas = [np.full(N_ENERGY, float(10 + i)) for i in range(3)]
    spectra = [
        ogip_spectrum.read(path, arf=files.arf(tmp_path / f"{i}.arf", area=area), responses=reader)
        for i, area in enumerate(areas)
    ]
    for spectrum, area in zip(spectra, areas, strict=True):
        np.testing.assert_array_equal(spectrum.response.area, area)
        assert np.shares_memory(matrix_memory(spectrum), matrix_memory(spectra[0]))


@pytest.mark.parametrize("packed", [False, True])
def test_a_file_that_was_changed_is_read_again(tmp_path, packed, reader):
    path = files.whole(tmp_path)
    for lost in (0.1, 0.2, 0.1):
        files.rmf(tmp_path / "src.rmf", files.matrix(lost=lost), zipped=packed)
        np.testing.assert_array_equal(
            ogip_spectrum.read(path, responses=reader).response.redistribution.toarray(), files.matrix(lost=lost)
        )
    for area in (1.0, 2.0, 1.0):
        files.arf(tmp_path / "src.arf", area=np.full(N_ENERGY, area))
        assert ogip_spectrum.read(path, responses=reader).response.area[0] == area


def forged(raw, crc):
    """Bytes that differ from ``raw`` in its last four only, and have a given CRC-32: it is linear in them."""
    base = zlib.crc32(raw[:-4] + bytes(4))
    columns = [zlib.crc32(raw[:-4] + (1 << bit).to_bytes(4, "little")) ^ base for bit in range(32)]
    system = np.array([[column >> row & 1 for column in columns] + [(crc ^ base) >> row & 1] for row in range(32)])
    for i in range(32):
        pivot = i + int(np.argmax(system[i:, i]))
        system[[i, pivot]] = system[[pivot, i]]
        others = (system[:, i] == 1) & (np.arange(32) != i)
        system[others] ^= system[i]
    return raw[:-4] + sum(int(bit) << i for i, bit in enumerate(system[:, 32])).to_bytes(4, "little")


def test_files_of_one_checksum_and_length_are_told_apart(tmp_path, reader):
    path = files.whole(tmp_path)
    one = (tmp_path / "src.rmf").read_bytes()
    other = files.rmf(tmp_path / "other.rmf", files.matrix(lost=0.2))
    other.write_bytes(forged(other.read_bytes(), zlib.crc32(one)))
    assert zlib.crc32(other.read_bytes()) == zlib.crc32(one)
    assert len(other.read_bytes()) == len(one)
    for rmf, lost in ((tmp_path / "src.rmf", 0.1), (other, 0.2), (tmp_path / "src.rmf", 0.1)):
        np.testing.assert_array_equal(
            ogip_spectrum.read(path, rmf=rmf, responses=reader).response.redistribution.toarray(),
            files.matrix(lost=lost),
        )


def test_a_damaged_file_is_not_taken_for_the_one_whose_checksum_it_states(tmp_path, reader):
    path = files.whole(tmp_path)
    whole = gzip.compress((tmp_path / "src.rmf").read_bytes())
    (tmp_path / "src.rmf").write_bytes(whole)
    ogip_spectrum.read(path, responses=reader)
    (tmp_path / "src.rmf").write_bytes(whole[:200] + bytes(50) + whole[250:])
    with pytest.raises(ReadError, match=r"src\.rmf cannot be read as FITS"):
        ogip_spectrum.read(path, responses=reader)


def test_warnings_name_the_file_they_are_about(tmp_path, reader):
    path = files.whole(tmp_path)
    files.save(
        tmp_path / "src.rmf", files.matrix_table(tlmin=False, first=0), files.bounds_table(channels=np.zeros(64))
    )
    shutil.copy(tmp_path / "src.rmf", tmp_path / "copy.rmf")
    for name in ("src.rmf", "copy.rmf", "src.rmf"):
        with pytest.warns(XlatentWarning, match=rf"{name}\[MATRIX\] has no TLMIN"):
            spectrum = ogip_spectrum.read(path, rmf=tmp_path / name, responses=reader)
        assert len(spectrum.meta["warnings"]) == 1


def test_memory_is_bounded(tmp_path):
    path = files.whole(tmp_path)
    probe = ResponseReader()
    ogip_spectrum.read(path, responses=probe)
    (size,) = (matrix.size for matrix in probe._rmfs.values())
    budget = int(3.5 * size)
    reader = ResponseReader(max_bytes=budget)
    rmfs = [files.rmf(tmp_path / f"{i}.rmf", files.matrix(lost=0.01 * i)) for i in range(8)]
    first = ogip_spectrum.read(path, rmf=rmfs[0], responses=reader).response
    for rmf in rmfs:
        ogip_spectrum.read(path, rmf=rmf, responses=reader)
        assert ogip_spectrum.read(path, rmf=rmf, responses=reader).response is not first or rmf == rmfs[0]
        assert sum(matrix.size for matrix in reader._rmfs.values()) <= budget
    assert len(reader._rmfs) == 3
    assert ogip_spectrum.read(path, rmf=rmfs[0], responses=reader).response is not first


def test_areas_of_one_matrix_are_bounded(tmp_path):
    path = files.whole(tmp_path)
    reader = ResponseReader(max_areas=4)
    for i in range(9):
        arf = files.arf(tmp_path / f"{i}.arf", area=np.full(N_ENERGY, 1.0 + i))
        ogip_spectrum.read(path, arf=arf, responses=reader)
    assert [len(matrix.made) for matrix in reader._rmfs.values()] == [4]


def test_what_was_kept_can_be_let_go(tmp_path, reader):
    path = files.whole(tmp_path)
    first = ogip_spectrum.read(path, responses=reader).response
    reader.clear_cache()
    assert not np.shares_memory(first.area, ogip_spectrum.read(path, responses=reader).response.area)
    assert ogip_spectrum.read(path).response is not ogip_spectrum.read(path).response


def test_threads_share_a_reader(tmp_path):
    """Whatever the order, each file gives its own matrix, and equal ones are the same object, within the bounds."""
    path = files.whole(tmp_path)
    probe = ResponseReader()
    ogip_spectrum.read(path, responses=probe)
    (size,) = (matrix.size for matrix in probe._rmfs.values())
    reader = ResponseReader(max_bytes=int(2.5 * size), max_areas=2)
    lost = [0.05 * i for i in range(4)]
    rmfs = [files.rmf(tmp_path / f"{i}.rmf", files.matrix(lost=part)) for i, part in enumerate(lost)]
    arfs = [files.arf(tmp_path / f"{i}.arf", area=np.full(N_ENERGY, 1.0 + i)) for i in range(4)]

    def read(turn):
        i, j = turn % 4, turn // 4 % 4
        return i, j, ogip_spectrum.read(path, rmf=rmfs[i], arf=arfs[j], responses=reader).response

    with ThreadPoolExecutor(4) as pool:
        for i, j, response in pool.map(read, range(200)):
            assert response.area[0] == 1.0 + j
            np.testing.assert_array_equal(response.redistribution.toarray(), files.matrix(lost=lost[i]))
    assert sum(matrix.size for matrix in reader._rmfs.values()) <= 2.5 * size

    reader = ResponseReader()
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: ogip_spectrum.read(path, responses=reader).response, range(20)))
    assert all(response is found[0] for response in found)


def test_warnings_know_their_kind_and_file(tmp_path):
    path = files.whole(tmp_path, ANCRFILE="none")
    rows = files.matrix()
    rows[:, 0] = 0
    files.rmf(tmp_path / "src.rmf", rows, first=0, tlmin=False)
    with pytest.warns(XlatentWarning) as told:
        ogip_spectrum.read(path)
    found = {warning.message.kind: warning.message.file for warning in told}
    assert found == dict.fromkeys(
        [
            "an RMF has no TLMIN for F_CHAN, and its first channel was assumed",
            "an RMF was used without an ARF, its area taken as 1 cm2 at all energies",
        ],
        str(tmp_path / "src.rmf"),
    )
