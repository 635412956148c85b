"""The record as a file: rotated, truncated, torn, closed and misplaced, and no line of it is lost."""

import errno
import math
import os
from itertools import count
from pathlib import Path
from typing import Final

import pytest

from reaper.audit import sinks
from reaper.audit.events import CLOSED, INTENT, OPENED, OUTCOME, TORN, TRUNCATED
from reaper.audit.file import FileSink
from reaper.audit.ledger import Ledger
from reaper.audit.sinks import AuditLogFailed

from .build import AUTHOR, SNAPSHOT, TERMINATED, events, ledger, names, reap

TORN_LINE: Final = b'{"schema": 1, "event": "session.int'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


@pytest.fixture
def sink(path: Path) -> FileSink:
    return FileSink(path)


@pytest.fixture
def book(sink: FileSink) -> Ledger:
    return ledger(sink)


def act(book: Ledger, pid: int = 1) -> None:
    (intent,) = book.intend(AUTHOR, "c1", SNAPSHOT, [reap(pid)])
    book.log_outcomes([(intent, TERMINATED)])


def pids(path: Path) -> list[int]:
    return [event["pid"] for event in events(path) if event["event"] == OUTCOME]


def test_a_new_file_is_readable_for_its_owner_and_group_only(book: Ledger, path: Path) -> None:
    act(book)
    assert path.stat().st_mode & 0o137 == 0
    assert names(path) == [OPENED, INTENT, OUTCOME]


def test_a_file_that_is_there_is_continued(book: Ledger, path: Path) -> None:
    act(book, 1)
    book.close()
    act(ledger(FileSink(path)), 2)
    assert pids(path) == [1, 2]


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


def test_a_file_that_was_renamed_away_is_replaced_without_a_signal(book: Ledger, path: Path) -> None:
    act(book, 1)
    (intent,) = book.intend(AUTHOR, "c1", SNAPSHOT, [reap(2)])
    old = path.rename(path.with_name("audit.jsonl.1"))
    book.log_outcomes([(intent, TERMINATED)])
    act(book, 3)
    assert pids(old) == [1]
    assert pids(path) == [2, 3]
    assert names(path)[0] == OPENED


def test_a_file_that_was_replaced_is_let_go_of(book: Ledger, path: Path) -> None:
    act(book, 1)
    path.rename(path.with_name("audit.jsonl.1"))
    path.touch()
    act(book, 2)
    assert pids(path) == [2]


def test_reopening_moves_on_to_the_file_at_the_path(book: Ledger, path: Path) -> None:
    act(book, 1)
    old = path.rename(path.with_name("audit.jsonl.1"))
    book.reopen()
    act(book, 2)
    assert (pids(old), pids(path)) == ([1], [2])


def test_a_truncated_file_is_noticed_and_continued(book: Ledger, path: Path) -> None:
    act(book, 1)
    copied = path.read_bytes()
    os.truncate(path, 0)
    act(book, 2)
    assert names(path) == [TRUNCATED, INTENT, OUTCOME]
    assert b'"pid": 1' in copied
    assert pids(path) == [2]


@pytest.mark.parametrize("found_open", [False, True])
def test_a_torn_last_line_is_ended_and_told(book: Ledger, path: Path, *, found_open: bool) -> None:
    if found_open:
        act(book, 1)
    with path.open("ab") as file:
        file.write(TORN_LINE)
    act(book, 2)
    lines = path.read_bytes().splitlines()
    torn = lines.index(TORN_LINE)
    path.write_bytes(b"\n".join(lines[:torn] + lines[torn + 1 :]))
    assert names(path)[-3:] == [TORN, INTENT, OUTCOME]


def test_a_descriptor_closed_behind_its_back_is_a_failure_and_then_mended(
    book: Ledger, sink: FileSink, path: Path
) -> None:
    act(book, 1)
    assert sink._fd is not None
    os.close(sink._fd)
    with pytest.raises(AuditLogFailed, match="Bad file descriptor"):
        book.intend(AUTHOR, "c1", SNAPSHOT, [reap(2)])
    act(book, 3)
    assert pids(path) == [1, 3]


def test_a_failed_sync_is_not_asked_again_of_the_same_descriptor(
    book: Ledger, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def failing(fd: int) -> None:
        asked.append(os.fstat(fd).st_ino)
        if len(asked) == 1:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    (intent,) = book.intend(AUTHOR, "c1", SNAPSHOT, [reap()])
    book.log_outcomes([(intent, TERMINATED)])
    monkeypatch.setattr(os, "fdatasync", failing)
    with pytest.raises(AuditLogFailed, match="Input/output error"):
        book.flush()
    book.flush()
    assert len(asked) == 2
    assert names(path) == [OPENED, INTENT, OUTCOME, OPENED, OUTCOME]


def test_a_file_that_is_let_go_of_is_made_to_last(
    book: Ledger, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    act(book)
    old = path.stat().st_ino
    path.rename(path.with_name("audit.jsonl.1"))
    synced: list[int] = []
    monkeypatch.setattr(os, "fdatasync", lambda fd: synced.append(os.fstat(fd).st_ino))
    book.open()
    assert synced == [old, path.stat().st_ino]


def test_a_new_file_lasts_in_its_folder_too(
    book: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.fstat(fd).st_ino))
    book.open()
    assert synced == [tmp_path.stat().st_ino]


def test_quiet_flushes_do_not_sync(book: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    act(book)
    book.flush()
    monkeypatch.setattr(os, "fdatasync", lambda _: pytest.fail("nothing was written since"))
    book.flush()


def test_the_quiet_cycles_of_many_servers_share_a_look_at_the_file(
    book: Ledger, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sinks, "_CHECK_SECONDS", math.inf)
    book.open()
    book.flush()
    path.unlink()

    book.flush()
    assert not path.exists()

    monkeypatch.setattr(sinks, "_CHECK_SECONDS", 0.0)
    book.flush()
    assert names(path) == [OPENED]


def test_a_short_write_is_a_failure_and_the_rest_of_the_line_is_not_glued_to_it(
    book: Ledger, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    act(book, 1)
    write = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda fd, data: write(fd, data[:100]))
        with pytest.raises(AuditLogFailed, match=r"100 of \d+ bytes were taken: the disk is full"):
            book.intend(AUTHOR, "c2", SNAPSHOT, [reap(2)])
    act(book, 3)
    lines = path.read_bytes().splitlines(keepends=True)
    whole = [line for line in lines if line.endswith(b"}\n")]
    assert len(lines) - len(whole) == 2, "the intent is torn, and the attempt to withdraw it"
    path.write_bytes(b"".join(whole))
    assert pids(path)[-1] == 3
    assert [
        event["outcome"] for event in events(path) if event["event"] == OUTCOME and event["pid"] == 2
    ] == ["withdrawn"]


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
def test_a_place_that_cannot_hold_a_record_is_named_in_a_sentence(
    tmp_path: Path, place: str, why: str
) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "file").touch()
    with pytest.raises(AuditLogFailed, match=f"the audit log .* cannot be written: {why}; nothing is term"):
        ledger(FileSink(tmp_path / place)).open()


def test_a_second_writer_is_refused_with_the_pid_of_the_first(book: Ledger, path: Path) -> None:
    act(book)
    second = ledger(FileSink(path))
    with pytest.raises(
        AuditLogFailed, match=f"process {os.getpid()} writes to it already;.*\nhint: one process"
    ):
        second.open()
    book.close()
    second.open()
    assert names(path)[-2:] == [CLOSED, OPENED]


def test_a_second_writer_cannot_take_the_file_over_in_the_middle_of_a_rotation(
    book: Ledger, path: Path
) -> None:
    act(book, 1)
    old = path.rename(path.with_name("audit.jsonl.1"))
    second = ledger(FileSink(path))
    with pytest.raises(AuditLogFailed, match="writes to it already"):
        second.open()
    act(book, 2)
    assert (pids(old), pids(path)) == ([1], [2])


def test_a_closed_ledger_writes_nothing_any_more(book: Ledger) -> None:
    act(book)
    book.close()
    book.close()
    with pytest.raises(AuditLogFailed, match="it was closed"):
        act(book)


def test_a_place_where_files_have_no_lasting_number_is_a_failure_and_no_endless_search(
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
