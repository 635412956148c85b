"""The tail reads every whole line once while the audit log grows, is rotated, compressed and cut."""

import gzip
import os
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Final

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from reaper.audit import tail
from reaper.audit.tail import Chunk, Tail

from .build import compressed

NAME: Final = "audit.jsonl"
_MOST_STEPS: Final = 40


class FollowedLog:
    """An audit log, what happens to it, and a tail that crashes now and then."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        self.written: list[bytes] = []
        self.arrived: list[bytes] = []
        self.now = 0.0
        self.torn = b""
        self._numbers = count()
        self.tail: Tail = Tail(self.path, "there", clock=lambda: self.now)

    def write(self, length: int = 0) -> bytes:
        """A whole line, after what was torn."""
        line = b'{"seq":%d,"x":"%s"}' % (next(self._numbers), b"x" * length)
        self.append(line + b"\n")
        self.written.append(self.torn + line)
        self.torn = b""
        return line

    def tear(self) -> None:
        """A line that is not finished yet."""
        piece = b'{"seq":%d,' % next(self._numbers)
        self.append(piece)
        self.torn += piece

    def rotate(self) -> None:
        """As logrotate does it with delaycompress: the second copy is compressed."""
        self.read()
        for number in range(_MOST_STEPS, 0, -1):
            for suffix in ("", ".gz"):
                if self.copy(number, suffix).exists():
                    self.copy(number, suffix).rename(self.copy(number + 1, suffix))
        if self.path.exists():
            self.path.rename(self.copy(1))
            self.torn = b""  # never finished
        if self.copy(2).exists():
            compressed(self.copy(2))

    def begin_to_compress(self) -> None:
        """The copy exists twice for a while, and the compressed one is incomplete."""
        if self.copy(1).exists():
            self.copy(1, ".gz").write_bytes(gzip.compress(self.copy(1).read_bytes())[:-4])

    def copy(self, number: int, suffix: str = "") -> Path:
        return self.path.with_name(f"{NAME}.{number}{suffix}")

    def read(self, *, most: int | None = None, keep: bool = True) -> list[Chunk]:
        """Read everything, or a number of chunks, of which a crash may lose the last."""
        chunks = list[Chunk]()
        while (most is None or len(chunks) < most) and (chunk := self.tail.next()):
            chunks.append(chunk)
            if keep or len(chunks) != most:
                self.tail.keep(chunk)
                self.arrived += chunk.lines
        if not keep:
            self.restart()
        return chunks

    def restart(self, *, saved: bool = True) -> None:
        """Another run, with the offsets that the last one saved."""
        if saved:
            self.tail.save()
        self.tail = Tail(self.path, "there", clock=lambda: self.now)

    def append(self, data: bytes) -> None:
        with self.path.open("ab") as file:
            file.write(data)


@pytest.fixture
def log(tmp_path: Path) -> FollowedLog:
    return FollowedLog(tmp_path)


STEPS: Final[dict[str, Callable[[FollowedLog], object]]] = {
    "write": FollowedLog.write,
    "write long": lambda log: log.write(300),
    "tear": FollowedLog.tear,
    "rotate": FollowedLog.rotate,
    "begin to compress": FollowedLog.begin_to_compress,
    "read": FollowedLog.read,
    "read one": lambda log: log.read(most=1),
    "crash with one": lambda log: log.read(most=1, keep=False),
    "restart": FollowedLog.restart,
    "look": lambda log: log.tail.look(),
}


@pytest.mark.parametrize("block", [7, 128 * 1024])
@given(steps=st.lists(st.sampled_from(sorted(STEPS)), max_size=_MOST_STEPS))
@example(steps=["write", "rotate", "tear", "rotate", "rotate", "rotate"])
@example(steps=["write", "tear", "read", "rotate", "restart", "write", "rotate", "write"])
@settings(max_examples=60)
def test_whatever_happens_to_the_audit_log_every_whole_line_is_read_once(
    tmp_path_factory: pytest.TempPathFactory, block: int, steps: list[str]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tail, "_BLOCK", block)
        log = FollowedLog(tmp_path_factory.mktemp("log"))
        for step in steps:
            STEPS[step](log)
        log.read()

    assert sorted(log.arrived) == sorted(log.written)
    assert (log.tail.waiting, log.tail.missed, log.tail.problems) == (0, 0, [])


def test_lines_that_a_crash_did_not_save_are_read_again(log: FollowedLog) -> None:
    for _ in range(3):
        log.write()
    log.read()
    log.restart(saved=False)
    log.write()
    log.read()

    assert log.arrived == [*log.written[:3], *log.written]


def test_a_chunk_is_bounded_however_short_the_lines_are(log: FollowedLog) -> None:
    for _ in range(1_200):
        log.write()
    chunks = log.read()

    assert log.arrived == log.written
    assert max(len(chunk.lines) for chunk in chunks) == 500


@pytest.mark.parametrize("seen", [True, False])
def test_a_copy_that_was_compressed_too_early_is_counted_named_and_reported_once(
    log: FollowedLog, *, seen: bool
) -> None:
    log.write()
    if seen:
        log.read()
        log.write()
    log.path.rename(log.copy(1))
    compressed(log.copy(1))
    log.write()
    log.read()

    assert log.arrived[-1] == log.written[-1]
    assert log.tail.missed == 1
    (problem,) = log.tail.problems
    assert problem.startswith(f"{log.copy(1, '.gz')} was compressed before all of it was read")
    log.restart()
    log.read()
    assert log.tail.missed == 0, "the run before has reported it"


def test_copies_are_read_in_the_order_in_which_they_were_written(log: FollowedLog) -> None:
    for number in (3, 2, 1):
        log.write()
        log.path.rename(log.copy(number))
    log.write()
    log.read()

    assert log.arrived == log.written


def test_lines_that_replace_an_end_lost_in_a_crash_of_the_host_are_read(log: FollowedLog) -> None:
    for _ in range(4):
        log.write(50)
    log.read()
    os.truncate(log.path, log.path.stat().st_size - 100)
    del log.written[2:]
    log.torn = log.path.read_bytes().rpartition(b"\n")[2]
    log.arrived.clear()
    for _ in range(4):
        log.write(50)
    log.read()

    assert log.arrived == log.written


def test_an_audit_log_that_was_copied_and_truncated_is_read_in_both_files(log: FollowedLog) -> None:
    log.write()
    log.read()
    log.write()
    log.copy(1).write_bytes(log.path.read_bytes())
    os.truncate(log.path, 0)
    log.write()
    log.read()

    assert sorted(log.arrived) == sorted(log.written)


def test_a_copy_that_cannot_be_read_is_reported(log: FollowedLog) -> None:
    log.copy(2).write_bytes(b"\xfd7zXZ\0\n\0")
    log.copy(1, ".gz").write_bytes(b"\x1f\x8b\x08 and no more")
    log.read()

    assert {problem.partition(" cannot be read: ")[0] for problem in log.tail.problems} == {
        str(log.copy(1, ".gz")),
        str(log.copy(2)),
    }


def test_a_copy_that_was_removed_before_it_was_read_is_counted_after_a_minute(log: FollowedLog) -> None:
    log.write()
    log.read()
    log.path.rename(log.copy(1))
    log.write()
    log.tail.look()
    log.copy(1).unlink()
    log.path.unlink()
    for log.now, missed in ((59, 0), (61, 1), (200, 1)):
        log.tail.look()
        assert log.tail.missed == missed


def test_a_line_that_is_too_long_for_an_entry_is_left_out_and_reported(
    log: FollowedLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tail, "LONGEST_LINE", 1_000)
    monkeypatch.setattr(tail, "_BLOCK", 100)
    log.write()
    long = log.write(5_000)
    log.write()
    log.read()
    assert log.tail.problems == [f"{log.path}: a line of more than 1000 bytes is no entry, and is left out"]
    log.restart()
    log.write()
    log.read()

    assert log.arrived == [line for line in log.written if line != long]


def test_only_the_audit_log_and_its_copies_are_read(log: FollowedLog) -> None:
    log.write()
    for name in ("other.jsonl", f"x{NAME}", f"{NAME}x", f"{NAME}.shipped", f"{NAME}.shipped.77"):
        log.path.with_name(name).write_bytes(b"no entry\n")
    log.path.with_name(f"{NAME}.d").mkdir()
    os.mkfifo(log.path.with_name(f"{NAME}.fifo"))
    log.read()

    assert log.arrived == log.written


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", "null", "[" * 100_000, "\0\xff"),
        '{"format": 1, "target": "there", "offsets": {}}',
        '{"format": 2, "target": "there", "offsets": {"a": [1]}}',
        '{"format": 2, "target": "there", "offsets": {"a": [-1, "", 0, 0]}}',
        '{"format": 2, "target": "there", "offsets": {"a": [1, "", "x", 1]}}',
    ],
)
def test_with_damaged_offsets_everything_is_read_again(log: FollowedLog, text: str) -> None:
    log.write()
    log.read()
    log.tail.save()
    log.tail.offsets_file.write_text(text, encoding="latin-1")
    log.restart(saved=False)
    log.read()

    assert log.arrived == [*log.written, *log.written]


@pytest.mark.parametrize("offset", [1_000, 2**62])
def test_an_offset_beyond_the_end_of_its_file_is_ignored(log: FollowedLog, offset: int) -> None:
    log.write()
    log.read()
    log.tail.save()
    saved = log.tail.offsets_file.read_text()
    size = log.path.stat().st_size
    log.tail.offsets_file.write_text(saved.replace(f"[{size}, ", f"[{offset}, "))
    log.restart(saved=False)
    log.arrived.clear()
    log.read()

    assert log.arrived == log.written
    assert log.tail.problems == []


def test_offsets_are_for_one_target(log: FollowedLog) -> None:
    log.write()
    log.read()
    log.tail.save()

    assert Tail(log.path, "there").next() is None
    assert Tail(log.path, "elsewhere").next() is not None


def test_offsets_that_cannot_be_written_leave_no_file_behind(log: FollowedLog) -> None:
    log.write()
    log.read()
    log.tail.offsets_file.mkdir()

    with pytest.raises(OSError, match="Is a directory"):
        log.tail.save()
    assert sorted(each.name for each in log.path.parent.iterdir()) == [NAME, f"{NAME}.shipped"]
