"""States of an instrument, and which may follow which."""

import enum


class State(enum.Enum):
    """What is known of an instrument.

    Every change is in the journal: an intent stands for IDLE → ARMED → RUNNING, a result for
    RUNNING → IDLE, and all others are records of their own.
    """

    CLOSED = "closed"
    """Nobody uses it."""
    IDLE = "idle"
    """It waits for a shot."""
    ARMED = "armed"
    """A shot is about to be made: its intent is in the journal."""
    RUNNING = "running"
    """A shot is being made."""
    UNKNOWN = "unknown"
    """A shot ended without a usable answer: what the instrument does now cannot be known."""
    SAFE = "safe"
    """`safe_state` was called, and returned."""
    FAILED = "failed"
    """`safe_state` failed: somebody has to look."""

    # Members are single objects: the hash of their names takes as long as a write to the journal.
    __hash__ = object.__hash__


TRANSITIONS: dict[State, frozenset[State]] = {
    State.CLOSED: frozenset({State.IDLE}),
    State.IDLE: frozenset({State.ARMED, State.SAFE, State.FAILED, State.CLOSED}),
    State.ARMED: frozenset({State.RUNNING, State.UNKNOWN}),
    State.RUNNING: frozenset({State.IDLE, State.UNKNOWN}),
    State.UNKNOWN: frozenset({State.ARMED, State.SAFE, State.FAILED}),
    State.SAFE: frozenset({State.ARMED, State.SAFE, State.FAILED, State.CLOSED, State.IDLE}),
    State.FAILED: frozenset({State.IDLE, State.SAFE, State.FAILED, State.CLOSED}),
}
