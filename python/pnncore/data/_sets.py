"""The data sets: where they are looked for, how they are fetched, and what is checked in them."""

import contextlib
import importlib.resources
import math
import operator
import os
import secrets
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pnncore._convert import as_dtype, flag
from pnncore.data import _idx
from pnncore.data._npz import Layout, parse_npz
from pnncore.errors import ConfigError, DataError

Split = tuple[npt.NDArray[Any], npt.NDArray[np.int64], npt.NDArray[Any], npt.NDArray[np.int64]]
FolderPath = str | os.PathLike[str]

_TIMEOUT = 60.0  # seconds without a byte before a download is given up
_DIGITS: Layout = {"pixels": ("|u1", (1797, 64)), "labels": ("|u1", (1797,))}
_IRIS: Layout = {"millimetres": ("|u1", (150, 4)), "species": ("|u1", (150,))}


@dataclass(frozen=True)
class _IdxFile:
    """One IDX file; `size` in bytes and `md5` are those of the compressed original."""

    name: str
    shape: tuple[int, ...]
    size: int
    md5: str


@dataclass(frozen=True)
class _IdxSet:
    """A set of four IDX files: training images and labels, test images and labels.

    `fingerprint` is the CRC-32 of the training labels. It tells sets apart whose files have the
    same names and shapes. `folders` are those that other programs put the files in.
    """

    title: str
    call: str
    folder: str
    folders: tuple[str, ...]
    url: str
    fingerprint: int
    files: tuple[_IdxFile, _IdxFile, _IdxFile, _IdxFile]


_MNIST = _IdxSet(
    title="MNIST",
    call="mnist",
    folder="mnist",
    folders=("MNIST/raw", "MNIST", "raw"),
    url="https://ossci-datasets.s3.amazonaws.com/mnist/",
    fingerprint=3121080559,
    files=(
        _IdxFile(
            "train-images-idx3-ubyte", (60000, 28, 28), 9912422, "f68b3c2dcbeaaa9fbdd348bbdeb94873"
        ),
        _IdxFile("train-labels-idx1-ubyte", (60000,), 28881, "d53e105ee54ea40749a09fcbcd1e9432"),
        _IdxFile(
            "t10k-images-idx3-ubyte", (10000, 28, 28), 1648877, "9fb629c4189551a2d022fa330f9573f3"
        ),
        _IdxFile("t10k-labels-idx1-ubyte", (10000,), 4542, "ec29112dd5afa0611ce80d1b7f02629c"),
    ),
)
_FASHION_MNIST = _IdxSet(
    title="Fashion-MNIST",
    call="fashion_mnist",
    folder="fashion-mnist",
    folders=("FashionMNIST/raw", "FashionMNIST", "raw"),
    url="http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    fingerprint=785835114,
    files=(
        _IdxFile(
            "train-images-idx3-ubyte", (60000, 28, 28), 26421880, "8d4fb7e6c68d591d4c3dfef9ec88bf0d"
        ),
        _IdxFile("train-labels-idx1-ubyte", (60000,), 29515, "25c81989df183df01b3e8a0aad5dffbe"),
        _IdxFile(
            "t10k-images-idx3-ubyte", (10000, 28, 28), 4422102, "bef4ecab320f06d8554ea6380940ec79"
        ),
        _IdxFile("t10k-labels-idx1-ubyte", (10000,), 5148, "bb300cfdad3c16e7a12a480ee83cd310"),
    ),
)
_IDX_SETS = (_MNIST, _FASHION_MNIST)


def digits(*, test_size: int = 450, seed: int = 0, dtype: npt.DTypeLike = "float32") -> Split:
    """Load the 1797 handwritten digits of 8 x 8 pixels that ship with the package.

    The samples are shuffled and cut in two; the same `test_size` and `seed` give the same split.
    The classes are not balanced between the parts, and both hold digits of the same 13 writers.

    Parameters
    ----------
    test_size : int, optional
        Number of test samples, 0 to 1797. The rest are training samples.
    seed : int, optional
        Seed of the shuffle, 0 or larger.
    dtype : optional
        ``"float32"`` or ``"float64"``, of the inputs.

    Returns
    -------
    x : numpy.ndarray, shape (1797 - test_size, 64)
        Training images, row by row; the ink of each pixel, from 0 (none) to 1 in steps of 1/16.
    y : numpy.ndarray, int64, shape (1797 - test_size,)
        Their labels, 0 to 9.
    x_test : numpy.ndarray, shape (test_size, 64)
        Test images.
    y_test : numpy.ndarray, int64, shape (test_size,)
        Their labels.

    Raises
    ------
    ConfigError
        `test_size` or `seed` is no integer or out of range.
    DataError
        The file in the package is missing or damaged.

    Notes
    -----
    The test part of E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI
    Machine Learning Repository (1998), DOI 10.24432/C50P49, CC BY 4.0.

    Examples
    --------
    >>> x, y, x_test, y_test = digits(test_size=450, seed=0)
    >>> x.shape, x_test.shape
    ((1347, 64), (450, 64))
    """
    raw = _shipped("digits.npz", _DIGITS)
    own = as_dtype(dtype)
    return split(raw["pixels"].astype(own) / own.type(16), raw["labels"], test_size, seed)


def iris(*, test_size: int = 45, seed: int = 0, dtype: npt.DTypeLike = "float32") -> Split:
    """Load Fisher's 150 irises, which ship with the package.

    Four measurements of each, and its species.

    The samples are shuffled and cut in two; the same `test_size` and `seed` give the same split.

    Parameters
    ----------
    test_size : int, optional
        Number of test samples, 0 to 150. The rest are training samples.
    seed : int, optional
        Seed of the shuffle, 0 or larger.
    dtype : optional
        ``"float32"`` or ``"float64"``, of the inputs.

    Returns
    -------
    x : numpy.ndarray, shape (150 - test_size, 4)
        Length and width of sepals, length and width of petals, each from 0 to 1 over its range in
        the whole set.
    y : numpy.ndarray, int64, shape (150 - test_size,)
        The species: 0 setosa, 1 versicolor, 2 virginica.
    x_test : numpy.ndarray, shape (test_size, 4)
        Test measurements.
    y_test : numpy.ndarray, int64, shape (test_size,)
        Their species.

    Raises
    ------
    ConfigError
        `test_size` or `seed` is no integer or out of range.
    DataError
        The file in the package is missing or damaged.

    Notes
    -----
    R. A. Fisher, "The use of multiple measurements in taxonomic problems", Annals of Eugenics 7,
    179 (1936); UCI Machine Learning Repository, DOI 10.24432/C56C76, CC BY 4.0.

    Examples
    --------
    >>> x, y, x_test, y_test = iris()
    >>> x.shape, x_test.shape
    ((105, 4), (45, 4))
    """
    raw = _shipped("iris.npz", _IRIS)
    x = raw["millimetres"].astype(as_dtype(dtype))
    low, high = x.min(axis=0), x.max(axis=0)
    return split((x - low) / (high - low), raw["species"], test_size, seed)


def _shipped(name: str, layout: Layout) -> dict[str, npt.NDArray[Any]]:
    """Read a file of the package."""
    try:
        content = importlib.resources.files("pnncore.data").joinpath(name).read_bytes()
    except OSError as err:
        raise DataError(
            f"{name}, which ships with pnncore, cannot be read: {err}; reinstall pnncore"
        ) from err
    return parse_npz(content, f"{name}, which ships with pnncore,", layout)


def split(x: npt.NDArray[Any], labels: npt.NDArray[Any], test_size: int, seed: int) -> Split:
    """Shuffle, and cut off the test samples."""
    n_test = whole_number("test_size", test_size, len(x))
    rng = np.random.Generator(np.random.Philox(whole_number("seed", seed, None)))
    y = labels.astype(np.int64)
    order = rng.permutation(len(x))
    test, train = order[:n_test], order[n_test:]
    return x[train], y[train], x[test], y[test]


def mnist(
    path: FolderPath | None = None, *, download: bool = False, dtype: npt.DTypeLike = "float32"
) -> Split:
    """Load MNIST: handwritten digits of 28 x 28 pixels, 60000 for training and 10000 for testing.

    The four IDX files are looked for in `path`, then in the folder that the environment variable
    ``PNNCORE_DATA`` names, then in the cache folder (``$XDG_CACHE_HOME/pnncore``, or
    ``~/.cache/pnncore``); in each of them first in the subfolder ``mnist``, then where torchvision
    puts them (``MNIST/raw``), then directly. The first folder that has all four wins. They may be
    compressed (``.gz``) or not, and have a dot for a dash (``train-images.idx3-ubyte``).

    Parameters
    ----------
    path : str or path-like, optional
        Folder to look in first; it must exist.
    download : bool, optional
        Where no folder has the files, fetch them (12 MB) into the cache folder and verify their MD5
        checksums.
    dtype : optional
        ``"float32"`` or ``"float64"``, of the inputs.

    Returns
    -------
    x : numpy.ndarray, shape (60000, 784)
        Training images, row by row; the ink of each pixel, from 0 (none) to 1 in steps of 1/255.
        188 MB.
    y : numpy.ndarray, int64, shape (60000,)
        Their labels, 0 to 9.
    x_test : numpy.ndarray, shape (10000, 784)
        Test images.
    y_test : numpy.ndarray, int64, shape (10000,)
        Their labels.

    Raises
    ------
    DataError
        The files are not found (the message says what is needed, where it was looked for and how to
        get it), a file is damaged or has another shape, or a download fails or does not have its
        checksum.
    ConfigError
        `path` is neither a str nor a path-like object.

    Notes
    -----
    Y. LeCun, C. Cortes and C. J. C. Burges, "The MNIST database of handwritten digits". A folder
    that holds Fashion-MNIST, whose files have the same names, is passed over.
    """
    return _load_idx_set(_MNIST, path, download=download, dtype=dtype)


def fashion_mnist(
    path: FolderPath | None = None, *, download: bool = False, dtype: npt.DTypeLike = "float32"
) -> Split:
    """Load Fashion-MNIST: articles of clothing, 28 x 28 pixels.

    There are 60000 for training and 10000 for testing.

    A drop-in replacement of MNIST with the same format. It is looked for as `mnist` describes, in
    the subfolder ``fashion-mnist``.

    Parameters
    ----------
    path : str or path-like, optional
        Folder to look in first; it must exist.
    download : bool, optional
        Where no folder has the files, fetch them (31 MB) into the cache folder and verify their MD5
        checksums.
    dtype : optional
        ``"float32"`` or ``"float64"``, of the inputs.

    Returns
    -------
    x : numpy.ndarray, shape (60000, 784)
        Training images, row by row; the brightness of each pixel, from 0 (background) to 1 in steps
        of 1/255. 188 MB.
    y : numpy.ndarray, int64, shape (60000,)
        Their labels, 0 to 9: T-shirt/top, trouser, pullover, dress, coat, sandal, shirt, sneaker,
        bag, ankle boot.
    x_test : numpy.ndarray, shape (10000, 784)
        Test images.
    y_test : numpy.ndarray, int64, shape (10000,)
        Their labels.

    Raises
    ------
    DataError
        The files are not found (the message says what is needed, where it was looked for and how to
        get it), a file is damaged or has another shape, or a download fails or does not have its
        checksum.
    ConfigError
        `path` is neither a str nor a path-like object.

    Notes
    -----
    H. Xiao, K. Rasul and R. Vollgraf, arXiv 1708.07747 (2017); Zalando SE, MIT licence. A folder
    that holds MNIST, whose files have the same names, is passed over.
    """
    return _load_idx_set(_FASHION_MNIST, path, download=download, dtype=dtype)


def find_npz(
    path: FolderPath | None,
    place: tuple[str, str],
    layout: Layout,
    limit: int,
    missing: str,
    remedy: str,
) -> tuple[Path, dict[str, npt.NDArray[Any]]]:
    """Find a file of at most `limit` bytes: return where it is, and its arrays.

    `place` is its subfolder, and its name there or beside it.

    `DataError` where it is not found: what is `missing`, where was looked, and the `remedy`, with
    the names and shapes of ``{arrays}`` and the ``{name}`` of the file.
    """
    folder, name = place
    found, looked = search(path, (folder,), [(name,)])
    if found is None:
        arrays = ", ".join(f"{key} {shape}" for key, (_, shape) in layout.items())
        advice = remedy.format(arrays=arrays, name=name)
        raise DataError(f"{missing} {name}\n{looked}\n{advice}")
    return found[0], parse_npz(read_file(found[0], limit), f"{found[0]}:", layout)


def read_file(file: Path, limit: int) -> bytes:
    """Read a file of at most `limit` bytes."""
    try:
        with open(file, "rb") as stream:
            content = stream.read(limit + 1)
    except OSError as err:
        raise DataError(f"{file}: cannot be read: {err.strerror or err}") from err
    if len(content) > limit:
        raise DataError(f"{file}: expected at most {limit} bytes, got more")
    return content


def whole_number(name: str, value: object, high: int | None) -> int:
    """Check an integer argument against 0 and an upper bound."""
    wanted = "0 or larger" if high is None else f"0 to {high}"
    try:
        if isinstance(value, bool | np.bool_):
            raise TypeError
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise ConfigError(f"{name}: expected an integer, {wanted}, got {value!r}") from None
    if number < 0 or (high is not None and number > high):
        raise ConfigError(f"{name}: expected {wanted}, got {number}")
    return number


def _cache() -> Path | None:
    """Return the user's cache folder, which may not exist yet, or None where there is no home."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(base):  # the XDG specification: a relative path is to be ignored
        return Path(base) / "pnncore"
    try:
        return Path.home() / ".cache" / "pnncore"
    except RuntimeError:
        return None


def search(
    path: FolderPath | None,
    folders: tuple[str, ...],
    names: list[tuple[str, ...]],
    refuse: Callable[[list[Path]], str] | None = None,
) -> tuple[list[Path] | None, str]:
    """Find the first folder that holds all files, each by one of its names.

    `refuse` says why the files of a folder are not the wanted ones, or returns the empty string.
    The second result describes where was looked, for an error message.
    """
    roots: list[tuple[str, Path]] = []
    notes = []
    if path is not None:
        given = _idx.as_path(path)
        if not os.path.isdir(given):
            raise DataError(
                f"path: expected a folder with {_listed(names)}, got {str(given)!r}: no such folder"
            )
        roots.append(("path", given))
    if os.environ.get("PNNCORE_DATA"):
        roots.append(("PNNCORE_DATA", _idx.as_path(os.environ["PNNCORE_DATA"], "PNNCORE_DATA")))
    else:
        notes.append("PNNCORE_DATA is not set")
    cache = _cache()
    if cache is not None:
        roots.append(("cache", cache))
    for origin, root in roots:
        for place in (*(root / folder for folder in folders), root):
            files = [
                next((place / name for name in some if os.path.isfile(place / name)), None)
                for some in names
            ]
            found = [file for file in files if file is not None]
            if len(found) < len(names):
                missing = [some for some, file in zip(names, files, strict=True) if file is None]
                why = f"lacks {_listed(missing)}" if os.path.isdir(place) else "no such folder"
            else:
                why = refuse(found) if refuse is not None else ""
                if not why:
                    return found, ""
            notes.append(f"{place} ({origin}): {why}")
    return None, "\n".join(["Looked in:", *(f"  {note}" for note in notes)])


def _listed(names: list[tuple[str, ...]]) -> str:
    return ", ".join(some[0] for some in names)


def _names_of(file: _IdxFile) -> tuple[str, ...]:
    """Return the names that a file goes by: with a dot where Windows wants one, compressed."""
    plain = (file.name, file.name.replace("-idx", ".idx"))
    return (*plain, *(f"{name}.gz" for name in plain))


def _load_idx_set(
    spec: _IdxSet, path: FolderPath | None, *, download: bool, dtype: npt.DTypeLike
) -> Split:
    """Find or fetch the four files of a set, read and check them."""

    def refuse(files: list[Path]) -> str:
        checksum = zlib.crc32(_idx.load(files[1], shape=spec.files[1].shape).tobytes())
        others = [
            other.title for other in _IDX_SETS if other.fingerprint == checksum != spec.fingerprint
        ]
        return f"holds {others[0]}" if others else ""

    download, dtype = flag(download, "download"), as_dtype(dtype)
    names = [_names_of(file) for file in spec.files]
    files, looked = search(path, (spec.folder, *spec.folders), names, refuse)
    if files is None and download:
        files = _download(spec)
    if files is None:
        cache = _cache()
        where = "the user's cache folder" if cache is None else cache / spec.folder
        megabytes = math.ceil(sum(file.size for file in spec.files) / 1e6)
        raise DataError(
            f"{spec.title} is not found; it needs {_listed(names)}, each as it is or with "
            f".gz\n{looked}\n"
            f"To get it: call {spec.call}(download=True), which puts {megabytes} MB into {where};\n"
            f"  or fetch the four .gz files from {spec.url} into a folder,\n"
            f"  and name it with {spec.call}(path) or PNNCORE_DATA."
        )
    x, y, x_test, y_test = (
        _idx.load(file, shape=part.shape) for file, part in zip(files, spec.files, strict=True)
    )
    for file, labels in ((files[1], y), (files[3], y_test)):
        if labels.size and labels.max() > 9:
            raise DataError(f"{file}: expected labels 0 to 9, got {labels.max()}")
    images = (_pixels(part, dtype) for part in (x, x_test))
    return next(images), y.astype(np.int64), next(images), y_test.astype(np.int64)


def _pixels(images: npt.NDArray[Any], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Scale uint8 images to [0, 1], one per row."""
    flat = images.reshape(len(images), math.prod(images.shape[1:]))
    scaled: npt.NDArray[Any] = np.divide(flat, dtype.type(255), dtype=dtype)
    return scaled


def _download(spec: _IdxSet) -> list[Path]:
    """Fetch the files of a set that the cache lacks."""
    cache = _cache()
    if cache is None:
        raise DataError(
            "download: there is no cache folder; set XDG_CACHE_HOME to an absolute path"
        )
    files = []
    for part in spec.files:
        places = [cache / spec.folder / (part.name + suffix) for suffix in ("", ".gz")]
        present = next((file for file in places if os.path.isfile(file)), None)
        if present is None:
            _fetch(f"{spec.url}{part.name}.gz", places[1], part.size, part.md5)
        files.append(present or places[1])
    return files


def _fetch(url: str, target: Path, size: int, md5: str) -> None:
    """Download one file of known length and checksum.

    `target` appears whole and verified, or not at all.
    """
    # Slow to import, and needed once per machine.
    import hashlib
    import http.client
    import urllib.request

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():
            raise DataError(f"{target}: is no file; move it away")
        temporary = target.with_name(f"{target.name}.{secrets.token_hex(8)}.part")
        # Whoever shares the cache may read it, as the user's file mask says.
        out = temporary.open("xb")
    except OSError as err:
        raise DataError(f"{target}: cannot be written: {err.strerror or err}") from err
    try:
        digest = hashlib.md5(usedforsecurity=False)
        got = 0
        with out, urllib.request.urlopen(url, timeout=_TIMEOUT) as response:
            while got <= size and (chunk := response.read(1 << 16)):
                got += len(chunk)
                digest.update(chunk)
                out.write(chunk)
            out.flush()
            os.fsync(out.fileno())
        if got != size:
            raise DataError(
                f"{url}: expected {size} bytes, got {f'at least {got}' if got > size else got}"
            )
        if digest.hexdigest() != md5:
            raise DataError(
                f"{url}: checksum mismatch: expected MD5 {md5}, got {digest.hexdigest()}"
            )
        os.replace(temporary, target)
    except (OSError, http.client.HTTPException) as err:
        raise DataError(
            f"{url}: download to {target} failed: {err!s} ({type(err).__name__})"
        ) from err
    finally:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
