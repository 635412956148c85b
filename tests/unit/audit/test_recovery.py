"""A new life settles what an earlier one left open, once."""

from pathlib import Path

import pytest

from reaper.audit import reader, recovery
from reaper.audit.events import EVENTS, INTENT, OUTCOME, STAMPED
from reaper.audit.file import FileSink
from reaper.audit.reader import open_intents, read_events
from reaper.audit.recovery import ENDED, close_open_intents
from reaper.audit.sinks import AuditLogFailed, Sink

from .build import AUTHOR, SNAPSHOT, TERMINATED, MemorySink, crash, events, ledger, reap


def left_open(path: Path, *pids: int, run: str = "earlier") -> None:
    """An earlier life: the first session was settled, then it ended."""
    book = ledger(FileSink(path), run=run)
    first, *_ = book.intend(AUTHOR, "c1", SNAPSHOT, [reap(pid) for pid in pids])
    book.log_outcomes([(first, TERMINATED)])
    crash(book)


def later_run(path: Path, *others: Sink, run: str = "later") -> int:
    """The number of open intents that the next run closes."""
    book = ledger(FileSink(path), *others, run=run)
    try:
        return close_open_intents(path, book)
    finally:
        crash(book)


def test_open_intents_of_an_earlier_life_are_settled_as_unknown(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    left_open(path, 1, 2, 3)
    assert later_run(path, run="later") == 2
    unknown = [event for event in events(path) if event.get("outcome") == "unknown"]
    assert [event["pid"] for event in unknown] == [2, 3]
    assert {(event["detail"], event["run"], event["outcome_at"]) for event in unknown} == {
        (ENDED, "later", None)
    }


def test_a_settled_intent_repeats_all_that_was_intended(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    left_open(path, 1, 2)
    later_run(path, run="later")
    intent = [event for event in events(path) if event["event"] == INTENT][-1]
    outcome = events(path)[-1]
    schema = {*EVENTS[OUTCOME]} - {"query"}
    assert set(outcome) == schema
    assert {key: outcome[key] for key in intent if key not in STAMPED} == {
        key: intent[key] for key in intent if key not in STAMPED
    }


def test_settling_again_finds_nothing(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    left_open(path, 1, 2)
    assert later_run(path, run="later") == 1
    assert later_run(path, run="latest") == 0


def test_what_was_rotated_meanwhile_is_settled_too(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    left_open(path, 1, 2)
    path.rename(tmp_path / "audit.jsonl.1")
    assert later_run(path, run="later") == 1
    assert later_run(path, run="latest") == 0


def test_it_is_looked_for_no_further_back_than_where_a_life_had_begun_and_gone_to_work(
    tmp_path: Path,
) -> None:
    path = tmp_path / "audit.jsonl"
    left_open(path, 1, 2)
    path.rename(tmp_path / "audit.jsonl.2")
    left_open(path, 3, 4, run="settled what was before")
    path.rename(tmp_path / "audit.jsonl.1")
    left_open(path, 5, 6, run="the last")
    for copy in (1, 2):
        assert open_intents(read_events(tmp_path / f"audit.jsonl.{copy}"))
    assert later_run(path, run="later") == 1


def test_a_life_that_ended_before_it_could_settle_anything_hides_nothing(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    left_open(path, 1, 2)
    path.rename(tmp_path / "audit.jsonl.2")
    for number in (1, 0):
        book = ledger(FileSink(path), run=f"ended at once {number}")
        book.open()
        crash(book)
        path.rename(tmp_path / f"audit.jsonl.{number}")
    assert later_run(path, run="later") == 1


def aged(path: Path, copies: int) -> None:
    """An open intent is in the oldest of this number of copies."""
    other = ledger(FileSink(path), run="other")
    left_open(path, 1, 2)
    path.rename(path.with_name(f"{path.name}.{20 + copies}"))
    for number in range(1, copies):
        other.open()
        path.rename(path.with_name(f"{path.name}.{20 + number}"))
    crash(other)


@pytest.mark.parametrize(("most", "found"), [(1_000_000, 1), (100, 0)])
def test_older_copies_are_read_up_to_a_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int, found: int
) -> None:
    monkeypatch.setattr(recovery, "_MOST_BYTES", most)
    aged(tmp_path / "audit.jsonl", 2)
    path = tmp_path / "audit.jsonl"
    assert later_run(path, run="later") == found


def test_the_newest_copy_is_read_however_large_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "_MOST_BYTES", 1)
    aged(tmp_path / "audit.jsonl", 1)
    path = tmp_path / "audit.jsonl"
    assert later_run(path, run="later") == 1


@pytest.mark.parametrize("moment", ["before the copies are listed", "afterwards"])
def test_what_is_rotated_while_the_next_life_looks_for_it_is_settled_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    path = tmp_path / "audit.jsonl"
    book = ledger(FileSink(path), run="earlier")
    book.intend(AUTHOR, "c1", SNAPSHOT, [reap(1)])
    path.rename(tmp_path / "audit.jsonl-20250618")
    book.intend(AUTHOR, "c2", SNAPSHOT, [reap(2), reap(3)])
    crash(book)

    def listed(record: Path) -> list[Path]:
        before = reader.rotated_copies(record)
        record.rename(tmp_path / "audit.jsonl-20250619")
        return before if moment == "afterwards" else reader.rotated_copies(record)

    monkeypatch.setattr(recovery, "rotated_copies", listed)
    assert later_run(path, run="later") == 3


def test_our_own_intents_are_not_an_earlier_life(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    book = ledger(FileSink(path))
    book.intend(AUTHOR, "c1", SNAPSHOT, [reap()])
    assert close_open_intents(path, book) == 0


def test_every_sink_is_told(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    left_open(path, 1, 2)
    sink = MemorySink()
    later_run(path, sink, run="later")
    assert sink.told[-1] == "unknown"
    assert sink.durable == len(sink.taken)


def test_without_a_file_there_is_nothing_to_settle(tmp_path: Path) -> None:
    assert close_open_intents(tmp_path / "audit.jsonl", ledger(MemorySink())) == 0


def test_nothing_that_stands_in_the_file_stops_the_start(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    nested = "[" * 500 + "]" * 500
    path.write_text(
        '{"schema": 1, "event": "session.intent", "time": "0001-01-01T00:00:00+14:00", "intent": "x"}\n'
        '{"schema": 1, "event": "session.intent", "time": "2025-01-01", "intent": "a", "run": ["b"], '
        f'"pid": {nested}, "seq": "first", "query": null}}\n' + '{"torn'
    )
    sink = MemorySink()
    assert later_run(path, sink) == 1
    assert later_run(path, sink) == 0
    (outcome,) = [event for event in sink.events if event["event"] == OUTCOME]
    assert (outcome["intent"], outcome["pid"]) == ("a", None), "only plain values are repeated"


def test_a_folder_in_place_of_the_file_is_told_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(AuditLogFailed, match="open intents cannot be looked for: Is a directory"):
        close_open_intents(tmp_path, ledger(MemorySink()))
