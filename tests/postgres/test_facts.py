"""The dearer facts: who holds up whom, who holds advisory locks, and who holds back vacuum."""

from collections.abc import Callable
from dataclasses import replace
from typing import Final

import pytest
from psycopg.sql import SQL, Identifier

from reaper.policy.match import Match
from reaper.policy.plan import Result, Spared
from reaper.policy.session import ACTIVE, IN_TRANSACTION

from .clients import Client
from .conftest import StartStage
from .reaping import NOW, policy
from .stage import Stage
from .waiting import until

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


def test_holders_of_session_and_transaction_locks_are_known(stage: Stage) -> None:
    by_session, by_transaction, without = stage.open(), stage.open(), stage.open()
    by_session.hold_advisory_lock(1)
    by_transaction.run("BEGIN")
    by_transaction.run("SELECT pg_advisory_xact_lock_shared(2)")

    holders = stage.reaper.look().facts.advisory_lock_holders

    assert holders is not None
    assert holders >= {by_session.pid, by_transaction.pid}
    assert without.pid not in holders


def test_the_root_of_a_queue_holds_up_everybody_behind_it(stage: Stage, table: Table) -> None:
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
    reap = stage.reaper.condemn(root, policy(stage.application, BLOCKING))
    assert reap.reason.endswith("holds up 3 sessions")
    assert stage.reaper.act(reap).result is Result.TERMINATED
    assert first.finish() is None


def test_who_holds_up_nobody_is_not_blocking(stage: Stage, table: Table) -> None:
    harmless = table.locked_by(table.open())

    spare = stage.reaper.spared(harmless, policy(stage.application, BLOCKING))

    assert spare.by is Spared.UNMATCHED


def test_who_waits_for_others_is_no_root_and_can_be_cancelled_only_by_name_of_its_state(
    stage: Stage, table: Table
) -> None:
    table.locked_by(table.open())
    between = table.awaited_by(table.open(), "ACCESS EXCLUSIVE")
    table.awaited_by(table.open(), "ACCESS SHARE")
    running = Match(states=(ACTIVE,), running_for=NOW, blocking=True)

    assert stage.reaper.spared(between, policy(stage.application, BLOCKING)).by is Spared.UNMATCHED
    stage.reaper.condemn(between, policy(stage.application, running))


def test_when_nobody_waits_any_more_at_the_moment_of_the_act_the_blocker_lives(
    stage: Stage, table: Table
) -> None:
    root = table.locked_by(table.open())
    waiter = table.awaited_by(table.open(), "ACCESS EXCLUSIVE")
    reap = stage.reaper.condemn(root, policy(stage.application, BLOCKING))
    stage.admin.execute("SELECT pg_cancel_backend(%s)", (waiter.pid,))
    assert waiter.finish() == "57014"

    outcome = stage.reaper.act(reap)

    assert (outcome.result, outcome.detail) == (Result.WOKE, "no other session waits for it any more")
    assert root.alive()


def test_a_blocker_that_has_left_is_gone_whether_or_not_anybody_waits(stage: Stage, table: Table) -> None:
    root = table.locked_by(table.open())
    waiter = table.awaited_by(table.open(), "ACCESS EXCLUSIVE")
    reap = stage.reaper.condemn(root, policy(stage.application, BLOCKING))
    root.close()
    until(root.left)
    assert waiter.finish() is None

    assert stage.reaper.act(reap).result is Result.GONE


def test_a_prepared_transaction_that_holds_up_others_is_no_session(start_stage: StartStage) -> None:
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
def test_who_keeps_old_rows_from_vacuum_is_known_by_how_many_transactions(
    stage: Stage, hold: Callable[[Client], object]
) -> None:
    client = stage.open()
    level = "REPEATABLE READ" if hold is HOLDERS["a repeatable read"] else "READ COMMITTED"
    client.connection.execute(f"BEGIN ISOLATION LEVEL {level}".encode())
    hold(client)
    held = policy(stage.application, replace(IDLE_IN_TRANSACTION, holds_back_vacuum=20))
    assert stage.reaper.spared(client, held).by is Spared.UNMATCHED

    burn(stage, 21)

    reap = stage.reaper.condemn(client, held)
    assert reap.session.xid_age is not None
    assert reap.session.xid_age >= 20
    assert "holds back vacuum by 2" in reap.reason
    assert stage.reaper.act(reap).result is Result.TERMINATED


def test_a_transaction_that_only_read_holds_nothing_back(stage: Stage) -> None:
    client = stage.open(state="idle in transaction")
    burn(stage, 5)

    assert stage.reaper.see(client).xid_age is None
    spare = stage.reaper.spared(
        client, policy(stage.application, replace(IDLE_IN_TRANSACTION, holds_back_vacuum=0))
    )
    assert spare.by is Spared.UNMATCHED
