"""Whatever is done to a record by anybody but its writers is found, and told where."""

import gzip
import io
import os
import random
import tempfile
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from itertools import accumulate
from pathlib import Path
from typing import Final, NamedTuple

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from reaper.audit.file import FileSink
from reaper.audit.ledger import Ledger
from reaper.audit.reader import LONGEST_LINE, files_of_audit_logs
from reaper.audit.sinks import AuditLogFailed, StreamSink
from reaper.audit.verify import Problem, ProblemKind, Verification

from .build import AUTHOR, SNAPSHOT, TERMINATED, crash, ledger, reap

Lines = list[tuple[int, bytes]]
"""Each with the number of the file that it stands in."""


@pytest.mark.parametrize("name", ["..1", "...2", "..2026_01_31", ".1"])
def test_a_file_whose_name_has_nothing_before_its_numbers_is_no_copy_of_another(
    tmp_path: Path, name: str
) -> None:
    file = tmp_path / name
    file.touch()

    assert files_of_audit_logs([file]) == [[file]]


def act(book: Ledger, pid: int = 1) -> None:
    (intent,) = book.intend(AUTHOR, "c1", SNAPSHOT, [reap(pid)])
    book.log_outcomes([(intent, TERMINATED)])


@contextmanager
def without_waiting_for_disks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fdatasync", lambda _: None)
        patch.setattr(os, "fsync", lambda _: None)
        yield


STEPS: Final = st.sampled_from(["act", "restart", "crash", "rotate", "pack", "copy and truncate"])


def written(steps: Sequence[str], folder: Path) -> list[bytes]:
    """The files of an audit log, the oldest first, after this has happened to it."""
    path = folder / "audit.jsonl"
    book = ledger(FileSink(path), run="one")
    act(book)
    rotated = 10_000_000
    for number, step in enumerate(steps):
        copy = folder / f"audit.jsonl-{rotated + number}"
        if step == "act":
            act(book, number)
        elif step == "restart":
            book.close()
            book = ledger(FileSink(path), run=f"run-{number}")
        elif step == "crash":
            with path.open("ab") as file:
                file.write(path.read_bytes().splitlines()[-1][: 37 * number % 400])
            crash(book)
            book = ledger(FileSink(path), run=f"run-{number}")
        elif step == "copy and truncate":
            copy.write_bytes(path.read_bytes())
            os.truncate(path, 0)
        else:
            path.rename(copy)
            if step == "pack":
                copy.with_name(f"{copy.name}.gz").write_bytes(gzip.compress(copy.read_bytes()))
                copy.unlink()
        act(book, 1_000 + number)
    book.close()
    (files,) = files_of_audit_logs([path])
    return [
        gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes() for file in files
    ]


ANOTHER: Final = "nor is any other line here: it is another file"


def followed(files: Sequence[bytes], *heads: str) -> tuple[list[Problem], Verification, set[str]]:
    anchors = set(heads)
    verification = Verification(heads=anchors)
    damages = [
        damage
        for number, data in enumerate(files)
        for damage in verification.read(str(number), io.BytesIO(data))
    ]
    return [*damages, *verification.finish()], verification, anchors


def unexplained(damages: Sequence[Problem]) -> list[Problem]:
    return [damage for damage in damages if not damage.explained]


def lines_of(files: Sequence[bytes]) -> Lines:
    return [(number, line) for number, data in enumerate(files) for line in data.splitlines(keepends=True)]


def files_of(lines: Lines, count: int) -> list[bytes]:
    return [b"".join(line for of, line in lines if of == number) for number in range(count)]


class Done(NamedTuple):
    """What somebody did to a record."""

    lines: Lines
    first: int
    """The first line that differs."""
    last: int


def flipped(line: bytes, chosen: random.Random) -> bytes:
    at = chosen.randrange(max(1, len(line) - 1))
    return line[:at] + bytes([line[at] ^ (1 << chosen.randrange(3))]) + line[at + 1 :]


def edited(lines: Lines, at: int, chosen: random.Random) -> Done:
    of, line = lines[at]
    return Done([*lines[:at], (of, flipped(line, chosen)), *lines[at + 1 :]], at, at)


def removed(lines: Lines, at: int, chosen: random.Random) -> Done:
    until = min(len(lines), at + chosen.randrange(1, 4))
    return Done([*lines[:at], *lines[until:]], at, at)


def inserted(lines: Lines, at: int, chosen: random.Random) -> Done:
    old = chosen.choice(lines)[1]
    new = chosen.choice([old, b"\n", b"hello\n", b'{"schema": 1}\n', b"\0\xff\n", flipped(old, chosen)])
    return Done([*lines[:at], (lines[at][0], new), *lines[at:]], at, at)


def repeated(lines: Lines, at: int, _: random.Random) -> Done:
    return Done([*lines[: at + 1], lines[at], *lines[at + 1 :]], at, at + 1)


def swapped(lines: Lines, at: int, chosen: random.Random) -> Done:
    other = chosen.randrange(len(lines))
    first, last = sorted((at, other))
    new = list(lines)
    new[first], new[last] = (lines[first][0], lines[last][1]), (lines[last][0], lines[first][1])
    return Done(new, first, last)


def torn(lines: Lines, at: int, chosen: random.Random) -> Done:
    of, line = lines[at]
    cut = line[: chosen.randrange(len(line))] + (b"\n" if chosen.randrange(2) else b"")
    return Done([*lines[:at], (of, cut), *lines[at + 1 :]], at, at)


MEDDLING: Final = [edited, removed, inserted, repeated, swapped, torn]
OFTEN: Final = settings(max_examples=25)


def places_of(damages: Sequence[Problem], files: Sequence[bytes]) -> list[int]:
    """The damaged lines, counted through all files."""
    first = list(accumulate((data.count(b"\n") for data in files), initial=0))
    return [first[int(d.place.file)] + d.place.line - 1 for d in damages if d.place]


@given(steps=st.lists(STEPS, max_size=8))
@OFTEN
def test_what_its_writers_did_to_a_record_leaves_it_intact(steps: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder, without_waiting_for_disks():
        damages, verification, _ = followed(written(steps, Path(folder)))
    assert unexplained(damages) == []
    assert verification.follows is None
    assert verification.open_intents == {}


@pytest.mark.parametrize("meddle", MEDDLING)
@given(steps=st.lists(STEPS, max_size=8), seed=st.integers(0, 2**32))
@example(steps=["rotate"], seed=15596384)
@OFTEN
def test_a_single_line_that_somebody_meddled_with_is_found_and_located(
    meddle: Callable[[Lines, int, random.Random], Done], steps: list[str], seed: int
) -> None:
    with tempfile.TemporaryDirectory() as folder, without_waiting_for_disks():
        files = written(steps, Path(folder))
    before = lines_of(files)
    head = followed(files)[1].last
    assert head
    chosen = random.Random(seed)  # noqa: S311 (a repeatable choice)
    for _ in range(10):
        done = meddle(before, chosen.randrange(len(before)), chosen)
        after = files_of(done.lines, len(files))
        if [data.splitlines() for data in after] == [data.splitlines() for data in files]:
            continue  # no line differs: at most the end of a file's last one is missing
        if files[0] and not after[0]:
            continue  # a whole copy that is not here was rotated away
        damages, _verification, unmet = followed(after, head.digest)
        found = unexplained(damages)
        assert found or unmet
        if done.last < len(before) - 4:
            assert any(done.first - 2 <= place <= done.last + 2 for place in places_of(found, after))


def act_in(*lives: str) -> list[bytes]:
    """A file that these lives wrote one behind the other, each with one act, line by line."""
    with tempfile.TemporaryDirectory() as folder, without_waiting_for_disks():
        path = Path(folder, "audit.jsonl")
        for life in lives:
            book = ledger(FileSink(path), run=life)
            act(book)
            book.close()
        return path.read_bytes().splitlines(keepends=True)


def on_a_stream(life: str) -> list[bytes]:
    reading, writing = os.pipe()
    book = ledger(StreamSink(writing), run=life)
    act(book)
    book.close()
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        return pipe.readlines()


WHOLE: Final = act_in("a", "b")
"""opened, intent, outcome, closed; and the same again."""


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (
            [*WHOLE[:2], WHOLE[2].replace(b'"pid": 1,', b'"pid": 2,'), *WHOLE[3:]],
            "0:3: changed: 0:4 follows this line as it was before it was changed",
        ),
        (
            [*WHOLE[:1], *WHOLE[3:]],
            "0:2: missing: by their numbers 2 lines are missing between 0:1 and this one",
        ),
        (
            [*WHOLE[:3], *WHOLE[4:]],
            (
                "0:4: missing: this line follows one that is not here: 0:3 was changed, or lines between "
                "them are missing"
            ),
        ),
        (
            WHOLE[1:],
            (
                "0:1: missing: lines before this one are missing: "
                "a file of the audit log begins with record.opened"
            ),
        ),
        ([*WHOLE[:3], *WHOLE[2:]], "0:4: repeated: the same line stands at 0:3"),
        (
            [*WHOLE[:3], b"hello\n", *WHOLE[3:]],
            "0:5: inserted: this line follows 0:3: what stands between them was inserted, or moved here",
        ),
        (
            [*WHOLE[:3], WHOLE[3][:50] + b"\n", *WHOLE[4:]],
            (
                "0:4: changed: not JSON, so probably torn; this is not what 0:5 follows, so it was changed, "
                "and not torn by a crash"
            ),
        ),
        (
            [*WHOLE, b'{"schema": 1, "event": "record.opened"}\n'],
            ("0:9: foreign: it carries no digest: it was inserted, or written by a reaper without a chain"),
        ),
        (
            [*WHOLE, WHOLE[0][:50]],
            "0:9: torn: not JSON, so probably torn; the next run of the reaper will report it",
        ),
        ([*WHOLE, b"hello\n"], "0:9: foreign: no line of an audit log"),
        (
            [*WHOLE[:4], *act_in("c")],
            "0:5: broken off: a new chain begins here, although lines stand before it (at 0 bytes)",
        ),
        ([b"\x00\xff\n"], f"0:1: foreign: no line of an audit log; {ANOTHER}"),
        ([b"[" * 100_000], f"0:1: foreign: no line of an audit log; {ANOTHER}"),
    ],
)
def test_each_damage_is_a_sentence_with_its_place(lines: list[bytes], told: str) -> None:
    damages, _, _ = followed([b"".join(lines)])
    assert told in [str(damage) for damage in damages]
    assert len(damages) == 1


def test_lines_that_changed_places_are_each_told() -> None:
    damages, _, _ = followed([b"".join([*WHOLE[:1], WHOLE[2], WHOLE[1], *WHOLE[3:]])])
    assert [(damage.kind, str(damage.place)) for damage in damages] == [
        (ProblemKind.MISSING, "0:2"),
        (ProblemKind.INSERTED, "0:3"),
        (ProblemKind.INSERTED, "0:4"),
    ]


def digest(line: bytes) -> str:
    return sha256(line.removesuffix(b"\n")).hexdigest()


def test_a_head_that_was_noted_elsewhere_shows_that_the_end_is_missing() -> None:
    noted = digest(WHOLE[5]), digest(WHOLE[7])
    assert followed([b"".join(WHOLE)], *noted)[2] == set()
    damages, _, unmet = followed([b"".join(WHOLE[:7])], *noted)
    assert (damages, unmet) == ([], {noted[1]}), "a chain alone cannot see that"


def test_the_beginning_may_have_been_rotated_away_and_a_head_in_it_is_known_by_what_follows() -> None:
    with tempfile.TemporaryDirectory() as folder, without_waiting_for_disks():
        oldest, *later = written(["rotate", "rotate"], Path(folder))
    head = digest(oldest.splitlines()[-1])
    damages, verification, unmet = followed(later, head)
    assert (damages, verification.follows, unmet) == ([], head, set())


def test_lines_from_before_the_chain_are_named_and_the_last_of_them_is_held_by_it() -> None:
    old = b'{"schema": 1, "event": "session.intent", "intent": "x", "pid": %d}\n'
    with tempfile.TemporaryDirectory() as folder, without_waiting_for_disks():
        path = Path(folder, "audit.jsonl")
        path.write_bytes(old % 1 + b"hello\n" + old % 2)
        act(ledger(FileSink(path)))
        data = path.read_bytes()
    damages, verification, _ = followed([data])
    assert (damages, verification.before, verification.lines) == ([], 3, 3)
    ((damage,), _, _) = followed([data.replace(b'"pid": 2', b'"pid": 3')])
    assert "0:3 was changed" in damage.sentence
    assert list(verification.open_intents.values()) == [(("0"), 3)]


def test_what_a_crash_tore_is_explained_by_the_line_that_tells_of_it() -> None:
    with tempfile.TemporaryDirectory() as folder, without_waiting_for_disks():
        files = written(["act", "crash"], Path(folder))
    ((damage,), _, _) = followed(files)
    assert damage.kind is ProblemKind.TORN
    assert damage.explained
    assert damage.explained.startswith("found by the run that wrote 0:")


def test_lives_on_a_stream_are_chains_of_their_own_whoever_speaks_in_between() -> None:
    lives = [on_a_stream(life) for life in "ab"]
    mixed = [
        b"starting\n",
        *(line for pair in zip(*lives, strict=True) for line in (*pair, b'{"level": 1}\n')),
    ]
    damages, verification, _ = followed([b"".join(mixed)])
    assert (damages, verification.lines, verification.foreign) == ([], 8, 5)
    assert unexplained(followed([b"".join(mixed[:4] + mixed[6:])])[0])


def test_a_torn_line_of_a_stream_is_explained() -> None:
    reading, writing = os.pipe()
    sink = StreamSink(writing, stalled_ms=0)
    book = ledger(sink, run="life")
    book.open()
    with pytest.raises(AuditLogFailed):
        sink.write([b'{"schema": 1, "run": "life", "query": "' + b"x" * 300_000 + b'"}\n'], durable=True)
    data = os.read(reading, 1_000_000)
    act(book)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        data += pipe.read()
    damages, _, _ = followed([data])
    assert [damage.kind for damage in damages] == [ProblemKind.TORN]
    assert unexplained(damages) == []


def test_an_endless_line_is_followed_without_being_kept() -> None:
    class Endless:
        left = 50_000_000

        def readline(self, limit: int, /) -> bytes:
            taken = min(limit, self.left)
            self.left -= taken
            return b"x" * taken

    tracemalloc.start()
    verification = Verification(heads=set())
    damages = [*verification.read("0", Endless()), *verification.finish()]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [damage.sentence for damage in damages] == [f"longer than {LONGEST_LINE} bytes; {ANOTHER}"]
    assert peak < 3 * LONGEST_LINE


@given(
    data=st.lists(
        st.binary(max_size=60)
        | st.sampled_from([*WHOLE, b"\n", b'{"schema": [], "event": {}, "prev": 7, "seq": "x", "run": []}\n'])
    ).map(b"".join)
)
def test_no_bytes_stop_the_verification(data: bytes) -> None:
    damages, verification, _ = followed([data, data])
    assert len(damages) + verification.lines + verification.before + verification.foreign >= bool(data)
    assert all(str(damage).isascii() for damage in damages)
