"""Callables that are given to processes: they must be importable."""

import os
import time

import numpy as np


def double(x):
    return 2 * x


def moody(x):
    """Doubles; hangs where an input is 1, dies where one is 2, raises where one is 3, and cannot
    be pickled at 4."""
    if np.any(x == 1):
        time.sleep(60)
    if np.any(x == 2):
        os._exit(3)
    if np.any(x == 3):
        raise ValueError("lamp off")
    if np.any(x == 4):
        return lambda: None
    return 2 * x


class OddError(Exception):
    """An exception without a text."""

    def __str__(self):
        raise RuntimeError("even the text fails")


def odd(x):
    raise OddError
