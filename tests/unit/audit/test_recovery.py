"""A new run closes the intents that an earlier run left open, once."""

from pathlib import Path

import pytest

from reaper.audit import reader, recovery
from reaper.audit.events import EVENTS, INTENT, OUTCOME, STAMPED
from reaper.audit.file import FileSink
from reaper.audit.reader import open_intents, read_events
from reaper.audit.recovery import ENDED, close_open_intents
from reaper.audit.sinks import AuditLogFailed, Sink

from .build import AUTHOR, SNAPSHOT, TERMINATED, MemorySink, candidate, crash, events, ledger


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


def crashed_run(path: Path, *pids: int, run: str = "earlier") -> None:
    """A run that ended when the first of these sessions had an outcome."""
    log = ledger(FileSink(path), run=run)
    first, *_ = log.intend(AUTHOR, "c1", SNAPSHOT, [candidate(pid) for pid in pids])
    log.log_outcomes([(first, TERMINATED)])
    crash(log)


def rotate(path: Path, suffix: object) -> Path:
    return path.rename(path.with_name(f"{path.name}.{suffix}"))


def later_run(path: Path, *others: Sink, run: str = "later") -> int:
    """The number of open intents that the next run closes."""
    log = ledger(FileSink(path), *others, run=run)
    try:
        return close_open_intents(path, log)
    finally:
        crash(log)


def test_open_intents_of_an_earlier_run_get_the_outcome_unknown_in_every_sink(path: Path) -> None:
    crashed_run(path, 1, 2, 3)
    sink = MemorySink()
    assert later_run(path, sink) == 2
    unknown = [event for event in events(path) if event.get("outcome") == "unknown"]
    assert [event["pid"] for event in unknown] == [2, 3]
    assert {(event["detail"], event["run"], event["outcome_at"]) for event in unknown} == {
        (ENDED, "later", None)
    }
    assert sink.written[-2:] == ["unknown", "unknown"]
    assert sink.durable == len(sink.taken)
    assert later_run(path, run="latest") == 0


def test_the_outcome_repeats_every_field_of_the_intent(path: Path) -> None:
    crashed_run(path, 1, 2)
    later_run(path)
    intent = [event for event in events(path) if event["event"] == INTENT][-1]
    outcome = events(path)[-1]
    assert set(outcome) == {*EVENTS[OUTCOME]} - {"query"}
    assert {key: outcome[key] for key in intent if key not in STAMPED} == {
        key: intent[key] for key in intent if key not in STAMPED
    }


def test_open_intents_in_a_rotated_copy_are_closed(path: Path) -> None:
    crashed_run(path, 1, 2)
    rotate(path, 1)
    assert later_run(path) == 1
    assert later_run(path, run="latest") == 0


def test_copies_older_than_a_run_that_started_and_worked_are_not_read(path: Path) -> None:
    for number, run in ((2, "first"), (1, "closed the first"), (0, "last")):
        crashed_run(path, 2 * number + 1, 2 * number + 2, run=run)
        if number:
            assert open_intents(read_events(rotate(path, number)))
    assert later_run(path) == 1


def test_a_run_that_ended_before_it_could_close_anything_hides_nothing(path: Path) -> None:
    crashed_run(path, 1, 2)
    rotate(path, 2)
    for number in (1, 0):
        log = ledger(FileSink(path), run=f"ended at once {number}")
        log.open()
        crash(log)
        rotate(path, number)
    assert later_run(path) == 1


@pytest.mark.parametrize(("most", "copies", "found"), [(1_000_000, 2, 1), (100, 2, 0), (1, 1, 1)])
def test_older_copies_are_read_up_to_a_size_and_the_newest_always(
    path: Path, monkeypatch: pytest.MonkeyPatch, most: int, copies: int, found: int
) -> None:
    monkeypatch.setattr(recovery, "_MOST_BYTES", most)
    other = ledger(FileSink(path), run="other")
    crashed_run(path, 1, 2)
    rotate(path, copies)
    for number in range(1, copies):
        other.open()
        rotate(path, number)
    crash(other)
    assert later_run(path) == found


@pytest.mark.parametrize("moment", ["before the copies are listed", "afterwards"])
def test_a_file_that_is_rotated_during_the_search_is_read_all_the_same(
    path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    log = ledger(FileSink(path), run="earlier")
    log.intend(AUTHOR, "c1", SNAPSHOT, [candidate(1)])
    rotate(path, "20250618")
    log.intend(AUTHOR, "c2", SNAPSHOT, [candidate(2), candidate(3)])
    crash(log)

    def listed(file: Path) -> list[Path]:
        before = reader.rotated_copies(file)
        rotate(file, "20250619")
        return before if moment == "afterwards" else reader.rotated_copies(file)

    monkeypatch.setattr(recovery, "rotated_copies", listed)
    assert later_run(path) == 3


def test_intents_of_the_same_run_and_a_missing_file_are_nothing_to_close(path: Path) -> None:
    assert close_open_intents(path, ledger(MemorySink())) == 0
    log = ledger(FileSink(path))
    log.intend(AUTHOR, "c1", SNAPSHOT, [candidate()])
    assert close_open_intents(path, log) == 0


def test_no_content_of_the_file_stops_the_start(path: Path) -> None:
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


def test_a_folder_in_place_of_the_file_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(AuditLogFailed, match="open intents cannot be looked for: Is a directory"):
        close_open_intents(tmp_path, ledger(MemorySink()))
