"""Every line is read as an event or reported with its place, and none stops the reading."""

import gzip
import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reaper.audit import reader
from reaper.audit.events import INTENT, OUTCOME, Event
from reaper.audit.reader import BadLine, Location, open_intents, read_events

from .build import MemorySink, act, ledger

TIME = "2025-06-18T12:00:00.000000Z"


def line(name: str = INTENT, **fields: object) -> bytes:
    return json.dumps({"schema": 1, "event": name, "time": TIME, **fields}).encode() + b"\n"


def read(data: bytes) -> list[Event | BadLine]:
    return list(read_events(io.BytesIO(data)))


def test_what_a_ledger_wrote_is_read_back() -> None:
    sink = MemorySink()
    log = ledger(sink)
    act(log)
    read_back = read(b"".join(sink.taken))
    assert [event.fields for event in read_back if isinstance(event, Event)] == sink.events


@pytest.mark.parametrize(
    ("foreign", "why"),
    [
        (b'{"schema": 1, "event": "session.in', "not JSON, so probably torn"),
        (b"\xff\xfe", "no line of an audit log"),
        (b"[" * 100_000, "no line of an audit log"),
        (b"1" * 10_000, "no line of an audit log"),
        (line(idle_s=0).replace(b"0}", b"NaN}"), "not JSON, so probably torn"),
        (line(idle_s=0).replace(b"0}", b"1e999}"), "not JSON, so probably torn"),
        (b"17", "not an event of an audit log"),
        (b'{"event": "started", "level": "info"}', "not an event of an audit log"),
        (line().replace(b'"schema": 1', b'"schema": 2'), "an event of another version of the audit log"),
        (line("session.other"), "an event of another version of the audit log"),
        (line().replace(TIME.encode(), b"noon"), "an event without a time"),
    ],
)
def test_a_line_that_is_no_event_is_reported_with_its_place(foreign: bytes, why: str) -> None:
    before, torn, after = read(line() + foreign.strip() + b"\n" + line())
    assert isinstance(before, Event)
    assert isinstance(after, Event)
    assert torn == BadLine(Location("-", 2), why)
    assert str(torn) == f"-:2: {why}"


def test_blank_lines_are_passed_over() -> None:
    assert len(read(b"\n" + line() + b"\n\n" + line())) == 2


def test_a_line_without_an_end_is_reported_without_being_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "LONGEST_LINE", 100)
    events = read(b"x" * 100 + b"\n" + b"y" * 1_000 + b"\n" + line())
    assert [str(event) for event in events[:2]] == [
        "-:1: longer than 100 bytes",
        "-:2: longer than 100 bytes",
    ]
    assert isinstance(events[2], Event)


def test_a_line_of_just_the_longest_length_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "LONGEST_LINE", len(line()))
    assert [type(event) for event in read(line() + line())] == [Event, Event]


@given(
    data=st.binary(max_size=200) | st.lists(st.sampled_from([line(), b"\n", b"{", b"\x1f\x8b"])).map(b"".join)
)
def test_no_bytes_stop_the_reading(data: bytes) -> None:
    assert len(read(data)) <= data.count(b"\n") + 1


def test_a_compressed_file_is_read_whatever_its_name(tmp_path: Path) -> None:
    file = tmp_path / "audit.jsonl.2"
    file.write_bytes(gzip.compress(line() + line()))
    assert len(list(read_events(file))) == 2


def test_a_damaged_compressed_file_gives_what_it_has(tmp_path: Path) -> None:
    file = tmp_path / "audit.jsonl.2.gz"
    file.write_bytes(gzip.compress(line())[:-4])
    *events, torn = read_events(file)
    assert [type(event) for event in events] == [Event]
    assert str(torn).startswith(f"{file}:2: the compressed file is damaged from here on")


@pytest.mark.parametrize(
    ("written", "still_open"),
    [
        ([], []),
        ([(INTENT, "a")], ["a"]),
        ([(INTENT, "a"), (OUTCOME, "a")], []),
        ([(INTENT, "a"), (INTENT, "b"), (OUTCOME, "a")], ["b"]),
        ([(OUTCOME, "a"), (INTENT, "a")], []),
        ([(INTENT, "a"), (OUTCOME, "a"), (OUTCOME, "a")], []),
        ([(INTENT, "a"), (INTENT, "a")], ["a"]),
        ([(OUTCOME, "b"), (INTENT, "a")], ["a"]),
        ([("policy.safety_limit", "a")], []),
    ],
)
def test_an_intent_is_open_until_its_outcome_is_read(
    written: list[tuple[str, str]], still_open: list[str]
) -> None:
    events = read(
        b"".join(line(name, intent=intent) for name, intent in written) + line(INTENT, intent=7) + b"{"
    )
    assert [event.text("intent") for event in open_intents(events)] == still_open


def test_a_device_is_not_read() -> None:
    with pytest.raises(OSError, match="It is a device"):
        list(read_events(Path("/dev/zero")))
