"""Reader of IDX files, the format of MNIST.

An IDX file is ``00 00``, one byte for the type of the numbers, one for the number of dimensions,
each dimension as a big-endian uint32, then the numbers, big-endian, last dimension fastest. Nothing
in the header is believed before it is checked: a reader never allocates for what a header claims,
only for what the file holds.
"""

import gzip
import math
import os
import stat
import zlib
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pnncore.errors import ConfigError, DataError

MAX_BYTES = 1 << 31
_GZIP_MAGIC = b"\x1f\x8b"
_MAX_NDIM = 32  # what NumPy 1 can hold; real files have 1 to 4
_CHUNK = 1 << 20
_DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


def read_idx(path: str | os.PathLike[str], *, max_bytes: int = MAX_BYTES) -> npt.NDArray[Any]:
    """Read one IDX file, plain or gzip-compressed.

    Compression is recognised by the content, not by the name.

    Parameters
    ----------
    path : str or path-like
        The file.
    max_bytes : int, optional
        Refuse a file whose header announces more bytes of numbers than this (2 GiB unless told
        otherwise). A gzip file of a few megabytes can announce, and hold, gigabytes.

    Returns
    -------
    numpy.ndarray
        A fresh, writable, C-contiguous array with the shape of the header, in native byte order:
        uint8, int8, int16, int32, float32 or float64.

    Raises
    ------
    DataError
        The file is missing, unreadable, empty, no IDX file, announces more than `max_bytes`, holds
        fewer or more numbers than its header says, or its gzip stream is damaged or cut short.
    ConfigError
        `path` is neither a str nor a path-like object.

    Examples
    --------
    >>> labels = read_idx("t10k-labels-idx1-ubyte.gz")  # doctest: +SKIP
    >>> labels.shape, labels.dtype  # doctest: +SKIP
    ((10000,), dtype('uint8'))
    """
    return load(as_path(path), max_bytes=max_bytes)


def as_path(path: str | os.PathLike[str], name: str = "path") -> Path:
    """Make a `Path`, with a leading ``~`` expanded; `name` is what an error message calls it."""
    try:
        return Path(path).expanduser()
    except TypeError as err:
        raise ConfigError(
            f"{name}: expected a str or a path-like object, got {type(path).__name__}"
        ) from err
    except RuntimeError as err:
        raise DataError(f"{name}: cannot expand ~ in {path!s}: {err}") from err


def load(
    file: Path, *, max_bytes: int = MAX_BYTES, shape: tuple[int, ...] | None = None
) -> npt.NDArray[Any]:
    """Read an IDX file; with `shape`, anything but uint8 of that shape is refused by its header."""
    try:
        mode = os.stat(file).st_mode
    except FileNotFoundError as err:
        raise DataError(f"{file}: no such file") from err
    except (OSError, ValueError) as err:  # ValueError: a name with a NUL or lone surrogates
        raise DataError(f"{str(file)!r}: cannot be read: {err}") from err
    if not stat.S_ISREG(mode):
        raise DataError(f"{file}: not a regular file")
    try:
        with open(file, "rb") as raw:
            compressed = raw.read(2) == _GZIP_MAGIC
            raw.seek(0)
            if compressed:
                with gzip.GzipFile(fileobj=raw, mode="rb") as stream:
                    return _parse(stream, file, None, max_bytes, shape)
            return _parse(raw, file, os.fstat(raw.fileno()).st_size, max_bytes, shape)
    except (EOFError, zlib.error, gzip.BadGzipFile) as err:
        raise DataError(f"{file}: gzip stream damaged or cut short: {err}") from err
    except OSError as err:
        raise DataError(f"{file}: cannot be read: {err.strerror or err}") from err


def _parse(
    stream: _Readable, file: Path, size: int | None, max_bytes: int, shape: tuple[int, ...] | None
) -> npt.NDArray[Any]:
    """Read header and numbers from a stream.

    `size` is the length of the stream where it is known.
    """
    magic = _read(stream, 4)
    if len(magic) < 4:
        raise DataError(
            f"{file}: not an IDX file: expected a header of at least 4 bytes, got {len(magic)}"
        )
    code, ndim = magic[2], magic[3]
    if magic[:2] != b"\x00\x00" or code not in _DTYPES or not 1 <= ndim <= _MAX_NDIM:
        raise DataError(
            f"{file}: not an IDX file: expected to start with 00 00, a type (08, 09, 0b, 0c, 0d "
            "or 0e) and "
            f"1 to {_MAX_NDIM} dimensions, got {magic.hex(' ')}"
        )
    header = _read(stream, 4 * ndim)
    if len(header) < 4 * ndim:
        raise DataError(
            f"{file}: header cut short: expected {4 * ndim} bytes for {ndim} dimensions, got "
            f"{len(header)}"
        )
    dims = tuple(int.from_bytes(header[i : i + 4], "big") for i in range(0, 4 * ndim, 4))
    dtype = np.dtype(_DTYPES[code])
    if shape is not None and (dims != shape or dtype != np.uint8):
        raise DataError(
            f"{file}: expected uint8 numbers of shape {shape}, got {dtype.name} of shape {dims}"
        )
    # A dimension of 0 must not hide absurd ones, which NumPy would refuse in its own words.
    claimed = math.prod(max(d, 1) for d in dims) * dtype.itemsize
    if claimed > max_bytes:
        raise DataError(
            f"{file}: {dtype.name} of shape {dims}: expected at most max_bytes={max_bytes} bytes"
        )
    expected = math.prod(dims) * dtype.itemsize
    if size is not None and size - 4 - 4 * ndim != expected:
        raise DataError(_length_message(file, dims, dtype, expected, str(size - 4 - 4 * ndim)))
    payload = _read(stream, expected + 1)  # one more byte shows that there are too many
    if len(payload) != expected:
        got = f"at least {len(payload)}" if len(payload) > expected else str(len(payload))
        raise DataError(_length_message(file, dims, dtype, expected, got))
    if expected == 0:
        return np.empty(dims, dtype.newbyteorder("="))
    return np.frombuffer(payload, dtype).reshape(dims).astype(dtype.newbyteorder("="), copy=False)


def _length_message(
    file: Path, dims: tuple[int, ...], dtype: np.dtype[Any], expected: int, got: str
) -> str:
    return (
        f"{file}: {dtype.name} of shape {dims}: expected {expected} bytes after the header, got "
        f"{got}"
    )


def _read(stream: _Readable, count: int) -> bytearray:
    """Read `count` bytes, or what there is; memory grows with what arrives, not with `count`."""
    data = bytearray()
    while len(data) < count:
        chunk = stream.read(min(_CHUNK, count - len(data)))
        if not chunk:
            break
        data += chunk
    return data
