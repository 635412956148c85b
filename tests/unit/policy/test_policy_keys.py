"""Each key of a policy file changes a decision."""

from dataclasses import dataclass, fields, replace
from ipaddress import ip_network
from typing import Final
from zoneinfo import ZoneInfo

import pytest

from reaper.policy.match import Match
from reaper.policy.memory import Memory
from reaper.policy.plan import Candidate
from reaper.policy.rules import Action, Keep, MaxSessions, Mode, Policy, Rules, SafetyLimit, When, Window
from reaper.policy.selector import From, Selector
from reaper.policy.session import ACTIVE, IDLE, IN_TRANSACTION, Snapshot
from reaper.policy.time import Duration, parse_duration

from .build import IDLE_10M, globs, plan, policy, session, sessions, snapshot

WEB: Final = policy()
MANY: Final = snapshot(*sessions(8))
ONE: Final = snapshot(session())
AGED: Final = snapshot(session(state=IN_TRANSACTION, in_transaction="20m", xid_age=100))
BUSY: Final = snapshot(session(state=ACTIVE))
LONG: Final = parse_duration("5h")
UTC: Final = ZoneInfo("UTC")
# The snapshots were taken on a Wednesday at noon.
NOON: Final = Window(days=frozenset({2}), start=660, end=780, zone=UTC, text="Wed 11:00-13:00")


@dataclass(frozen=True)
class Scenario:
    """A world in which one key makes a difference."""

    key: str
    before: Rules
    after: Rules
    seen: Snapshot = ONE


def _policy(key: str, before: Policy, after: Policy, seen: Snapshot = ONE) -> Scenario:
    return Scenario(key, Rules(policies=(before,)), Rules(policies=(after,)), seen)


def _match(key: str, before: Match, after: Match, seen: Snapshot = ONE) -> Scenario:
    return _policy(f"Match.{key}", replace(WEB, match=before), replace(WEB, match=after), seen)


def _window(key: str, after: Window) -> Scenario:
    return _policy(f"Window.{key}", replace(WEB, during=(NOON,)), replace(WEB, during=(after,)))


def _restrained(key: str, before: Policy, after: Policy) -> Scenario:
    return _policy(key, replace(before, safety_limit=None), replace(after, safety_limit=None), MANY)


OTHERS: Final = {
    "role": Selector(role=globs("reporting")),
    "database": Selector(database=globs("stock")),
    "application": Selector(application=globs("metabase")),
    "client": Selector(client=(From(ip_network("192.0.2.0/24")),)),
}
OURS: Final = {
    "role": Selector(role=globs("app_*")),
    "database": Selector(database=globs("shop")),
    "application": Selector(application=globs("web-1")),
    "client": Selector(client=(From(ip_network("10.2.0.0/16")),)),
}
SELECTING: Final = [
    *(
        _match(f"selector.{key}", IDLE_10M, replace(IDLE_10M, selector=chosen))
        for key, chosen in OTHERS.items()
    ),
    *(
        _policy(f"Policy.allowlist.{key}", WEB, replace(WEB, allowlist=chosen))
        for key, chosen in OURS.items()
    ),
    *(
        Scenario(f"Rules.protect.{key}", Rules(policies=(WEB,)), Rules(policies=(WEB,), protect=chosen))
        for key, chosen in OURS.items()
    ),
]
IN_TX: Final = replace(IDLE_10M, states=(IN_TRANSACTION,))
RUNNING: Final = Match(states=(ACTIVE,), running_for=parse_duration("10m"))
MATCHING: Final = [
    _match("states", IDLE_10M, replace(IDLE_10M, states=(IN_TRANSACTION,))),
    _match("selector", IDLE_10M, replace(IDLE_10M, selector=OTHERS["role"])),
    _match("idle_for", IDLE_10M, replace(IDLE_10M, idle_for=LONG)),
    _match("transaction_for", IN_TX, replace(IN_TX, transaction_for=LONG), AGED),
    _match("connected_for", IDLE_10M, replace(IDLE_10M, connected_for=LONG)),
    _match("running_for", RUNNING, replace(RUNNING, running_for=LONG), BUSY),
    _match("xmin_age", IN_TX, replace(IN_TX, xmin_age=101), AGED),
    _match("blocking", IDLE_10M, replace(IDLE_10M, blocking=True)),
]
NEWEST: Final = Keep(newest=1, per=("role",))
MOST: Final = MaxSessions(most=1, per=("role",))
SAFETY_LIMIT: Final = SafetyLimit(share=0.9, above=5)
LISTENING: Final = snapshot(session(listens=True))
DECIDING: Final = [
    _policy("Policy.match", WEB, replace(WEB, match=RUNNING)),
    _policy("Policy.allowlist", WEB, replace(WEB, allowlist=OURS["role"])),
    _policy("Policy.overrides", WEB, replace(WEB, overrides=frozenset({"listeners"})), LISTENING),
    _policy("Policy.when", WEB, replace(WEB, when=When(0.8))),
    _policy("Policy.during", WEB, replace(WEB, during=(replace(NOON, days=frozenset({0})),))),
    _policy(
        "Policy.action",
        replace(WEB, match=RUNNING),
        replace(WEB, match=RUNNING, action=Action.CANCEL),
        BUSY,
    ),
    _restrained("Policy.keep", WEB, replace(WEB, keep=NEWEST)),
    _restrained("Policy.max_sessions", WEB, replace(WEB, max_sessions=MOST)),
    _restrained("Policy.max_per_cycle", WEB, replace(WEB, max_per_cycle=2)),
    _policy("Policy.safety_limit", WEB, replace(WEB, safety_limit=None), MANY),
    _policy("When.slots_used", replace(WEB, when=When(0.8)), replace(WEB, when=When(0.05))),
]
RESTRAINING: Final = [
    _restrained("Keep.newest", replace(WEB, keep=NEWEST), replace(WEB, keep=replace(NEWEST, newest=2))),
    _restrained("Keep.per", replace(WEB, keep=NEWEST), replace(WEB, keep=replace(NEWEST, per=("client",)))),
    _restrained(
        "MaxSessions.most", replace(WEB, max_sessions=MOST), replace(WEB, max_sessions=replace(MOST, most=2))
    ),
    _restrained(
        "MaxSessions.per",
        replace(WEB, max_sessions=MOST),
        replace(WEB, max_sessions=replace(MOST, per=("client",))),
    ),
    _policy(
        "SafetyLimit.share",
        replace(WEB, safety_limit=SAFETY_LIMIT),
        replace(WEB, safety_limit=SafetyLimit(share=1.0, above=5)),
        MANY,
    ),
    _policy(
        "SafetyLimit.above",
        replace(WEB, safety_limit=SAFETY_LIMIT),
        replace(WEB, safety_limit=SafetyLimit(share=0.9, above=8)),
        MANY,
    ),
    _window("days", replace(NOON, days=frozenset({3}))),
    _window("start", replace(NOON, start=721)),
    _window("end", replace(NOON, end=720)),
    _window("zone", replace(NOON, zone=ZoneInfo("Asia/Tokyo"))),
]
RULES: Final = [
    Scenario("Rules.policies", Rules(policies=(WEB,)), Rules(policies=())),
    Scenario("Rules.protect", Rules(policies=(WEB,)), Rules(policies=(WEB,), protect=OURS["role"])),
]
SCENARIOS: Final = [*SELECTING, *MATCHING, *DECIDING, *RESTRAINING, *RULES]


def decisions(judged_by: Rules, seen: Snapshot) -> list[tuple[str | None, Action | None]]:
    """Who is reaped by which policy and how, leaving the words aside."""
    decided = plan(seen, *judged_by.policies, protect=judged_by.protect, memory=Memory.of(seen))
    return [
        (answer.policy.name, answer.action) if isinstance(answer, Candidate) else (None, None)
        for answer in decided.decisions
    ]


# Groups by client differ from groups by role only if the clients do.
def _on_clients(seen: Snapshot) -> Snapshot:
    moved = tuple(
        replace(one, identity=one.identity._replace(client=f"10.2.0.{rank % 2}"))
        for rank, one in enumerate(seen.sessions)
    )
    return replace(seen, sessions=moved)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.key)
def test_every_key_changes_a_decision(scenario: Scenario) -> None:
    seen = _on_clients(scenario.seen)
    assert decisions(scenario.before, seen) != decisions(scenario.after, seen)


WORDS_ONLY: Final = {"Policy.name", "Policy.description", "Window.text", "Rules.digest"}
ELSEWHERE: Final = {"Policy.mode", "Policy.refill_guard"}
"""Keys that need more than one snapshot: see test_dry_run.py and test_refill_guard.py."""


def _declared() -> set[str]:
    parts = (Match, Policy, When, Window, Keep, MaxSessions, SafetyLimit, Rules)
    own = {f"{part.__name__}.{field.name}" for part in parts for field in fields(part) if field.init}
    selecting = ("Match.selector", "Policy.allowlist", "Rules.protect")
    return own | {f"{where}.{field.name}" for where in selecting for field in fields(Selector)}


def test_no_key_is_without_a_scenario() -> None:
    assert {scenario.key for scenario in SCENARIOS} == _declared() - WORDS_ONLY - ELSEWHERE


@pytest.mark.parametrize(
    ("mode", "reaped", "dry_run_before"),
    [(Mode.ENFORCE, 1, 0), (Mode.DRY_RUN, 0, 1), (Mode.DISABLED, 0, 0)],
)
def test_the_mode_decides_between_nothing_dry_run_and_termination(
    mode: Mode, reaped: int, dry_run_before: int
) -> None:
    decided = plan(ONE, policy(mode=mode))
    assert (len(decided.candidates), len(decided.dry_run_candidates)) == (reaped, dry_run_before)


def test_descriptive_keys_change_no_decision() -> None:
    renamed = replace(WEB, description="Web workers that never gave their connection back")
    told = replace(renamed, during=(replace(NOON, text="at noon"),))
    assert decisions(Rules(policies=(told,), digest="abc"), ONE) == decisions(Rules(policies=(WEB,)), ONE)


def test_a_limit_of_one_microsecond_is_a_limit() -> None:
    eager = replace(WEB, match=Match(states=(IDLE,), idle_for=Duration(1)))
    assert decisions(Rules(policies=(eager,)), ONE) == [("leaked", Action.TERMINATE)]
