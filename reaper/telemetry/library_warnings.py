"""Warnings of the event loop, the libraries and the interpreter as lines of our log.

Each of them would print text of its own on stderr, which a reader of JSON lines cannot parse.
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

_REPEAT_SECONDS: Final = 60.0
_MAX_KNOWN: Final = 256


@contextmanager
def library_warnings_logged(log: Log) -> Iterator[None]:
    """Log library warnings inside the block, each text at most once a minute."""
    handler = _LibraryHandler(log)
    root = logging.getLogger()
    unraisable, in_thread = sys.unraisablehook, threading.excepthook
    root.addHandler(handler)
    logging.captureWarnings(True)  # noqa: FBT003 (its only way to be called)
    sys.unraisablehook = handler.unraisable
    threading.excepthook = handler.in_thread
    try:
        yield
    finally:
        sys.unraisablehook, threading.excepthook = unraisable, in_thread
        logging.captureWarnings(False)  # noqa: FBT003 (as above)
        root.removeHandler(handler)


class _LibraryHandler(logging.Handler):
    def __init__(self, log: Log) -> None:
        super().__init__(logging.WARNING)
        self._log = log
        self._last: dict[tuple[str, str], float] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Log a record of a library's logger."""
        error = record.exc_info[1] if record.exc_info else None
        self._write(record.name, record.getMessage(), error, is_error=record.levelno >= logging.ERROR)

    def unraisable(self, args: "sys.UnraisableHookArgs") -> None:
        """Log an exception that no code could handle, such as one of a finalizer."""
        self._write("python", args.err_msg or "an exception was ignored", args.exc_value, is_error=True)

    def in_thread(self, args: threading.ExceptHookArgs) -> None:
        """Log the exception that ended a thread."""
        self._write("python", "a thread has ended", args.exc_value, is_error=True)

    def _write(self, by: str, text: str, error: BaseException | None, *, is_error: bool) -> None:
        # The first line only: the event loop adds one for each of its objects.
        why = text.partition("\n")[0].strip() + (f": {type(error).__name__}: {error}" if error else "")
        if self._is_repeated(by, why):
            return
        write = self._log.error if is_error else self._log.warning
        # An OSError, such as too many open files, is no defect: its traceback would not help.
        write(events.LIBRARY_WARNING, by=by, why=why, exc_info=None if isinstance(error, OSError) else error)

    def _is_repeated(self, by: str, why: str) -> bool:
        now = time.monotonic()
        last = self._last.get((by, why))
        if last is not None and now - last < _REPEAT_SECONDS:
            return True
        if len(self._last) >= _MAX_KNOWN:
            self._last.clear()
        self._last[by, why] = now
        return False
