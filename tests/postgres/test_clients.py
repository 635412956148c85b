"""The clients, roles and databases that the tests use are what they are called."""

import psycopg
import pytest

from .clients import Clients, State
from .sandbox import Role, Sandbox
from .server import Server
from .waiting import until


@pytest.mark.parametrize("state", ["idle", "idle in transaction", "idle in transaction (aborted)", "active"])
def test_a_client_is_in_its_state_when_it_is_handed_out(clients: Clients, state: State) -> None:
    client = clients.open(state=state)

    assert client.state() == state
    assert client.alive()
    assert client.state() == state


def test_a_client_is_who_it_says(clients: Clients, sandbox: Sandbox, admin: psycopg.Connection) -> None:
    role = sandbox.role("web")

    client = clients.open(role=role, database=sandbox.database, application=sandbox.name("checkout"))

    assert admin.execute(
        "SELECT pid, backend_start, usename, datname FROM pg_stat_activity WHERE application_name = %s",
        (sandbox.name("checkout"),),
    ).fetchall() == [(client.pid, client.backend_start, role.name, sandbox.database)]


@pytest.mark.parametrize("state", ["idle", "active"])
def test_a_terminated_client_is_not_alive(clients: Clients, state: State) -> None:
    client = clients.open(state=state)

    clients.terminate(client)

    until(lambda: not client.alive())
    until(client.left)


def test_a_cancelled_statement_leaves_its_client_alive(clients: Clients, admin: psycopg.Connection) -> None:
    client = clients.open(state="active")

    admin.execute("SELECT pg_cancel_backend(%s)", (client.pid,))

    assert client.finish() == "57014"
    assert client.alive()


def test_waking_moves_the_age_of_an_aborted_transaction(clients: Clients, admin: psycopg.Connection) -> None:
    client = clients.open(state="idle in transaction (aborted)")
    changed = "SELECT state_change FROM pg_stat_activity WHERE pid = %s"
    before = admin.execute(changed, (client.pid,)).fetchone()

    client.wake()

    assert admin.execute(changed, (client.pid,)).fetchone() != before
    assert client.state() == "idle in transaction (aborted)"


def test_listeners_and_lock_holders_are_seen_as_such(clients: Clients, admin: psycopg.Connection) -> None:
    client = clients.open()

    client.hold_advisory_lock(7)
    client.listen("news")

    assert admin.execute(
        "SELECT locktype, query FROM pg_locks JOIN pg_stat_activity USING (pid)"
        " WHERE pid = %s AND locktype = 'advisory'",
        (client.pid,),
    ).fetchall() == [("advisory", 'LISTEN "news"')]


def test_nobody_is_left_when_clients_are_closed(server: Server, sandbox: Sandbox) -> None:
    name = sandbox.name("leaver")
    with Clients(server.dsn) as some:
        for state in ("idle", "active"):
            some.open(application=name, state=state)

    assert sandbox.admin.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s", (name,)
    ).fetchone() == (0,)


def test_nothing_is_left_of_a_sandbox(server: Server) -> None:
    with Sandbox(server) as sandbox:
        role = sandbox.role("owner", member_of=["pg_read_all_stats"], options="NOINHERIT")
        with psycopg.connect(role.dsn) as connection:
            assert connection.execute("SELECT current_user").fetchone() == (role.name,)
        sandbox.admin.execute("SELECT 1")
        assert sandbox.database.startswith(sandbox.prefix)
        pattern = f"{sandbox.prefix}%"

    with psycopg.connect(server.dsn) as connection:
        assert (
            connection.execute(
                "SELECT rolname FROM pg_roles WHERE rolname LIKE %(p)s"
                " UNION ALL SELECT datname FROM pg_database WHERE datname LIKE %(p)s",
                {"p": pattern},
            ).fetchall()
            == []
        )


def test_the_reapers_role_has_its_two_rights_and_no_more(reaper_role: Role) -> None:
    with psycopg.connect(reaper_role.dsn) as connection:
        rights = connection.execute(
            "SELECT pg_has_role('pg_read_all_stats', 'USAGE'), pg_has_role('pg_signal_backend', 'USAGE'),"
            " rolsuper FROM pg_roles WHERE rolname = current_user"
        ).fetchone()
    assert rights == (True, True, False)
