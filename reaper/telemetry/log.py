"""The log: for people on a terminal, JSON elsewhere; always on stderr, for stdout may carry the record."""

import logging
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from enum import StrEnum
from typing import Final, TextIO

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

from reaper.policy.text import plain

Log = FilteringBoundLogger


class LogFormat(StrEnum):
    """How a log line looks."""

    AUTO = "auto"
    HUMAN = "human"
    JSON = "json"


class LogLevel(StrEnum):
    """What is worth a line."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def make_log(log_format: LogFormat, level: LogLevel, *, to: TextIO | None = None) -> Log:
    """Build a logger; nothing is configured globally."""
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
        _harmless,
        structlog.dev.ConsoleRenderer(
            colors=colors,
            pad_event_to=18,
            sort_keys=False,
            # The richer ones show local variables, and passwords are among them.
            exception_formatter=structlog.dev.plain_traceback,
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
    """The stream of the log; a closed pipe does not end the service."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def msg(self, message: str) -> None:
        """Write one line."""
        with suppress(OSError, ValueError):
            self._stream.write(f"{message}\n")
            self._stream.flush()

    debug = info = warning = error = exception = msg


_FIRST: Final = ("time", "level", "event")


def _in_order(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    return {**{key: event[key] for key in _FIRST if key in event}, **event}


_PRIORITIES: Final[Mapping[str, str]] = {"debug": "<7>", "info": "<6>", "warning": "<4>", "error": "<3>"}
"""Syslog's, as the journal reads them at the head of a line."""


def _is_journal(stream: TextIO) -> bool:
    """Whether what is written there goes to systemd's journal, which says so by device and inode."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False  # not a file at all
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def _with_priority(render: Processor) -> Processor:
    """Mark every line: the journal takes each for a message of its own."""

    def rendered(logger: WrappedLogger, level: str, event: EventDict) -> str:
        mark = _PRIORITIES[level]
        return mark + str(render(logger, level, event)).replace("\n", f"\n{mark}")

    return rendered


def _harmless(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    return {key: plain(value) if isinstance(value, str) else value for key, value in event.items()}
