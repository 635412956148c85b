"""The memory that a long work needed for a moment."""

import ctypes
from contextlib import suppress


def give_back() -> None:
    """Return to the host what is free: the C library would keep it for a next time that does not come."""
    with suppress(AttributeError):  # not the GNU one
        ctypes.CDLL(None).malloc_trim(0)
