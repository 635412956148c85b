"""Asking for more, or protecting more, never condemns another session."""

from dataclasses import replace

from hypothesis import assume, given
from hypothesis import strategies as st

from reaper.policy.decide import decide
from reaper.policy.memory import Memory
from reaper.policy.rules import Mode, Policy, Rules
from reaper.policy.selector import NO_KEYS, Selector
from reaper.policy.session import SessionId, Snapshot
from reaper.policy.time import Duration
from tests.unit.policy.build import session
from tests.unit.policy.hostile import PROPERTY, limits, policies, rules, selectors, snapshots


def unrestrained(policy: Policy) -> Policy:
    return replace(
        policy, mode=Mode.ENFORCE, keep=None, max_sessions=None, safety_limit=None, max_per_cycle=1_000
    )


def matched(snapshot: Snapshot, judged_by: Rules) -> set[SessionId]:
    plan = decide(snapshot=snapshot, rules=judged_by, memory=Memory.of(snapshot))
    return {candidate.session.id for candidate in plan.candidates}


def freely(judged_by: Rules) -> Rules:
    return replace(judged_by, policies=tuple(map(unrestrained, judged_by.policies)))


@PROPERTY
@given(snapshots, rules, st.data())
def test_raising_any_limit_never_adds_a_session(
    snapshot: Snapshot, judged_by: Rules, data: st.DataObject
) -> None:
    # Before restraint: with a pace, who no longer matches makes room for the next.
    # And a policy without an age means nobody until it is given one.
    before = freely(judged_by)
    assume(all(any(policy.match.ages(session())) for policy in before.policies))
    rank = data.draw(st.integers(min_value=0, max_value=len(before.policies) - 1))
    raised = data.draw(raised_limit(before.policies[rank]))
    after = replace(before, policies=(*before.policies[:rank], raised, *before.policies[rank + 1 :]))
    assert matched(snapshot, after) <= matched(snapshot, before)


@st.composite
def raised_limit(draw: st.DrawFn, policy: Policy) -> Policy:
    match, more = policy.match, draw(limits)
    raised = draw(
        st.sampled_from(
            [
                replace(match, idle_for=Duration((match.idle_for or 0) + more)),
                replace(match, transaction_for=Duration((match.transaction_for or 0) + more)),
                replace(match, connected_for=Duration((match.connected_for or 0) + more)),
                replace(match, running_for=Duration((match.running_for or 0) + more)),
                replace(match, xmin_age=(match.xmin_age or 0) + 50),
            ]
        )
    )
    return replace(policy, match=raised)


@PROPERTY
@given(snapshots, policies, limits, limits)
def test_raising_idle_for_under_all_limits_never_adds_a_session(
    snapshot: Snapshot, policy: Policy, limit: Duration, more: Duration
) -> None:
    # Who remains is among the longest idle of those before, in the same order. The brake might let go: off.
    def by(idle_for: Duration) -> Rules:
        match = replace(policy.match, idle_for=idle_for)
        return Rules(policies=(replace(policy, mode=Mode.ENFORCE, safety_limit=None, match=match),))

    assert matched(snapshot, by(Duration(limit + more))) <= matched(snapshot, by(limit))


@PROPERTY
@given(snapshots, rules, selectors)
def test_protecting_more_never_adds_a_session(
    snapshot: Snapshot, judged_by: Rules, protect: Selector
) -> None:
    free = freely(replace(judged_by, protect=NO_KEYS))
    assert matched(snapshot, replace(free, protect=protect)) <= matched(snapshot, free)


@PROPERTY
@given(snapshots, rules, selectors)
def test_a_longer_allowlist_never_adds_a_session(
    snapshot: Snapshot, judged_by: Rules, allowlist: Selector
) -> None:
    without, allowing = (
        replace(
            free := freely(judged_by), policies=tuple(replace(one, allowlist=by) for one in free.policies)
        )
        for by in (NO_KEYS, allowlist)
    )
    assert matched(snapshot, allowing) <= matched(snapshot, without)
