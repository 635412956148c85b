"""What a record says of rehearsals: each act once, and no more than was told of it."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reaper.audit.dry_runs import DryRunLog
from reaper.audit.events import COUNTERS, FATE, OUTCOME, Event
from reaper.insight.dryrun.outcomes import Fate
from reaper.insight.dryrun.regret import Trial
from reaper.policy.time import parse_span

BEGAN = datetime(2025, 6, 18, 12, 0, tzinfo=UTC)


def moment(seconds: float) -> datetime:
    return BEGAN + timedelta(seconds=seconds)


def event(name: str, at: float, **fields: Any) -> Event:  # noqa: ANN401 (whatever stands in a file)
    told: dict[str, object] = {
        "server": "orders",
        "policy": "dry",
        "rules": "d1gest",
        "run": "life",
        "pid": 4711,
        "backend_start": "2025-06-18T09:00:00.000000Z",
        "state": "idle",
        "state_change": "2025-06-18T11:50:00.000000Z",
        "server_time": moment(at).isoformat(),
        "idle_s": 600.0 + at,
        "role": "app_web",
        "database": "shop",
        "application": "web-1",
        "client": None,
        **fields,
    }
    return Event(name=name, time=moment(at), fields=told)


def rehearsed(at: float = 0, **fields: Any) -> Event:  # noqa: ANN401
    return event(OUTCOME, at, outcome="rehearsed", **fields)


def fate(what: str, seen: float, *, at: float = 0, **fields: Any) -> Event:  # noqa: ANN401
    told = {"fate": what, "fate_at": moment(seen).isoformat(), "used_at": None, **fields}
    return event(FATE, at, **told)


def trials(*events: Event, since: datetime | None = None) -> list[Trial]:
    seen = DryRunLog(since=since)
    for each in events:
        seen.note(each)
    return list(seen.trials())


def trial(*events: Event) -> Trial:
    (one,) = trials(*events)
    return one


def test_an_act_without_a_word_about_it_is_still_watched() -> None:
    one = trial(rehearsed())
    assert (one.fate, one.idle, one.after, one.counts_as) == (None, parse_span("10m"), 0, None)


def test_an_outcome_that_was_no_rehearsal_is_none_here() -> None:
    assert trials(event(OUTCOME, 0, outcome="terminated"), event(COUNTERS, 0)) == []


def test_the_last_word_about_an_act_counts() -> None:
    one = trial(
        rehearsed(),
        fate("unused", 600),
        fate("unused", 1_200),
        fate("revived", 1_900, used_at=moment(1_800).isoformat()),
    )
    assert (one.fate, one.after, one.lasted) == (Fate.REVIVED, parse_span("30m"), parse_span("40m"))


def test_files_may_come_in_any_order() -> None:
    told = [rehearsed(), fate("unused", 600), fate("left", 700)]
    assert trial(*told) == trial(*reversed(told))


def test_who_is_rehearsed_again_by_the_next_life_without_having_changed_is_the_same_act() -> None:
    one = trial(
        rehearsed(), fate("unused", 5), rehearsed(60, run="next"), fate("left", 900, at=60, run="next")
    )
    assert (one.idle, one.fate, one.after) == (parse_span("10m"), Fate.LEFT, parse_span("15m"))


def test_who_fell_due_again_after_a_use_is_another_act() -> None:
    again = rehearsed(2_000, state_change=moment(1_000).isoformat())
    assert len(trials(rehearsed(), fate("revived", 1_000), again)) == 2


def test_what_other_rules_rehearse_is_another_act() -> None:
    assert len(trials(rehearsed(), rehearsed(60, rules="other"))) == 2


def test_what_a_life_that_has_ended_left_open_is_unknown() -> None:
    other = rehearsed(60, run="next", pid=1)
    assert [one.fate for one in trials(rehearsed(), other)] == [Fate.UNKNOWN, None]


def test_another_server_s_life_says_nothing_about_it() -> None:
    other = rehearsed(60, run="next", pid=1, server="billing")
    assert [one.fate for one in trials(rehearsed(), other)] == [None, None]


def test_a_rehearsal_that_is_repeated_from_cron_watches_as_well() -> None:
    runs = [rehearsed(60 * number, run=f"run-{number}") for number in range(12)]
    assert (trial(*runs).after, trial(*runs).fate) == (parse_span("11m"), None)
    assert trial(*runs).counts_as is Fate.UNUSED


def test_only_what_was_told_since_then_is_asked_for() -> None:
    told = [rehearsed(), fate("left", 60), rehearsed(600, pid=1)]
    assert len(trials(*told, since=moment(600))) == 1


@pytest.mark.parametrize("field", ["server", "server_time", "idle_s"])
@pytest.mark.parametrize("value", [None, [], "x", {}])
def test_a_line_that_lacks_what_it_needs_is_passed_over(field: str, value: object) -> None:
    if field == "server" and value == "x":
        value = 7
    whole = rehearsed()
    assert trials(Event(name=whole.name, time=whole.time, fields={**whole.fields, field: value})) == []


values = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.lists(st.text(), max_size=2)
)
names = st.sampled_from(
    [
        "server",
        "policy",
        "rules",
        "run",
        "pid",
        "backend_start",
        "state_change",
        "server_time",
        "idle_s",
        "fate",
        "fate_at",
        "used_at",
        "outcome",
        "state",
    ]
)


@given(
    st.lists(
        st.tuples(st.sampled_from([rehearsed(), fate("left", 9)]), st.dictionaries(names, values)), max_size=5
    )
)
def test_whatever_stands_in_a_file_can_be_judged(lines: list[tuple[Event, dict[str, object]]]) -> None:
    events = [Event(name=one.name, time=one.time, fields={**one.fields, **told}) for one, told in lines]
    for one in trials(*events):
        assert one.after >= 0
