"""The dry runs of an audit log: each session once, with what happened to it afterwards."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from reaper.audit.dry_runs import DryRunLog
from reaper.audit.events import COUNTERS, DRY_RUN_OUTCOME, OUTCOME, Event
from reaper.insight.dryrun.outcomes import DryRunOutcome
from reaper.insight.dryrun.regret import DryRun
from reaper.policy.time import parse_duration

BEGAN = datetime(2025, 6, 18, 12, 0, tzinfo=UTC)


def moment(seconds: float) -> datetime:
    return BEGAN + timedelta(seconds=seconds)


def event(name: str, at: float, **fields: Any) -> Event:  # noqa: ANN401 (whatever stands in a file)
    given: dict[str, object] = {
        "server": "orders",
        "policy": "dry",
        "rules": "d1gest",
        "run": "first",
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
    return Event(name=name, time=moment(at), fields=given)


def dry_run(at: float = 0, **fields: Any) -> Event:  # noqa: ANN401
    return event(OUTCOME, at, outcome="dry-run", **fields)


def later(what: str, seen: float, *, at: float = 0, **fields: Any) -> Event:  # noqa: ANN401
    given = {
        "dry_run_outcome": what,
        "dry_run_outcome_at": moment(seen).isoformat(),
        "used_at": None,
        **fields,
    }
    return event(DRY_RUN_OUTCOME, at, **given)


def all_of(*events: Event, since: datetime | None = None) -> list[DryRun]:
    seen = DryRunLog(since=since)
    for each in events:
        seen.note(each)
    return list(seen.dry_runs())


def only(*events: Event) -> DryRun:
    (one,) = all_of(*events)
    return one


def test_a_dry_run_without_a_later_entry_is_still_watched() -> None:
    one = only(dry_run())
    assert (one.outcome, one.idle, one.after, one.counts_as) == (None, parse_duration("10m"), 0, None)


def test_other_outcomes_are_no_dry_runs() -> None:
    assert all_of(event(OUTCOME, 0, outcome="terminated"), event(COUNTERS, 0)) == []


def test_the_last_entry_about_a_dry_run_counts() -> None:
    one = only(
        dry_run(),
        later("unused", 600),
        later("unused", 1_200),
        later("used-again", 1_900, used_at=moment(1_800).isoformat()),
    )
    assert one.outcome is DryRunOutcome.USED_AGAIN
    assert (one.after, one.lasted) == (parse_duration("30m"), parse_duration("40m"))


def test_files_may_come_in_any_order() -> None:
    given = [dry_run(), later("unused", 600), later("left", 700)]
    assert only(*given) == only(*reversed(given))


def test_an_unchanged_session_in_the_dry_run_of_the_next_run_counts_once() -> None:
    one = only(dry_run(), later("unused", 5), dry_run(60, run="next"), later("left", 900, at=60, run="next"))
    assert one.outcome is DryRunOutcome.LEFT
    assert (one.idle, one.after) == (parse_duration("10m"), parse_duration("15m"))


@pytest.mark.parametrize(
    "again", [{"state_change": moment(1_000).isoformat()}, {"rules": "other"}], ids=["used", "other rules"]
)
def test_a_session_counts_again_after_a_use_and_for_another_policy_file(again: dict[str, str]) -> None:
    assert len(all_of(dry_run(), later("used-again", 1_000), dry_run(2_000, **again))) == 2


@pytest.mark.parametrize(("server", "outcome"), [("orders", DryRunOutcome.UNKNOWN), ("billing", None)])
def test_what_a_run_left_open_is_unknown_after_another_run_for_the_same_server(
    server: str, outcome: DryRunOutcome | None
) -> None:
    other = dry_run(60, run="next", pid=1, server=server)
    assert [one.outcome for one in all_of(dry_run(), other)] == [outcome, None]


def test_dry_runs_that_cron_repeats_observe_as_well() -> None:
    runs = [dry_run(60 * number, run=f"run-{number}") for number in range(12)]
    assert (only(*runs).after, only(*runs).outcome) == (parse_duration("11m"), None)
    assert only(*runs).counts_as is DryRunOutcome.UNUSED


def test_entries_before_a_time_are_left_out() -> None:
    given = [dry_run(), later("left", 60), dry_run(600, pid=1)]
    assert len(all_of(*given, since=moment(600))) == 1


@pytest.mark.parametrize("field", ["server", "server_time", "idle_s"])
@pytest.mark.parametrize("value", [None, [], "x", {}])
def test_an_entry_without_a_needed_field_is_left_out(field: str, value: object) -> None:
    if field == "server" and value == "x":
        value = 7
    whole = dry_run()
    assert all_of(Event(name=whole.name, time=whole.time, fields={**whole.fields, field: value})) == []


numbers = st.booleans() | st.integers() | st.floats(allow_nan=False)
values = st.none() | numbers | st.text() | st.lists(st.text(), max_size=2)
names = st.sampled_from(sorted({**later("left", 9).fields, **dry_run().fields}))


@example([(dry_run(), {"idle_s": 1.8e302})])
@example([(dry_run(), {"idle_s": 10**400})])
@given(
    st.lists(
        st.tuples(st.sampled_from([dry_run(), later("left", 9)]), st.dictionaries(names, values)), max_size=5
    )
)
def test_no_content_of_a_file_is_an_error(lines: list[tuple[Event, dict[str, object]]]) -> None:
    events = [Event(name=one.name, time=one.time, fields={**one.fields, **given}) for one, given in lines]
    for one in all_of(*events):
        assert one.after >= 0
