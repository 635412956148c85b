"""The audit log as a file: rotated, truncated, torn, closed and misplaced, and no line of it is lost."""

import errno
import math
import os
from itertools import count
from pathlib import Path

import pytest

from reaper.audit import sinks
from reaper.audit.events import CLOSED, INTENT, OPENED, OUTCOME, TORN, TRUNCATED
from reaper.audit.file import FileSink
from reaper.audit.ledger import Ledger
from reaper.audit.sinks import AuditLogFailed

from .build import AUTHOR, SNAPSHOT, TERMINATED, TORN_LINE, act, candidate, events, ledger, names


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


@pytest.fixture
def sink(path: Path) -> FileSink:
    return FileSink(path)


@pytest.fixture
def log(sink: FileSink) -> Ledger:
    return ledger(sink)


def pids(path: Path) -> list[int]:
    return [event["pid"] for event in events(path) if event["event"] == OUTCOME]


def rotated(path: Path) -> Path:
    return path.rename(path.with_name("audit.jsonl.1"))


def test_a_new_file_is_readable_for_its_owner_and_group_only(log: Ledger, path: Path) -> None:
    act(log)
    assert path.stat().st_mode & 0o137 == 0
    assert names(path) == [OPENED, INTENT, OUTCOME]


def test_a_batch_is_one_write(sink: FileSink, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[bytes] = []
    write = os.write

    def noted(fd: int, data: bytes) -> int:
        written.append(data)
        return write(fd, data)

    monkeypatch.setattr(os, "write", noted)
    sink.prepare()
    sink.write([b'{"schema": 1}\n', b'{"schema": 2}\n'], durable=True)
    assert [data.count(b"\n") for data in written] == [2]


def test_after_a_rename_the_next_event_opens_a_new_file_without_a_signal(log: Ledger, path: Path) -> None:
    act(log, 1)
    (intent,) = log.intend(AUTHOR, "c1", SNAPSHOT, [candidate(2)])
    old = rotated(path)
    log.log_outcomes([(intent, TERMINATED)])
    act(log, 3)
    assert (pids(old), pids(path)) == ([1], [2, 3])
    assert names(path)[0] == OPENED


@pytest.mark.parametrize("reopened", [True, False])
def test_another_file_at_the_path_is_used(log: Ledger, path: Path, *, reopened: bool) -> None:
    act(log, 1)
    old = rotated(path)
    path.touch()
    if reopened:
        log.reopen()
    act(log, 2)
    assert (pids(old), pids(path)) == ([1], [2])


def test_a_truncation_is_logged(log: Ledger, path: Path) -> None:
    act(log, 1)
    os.truncate(path, 0)
    act(log, 2)
    assert names(path) == [TRUNCATED, INTENT, OUTCOME]


@pytest.mark.parametrize("before", [0, 1])
def test_a_torn_last_line_is_ended_and_logged(log: Ledger, path: Path, before: int) -> None:
    for _ in range(before):
        act(log)
    with path.open("ab") as file:
        file.write(TORN_LINE)
    act(log, 2)
    path.write_bytes(path.read_bytes().replace(TORN_LINE + b"\n", b""))
    assert names(path)[-3:] == [TORN, INTENT, OUTCOME]


def test_after_a_descriptor_was_closed_the_file_is_opened_again(
    log: Ledger, sink: FileSink, path: Path
) -> None:
    act(log, 1)
    assert sink._fd is not None
    os.close(sink._fd)
    with pytest.raises(AuditLogFailed, match="Bad file descriptor"):
        log.intend(AUTHOR, "c1", SNAPSHOT, [candidate(2)])
    act(log, 3)
    assert pids(path) == [1, 3]


def test_after_a_failed_sync_the_file_is_opened_and_written_again(
    log: Ledger, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []

    def failing(fd: int) -> None:
        synced.append(fd)
        if len(synced) == 1:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    act(log)
    monkeypatch.setattr(os, "fdatasync", failing)
    with pytest.raises(AuditLogFailed, match="Input/output error"):
        log.flush()
    log.flush()
    assert len(synced) == 2
    assert names(path) == [OPENED, INTENT, OUTCOME, OPENED, OUTCOME]


def test_a_rotated_file_is_synced_before_it_is_left_and_a_new_file_in_its_folder(
    log: Ledger, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    act(log)
    old = path.stat().st_ino
    rotated(path)
    synced: list[int] = []
    for name in ("fdatasync", "fsync"):
        monkeypatch.setattr(os, name, lambda fd: synced.append(os.fstat(fd).st_ino))
    log.open()
    assert synced == [old, path.parent.stat().st_ino, path.stat().st_ino]


def test_a_flush_with_nothing_new_does_not_sync(log: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    act(log)
    log.flush()
    monkeypatch.setattr(os, "fdatasync", lambda _: pytest.fail("nothing was written since"))
    log.flush()


def test_the_quiet_cycles_of_many_servers_check_the_file_only_from_time_to_time(
    log: Ledger, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sinks, "_CHECK_SECONDS", math.inf)
    log.open()
    log.flush()
    path.unlink()
    log.flush()
    assert not path.exists()

    monkeypatch.setattr(sinks, "_CHECK_SECONDS", 0.0)
    log.flush()
    assert names(path) == [OPENED]


def test_nothing_is_appended_to_a_line_that_was_written_in_part(
    log: Ledger, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    act(log, 1)
    write = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda fd, data: write(fd, data[:100]))
        with pytest.raises(AuditLogFailed, match=r"100 of \d+ bytes were taken: the disk is full"):
            log.intend(AUTHOR, "c2", SNAPSHOT, [candidate(2)])
    act(log, 3)
    lines = path.read_bytes().splitlines(keepends=True)
    whole = [line for line in lines if line.endswith(b"}\n")]
    assert len(lines) - len(whole) == 2, "the intent is torn, and the attempt to withdraw it"
    path.write_bytes(b"".join(whole))
    outcomes = [(event["pid"], event["outcome"]) for event in events(path) if event["event"] == OUTCOME]
    assert outcomes[1:] == [(2, "withdrawn"), (3, "terminated")]


@pytest.mark.parametrize(
    ("place", "why"),
    [
        ("missing/audit.jsonl", "its folder .*/missing does not exist, create it"),
        ("", "Is a directory"),
        ("fifo", "it is not a regular file"),
        ("/dev/full", "it is not a regular file"),
        ("file/audit.jsonl", "Not a directory"),
    ],
)
def test_a_path_that_cannot_hold_an_audit_log_is_named_in_a_sentence(
    tmp_path: Path, place: str, why: str
) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "file").touch()
    with pytest.raises(AuditLogFailed, match=f"the audit log .* cannot be written: {why}; nothing is term"):
        ledger(FileSink(tmp_path / place)).open()


def test_a_second_writer_is_refused_with_the_pid_of_the_first(log: Ledger, path: Path) -> None:
    act(log)
    second = ledger(FileSink(path))
    refused = f"process {os.getpid()} writes to it already;.*\nhint: one process"
    with pytest.raises(AuditLogFailed, match=refused):
        second.open()
    log.close()
    second.open()
    assert names(path)[-2:] == [CLOSED, OPENED]


def test_a_second_writer_cannot_take_over_in_the_middle_of_a_rotation(log: Ledger, path: Path) -> None:
    act(log, 1)
    old = rotated(path)
    with pytest.raises(AuditLogFailed, match="writes to it already"):
        ledger(FileSink(path)).open()
    act(log, 2)
    assert (pids(old), pids(path)) == ([1], [2])


def test_a_closed_ledger_writes_nothing_any_more(log: Ledger) -> None:
    act(log)
    log.close()
    log.close()
    with pytest.raises(AuditLogFailed, match="it was closed"):
        act(log)


def test_a_file_system_without_lasting_inode_numbers_is_a_failure(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, numbers = os.fstat, count(1)

    def numbered(fd: int) -> os.stat_result:
        fields = list(real(fd))
        fields[1] += next(numbers)
        return os.stat_result(fields)

    monkeypatch.setattr(os, "fstat", numbered)
    with pytest.raises(AuditLogFailed, match="another file at its path"):
        ledger(FileSink(path)).open()
