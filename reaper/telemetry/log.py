"""The log: for people on a terminal, JSON elsewhere; always on stderr, for stdout may carry the record."""

import logging
import sys
from enum import StrEnum
from typing import TextIO

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

from reaper.telemetry.plain import plain

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
    log: Log = structlog.wrap_logger(
        structlog.PrintLogger(stream),
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        processors=_for_people(colors=stream.isatty()) if human else _for_machines(),
        cache_logger_on_first_use=True,
    )
    return log


def _for_people(*, colors: bool) -> list[Processor]:
    return [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False),
        _harmless,
        structlog.dev.ConsoleRenderer(colors=colors, pad_event_to=18, sort_keys=False),
    ]


def _for_machines() -> list[Processor]:
    return [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        structlog.processors.JSONRenderer(ensure_ascii=True, default=str),
    ]


def _harmless(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    return {key: plain(value) if isinstance(value, str) else value for key, value in event.items()}
