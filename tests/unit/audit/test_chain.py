"""Each line carries the digest of the line before it, across runs, rotations and torn ends."""

import gzip
import os
from pathlib import Path

import pytest

from reaper.audit.events import OPENED, TORN, TRUNCATED
from reaper.audit.file import FileSink

from .build import (
    TORN_LINE,
    MemorySink,
    act,
    compressed,
    crash,
    digest,
    events,
    ledger,
    names,
    parsed,
    write_run,
)


def killed_run(path: Path) -> None:
    log = ledger(FileSink(path))
    act(log)
    crash(log)


def content(file: Path) -> bytes:
    data = file.read_bytes()
    return gzip.decompress(data) if file.suffix == ".gz" else data


def is_one_chain(*files: Path) -> bool:
    """Computed here without the product's code, for lines that are all whole."""
    lines = [line for file in files for line in content(file).splitlines()]
    carried = [event["prev"] for event in parsed(b"\n".join(lines))]
    return carried == [None, *map(digest, lines[:-1])]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


def test_runs_of_one_file_write_one_chain_that_begins_without_a_digest(path: Path) -> None:
    for _ in range(3):
        write_run(path)
    assert len(events(path)) == 12
    assert is_one_chain(path)


def test_lines_without_a_chain_are_followed_by_the_first_line_with_one(path: Path) -> None:
    path.write_bytes(b'{"schema": 1, "event": "audit.opened"}\n{"schema": 1, "event": "audit.closed"}\n')
    killed_run(path)
    lines = path.read_bytes().splitlines()
    assert [event.get("prev") for event in events(path)][2:] == list(map(digest, lines[1:-1]))


@pytest.mark.parametrize("name", ["audit.jsonl.1", "audit.jsonl-20250618"])
def test_a_file_that_is_rotated_during_a_run_is_continued(path: Path, name: str) -> None:
    log = ledger(FileSink(path))
    act(log)
    old = path.rename(path.with_name(name))
    act(log)
    assert names(path)[0] == OPENED
    assert is_one_chain(old, path)


@pytest.mark.parametrize("emptied", [True, False], ids=["an empty file", "no file"])
@pytest.mark.parametrize("packed", [True, False], ids=["compressed", "plain"])
@pytest.mark.parametrize("name", ["audit.jsonl.1", "audit.jsonl-20250618"])
def test_a_rotated_file_is_continued_by_the_next_run(
    path: Path, *, name: str, packed: bool, emptied: bool
) -> None:
    killed_run(path)
    old = path.rename(path.with_name(name))
    old = compressed(old) if packed else old
    if emptied:
        path.touch()
    killed_run(path)
    assert is_one_chain(old, path)


@pytest.mark.parametrize(
    ("older", "newest"),
    [
        ("audit.jsonl.2.gz", "audit.jsonl.1"),
        ("audit.jsonl.10", "audit.jsonl.9"),
        ("audit.jsonl-20250617.gz", "audit.jsonl-20250618"),
        ("audit.jsonl-2025-06-17T10", "audit.jsonl-2025-06-17T11"),
    ],
)
def test_of_several_copies_the_newest_is_continued(path: Path, older: str, newest: str) -> None:
    files = []
    for name in (older, newest):
        killed_run(path)
        file = path.rename(path.with_name(name.removesuffix(".gz")))
        files.append(compressed(file) if name.endswith(".gz") else file)
    for other in ("audit.jsonl.bak", "audit.jsonl.lock", "other.jsonl.1", "audit.jsonl~"):
        path.with_name(other).write_text("another program's\n")
    killed_run(path)
    assert is_one_chain(*files, path)


def test_a_copy_that_is_being_compressed_is_read_from_the_plain_file(path: Path) -> None:
    killed_run(path)
    old = path.rename(path.with_name("audit.jsonl.1"))
    old.with_name("audit.jsonl.1.gz").write_bytes(gzip.compress(old.read_bytes())[:40])
    killed_run(path)
    assert is_one_chain(old, path)


def test_after_a_copy_that_cannot_be_read_the_chain_begins_anew_and_says_so(path: Path) -> None:
    path.with_name("audit.jsonl.1.gz").write_bytes(gzip.compress(b"x" * 1_000)[:-9])
    killed_run(path)
    first = events(path)[0]
    assert first["prev"] is None
    assert first["detail"].startswith("at 0 bytes; the chain begins anew, because the rotated file cannot be")


def test_a_file_that_was_moved_elsewhere_is_continued_from_memory(path: Path, tmp_path: Path) -> None:
    path.with_name("audit.jsonl.1").write_bytes(b"old\n")
    log = ledger(FileSink(path))
    act(log)
    (tmp_path / "archive").mkdir()
    moved = path.rename(tmp_path / "archive" / "audit.jsonl")
    act(log)
    assert events(path)[0]["prev"] == digest(moved.read_bytes().splitlines()[-1])


@pytest.mark.parametrize(
    "fragment",
    [
        TORN_LINE,
        TORN_LINE + b"\n\n" + TORN_LINE,
        *((b"\x00\xff" * size + b"\n") * 2 for size in (1, 200_000)),
    ],
    ids=["a torn line", "several torn lines", "short foreign lines", "long foreign lines"],
)
def test_what_is_no_entry_is_hashed_with_the_entry_before_it(path: Path, fragment: bytes) -> None:
    killed_run(path)
    last = path.read_bytes().splitlines()[-1]
    with path.open("ab") as file:
        file.write(fragment)
    size = path.stat().st_size
    killed_run(path)
    opened, torn, *_ = parsed(path.read_bytes()[size:].removeprefix(b"\n"))
    assert opened["prev"] == digest(last + b"\n" + fragment)
    assert [opened["event"], torn["event"]] == [OPENED, TORN]


def test_a_file_that_begins_torn_continues_the_rotated_one(path: Path) -> None:
    killed_run(path)
    old = path.rename(path.with_name("audit.jsonl.1"))
    path.write_bytes(TORN_LINE)
    killed_run(path)
    last = old.read_bytes().splitlines()[-1]
    opened = path.read_bytes().splitlines()[1]
    assert parsed(opened)[0]["prev"] == digest(last + b"\n" + TORN_LINE)


def test_a_line_that_misses_only_its_newline_is_whole(path: Path) -> None:
    killed_run(path)
    os.truncate(path, path.stat().st_size - 1)
    killed_run(path)
    assert TORN in names(path)
    assert is_one_chain(path)


@pytest.mark.parametrize("kept", [0, 2])
def test_after_a_truncation_the_chain_continues_from_memory(path: Path, kept: int) -> None:
    log = ledger(FileSink(path))
    act(log)
    lines = path.read_bytes().splitlines(keepends=True)
    os.truncate(path, len(b"".join(lines[:kept])))
    act(log)
    truncated = events(path)[kept]
    assert truncated["event"] == TRUNCATED
    assert truncated["prev"] == digest(lines[-1])


def test_every_sink_has_a_chain_of_its_own(path: Path) -> None:
    sink = MemorySink()
    log = ledger(FileSink(path), sink)
    act(log)
    assert {head.file: head.digest for head in log.heads()} == {
        str(path): digest(path.read_bytes().splitlines()[-1]),
        "sink": digest(sink.taken[-1]),
    }


@pytest.mark.parametrize("packed", [True, False])
def test_the_last_line_is_found_behind_a_thousand_empty_copies(path: Path, *, packed: bool) -> None:
    killed_run(path)
    oldest = path.rename(path.with_name(f"{path.name}.1500"))
    for number in range(1, 1_500):
        copy = path.with_name(f"{path.name}.{number}{'.gz' if packed else ''}")
        copy.write_bytes(gzip.compress(b"") if packed else b"")
    killed_run(path)
    assert is_one_chain(oldest, path)


def test_copies_before_the_last_entry_are_not_read(path: Path) -> None:
    killed_run(path)
    newest = compressed(path.rename(path.with_name("audit.jsonl.1")))
    path.with_name("audit.jsonl.2.gz").write_bytes(b"\x1f\x8b and no more")
    killed_run(path)
    assert events(path)[0]["prev"] == digest(content(newest).splitlines()[-1])
