"""What the gradients of a method are worth on the hardware."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pnncore import losses
from pnncore._convert import FloatArray, Seed, as_seed, as_system, number, positive_int, shown
from pnncore.callbacks import Callback
from pnncore.errors import ConfigError

if TYPE_CHECKING:
    from pnncore.methods import Method
    from pnncore.systems import System
    from pnncore.trainer import Trainer


@dataclass(frozen=True, eq=False)
class Quality:
    """Slopes of the loss along random directions, as measured and as a gradient says.

    Attributes
    ----------
    cosine
        The cosine between both lists of slopes: an estimate of that between the true gradient and
        this one.
    measured, predicted
        The slopes (directions,).
    """

    cosine: float
    measured: FloatArray
    predicted: FloatArray

    def __repr__(self) -> str:
        return f"Quality(cosine={self.cosine:.4f}, {len(self.measured)} directions)"


def quality(
    system: "System",
    method: "Method",
    x: Any,
    y: Any,
    *,
    directions: int = 16,
    step: float = 0.01,
    seed: Seed = 0,
    threads: int | None = None,
) -> Quality:
    """Compare the gradient of a method with measured slopes of the loss along random directions.

    Takes two passes of the batch per direction, and those of the method. With q directions the
    cosine is uncertain by about 1 / sqrt(q), less where it is near one.

    Parameters
    ----------
    system, method
        What is trained, and how.
    x, y
        Inputs, and labels or targets.
    directions
        How many.
    step
        How far to both sides, as a fraction of the root mean square of each array of parameters (of
        one, where that is zero).
    seed
        Of the directions.
    threads
        Threads to use.
    """
    count, size = positive_int(directions, "directions"), number(step, "step", positive=True)
    x, y = as_system(system).as_batch(x, y)
    wanted = y if y.ndim == 1 else y.astype(np.float64)
    if not hasattr(type(method), "gradient"):
        raise ConfigError(f"method must be a pnncore Method, got {shown(method)}")
    random = np.random.default_rng(as_seed(seed))
    gradient = method.gradient(system, x, y, threads=threads)
    before = {name: array.copy() for name, array in system.params.items()}
    scales = {
        name: float(np.sqrt(np.mean(array.astype(float) ** 2))) or 1.0
        for name, array in before.items()
    }
    measured, predicted = np.empty(count), np.empty(count)
    try:
        for k in range(count):
            towards = {
                name: scales[name] * random.normal(size=array.shape)
                for name, array in before.items()
            }
            found = []
            for sign in (1, -1):
                for name, array in before.items():
                    system.params[name][...] = array + sign * size * towards[name]
                outputs = system.predict(x, threads=threads).astype(np.float64)
                found.append(losses.evaluate(method.loss, outputs, wanted)[0].mean())
            measured[k] = (found[0] - found[1]) / (2 * size)
            predicted[k] = sum(float(np.vdot(gradient[name], towards[name])) for name in before)
    finally:
        for name, array in before.items():
            system.params[name][...] = array
    norm = float(np.linalg.norm(measured) * np.linalg.norm(predicted))
    cosine = float(measured @ predicted) / norm if norm > 0 else float("nan")
    return Quality(cosine, measured, predicted)


class TwinMonitor(Callback):
    """Measures `quality` after every few epochs, and shows its cosine beside the loss.

    Parameters
    ----------
    x, y
        A batch to measure with.
    every
        Epochs from one measurement to the next.
    settings
        Those of `quality`.

    Attributes
    ----------
    cosines
        What was found: (epoch, cosine).
    """

    def __init__(self, x: Any, y: Any, *, every: int = 1, **settings: Any) -> None:
        self.x = x
        self.y = y
        self.every = positive_int(every, "every")
        self.settings = settings
        self.cosines: list[tuple[int, float]] = []

    def describe(self, trainer: "Trainer") -> str | None:
        """Measure, and say what was found."""
        if trainer.epoch % self.every:
            return None
        found = quality(
            trainer.system, trainer.method, self.x, self.y, threads=trainer.threads, **self.settings
        )
        self.cosines.append((trainer.epoch, found.cosine))
        return f"cosine {found.cosine:.3f}"
