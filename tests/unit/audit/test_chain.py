"""Every line holds on to the one before it, across lives, writers, rotations and torn ends."""

import gzip
import os
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

from reaper.audit.events import OPENED, TORN, TRUNCATED
from reaper.audit.file import FileSink
from reaper.audit.ledger import Ledger

from .build import AUTHOR, SNAPSHOT, TERMINATED, MemorySink, crash, events, ledger, names, parsed, reap

TORN_LINE = b'{"schema": 1, "event": "session.int'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


def act(book: Ledger, pid: int = 1) -> None:
    (intent,) = book.intend(AUTHOR, "c1", SNAPSHOT, [reap(pid)])
    book.log_outcomes([(intent, TERMINATED)])


def life(path: Path) -> None:
    """A run that ended by SIGKILL."""
    book = ledger(FileSink(path))
    act(book)
    crash(book)


def digest(data: bytes) -> str:
    return sha256(data).hexdigest()


def content(file: Path) -> bytes:
    data = file.read_bytes()
    return gzip.decompress(data) if file.suffix == ".gz" else data


def is_one_chain(*files: Path) -> bool:
    """Counted by hand, for lines that are all whole."""
    lines = [line for file in files for line in content(file).splitlines()]
    told = [event["prev"] for event in parsed(b"\n".join(lines))]
    return told == [None, *map(digest, lines[:-1])]


def test_every_line_carries_the_digest_of_the_one_before_it_and_the_first_none(path: Path) -> None:
    book = ledger(FileSink(path))
    act(book, 1)
    act(book, 2)
    book.close()
    assert len(events(path)) == 6
    assert is_one_chain(path)


def test_a_new_life_goes_on_from_the_last_line(path: Path) -> None:
    for _ in range(3):
        book = ledger(FileSink(path))
        act(book)
        book.close()
    assert is_one_chain(path)


def test_lines_from_before_the_chain_are_held_by_its_first_line(path: Path) -> None:
    path.write_bytes(b'{"schema": 1, "event": "record.opened"}\n{"schema": 1, "event": "record.closed"}\n')
    life(path)
    lines = path.read_bytes().splitlines()
    assert [event.get("prev") for event in parsed(path.read_bytes())][2:] == list(map(digest, lines[1:-1]))


def by_number(path: Path) -> Path:
    return path.with_name("audit.jsonl.1")


def by_date(path: Path) -> Path:
    return path.with_name("audit.jsonl-20250618")


@pytest.mark.parametrize("name", [by_number, by_date])
def test_a_rotated_file_is_continued_while_we_run(path: Path, name: Callable[[Path], Path]) -> None:
    book = ledger(FileSink(path))
    act(book)
    old = path.rename(name(path))
    act(book)
    assert names(path)[0] == OPENED
    assert is_one_chain(old, path)


def packed(file: Path) -> Path:
    copy = file.with_name(f"{file.name}.gz")
    copy.write_bytes(gzip.compress(file.read_bytes()))
    file.unlink()
    return copy


@pytest.mark.parametrize("emptied", [True, False], ids=["an empty file", "no file"])
@pytest.mark.parametrize("compressed", [True, False], ids=["compressed", "plain"])
@pytest.mark.parametrize("name", [by_number, by_date])
def test_a_rotated_file_is_continued_by_a_later_life(
    path: Path,
    name: Callable[[Path], Path],
    compressed: bool,  # noqa: FBT001
    emptied: bool,  # noqa: FBT001
) -> None:
    life(path)
    old = path.rename(name(path))
    old = packed(old) if compressed else old
    if emptied:
        path.touch()
    life(path)
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
def test_of_several_rotated_files_the_newest_is_continued(path: Path, older: str, newest: str) -> None:
    files = []
    for name in (older, newest):
        life(path)
        file = path.rename(path.with_name(name.removesuffix(".gz")))
        files.append(packed(file) if name.endswith(".gz") else file)
    for strange in ("audit.jsonl.bak", "audit.jsonl.lock", "other.jsonl.1", "audit.jsonl~"):
        path.with_name(strange).write_text("strange\n")
    life(path)
    assert is_one_chain(*files, path)


def test_a_copy_that_is_just_being_compressed_is_not_taken_for_a_whole_one(path: Path) -> None:
    life(path)
    old = path.rename(by_number(path))
    old.with_name("audit.jsonl.1.gz").write_bytes(gzip.compress(old.read_bytes())[:40])
    life(path)
    assert is_one_chain(old, path)


def test_a_copy_that_cannot_be_read_lets_the_chain_begin_anew_and_says_so(path: Path) -> None:
    path.with_name("audit.jsonl.1.gz").write_bytes(gzip.compress(b"x" * 1_000)[:-9])
    life(path)
    first = events(path)[0]
    assert first["prev"] is None
    assert first["detail"].startswith(
        "at 0 bytes; the chain begins anew, because the rotated file cannot be read"
    )


def test_a_file_that_was_moved_elsewhere_is_continued_from_memory(path: Path, tmp_path: Path) -> None:
    by_number(path).write_bytes(b"of long ago\n")
    os.utime(by_number(path), (1, 1))
    book = ledger(FileSink(path))
    first = path
    act(book)
    (tmp_path / "archive").mkdir()
    first = path.rename(tmp_path / "archive" / "audit.jsonl")
    act(book)
    assert events(path)[0]["prev"] == digest(first.read_bytes().splitlines()[-1])


def test_what_is_torn_belongs_to_the_line_before_it(path: Path) -> None:
    life(path)
    last = path.read_bytes().splitlines()[-1]
    with path.open("ab") as file:
        file.write(TORN_LINE + b"\n\n" + TORN_LINE)
    life(path)
    following = path.read_bytes().splitlines()[6:]
    assert parsed(following[0])[0]["prev"] == digest(last + b"\n" + TORN_LINE + b"\n\n" + TORN_LINE)
    assert [event["event"] for event in parsed(b"\n".join(following))][:2] == [OPENED, TORN]


def test_a_file_that_begins_torn_still_holds_on_to_the_rotated_one(path: Path) -> None:
    life(path)
    old = path.rename(by_number(path))
    path.write_bytes(TORN_LINE)
    life(path)
    last = old.read_bytes().splitlines()[-1]
    opened = path.read_bytes().splitlines()[1]
    assert parsed(opened)[0]["prev"] == digest(last + b"\n" + TORN_LINE)


def test_a_line_that_misses_only_its_end_is_whole(path: Path) -> None:
    life(path)
    os.truncate(path, path.stat().st_size - 1)
    life(path)
    assert TORN in names(path)
    assert is_one_chain(path)


@pytest.mark.parametrize("length", [1, 70_000, 200_000])
def test_the_end_is_found_behind_any_length_of_foreign_bytes(path: Path, length: int) -> None:
    life(path)
    last = path.read_bytes().splitlines()[-1]
    foreign = (b"\x00\xff" * length + b"\n") * 2
    with path.open("ab") as file:
        file.write(foreign)
    before = path.stat().st_size
    life(path)
    following = path.read_bytes()[before:].splitlines()
    assert parsed(following[0])[0]["prev"] == digest(last + b"\n" + foreign.removesuffix(b"\n"))


def test_after_copytruncate_the_chain_goes_on_from_what_the_writer_knew(path: Path) -> None:
    book = ledger(FileSink(path))
    act(book)
    copy = by_number(path)
    copy.write_bytes(path.read_bytes())
    os.truncate(path, 0)
    act(book)
    assert names(path)[0] == TRUNCATED
    assert is_one_chain(copy, path)


def test_a_file_whose_end_was_cut_off_is_confronted_with_what_the_writer_knew(path: Path) -> None:
    book = ledger(FileSink(path))
    act(book)
    lines = path.read_bytes().splitlines(keepends=True)
    os.truncate(path, len(b"".join(lines[:2])))
    act(book)
    truncated = events(path)[2]
    assert truncated["event"] == TRUNCATED
    assert truncated["prev"] == digest(lines[-1].rstrip())


def test_every_sink_has_a_chain_of_its_own_and_tells_its_head(path: Path) -> None:
    sink = MemorySink()
    book = ledger(FileSink(path), sink)
    act(book)
    heads = {head.file: head.digest for head in book.heads()}
    assert heads == {
        str(path): digest(path.read_bytes().splitlines()[-1]),
        "sink": digest(sink.taken[-1].rstrip()),
    }


@pytest.mark.parametrize("packing", [True, False])
def test_a_thousand_rotated_copies_are_not_too_many_to_find_the_last_line(
    path: Path, *, packing: bool
) -> None:
    book = ledger(FileSink(path))
    act(book)
    book.close()
    oldest = path.rename(path.with_name(f"{path.name}.1500"))
    for number in range(1, 1_500):
        copy = path.with_name(f"{path.name}.{number}{'.gz' if packing else ''}")
        copy.write_bytes(gzip.compress(b"") if packing else b"")
    book = ledger(FileSink(path))
    act(book)
    book.close()
    assert is_one_chain(oldest, path)


def test_what_stands_before_the_last_whole_line_is_not_read(path: Path) -> None:
    copies = []
    for number in (2, 1):
        book = ledger(FileSink(path))
        act(book)
        book.close()
        copies.append(packed(path.rename(path.with_name(f"{path.name}.{number}"))))
    copies[0].write_bytes(b"\x1f\x8b and no more")
    book = ledger(FileSink(path))
    act(book)
    book.close()
    assert parsed(path.read_bytes())[0]["prev"] == digest(content(copies[1]).splitlines()[-1])
