"""The cutoffs leave nobody out whom a policy could mean, now or within the time that is looked ahead."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reaper.policy.match import Match
from reaper.policy.prefilter import Prefilter
from reaper.policy.rules import Mode, Rules
from reaper.policy.session import ABORTED, ACTIVE, IDLE, IN_TRANSACTION, STATES, Session, SessionId
from reaper.policy.time import Duration, Timestamp, parse_duration

from .build import NOW, later, policy, session
from .hostile import PROPERTY, identities, rules

SECOND = parse_duration("1s")
MINUTE = parse_duration("1m")
HOUR = parse_duration("1h")


@pytest.mark.parametrize(
    ("match", "prefilter"),
    [
        (Match(states=(IDLE,), idle_for=MINUTE), Prefilter(quiet=MINUTE)),
        (Match(states=(ACTIVE,), running_for=MINUTE), Prefilter(quiet=MINUTE)),
        (Match(states=(IDLE,), idle_for=MINUTE, connected_for=HOUR), Prefilter(quiet=MINUTE)),
        (Match(states=(IDLE, IN_TRANSACTION), idle_for=MINUTE), Prefilter(quiet=MINUTE)),
        (Match(states=(IN_TRANSACTION,), idle_for=MINUTE), Prefilter(transaction=MINUTE)),
        (Match(states=(IDLE, ACTIVE), transaction_for=MINUTE), Prefilter(transaction=MINUTE)),
        (
            Match(states=(IN_TRANSACTION,), idle_for=SECOND, transaction_for=MINUTE),
            Prefilter(transaction=MINUTE),
        ),
        (
            Match(states=(IN_TRANSACTION, ABORTED), idle_for=MINUTE),
            Prefilter(aborted=MINUTE, transaction=MINUTE),
        ),
        (Match(states=STATES, connected_for=HOUR), Prefilter(connected=HOUR)),
        (Match(states=STATES), Prefilter()),
    ],
)
def test_each_criterion_counts_from_what_is_cheap_to_ask_for(match: Match, prefilter: Prefilter) -> None:
    assert Prefilter.of([match]) == prefilter


def test_the_shortest_limit_of_all_policies_counts_but_for_those_that_are_off() -> None:
    limits = {"hour": HOUR, "minute": MINUTE, "off": SECOND}
    modes = {"off": Mode.DISABLED}
    of = [
        policy(name, Match(states=(IDLE,), idle_for=limit), mode=modes.get(name, Mode.DRY_RUN))
        for name, limit in limits.items()
    ]

    assert Rules(policies=tuple(of)).prefilter == Prefilter(quiet=MINUTE)


ages = st.sampled_from([0, 1, SECOND, MINUTE, parse_duration("10m"), HOUR, 2 * HOUR, parse_duration("3d")])


@st.composite
def lives(draw: st.DrawFn) -> Session:
    """A session as a server reports it whose clock was never set."""
    connected, transaction, query, change = (
        Timestamp(NOW - age) for age in sorted((draw(ages) for _ in range(4)), reverse=True)
    )
    state = draw(st.sampled_from(STATES))
    silent = state == IDLE and draw(st.booleans())
    return Session(
        id=SessionId(1, connected),
        identity=draw(identities),
        state=state,
        state_change=change,
        query_start=None if silent else query,
        xact_start=transaction if state in (IN_TRANSACTION, ACTIVE) else None,
        xid_age=100,
    )


@PROPERTY
@given(life=lives(), of=rules, ahead=st.sampled_from([Duration(0), MINUTE]), after=st.integers(0, MINUTE))
def test_whoever_a_policy_means_until_then_has_reached_a_cutoff_now(
    life: Session, of: Rules, ahead: Duration, after: int
) -> None:
    then = later(NOW, by=min(after, ahead))
    matching = any(each.match.holds_but_for_facts(life, then) for each in of.enabled)

    assert not matching or of.prefilter.sooner(ahead).reached(life, NOW)


def test_a_cutoff_is_reached_to_the_microsecond() -> None:
    prefilter = Prefilter(quiet=MINUTE)
    seen = session(idle="1m")

    assert prefilter.reached(replace(seen, query_start=Timestamp(NOW - MINUTE)), NOW)
    assert not prefilter.reached(replace(seen, query_start=Timestamp(NOW - MINUTE + 1)), NOW)
