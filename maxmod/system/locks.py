"""Locks that the child of a fork finds free.

A fork copies one thread. A lock that another thread holds at that moment stays taken in the child,
where nobody ever gives it back.
"""

from __future__ import annotations

import os
import threading
import weakref

_LOCKS: weakref.WeakSet[threading.Lock] = weakref.WeakSet()


def fork_safe_lock() -> threading.Lock:
    """Returns a lock that is free in the child of a fork.

    What it protects must be usable whenever Python switches threads: the child continues with what
    the other thread had done until then. Only a thread that forks while it holds the lock itself
    loses it.
    """
    lock = threading.Lock()
    _LOCKS.add(lock)
    return lock


def _reset_all() -> None:
    for lock in _LOCKS:
        # Not `release`: a thread that just got the lock had yet to note so, and `locked` is False.
        # What `logging` and `threading` call for theirs, in every Python from 3.9 on.
        lock._at_fork_reinit()  # type: ignore[attr-defined]  # not in the stubs


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_reset_all)
