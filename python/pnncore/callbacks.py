"""What happens between the steps and epochs of a training."""

import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pnncore._convert import FloatArray, as_path, flag, number, positive_int, shown
from pnncore.errors import ConfigError
from pnncore.history import History

if TYPE_CHECKING:
    from pnncore.trainer import Trainer


class Callback:
    """Base of callbacks: override what you need.

    `trainer.stop()` ends the fit after the current step or epoch.

    A callback that overrides `on_step` makes the trainer leave the core after every step, which
    costs speed on small networks.
    """

    def on_start(self, trainer: "Trainer") -> None:
        """Run when a fit begins."""

    def on_step(self, trainer: "Trainer") -> None:
        """Run after every step."""

    def on_pause(self, trainer: "Trainer") -> None:
        """Run between two steps, every 50 ms or so.

        For what must happen in time but not at every step.
        """

    def describe(self, trainer: "Trainer") -> str | None:
        """Return what the line of an epoch shows beside loss and accuracy.

        Run once after every epoch.
        """
        return None

    def on_epoch(self, trainer: "Trainer") -> None:
        """Run after every epoch, when the history has its row."""

    def on_end(self, trainer: "Trainer") -> None:
        """Run when a fit ends, however it ends."""


# Of these more is better.
_SCORES = ("validation", "accuracy")


class EarlyStopping(Callback):
    """Stop when a quantity of the history has not improved for some epochs.

    Parameters
    ----------
    patience
        Epochs without improvement after which to stop.
    quantity
        A key of `History`: ``"validation"`` by default. Of scores (``"validation"``,
        ``"accuracy"``) more is better, of everything else less.
    margin
        Improvements up to this do not count.
    restore
        Whether to go back to the parameters of the best epoch at the end of the fit. One that was
        interrupted keeps its last parameters, and can be gone on with.
    """

    def __init__(
        self,
        patience: int = 10,
        *,
        quantity: str = "validation",
        margin: float = 0.0,
        restore: bool = True,
    ) -> None:
        self.patience = positive_int(patience, "patience")
        if not isinstance(quantity, str) or quantity not in History.KEYS:
            raise ConfigError(
                f"quantity must be one of {', '.join(History.KEYS)}; got {shown(quantity)}"
            )
        self.quantity = quantity
        self.margin = number(margin, "margin")
        self.restore = flag(restore, "restore")
        self.best = np.inf
        self.waited = 0
        self._kept: dict[str, FloatArray] | None = None

    def on_start(self, trainer: "Trainer") -> None:
        """Begin afresh; `ConfigError` where nothing will be there to watch."""
        if self.quantity == "validation" and not trainer.validates:
            raise ConfigError(
                "early stopping watches the validation score: pass validation= to fit"
            )
        self.best, self.waited, self._kept = np.inf, 0, None

    def on_epoch(self, trainer: "Trainer") -> None:
        """Compare the last epoch with the best one."""
        value = float(trainer.history[self.quantity][-1])
        if np.isnan(value) and self.quantity in _SCORES:
            raise ConfigError(
                f"early stopping watches {self.quantity!r}, which is {value}; pass validation= to "
                "fit"
            )
        cost = -value if self.quantity in _SCORES else value
        # An epoch in which nothing finite was measured is never the best.
        if np.isfinite(cost) and cost < self.best - self.margin:
            self.best, self.waited = cost, 0
            if self.restore:
                self._kept = {name: array.copy() for name, array in trainer.system.params.items()}
            return
        self.waited += 1
        if self.waited >= self.patience:
            trainer.stop()

    def on_end(self, trainer: "Trainer") -> None:
        """Go back to the best parameters, unless the fit was interrupted.

        It may go on where it was.
        """
        if self._kept is not None and trainer.finished:
            for name, array in self._kept.items():
                trainer.system.params[name][...] = array


class Checkpoint(Callback):
    """Save the trainer while it trains; a killed run loses at most what came after the last save.

    Parameters
    ----------
    path
        The file; the one before is kept beside it, with ``.prev`` added to its name.
    epochs
        Save after every so many epochs; None: only by time.
    minutes
        Save also after so many minutes, in the middle of an epoch too.
    """

    def __init__(
        self, path: str | Path, *, epochs: int | None = 1, minutes: float | None = None
    ) -> None:
        if epochs is None and minutes is None:
            raise ConfigError("give epochs, minutes, or both")
        self.path = Path(as_path(path))
        self.epochs = positive_int(epochs, "epochs") if epochs is not None else None
        self.minutes = number(minutes, "minutes", positive=True) if minutes is not None else None
        self._saved = time.monotonic()

    def on_start(self, trainer: "Trainer") -> None:
        """Start the clock; `ConfigError` where no file can be, before anything is trained."""
        if self.path.is_dir():
            raise ConfigError(f"path must be that of a file, and {self.path} is a directory")
        if not self.path.absolute().parent.is_dir():
            raise ConfigError(f"there is no directory {self.path.absolute().parent} to save in")
        self._saved = time.monotonic()

    def on_pause(self, trainer: "Trainer") -> None:
        """Save when enough time has passed."""
        if self.minutes is not None and time.monotonic() - self._saved >= 60 * self.minutes:
            self._save(trainer)

    def on_epoch(self, trainer: "Trainer") -> None:
        """Save when enough epochs have passed."""
        if self.epochs is not None and trainer.epoch % self.epochs == 0:
            self._save(trainer)

    def _save(self, trainer: "Trainer") -> None:
        trainer.save(self.path)
        self._saved = time.monotonic()
