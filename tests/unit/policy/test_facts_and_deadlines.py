"""The facts that policies need, and the time at which the next session is due."""

from dataclasses import replace
from datetime import UTC
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reaper.policy.deadline import next_due, rest_after, shared_moment
from reaper.policy.decide import NeededFacts, needed_facts
from reaper.policy.match import Match
from reaper.policy.rules import Mode, Policy, Rules, When, Window
from reaper.policy.selector import Selector
from reaper.policy.session import ACTIVE, IDLE, IN_TRANSACTION, Session
from reaper.policy.time import SECOND, Duration, Timestamp, parse_duration

from .build import IDLE_10M, NOW, ago, globs, later, policy, session, snapshot

BLOCKERS = policy("blockers", replace(IDLE_10M, blocking=True))
SATURDAY = Window(days=frozenset({5}), start=0, end=0, zone=UTC, text="Sat")
WITHOUT_LOCKS = replace(policy("bold"), overrides=frozenset({"advisory-locks"}))


def asked(seen: Session, *policies: Policy) -> NeededFacts:
    return needed_facts(snapshot(seen), Rules(policies=policies))


def due(seen: Session, *policies: Policy) -> Timestamp | None:
    return next_due(snapshot(seen), Rules(policies=policies))


@pytest.mark.parametrize(
    ("rule", "locks", "blocking"),
    [
        (policy(), True, False),
        (policy(mode=Mode.DRY_RUN), True, False),
        (policy(mode=Mode.DISABLED), False, False),
        (BLOCKERS, True, True),
        (WITHOUT_LOCKS, False, False),
        (replace(BLOCKERS, overrides=WITHOUT_LOCKS.overrides), False, True),
    ],
)
def test_a_policy_needs_the_facts_of_its_protections(rule: Policy, *, locks: bool, blocking: bool) -> None:
    assert asked(session(), rule) == NeededFacts(advisory_locks=locks, blocking=blocking)


@pytest.mark.parametrize(
    "seen",
    [
        session(idle="9m59s"),
        session(state=ACTIVE),
        session(state=None),
        session(kind="parallel worker"),
        session(database="stock"),
        session(idle=None),
    ],
)
def test_without_a_matching_session_no_facts_are_needed(seen: Session) -> None:
    rule = policy(match=replace(IDLE_10M, blocking=True, selector=Selector(database=globs("shop"))))
    assert asked(seen, rule) == NeededFacts(advisory_locks=False, blocking=False)


@pytest.mark.parametrize(
    "skips",
    [
        {"allowlist": Selector(database=globs("shop"))},
        {"when": When(0.99)},
        {"during": (SATURDAY,)},
    ],
)
def test_locks_are_not_needed_if_a_cheaper_check_skips_the_session(skips: dict[str, Any]) -> None:
    assert asked(session(), replace(policy(), **skips)) == NeededFacts()
    assert asked(session(), replace(BLOCKERS, **skips)) == NeededFacts(blocking=True)
    assert asked(session(), replace(policy(), **skips), policy("another")) == NeededFacts(advisory_locks=True)


def test_without_sessions_no_facts_are_needed() -> None:
    assert needed_facts(snapshot(), Rules(policies=(BLOCKERS,))) == NeededFacts()


def test_the_facts_of_all_policies_are_read_together() -> None:
    bold_blockers = replace(BLOCKERS, overrides=WITHOUT_LOCKS.overrides)
    assert asked(session(), bold_blockers, policy()) == NeededFacts(advisory_locks=True, blocking=True)


@pytest.mark.parametrize(
    ("seen", "moment"),
    [
        (session(idle="4m"), NOW + parse_duration("6m")),
        (session(idle="9m59s999ms"), NOW + 1_000),
        (session(idle="10m"), None),
        (session(idle="1h"), None),
        (session(state=ACTIVE, idle="4m"), None),
        (session(state=None, idle="4m"), None),
        (session(kind="parallel worker", idle="4m"), None),
        (session(database="stock", idle="4m"), None),
        (session(idle=None), None),
    ],
)
def test_a_session_is_due_when_its_limit_is_reached(seen: Session, moment: Timestamp | None) -> None:
    assert due(seen, policy(match=replace(IDLE_10M, selector=Selector(database=globs("shop"))))) == moment


def test_the_earliest_moment_of_any_session_and_policy_is_next() -> None:
    hour = policy("hour", Match(states=(IDLE,), connected_for=parse_duration("3h")))
    transaction = policy("transaction", Match(states=(IN_TRANSACTION,), transaction_for=parse_duration("5m")))
    seen = snapshot(
        session(100, idle="4m"), session(101, state=IN_TRANSACTION, in_transaction="2m"), session(102)
    )
    rules = Rules(policies=(hour, policy(), transaction))
    assert next_due(seen, rules) == NOW + parse_duration("3m")


@pytest.mark.parametrize(
    ("mode", "wakes"), [(Mode.ENFORCE, True), (Mode.DRY_RUN, True), (Mode.DISABLED, False)]
)
def test_disabled_policies_have_no_deadline(mode: Mode, *, wakes: bool) -> None:
    assert (due(session(idle="4m"), policy(mode=mode)) is not None) is wakes


def test_a_state_that_began_after_the_snapshot_counts_from_its_beginning() -> None:
    seen = replace(session(), state_change=later(NOW, by=5))
    old = policy(match=Match(states=(IDLE,), connected_for=parse_duration("1h")))
    assert due(seen, old) == NOW + 5


def test_without_policies_there_is_no_deadline() -> None:
    assert due(session(idle="4m")) is None


def test_the_deadline_counts_from_the_clock_of_the_snapshot() -> None:
    seen = snapshot(session(idle="4m"), at=ago("3m"))
    assert next_due(seen, Rules(policies=(policy(),))) == NOW + parse_duration("6m")


@pytest.mark.parametrize(
    ("idle", "rest"),
    [
        ("9m55s", "5s"),
        ("9m50s", "10s"),
        ("5m", "10s"),
        ("9m59s999ms", "250ms"),
        ("9m59s750ms", "250ms"),
        ("9m59s749ms", "251ms"),
        ("10m", "10s"),
    ],
)
def test_the_rest_ends_at_the_deadline_within_the_interval_and_not_before_the_precision(
    idle: str, rest: str
) -> None:
    rested = rest_after(
        snapshot(session(idle=idle)),
        Rules(policies=(policy(),)),
        interval=parse_duration("10s"),
        precision=parse_duration("250ms"),
    )
    assert rested == parse_duration(rest)


@given(due=st.floats(min_value=0, max_value=1e9), interval=st.integers(1, 3_600))
def test_a_cycle_without_a_deadline_begins_at_most_a_hundredth_of_the_interval_early(
    due: float, interval: int
) -> None:
    moment = shared_moment(due, interval=Duration(interval * SECOND))
    assert 0 <= due - moment <= interval / 100 + 1e-6


def test_servers_that_are_due_at_about_one_time_are_read_together() -> None:
    moments = [shared_moment(due, interval=Duration(10 * SECOND)) for due in (700.01, 700.04, 700.09, 700.11)]
    assert moments == pytest.approx([700.0, 700.0, 700.0, 700.1])
