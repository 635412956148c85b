"""History files give back every look, whatever the sessions are called, and up to wherever they were torn."""

import gzip
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reaper.history import decode as history_decoder
from reaper.history import read as history
from reaper.history.folder import Bounds, HistoryFolder, history_files
from reaper.history.format import MANY_OLD_NAMES, BadHistory
from reaper.history.read import HistoryFile, HistoryStream, by_server
from reaper.history.write import HistoryFailed
from reaper.policy.seen import Mark
from reaper.policy.session import Facts, Snapshot
from reaper.policy.time import SECOND, Instant, Span
from tests.unit.policy.build import NOW, later, session, snapshot

from .histories import ROOMY, read_back, read_file, streams, whole, writer, written


@contextmanager
def folder() -> Iterator[Path]:
    with TemporaryDirectory() as made:
        yield Path(made)


@given(stream=streams)
def test_every_snapshot_is_read_back_as_it_was(stream: list[Snapshot]) -> None:
    with folder() as place:
        assert read_back(written(place, stream)) == [whole(each) for each in stream]


@settings(max_examples=20)
@given(stream=streams, data=st.data())
def test_a_file_cut_at_any_byte_is_read_to_its_last_whole_look_and_says_so(
    stream: list[Snapshot], data: st.DataObject
) -> None:
    with folder() as place:
        (path, *_) = written(place, stream)
        everything, told = read_file(path)
        assert not told
        content = path.read_bytes()
        at = data.draw(st.integers(0, len(content) - 1))
        path.write_bytes(content[:at])
        found, told = read_file(path)
        assert found == everything[: len(found)]
        try:
            lines = gzip.decompress(content[:at])
        except (EOFError, OSError):
            lines = b""
        assert not lines


def test_each_look_is_there_as_soon_as_it_was_written(tmp_path: Path) -> None:
    keeper = writer(tmp_path)
    for number in range(3):
        keeper.reading(snapshot(session(), at=later(NOW, by=number * SECOND)))
        assert keeper.path
        assert len(read_file(keeper.path)[0]) == number + 1


def test_a_line_that_was_torn_is_told(tmp_path: Path) -> None:
    keeper = writer(tmp_path)
    keeper.reading(snapshot(session(), at=NOW))
    assert keeper.path
    size = keeper.path.stat().st_size
    keeper.reading(snapshot(session(), session(2, application="somebody else"), at=later(NOW, by=SECOND)))
    os.truncate(keeper.path, (size + keeper.path.stat().st_size) // 2)
    found, told = read_file(keeper.path)
    assert len(found) == 1
    assert told == [f"{keeper.path}: ends amid a line, and is read up to the last whole one"]


def test_what_was_damaged_is_read_up_to_the_damage(tmp_path: Path) -> None:
    (path,) = written(tmp_path, [snapshot(session(), at=later(NOW, by=n * SECOND)) for n in range(50)])
    content = bytearray(path.read_bytes())
    content[-200:-150] = b"\xff" * 50
    path.write_bytes(content)
    found, told = read_file(path)
    assert 0 < len(found) < 50
    assert told[0].startswith(f"{path}: damaged before byte ")


def test_files_are_for_their_owner_alone(tmp_path: Path) -> None:
    (path,) = written(tmp_path / "new", [snapshot(session())])
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_one_that_changed_little_takes_little(tmp_path: Path) -> None:
    many = tuple(session(pid) for pid in range(1, 400))
    (path,) = written(tmp_path, [snapshot(*many, at=later(NOW, by=n * 10 * SECOND)) for n in range(300)])
    first, *others = [line for line in gzip.decompress(path.read_bytes()).splitlines() if b'"at"' in line][1:]
    assert len(first) > 10_000
    assert max(map(len, others)) < 30


def test_every_file_stands_for_itself_and_all_of_them_for_the_whole(tmp_path: Path) -> None:
    stream = [
        snapshot(*(session(pid, application=f"{n}-{pid}") for pid in range(50)), at=later(NOW, by=n * SECOND))
        for n in range(60)
    ]
    keeper = writer(tmp_path, bounds=Bounds(most_bytes=100 * 1024 * 1024, keep_for=ROOMY.keep_for))
    for number, each in enumerate(stream):
        keeper.reading(each)
        if number % 20 == 19:
            keeper.close()
    files = history_files(tmp_path)
    assert len(files) == 3
    assert [len(read_file(path)[0]) for path in files] == [20, 20, 20]
    assert read_back(files) == [whole(each) for each in stream]
    steps = list(HistoryStream(files).readings())
    assert [len(reading.changed) for reading in steps] == [50] * 60


def test_what_is_new_in_a_file_is_told_against_the_file_before(tmp_path: Path) -> None:
    keeper = writer(tmp_path)
    stays, changes, goes = session(1), session(2), session(3)
    keeper.reading(snapshot(stays, changes, goes))
    keeper.close()
    keeper.reading(snapshot(stays, session(2, idle="1m"), session(4), at=later(NOW, by=SECOND)))
    keeper.close()
    _, second = HistoryStream(history_files(tmp_path)).readings()
    assert [(was and was.id.pid, now.id.pid) for was, now in second.changed] == [(2, 2), (None, 4)]
    assert [seen.id.pid for seen in second.left] == [3]


def test_two_that_wrote_at_once_are_one_stream_that_never_goes_back(tmp_path: Path) -> None:
    one, other = writer(tmp_path), writer(tmp_path)
    for number in range(4):
        one.reading(snapshot(session(), at=later(NOW, by=2 * number * SECOND)))
        other.reading(snapshot(session(), at=later(NOW, by=(2 * number + 1) * SECOND)))
    one.close()
    other.close()
    moments = [reading.at for reading in HistoryStream(history_files(tmp_path)).readings()]
    assert moments == [*(later(NOW, by=n * SECOND) for n in (0, 2, 4, 6)), later(NOW, by=7 * SECOND)]


def test_what_a_clock_that_was_set_back_shows_twice_is_left_out_and_told(tmp_path: Path) -> None:
    """In one file and from file to file; whoever came, changed or left meanwhile is not forgotten."""
    stays, comes, goes = session(1), session(2), session(3)
    keeper = writer(tmp_path)
    for seconds, seen in ((0, (stays, goes)), (3, (stays, goes)), (1, (stays, comes)), (2, (comes,))):
        keeper.reading(snapshot(*seen, at=later(NOW, by=seconds * SECOND)))
    keeper.reading(snapshot(comes, at=later(NOW, by=4 * SECOND)))
    keeper.close()
    keeper.reading(snapshot(stays, at=later(NOW, by=-9 * SECOND)))
    keeper.reading(snapshot(stays, at=later(NOW, by=2 * SECOND)))
    keeper.close()
    told: list[str] = []
    files = history_files(tmp_path)

    found = [
        (
            reading.at,
            {now.id.pid for _, now in reading.changed},
            {seen.id.pid for seen in reading.left},
            {who.pid for who in reading.sessions},
        )
        for reading in HistoryStream(files, told=told.append).readings()
    ]

    assert found == [
        (later(NOW, by=-9 * SECOND), {1}, set(), {1}),
        (later(NOW, by=2 * SECOND), set(), set(), {1}),
        (later(NOW, by=3 * SECOND), {3}, set(), {1, 3}),
        (later(NOW, by=4 * SECOND), {2}, {1, 3}, {2}),
    ]
    (said,) = told
    assert said.startswith(f"{files[1]}: 3 looks are left out, for by the server's clock they are not later")


def test_looks_and_sightings_between_two_readings_come_with_the_later_one(tmp_path: Path) -> None:
    keeper = writer(tmp_path)
    seen = session(7, application="briefly")
    keeper.reading(snapshot(session()))
    waiting = Facts(advisory_lock_holders=frozenset(), waiters={7: 2, 100: 1})
    keeper.sighting(later(NOW, by=5), [seen], waiting)
    looks = [Mark(later(NOW, by=5), 11), Mark(later(NOW, by=6), 12)]
    keeper.reading(snapshot(session(), at=later(NOW, by=SECOND)), looks)
    keeper.close()
    first, second = HistoryStream(history_files(tmp_path)).readings()
    assert (first.sightings, first.looks) == ([], [])
    ((at, found, waiters),) = second.sightings
    assert (at, [each.session() for each in found], waiters) == (later(NOW, by=5), [seen], {7: 2})
    assert second.looks == looks
    assert second.changed == []


def test_the_oldest_files_are_deleted_first_and_what_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    names = [f"history-orders-2025061{day}T120000Z.jsonl.gz" for day in range(6)]
    for name in (*names, "history-of-rome.txt", "audit.jsonl.gz"):
        (tmp_path / name).write_bytes(b"x" * 100)
    bounds = Bounds(most_bytes=300, keep_for=Span(365 * 86_400 * SECOND))
    now = datetime(2025, 6, 16, tzinfo=UTC)
    gone = HistoryFolder(tmp_path, bounds).tidy(now)
    assert [path.name for path in gone] == names[:3]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [*names[3:], "history-of-rome.txt", "audit.jsonl.gz"]
    )
    a_day = Bounds(most_bytes=10_000, keep_for=Span(86_400 * SECOND))
    assert HistoryFolder(tmp_path, a_day).tidy(now) == [tmp_path / names[3], tmp_path / names[4]]


def test_the_file_that_is_being_written_is_not_deleted_when_the_clock_was_set_back(tmp_path: Path) -> None:
    keeper = writer(tmp_path, bounds=Bounds(most_bytes=1, keep_for=Span(SECOND)))
    for days in (0, -30):
        keeper.reading(snapshot(session(), at=later(NOW, by=days * 86_400 * SECOND)))
    keeper.close()
    assert keeper.path is None
    assert len(read_back(history_files(tmp_path))) == 2


def test_a_folder_never_grows_beyond_its_bound_but_for_the_newest_file(tmp_path: Path) -> None:
    bounds = Bounds(most_bytes=1024 * 1024, keep_for=ROOMY.keep_for)
    keeper = writer(tmp_path, bounds=bounds)
    for number in range(400):
        crowd = (session(pid, application=os.urandom(8).hex()) for pid in range(300))
        keeper.reading(snapshot(*crowd, at=later(NOW, by=number * SECOND)))
        if number % 20 == 0:
            total = sum(path.stat().st_size for path in tmp_path.iterdir())
            assert total <= bounds.most_bytes + 2 * bounds.of_a_file
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) > bounds.most_bytes // 2


def test_names_of_sessions_that_are_gone_are_left_behind_with_their_file(tmp_path: Path) -> None:
    stream = [
        snapshot(
            *(session(pid, application=f"{n}-{pid}") for pid in range(500)), at=later(NOW, by=n * SECOND)
        )
        for n in range(40)
    ]
    files = written(tmp_path, stream)
    names = [
        {each.identity.application for reading in read_file(path)[0] for each in reading.sessions}
        for path in files
    ]
    assert sum(map(len, names)) == 500 * 40
    assert max(map(len, names)) < MANY_OLD_NAMES + 5 * 500
    assert read_back(files) == [whole(each) for each in stream]


def test_names_of_sessions_that_are_there_are_no_reason_for_another_file(tmp_path: Path) -> None:
    many = [session(pid, application=f"a-{pid}", role=f"r-{pid}", client=None) for pid in range(6_000)]
    assert len(written(tmp_path, [snapshot(*many, at=later(NOW, by=n * SECOND)) for n in range(3)])) == 1


def test_a_full_disk_is_a_sentence_and_the_next_look_begins_a_file_that_stands_for_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper = writer(tmp_path)
    keeper.reading(snapshot(session()))
    real = os.write
    with monkeypatch.context() as full:
        full.setattr(os, "write", lambda fd, data: real(fd, data[: len(data) // 2]))
        with pytest.raises(
            HistoryFailed, match=r"cannot be written: \d+ of \d+ bytes were taken: the disk is full"
        ):
            keeper.reading(snapshot(session(), session(2), at=later(NOW, by=SECOND)))
    keeper.reading(snapshot(session(), session(3), at=later(NOW, by=2 * SECOND)))
    keeper.close()
    files = history_files(tmp_path)
    assert len(files) == 2
    assert [len(each.sessions) for each in read_back(files)] == [1, 2]


def test_servers_share_a_folder_whatever_they_are_called(tmp_path: Path) -> None:
    bounds = HistoryFolder(tmp_path, ROOMY)
    names = ["orders", "../../etc/passwd", "\x1b[2J", "..", "a b", "a_b"]
    for name in names:
        path, fd = bounds.create(name, NOW)
        os.close(fd)
        assert path.parent == tmp_path
    assert len(history_files(tmp_path)) == len(names)


def lines(*documents: object) -> bytes:
    return b"".join(json.dumps(each).encode() + b"\n" for each in documents)


HEAD = {"history": 1, "reaper": "1", "server": "orders", "at": 0, "every": 1, "anonymous": False}
LOOK = {"at": 5, "slots": [100, 3], "used": 1, "unreadable": 0, "watcher": [1, "reaper", False], "locks": []}
ROW = [7, 5, 0, 1, 0, 0, 192, 2, 1, 1, 0, 0, 0, 8]
NAMES = {"names": ["client backend", "idle"], "who": [[0, 0, 0, 0]]}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (lines([]), "it is no object"),
        (b"{\n", "not JSON: Expecting property name"),
        (b"\xff\n", "no line of a history: UnicodeDecodeError"),
        (b"[" * 100_000 + b"\n", "no line of a history: RecursionError"),
        (lines({"history": 2}), "it is no history that this version reads"),
        (lines(HEAD, {"at": 1.5}), "1.5 is no whole number"),
        (b'{"history": NaN}\n', "NaN is no whole number"),
        (lines(HEAD, {"at": 2**70}), f"{2**70} is no number that could be true"),
        (lines(HEAD, {"at": 5}), "KeyError: 'slots'"),
        (lines({**HEAD, "server": 7}), "its server has no name"),
        (lines(HEAD, {**LOOK, "names": ["x" * 2_000]}), "a name is no text, or a very long one"),
        (lines(HEAD, {**LOOK, "left": [3]}), "KeyError: 3"),
        (lines(HEAD, {**LOOK, "moved": [[0] * 8]}), "KeyError: 0"),
        (lines(HEAD, {**LOOK, "came": [ROW]}), "list index out of range"),
        (lines(HEAD, {**LOOK, **NAMES, "came": [ROW, ROW]}), "pid 7 with this backend_start comes twice"),
        (lines(HEAD, {**LOOK, **NAMES, "came": [[*ROW[:6], -1, *ROW[7:]]]}), None),
        (
            lines(HEAD, {**LOOK, **NAMES, "came": [ROW]}, {"at": 6, "moved": [[0, 2, 2**70, 0, 0, 0, 0, 8]]}),
            "an age is beyond all time",
        ),
        (
            lines(HEAD, {**LOOK, **NAMES, "came": [ROW]}, {"at": 6, "moved": [[0, "2", 0, 0, 0, 0, 0, 8]]}),
            "TypeError",
        ),
        (lines(HEAD, {**LOOK, "looks": [1, 5, 2, 5]}), "its looks are not in their order"),
    ],
)
def test_what_is_no_history_is_refused_with_its_place(
    tmp_path: Path, content: bytes, told: str | None
) -> None:
    path = tmp_path / "h.jsonl.gz"
    path.write_bytes(gzip.compress(content))
    if told is None:
        assert len(read_file(path)[0]) == 1
        return
    with pytest.raises(BadHistory) as refused:
        read_file(path)
    number = content.count(b"\n")
    assert str(refused.value).startswith(f"{path}:{number}: ")
    assert told in str(refused.value)


def test_a_bomb_is_refused_before_it_has_gone_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bomb.jsonl.gz"
    path.write_bytes(gzip.compress(b" " * 10_000_000))
    monkeypatch.setattr(history, "LONGEST_LINE", 4_000_000)
    with pytest.raises(BadHistory, match="a line has no end"):
        read_file(path)
    path.write_bytes(gzip.compress(lines(HEAD) + lines(LOOK) * 100_000))
    monkeypatch.setattr(history, "MOST_BYTES", 4_000_000)
    with pytest.raises(BadHistory, match="it unpacks to more than 4000000 bytes"):
        list(HistoryFile(path).readings())


def test_more_sessions_and_names_than_there_can_be_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "h.jsonl.gz"
    path.write_bytes(gzip.compress(lines(HEAD, {**LOOK, "names": [str(n) for n in range(20)]})))
    monkeypatch.setattr(history_decoder, "MOST_NAMES", 10)
    with pytest.raises(BadHistory, match="it knows more names than any server has"):
        read_file(path)
    rows = [[pid, *ROW[1:]] for pid in range(12)]
    path.write_bytes(gzip.compress(lines(HEAD, {**LOOK, **NAMES, "came": rows})))
    monkeypatch.setattr(history_decoder, "MOST_BACKENDS", 10)
    with pytest.raises(BadHistory, match="it has more sessions than any server has"):
        read_file(path)


def test_files_are_told_apart_by_their_server(tmp_path: Path) -> None:
    (path,) = written(tmp_path, [snapshot(session())])
    (tmp_path / "history-empty-20250618T120000Z.jsonl.gz").touch()
    told: list[str] = []
    assert by_server(history_files(tmp_path), told.append) == {"orders": [path]}
    assert [each.rpartition(": ")[2] for each in told] == ["holds no whole line, and is left out"]


def test_a_moment_beyond_the_calendar_has_a_file_too(tmp_path: Path) -> None:
    (path,) = written(tmp_path, [snapshot(session(), at=Instant(-(2**63)))])
    assert len(read_file(path)[0]) == 1
