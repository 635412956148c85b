"""The role that deploy/sql/grants.sql makes: enough for the reaper, and no more."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from reaper.demo.server import EmbeddedServer
from reaper.policy.rules import Rules
from reaper.postgres.preflight import Level, inspect

from .conftest import StartServer
from .reaping import Reaper, policy

GRANTS: Final = (Path(__file__).parents[2] / "deploy" / "sql" / "grants.sql").read_bytes()
ENFORCING: Final = Rules(policies=(policy("web"),))

# Not the shared server: the name of the role is not the test's to choose.


@pytest.fixture
def server(start_server: StartServer, major: int) -> EmbeddedServer:
    return start_server(**({"reserved_connections": "2"} if major >= 16 else {}))


@pytest.fixture
def admin(server: EmbeddedServer) -> Iterator[psycopg.Connection]:
    with psycopg.connect(server.dsn, autocommit=True) as admin:
        yield admin


def troubles(server: EmbeddedServer) -> list[str]:
    """What `reaper check` would find to mend for the role, if its policies enforce."""
    with Reaper(make_conninfo(server.dsn, user="reaper")) as reaper:
        found = inspect(reaper.link, reaper.probe, ENFORCING, dry_run=False)
    return [each.finding for each in found if each.level is not Level.FINE]


@pytest.mark.parametrize("times", [1, 2])
def test_the_role_lacks_nothing_and_has_nothing_too_much(
    server: EmbeddedServer, admin: psycopg.Connection, times: int
) -> None:
    for _ in range(times):
        admin.execute(GRANTS)

    assert troubles(server) == []


def test_a_role_that_was_made_by_hand_is_mended(server: EmbeddedServer, admin: psycopg.Connection) -> None:
    admin.execute("CREATE ROLE reaper NOLOGIN NOINHERIT; GRANT pg_read_all_stats TO reaper")

    admin.execute(GRANTS)

    assert troubles(server) == []


def test_an_administrator_who_may_not_grant_everything_is_told_and_gets_the_rest(
    server: EmbeddedServer, admin: psycopg.Connection, major: int
) -> None:
    admin.execute("CREATE ROLE administrator LOGIN CREATEROLE")
    admin.execute("GRANT pg_read_all_stats, pg_signal_backend TO administrator WITH ADMIN OPTION")
    told: list[str | None] = []

    with psycopg.connect(make_conninfo(server.dsn, user="administrator"), autocommit=True) as administrator:
        administrator.add_notice_handler(lambda notice: told.append(notice.message_primary))
        administrator.execute(GRANTS)

    warnings = [said for said in told if said and said.startswith("not granted: ")]
    assert len(warnings) == (1 if major >= 16 else 0)
    with Reaper(make_conninfo(server.dsn, user="reaper")) as reaper:
        assert reaper.probe.reads_all
        assert reaper.probe.signals
