"""The log in systemd's journal: every line brings its priority, and nowhere else does it."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest

from reaper.telemetry.log import LogFormat, LogLevel, make_log


@pytest.fixture
def stream(tmp_path: Path) -> Iterator[TextIO]:
    with (tmp_path / "stderr").open("w+", encoding="utf-8") as file:
        yield file


@pytest.fixture
def journal(stream: TextIO, monkeypatch: pytest.MonkeyPatch) -> TextIO:
    status = os.fstat(stream.fileno())
    monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
    return stream


def told(stream: TextIO) -> list[str]:
    stream.seek(0)
    return stream.read().splitlines()


@pytest.mark.parametrize(("level", "priority"), [("debug", 7), ("info", 6), ("warning", 4), ("error", 3)])
def test_a_line_brings_its_priority_before_its_json(journal: TextIO, level: str, priority: int) -> None:
    log = make_log(LogFormat.JSON, LogLevel.DEBUG, to=journal)

    getattr(log, level)("server.unreachable", why="gone")

    (line,) = told(journal)
    assert line.startswith(f"<{priority}>{{")
    assert json.loads(line[3:])["why"] == "gone"


def test_an_exception_is_an_error_on_every_line(journal: TextIO) -> None:
    log = make_log(LogFormat.HUMAN, LogLevel.INFO, to=journal)

    log.error("reaper.broken", exc_info=OSError(2, "gone"))

    lines = told(journal)
    assert len(lines) > 1
    assert {line[:3] for line in lines} == {"<3>"}


@pytest.mark.parametrize("named", [None, "", "0:0", "x"])
def test_elsewhere_a_line_is_bare(stream: TextIO, monkeypatch: pytest.MonkeyPatch, named: str | None) -> None:
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    if named is not None:
        monkeypatch.setenv("JOURNAL_STREAM", named)
    log = make_log(LogFormat.JSON, LogLevel.INFO, to=stream)

    log.info("server.connected")

    (line,) = told(stream)
    assert json.loads(line)["event"] == "server.connected"
