"""A snapshot shows what the server shows; what the server hides is counted."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Final

import pytest
from psycopg.sql import SQL, Identifier

from reaper.policy.match import Match
from reaper.policy.plan import Result, SkipReason
from reaper.policy.session import ACTIVE, CLIENT_BACKEND, IN_TRANSACTION, STATES, Slots
from reaper.policy.time import from_datetime
from reaper.postgres.query_text import QueryText

from .clients import Client, State
from .conftest import StartStage
from .reaping import AT_ONCE, NOW, identity, policy, seen
from .stage import Stage
from .waiting import until

MOMENTS: Final = """
    SELECT backend_start, state_change, query_start, xact_start, client_port, usesysid
      FROM pg_stat_activity WHERE pid = %s
"""
SLOTS: Final = """
    SELECT current_setting('max_connections')::int,
           current_setting('superuser_reserved_connections')::int
           + coalesce(current_setting('reserved_connections', true)::int, 0),
           (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend')
"""


def exactly(moment: datetime | None) -> int | None:
    return None if moment is None else from_datetime(moment)


@pytest.mark.parametrize("state", ["idle", "idle in transaction", "idle in transaction (aborted)", "active"])
def test_a_session_is_seen_in_its_state_and_with_its_moments_to_the_microsecond(
    stage: Stage, state: State
) -> None:
    client = stage.open(state=state)

    session = stage.reaper.see(client)

    moments = stage.admin.execute(MOMENTS, (client.pid,)).fetchone()
    assert moments
    *instants, port, role_oid = moments
    assert session.id.pid == client.pid
    assert session.state == state
    assert session.kind == CLIENT_BACKEND
    assert (session.client_port, session.role_oid) == (port, role_oid)
    assert [
        session.id.backend_start,
        session.state_change,
        session.query_start,
        session.xact_start,
    ] == [exactly(instant) for instant in instants]


def test_a_session_is_seen_with_the_names_that_it_gave(stage: Stage) -> None:
    client = stage.open(database=stage.sandbox.database)

    who = stage.reaper.see(client).identity

    assert who._asdict() == {
        "database": stage.sandbox.database,
        "role": stage.app.name,
        "application": stage.application,
        "client": "127.0.0.1",
    }


def test_a_client_of_the_servers_own_socket_has_no_address(stage: Stage) -> None:
    embedded = stage.server.embedded
    if embedded is None:
        pytest.skip("where a given server's socket lies is not known")
    client = stage.open(dsn=embedded.socket_dsn)

    session = stage.reaper.see(client)

    assert session.identity.client is None
    assert session.client_port == -1


def test_ages_are_counted_by_the_servers_clock(stage: Stage) -> None:
    before = stage.admin.execute("SELECT clock_timestamp()").fetchone()
    at = stage.reaper.look().at
    after = stage.admin.execute("SELECT clock_timestamp()").fetchone()

    assert before
    assert after
    assert from_datetime(before[0]) <= at <= from_datetime(after[0])


def test_slots_are_counted_as_the_server_counts_them(stage: Stage) -> None:
    stage.open_many(3)

    slots = stage.reaper.look().slots

    assert (slots.total, slots.reserved, slots.used) == stage.admin.execute(SLOTS).fetchone()


def test_a_walsender_takes_no_slot_of_the_clients(stage: Stage) -> None:
    role = stage.sandbox.role("standby", options="REPLICATION")
    before = stage.reaper.look().slots.used

    walsender = stage.open(dsn=f"{role.dsn} replication=database")

    snapshot = stage.reaper.look()
    assert seen(snapshot, walsender).kind == "walsender"
    assert snapshot.slots.used == before


def test_reserved_slots_are_those_that_ordinary_roles_cannot_use(start_stage: StartStage) -> None:
    stage = start_stage(max_connections="20", superuser_reserved_connections="4")

    slots = stage.reaper.look().slots

    assert slots == Slots(total=20, reserved=4, used=slots.used, superuser_reserved=4)
    assert slots.usable == 16


def test_background_workers_are_no_sessions(stage: Stage) -> None:
    everybody = stage.admin.execute("SELECT count(*) FROM pg_stat_activity").fetchone()

    snapshot = stage.reaper.look()

    assert everybody
    assert {session.kind for session in snapshot.sessions} == {CLIENT_BACKEND}
    assert len(snapshot.sessions) < everybody[0]
    assert snapshot.unreadable == 0


@pytest.mark.parametrize("groups", [[], ["pg_signal_backend"]])
def test_sessions_that_a_role_may_not_read_are_counted_and_none_is_terminated(
    stage: Stage, groups: list[str]
) -> None:
    client = stage.open()
    blind = stage.open_reaper(stage.sandbox.role("blind", member_of=groups))

    plan = blind.plan(policy("*"))
    snapshot = blind.look()

    assert identity(client) not in {session.id for session in snapshot.sessions}
    assert {session.identity.role for session in snapshot.sessions} == {blind.probe.role}
    assert snapshot.unreadable >= 1
    assert plan.candidates == ()


def test_a_session_with_track_activities_off_is_skipped_as_unknown(stage: Stage) -> None:
    role = stage.sandbox.role("untracked")
    stage.set(role, "track_activities", "off")
    client = stage.open(role=role)
    everything = Match(states=STATES, connected_for=NOW)

    skip = stage.reaper.skipped(client, policy(stage.application, everything))

    assert skip.session.state == "disabled"
    assert skip.by is SkipReason.UNKNOWN
    assert stage.reaper.probe.untracked == 0
    assert stage.open_reaper().probe.untracked == 1


def test_without_being_asked_for_no_query_text_leaves_the_server(stage: Stage) -> None:
    client = stage.open()
    client.run("SELECT 'a secret', 42")

    session = stage.reaper.see(client)

    assert session.query is None
    assert "secret" not in repr(session)


@pytest.mark.parametrize(
    ("query_text", "shown"),
    [(QueryText.SHAPE, "SELECT ? AS secret, ?"), (QueryText.FULL, "SELECT 'a secret' AS secret, 42")],
)
def test_query_text_comes_without_its_literals_unless_those_were_asked_for_too(
    stage: Stage, query_text: QueryText, shown: str
) -> None:
    client = stage.open()
    client.run("SELECT 'a secret' AS secret, 42")

    assert stage.open_reaper(query_text=query_text).see(client).query == shown


def test_a_quiet_server_is_asked_one_statement_a_cycle(stage: Stage) -> None:
    stage.set(stage.role, "log_statement", "all")
    reaper = stage.open_reaper()
    stage.open(state="idle in transaction")
    quiet = policy(stage.application, replace(AT_ONCE, blocking=True))
    before = statements(stage, reaper.link.pid)

    for _ in range(3):
        reaper.look(quiet)

    assert statements(stage, reaper.link.pid) - before == 3


def test_facts_are_asked_for_when_there_is_a_candidate(stage: Stage) -> None:
    stage.set(stage.role, "log_statement", "all")
    reaper = stage.open_reaper()
    stage.open()
    before = statements(stage, reaper.link.pid)

    reaper.look(policy(stage.application, replace(AT_ONCE, blocking=True)))

    assert statements(stage, reaper.link.pid) - before == 3


def statements(stage: Stage, pid: int) -> int:
    return sum(
        f"[{pid}] " in line and ("LOG:  execute" in line or "LOG:  statement" in line)
        for line in stage.server.log_text().splitlines()
    )


def test_a_session_that_waits_is_seen_with_what_it_waits_for(stage: Stage) -> None:
    idle, active = stage.open(), stage.open(state="active")

    until(lambda: stage.reaper.see(idle).wait_event == "ClientRead")
    until(lambda: stage.reaper.see(active).wait_event == "PgSleep")


def test_a_changed_session_is_observed_as_it_is_now(stage: Stage) -> None:
    client = stage.open()
    was = stage.reaper.see(client)

    client.run("SELECT 1")

    moments = stage.admin.execute(MOMENTS, (client.pid,)).fetchone()
    assert moments
    session = stage.reaper.see(client)
    assert session.id == was.id
    assert session.state_change == exactly(moments[1]) != was.state_change
    assert session.query_start == exactly(moments[2]) != was.query_start


def test_superusers_are_seen_as_such(stage: Stage) -> None:
    assert stage.reaper.see(stage.open_superuser()).superuser
    assert not stage.reaper.see(stage.open()).superuser


def test_the_watcher_is_the_reapers_own_session(stage: Stage) -> None:
    snapshot = stage.reaper.look()

    (own,) = [session for session in snapshot.sessions if session.id.pid == snapshot.watcher.pid]
    assert own.identity.role == snapshot.watcher.role == stage.role.name
    assert own.identity.application == "pg-reaper"
    assert own.state == ACTIVE
    assert not snapshot.watcher.superuser


IDLE_IN_TRANSACTION: Final = Match(states=(IN_TRANSACTION,), idle_for=NOW)
BLOCKING: Final = replace(IDLE_IN_TRANSACTION, blocking=True)
WAITS: Final = "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = %s"


class Table:
    """A table that clients queue up for."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._name = Identifier(stage.application).as_string()
        owner = stage.open(database=stage.sandbox.database)
        owner.connection.execute(SQL("CREATE SCHEMA {}").format(Identifier(stage.app.name)))
        owner.connection.execute(f"CREATE TABLE {self._name} ()".encode())

    def locked_by(self, client: Client, mode: str = "ACCESS SHARE") -> Client:
        """The client, idle in a transaction that holds the lock."""
        client.run("BEGIN")
        client.connection.execute(self._lock(mode).encode())
        return client

    def awaited_by(self, client: Client, mode: str) -> Client:
        """The client, in a transaction that waits for the lock."""
        client.run("BEGIN")
        client.start(self._lock(mode))
        until(lambda: self._stage.admin.execute(WAITS, (client.pid,)).fetchone() == (True,))
        return client

    def open(self) -> Client:
        """A client of its database."""
        return self._stage.open(database=self._stage.sandbox.database)

    def _lock(self, mode: str) -> str:
        return f"LOCK TABLE {self._name} IN {mode} MODE"


@pytest.fixture
def table(stage: Stage) -> Table:
    database = Identifier(stage.sandbox.database)
    stage.admin.execute(SQL("GRANT CREATE ON DATABASE {} TO {}").format(database, Identifier(stage.app.name)))
    return Table(stage)


def test_holders_of_advisory_locks_are_observed(stage: Stage) -> None:
    by_session, by_transaction, without = stage.open(), stage.open(), stage.open()
    by_session.hold_advisory_lock(1)
    by_transaction.run("BEGIN")
    by_transaction.run("SELECT pg_advisory_xact_lock_shared(2)")

    holders = stage.reaper.look().facts.advisory_lock_holders

    assert holders is not None
    assert holders >= {by_session.pid, by_transaction.pid}
    assert without.pid not in holders


def test_the_root_of_a_queue_blocks_all_sessions_behind_it(stage: Stage, table: Table) -> None:
    root = table.locked_by(table.open())
    first = table.awaited_by(table.open(), "ACCESS EXCLUSIVE")
    second = table.awaited_by(table.open(), "ACCESS SHARE")
    third = table.awaited_by(table.open(), "ROW SHARE")

    facts = stage.reaper.look().facts
    waiters, blockers = facts.waiters, facts.blockers

    assert waiters is not None
    assert blockers is not None
    assert waiters[root.pid] == 3
    assert waiters[first.pid] == 2
    assert {second.pid, third.pid}.isdisjoint(waiters)
    assert blockers[first.pid] == {root.pid}
    candidate = stage.reaper.chosen(root, policy(stage.application, BLOCKING))
    assert candidate.reason.endswith("blocks 3 sessions")
    assert stage.reaper.act(candidate).result is Result.TERMINATED
    assert first.finish() is None


def test_a_lock_without_waiters_is_not_blocking(stage: Stage, table: Table) -> None:
    harmless = table.locked_by(table.open())

    skip = stage.reaper.skipped(harmless, policy(stage.application, BLOCKING))

    assert skip.by is SkipReason.UNMATCHED


def test_a_waiting_session_that_blocks_others_matches_only_as_active(stage: Stage, table: Table) -> None:
    table.locked_by(table.open())
    between = table.awaited_by(table.open(), "ACCESS EXCLUSIVE")
    table.awaited_by(table.open(), "ACCESS SHARE")
    running = Match(states=(ACTIVE,), running_for=NOW, blocking=True)

    assert stage.reaper.skipped(between, policy(stage.application, BLOCKING)).by is SkipReason.UNMATCHED
    stage.reaper.chosen(between, policy(stage.application, running))


def test_a_blocker_without_waiters_at_the_moment_of_the_signal_is_not_touched(
    stage: Stage, table: Table
) -> None:
    root = table.locked_by(table.open())
    waiter = table.awaited_by(table.open(), "ACCESS EXCLUSIVE")
    candidate = stage.reaper.chosen(root, policy(stage.application, BLOCKING))
    stage.admin.execute("SELECT pg_cancel_backend(%s)", (waiter.pid,))
    assert waiter.finish() == "57014"

    outcome = stage.reaper.act(candidate)

    assert (outcome.result, outcome.detail) == (Result.CHANGED, "no other session waits for it any more")
    assert root.alive()


def test_a_blocker_that_has_exited_is_gone(stage: Stage, table: Table) -> None:
    root = table.locked_by(table.open())
    waiter = table.awaited_by(table.open(), "ACCESS EXCLUSIVE")
    candidate = stage.reaper.chosen(root, policy(stage.application, BLOCKING))
    root.close()
    until(root.left)
    assert waiter.finish() is None

    assert stage.reaper.act(candidate).result is Result.GONE


def test_a_prepared_transaction_that_blocks_others_is_no_session(start_stage: StartStage) -> None:
    stage = start_stage(max_prepared_transactions="2")
    preparing = stage.open()
    preparing.run("BEGIN")
    preparing.run("SELECT pg_advisory_xact_lock(1)")
    preparing.run("PREPARE TRANSACTION 'forgotten'")
    waiter = stage.open()
    waiter.start("SELECT pg_advisory_lock(1)")
    until(lambda: stage.admin.execute(WAITS, (waiter.pid,)).fetchone() == (True,))

    facts = stage.reaper.look().facts

    assert facts.waiters == {}
    assert facts.advisory_lock_holders == frozenset()
    stage.admin.execute("ROLLBACK PREPARED 'forgotten'")
    assert waiter.finish() is None


HOLDERS: Final[dict[str, Callable[[Client], object]]] = {
    "a transaction id": lambda client: client.run("SELECT txid_current()"),
    "an open cursor": lambda client: client.connection.execute(
        "DECLARE held CURSOR FOR SELECT * FROM pg_class"
    ),
    "a repeatable read": lambda client: client.run("SELECT count(*) FROM pg_class"),
}


def burn(stage: Stage, transactions: int) -> None:
    for _ in range(transactions):
        stage.admin.execute("SELECT txid_current()")


@pytest.mark.parametrize("hold", HOLDERS.values(), ids=list(HOLDERS))
def test_the_xid_age_of_a_session_that_holds_back_vacuum_is_observed(
    stage: Stage, hold: Callable[[Client], object]
) -> None:
    client = stage.open()
    level = "REPEATABLE READ" if hold is HOLDERS["a repeatable read"] else "READ COMMITTED"
    client.connection.execute(f"BEGIN ISOLATION LEVEL {level}".encode())
    hold(client)
    held = policy(stage.application, replace(IDLE_IN_TRANSACTION, xmin_age=20))
    assert stage.reaper.skipped(client, held).by is SkipReason.UNMATCHED

    burn(stage, 21)

    candidate = stage.reaper.chosen(client, held)
    assert candidate.session.xid_age is not None
    assert candidate.session.xid_age >= 20
    assert "xmin age 2" in candidate.reason
    assert stage.reaper.act(candidate).result is Result.TERMINATED


def test_a_transaction_that_only_read_holds_nothing_back(stage: Stage) -> None:
    client = stage.open(state="idle in transaction")
    burn(stage, 5)

    assert stage.reaper.see(client).xid_age is None
    skip = stage.reaper.skipped(client, policy(stage.application, replace(IDLE_IN_TRANSACTION, xmin_age=0)))
    assert skip.by is SkipReason.UNMATCHED
