"""The facts about a server for advice, read with the least role."""

from contextlib import ExitStack
from typing import Final

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Identifier

from reaper.insight.advice.server_facts import ServerFacts
from reaper.policy.time import parse_duration
from reaper.postgres.server_facts import read_server_facts

from .conftest import StartStage
from .reaping import Reaper
from .stage import Stage
from .waiting import until

CAME_WITH: Final = {
    "idle_in_transaction_session_timeout": 13,
    "idle_session_timeout": 14,
    "client_connection_check_interval": 14,
    "reserved_connections": 16,
    "transaction_timeout": 17,
}


def read(stage: Stage, reaper: Reaper | None = None) -> ServerFacts:
    reaper = reaper or stage.reaper
    return reaper.do(read_server_facts(reaper.link, reaper.probe))


@pytest.mark.parametrize("name", CAME_WITH)
def test_a_setting_is_reported_where_the_server_has_it(stage: Stage, name: str) -> None:
    shown = name in read(stage).settings

    assert shown is (stage.server.major >= CAME_WITH[name])


def test_settings_are_those_of_the_server_and_not_of_our_own_connection(start_stage: StartStage) -> None:
    stage = start_stage(work_mem="7MB", idle_in_transaction_session_timeout="61s", tcp_keepalives_idle="77")
    tuned = stage.reaper
    with ExitStack() as stack:
        plain = stack.enter_context(Reaper(stage.role.dsn, tuned=False))

        assert read(stage, plain).number("work_mem") == 7 * 1024
        assert read(stage, plain).number("idle_in_transaction_session_timeout") == 61_000
        assert read(stage, plain).number("tcp_keepalives_idle") == 77
        # Our own keepalives are not those of others: nothing is shown rather than the wrong thing.
        assert read(stage, tuned).number("tcp_keepalives_idle") is None


def test_our_own_lease_is_not_taken_for_the_servers_timeout(start_stage: StartStage) -> None:
    stage = start_stage()
    if stage.server.major < CAME_WITH["idle_session_timeout"]:
        assert read(stage).number("idle_session_timeout") is None
        return
    with Reaper(stage.role.dsn, lease=parse_duration("1m")) as leased:
        assert read(stage, leased).number("idle_session_timeout") == 0


def test_a_timeout_of_a_role_a_database_or_both_is_found(stage: Stage) -> None:
    name, database = "idle_in_transaction_session_timeout", stage.sandbox.database
    stage.set(stage.app, name, "2min")
    stage.admin.execute(
        SQL("ALTER ROLE {} IN DATABASE {} SET idle_in_transaction_session_timeout = '90s'").format(
            Identifier(stage.app.name), Identifier(database)
        )
    )
    ground = read(stage)

    assert ground.limit(name, stage.app.name, "postgres") == parse_duration("2m")
    assert ground.limit(name, stage.app.name, database) == parse_duration("90s")
    assert ground.limit(name, stage.role.name, "postgres") == 0


def test_roles_with_sessions_are_reported_with_their_limit(stage: Stage) -> None:
    limited = stage.sandbox.role('lim"ited', options="CONNECTION LIMIT 4")
    stage.open(role=limited)
    stage.open()
    roles = read(stage).roles

    assert (roles[limited.name].limit, roles[limited.name].superuser) == (4, False)
    assert (roles[stage.app.name].limit, roles[stage.app.name].superuser) == (-1, False)
    assert roles["postgres"].superuser


def test_a_transaction_that_was_prepared_and_forgotten_is_found(start_stage: StartStage) -> None:
    stage = start_stage(max_prepared_transactions="2")
    client = stage.open()
    client.run("BEGIN")
    client.run("SELECT pg_current_xact_id()")
    client.run("PREPARE TRANSACTION 'it''s here'")

    (found,) = read(stage).prepared

    assert (found.gid, found.database, found.owner) == ("it's here", "postgres", stage.app.name)
    assert found.xid_age is not None
    stage.admin.execute("ROLLBACK PREPARED 'it''s here'")


def test_an_unused_replication_slot_is_found(start_stage: StartStage) -> None:
    stage = start_stage()
    assert read(stage).idle_slots == ()
    stage.admin.execute("SELECT pg_create_physical_replication_slot('old', true)")

    (found,) = read(stage).idle_slots

    assert (found.name, found.kind) == ("old", "physical")
    assert found.retained is not None


def test_the_sessions_that_the_server_has_counted_grow_with_those_that_come(stage: Stage) -> None:
    before = read(stage).opened
    if stage.server.major < CAME_WITH["idle_session_timeout"]:
        assert before is None
        return
    assert before is not None
    for _ in range(3):
        psycopg.connect(make_conninfo(stage.app.dsn)).close()

    until(lambda: (read(stage).opened or 0) >= before + 3)
