"""The data sets and the IDX reader: what they return, and that a bad file raises DataError, nothing else."""

import gzip
import hashlib
import http.client
import importlib.resources
import io
import os
import pickle
import subprocess
import sys
import tracemalloc
import urllib.error
import urllib.request
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pnncore import data, errors
from pnncore.data import _idx, _sets
from pnncore.errors import ConfigError, DataError

CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}
SMALL = np.array([[1, 2, 3], [253, 254, 255]], np.uint8)


def idx_header(code, *dims):
    return bytes([0, 0, code, len(dims)]) + b"".join(d.to_bytes(4, "big") for d in dims)


def idx_bytes(array):
    kind = array.dtype.str[1:]
    return idx_header(CODES[kind], *array.shape) + array.astype(f">{kind}").tobytes()


def packed(content):
    return gzip.compress(content, mtime=0)


@pytest.fixture(autouse=True)
def no_surroundings(monkeypatch, tmp_path):
    """Hide the user's data and the network."""

    def refuse(*args, **kwargs):
        raise AssertionError(f"a test reached for the network: {args}")

    monkeypatch.delenv("PNNCORE_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setattr(urllib.request, "urlopen", refuse)


@pytest.fixture
def idx_file(tmp_path):
    """Write bytes to a file and read it as IDX."""
    file = tmp_path / "some-idx"

    def read(content, **kwargs):
        file.write_bytes(content)
        return data.read_idx(file, **kwargs)

    return read


# errors


@pytest.mark.parametrize(
    ("name", "builtin"),
    [
        ("ShapeError", ValueError),
        ("ConfigError", ValueError),
        ("DataError", ValueError),
        ("CapabilityError", TypeError),
        ("HardwareError", RuntimeError),
        ("CheckpointError", ValueError),
    ],
)
def test_errors_are_pnn_errors_and_builtins(name, builtin):
    kind = getattr(errors, name)
    assert issubclass(kind, errors.PnnError)
    assert issubclass(kind, builtin)
    assert kind.__doc__
    assert name in errors.__all__
    copy = pickle.loads(pickle.dumps(kind("what went wrong")))
    assert type(copy) is kind
    assert str(copy) == "what went wrong"


# the package


def test_public_names():
    assert sorted(data.__all__) == sorted(["VOWEL_CLASSES", "digits", "fashion_mnist", "mnist", "read_idx", "vowels"])
    for name in data.__all__:
        assert getattr(data, name).__doc__


def test_works_without_the_compiled_module():
    package = Path(data.__file__).parents[1]
    code = f"""
import sys, types
stub = types.ModuleType("pnncore")
stub.__path__ = [{str(package)!r}]
sys.modules["pnncore"], sys.modules["pnncore._core"] = stub, None
import pnncore.data
print(len(pnncore.data.digits()[0]), "sklearn" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["1347", "False"]


# digits


def test_digits_shapes_and_ranges():
    x, y, x_test, y_test = data.digits()
    assert x.shape == (1347, 64)
    assert y.shape == (1347,)
    assert x_test.shape == (450, 64)
    assert y_test.shape == (450,)
    for images in (x, x_test):
        assert images.dtype == np.float32
        assert images.flags.c_contiguous
        assert images.flags.writeable
        assert images.min() == 0
        assert images.max() == 1
        assert np.array_equal(images * 16, np.rint(images * 16))
    for labels in (y, y_test):
        assert labels.dtype == np.int64
        assert set(labels.tolist()) == set(range(10))
    counts = np.bincount(np.concatenate([y, y_test]))
    assert counts.tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_digits_are_those_of_uci():
    """All 1797 samples are there once, and their bytes are the documented ones."""
    digest = "87ff0c9e40dc7e2c0e34e7257799c2e3f3aec1a016363bb11cad869ec428a826"
    package = importlib.resources.files("pnncore.data")
    assert digest in package.joinpath("SOURCES.md").read_text("utf-8")
    with np.load(io.BytesIO(package.joinpath("digits.npz").read_bytes()), allow_pickle=False) as raw:
        pixels, labels = raw["pixels"], raw["labels"]
    assert hashlib.sha256(pixels.tobytes() + labels.tobytes()).hexdigest() == digest

    x, y, x_test, y_test = data.digits(test_size=500, seed=3)
    got = np.column_stack([np.vstack([x, x_test]) * 16, np.concatenate([y, y_test])]).astype(np.uint8)
    want = np.column_stack([pixels, labels])
    assert sorted(map(bytes, got)) == sorted(map(bytes, want))


def test_digits_equal_those_of_scikit_learn():
    raw = pytest.importorskip("sklearn.datasets").load_digits()
    x, y, x_test, y_test = data.digits(test_size=0)
    assert x_test.shape == (0, 64)
    assert y_test.shape == (0,)
    order = np.random.Generator(np.random.Philox(0)).permutation(1797)
    assert np.array_equal(x * 16, raw.data[order])
    assert np.array_equal(y, raw.target[order])


def test_digits_split_is_a_function_of_size_and_seed():
    first, again, other = data.digits(seed=1), data.digits(seed=1), data.digits(seed=2)
    for a, b in zip(first, again, strict=True):
        assert np.array_equal(a, b)
        assert not np.shares_memory(a, b)
    assert not np.array_equal(first[1], other[1])
    x, y, x_test, y_test = data.digits()
    assert y_test[:12].tolist() == PINNED_TEST_LABELS
    assert y[:12].tolist() == PINNED_TRAIN_LABELS
    all_test = data.digits(test_size=1797)
    assert all_test[0].shape == (0, 64)
    assert np.array_equal(all_test[2], np.vstack([x_test, x]))
    assert np.array_equal(data.digits(test_size=np.int64(450))[3], y_test)


PINNED_TEST_LABELS = [1, 4, 4, 6, 3, 6, 4, 8, 4, 9, 9, 0]
PINNED_TRAIN_LABELS = [2, 6, 3, 4, 3, 8, 3, 6, 0, 6, 4, 4]


@pytest.mark.parametrize("bad", [-1, 1798, 0.25, "450", None, True, np.bool_(True), float("nan")])
def test_digits_refuse_a_bad_test_size(bad):
    with pytest.raises(ConfigError, match="test_size: expected"):
        data.digits(test_size=bad)


@pytest.mark.parametrize("bad", [-1, 0.5, "0", None, False])
def test_digits_refuse_a_bad_seed(bad):
    with pytest.raises(ConfigError, match="seed: expected"):
        data.digits(seed=bad)


def test_digits_file_is_small_and_its_licence_is_beside_it():
    package = importlib.resources.files("pnncore.data")
    assert len(package.joinpath("digits.npz").read_bytes()) < 100_000
    text = package.joinpath("SOURCES.md").read_text("utf-8")
    for part in ("Alpaydin", "Kaynak", "1998", "10.24432/C50P49", "CC BY 4.0", "load_digits"):
        assert part in text


def test_digits_report_a_damaged_installation(monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.resources, "files", lambda package: tmp_path)
    with pytest.raises(DataError, match="reinstall"):
        data.digits()
    (tmp_path / "digits.npz").write_bytes(b"PK not really")
    with pytest.raises(DataError, match=r"digits\.npz"):
        data.digits()


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
            elif (place, new) == (2, CODES["i1"]):  # as long as the original, so nothing gives it away
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


# sets of IDX files: finding, reading, fetching


class Tiny:
    """A set of four small files, and a network that serves them."""

    def __init__(self, title="Tiny", offset=0):
        rng = np.random.default_rng(7)
        self.arrays = [
            rng.integers(0, 256, (5, 2, 3), dtype=np.uint8),
            (np.arange(5, dtype=np.uint8) + offset) % 10,
            rng.integers(0, 256, (4, 2, 3), dtype=np.uint8),
            (np.arange(4, dtype=np.uint8) + offset) % 10,
        ]
        names = [file.name for file in _sets._MNIST.files]
        self.plain = {n: idx_bytes(a) for n, a in zip(names, self.arrays, strict=True)}
        self.served = {n: packed(content) for n, content in self.plain.items()}
        self.spec = _sets._IdxSet(
            title=title,
            call=title.lower(),
            folder=f"{title.lower()}-set",
            url="https://example.org/tiny/",
            fingerprint=zlib.crc32(self.arrays[1].tobytes()),
            files=tuple(
                _sets._IdxFile(n, a.shape, len(self.served[n]), hashlib.md5(self.served[n]).hexdigest())
                for n, a in zip(names, self.arrays, strict=True)
            ),
        )
        self.asked = []

    def write(self, folder, compress=False, leave_out=()):
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in (self.served if compress else self.plain).items():
            if name not in leave_out:
                (folder / (name + ".gz" * compress)).write_bytes(content)

    def load(self, path=None, download=False):
        return _sets._load_idx_set(self.spec, path, download=download)

    def open(self, url, *, timeout):
        assert 0 < timeout <= 300
        self.asked.append(url)
        return io.BytesIO(self.served[url.removeprefix(self.spec.url).removesuffix(".gz")])

    def check(self, loaded):
        x, y, x_test, y_test = loaded
        for got, want in ((x, self.arrays[0]), (x_test, self.arrays[2])):
            assert got.dtype == np.float32
            assert got.shape == (len(want), 6)
            assert np.array_equal(np.rint(got * 255), want.reshape(len(want), 6))
            assert got.min() >= 0
            assert got.max() <= 1
        for got, want in ((y, self.arrays[1]), (y_test, self.arrays[3])):
            assert got.dtype == np.int64
            assert np.array_equal(got, want)


@pytest.fixture
def tiny(monkeypatch):
    made = Tiny()
    monkeypatch.setattr(_sets, "_IDX_SETS", (made.spec,))
    return made


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "xdg" / "pnncore" / "tiny-set"


@pytest.mark.parametrize("compress", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("below", ["", "tiny-set"], ids=["direct", "subfolder"])
@pytest.mark.parametrize("origin", ["path", "PNNCORE_DATA", "cache"])
def test_set_is_found(tiny, tmp_path, monkeypatch, origin, below, compress):
    root = tmp_path / "xdg" / "pnncore" if origin == "cache" else tmp_path / "somewhere"
    tiny.write(root / below, compress)
    if origin == "PNNCORE_DATA":
        monkeypatch.setenv("PNNCORE_DATA", str(root))
    tiny.check(tiny.load(str(root) if origin == "path" else None))


def test_set_search_order(tiny, tmp_path, monkeypatch):
    """The argument, then the variable, then the cache; the subfolder before the folder itself."""
    other = [Tiny(offset=k) for k in range(4)]
    monkeypatch.setattr(_sets, "_IDX_SETS", ())
    places = [
        tmp_path / "a" / "tiny-set",
        tmp_path / "a",
        tmp_path / "b" / "tiny-set",
        tmp_path / "xdg" / "pnncore" / "tiny-set",
    ]
    for each, place in zip(other, places, strict=True):
        each.write(place)
    monkeypatch.setenv("PNNCORE_DATA", str(tmp_path / "b"))
    for each, place in zip(other, places, strict=True):
        each.check(tiny.load(tmp_path / "a"))
        (place / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match="not found"):
        tiny.load(tmp_path / "a")


def test_set_home_without_xdg(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    tiny.write(tmp_path / "home" / ".cache" / "pnncore" / "tiny-set")
    for value in ("", "relative/path"):  # the XDG specification: relative paths do not count
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        tiny.check(tiny.load())
    monkeypatch.delenv("XDG_CACHE_HOME")
    tiny.check(tiny.load())
    tiny.check(tiny.load("~/.cache/pnncore"))


def test_set_no_home_at_all(tiny, monkeypatch):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(DataError, match="not found"):
        tiny.load()
    with pytest.raises(DataError, match="set XDG_CACHE_HOME"):
        tiny.load(download=True)


@pytest.mark.parametrize("call", [data.mnist, data.fashion_mnist])
def test_missing_set_says_what_where_and_how(call, tmp_path, monkeypatch):
    given, named = tmp_path / "given", tmp_path / "named"
    given.mkdir()
    (given / "t10k-labels-idx1-ubyte.gz").write_bytes(b"")
    monkeypatch.setenv("PNNCORE_DATA", str(named))
    with pytest.raises(DataError) as caught:
        call(given)
    text = str(caught.value)
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        assert f"{name}-ubyte" in text.splitlines()[0]
    folder = call.__name__.replace("_", "-")
    for place in (given, named, tmp_path / "xdg" / "pnncore"):
        assert f"{place} (" in text
        assert f"{place / folder} (" in text
    lacks = next(line for line in text.splitlines() if f"{given} (path): lacks" in line)
    assert "t10k-labels" not in lacks
    assert "train-labels-idx1-ubyte" in lacks
    for way in (f"{call.__name__}(download=True)", "amazonaws.com", f"{call.__name__}(path)", "PNNCORE_DATA"):
        assert way in text
    monkeypatch.delenv("PNNCORE_DATA")
    with pytest.raises(DataError, match="PNNCORE_DATA is not set"):
        call()


@pytest.mark.parametrize("call", [data.mnist, data.fashion_mnist, data.vowels])
def test_bad_path_argument(call, tmp_path):
    with pytest.raises(DataError, match="path: expected a folder"):
        call(tmp_path / "absent")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DataError, match="path: expected a folder"):
        call(tmp_path / "file")
    with pytest.raises(DataError, match="path: expected a folder"):
        call("with\0nul")
    with pytest.raises(ConfigError, match="path: expected a str"):
        call(7)


def test_set_with_the_same_file_names_is_passed_over(tiny, tmp_path, monkeypatch):
    other = Tiny("Other", offset=3)
    monkeypatch.setattr(_sets, "_IDX_SETS", (tiny.spec, other.spec))
    other.write(tmp_path / "flat")
    with pytest.raises(DataError, match=r"flat \(path\): holds Other"):
        tiny.load(tmp_path / "flat")
    other.check(other.load(tmp_path / "flat"))
    tiny.write(tmp_path / "flat" / "tiny-set")
    tiny.check(tiny.load(tmp_path / "flat"))


def test_set_with_damaged_files(tiny, tmp_path):
    names = list(tiny.plain)
    tiny.write(tmp_path)
    wrong = {
        names[0]: idx_bytes(np.zeros((5, 3, 2), np.uint8)),
        names[1]: idx_bytes(np.zeros(5, np.int8)),
        names[2]: tiny.plain[names[2]][:-1],
        names[3]: idx_bytes(np.array([0, 1, 10, 2], np.uint8)),
    }
    for name, content in wrong.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=f"{name}: .*expected"):
            tiny.load(tmp_path)
        (tmp_path / name).write_bytes(tiny.plain[name])
    tiny.check(tiny.load(tmp_path))


def test_download(tiny, cache, monkeypatch):
    with pytest.raises(DataError, match="not found"):
        tiny.load()  # never without being asked
    monkeypatch.setattr(urllib.request, "urlopen", tiny.open)
    tiny.check(tiny.load(download=True))
    assert tiny.asked == [f"https://example.org/tiny/{name}.gz" for name in tiny.plain]
    assert {file.name for file in cache.iterdir()} == {f"{name}.gz" for name in tiny.plain}
    tiny.check(tiny.load(download=True))
    tiny.check(tiny.load())
    assert len(tiny.asked) == 4


def test_download_fetches_only_what_the_cache_lacks(tiny, cache, monkeypatch):
    tiny.write(cache, leave_out=["train-labels-idx1-ubyte"])
    monkeypatch.setattr(urllib.request, "urlopen", tiny.open)
    tiny.check(tiny.load(download=True))
    assert tiny.asked == ["https://example.org/tiny/train-labels-idx1-ubyte.gz"]


class Endless(io.RawIOBase):
    """A server that never stops sending."""

    sent = 0

    def read(self, size=-1):
        self.sent += size
        assert self.sent < 1 << 20
        return b"x" * size


class Broken(io.BytesIO):
    """A connection that ends in an error."""

    def __init__(self, error):
        super().__init__()
        self.error = error

    def read(self, size=-1):
        raise self.error


@pytest.mark.parametrize(
    ("serve", "words"),
    [
        (lambda good: io.BytesIO(good[:-1] + b"?"), "checksum mismatch: expected MD5"),
        (lambda good: io.BytesIO(good[:-1]), "expected .* bytes, got"),
        (lambda good: io.BytesIO(b""), "bytes, got 0"),
        (lambda good: io.BytesIO(good + b"!"), "bytes, got at least"),
        (lambda good: Endless(), "bytes, got at least"),
        (lambda good: Broken(TimeoutError("timed out")), "timed out"),
        (lambda good: Broken(ConnectionResetError(104, "reset by peer")), "reset by peer"),
        (lambda good: Broken(http.client.IncompleteRead(b"part")), "IncompleteRead"),
    ],
)
def test_download_that_goes_wrong_leaves_nothing_behind(tiny, cache, monkeypatch, serve, words):
    good = tiny.served["train-images-idx3-ubyte"]
    monkeypatch.setattr(urllib.request, "urlopen", lambda url, timeout: serve(good))
    with pytest.raises(DataError, match=words):
        tiny.load(download=True)
    assert list(cache.iterdir()) == []


def test_download_without_a_network(tiny, cache, monkeypatch):
    def fail(url, timeout):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(urllib.request, "urlopen", fail)
    with pytest.raises(DataError, match=r"https://example\.org/tiny/train-images.*no route to host"):
        tiny.load(download=True)
    assert list(cache.iterdir()) == []


def test_download_interrupted_leaves_nothing_behind(tiny, cache, monkeypatch):
    monkeypatch.setattr(urllib.request, "urlopen", lambda url, timeout: Broken(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        tiny.load(download=True)
    assert list(cache.iterdir()) == []


def test_download_keeps_what_is_complete(tiny, cache, monkeypatch):
    """A second attempt starts where the first one failed."""
    good = dict(tiny.served)
    tiny.served["t10k-images-idx3-ubyte"] = b"an error page"
    monkeypatch.setattr(urllib.request, "urlopen", tiny.open)
    with pytest.raises(DataError, match="t10k-images"):
        tiny.load(download=True)
    assert len(list(cache.iterdir())) == 2
    tiny.served, tiny.asked = good, []
    tiny.check(tiny.load(download=True))
    assert len(tiny.asked) == 2


def test_download_into_a_place_that_cannot_be_written(tiny, tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(urllib.request, "urlopen", tiny.open)
    with pytest.raises(DataError, match="cannot be written"):
        tiny.load(download=True)
    assert tiny.asked == []


def test_addresses_and_checksums_are_well_formed():
    seen = set()
    for spec in (_sets._MNIST, _sets._FASHION_MNIST):
        assert spec.url.endswith("/")
        for file in spec.files:
            assert len(bytes.fromhex(file.md5)) == 16
            seen.add(file.md5)
    assert len(seen) == 8


# vowels


def vowel_arrays():
    rng = np.random.default_rng(5)
    return {
        "train_dataset_x": rng.uniform(0.2, 1, (210, 12)).astype(np.float32),
        "train_dataset_y": rng.integers(0, 7, 210),
        "test_dataset_x": rng.uniform(0.2, 1, (49, 12)).astype(np.float32),
        "test_dataset_y": rng.integers(0, 7, 49),
    }


def save_vowels(folder, arrays):
    folder.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(folder / "pat_vowels.npz", **arrays)


@pytest.mark.parametrize("below", ["", "vowel"], ids=["direct", "subfolder"])
@pytest.mark.parametrize("origin", ["path", "PNNCORE_DATA", "cache"])
def test_vowels_are_found(tmp_path, monkeypatch, origin, below):
    root = tmp_path / "xdg" / "pnncore" if origin == "cache" else tmp_path / "somewhere"
    arrays = vowel_arrays()
    save_vowels(root / below, arrays)
    if origin == "PNNCORE_DATA":
        monkeypatch.setenv("PNNCORE_DATA", str(root))
    loaded = data.vowels(root if origin == "path" else None)
    for got, want in zip(loaded, arrays.values(), strict=True):
        assert got.dtype == want.dtype
        assert got.flags.writeable
        assert np.array_equal(got, want)


def test_vowels_missing(tmp_path):
    with pytest.raises(DataError) as caught:
        data.vowels(tmp_path)
    for part in (
        "pat_vowels.npz",
        "Looked in",
        str(tmp_path / "vowel"),
        "Physics-Aware-Training",
        "PNNCORE_DATA",
    ):
        assert part in str(caught.value)


class Trap:
    """An object whose unpickling shows."""

    def __reduce__(self):
        return (exec, ("import os; os.environ['PNNCORE_TEST_TRAP'] = 'sprung'",))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"test_dataset_y": None}, "has no array test_dataset_y"),
        ({"train_dataset_x": np.zeros((210, 12))}, "train_dataset_x: expected float32"),
        ({"train_dataset_x": np.zeros((210, 12), np.float16)}, "train_dataset_x: .* got float16"),
        ({"train_dataset_x": np.zeros((210, 12), ">f4")}, "train_dataset_x: .* got >f4"),
        ({"train_dataset_x": np.zeros((12, 210), np.float32)}, r"shape \(210, 12\), got .*\(12, 210\)"),
        ({"train_dataset_x": np.zeros((12, 210), np.float32).T}, "train_dataset_x: expected"),
        (
            {"train_dataset_x": np.zeros((1000, 1000), np.float32)},
            "train_dataset_x: expected .*4000128 bytes",
        ),
        ({"train_dataset_x": np.full((210, 12), np.nan, np.float32)}, "train_dataset_x: expected numbers"),
        ({"test_dataset_x": np.full((49, 12), np.inf, np.float32)}, "test_dataset_x: expected numbers"),
        ({"test_dataset_x": np.full((49, 12), -0.1, np.float32)}, "test_dataset_x: expected numbers"),
        ({"train_dataset_y": np.full(210, 7)}, "train_dataset_y: expected labels 0 to 6"),
        ({"test_dataset_y": np.full(49, -1)}, "test_dataset_y: expected labels 0 to 6"),
        ({"test_dataset_y": np.array([Trap()] * 49, object)}, "test_dataset_y: expected"),
    ],
)
def test_vowels_with_other_arrays(tmp_path, monkeypatch, change, words):
    monkeypatch.delenv("PNNCORE_TEST_TRAP", raising=False)
    arrays = {key: array for key, array in {**vowel_arrays(), **change}.items() if array is not None}
    save_vowels(tmp_path, arrays)
    with pytest.raises(DataError, match=words):
        data.vowels(tmp_path)
    assert "PNNCORE_TEST_TRAP" not in os.environ


def test_vowels_damaged_file(tmp_path):
    arrays = vowel_arrays()
    save_vowels(tmp_path, arrays)
    file = tmp_path / "pat_vowels.npz"
    good = file.read_bytes()
    for length in [*range(0, len(good), 97), len(good) - 1]:
        file.write_bytes(good[:length])
        with pytest.raises(DataError, match="pat_vowels"):
            data.vowels(tmp_path)
    places = [*range(0, len(good), 31), *range(60), *range(len(good) - 400, len(good))]
    for place in places:
        for mask in (1, 128, 255):
            file.write_bytes(good[:place] + bytes([good[place] ^ mask]) + good[place + 1 :])
            try:
                loaded = data.vowels(tmp_path)
            except DataError:
                continue
            for got, want in zip(loaded, arrays.values(), strict=True):  # a byte that means nothing
                assert np.array_equal(got, want)


def test_vowels_foreign_file(tmp_path):
    file = tmp_path / "pat_vowels.npz"
    for content in (b"", b"text", pickle.dumps(vowel_arrays()), bytes((1 << 20) + 1)):
        file.write_bytes(content)
        with pytest.raises(DataError, match="pat_vowels"):
            data.vowels(tmp_path)
    good = b"{'descr': '<f4', 'fortran_order': False, 'shape': (210, 12), }"
    for version, length, words in (
        (b"\x02\x00", 10080, "version 1.0 of the NPY format, got 2.0"),
        (b"\x01\x00", 10079, "expected 10080 bytes, got 10079"),
        (b"\x01\x00", 10084, "expected 10080 bytes, got 10084"),
    ):
        member = b"\x93NUMPY" + version + len(good).to_bytes(2, "little") + good + bytes(length)
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("train_dataset_x.npy", member)
        with pytest.raises(DataError, match=words):
            data.vowels(tmp_path)
    # Headers that no NumPy writes: a shape beyond all memory, another version, no Python at all.
    for header in (
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (9999999999999, 12), }",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': " + b"(" * 300 + b")" * 300 + b"}",
        b"{'descr': __import__('os'), 'fortran_order': False, 'shape': (210, 12), }",
        b"\xff\xfe",
    ):
        for version in (b"\x01\x00", b"\x02\x00", b"\x09\x09"):
            member = b"\x93NUMPY" + version + len(header).to_bytes(2, "little") + header + bytes(10080)
            with zipfile.ZipFile(file, "w") as archive:
                archive.writestr("train_dataset_x.npy", member)
            with pytest.raises(DataError, match="pat_vowels"):
                data.vowels(tmp_path)


# the real files


def real(data_dir, folder, how):
    if not (data_dir / folder).is_dir():
        pytest.skip(f"{data_dir} has no {folder}/: {how}")
    return data_dir


@pytest.mark.parametrize(
    ("call", "mean", "first"),
    [
        (data.mnist, 0.1307, [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]),
        (data.fashion_mnist, 0.2860, [9, 0, 0, 3, 0, 2, 7, 2, 5, 5]),
    ],
)
def test_real_mnist_and_fashion_mnist(data_dir, call, mean, first):
    folder = real(data_dir, call.__name__.replace("_", "-"), f"pnncore.data.{call.__name__}(download=True)")
    x, y, x_test, y_test = call(folder)
    assert x.shape == (60000, 784)
    assert x_test.shape == (10000, 784)
    assert x.dtype == x_test.dtype == np.float32
    assert x.min() == x_test.min() == 0
    assert x.max() == x_test.max() == 1
    assert x.mean(dtype=np.float64) == pytest.approx(mean, abs=1e-4)
    assert y[:10].tolist() == first
    assert y.dtype == y_test.dtype == np.int64
    assert y.shape == (60000,)
    assert y_test.shape == (10000,)
    assert set(y.tolist()) == set(y_test.tolist()) == set(range(10))


def test_real_files_have_the_checksums_that_a_download_must_have(data_dir):
    checked = 0
    for spec in (_sets._MNIST, _sets._FASHION_MNIST):
        for part in spec.files:
            file = data_dir / spec.folder / f"{part.name}.gz"
            if file.is_file():
                content = file.read_bytes()
                assert len(content) == part.size
                assert hashlib.md5(content).hexdigest() == part.md5
                checked += 1
    if not checked:
        pytest.skip(f"{data_dir} has no .gz files in mnist/ or fashion-mnist/: pnncore.data.mnist(download=True)")


def test_real_sets_are_not_taken_for_each_other(data_dir):
    folder = real(data_dir, "mnist", "pnncore.data.mnist(download=True)")
    with pytest.raises(DataError, match=r"mnist \(path\): holds MNIST"):
        data.fashion_mnist(folder / "mnist")


def test_real_vowels(data_dir):
    folder = real(data_dir, "vowel", "see the message of pnncore.data.vowels()")
    x, y, x_test, y_test = data.vowels(folder)
    assert x.shape == (210, 12)
    assert x_test.shape == (49, 12)
    assert x.dtype == x_test.dtype == np.float32
    assert y.dtype == y_test.dtype == np.int64
    assert np.allclose(np.maximum(x.max(axis=0), x_test.max(axis=0)), 1)
    assert len(data.VOWEL_CLASSES) == 7
    assert np.bincount(np.concatenate([y, y_test])).tolist() == [37] * 7
    # What the labels mean shows in the first formant: heed and who'd are close vowels, had and hod are open.
    f1 = {name: x[y == k, 0].mean() for k, name in enumerate(data.VOWEL_CLASSES)}
    assert max(f1["iy"], f1["uw"], f1["ih"], f1["er"]) < min(f1["ah"], f1["aw"])
