"""The log: JSON and readable lines without local variables, and priorities in systemd's journal only."""

import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest

from reaper.telemetry.log import Log, LogFormat, LogLevel, make_log


def log_failure(log: Log, text: str) -> None:
    try:
        json.loads(text)
    except ValueError as error:
        log.exception("reaper.broken", exc_info=error)


def test_the_traceback_of_a_defect_is_in_the_json_too() -> None:
    stream = io.StringIO()
    log_failure(make_log(LogFormat.JSON, LogLevel.INFO, to=stream), "{")

    line = json.loads(stream.getvalue())
    assert line["exception"].startswith("Traceback (most recent call last)")
    assert "JSONDecodeError" in line["exception"]
    assert "exc_info" not in line


@pytest.mark.parametrize("log_format", [LogFormat.HUMAN, LogFormat.JSON])
def test_a_traceback_shows_no_local_variable(log_format: LogFormat) -> None:
    stream = io.StringIO()
    password = f"hunter{1 + 1}"
    log_failure(make_log(log_format, LogLevel.INFO, to=stream), f"{{{password}")

    assert "Traceback" in stream.getvalue()
    assert password not in stream.getvalue()


@pytest.fixture
def stream(tmp_path: Path) -> Iterator[TextIO]:
    with (tmp_path / "stderr").open("w+", encoding="utf-8") as file:
        yield file


@pytest.fixture
def journal(stream: TextIO, monkeypatch: pytest.MonkeyPatch) -> TextIO:
    status = os.fstat(stream.fileno())
    monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
    return stream


def lines_of(stream: TextIO) -> list[str]:
    stream.seek(0)
    return stream.read().splitlines()


@pytest.mark.parametrize(("level", "priority"), [("debug", 7), ("info", 6), ("warning", 4), ("error", 3)])
def test_a_line_in_the_journal_begins_with_its_priority(journal: TextIO, level: str, priority: int) -> None:
    log = make_log(LogFormat.JSON, LogLevel.DEBUG, to=journal)

    getattr(log, level)("server.unreachable", why="gone")

    (line,) = lines_of(journal)
    assert line.startswith(f"<{priority}>{{")
    assert json.loads(line[3:])["why"] == "gone"


def test_every_line_of_an_exception_has_its_priority(journal: TextIO) -> None:
    log = make_log(LogFormat.HUMAN, LogLevel.INFO, to=journal)

    log.error("reaper.broken", exc_info=OSError(2, "gone"))

    lines = lines_of(journal)
    assert len(lines) > 1
    assert {line[:3] for line in lines} == {"<3>"}


@pytest.mark.parametrize("named", [None, "", "0:0", "x"])
def test_outside_the_journal_a_line_has_no_priority(
    stream: TextIO, monkeypatch: pytest.MonkeyPatch, named: str | None
) -> None:
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    if named is not None:
        monkeypatch.setenv("JOURNAL_STREAM", named)
    make_log(LogFormat.JSON, LogLevel.INFO, to=stream).info("server.connected")

    (line,) = lines_of(stream)
    assert json.loads(line)["event"] == "server.connected"
