"""Stores: rows are the spectra they came from, and what is damaged is told in one sentence."""

import functools
import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xlatent.core.errors import ParameterError, ReadError, WriteError, XlatentWarning
from xlatent.core.spectrum import Response, Spectrum
from xlatent.formats import store as stores
from xlatent.formats.inputs import find
from xlatent.formats.ogip_spectrum import read
from xlatent.formats.store import open_store, write
from xlatent.formats.store_rows import MATRICES
from xlatent.formats.store_shards import Responses
from xlatent.simulate import acis


def assert_same(found, expected):
    """Two values are equal in type, dtype and every bit that is a number."""
    assert type(found) is type(expected)
    if isinstance(expected, Spectrum | Response):
        for field in expected.__dataclass_fields__:
            assert_same(getattr(found, field), getattr(expected, field))
    elif isinstance(expected, np.ndarray):
        assert found.dtype == expected.dtype and found.flags.writeable
        np.testing.assert_array_equal(found, expected)
    elif hasattr(expected, "indptr"):
        assert found.shape == expected.shape and found.data.dtype == expected.data.dtype
        for part in ("indptr", "indices", "data"):
            np.testing.assert_array_equal(getattr(found, part), getattr(expected, part))
    else:
        assert found == expected


def spectra_of(*inputs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", XlatentWarning)
        return [read(s.pha, s.arf, s.rmf, s.background, s.name) for s in find(inputs)]


@pytest.fixture(scope="module")
def responses():
    return [acis.response(chip, 2001.0) for chip in ("BI", "FI")]


def simulated(number, responses, seed=0):
    """Small spectra, alternating between the responses."""
    rng = np.random.default_rng(seed)
    n_chan = responses[0].chan_lo.size
    return [
        Spectrum(
            rng.poisson(0.1, n_chan).astype(float),
            1e4 + i,
            background=Spectrum(rng.poisson(0.1, n_chan).astype(float), 1e4, backscale=9.0),
            response=responses[i % len(responses)],
            meta={"name": f"s{i}", "obi": i},
        )
        for i in range(number)
    ]


@pytest.fixture(scope="module")
def whole(tmp_path_factory, responses):
    """A store of 60 spectra in four shards; not to be changed."""
    path = tmp_path_factory.mktemp("stores") / "whole"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stores, "SHARD_ROWS", 16)
        splits = ["train", "train", "validation", "test"] * 15
        write(iter(simulated(60, responses)), path, {"split": splits, "source": [f"x{i}" for i in range(60)]})
    return path


@pytest.fixture
def copied(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "store")


@pytest.mark.parametrize(("folder", "number"), [("spectra/manifest.csv", 24), ("other-missions", 3)])
def test_a_row_is_the_spectrum_it_came_from(shared_data, tmp_path, folder, number):
    expected = spectra_of(shared_data / folder)
    found = write(expected, tmp_path / "store")
    assert len(found) == len(expected) == number
    for one, other in zip(found, expected, strict=True):
        assert_same(one, other)
    assert_same(found[number - 1], expected[-1])


numbers = st.floats(1e-3, 1e6)


@st.composite
def odd_spectra(draw, background=True):
    """Anything that Spectrum takes: fractional counts, vector scales, gaps in the channels, meta of any kind."""
    n = draw(st.integers(1, 5))

    def vector(elements):
        return st.lists(elements, min_size=n, max_size=n).map(np.array)

    flags = st.none() | vector(st.integers(-1, 5))
    texts = st.text(st.characters(codec="utf-8"), max_size=4)
    values = st.none() | texts | st.booleans() | st.integers(-(2**40), 2**40) | st.floats(allow_nan=False)
    keys = st.sampled_from(["name", "obsid", "obi", "ra", "warnings", "colour"])
    return Spectrum(
        draw(vector(st.integers(0, 3) | numbers)).astype(float),
        draw(numbers),
        draw(numbers | vector(numbers)),
        draw(numbers | vector(numbers)),
        draw(flags),
        draw(flags),
        draw(st.none() | st.integers(0, 3).map(lambda first: np.arange(first, first + n)) | vector(st.integers(0, 99))),
        meta=draw(st.dictionaries(keys, values | st.lists(values, max_size=2), max_size=4)),
        background=None,
    ), n


@settings(max_examples=25)
@given(st.lists(odd_spectra(), min_size=1, max_size=4), st.lists(odd_spectra(), min_size=4, max_size=4))
def test_any_spectrum_round_trips(tmp_path_factory, drawn, backgrounds):
    expected = [
        replace(one, background=off if n == m else None) for (one, n), (off, m) in zip(drawn, backgrounds, strict=False)
    ]
    found = write(expected, tmp_path_factory.mktemp("any"))
    for one, other in zip(found, expected, strict=True):
        assert_same(one, other)


def test_equal_responses_are_stored_once_and_are_one_object(whole, responses):
    store = open_store(whole)
    found = list(store)
    assert len(list((whole / MATRICES).iterdir())) == len({id(r.redistribution) for r in responses}) == 2
    assert len({id(spectrum.response) for spectrum in found}) == 2
    assert found[0].response is found[58].response  # also across shards
    assert_same(found[1].response.redistribution, responses[1].redistribution)


def test_memory_of_responses_is_bounded(whole):
    store = open_store(whole)
    loaded = []

    def load(key):
        loaded.append(key)
        return store._reader._matrix(key)

    store._reader._responses = Responses(load, budget=1)
    assert len(list(store)) == len(loaded)  # the two alternate, and one at a time is kept


def test_shards_splits_and_columns(whole):
    store = open_store(whole)
    assert [len(shard) for shard in store.shards] == [16, 16, 16, 12] and len(store) == 60
    assert [s.name for s in store.shards[1]] == [f"s{i}" for i in range(16, 32)]
    assert [s.name for s in store.spectra("test")] == [f"s{i}" for i in range(3, 60, 4)]
    table = store.columns(["source", "split", "obi"])
    assert table.column("obi").to_pylist() == list(range(60))
    assert table.column("source").to_pylist()[59] == "x59"
    assert {"name", "counts", "split"} <= set(store.schema.names)
    with pytest.raises(ParameterError, match=r"no column hue; .* split, source$"):
        store.columns(["hue"])
    with pytest.raises(IndexError, match="60 spectra"):
        store[60]


def test_threads_share_a_store(whole):
    """Each asks for rows of all shards in an order of its own, so that the shard read last is seldom the one wanted."""
    expected, shared = list(open_store(whole)), open_store(whole)

    def read(seed):
        order = np.random.default_rng(seed).permutation(len(expected))
        return [(i, shared[int(i)]) for i in order] + list(enumerate(shared))

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(read, range(4)))
    responses = {id(spectrum.response) for spectra in found for _, spectrum in spectra}
    assert len(responses) == 2  # equal ones are one object, whoever asks first
    for spectra in found:
        assert len(spectra) == 2 * len(expected)
        for i, spectrum in spectra:
            assert spectrum.name == expected[i].name
            assert_same(spectrum, expected[i])


def test_without_splits_none_can_be_asked_for(tmp_path, responses):
    with pytest.raises(ParameterError, match="column split"):
        list(write(simulated(2, responses), tmp_path / "store").spectra("train"))


def test_adding_keeps_what_is_there(copied, responses):
    more = simulated(3, responses, seed=1)
    store = write(more, copied, {"split": ["test"] * 3, "source": ["y"] * 3})
    assert len(store) == 63 and len(store.shards) == 5
    assert_same(store[62], replace(more[2], meta=more[2].meta | {"source": "y"}))


def test_a_source_is_not_the_object_of_its_field(tmp_path, responses):
    spectra = [replace(one, meta=one.meta | {"object": "M 33"}) for one in simulated(2, responses)]
    store = write(spectra, tmp_path / "store", {"source": ["M 33", "2CXO J0133"]})
    assert [spectrum.meta.get("source") for spectrum in store] == [None, "2CXO J0133"]
    assert store.columns(["source"]).column("source").to_pylist() == ["M 33", "2CXO J0133"]


def test_other_columns_are_refused(copied, responses):
    with pytest.raises(WriteError, match=r"differ in source \(string\)\)"):
        write(simulated(1, responses), copied, {"split": ["test"]})
    with pytest.warns(XlatentWarning, match="unfinished and holds 60 spectra"):
        assert len(open_store(copied)) == 60


def test_what_cannot_be_stored_is_told(tmp_path, responses):
    one = simulated(1, responses)[0]
    odd = Spectrum(one.counts, 1.0, background=one)
    with pytest.raises(ParameterError, match="of its own"):
        write([odd], tmp_path / "a")
    with pytest.raises(ParameterError, match="texts, numbers and lists"):
        write([Spectrum(one.counts, 1.0, meta={"colour": {1, 2}})], tmp_path / "b")
    with pytest.raises(ParameterError, match="column split has 0 values"):
        write([one], tmp_path / "c", {"split": []})


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def newer(path):
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": 2}))


def flipped(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def outside(path):
    info = json.loads(path.read_text())
    info["shards"][0]["file"] = "../elsewhere.parquet"
    path.write_text(json.dumps(info))


@pytest.mark.parametrize(
    ("file", "spoil", "words"),
    [
        ("store.json", newer, "written by a newer xlatent (version 2"),
        ("store.json", cut, "does not describe a store"),
        ("store.json", outside, "does not describe a store (shards.0.file"),
        ("store.json", os.unlink, "should hold a store.json"),
        ("spectra-00002.parquet", cut, "cut off or damaged"),
        ("spectra-00002.parquet", flipped, "cut off or damaged"),
        ("spectra-00002.parquet", os.unlink, "is missing from the store"),
        ("matrices", cut, "cut off or damaged"),
        ("matrices", flipped, "cut off or damaged"),
        ("matrices", os.unlink, "is missing from the store"),
    ],
)
def test_what_is_damaged_is_told_in_one_sentence(copied, file, spoil, words):
    path = copied / file if file != "matrices" else next((copied / MATRICES).iterdir())
    spoil(path)
    with pytest.raises(ReadError) as error:
        list(open_store(copied))
    assert words in str(error.value) and str(path.name) in str(error.value)
    assert "\n" not in str(error.value)


def test_writing_again_takes_out_what_is_damaged(copied, responses):
    cut(copied / "spectra-00001.parquet")
    with pytest.warns(XlatentWarning, match=r"spectra-00001.*taken out"):
        store = write(simulated(1, responses), copied, {"split": ["test"], "source": ["y"]})
    assert [s.name for s in store] == [f"s{i}" for i in (*range(16), *range(32, 60), 0)]


@pytest.mark.parametrize("place", ["nowhere", "text"])
def test_what_is_no_store_is_told(tmp_path, place):
    (tmp_path / "text").write_text("hello")
    with pytest.raises(ReadError, match=place):
        open_store(tmp_path / place)


def test_other_folders_are_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(WriteError, match=r"thesis\.tex"):
        write([], tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_that_is_read_only_is_told(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(WriteError, match="cannot be written"):
        write([], tmp_path / "store")


def test_a_place_that_is_a_file_is_told(tmp_path):
    (tmp_path / "store").write_text("")
    with pytest.raises(WriteError, match="cannot be written"):
        write([], tmp_path / "store")


HOLD = """
import signal, sys
from xlatent.formats.store import Writer
with Writer(sys.argv[1]):
    print("ready", flush=True)
    signal.pause()
"""


def test_two_writers_of_one_store_and_one_that_dies(copied, responses):
    other = subprocess.Popen([sys.executable, "-c", HOLD, str(copied)], stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == "ready\n"
    with pytest.raises(WriteError, match="another process is writing"):
        write([], copied)
    other.kill()
    other.communicate()
    (copied / ".spectra-00004.parquet.1.part").write_bytes(b"half")
    assert len(write([], copied)) == 60  # the lock has gone with its holder
    assert not list(copied.glob(".*.part"))


def test_from_memory_and_over_http(whole):
    import fsspec

    expected = list(open_store(whole))
    memory = fsspec.filesystem("memory")
    memory.put(str(whole), "/stored", recursive=True)
    handler = functools.partial(Quiet, directory=str(whole.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            url = f"http://127.0.0.1:{server.server_port}"
            for place in ("memory://stored", f"{url}/whole", f"{url}/whole/"):
                store = open_store(place)
                for one, other in zip(store, expected, strict=True):
                    assert_same(one, other)
            with pytest.raises(ReadError, match=r"nothing should hold a store\.json"):
                open_store(f"{url}/nothing")
        finally:
            server.shutdown()
            memory.rm("/stored", recursive=True)
    with pytest.raises(ReadError, match="cannot be read"):
        open_store(f"{url}/whole")
    with pytest.raises(ReadError, match="cannot be read"):
        open_store("gopher://example.org/store")


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


def test_the_date_of_a_store_of_before_says_when_the_observation_began(tmp_path):
    dates = ({"date": "2012-07-01T12:00:00"}, {"date": "2012-07-01T12:00:00", "mjd": 56109.25}, {"date": "then"}, {})
    write([Spectrum(np.ones(4), 1.0, meta={"name": str(i), **date}) for i, date in enumerate(dates)], tmp_path / "s")
    assert [one.meta.get("mjd") for one in open_store(tmp_path / "s")] == [56109.5, 56109.25, None, None]
