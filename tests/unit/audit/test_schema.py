"""What is written is what the page describes, and no name that a client chose can change that."""

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import reaper
from reaper.audit.events import COUNTERS, EVENTS, OPTIONAL, SCHEMA, TORN, TRUNCATED
from reaper.insight.dryrun.outcomes import DryRunSession, unknown
from reaper.policy.plan import Outcome, Result, SafetyLimitTrip
from reaper.policy.refill_guard import Group, PausedGroup

from .build import AT, AUTHOR, POLICY, SNAPSHOT, TERMINATED, MemorySink, candidate, ledger

HOSTILE = ["\n", "\r\n", "\x1b[2J", "\u202e", "\u2028", "\x00", '"}\n{"schema":1', "\ud800", "\x85", "é"]
PAGE = (Path(reaper.__file__).parent / "help/audit-log.md").read_text(encoding="utf-8")
INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")


def written(*, query: str | None = None) -> list[dict[str, Any]]:
    """One of each event that a healthy ledger writes."""
    sink = MemorySink()
    log = ledger(sink)
    trip = SafetyLimitTrip(policy=POLICY, matched=9, clients=10, reason="too many")
    log.log_safety_limit(AUTHOR, "c1", SNAPSHOT, [trip])
    (intent,) = log.intend(AUTHOR, "c1", SNAPSHOT, [candidate(query=query)])
    log.log_outcomes([(intent, TERMINATED)])
    one = DryRunSession(intent=intent.id, candidate=candidate(query=query), at=AT, cycle="c1", rules="d1gest")
    log.log_dry_run_outcomes(AUTHOR, [unknown(one, AT, "not observed")])
    group = Group(POLICY.name, one.candidate.session.identity)
    log.log_refill_guard(AUTHOR, "c1", [PausedGroup(group, AT, AT, 9, 10, "refill guard: replaced")])
    log.close()
    return sink.events


def documented(event: str) -> dict[str, str]:
    """The kind of each field of an event, from the page."""
    kinds = list[tuple[str, str]]()
    for section in PAGE.split("\n### ")[1:]:
        title, _, table = section.partition("\n")
        if "." not in title or event in re.findall(r"[a-z]+\.[a-z_]+", title):
            kinds += re.findall(r"^\| ([a-z_]+) \| ([a-z]+\??) \|", table.split("|---|")[-1], re.MULTILINE)
    assert len(kinds) == len(dict(kinds)), "no field twice"
    return dict(kinds)


def fits(kind: str, value: object) -> bool:
    if value is None:
        return kind.endswith("?")
    if kind.startswith("instant"):
        return isinstance(value, str) and INSTANT.fullmatch(value) is not None
    return (
        type(value) is {"integer": int, "number": float, "boolean": bool, "text": str}[kind.removesuffix("?")]
    )


def test_every_event_has_exactly_the_documented_fields_of_the_documented_kind() -> None:
    events = written(query="SELECT 1")
    assert {event["event"] for event in events} == {*EVENTS} - {TORN, TRUNCATED, COUNTERS}
    for event in events:
        schema = documented(event["event"])
        assert set(event) == set(schema)
        assert [name for name, kind in schema.items() if not fits(kind, event[name])] == []


def test_an_outcome_and_a_dry_run_outcome_repeat_every_field_of_their_intent() -> None:
    _, _, intent, outcome, later, *_ = written()
    for each in (outcome, later):
        assert {key for key in intent if each[key] != intent[key]} == {"event", "seq", "prev"}
    assert outcome["outcome"] == Result.TERMINATED
    assert (later["dry_run_outcome"], later["detail"]) == ("unknown", "not observed")


def test_query_text_is_absent_unless_it_was_requested() -> None:
    missing = {name for event in written() for name in EVENTS[event["event"]] if name not in event}
    assert missing == OPTIONAL == {"query"}


@pytest.mark.parametrize("event", EVENTS)
def test_the_page_describes_each_field_of_an_event_once(event: str) -> None:
    assert sorted(documented(event)) == sorted(EVENTS[event])
    assert "|  |" not in PAGE


def test_ages_are_measured_by_the_clock_of_the_server() -> None:
    intent = written()[2]
    assert (intent["idle_s"], intent["connected_s"], intent["transaction_s"]) == (751.0, 3600.0, None)
    assert intent["server_time"] == "2025-06-18T12:00:00.000000Z"
    assert intent["time"] == "2025-06-18T12:00:00.123456Z"


def test_events_of_one_run_are_numbered_without_a_gap() -> None:
    events = written()
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert {event["run"] for event in events} == {"run"}
    assert {event["schema"] for event in events} == {SCHEMA}


@pytest.mark.parametrize("hostile", HOSTILE)
def test_a_hostile_name_stays_a_value_on_one_ascii_line(hostile: str) -> None:
    sink = MemorySink()
    ledger(sink).intend(AUTHOR, "c1", SNAPSHOT, [candidate(application=hostile)])
    *_, line = sink.taken
    assert line.isascii()
    assert line.count(b"\n") == 1
    assert all(0x20 <= byte < 0x7F for byte in line[:-1])
    assert sink.events[-1]["application"] == hostile


texts = st.text(alphabet=st.characters(codec=None) | st.sampled_from("".join(HOSTILE)))


@given(application=texts | st.none(), query=texts | st.none(), detail=texts)
def test_client_text_is_read_back_as_it_was(application: str | None, query: str | None, detail: str) -> None:
    sink = MemorySink()
    log = ledger(sink)
    (intent,) = log.intend(AUTHOR, "c1", SNAPSHOT, [candidate(application=application, query=query)])
    log.log_outcomes([(intent, Outcome(result=Result.DENIED, detail=detail, at=AT))])
    outcome = sink.events[-1]
    assert (outcome["application"], outcome.get("query"), outcome["detail"]) == (application, query, detail)
