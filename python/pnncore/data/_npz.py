"""Arrays of known type and shape, read from NPZ archives."""

import io
import math
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from pnncore.errors import DataError

Layout = Mapping[str, tuple[str, tuple[int, ...]]]
"""By the name of an array, its type and shape."""


def parse_npz(content: bytes, source: str, layout: Layout) -> dict[str, npt.NDArray[Any]]:
    """Read arrays of known type and shape from an NPZ archive; nothing larger is ever unpacked."""
    arrays = {}
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for key, (dtype, shape) in layout.items():
                arrays[key] = _parse_npy(archive, key, np.dtype(dtype), shape)
    except DataError as err:
        raise DataError(f"{source} {err}") from err
    except Exception as err:  # a damaged archive makes zipfile and NumPy raise a dozen types
        raise DataError(
            f"{source} not a NumPy archive, or damaged: {err!s} ({type(err).__name__})"
        ) from err
    return arrays


def _parse_npy(
    archive: zipfile.ZipFile, key: str, dtype: np.dtype[Any], shape: tuple[int, ...]
) -> npt.NDArray[Any]:
    """Read one array of an NPZ archive."""
    if f"{key}.npy" not in archive.namelist():
        raise DataError(f"has no array {key}")
    expected = math.prod(shape) * dtype.itemsize
    member = archive.getinfo(f"{key}.npy")
    if member.file_size > expected + 4096:
        raise DataError(f"{key}: expected {dtype} of shape {shape}, got {member.file_size} bytes")
    stream = io.BytesIO(archive.read(member))
    version = np.lib.format.read_magic(stream)
    if version != (1, 0):
        raise DataError(
            f"{key}: expected version 1.0 of the NPY format, got {version[0]}.{version[1]}"
        )
    got_shape, fortran, got_dtype = np.lib.format.read_array_header_1_0(stream)
    if (got_shape, got_dtype, fortran) != (shape, dtype, False):
        raise DataError(
            f"{key}: expected {dtype} of shape {shape}, got {got_dtype} of shape {got_shape}"
        )
    payload = stream.read()
    if len(payload) != expected:
        raise DataError(f"{key}: expected {expected} bytes, got {len(payload)}")
    return np.frombuffer(payload, dtype).reshape(shape).astype(dtype.newbyteorder("="))
