"""History files give back every snapshot, with any names in it, and up to where a file is damaged."""

import gzip
import json
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reaper.history.decode import BadHistory
from reaper.history.read import HistoryReader, by_server
from reaper.history.write import HistoryFailed, HistoryFolder, HistoryLimits, history_files
from reaper.insight.recorded import CycleMark, PartialSnapshot
from reaper.policy.session import Snapshot
from reaper.policy.time import SECOND, Duration, Timestamp
from tests.unit.policy.build import NOW, later, session, snapshot

from .histories import ROOMY, read_back, read_file, streams, whole, writer, written


@contextmanager
def folder() -> Iterator[Path]:
    with TemporaryDirectory() as made:
        yield Path(made)


def at(seconds: float) -> Timestamp:
    return later(NOW, by=round(seconds * SECOND))


@given(stream=streams)
def test_every_snapshot_is_read_back_as_it_was(stream: list[Snapshot]) -> None:
    with folder() as place:
        assert read_back(written(place, stream)) == [whole(each) for each in stream]


@settings(max_examples=20)
@given(stream=streams, data=st.data())
def test_a_file_cut_at_any_byte_is_read_to_its_last_whole_snapshot(
    stream: list[Snapshot], data: st.DataObject
) -> None:
    with folder() as place:
        (path, *_) = written(place, stream)
        everything, problems = read_file(path)
        assert not problems
        content = path.read_bytes()
        path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
        found, _ = read_file(path)
        assert found == everything[: len(found)]


def test_a_snapshot_can_be_read_as_soon_as_it_was_written(tmp_path: Path) -> None:
    history = writer(tmp_path)
    for number in range(3):
        history.write(snapshot(session(), at=at(number)))
        (path,) = history_files(tmp_path)
        assert len(read_file(path)[0]) == number + 1
    history.close()


def test_a_torn_line_is_reported(tmp_path: Path) -> None:
    history = writer(tmp_path)
    history.write(snapshot(session(), at=NOW))
    (path,) = history_files(tmp_path)
    size = path.stat().st_size
    history.write(snapshot(session(), session(2, application="another"), at=at(1)))
    history.close()
    os.truncate(path, (size + path.stat().st_size) // 2)
    found, problems = read_file(path)
    assert len(found) == 1
    assert problems == [f"{path}: ends within a line; read up to the last whole one"]


def test_a_damaged_file_is_read_up_to_the_damage(tmp_path: Path) -> None:
    (path,) = written(tmp_path, [snapshot(session(n), at=at(n)) for n in range(1, 300)])
    content = bytearray(path.read_bytes())
    end_of_line = content.rindex(b"\0\0\xff\xff", 0, -200) + 4  # as zlib's flush leaves it
    content[end_of_line : end_of_line + 50] = b"\xff" * 50
    path.write_bytes(content)
    found, problems = read_file(path)
    assert 0 < len(found) < 299
    assert problems[0].startswith(f"{path}: damaged before byte ")


def test_files_are_readable_by_their_owner_alone(tmp_path: Path) -> None:
    (path,) = written(tmp_path / "new", [snapshot(session())])
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)


def test_an_unchanged_snapshot_takes_a_short_line(tmp_path: Path) -> None:
    many = tuple(session(pid) for pid in range(1, 400))
    (path,) = written(tmp_path, [snapshot(*many, at=at(10 * n)) for n in range(300)])
    first, *others = gzip.decompress(path.read_bytes()).splitlines()[1:]
    assert len(first) > 10_000
    assert max(map(len, others)) < 150
    assert path.stat().st_size < len(first) + 30 * len(others)


def test_no_file_needs_another_and_all_of_them_are_one_stream(tmp_path: Path) -> None:
    stays, changes, goes = session(1), session(2), session(3)
    stream = [
        snapshot(stays, changes, goes),
        snapshot(stays, session(2, idle="1m"), session(4), at=at(1)),
    ]
    history = writer(tmp_path)
    for each in stream:
        history.write(each)
        history.close()
    files = history_files(tmp_path)
    assert [read_file(path)[0] for path in files] == [[whole(each)] for each in stream]
    assert read_back(files) == [whole(each) for each in stream]
    _, second = HistoryReader(files, print).snapshots()
    assert [(was and was.id.pid, now.id.pid) for was, now in second.changed] == [(2, 2), (None, 4)]
    assert [one.id.pid for one in second.left] == [3]


def test_a_jump_of_the_clock_begins_a_file_that_says_from_when_ages_count(tmp_path: Path) -> None:
    stream = [snapshot(session()), snapshot(session(), at=at(1)).counted_from(at(1))]
    files = written(tmp_path, stream)
    assert len(files) == 2
    assert read_back(files) == [whole(each) for each in stream]
    assert [each.counted_from for each in HistoryReader(files, print).snapshots()] == [None, at(1)]


def test_snapshots_after_the_clock_was_set_back_are_left_out_and_reported(tmp_path: Path) -> None:
    stays, comes, goes = session(1), session(2), session(3)
    history = writer(tmp_path)
    for seconds, seen in ((0, (stays, goes)), (3, (stays, goes)), (1, (stays, comes)), (2, (comes,))):
        history.write(snapshot(*seen, at=at(seconds)))
    history.write(snapshot(comes, at=at(4)))
    history.close()
    history.write(snapshot(stays, at=at(-9)))
    history.write(snapshot(stays, at=at(2)))
    history.close()
    problems: list[str] = []
    files = history_files(tmp_path)
    found = [
        (
            each.at,
            {now.id.pid for _, now in each.changed},
            {was.id.pid for was in each.left},
            {who.pid for who in each.sessions},
        )
        for each in HistoryReader(files, problems.append).snapshots()
    ]
    assert found == [
        (at(-9), {1}, set(), {1}),
        (at(2), set(), set(), {1}),
        (at(3), {3}, set(), {1, 3}),
        (at(4), {2}, {1, 3}, {2}),
    ]
    (problem,) = problems
    assert problem.startswith(
        f"{files[1]}: 3 snapshots are left out, because by the server's clock they are not"
    )


def test_cycles_and_partial_snapshots_come_with_the_snapshot_after_them(tmp_path: Path) -> None:
    history = writer(tmp_path)
    matched = session(7, application="matched")
    history.write(snapshot(session()))
    history.write_partial(at(0.5), [matched])
    cycles = [CycleMark(at(0.5), 11), CycleMark(at(0.6), 12)]
    history.write(snapshot(session(), at=at(1)), cycles)
    history.close()
    first, second = HistoryReader(history_files(tmp_path), print).snapshots()
    assert (first.partial, first.cycles) == ([], [])
    assert second.partial == [PartialSnapshot(at(0.5), [matched])]
    assert (second.cycles, second.changed) == (cycles, [])


def test_the_oldest_files_are_deleted_first_and_no_others(tmp_path: Path) -> None:
    names = [f"history-orders-2025061{day}T120000Z.jsonl.gz" for day in range(6)]
    others = {"history-of-rome.txt", "audit.jsonl.gz"}
    for name in (*names, *others):
        (tmp_path / name).write_bytes(b"x" * 100)
    now = datetime(2025, 6, 16, tzinfo=UTC)
    for max_bytes, days, left in ((300, 365, names[3:]), (10_000, 1, names[5:])):
        limits = HistoryLimits(max_bytes=max_bytes, keep_for=Duration(days * 86_400 * SECOND))
        HistoryFolder(tmp_path, limits).delete_oldest(now)
        assert {path.name for path in tmp_path.iterdir()} == {*left, *others}


def test_the_current_file_is_not_deleted_when_the_clock_was_set_back(tmp_path: Path) -> None:
    history = writer(tmp_path, limits=HistoryLimits(max_bytes=1, keep_for=Duration(SECOND)))
    for days in (0, -30):
        history.write(snapshot(session(), at=at(days * 86_400)))
    history.close()
    assert len(read_back(history_files(tmp_path))) == 2


def test_a_folder_stays_within_its_limit_but_for_the_newest_file(tmp_path: Path) -> None:
    limits = HistoryLimits(max_bytes=1024 * 1024, keep_for=ROOMY.keep_for)
    history = writer(tmp_path, limits=limits)
    for number in range(400):
        crowd = (session(pid, application=os.urandom(8).hex()) for pid in range(300))
        history.write(snapshot(*crowd, at=at(number)))
        if number % 20 == 0:
            total = sum(path.stat().st_size for path in tmp_path.iterdir())
            assert total <= limits.max_bytes + 2 * limits.max_file
    history.close()
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) > limits.max_bytes // 2


def test_a_full_disk_is_reported_and_the_next_snapshot_begins_a_file(tmp_path: Path) -> None:
    history = writer(tmp_path)
    history.write(snapshot(session()))
    (first,) = history_files(tmp_path)
    _, limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (first.stat().st_size + 10, limit))
    try:
        with pytest.raises(HistoryFailed, match=f"the history {first} cannot be written: File too large"):
            history.write(snapshot(session(), session(2), at=at(1)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    history.write(snapshot(session(), session(3), at=at(2)))
    history.close()
    files = history_files(tmp_path)
    assert len(files) == 2
    assert [len(each.sessions) for each in read_back(files)] == [1, 2]


def test_servers_with_any_names_share_a_folder(tmp_path: Path) -> None:
    names = ["orders", "../../etc/passwd", "\x1b[2J", "..", "a b", "a_b"]
    for name in names:
        path, fd = HistoryFolder(tmp_path, ROOMY).create(name, NOW)
        os.close(fd)
        assert path.parent == tmp_path
    assert len(history_files(tmp_path)) == len(names)


def test_files_are_grouped_by_the_server_in_their_head(tmp_path: Path) -> None:
    (path,) = written(tmp_path, [snapshot(session())])
    (tmp_path / "history-empty-20250618T120000Z.jsonl.gz").touch()
    problems: list[str] = []
    assert by_server(history_files(tmp_path), problems.append) == {"orders": [path]}
    assert [each.rpartition(": ")[2] for each in problems] == ["left out, because it holds no whole line"]


def lines(*documents: object) -> bytes:
    return b"".join(json.dumps(each).encode() + b"\n" for each in documents)


HEAD = {"history": 3, "reaper": "1", "server": "orders", "at": 0, "every": 1, "anonymous": False}
FIRST = {
    "at": 5,
    "slots": [100, 3, 1],
    "watcher": [1, "reaper", False],
    "unreadable": 0,
    "locks": [],
    "waiters": None,
}
STATE = ["idle", [1, 1, None], None, None, False, False]
ROW = [7, 0, "client backend", False, None, None, [None, "app", "web-1", None], STATE]
UNREADABLE = "not a line of a history that this version reads: "


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (lines([]), "Input should be a valid dictionary"),
        (b"{\n", "not JSON: Expecting property name"),
        (b"\xff\n", "not a line of a history: UnicodeDecodeError"),
        (b"[" * 100_000 + b"\n", "not a line of a history: RecursionError"),
        (lines({**HEAD, "history": 1}), f"{UNREADABLE}history: Input should be 3"),
        (b'{"history": NaN}\n', f"{UNREADABLE}history: Input should be 3"),
        (lines({**HEAD, "server": 7}), f"{UNREADABLE}server: Input should be an instance of str"),
        (lines(HEAD, 7), "not a line of a history: TypeError"),
        (lines(HEAD, {"at": 5}), f"{UNREADABLE}slots: Field required"),
        (lines(HEAD, {**FIRST, "at": 1.5}), f"{UNREADABLE}at: Input should be a valid integer"),
        (lines(HEAD, {**FIRST, "at": 2**70}), f"{UNREADABLE}at: Input should be less than"),
        (lines(HEAD, {**FIRST, "came": [[7, None, *ROW[2:]]]}), f"{UNREADABLE}came: 0: Input should be"),
        (lines(HEAD, {**FIRST, "came": [[]] * 1_000_000}), f"{UNREADABLE}came: 0: Field required"),
        (lines(HEAD, {**FIRST, "came": [ROW, ROW]}), "pid 7 with this backend_start comes twice"),
        (lines(HEAD, {**FIRST, "left": [3]}), "KeyError: 3"),
        (lines(HEAD, {**FIRST, "moved": [[0, STATE]]}), "KeyError: 0"),
        (lines(HEAD, {**FIRST, "moved": [[0, STATE[1:]]]}), f"{UNREADABLE}moved: 0: "),
        (lines(HEAD, {**FIRST, "cycles": [[2, 5], [1, 5]]}), "the cycles are not in their order"),
    ],
)
def test_a_file_that_is_no_history_is_refused_with_its_line(
    tmp_path: Path, content: bytes, problem: str
) -> None:
    path = tmp_path / "h.jsonl.gz"
    path.write_bytes(gzip.compress(content))
    with pytest.raises(BadHistory) as refused:
        read_file(path)
    number = content.count(b"\n")
    assert str(refused.value).startswith(f"{path}:{number}: ")
    assert problem in str(refused.value)


@pytest.mark.parametrize(
    ("limit", "content", "problem"),
    [
        ("read._MAX_LINE", b" " * 10_000_000, "a line has no end"),
        ("read._MAX_BYTES", lines(HEAD) + lines(FIRST) * 100_000, "it unpacks to more than 4000000 bytes"),
    ],
)
def test_a_file_beyond_a_limit_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, content: bytes, problem: str
) -> None:
    path = tmp_path / "large.jsonl.gz"
    path.write_bytes(gzip.compress(content, 1))
    monkeypatch.setattr(f"reaper.history.{limit}", 4_000_000)
    with pytest.raises(BadHistory, match=problem):
        read_file(path)


def test_more_sessions_than_a_server_has_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (path,) = written(tmp_path, [replace(snapshot(), sessions=tuple(session(pid) for pid in range(12)))])
    monkeypatch.setattr("reaper.history.decode._MAX_SESSIONS", 10)
    with pytest.raises(BadHistory, match="more sessions than any server has"):
        read_file(path)
