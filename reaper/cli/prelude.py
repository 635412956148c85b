"""While a service is still being loaded: whoever asks it to end is obeyed at once, for nothing has begun."""

import os
import signal

from reaper.cli.exits import Exit


def end_at_once_when_asked() -> None:
    """End as a service does that was asked to; left alone, a signal would end it with its own number.

    Without a word and without unwinding: an exception could come amid an import, and be lost there.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(Exit.FINE))
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # what is to be read anew was not yet read
