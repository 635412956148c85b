"""What the event loop, a library or the interpreter has to say: lines of our log, and none of their own.

Left alone, each of them prints text of its own on stderr, where a reader of JSON lines trips over it.
"""

import logging
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from reaper.telemetry import events
from reaper.telemetry.log import Log

_AGAIN_SECONDS: Final = 60.0
_MOST_KNOWN: Final = 256


@contextmanager
def strays_told(log: Log) -> Iterator[None]:
    """Meanwhile whatever they say goes to this log, and the same words once a minute at the most."""
    tell = _Strays(log)
    root = logging.getLogger()
    unraisable, in_thread = sys.unraisablehook, threading.excepthook
    root.addHandler(tell)
    logging.captureWarnings(True)  # noqa: FBT003 (its only way to be called)
    sys.unraisablehook = tell.unraisable
    threading.excepthook = tell.in_thread
    try:
        yield
    finally:
        sys.unraisablehook, threading.excepthook = unraisable, in_thread
        logging.captureWarnings(False)  # noqa: FBT003 (as above)
        root.removeHandler(tell)


class _Strays(logging.Handler):
    def __init__(self, log: Log) -> None:
        super().__init__(logging.WARNING)
        self._log = log
        self._told: dict[tuple[str, str], float] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Pass it on."""
        error = record.exc_info[1] if record.exc_info else None
        self._tell(record.name, record.getMessage(), error, serious=record.levelno >= logging.ERROR)

    def unraisable(self, args: "sys.UnraisableHookArgs") -> None:
        """An exception that was raised where no code could handle it."""
        self._tell(
            "python", args.err_msg or "an exception that nobody can be told of", args.exc_value, serious=True
        )

    def in_thread(self, args: threading.ExceptHookArgs) -> None:
        """What ended a thread."""
        self._tell("python", "a thread has ended", args.exc_value, serious=True)

    def _tell(self, who: str, said: str, error: BaseException | None, *, serious: bool) -> None:
        # The event loop adds a line for each thing that it knows, its sockets and its stacks.
        why = said.partition("\n")[0].strip() + (f": {type(error).__name__}: {error}" if error else "")
        if not self._is_news(who, why):
            return
        tell = self._log.error if serious else self._log.warning
        # A host that is short of something is no defect, and its traceback tells nothing.
        tell(events.STRAY, by=who, why=why, exc_info=None if isinstance(error, OSError) else error)

    def _is_news(self, who: str, why: str) -> bool:
        now = time.monotonic()
        last = self._told.get((who, why))
        if last is not None and now - last < _AGAIN_SECONDS:
            return False
        if len(self._told) >= _MOST_KNOWN:
            self._told.clear()
        self._told[who, why] = now
        return True
