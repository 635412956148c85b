"""The outcome of a dry-run session, by two checks."""

from dataclasses import replace

import pytest

from reaper.insight.dryrun.outcomes import (
    CheckTimes,
    DryRunOutcome,
    DryRunSession,
    ObservedOutcome,
    SessionTimes,
    outcomes_of,
    report_due,
    times_in,
    unused,
)
from reaper.policy.session import ACTIVE, Session, SessionId
from reaper.policy.time import Duration, Timestamp, parse_duration
from tests.unit.policy.build import NOW, session, snapshot

from .dry_runs import after, watched

LATER = after(NOW, "10s")
CHECK = CheckTimes(at=LATER, before=NOW, longest_gap=parse_duration("1m"))


def become(one: DryRunSession, now: Session | None, check: CheckTimes = CHECK) -> ObservedOutcome | None:
    seen = {one.id: None if now is None else SessionTimes.of(now)}
    found = outcomes_of([one], seen, check)
    return found[0] if found else None


def outcome(one: DryRunSession, now: Session | None, check: CheckTimes = CHECK) -> DryRunOutcome | None:
    found = become(one, now, check)
    return found.outcome if found else None


def used(was: Session, at: Timestamp) -> Session:
    return replace(was, state_change=Timestamp(at + 3_000), query_start=at)


def test_an_unchanged_session_has_no_outcome_yet() -> None:
    assert outcome(watched(), session()) is None


def test_a_use_has_the_time_of_the_servers_clock() -> None:
    one = watched()
    found = become(one, used(one.candidate.session, after(NOW, "4s")))
    assert found
    assert (found.outcome, found.after, found.used_at) == (
        DryRunOutcome.USED_AGAIN,
        parse_duration("4s"),
        after(NOW, "4s"),
    )
    assert found.reason == "used again after 4s, having been idle for 1h"


def test_an_active_session_is_used_again_when_its_statement_ends() -> None:
    running = session(state=ACTIVE)
    found = become(watched(running), used(running, after(NOW, "4s")))
    assert found
    assert found.reason == "its statement ended by itself after 4s"


@pytest.mark.parametrize("key", ["query_start", "xact_start"])
def test_the_earliest_time_of_use_counts(key: str) -> None:
    now = used(session(), after(NOW, "8s"))
    signs = {"query_start": after(NOW, "8s"), "xact_start": after(NOW, "8s"), key: after(NOW, "2s")}
    found = become(watched(), replace(now, **signs))  # type: ignore[arg-type]  # two fields of one type
    assert found
    assert found.used_at == after(NOW, "2s")


def test_a_start_before_the_dry_run_is_no_use() -> None:
    # `SELECT 1` inside the transaction that was open all along.
    was = session(in_transaction="2h")
    found = become(watched(was), used(was, after(NOW, "4s")))
    assert found
    assert found.used_at == after(NOW, "4s")


def test_a_bare_state_change_counts_as_a_use() -> None:
    was = session()
    assert outcome(watched(was), replace(was, state_change=after(NOW, "4s"))) is DryRunOutcome.USED_AGAIN


def test_a_hidden_state_gives_no_outcome() -> None:
    was = session()
    assert outcome(watched(was), replace(was, state_change=None)) is None


def test_a_session_that_is_gone_has_left_with_the_time_since_the_last_check() -> None:
    found = become(watched(), None)
    assert found
    assert (found.outcome, found.unseen) == (DryRunOutcome.LEFT, parse_duration("10s"))
    assert found.reason == "left by itself after 10s; the last check was 10s before"


def test_a_session_that_exited_in_a_long_gap_is_unknown() -> None:
    check = CHECK._replace(at=after(NOW, "61s"))
    assert outcome(watched(), None, check) is DryRunOutcome.UNKNOWN


def test_a_new_session_with_the_same_pid_is_another_session() -> None:
    one = watched()
    other = replace(one.candidate.session, id=SessionId(one.id.pid, NOW))
    assert outcomes_of([one], {other.id: SessionTimes.of(other)}, CHECK) == []
    assert times_in(snapshot(other), [one]) == {one.id: None}


def test_only_a_full_snapshot_shows_which_sessions_are_gone() -> None:
    everybody = snapshot(session(1))
    assert times_in(everybody, [watched()]) == {watched().id: None}
    assert times_in(replace(everybody, left_out=3), [watched()]) == {}
    assert times_in(replace(everybody, unreadable=1), [watched()]) == {}


def test_a_prefiltered_snapshot_still_shows_its_sessions() -> None:
    thrifty = replace(snapshot(session()), left_out=3)
    assert times_in(thrifty, [watched()]) == {watched().id: SessionTimes.of(session())}


def test_an_unused_session_has_the_time_since_its_dry_run() -> None:
    found = unused(watched(), after(NOW, "2h"))
    assert (found.outcome, found.after) == (DryRunOutcome.UNUSED, parse_duration("2h"))
    assert found.reason == "not used again in 2h"


@pytest.mark.parametrize(("told", "when"), [("0s", "1h"), ("1h", "2h"), ("2h", "4h"), ("5h", "10h")])
def test_an_unused_session_is_reported_after_its_idle_time_and_each_time_it_doubles(
    told: str, when: str
) -> None:
    due = after(NOW, when)
    assert report_due(watched(), due, parse_duration(told))
    assert not report_due(watched(), Timestamp(due - 1), parse_duration(told))


def test_a_clock_that_was_set_back_gives_no_negative_duration() -> None:
    one = watched()
    found = become(one, used(one.candidate.session, Timestamp(NOW - parse_duration("1d"))))
    assert found
    assert found.outcome is DryRunOutcome.USED_AGAIN
    assert found.after == parse_duration("10s")
    assert unused(one, Timestamp(NOW - 1)).after == Duration(0)
