"""The role of deploy/sql/grants.sql does all of the work, and each of its grants is needed for something."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final, LiteralString

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from reaper.demo.server import EmbeddedServer
from reaper.policy.plan import Result, SkipReason
from reaper.policy.rules import Rules
from reaper.policy.time import SECOND, Duration
from reaper.postgres.errors import Unreachable
from reaper.postgres.leadership import LeaderLock, Leadership
from reaper.postgres.preflight import Level, inspect

from . import majors
from .clients import Client, Clients
from .reaping import Reaper, policy
from .sandbox import Role
from .waiting import until

GRANTS: Final = (Path(__file__).parents[2] / "deploy" / "sql" / "grants.sql").read_bytes()
WEB: Final = policy("web")
BY_HAND: Final = "CREATE ROLE reaper NOLOGIN NOINHERIT; GRANT pg_read_all_stats TO reaper"
SLOTS: Final = 16
MEMBERSHIPS: Final = """
    SELECT r.rolname, g.rolname FROM pg_auth_members m
      JOIN pg_roles r ON r.oid = m.member JOIN pg_roles g ON g.oid = m.roleid WHERE r.rolname !~ '^pg_'
"""
ATTRIBUTES: Final = """
    SELECT rolsuper, rolcreatedb, rolcreaterole, rolreplication, rolbypassrls,
           rolinherit, rolcanlogin, rolconnlimit
      FROM pg_roles WHERE rolname = 'reaper'
"""


class Place:
    """A server where grants.sql was run, and clients of other roles."""

    def __init__(self, server: EmbeddedServer, admin: psycopg.Connection, clients: Clients) -> None:
        self.server, self.admin, self._clients = server, admin, clients
        self.dsn = make_conninfo(server.dsn, user="reaper")
        admin.execute(GRANTS)  # which grants again what an earlier test has revoked

    def client(self, application: str = "web") -> Client:
        app = Role(name="app", dsn=make_conninfo(self.server.dsn, user="app"))
        return self._clients.open(role=app, application=application)

    def levels(self) -> Mapping[str, Level]:
        """The level of each check of the preflight that is not fine, for policies that enforce."""
        with Reaper(self.dsn) as reaper:
            found = inspect(reaper.link, reaper.probe, Rules(policies=(WEB,)), dry_run=False)
        return {each.check: each.level for each in found if each.level is not Level.FINE}

    def act(self, client: Client) -> Result:
        """The result of terminating a client of another role."""
        with Reaper(self.dsn) as reaper:
            return reaper.act(reaper.chosen(client, WEB)).result

    def fill(self, stack: ExitStack) -> None:
        """Take every slot that an ordinary role can get."""
        with suppress(psycopg.OperationalError):
            for _ in range(SLOTS):
                stack.enter_context(psycopg.connect(self.server.dsn, user="app"))


@pytest.fixture(scope="module")
def prepared(major: int) -> Iterator[EmbeddedServer]:
    """Not the shared server: the name of the role is not the test's to choose."""
    settings = {"max_connections": str(SLOTS), **({"reserved_connections": "2"} if major >= 16 else {})}
    with EmbeddedServer(binaries=majors.installation(major), settings=settings) as server:
        with psycopg.connect(server.dsn, autocommit=True) as admin:
            admin.execute(
                "CREATE ROLE app LOGIN; CREATE TABLE customers (); GRANT SELECT ON customers TO app"
            )
        yield server


@pytest.fixture
def place(prepared: EmbeddedServer) -> Iterator[Place]:
    server = prepared
    with psycopg.connect(server.dsn, autocommit=True) as admin, Clients(server.dsn) as clients:
        yield Place(server, admin, clients)


@pytest.mark.parametrize(
    "before", [None, "CREATE ROLE reaper NOLOGIN NOINHERIT; GRANT pg_read_all_stats TO reaper"]
)
def test_the_role_has_all_rights_that_it_needs_and_no_other(
    place: Place, before: LiteralString | None
) -> None:
    if before:
        place.admin.execute("DROP ROLE reaper")
        place.admin.execute(before)

    place.admin.execute(GRANTS)

    assert place.levels() == {}


def test_an_administrator_who_may_not_grant_everything_gets_a_warning_and_the_rest(
    place: Place, major: int
) -> None:
    place.admin.execute("DROP ROLE reaper")
    place.admin.execute("CREATE ROLE administrator LOGIN CREATEROLE")
    place.admin.execute("GRANT pg_read_all_stats, pg_signal_backend TO administrator WITH ADMIN OPTION")
    notices: list[str] = []

    dsn = make_conninfo(place.server.dsn, user="administrator")
    with psycopg.connect(dsn, autocommit=True) as administrator:
        administrator.add_notice_handler(lambda notice: notices.append(notice.message_primary or ""))
        administrator.execute(GRANTS)

    warnings = [text for text in notices if text.startswith("not granted: ")]
    assert len(warnings) == (1 if major >= 16 else 0)
    with Reaper(place.dsn) as reaper:
        assert reaper.probe.reads_all
        assert reaper.probe.signals
    place.admin.execute("DROP OWNED BY administrator CASCADE; DROP ROLE reaper; DROP ROLE administrator")


def test_it_observes_finds_facts_leads_terminates_and_counts_with_that_role(place: Place, major: int) -> None:
    client, holder, waiter = place.client(), place.client("holder"), place.client("waiter")
    holder.hold_advisory_lock(1)
    waiter.start("SELECT pg_advisory_lock(1)")

    with Reaper(place.dsn, lease=Duration(60 * SECOND)) as reaper:
        looked = reaper.look()
        skipped = reaper.skipped(holder, policy("holder"))
        leads = reaper.do(Leadership(reaper.link, lock=LeaderLock.ENFORCING, role="reaper").seek())
        before = killed(reaper) if major >= 14 else 0
        result = reaper.act(reaper.chosen(client, WEB)).result
        if major >= 14:
            until(lambda: killed(reaper) == before + 1)

    assert looked.unreadable == 0
    assert {session.identity.role for session in looked.sessions} >= {"app"}
    assert skipped.by is SkipReason.PROTECTION
    assert leads
    assert result is Result.TERMINATED
    assert not client.present()


def killed(reaper: Reaper) -> int:
    """What the server itself has counted."""
    ((count,),) = reaper.rows("SELECT sessions_killed FROM pg_stat_database WHERE datname = 'postgres'")
    return int(count)


def test_it_reads_no_table_and_calls_itself_nothing_else(place: Place) -> None:
    with psycopg.connect(place.dsn, autocommit=True) as reaper:
        for deed in (
            "SELECT FROM customers",
            "CREATE ROLE another",
            "CREATE DATABASE another",
            "SELECT pg_read_file('postgresql.conf')",
            "COPY (SELECT 1) TO PROGRAM 'true'",
            "SELECT passwd FROM pg_shadow",
            "ALTER SYSTEM SET work_mem = '1MB'",
            "SET ROLE app",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                reaper.execute(deed.encode())


def test_nothing_else_was_granted(place: Place, major: int) -> None:
    named = ["pg_read_all_stats", "pg_signal_backend", *(["pg_use_reserved_connections"] * (major >= 16))]

    assert sorted(place.admin.execute(MEMBERSHIPS).fetchall()) == [("reaper", group) for group in named]
    assert place.admin.execute(ATTRIBUTES).fetchall() == [(*[False] * 5, True, True, 3)]


def test_without_pg_read_all_stats_it_is_blind(place: Place) -> None:
    assert "visibility" not in place.levels()

    place.admin.execute("REVOKE pg_read_all_stats FROM reaper")

    assert place.levels()["visibility"] is Level.REFUSAL


def test_without_pg_signal_backend_it_is_denied(place: Place) -> None:
    client = place.client()

    place.admin.execute("REVOKE pg_signal_backend FROM reaper")

    assert place.levels()["rights"] is Level.REFUSAL
    assert place.act(client) is Result.DENIED
    assert client.alive()


@pytest.mark.parametrize("group", ["pg_read_all_stats", "pg_signal_backend"])
def test_without_inheriting_a_grant_it_is_as_if_there_were_none(
    place: Place, major: int, group: LiteralString
) -> None:
    place.admin.execute(
        "GRANT " + group + " TO reaper WITH INHERIT FALSE" if major >= 16 else "ALTER ROLE reaper NOINHERIT"
    )

    assert ("visibility" if group == "pg_read_all_stats" else "rights") in place.levels()


def test_without_login_it_stays_out(place: Place) -> None:
    place.admin.execute("ALTER ROLE reaper NOLOGIN")

    with pytest.raises(Unreachable, match="not permitted to log in"):
        Reaper(place.dsn)


def test_from_16_on_it_gets_in_when_the_slots_are_full_and_without_that_grant_it_does_not(
    place: Place, major: int
) -> None:
    with ExitStack() as everybody:
        place.fill(everybody)
        if major >= 16:
            Reaper(place.dsn).__exit__()
            place.admin.execute("REVOKE pg_use_reserved_connections FROM reaper")
        with pytest.raises(Unreachable, match="remaining connection slots are reserved"):
            Reaper(place.dsn)


def test_three_connections_are_let_in_and_a_fourth_is_not(place: Place) -> None:
    with Reaper(place.dsn), Reaper(place.dsn), Reaper(place.dsn):
        with pytest.raises(Unreachable, match="too many connections for role"):
            Reaper(place.dsn)

        place.admin.execute("ALTER ROLE reaper CONNECTION LIMIT -1")
        Reaper(place.dsn).__exit__()
