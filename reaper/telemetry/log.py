"""The log: readable lines on a terminal, JSON elsewhere; on stderr, because stdout may be the audit log."""

import logging
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from enum import StrEnum
from typing import Final, TextIO

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

from reaper.policy.text import printable

Log = FilteringBoundLogger


class LogFormat(StrEnum):
    """The format of a log line."""

    AUTO = "auto"
    HUMAN = "human"
    JSON = "json"


class LogLevel(StrEnum):
    """The lowest level that is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def make_log(log_format: LogFormat, level: LogLevel, *, to: TextIO | None = None) -> Log:
    """Make a logger; nothing is configured globally."""
    stream = to or sys.stderr
    human = log_format is LogFormat.HUMAN or (log_format is LogFormat.AUTO and stream.isatty())
    *processors, render = _for_people(colors=stream.isatty()) if human else _for_machines()
    log: Log = structlog.wrap_logger(
        _Stream(stream),
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        processors=[*processors, _with_priority(render) if _is_journal(stream) else render],
        cache_logger_on_first_use=True,
    )
    return log


def _for_people(*, colors: bool) -> list[Processor]:
    return [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False),
        _escape_controls,
        # The default formatter of exceptions shows local variables, which may be passwords.
        structlog.dev.ConsoleRenderer(
            colors=colors, pad_event_to=18, sort_keys=False, exception_formatter=structlog.dev.plain_traceback
        ),
    ]


def _for_machines() -> list[Processor]:
    return [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        structlog.processors.format_exc_info,
        _in_order,
        structlog.processors.JSONRenderer(ensure_ascii=True, default=str),
    ]


class _Stream:
    """The stream of the log; a closed pipe must not end the service."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def msg(self, message: str) -> None:
        """Write one line."""
        with suppress(OSError, ValueError):
            self._stream.write(f"{message}\n")
            self._stream.flush()

    debug = info = warning = error = exception = msg


def _in_order(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    first = ("time", "level", "event")
    return {**{key: event[key] for key in first if key in event}, **event}


_PRIORITIES: Final[Mapping[str, str]] = {"debug": "<7>", "info": "<6>", "warning": "<4>", "error": "<3>"}
"""Syslog's priorities, as the journal reads them at the start of a line."""


def _is_journal(stream: TextIO) -> bool:
    """True if the stream is systemd's journal, which names its device and inode in the environment."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False  # not a file
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def _with_priority(render: Processor) -> Processor:
    """Start every line with its priority, because the journal makes an entry of each."""

    def rendered(logger: WrappedLogger, level: str, event: EventDict) -> str:
        mark = _PRIORITIES[level]
        return mark + str(render(logger, level, event)).replace("\n", f"\n{mark}")

    return rendered


def _escape_controls(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    return {key: printable(value) if isinstance(value, str) else value for key, value in event.items()}
