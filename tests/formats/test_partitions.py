"""Embeddings in parts: what is there is whole, what is not is told in one sentence."""

import json

import numpy as np
import pytest

from xlatent.core.errors import ReadError, WriteError
from xlatent.core.latents import LatentTable
from xlatent.formats import latent_tables
from xlatent.formats.described_folder import is_url
from xlatent.formats.partitions import INFO, EmbeddingInfo, PartInfo, PartitionedTable, is_embedding

FILES = ["b.parquet", "a.parquet"]
DESCRIPTION = EmbeddingInfo(
    software="xlatent 0.1.0",
    model="m",
    model_sha256="0" * 64,
    refine=True,
    posterior="gaussian",
    parts=tuple(PartInfo(file=file, input="store", rows=2, sha256="1" * 64) for file in FILES),
)


def rows(*names):
    return latent_tables.to_arrow(LatentTable({"name": names, "z0": np.arange(len(names))}, {"model": "m"}))


@pytest.fixture(params=["folder", "url"])
def parts(request, tmp_path):
    if request.param == "folder":
        yield PartitionedTable(tmp_path / "parts")
    else:
        import fsspec

        yield PartitionedTable("memory://test/parts")
        memory = fsspec.filesystem("memory")
        if memory.exists("/test"):
            memory.rm("/test", recursive=True)


def test_rows_come_back_in_the_order_of_the_description(parts):
    parts.create_or_resume(DESCRIPTION)
    parts.write("a.parquet", rows("c"), [("d", "store", "it is “odd”")])
    assert parts.completed(FILES) == {"a.parquet": (1, [["d", "store", "it is “odd”"]])}
    with pytest.raises(ReadError, match=r"1 of its 2 parts are missing \(b\.parquet"):
        parts.read()
    parts.write("b.parquet", rows("a", "b"))
    found = latent_tables.read(parts.path)
    assert list(found["name"]) == ["a", "b", "c"] and found.meta == {"model": "m"}
    assert b"xlatent.failures" not in parts.read().schema.metadata
    assert is_embedding(parts.path)


def test_what_was_begun_is_gone_on_with(parts):
    parts.create_or_resume(DESCRIPTION)
    parts.create_or_resume(DESCRIPTION)
    assert parts.info() == DESCRIPTION
    for change, word in (
        ({"refine": False}, r"other refine \(True, now False\)"),
        ({"model_sha256": "2" * 64}, "other model_sha256"),
        ({"parts": DESCRIPTION.parts[:1]}, "other inputs;"),
    ):
        with pytest.raises(WriteError, match=word):
            parts.create_or_resume(DESCRIPTION.model_copy(update=change))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "does not describe an embedding"),
        (json.dumps({"version": 2}), "written by a newer xlatent"),
        (DESCRIPTION.model_dump_json().replace("b.parquet", "../b.parquet"), "parts.0.file"),
        (None, "should hold an _embedding.json"),
    ],
)
def test_a_bad_description_is_told(tmp_path, content, words):
    if content is not None:
        (tmp_path / INFO).write_text(content)
    with pytest.raises(ReadError) as error:
        PartitionedTable(tmp_path).info()
    assert words in str(error.value) and "\n" not in str(error.value)


def test_a_damaged_part_is_told_and_counts_as_missing(tmp_path):
    parts = PartitionedTable(tmp_path)
    parts.create_or_resume(DESCRIPTION)
    for file in FILES:
        parts.write(file, rows("a", "b"))
    (tmp_path / "a.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:-9])
    assert list(parts.completed(FILES)) == ["b.parquet"]
    with pytest.raises(ReadError, match=r"a\.parquet is cut off or damaged"):
        latent_tables.read(tmp_path)


def test_a_writer_without_the_folder_is_told(tmp_path):
    with pytest.raises(WriteError, match="cannot be written"):
        PartitionedTable(tmp_path / "elsewhere").write("a.parquet", rows("a"))


def test_urls():
    assert is_url("s3://bucket/x") and is_url("s3:/bucket/x")
    assert not is_url("C:/data") and not is_url("folder/x:y")
    assert PartitionedTable("memory:/a/b/").path == "memory://a/b"
