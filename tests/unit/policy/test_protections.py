"""Whom no policy touches, what sets a protection aside, and what it does not cover."""

from dataclasses import replace
from ipaddress import ip_network

import pytest

from reaper.policy.match import Match
from reaper.policy.plan import Candidate, SkipReason
from reaper.policy.protections import BUILT_IN, DESCRIPTIONS, OVERRIDABLE, SELF
from reaper.policy.rules import When
from reaper.policy.selector import NO_KEYS, From, Selector
from reaper.policy.session import WALSENDER, Facts, Session, Snapshot
from reaper.policy.time import parse_duration

from .build import (
    NOTHING_HELD,
    WATCHER,
    Told,
    decision,
    globs,
    plan,
    policy,
    session,
    skipped,
    snapshot,
)

HOLDING = Facts(advisory_lock_holders=frozenset({100}), waiters={})

PROTECTED: list[tuple[str, Told, str]] = [
    ("replication", {"kind": WALSENDER}, "a replication connection"),
    ("superusers", {"superuser": True}, "superuser 'app_web', which only a superuser may terminate"),
    ("listeners", {"listens": True}, "its last query was LISTEN"),
    ("backups", {"starts_backup": True}, "its last query started a backup"),
    ("sync-replication", {"wait_event": "SyncRep"}, "waits for synchronous replication"),
    *(
        ("backups", Told(application=name), f"backup tool {name!r}")
        for name in (
            *("pg_dump", "pg_dumpall", "pg_restore", "pg_basebackup", "pg_receivewal", "pg_probackup-16"),
            *("pgBackRest [backup]", "pgbackrest", "barman_receive_wal", "wal-g", "pgcopydb[12]"),
        )
    ),
    *(
        ("managed-service-roles", Told(role=name), f"managed-service role {name!r}")
        for name in (
            *("rdsadmin", "rdsrepladmin", "rdstopmgr", "rdsproxyadmin", "cloudsqladmin", "cloudsqlagent"),
            *("cloudsqlimportexport", "cloudsqlreplica", "azuresu", "azure_superuser", "supabase_admin"),
            *("supabase_auth_admin", "authenticator", "pgbouncer", "cloud_admin", "neon_service"),
        )
    ),
    *(
        ("poolers", Told(application=name), f"pooler {name!r}")
        for name in (
            "pgbouncer",
            "PgBouncer",
            "odyssey",
            "pgcat",
            "PgCat 1.2",
            "pgpool",
            "Supavisor",
            "pgdog",
        )
    ),
]


@pytest.mark.parametrize(("name", "told", "reason"), PROTECTED)
def test_a_protection_spares_whom_a_policy_condemns(name: str, told: Told, reason: str) -> None:
    answer = skipped(decision(session(**told), policy()))
    assert (answer.by, answer.protection, answer.reason) == (
        SkipReason.PROTECTION,
        name,
        f"protected: {reason}",
    )


@pytest.mark.parametrize(("name", "told", "reason"), PROTECTED)
def test_a_protection_is_set_aside_by_its_name(name: str, told: Told, reason: str) -> None:
    assert reason
    assert isinstance(decision(session(**told), replace(policy(), overrides=frozenset({name}))), Candidate)


@pytest.mark.parametrize(("name", "told", "reason"), PROTECTED)
def test_despite_sets_aside_only_what_it_names(name: str, told: Told, reason: str) -> None:
    others = frozenset(OVERRIDABLE) - {name}
    answer = skipped(decision(session(**told), replace(policy(), overrides=others)))
    assert (answer.protection, answer.reason) == (name, f"protected: {reason}")


@pytest.mark.parametrize(
    "told",
    [
        Told(wait_event="ClientRead"),
        Told(wait_event="syncrep"),
        Told(application="pg_dumper"),
        Told(application="my pg_dump"),
        Told(application="PG_DUMP"),
        Told(application="not pgbouncer"),
        Told(application="rdsadmin"),
        Told(role="rdsadmin2"),
        Told(role="RDSADMIN"),
        Told(role="supabase_admins"),
        Told(role="pg_dump"),
        Told(application=None),
    ],
)
def test_nobody_hides_behind_a_name_that_only_looks_like_a_protected_one(told: Told) -> None:
    assert isinstance(decision(session(**told), policy()), Candidate)


def test_every_built_in_protection_but_the_locks_and_ourselves_is_in_the_table() -> None:
    assert {name for name, _, _ in PROTECTED} | {SELF, "advisory-locks"} == set(BUILT_IN)


def test_every_built_in_protection_is_described_and_all_but_self_can_be_set_aside() -> None:
    assert set(DESCRIPTIONS) == set(BUILT_IN)
    assert set(OVERRIDABLE) == set(BUILT_IN) - {SELF}


def test_a_superuser_can_be_condemned_when_the_reaper_is_one() -> None:
    ours = replace(snapshot(session(superuser=True)), watcher=replace(WATCHER, superuser=True))
    assert plan(ours, policy()).candidates


def _sole_reason(seen: Snapshot, *, overrides: frozenset[str] = frozenset()) -> str:
    return skipped(plan(seen, replace(policy(), overrides=overrides)).decisions[0]).reason


def test_a_holder_of_an_advisory_lock_is_spared() -> None:
    assert _sole_reason(snapshot(session(100), facts=HOLDING)) == "protected: holds advisory lock"


def test_who_holds_no_advisory_lock_while_another_does_is_condemned() -> None:
    assert plan(snapshot(session(101), facts=HOLDING), policy()).candidates


def test_everybody_is_spared_while_it_is_not_known_who_holds_advisory_locks() -> None:
    assert _sole_reason(snapshot(session(), facts=Facts())) == (
        "protected: it is not known whether it holds an advisory lock"
    )


@pytest.mark.parametrize("facts", [HOLDING, Facts(), NOTHING_HELD])
def test_advisory_locks_are_set_aside_by_their_name_known_or_not(facts: Facts) -> None:
    overrides = replace(policy(), overrides=frozenset({"advisory-locks"}))
    assert plan(snapshot(session(100), facts=facts), overrides).candidates


def test_the_protection_that_costs_a_question_is_told_last() -> None:
    seen = snapshot(session(listens=True), facts=Facts())
    assert _sole_reason(seen) == "protected: its last query was LISTEN"
    assert _sole_reason(seen, overrides=frozenset({"listeners"})).endswith("holds an advisory lock")


OURS = [
    (session(WATCHER.pid), "the reaper's own session"),
    (session(WATCHER.pid, role=None, application=None), "the reaper's own session"),
    (session(role="reaper", application="pg-reaper"), "another reaper's session"),
]


@pytest.mark.parametrize(("seen", "reason"), OURS)
@pytest.mark.parametrize("overrides", [frozenset[str](), frozenset({SELF}), frozenset(BUILT_IN)])
def test_the_reaper_never_takes_itself_even_when_told_to(
    seen: Session, reason: str, overrides: frozenset[str]
) -> None:
    answer = skipped(decision(seen, replace(policy(), overrides=overrides)))
    assert (answer.protection, answer.reason) == (SELF, f"protected: {reason}")


@pytest.mark.parametrize(
    "told",
    [Told(application="pg-reaper"), Told(role="reaper"), Told(role="reaper", application="pg-reaper2")],
)
def test_nobody_hides_behind_the_name_of_the_reaper_alone(told: Told) -> None:
    assert isinstance(decision(session(**told), policy()), Candidate)


@pytest.mark.parametrize("kind", ["parallel worker", "background worker", "logical replication worker", ""])
def test_no_other_kind_of_backend_is_touched_whatever_is_set_aside(kind: str) -> None:
    greedy = replace(policy(), overrides=frozenset(BUILT_IN))
    assert skipped(decision(session(kind=kind), greedy)).by is SkipReason.UNKNOWN


PROTECT = [
    (Selector(role=globs("app_*")), "protected: protect role 'app_web' as 'app_*'"),
    (Selector(database=globs("stock", "shop")), "protected: protect database 'shop'"),
    (Selector(application=globs("web-?")), "protected: protect application 'web-1' as 'web-?'"),
    (
        Selector(client=(From(ip_network("10.0.0.0/8")),)),
        "protected: protect client '10.2.0.7' as '10.0.0.0/8'",
    ),
    (
        Selector(role=globs("nobody"), database=globs("shop")),
        "protected: protect database 'shop'",
    ),
]


@pytest.mark.parametrize(("protect", "reason"), PROTECT)
@pytest.mark.parametrize("overrides", [frozenset[str](), frozenset({"protect"}), frozenset(BUILT_IN)])
def test_protect_of_the_policy_file_beats_every_policy(
    protect: Selector, reason: str, overrides: frozenset[str]
) -> None:
    answer = skipped(decision(session(), replace(policy(), overrides=overrides), protect=protect))
    assert (answer.by, answer.protection, answer.reason) == (SkipReason.PROTECTION, "protect", reason)


@pytest.mark.parametrize(
    "protect",
    [
        NO_KEYS,
        Selector(role=globs("App_*", "")),
        Selector(client=(From(None),)),
        Selector(database=globs("s")),
    ],
)
def test_protect_spares_only_whom_it_names(protect: Selector) -> None:
    assert isinstance(decision(session(), policy(), protect=protect), Candidate)


@pytest.mark.parametrize("facts", [Facts(), Facts(advisory_lock_holders=frozenset({100}))])
def test_locks_are_told_after_everything_that_spares_without_them(facts: Facts) -> None:
    allowed = replace(policy(), allowlist=Selector(database=globs("shop")))
    resting = replace(policy(), when=When(0.99))

    for rule, by in (
        (allowed, SkipReason.ALLOWLIST),
        (resting, SkipReason.WHEN),
        (policy(), SkipReason.PROTECTION),
    ):
        (skip,) = plan(snapshot(session(), facts=facts), rule).skips
        assert skip.by is by


def test_a_protected_session_that_no_policy_matches_is_simply_unmatched() -> None:
    far = policy(match=Match(states=("idle",), idle_for=parse_duration("9d")))
    assert skipped(decision(session(listens=True), far)).by is SkipReason.UNMATCHED


def test_a_protection_is_told_before_the_allowlist() -> None:
    both = replace(policy(), allowlist=Selector(role=globs("app_web")))
    assert skipped(decision(session(listens=True), both)).by is SkipReason.PROTECTION


def test_each_policy_sets_aside_protections_for_itself_alone() -> None:
    careful, careless = (
        policy("careful"),
        replace(policy("careless"), overrides=frozenset({"listeners"})),
    )
    answer = decision(session(listens=True), careful, careless)
    assert isinstance(answer, Candidate)
    assert answer.policy.name == "careless"
