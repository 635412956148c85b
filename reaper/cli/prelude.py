"""While a service is still being loaded: whoever asks it to end is obeyed at once, for nothing has begun."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from reaper.cli.exits import Exit


def end_at_once_when_asked() -> None:
    """End as a service does that was asked to; left alone, a signal would end it with its own number.

    Without a word and without unwinding: an exception could come amid an import, and be lost there.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(Exit.FINE))
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # what is to be read anew was not yet read


@contextmanager
def without_rich() -> Iterator[None]:
    """Load what comes without a library for drawing on terminals, which takes 4 MB.

    structlog takes it wherever it is found, for tracebacks of a kind that we never show.
    """
    if "rich" in sys.modules:
        yield
        return
    sys.modules["rich"] = None  # type: ignore[assignment]  # Python's own way to say that there is none
    try:
        yield
    finally:
        del sys.modules["rich"]
