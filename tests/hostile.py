"""Objects that nobody should pass, and somebody will."""

import fractions
import os

import numpy as np


class Unprintable:
    def __repr__(self):
        raise RuntimeError("not this one")


def structured():
    return np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")])


def masked():
    return np.ma.array(np.ones((4, 3), np.float32), mask=np.eye(4, 3, dtype=bool))


# Each is made anew, since generators are used up.
HOSTILE = {
    "None": lambda: None,
    "True": lambda: True,
    "zero": lambda: 0,
    "negative": lambda: -1,
    "fraction of one": lambda: 0.5,
    "64 bits": lambda: 2**63,
    "beyond 64 bits": lambda: 2**70,
    "beyond float": lambda: 10**400,
    "beyond float, negative": lambda: -(10**400),
    "beyond print": lambda: 10**5000,
    "nan": lambda: float("nan"),
    "infinity": lambda: float("inf"),
    "complex": lambda: 1j,
    "large fraction": lambda: fractions.Fraction(10**400),
    "text": lambda: "x",
    "no text": lambda: "",
    "zero byte": lambda: "a\0b",
    "surrogate": lambda: "\ud800",
    "bytes": lambda: b"x",
    "list": list,
    "list of None": lambda: [None],
    "list of lists": lambda: [[]],
    "pair": lambda: (1, 2),
    "ragged": lambda: [[1, 2], [3]],
    "beyond float in a list": lambda: [[10**400, 1, 1]],
    "text in a list": lambda: ["1", "2"],
    "masked in a list": lambda: [np.ma.masked, 1],
    "dict": dict,
    "dict of text": lambda: {"x": "y"},
    "dict of numbers": lambda: {1: 2},
    "set": lambda: {1, 2},
    "generator": lambda: (n for n in (1, 2)),
    "range": lambda: range(3),
    "object": object,
    "type": lambda: int,
    "function": lambda: lambda *arguments, **settings: None,
    "module": lambda: os,
    "unprintable": Unprintable,
    "0-d": lambda: np.array(2.0),
    "NumPy integer": lambda: np.int64(-3),
    "NumPy truth": lambda: np.bool_(True),
    "half": lambda: np.float16(0.5),
    "long double": lambda: np.longdouble("1e4000"),
    "empty": lambda: np.zeros((0, 3), np.float32),
    "no axis": lambda: np.zeros(0),
    "matrix": lambda: np.matrix(np.ones((4, 3), np.float32)),
    "strided": lambda: np.ones((8, 6), np.float32)[::2, ::2],
    "byte-swapped": lambda: np.ones((4, 3), ">f4"),
    "read-only": lambda: np.broadcast_to(np.float32(1), (4, 3)),
    "complex array": lambda: np.ones((4, 3), complex),
    "objects": lambda: np.array([[None, 1, "x"]] * 4, dtype=object),
    "integers beyond float": lambda: np.array([[10**400] * 3] * 4, dtype=object),
    "structured": structured,
    "record": lambda: structured().view(np.recarray),
    "dates": lambda: np.array(["2020-01-01"] * 3, "datetime64[D]"),
    "texts": lambda: np.array([["x", "y", "z"]] * 4),
    "masked": masked,
    "masked labels": lambda: np.ma.array([0, 1, 0, 1], mask=[0, 0, 1, 0]),
    "not finite": lambda: np.full((4, 3), np.nan, np.float32),
    "labels beyond": lambda: np.array([0, 1, 2**40, 1]),
    "unsigned": lambda: np.array([0, 1, 2**63 + 5, 1], np.uint64),
    "memory": lambda: memoryview(bytes(8)),
}
