"""What an instrument answered: whether it is a measurement, and what is wrong where it is not."""

import math
from typing import Any

import numpy as np

from pnncore._convert import FloatArray, has_masked
from pnncore._records import message
from pnncore.instruments._channel import BusyError, LateError
from pnncore.instruments._settings import Policy


class BadAnswerError(ValueError):
    """An answer that is no measurement; `reason` names what is wrong."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


def measured(value: Any, x: FloatArray, n_out: int, policy: Policy) -> FloatArray:
    """Return an answer as an array, or raise `BadAnswerError`."""
    if policy.echo is not None:
        value = _echoed(value, x, policy)
    if has_masked(value):
        raise BadAnswerError("dtype", "some of it is masked")
    try:
        y = np.asarray(value)
    except Exception as error:
        raise BadAnswerError("dtype", f"it is no array: {message(error)}") from error
    if y.dtype.kind not in "fiu":
        raise BadAnswerError("dtype", f"it is {y.dtype}, not real numbers")
    wanted = (len(x), n_out) if policy.batch else (n_out,)
    if y.shape != wanted:
        raise BadAnswerError("shape", f"it has shape {y.shape}, not {wanted}")
    # A copy: it may be the callable's own buffer, which the next call fills again.
    y = np.array(y, dtype=x.dtype, order="C").reshape(len(x), n_out)
    # The sum is finite unless an element is not, or the sum overflows: only then look at every
    # element.
    if not math.isfinite(np.add.reduce(y, axis=None)) and not np.isfinite(y).all():
        raise BadAnswerError("nan" if np.isnan(y).any() else "infinite", "it holds NaN or infinity")
    if policy.output_range is not None:
        lower, upper = policy.output_range
        if y.size and (y.min() < lower or y.max() > upper):
            raise BadAnswerError(
                "range", f"it lies in {y.min():g}..{y.max():g}, outside of {lower:g}..{upper:g}"
            )
    return y


def _echoed(value: Any, x: FloatArray, policy: Policy) -> Any:
    echo = policy.echo
    assert echo is not None
    try:
        value, returned = value
    except (TypeError, ValueError):
        raise BadAnswerError("stale", "echo is set, but it is no pair (outputs, echo)") from None
    if not np.array_equal(returned, echo(x if policy.batch else x[0])):
        raise BadAnswerError("stale", "it answers another shot: its echo is not that of the inputs")
    return value


def reason_of(error: BaseException) -> str:
    if isinstance(error, BadAnswerError):
        return error.reason
    for kind, name in (
        (LateError, "timeout"),
        (BusyError, "busy"),
        (ConnectionError, "disconnect"),
        (KeyboardInterrupt, "interrupt"),
    ):
        if isinstance(error, kind):
            return name
    return "exception"
