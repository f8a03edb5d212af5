"""Twins that are learned from what was measured."""

import itertools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pnncore._convert import (
    FloatArray,
    Seed,
    as_list,
    as_numbers,
    as_path,
    as_seed,
    number,
    positive_int,
    shown,
)
from pnncore.errors import ConfigError, DataError
from pnncore.journal import Journal, read
from pnncore.layers import Layer, Linear, Tanh
from pnncore.methods import Backprop
from pnncore.optim import Adam, CosineDecay
from pnncore.systems._stack import Stack
from pnncore.trainer import Trainer
from pnncore.twins._fitted import FittedTwin


@dataclass(frozen=True)
class Fit:
    """How well a learned twin says what was measured, on samples that it was not fitted to.

    Attributes
    ----------
    r2
        The coefficient of determination of all outputs together; 1 is perfect.
    samples, held_out
        The numbers of samples that it was fitted to, and judged by.
    """

    r2: float
    samples: int
    held_out: int

    def __str__(self) -> str:
        return (
            f"R² {self.r2:.4f} on {self.held_out} samples left out of "
            f"{self.samples + self.held_out}"
        )


def fit(
    source: Any,
    *,
    hidden: Sequence[int] = (64, 64),
    epochs: int = 200,
    rate: float = 3e-3,
    batch_size: int = 64,
    holdout: float = 0.2,
    latest: int | None = None,
    dtype: npt.DTypeLike = "float32",
    seed: Seed = 0,
    progress: bool | None = None,
) -> FittedTwin:
    """Fit a twin to the shots of a journal: a network from inputs and parameters to outputs.

    A twin is as good as its shots are various: its derivatives by a parameter mean something only
    where that parameter was moved. `quality` measures what they are worth.

    Parameters
    ----------
    source
        An instrument with a journal, a `pnncore.journal.Journal`, the path of one, or a dict of
        arrays as `Journal.arrays` returns.
    hidden
        The numbers of tanh units of the hidden layers.
    epochs, rate, batch_size
        Of the training, with Adam and a rate that falls like a cosine.
    holdout
        The fraction of samples that the fit is judged by.
    latest
        Use so many of the latest samples only, where instruments drift; None: all.
    dtype, seed, progress
        As for a `Stack` and a `Trainer`.

    Raises
    ------
    DataError
        If there are too few samples.
    """
    arrays = _arrays(source)
    share = number(holdout, "holdout")
    if not 0 < share < 1:
        raise ConfigError(f"holdout must be between 0 and 1, got {shown(holdout)}")
    if latest is not None:
        arrays = {
            name: values[-positive_int(latest, "latest") :] for name, values in arrays.items()
        }
    inputs = [
        values.reshape(len(values), -1) for name, values in arrays.items() if name not in ("x", "y")
    ]
    both = np.concatenate([arrays["x"], *inputs], axis=1).astype(np.float64)
    y = arrays["y"].astype(np.float64)
    held_out = max(1, round(share * len(y)))
    if len(y) - held_out < 2:
        raise DataError(f"a twin needs more samples than {len(y)}")
    centre = {"in": both.mean(axis=0), "out": y.mean(axis=0)}
    scale = {"in": _deviation(both), "out": _deviation(y)}
    seed = as_seed(seed)
    inside = [
        positive_int(n, "hidden") for n in as_list(hidden, "hidden", "a list of numbers of units")
    ]
    widths = [both.shape[1], *inside, y.shape[1]]
    layers: list[Layer] = []
    for before, after in itertools.pairwise(widths):
        layers += [Linear(before, after), Tanh()]
    twin = FittedTwin(Stack(layers[:-1], dtype=dtype, seed=seed), centre=centre, scale=scale)
    order = np.random.default_rng(seed).permutation(len(y))
    kept, out = order[held_out:], order[:held_out]
    own = twin.stack.dtype
    x = ((both - centre["in"]) / scale["in"]).astype(own)
    targets = ((y - centre["out"]) / scale["out"]).astype(own)
    optimizer = Adam(rate, schedule=CosineDecay(epochs))
    trainer = Trainer(
        twin.stack, Backprop(), optimizer, batch_size=batch_size, seed=seed, progress=progress
    )
    trainer.fit(x[kept], targets[kept], epochs=epochs)
    twin.quality = Fit(twin.stack.score(x[out], targets[out]), len(kept), held_out)
    return twin


def _arrays(source: Any) -> dict[str, FloatArray]:
    driver = getattr(source, "driver", None)
    if driver is not None:
        if driver.path is None:
            raise ConfigError(
                "the instrument keeps no journal to learn from: make it with journal="
            )
        # While a run is answered from the journal, what comes later is not known yet.
        return Journal(driver.path).arrays(driver.position)
    if isinstance(source, str | os.PathLike):
        source = read(as_path(source, "source"))
    if isinstance(source, Journal):
        return source.arrays()
    if isinstance(source, Mapping) and {"x", "y"} <= set(source):
        found = {name: as_numbers(values, shown(name), None) for name, values in source.items()}
        if (
            len({values.shape[:1] for values in found.values()}) == 1
            and found["x"].ndim == found["y"].ndim == 2
        ):
            # Parameters keep their order; inputs come first.
            return found
        raise DataError(
            f"all arrays must have as many rows; got { ({k: v.shape for k, v in found.items()}) }"
        )
    raise ConfigError(
        "source must be an instrument, a journal or its path, or a dict of arrays, got "
        f"{shown(source)}"
    )


def _deviation(values: FloatArray) -> FloatArray:
    found = values.std(axis=0)
    # What never changed has no scale of its own.
    return np.where(found > 1e-12 * np.abs(values).max(axis=0, initial=1e-300), found, 1.0)
