"""The IDX reader: arrays of the right values, and a DataError for everything that is no IDX
file."""

import os
import pickle
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from idx_files import CODES, SMALL, idx_bytes, idx_header, packed
from pnncore import data
from pnncore.data import _idx
from pnncore.errors import ConfigError, DataError

pytestmark = pytest.mark.usefixtures("no_surroundings")


@pytest.fixture
def idx_file(tmp_path):
    """Write bytes to a file and read it as IDX."""
    file = tmp_path / "some-idx"

    def read(content, **kwargs):
        file.write_bytes(content)
        return data.read_idx(file, **kwargs)

    return read


# IDX: what is right


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(sorted(CODES)),
    shape=st.lists(st.integers(0, 5), min_size=1, max_size=4),
    compress=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_idx_round_trip(tmp_path_factory, kind, shape, compress, seed):
    width = np.dtype(kind).itemsize
    raw = np.random.default_rng(seed).integers(0, 256, (*shape, width), dtype=np.uint8)
    array = raw.reshape(-1).view(kind).reshape(shape)
    content = idx_bytes(array)
    file = tmp_path_factory.getbasetemp() / "round-trip-idx"
    file.write_bytes(packed(content) if compress else content)
    got = data.read_idx(str(file))
    assert got.dtype == np.dtype(kind)
    assert got.dtype.isnative
    assert got.shape == tuple(shape)
    assert got.tobytes() == array.tobytes()
    assert got.flags.c_contiguous
    assert got.flags.writeable


def test_idx_larger_than_one_chunk(idx_file):
    array = np.arange(3 * 1024 * 1024 // 2, dtype=np.uint32).astype(np.uint8).reshape(512, -1)
    assert np.array_equal(idx_file(idx_bytes(array)), array)
    assert np.array_equal(idx_file(packed(idx_bytes(array))), array)


def test_idx_gzip_of_several_members(idx_file):
    content = idx_bytes(SMALL)
    assert np.array_equal(idx_file(packed(content[:7]) + packed(content[7:])), SMALL)


# IDX: what is wrong


@pytest.mark.parametrize("pack", [bytes, packed], ids=["plain", "gzip"])
def test_idx_every_truncation(idx_file, pack):
    content = pack(idx_bytes(SMALL))
    for length in range(len(content)):
        with pytest.raises(DataError, match="some-idx"):
            idx_file(content[:length])


def test_idx_every_change_of_a_byte(idx_file):
    content = idx_bytes(SMALL)
    header = len(content) - SMALL.size
    for place, old in enumerate(content):
        for new in set(range(256)) - {old}:
            changed = content[:place] + bytes([new]) + content[place + 1 :]
            if place >= header:
                got = idx_file(changed)
                assert got.shape == SMALL.shape
                assert got.tobytes() == changed[header:]
            elif (place, new) == (
                2,
                CODES["i1"],
            ):  # as long as the original, so nothing gives it away
                assert np.array_equal(idx_file(changed), SMALL.view(np.int8))
            else:
                with pytest.raises(DataError):
                    idx_file(changed)


def test_idx_every_change_of_a_byte_of_gzip(idx_file):
    """What gzip's own checksum lets through is harmless: time stamp, system, flags."""
    content = packed(idx_bytes(SMALL))
    refused = 0
    for place, old in enumerate(content):
        for mask in (1, 2, 4, 8, 16, 32, 64, 128, 255):
            try:
                got = idx_file(content[:place] + bytes([old ^ mask]) + content[place + 1 :])
            except DataError:
                refused += 1
            else:
                assert np.array_equal(got, SMALL)
    assert refused > 6 * len(content)


@settings(max_examples=200, deadline=None)
@given(
    content=st.binary(max_size=64),
    start=st.sampled_from([b"", b"\x00\x00", b"\x00\x00\x08", b"\x1f\x8b\x08"]),
)
def test_idx_arbitrary_bytes(tmp_path_factory, content, start):
    file = tmp_path_factory.getbasetemp() / "arbitrary-idx"
    file.write_bytes(start + content)
    try:
        got = data.read_idx(file)
    except DataError:
        return
    assert got.nbytes <= len(content)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "at least 4 bytes, got 0"),
        (b"\x00\x00\x08", "at least 4 bytes, got 3"),
        (b"\x89PNG\r\n\x1a\n" + bytes(40), "not an IDX file.*89 50 4e 47"),
        (b"label,pixel\n5,0\n", "not an IDX file"),
        (b"PK\x03\x04" + bytes(40), "not an IDX file"),
        (pickle.dumps([1, 2, 3]), "not an IDX file"),
        (idx_bytes(SMALL)[::-1], "not an IDX file"),
        (idx_header(0x0A, 1) + b"x", "not an IDX file.*00 00 0a 01"),
        (bytes([0, 0, 8, 0, 1]), "not an IDX file"),
        (bytes([0, 0, 8, 33]) + bytes(400), "not an IDX file"),
        (idx_header(8, 2, 3)[:-1], "header cut short: expected 8 bytes for 2 dimensions, got 7"),
        (idx_bytes(SMALL)[:-1], "expected 6 bytes after the header, got 5"),
        (idx_bytes(SMALL) + b"!", "expected 6 bytes after the header, got 7"),
        (packed(idx_bytes(SMALL)[:-1]), "expected 6 bytes after the header, got 5"),
        (packed(idx_bytes(SMALL) + b"!!"), "expected 6 bytes after the header, got at least 7"),
        (packed(b""), "at least 4 bytes, got 0"),
        (packed(b"a foreign file"), "not an IDX file"),
        (packed(idx_bytes(SMALL)) + b"trailing", "gzip stream damaged"),
        (packed(idx_bytes(SMALL))[:-9], "gzip stream damaged or cut short"),
        (packed(packed(idx_bytes(SMALL))), "not an IDX file"),
    ],
)
def test_idx_foreign_and_damaged_files(idx_file, content, words):
    with pytest.raises(DataError, match=words):
        idx_file(content)


@pytest.mark.parametrize("pack", [bytes, packed], ids=["plain", "gzip"])
@pytest.mark.parametrize(
    "header",
    [
        idx_header(8, 1 << 30),
        idx_header(8, *[0xFFFFFFFF] * 3),
        idx_header(0x0E, *[0xFFFFFFFF] * 32),
        idx_header(8, 0, *[0xFFFFFFFF] * 31),
        idx_header(8, 0xFFFFFFFF, 0),
    ],
)
def test_idx_header_that_promises_too_much(idx_file, header, pack):
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="expected"):
            idx_file(pack(header + b"few"))
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("pack", [bytes, packed], ids=["plain", "gzip"])
def test_idx_without_numbers(idx_file, pack):
    assert idx_file(pack(idx_header(8, 0, 28, 28))).shape == (0, 28, 28)
    with pytest.raises(DataError, match="max_bytes"):  # NumPy has no such array, empty or not
        idx_file(pack(idx_header(8, 0, *[0xFFFFFFFF] * 3)))


def test_idx_bomb_is_not_unpacked(idx_file):
    bomb = packed(idx_header(8, 2, 3) + bytes(64 << 20))
    assert len(bomb) < 100_000
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="got at least 7"):
            idx_file(bomb)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_idx_limit(idx_file):
    content = packed(idx_header(0x0B, 500) + bytes(1000))
    assert idx_file(content, max_bytes=1000).shape == (500,)
    with pytest.raises(DataError, match="at most max_bytes=999"):
        idx_file(content, max_bytes=999)


def test_idx_paths_that_are_no_files(tmp_path, monkeypatch):
    with pytest.raises(DataError, match="no such file"):
        data.read_idx(tmp_path / "absent")
    with pytest.raises(DataError, match="not a regular file"):
        data.read_idx(tmp_path)
    with pytest.raises(DataError, match="cannot be read"):
        data.read_idx("with\0nul")
    with pytest.raises(DataError, match="cannot be read"):
        data.read_idx(tmp_path / ("x" * 10_000))
    (tmp_path / "file").write_bytes(idx_bytes(SMALL))
    with pytest.raises(DataError, match="cannot be read"):
        data.read_idx(tmp_path / "file" / "below")
    for bad in (3, None, b"bytes", ["list"]):
        with pytest.raises(ConfigError, match="path: expected a str or a path-like"):
            data.read_idx(bad)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(DataError, match="not a regular file"):  # and no waiting for a writer
            data.read_idx(tmp_path / "pipe")

    def refuse(*args):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(_idx, "open", refuse, raising=False)
    with pytest.raises(DataError, match="Permission denied"):
        data.read_idx(tmp_path / "file")
