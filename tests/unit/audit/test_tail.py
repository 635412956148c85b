"""The record is followed while it grows, is rotated, compressed and cut: every whole line once."""

import gzip
import os
import secrets
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Final

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from reaper.audit import tail as reading
from reaper.audit.tail import Marks, Piece, Tail

NAME: Final = "audit.jsonl"
_MOST_STEPS: Final = 40


class Follower:
    """A record, what happens to it, and whoever follows it and crashes now and then."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        self.written: list[bytes] = []
        self.arrived: list[bytes] = []
        self.now = 0.0
        self._numbers = count()
        self._torn = b""
        self.marks = Marks(self.path, "there")
        self.restart()

    def write(self, length: int = 0) -> bytes:
        """A whole line, after what was torn."""
        number = next(self._numbers)
        line = b'{"seq":%d,"x":"%s"}' % (number, b"x" * length)
        self._append(line + b"\n")
        self.written.append(self._torn + line)
        self._torn = b""
        return line

    def tear(self) -> None:
        """A line that is not finished yet."""
        piece = b'{"seq":%d,' % next(self._numbers)
        self._append(piece)
        self._torn += piece

    def rotate(self) -> None:
        """As logrotate does it: every copy moves on by one."""
        # Numbers have gaps where there was nothing to rotate: more of them than files.
        for number in range(_MOST_STEPS, 0, -1):
            for suffix in ("", ".gz"):
                copy = self.copy(number, suffix)
                if copy.exists():
                    copy.rename(self.copy(number + 1, suffix))
        if self.path.exists():
            self.path.rename(self.copy(1))
            self._torn = b""  # never finished

    def compress(self, number: int, *, finished: bool = True) -> None:
        """As logrotate does it: the copy is there twice for a while."""
        copy = self.copy(number)
        if copy.exists():
            packed = self.copy(number, ".gz")
            with gzip.open(packed, "wb") as file:
                file.write(copy.read_bytes())
            status = copy.stat()
            os.utime(packed, ns=(status.st_atime_ns, status.st_mtime_ns))
            if finished:
                copy.unlink()
            else:
                packed.write_bytes(packed.read_bytes()[:-4])

    def copy(self, number: int, suffix: str = "") -> Path:
        return self.path.with_name(f"{NAME}.{number}{suffix}")

    def fetch(self, *, most: int | None = None, keep: bool = True) -> list[Piece]:
        """Read on: everything, or so many pieces, of which the last may get lost in a crash."""
        pieces = list[Piece]()
        while most is None or len(pieces) < most:
            piece = self.tail.next()
            if piece is None:
                break
            pieces.append(piece)
            if keep or len(pieces) != most:
                self.tail.keep(piece)
                self.arrived += piece.lines
        if not keep:
            self.restart()
        return pieces

    def restart(self, *, saved: bool = True) -> None:
        """Another life, that knows what the last one has saved."""
        if saved:
            self.marks.save()
        self.marks = Marks(self.path, "there")
        self.tail: Tail = Tail(self.path, self.marks, clock=lambda: self.now)

    def _append(self, data: bytes) -> None:
        with self.path.open("ab") as file:
            file.write(data)


@pytest.fixture
def record(tmp_path: Path) -> Follower:
    return Follower(tmp_path)


STEPS: Final[dict[str, Callable[[Follower], object]]] = {
    "write": Follower.write,
    "write long": lambda record: record.write(300),
    "tear": Follower.tear,
    "rotate": Follower.rotate,
    "compress 1": lambda record: record.compress(1),
    "compress 2": lambda record: record.compress(2),
    "begin to compress 1": lambda record: record.compress(1, finished=False),
    "fetch": Follower.fetch,
    "fetch one": lambda record: record.fetch(most=1),
    "crash with one": lambda record: record.fetch(most=1, keep=False),
    "restart": Follower.restart,
    "look": lambda record: record.tail.look(),
}


@pytest.mark.parametrize("block", [7, 128 * 1024])
@given(steps=st.lists(st.sampled_from(sorted(STEPS)), max_size=_MOST_STEPS))
@example(steps=["write", "rotate", "tear", "rotate", "rotate", "rotate"])
@example(steps=["write", "rotate", "write", "fetch one", "rotate", "rotate", "compress 2", "write"])
@settings(max_examples=60)
def test_whatever_happens_to_the_record_every_whole_line_is_read_once(
    tmp_path_factory: pytest.TempPathFactory, block: int, steps: list[str]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "_BLOCK", block)
        record = Follower(tmp_path_factory.mktemp("record"))
        for step in steps:
            STEPS[step](record)
        record.fetch()

    assert sorted(record.arrived) == sorted(record.written)
    assert record.tail.waiting == 0


def test_what_a_crash_has_not_saved_is_read_again_and_nothing_is_left_out(record: Follower) -> None:
    for _ in range(3):
        record.write()
    record.fetch()
    record.restart(saved=False)
    record.write()
    record.fetch()

    assert record.arrived == [*record.written[:3], *record.written]


def test_a_piece_is_bounded_however_short_the_lines_are(record: Follower) -> None:
    for _ in range(1_200):
        record.write()
    pieces = record.fetch()

    assert record.arrived == record.written
    assert max(len(piece.lines) for piece in pieces) == 500


def test_a_copy_that_is_being_compressed_is_read_as_long_as_it_is_plain(record: Follower) -> None:
    for _ in range(3):
        record.write()
        with record.path.open("ab") as file:
            file.write(secrets.token_hex(100_000).encode() + b"\n")
    record.rotate()
    record.compress(1, finished=False)
    packed = record.copy(1, ".gz")
    packed.write_bytes(packed.read_bytes()[:200_000])
    record.fetch()

    assert [line for line in record.arrived if line.startswith(b"{")] == record.written
    assert record.tail.troubles() == []


def test_copies_are_read_in_the_order_in_which_they_were_written(record: Follower) -> None:
    for _ in range(3):
        record.write()
        record.rotate()
        record.compress(2)
    record.write()
    record.fetch()

    assert record.arrived == record.written


def test_what_was_read_to_its_end_is_not_opened_again_after_a_restart(
    record: Follower, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        record.write()
        record.rotate()
        record.compress(2)
    record.fetch()
    record.restart()
    monkeypatch.setattr("reaper.audit.tail.Reading", None)

    assert record.fetch() == []
    record.write()
    with pytest.raises(TypeError):
        record.fetch()


def test_an_end_that_a_crash_of_the_host_has_taken_costs_no_line_that_came_later(record: Follower) -> None:
    for _ in range(4):
        record.write(50)
    record.fetch()
    os.truncate(record.path, record.path.stat().st_size - 100)
    del record.written[2:]
    record._torn = record.path.read_bytes().rpartition(b"\n")[2]
    record.arrived.clear()
    for _ in range(4):
        record.write(50)
    record.fetch()

    assert record.arrived == record.written


def test_a_record_that_was_copied_and_truncated_is_read_on_in_both(record: Follower) -> None:
    record.write()
    record.fetch()
    record.write()
    record.copy(1).write_bytes(record.path.read_bytes())
    os.truncate(record.path, 0)
    record.write()
    record.fetch()

    assert sorted(record.arrived) == sorted(record.written)


def test_a_damaged_copy_is_told_once_and_keeps_nothing_else_from_being_read(record: Follower) -> None:
    for _ in range(3):
        record.write(300_000)
    record.rotate()
    record.compress(1)
    packed = record.copy(1, ".gz")
    packed.write_bytes(packed.read_bytes()[:-400])
    record.write()
    record.fetch()
    record.fetch()

    assert record.written[-1] in record.arrived
    (told,) = record.tail.troubles()
    assert told.startswith(f"{packed} cannot be read to its end: ")
    assert record.tail.troubles() == []


def test_a_copy_that_cannot_be_unpacked_is_told(record: Follower) -> None:
    record.copy(2).write_bytes(b"\xfd7zXZ\0\n\0")
    record.copy(1, ".gz").write_bytes(b"\x1f\x8b\x08 and no more")
    record.fetch()

    assert {told.partition(" cannot be read: ")[0] for told in record.tail.troubles()} == {
        str(record.copy(1, ".gz")),
        str(record.copy(2)),
    }


def test_a_copy_that_is_removed_before_it_was_read_is_missed_after_a_while(record: Follower) -> None:
    record.write()
    record.fetch()
    record.rotate()
    record.write()
    record.tail.look()
    record.copy(1).unlink()
    record.path.unlink()
    record.now = 59
    record.tail.look()
    assert record.tail.missed() == 0

    record.now = 61
    record.tail.look()
    assert record.tail.missed() == 1
    assert record.tail.missed() == 0


def test_a_line_that_is_too_long_to_be_ours_is_passed_over_and_told(
    record: Follower, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "LONGEST_LINE", 1_000)
    monkeypatch.setattr(reading, "_BLOCK", 100)
    record.write()
    long = record.write(5_000)
    record.write()
    record.fetch()
    record.restart()
    record.fetch()

    assert record.arrived == [line for line in record.written if line != long]
    record.write()
    record.fetch()
    assert record.arrived == [line for line in record.written if line != long]


def test_only_the_record_and_its_copies_are_read(record: Follower) -> None:
    record.write()
    for name in ("other.jsonl", f"x{NAME}", f"{NAME}x", f"{NAME}.shipped", f"{NAME}.shipped.77"):
        record.path.with_name(name).write_bytes(b"not a line of ours\n")
    record.path.with_name(f"{NAME}.d").mkdir()
    os.mkfifo(record.path.with_name(f"{NAME}.fifo"))
    record.fetch()

    assert record.arrived == record.written


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "[" * 100_000,
        '{"format": 2, "target": "there", "marks": {}}',
        '{"format": 1, "target": "there", "marks": {"a": [1]}}',
        '{"format": 1, "target": "there", "marks": {"a": [-1, "", null]}}',
        '{"format": 1, "target": "there", "marks": {"a": [1, "", ["x", 1, 1]]}}',
        "\0\xff",
    ],
)
def test_marks_that_are_strange_are_none(record: Follower, text: str) -> None:
    record.write()
    record.fetch()
    record.marks.save()
    record.marks.path.write_text(text, encoding="latin-1")

    assert Marks(record.path, "there").by_identity == {}


@pytest.mark.parametrize("offset", [1_000, 2**62, 2**63 - 1, 2**70])
def test_a_mark_behind_the_end_of_its_volume_is_none(record: Follower, offset: int) -> None:
    record.write()
    record.fetch()
    record.marks.by_identity = {
        identity: replace(mark, offset=offset, done=None)
        for identity, mark in record.marks.by_identity.items()
    }
    record.restart()
    record.arrived.clear()

    record.fetch()

    assert record.arrived == record.written
    assert record.tail.troubles() == []


def test_marks_are_for_one_target(record: Follower) -> None:
    record.write()
    record.fetch()
    record.marks.save()

    assert Marks(record.path, "there").by_identity == record.marks.by_identity != {}
    assert Marks(record.path, "elsewhere").by_identity == {}


def test_marks_that_cannot_be_written_leave_nothing_behind(record: Follower) -> None:
    record.write()
    record.fetch()
    record.marks.path.mkdir()

    with pytest.raises(OSError, match="Is a directory"):
        record.marks.save()
    assert sorted(each.name for each in record.path.parent.iterdir()) == [NAME, f"{NAME}.shipped"]
