"""The data sets: what they return, where they are found, and that a bad file raises DataError,
nothing else."""

import hashlib
import http.client
import importlib.resources
import io
import pickle
import subprocess
import sys
import urllib.error
import urllib.request
import zlib
from pathlib import Path

import numpy as np
import pytest
from idx_files import idx_bytes, packed
from pnncore import data, errors
from pnncore.data import _sets
from pnncore.errors import ConfigError, DataError

pytestmark = pytest.mark.usefixtures("no_surroundings")


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
    assert sorted(data.__all__) == sorted(
        [
            "VOWEL_CLASSES",
            "acoustic",
            "optical_digits",
            "digits",
            "fashion_mnist",
            "from_file",
            "iris",
            "mnist",
            "read_idx",
            "vowels",
        ]
    )
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
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
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
    with np.load(
        io.BytesIO(package.joinpath("digits.npz").read_bytes()), allow_pickle=False
    ) as raw:
        pixels, labels = raw["pixels"], raw["labels"]
    assert hashlib.sha256(pixels.tobytes() + labels.tobytes()).hexdigest() == digest

    x, y, x_test, y_test = data.digits(test_size=500, seed=3)
    got = np.column_stack([np.vstack([x, x_test]) * 16, np.concatenate([y, y_test])]).astype(
        np.uint8
    )
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


def test_irises_equal_those_of_scikit_learn():
    raw = pytest.importorskip("sklearn.datasets").load_iris()
    x, y, x_test, y_test = data.iris(test_size=0)
    assert (x.shape, x.dtype, x_test.shape, y_test.shape) == ((150, 4), np.float32, (0, 4), (0,))
    assert (x.min(axis=0) == 0).all()
    assert (x.max(axis=0) == 1).all()
    scaled = (raw.data - raw.data.min(axis=0)) / np.ptp(raw.data, axis=0)
    order = lambda x, y: np.lexsort([*x.round(5).T, y])  # noqa: E731
    ours, theirs = order(x, y), order(scaled, raw.target)
    np.testing.assert_allclose(x[ours], scaled[theirs], atol=1e-6)
    assert (y[ours] == raw.target[theirs]).all()


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
            folders=("TINY/raw",),
            url="https://example.org/tiny/",
            fingerprint=zlib.crc32(self.arrays[1].tobytes()),
            files=tuple(
                _sets._IdxFile(
                    n, a.shape, len(self.served[n]), hashlib.md5(self.served[n]).hexdigest()
                )
                for n, a in zip(names, self.arrays, strict=True)
            ),
        )
        self.asked = []

    def write(self, folder, compress=False, leave_out=(), dotted=False):
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in (self.served if compress else self.plain).items():
            if name not in leave_out:
                name = name.replace("-idx", ".idx") if dotted else name
                (folder / (name + ".gz" * compress)).write_bytes(content)

    def load(self, path=None, download=False, dtype="float32"):
        return _sets._load_idx_set(self.spec, path, download=download, dtype=dtype)

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
@pytest.mark.parametrize("dotted", [False, True], ids=["dash", "dot"])
@pytest.mark.parametrize("below", ["", "tiny-set", "TINY/raw"], ids=["direct", "own", "foreign"])
@pytest.mark.parametrize("origin", ["path", "PNNCORE_DATA", "cache"])
def test_set_is_found(tiny, tmp_path, monkeypatch, origin, below, compress, dotted):
    root = tmp_path / "xdg" / "pnncore" if origin == "cache" else tmp_path / "somewhere"
    tiny.write(root / below, compress, dotted=dotted)
    if origin == "PNNCORE_DATA":
        monkeypatch.setenv("PNNCORE_DATA", str(root))
    tiny.check(tiny.load(str(root) if origin == "path" else None))


def test_inputs_have_the_type_that_is_asked_for(tiny, tmp_path):
    tiny.write(tmp_path)
    single, double = (tiny.load(str(tmp_path), dtype=kind) for kind in ("float32", "float64"))
    assert [part.dtype.name for part in double] == ["float64", "int64", "float64", "int64"]
    np.testing.assert_array_equal(double[0], tiny.arrays[0].reshape(5, 6) / 255)
    np.testing.assert_allclose(single[0], double[0], rtol=1e-7)
    for load in (data.digits, data.iris):
        assert load(dtype="float64")[0].dtype == np.float64
        with pytest.raises(ConfigError, match="dtype must be"):
            load(dtype="float16")


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
    for way in (
        f"{call.__name__}(download=True)",
        "amazonaws.com",
        f"{call.__name__}(path)",
        "PNNCORE_DATA",
    ):
        assert way in text
    monkeypatch.delenv("PNNCORE_DATA")
    with pytest.raises(DataError, match="PNNCORE_DATA is not set"):
        call()


@pytest.mark.parametrize(
    "call", [data.mnist, data.fashion_mnist, data.vowels, data.acoustic, data.optical_digits]
)
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
    plain = cache.parent / "plain"
    plain.touch()
    assert {file.stat().st_mode for file in cache.iterdir()} == {plain.stat().st_mode}, (
        "others may read what is shared"
    )
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
    with pytest.raises(
        DataError, match=r"https://example\.org/tiny/train-images.*no route to host"
    ):
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
    folder = real(
        data_dir, call.__name__.replace("_", "-"), f"pnncore.data.{call.__name__}(download=True)"
    )
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
        pytest.skip(
            f"{data_dir} has no .gz files in mnist/ or fashion-mnist/: "
            "pnncore.data.mnist(download=True)"
        )


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
    # What the labels mean shows in the first formant: heed and who'd are close vowels, had and hod
    # are open.
    f1 = {name: x[y == k, 0].mean() for k, name in enumerate(data.VOWEL_CLASSES)}
    assert max(f1["iy"], f1["uw"], f1["ih"], f1["er"]) < min(f1["ah"], f1["aw"])


def test_measured_samples_are_shuffled_and_cut(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {name: rng.random((8000, 20), np.float32) for name in ("inputs", "outputs")}
    np.savez(tmp_path / "acoustic.npz", **arrays)
    x, y, x_test, y_test = data.acoustic(tmp_path, test_size=100, seed=3)
    assert (x.shape, y_test.shape, x.dtype) == ((7900, 20), (100, 20), np.float32)
    both = np.concatenate([np.concatenate([x, y], 1), np.concatenate([x_test, y_test], 1)])
    whole = np.concatenate([arrays["inputs"], arrays["outputs"]], axis=1)
    assert sorted(map(bytes, both)) == sorted(map(bytes, whole))
    again = data.acoustic(tmp_path, test_size=100, seed=3, dtype="float64")
    assert np.array_equal(again[2], x_test)
    assert again[0].dtype == np.float64
    with pytest.raises(ConfigError, match="test_size: expected 0 to 8000"):
        data.acoustic(tmp_path, test_size=8001)
    arrays["outputs"][5, 3] = np.nan
    np.savez(tmp_path / "acoustic.npz", **arrays)
    with pytest.raises(DataError, match="expected finite numbers"):
        data.acoustic(tmp_path)
    (tmp_path / "acoustic.npz").write_bytes(b"PK")
    with pytest.raises(DataError, match="not a NumPy archive"):
        data.acoustic(tmp_path)


def test_the_acoustic_layer_is_nearly_linear(data_dir):
    folder = real(data_dir, "acoustic", "see the message of pnncore.data.acoustic()")
    x, y, x_test, y_test = data.acoustic(folder)
    assert (x.shape, x_test.shape) == ((7200, 20), (800, 20))
    with_one = [np.c_[own, np.ones(len(own))] for own in (x, x_test)]
    linear = np.linalg.lstsq(with_one[0], y, rcond=None)[0]
    error = np.sqrt(((with_one[1] @ linear - y_test) ** 2).mean())
    assert 0.034 < error < 0.042
    assert 0.29 < y_test.std() < 0.32
