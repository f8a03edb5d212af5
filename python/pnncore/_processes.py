"""Forked processes, and the end of the interpreter.

A child that is forked while another thread uses a system finds its lock held and its arrays lent,
for ever: it gets fresh ones. What the other thread was about stays where it was.
"""

import atexit
import os
import threading
import weakref
from typing import Any, Protocol

from pnncore import _core


class Renewable(Protocol):
    """What a fork may find in use."""

    def _renew(self) -> None:
        """Replace what another thread holds, in a child that has no other thread."""


_users: "weakref.WeakSet[Any]" = weakref.WeakSet()


def renew_in_children(user: Renewable) -> None:
    """Have `_renew` called in every child that is forked as long as the object lives."""
    _users.add(user)


def _in_child() -> None:
    _core.after_fork_in_child()
    for user in list(_users):
        user._renew()


def _install() -> None:
    if threading.current_thread() is threading.main_thread():
        _core.note_main()
    atexit.register(_core.close)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(
            before=_core.before_fork, after_in_parent=_core.after_fork, after_in_child=_in_child
        )


_install()
