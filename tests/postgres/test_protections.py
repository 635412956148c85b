"""Each protection skips its sessions on a real server, until a policy overrides it by name."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

import pytest

from reaper.policy.match import Match
from reaper.policy.plan import Candidate, Result, SkipReason
from reaper.policy.protections import OVERRIDABLE, first_protection
from reaper.policy.rules import Policy
from reaper.policy.selector import NO_KEYS
from reaper.policy.session import ACTIVE, IDLE, IN_TRANSACTION

from .clients import Client
from .conftest import StartStage
from .reaping import AT_ONCE, NOW, policy
from .stage import Stage
from .waiting import until

IDLE_ANYHOW: Final = Match(states=(IDLE, IN_TRANSACTION), idle_for=NOW)
RUNNING: Final = Match(states=(ACTIVE,), running_for=NOW)
START_BACKUP: Final = {
    True: "SELECT pg_backup_start('test', true)",
    False: "SELECT pg_start_backup('test', true, false)",
}
GRANT_BACKUP: Final = {
    True: "GRANT EXECUTE ON FUNCTION pg_backup_start TO PUBLIC",
    False: "GRANT EXECUTE ON FUNCTION pg_start_backup TO PUBLIC",
}


def holder_of_a_session_lock(stage: Stage) -> Client:
    client = stage.open()
    client.hold_advisory_lock(7)
    client.run("SELECT 1")
    return client


def holder_of_a_transaction_lock(stage: Stage) -> Client:
    client = stage.open()
    client.run("BEGIN")
    client.run("SELECT pg_advisory_xact_lock(1, 2)")
    client.run("SELECT 1")
    return client


def listener(stage: Stage) -> Client:
    client = stage.open()
    client.listen()
    return client


def listener_after_a_comment(stage: Stage) -> Client:
    client = stage.open()
    client.run("/* from the job queue */ listen jobs")
    return client


def listener_after_a_line_of_comment(stage: Stage) -> Client:
    client = stage.open()
    client.run("-- name: Listen :exec\nLISTEN jobs")
    return client


def listener_among_statements(stage: Stage) -> Client:
    client = stage.open()
    client.connection.pgconn.exec_(b"SELECT 1; LISTEN jobs")
    return client


def backup(stage: Stage) -> Client:
    fifteen = stage.server.major >= 15
    client = stage.open(database=stage.sandbox.database)
    with stage.clients.open(database=stage.sandbox.database).connection as owner:
        owner.execute(GRANT_BACKUP[fifteen])
    client.connection.execute(START_BACKUP[fifteen])
    return client


def idle_walsender(stage: Stage) -> Client:
    role = stage.sandbox.role("standby", options="REPLICATION")
    walsender = stage.open(dsn=f"{role.dsn} replication=database")
    walsender.run("IDENTIFY_SYSTEM")
    return walsender


def managed_role(stage: Stage) -> Client:
    return stage.open(role=stage.sandbox.role(name=f"supabase_{stage.sandbox.prefix}_admin"))


def under_the_name(application: str) -> Callable[[Stage], Client]:
    return lambda stage: stage.open(application=application)


PROTECTED: Final[Mapping[str, tuple[str, Callable[[Stage], Client]]]] = {
    "session lock": ("advisory-locks", holder_of_a_session_lock),
    "transaction lock": ("advisory-locks", holder_of_a_transaction_lock),
    "listener": ("listeners", listener),
    "listener after a comment": ("listeners", listener_after_a_comment),
    "listener after a line of comment": ("listeners", listener_after_a_line_of_comment),
    "listener among statements": ("listeners", listener_among_statements),
    "backup": ("backups", backup),
    "backup tool": ("backups", under_the_name("pgBackRest [backup]")),
    "pg_restore": ("backups", under_the_name("pg_restore")),
    "idle walsender": ("replication", idle_walsender),
    "managed role": ("managed-service-roles", managed_role),
    "PgBouncer": ("poolers", under_the_name("PgBouncer 1.23")),
    "pgpool": ("poolers", under_the_name("pgpool")),
}


def regarding(client: Client, stage: Stage, match: Match = IDLE_ANYHOW) -> Policy:
    """An enforcing policy for the application that this client names, whatever that is."""
    application = stage.reaper.see(client).identity.application
    assert application
    return policy(application.replace("[", "?"), match)


@pytest.mark.parametrize(("protection", "arrange"), PROTECTED.values(), ids=list(PROTECTED))
def test_a_protection_skips_its_session_until_it_is_overridden_by_name(
    stage: Stage, protection: str, arrange: Callable[[Stage], Client]
) -> None:
    client = arrange(stage)
    usual = regarding(client, stage)

    skip = stage.reaper.skipped(client, usual)

    assert (skip.by, skip.protection) == (SkipReason.PROTECTION, protection)
    assert skip.reason.startswith("protected: ")
    others = replace(usual, overrides=frozenset({"advisory-locks", "listeners", "backups"} - {protection}))
    assert stage.reaper.skipped(client, others).protection == protection
    aside = replace(usual, overrides=frozenset({protection}))
    assert stage.reaper.act(stage.reaper.chosen(client, aside)).result is Result.TERMINATED
    assert client.left()


def test_a_superuser_is_skipped_and_with_the_protection_overridden_denied(
    stage: Stage,
) -> None:
    client = stage.open_superuser()

    assert stage.reaper.skipped(client, policy(stage.application)).protection == "superusers"
    aside = policy(stage.application, overrides=["superusers"])
    assert stage.reaper.act(stage.reaper.chosen(client, aside)).result is Result.DENIED
    assert client.alive()


def test_a_superusers_reaper_may_terminate_superusers(stage: Stage) -> None:
    client = stage.open_superuser()
    reaper = stage.open_reaper(stage.sandbox.role("root", options="SUPERUSER"))

    assert reaper.act(reaper.chosen(client, policy(stage.application))).result is Result.TERMINATED


def test_an_advisory_lock_that_was_released_protects_no_more(stage: Stage) -> None:
    client = holder_of_a_session_lock(stage)
    client.run("SELECT pg_advisory_unlock_all()")

    stage.reaper.chosen(client, policy(stage.application))


def test_waiting_for_an_advisory_lock_is_not_holding_one(stage: Stage) -> None:
    holder_of_a_session_lock(stage)
    waiter = stage.open()
    waiter.start("SELECT pg_advisory_lock(7)")

    stage.reaper.chosen(waiter, policy(stage.application, RUNNING))


def test_an_advisory_lock_of_another_database_protects_too(stage: Stage) -> None:
    client = stage.open(database=stage.sandbox.database)
    client.hold_advisory_lock(7)

    assert stage.reaper.skipped(client, policy(stage.application)).protection == "advisory-locks"


def test_a_lock_on_a_row_or_a_table_is_no_advisory_lock(stage: Stage) -> None:
    client = stage.open()
    client.run("BEGIN ISOLATION LEVEL SERIALIZABLE")
    client.run("SELECT count(*) FROM pg_class")

    stage.reaper.chosen(client, policy(stage.application, IDLE_ANYHOW))


def test_a_listener_that_ran_another_query_since_cannot_be_seen(stage: Stage) -> None:
    client = listener(stage)
    client.run("SELECT 1")

    stage.reaper.chosen(client, policy(stage.application))


def test_words_of_small_and_large_letters_are_found_in_a_query(stage: Stage) -> None:
    client = stage.open()
    client.run("LiStEn jobs -- PG_Backup_Start (")

    session = stage.reaper.see(client)

    assert session.last_query_listens
    assert session.last_query_starts_backup


def test_a_word_that_only_begins_like_listen_does_not_protect(stage: Stage) -> None:
    client = stage.open()
    client.connection.pgconn.exec_(b"SELECT 'please listen'; -- listening")

    stage.reaper.chosen(client, policy(stage.application))


def test_the_reapers_own_session_and_another_reaper_of_its_role_cannot_be_reaped(stage: Stage) -> None:
    another = stage.open_reaper()
    everything = policy("*", Match(states=(ACTIVE, IDLE), connected_for=NOW), overrides=["self"])

    snapshot = stage.reaper.look(everything)

    for pid in (stage.reaper.link.pid, another.link.pid):
        (session,) = [session for session in snapshot.sessions if session.id.pid == pid]
        found = first_protection(session, snapshot, NO_KEYS, frozenset({"self", *OVERRIDABLE}))
        assert found
        assert found.name == "self"
    assert {stage.reaper.link.pid, another.link.pid}.isdisjoint(
        candidate.session.id.pid for candidate in stage.reaper.plan(everything).candidates
    )


def test_a_stranger_under_the_reapers_name_is_not_protected_by_it(stage: Stage) -> None:
    impostor = stage.open(application="pg-reaper")

    candidate = stage.reaper.chosen(impostor, policy("pg-reaper"))

    assert stage.reaper.act(candidate).result is Result.TERMINATED
    assert stage.reaper.rows("SELECT 1") == [(1,)]


def test_another_application_of_the_reapers_role_is_not_protected(stage: Stage) -> None:
    client = stage.open(role=stage.role)

    stage.reaper.chosen(client, policy(stage.application))


def test_a_commit_that_waits_for_a_standby_is_skipped_until_that_is_overridden(
    start_stage: StartStage,
) -> None:
    stage = start_stage(synchronous_standby_names="ghost", synchronous_commit="local")
    client = stage.open(database=stage.sandbox.database)
    client.run("SET synchronous_commit = on")
    client.start("ALTER ROLE CURRENT_USER SET work_mem = '1MB'")
    until(lambda: stage.reaper.see(client).wait_event == "SyncRep")
    waiting = policy(stage.application, RUNNING)

    assert stage.reaper.skipped(client, waiting).protection == "sync-replication"
    aside = replace(waiting, overrides=frozenset({"sync-replication"}))
    assert stage.reaper.act(stage.reaper.chosen(client, aside)).result is Result.TERMINATED


def test_without_a_candidate_no_advisory_locks_are_read(stage: Stage) -> None:
    stage.open()
    nobody = policy(stage.sandbox.name("nobody"), AT_ONCE)

    assert stage.reaper.look(nobody).facts.advisory_lock_holders is None
    assert not any(isinstance(decision, Candidate) for decision in stage.reaper.plan(nobody).decisions)
