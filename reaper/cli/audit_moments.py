"""Moments as people type them, for everything that asks a record since when."""

from datetime import UTC, datetime, timedelta

import click

from reaper.policy.spans import parse_span
from reaper.record.reader import parse_time


def moment_option(_: click.Context, __: click.Parameter, text: str | None) -> datetime | None:
    """An ISO time, or a duration back from now."""
    if text is None:
        return None
    if time := parse_time(text):
        return time
    try:
        return datetime.now(UTC) - timedelta(microseconds=parse_span(text))
    except (ValueError, OverflowError):
        message = f"{text!r} is no time; write 2026-01-31T23:59Z, or 2h for two hours ago."
        raise click.BadParameter(message) from None
