"""The audit log on a pipe or in a redirected file."""

import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from reaper.audit.events import INTENT, OPENED, OUTCOME, TORN
from reaper.audit.sinks import AuditLogFailed, StreamSink

from .build import AUTHOR, SNAPSHOT, TERMINATED, candidate, digest, ledger, parsed


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        with suppress(OSError):
            os.close(end)


def drained(fd: int) -> bytes:
    with os.fdopen(fd, "rb") as stream:
        return stream.read()


@pytest.mark.parametrize("blocking", [True, False])
def test_lines_longer_than_the_pipe_arrive_whole(pipe: tuple[int, int], *, blocking: bool) -> None:
    reading, writing = pipe
    os.set_blocking(writing, blocking)
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(drained(reading)))
    reader.start()
    log = ledger(StreamSink(writing))
    (intent,) = log.intend(AUTHOR, "c1", SNAPSHOT, [candidate(query="x" * 300_000)])
    log.log_outcomes([(intent, TERMINATED)])
    os.close(writing)
    reader.join()
    assert [event["event"] for event in parsed(got[0])] == [OPENED, INTENT, OUTCOME]


@pytest.mark.parametrize(("closed", "why"), [(0, "Broken pipe"), (1, "Bad file descriptor")])
def test_a_closed_pipe_or_stdout_is_a_failure(pipe: tuple[int, int], closed: int, why: str) -> None:
    os.close(pipe[closed])
    with pytest.raises(AuditLogFailed, match=f"stdout cannot be written: {why}"):
        ledger(StreamSink(pipe[1])).open()


@pytest.mark.parametrize("blocking", [True, False])
def test_a_reader_that_stopped_reading_is_a_failure_and_gets_no_glued_line(
    pipe: tuple[int, int], *, blocking: bool
) -> None:
    reading, writing = pipe
    os.set_blocking(writing, blocking)
    sink = StreamSink(writing, stalled_ms=0)
    with pytest.raises(AuditLogFailed, match="its reader read nothing"):
        sink.write([b'{"schema": "' + b"x" * 300_000 + b'"}\n'], durable=True)
    torn = os.read(reading, 300_000)
    assert [notice.event for notice in sink.prepare()] == [OPENED, TORN]
    sink.write([b'{"schema": 1}\n'], durable=True)
    assert os.read(reading, 300_000) == b'\n{"schema": 1, "prev": "%s"}\n' % digest(torn).encode()
    assert sink.prepare() == []


def test_a_full_disk_behind_a_redirection_is_a_failure() -> None:
    with (
        Path("/dev/full").open("wb", buffering=0) as full,
        pytest.raises(AuditLogFailed, match="No space left"),
    ):
        ledger(StreamSink(full.fileno())).open()


def test_a_redirected_file_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fdatasync", synced.append)
    with (tmp_path / "out").open("wb", buffering=0) as out:
        ledger(StreamSink(out.fileno())).intend(AUTHOR, "c1", SNAPSHOT, [candidate()])
        assert synced == [out.fileno()]
