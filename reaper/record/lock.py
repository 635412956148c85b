"""The lock that keeps the writers of one file apart."""

import errno
import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_PATIENCE: Final = 1_000
"""Milliseconds, many thousand times as long as a write takes."""


@contextmanager
def locked(fd: int) -> Iterator[None]:
    """Keep other reapers from writing; raises BlockingIOError.

    One append never tears another, but it is seen growing: without the lock a line in the making looks torn.
    Whoever holds the lock too long must not hang us: that is a record that cannot be written.
    """
    for _ in range(_PATIENCE):
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            time.sleep(0.001)
    else:
        raise BlockingIOError(errno.EAGAIN, "another process keeps it locked")
    try:
        yield
    finally:
        fcntl.flock(fd, fcntl.LOCK_UN)
