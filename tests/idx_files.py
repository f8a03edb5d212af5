"""IDX files made byte by byte, for the tests of their reader and of the sets that consist of
them."""

import gzip

import numpy as np

CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}
SMALL = np.array([[1, 2, 3], [253, 254, 255]], np.uint8)


def idx_header(code, *dims):
    return bytes([0, 0, code, len(dims)]) + b"".join(d.to_bytes(4, "big") for d in dims)


def idx_bytes(array):
    kind = array.dtype.str[1:]
    return idx_header(CODES[kind], *array.shape) + array.astype(f">{kind}").tobytes()


def packed(content):
    return gzip.compress(content, mtime=0)
