"""Every change of an audit log that its writers did not make is found, with its place."""

import gzip
import io
import os
import random
import tempfile
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import Final, NamedTuple

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from reaper.audit.file import FileSink
from reaper.audit.reader import LONGEST_LINE, files_of_audit_logs
from reaper.audit.sinks import AuditLogFailed, StreamSink
from reaper.audit.verify import Problem, ProblemKind, Verification

from .build import act, compressed, crash, digest, ledger, write_run

Lines = list[tuple[int, bytes]]
"""Each with the number of its file."""


@pytest.mark.parametrize("name", ["..1", "...2", "..2026_01_31", ".1"])
def test_a_name_of_dots_and_numbers_alone_is_no_copy(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    file.touch()

    assert files_of_audit_logs([file]) == [[file]]


@contextmanager
def without_syncing() -> Iterator[Path]:
    """A folder in which nothing waits for a disk."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr(os, "fdatasync", lambda _: None)
        patch.setattr(os, "fsync", lambda _: None)
        yield Path(folder)


STEPS: Final = st.sampled_from(["act", "restart", "crash", "rotate", "pack", "copy and truncate"])


def written(steps: Sequence[str]) -> list[bytes]:
    """The files of an audit log, the oldest first, after these steps."""
    with without_syncing() as folder:
        path = folder / "audit.jsonl"
        log = ledger(FileSink(path), run="one")
        act(log)
        for number, step in enumerate(steps):
            copy = folder / f"audit.jsonl-{10_000_000 + number}"
            if step == "restart":
                log.close()
                log = ledger(FileSink(path), run=f"run-{number}")
            elif step == "crash":
                with path.open("ab") as file:
                    file.write(path.read_bytes().splitlines()[-1][: 37 * number % 400])
                crash(log)
                log = ledger(FileSink(path), run=f"run-{number}")
            elif step == "copy and truncate":
                copy.write_bytes(path.read_bytes())
                os.truncate(path, 0)
            elif step in {"rotate", "pack"}:
                path.rename(copy)
                if step == "pack":
                    compressed(copy)
            act(log, 1_000 + number)
        log.close()
        (files,) = files_of_audit_logs([path])
        contents = [file.read_bytes() for file in files]
    return [gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data for data in contents]


def verified(files: Sequence[bytes], *heads: str) -> tuple[list[Problem], Verification, set[str]]:
    """The problems of these files, and the heads that were not found."""
    missing = set(heads)
    verification = Verification(heads=missing)
    problems = [
        problem
        for number, data in enumerate(files)
        for problem in verification.read(str(number), io.BytesIO(data))
    ]
    return [*problems, *verification.finish()], verification, missing


def serious(problems: Sequence[Problem]) -> list[Problem]:
    return [problem for problem in problems if not problem.explained]


def lines_of(files: Sequence[bytes]) -> Lines:
    return [(number, line) for number, data in enumerate(files) for line in data.splitlines(keepends=True)]


def files_of(lines: Lines, count: int) -> list[bytes]:
    return [b"".join(line for of, line in lines if of == number) for number in range(count)]


class Change(NamedTuple):
    """What was done to an audit log, and the first and last line that differ."""

    lines: Lines
    first: int
    last: int


def flipped(line: bytes, chosen: random.Random) -> bytes:
    at = chosen.randrange(max(1, len(line) - 1))
    return line[:at] + bytes([line[at] ^ (1 << chosen.randrange(3))]) + line[at + 1 :]


def edited(lines: Lines, at: int, chosen: random.Random) -> Change:
    of, line = lines[at]
    return Change([*lines[:at], (of, flipped(line, chosen)), *lines[at + 1 :]], at, at)


def removed(lines: Lines, at: int, chosen: random.Random) -> Change:
    until = min(len(lines), at + chosen.randrange(1, 4))
    return Change([*lines[:at], *lines[until:]], at, at)


def inserted(lines: Lines, at: int, chosen: random.Random) -> Change:
    old = chosen.choice(lines)[1]
    new = chosen.choice([old, b"\n", b"hello\n", b'{"schema": 1}\n', b"\0\xff\n", flipped(old, chosen)])
    return Change([*lines[:at], (lines[at][0], new), *lines[at:]], at, at)


def repeated(lines: Lines, at: int, _: random.Random) -> Change:
    return Change([*lines[: at + 1], lines[at], *lines[at + 1 :]], at, at + 1)


def swapped(lines: Lines, at: int, chosen: random.Random) -> Change:
    first, last = sorted((at, chosen.randrange(len(lines))))
    new = list(lines)
    new[first], new[last] = (lines[first][0], lines[last][1]), (lines[last][0], lines[first][1])
    return Change(new, first, last)


def torn(lines: Lines, at: int, chosen: random.Random) -> Change:
    of, line = lines[at]
    cut = line[: chosen.randrange(len(line))] + (b"\n" if chosen.randrange(2) else b"")
    return Change([*lines[:at], (of, cut), *lines[at + 1 :]], at, at)


def places_of(problems: Sequence[Problem], files: Sequence[bytes]) -> list[int]:
    """The lines with problems, counted through all files."""
    first = list(accumulate((data.count(b"\n") for data in files), initial=0))
    return [first[int(each.place.file)] + each.place.line - 1 for each in problems if each.place]


@given(steps=st.lists(STEPS, max_size=8))
@settings(max_examples=25)
def test_what_its_writers_and_rotation_did_to_an_audit_log_leaves_it_intact(steps: list[str]) -> None:
    problems, verification, _ = verified(written(steps))
    assert serious(problems) == []
    assert verification.follows is None
    assert verification.open_intents == {}


@pytest.mark.parametrize("change", [edited, removed, inserted, repeated, swapped, torn])
@given(steps=st.lists(STEPS, max_size=8), seed=st.integers(0, 2**32))
@example(steps=["rotate"], seed=15596384)
@settings(max_examples=25)
def test_a_change_of_a_single_line_is_found_with_its_place(
    change: Callable[[Lines, int, random.Random], Change], steps: list[str], seed: int
) -> None:
    files = written(steps)
    before = lines_of(files)
    head = verified(files)[1].last
    assert head
    chosen = random.Random(seed)  # noqa: S311 (a repeatable choice)
    for _ in range(10):
        done = change(before, chosen.randrange(len(before)), chosen)
        after = files_of(done.lines, len(files))
        if [data.splitlines() for data in after] == [data.splitlines() for data in files]:
            continue  # no line differs: at most the end of a file's last one is missing
        if files[0] and not after[0]:
            continue  # a whole copy that is not here was rotated away
        problems, _verification, missing = verified(after, head.digest)
        found = serious(problems)
        assert found or missing
        if done.last < len(before) - 4:
            assert any(done.first - 2 <= place <= done.last + 2 for place in places_of(found, after))


def written_by(*runs: str) -> list[bytes]:
    """The lines of a file to which these runs wrote one after the other."""
    with without_syncing() as folder:
        for run in runs:
            write_run(folder / "audit.jsonl", run=run)
        return (folder / "audit.jsonl").read_bytes().splitlines(keepends=True)


WHOLE: Final = written_by("a", "b")
"""opened, intent, outcome, closed; and the same again."""
ANOTHER: Final = "nor is any other line here: it is another file"


@pytest.mark.parametrize(
    ("lines", "sentence"),
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
            "0:4: missing: this line follows one that is not here: 0:3 was changed, or lines between them",
        ),
        (WHOLE[1:], "0:1: missing: lines before this one are missing: a file of the audit log begins with"),
        ([*WHOLE[:3], *WHOLE[2:]], "0:4: repeated: the same line stands at 0:3"),
        (
            [*WHOLE[:3], b"hello\n", *WHOLE[3:]],
            "0:5: inserted: this line follows 0:3: what stands between them was inserted, or moved here",
        ),
        (
            [*WHOLE[:3], WHOLE[3][:50] + b"\n", *WHOLE[4:]],
            "0:4: changed: not JSON, so probably torn; this is not what 0:5 follows, so it was changed, and",
        ),
        (
            [*WHOLE, b'{"schema": 1, "event": "audit.opened"}\n'],
            "0:9: foreign: it carries no digest: it was inserted, or written by a reaper without a chain",
        ),
        (
            [*WHOLE, WHOLE[0][:50]],
            "0:9: torn: not JSON, so probably torn; the next run of the reaper will report it",
        ),
        ([*WHOLE, b"hello\n"], "0:9: foreign: no line of an audit log"),
        (
            [*WHOLE[:4], *written_by("c")],
            "0:5: broken off: a new chain begins here, although lines stand before it (at 0 bytes)",
        ),
        ([b"\x00\xff\n"], f"0:1: foreign: no line of an audit log; {ANOTHER}"),
        ([b"[" * 100_000], f"0:1: foreign: no line of an audit log; {ANOTHER}"),
    ],
)
def test_each_problem_is_a_sentence_with_its_place(lines: list[bytes], sentence: str) -> None:
    (problem,), _, _ = verified([b"".join(lines)])
    assert str(problem).startswith(sentence)


def test_lines_that_changed_places_are_each_reported() -> None:
    problems, _, _ = verified([b"".join([*WHOLE[:1], WHOLE[2], WHOLE[1], *WHOLE[3:]])])
    assert [(problem.kind, str(problem.place)) for problem in problems] == [
        (ProblemKind.MISSING, "0:2"),
        (ProblemKind.INSERTED, "0:3"),
        (ProblemKind.INSERTED, "0:4"),
    ]


def test_only_a_head_that_was_noted_elsewhere_shows_that_the_end_is_missing() -> None:
    noted = digest(WHOLE[5]), digest(WHOLE[7])
    assert verified([b"".join(WHOLE)], *noted)[2] == set()
    problems, _, missing = verified([b"".join(WHOLE[:7])], *noted)
    assert (problems, missing) == ([], {noted[1]})


def test_the_head_of_a_copy_that_was_removed_is_known_by_the_next_file() -> None:
    oldest, *later = written(["rotate", "rotate"])
    head = digest(oldest.splitlines()[-1])
    problems, verification, missing = verified(later, head)
    assert (problems, verification.follows, missing) == ([], head, set())


def test_lines_before_the_chain_are_counted_and_the_last_of_them_is_part_of_it() -> None:
    old = b'{"schema": 1, "event": "session.intent", "intent": "x", "pid": %d}\n'
    with without_syncing() as folder:
        path = folder / "audit.jsonl"
        path.write_bytes(old % 1 + b"hello\n" + old % 2)
        act(ledger(FileSink(path)))
        data = path.read_bytes()
    problems, verification, _ = verified([data])
    assert (problems, verification.before, verification.lines) == ([], 3, 3)
    ((problem,), _, _) = verified([data.replace(b'"pid": 2', b'"pid": 3')])
    assert "0:3 was changed" in problem.sentence
    assert list(verification.open_intents.values()) == [(("0"), 3)]


def test_a_line_that_a_crash_tore_is_explained_by_the_run_that_found_it() -> None:
    ((problem,), _, _) = verified(written(["act", "crash"]))
    assert problem.kind is ProblemKind.TORN
    assert (problem.explained or "").startswith("found by the run that wrote 0:")


def on_a_stream(run: str) -> list[bytes]:
    reading, writing = os.pipe()
    log = ledger(StreamSink(writing), run=run)
    act(log)
    log.close()
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        return pipe.readlines()


def test_each_run_on_a_stream_is_a_chain_of_its_own_between_the_lines_of_other_programs() -> None:
    pairs = zip(on_a_stream("a"), on_a_stream("b"), strict=True)
    mixed = [b"starting\n", *(line for pair in pairs for line in (*pair, b'{"level": 1}\n'))]
    problems, verification, _ = verified([b"".join(mixed)])
    assert (problems, verification.lines, verification.foreign) == ([], 8, 5)
    assert serious(verified([b"".join(mixed[:4] + mixed[6:])])[0])


def test_a_torn_line_of_a_stream_is_explained() -> None:
    reading, writing = os.pipe()
    sink = StreamSink(writing, stalled_ms=0)
    log = ledger(sink, run="run")
    log.open()
    with pytest.raises(AuditLogFailed):
        sink.write([b'{"schema": 1, "run": "run", "query": "' + b"x" * 300_000 + b'"}\n'], durable=True)
    data = os.read(reading, 1_000_000)
    act(log)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        data += pipe.read()
    problems, _, _ = verified([data])
    assert [problem.kind for problem in problems] == [ProblemKind.TORN]
    assert serious(problems) == []


def test_a_line_without_an_end_is_followed_without_being_kept() -> None:
    class Endless:
        left = 50_000_000

        def readline(self, limit: int, /) -> bytes:
            taken = min(limit, self.left)
            self.left -= taken
            return b"x" * taken

    tracemalloc.start()
    verification = Verification(heads=set())
    problems = [*verification.read("0", Endless()), *verification.finish()]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [problem.sentence for problem in problems] == [f"longer than {LONGEST_LINE} bytes; {ANOTHER}"]
    assert peak < 3 * LONGEST_LINE


@given(
    data=st.lists(
        st.binary(max_size=60)
        | st.sampled_from([*WHOLE, b"\n", b'{"schema": [], "event": {}, "prev": 7, "seq": "x", "run": []}\n'])
    ).map(b"".join)
)
def test_no_bytes_stop_the_verification(data: bytes) -> None:
    problems, verification, _ = verified([data, data])
    assert len(problems) + verification.lines + verification.before + verification.foreign >= bool(data)
    assert all(str(problem).isascii() for problem in problems)
