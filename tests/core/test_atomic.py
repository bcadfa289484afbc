"""Files and folders that are whole or not there."""

import numpy as np
import pytest

from xlatent.core.atomic import atomic, atomic_folder, remove_temporaries
from xlatent.core.errors import WriteError


def test_a_file_is_replaced_whole_or_stays(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("before")
    with pytest.raises(ZeroDivisionError), atomic(path) as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "before"
    with atomic(path) as temporary:
        assert temporary.suffix == ".txt"
        temporary.write_text("after")
    assert path.read_text() == "after"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_is_there_whole_or_not_at_all(tmp_path):
    path = tmp_path / "folder"
    with pytest.raises(ZeroDivisionError), atomic_folder(path) as temporary:
        (temporary / "one.txt").write_text("1")
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []
    with atomic_folder(path) as temporary:
        np.save(temporary / "one.npy", np.ones(3))
        assert not path.exists()
    assert [file.name for file in path.iterdir()] == ["one.npy"]
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_written_is_told(tmp_path):
    with pytest.raises(WriteError, match="is there already"), atomic_folder(tmp_path):
        pass
    for way in (atomic, atomic_folder):
        with pytest.raises(WriteError, match="cannot be written"), way(tmp_path / "absent" / "x"):
            pass
    with pytest.raises(WriteError, match="is a folder"), atomic(tmp_path):
        pass
    with pytest.raises(WriteError, match="cannot be written"), atomic_folder(tmp_path / "x") as temporary:
        (temporary / "absent" / "y").write_text("")
    # The fault of another file is not laid on this one.
    with pytest.raises(FileNotFoundError), atomic_folder(tmp_path / "x"):
        (tmp_path / "absent").read_text()
    assert list(tmp_path.iterdir()) == []


def test_leftovers_of_a_killed_writer_are_removed(tmp_path):
    (tmp_path / ".0123456789ab.half.txt").write_text("")
    (tmp_path / ".0123456789ab.folder").mkdir()
    (tmp_path / ".0123456789ab.folder" / "x").write_text("")
    kept = tmp_path / ".hidden"
    kept.write_text("")
    remove_temporaries(tmp_path)
    assert list(tmp_path.iterdir()) == [kept]
