"""Any number of replicas: at each server one of them acts, and another when that one is gone."""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Identifier

from reaper.demo.server import EmbeddedServer
from tests.postgres.clients import Clients
from tests.postgres.proxy import Pooler, Proxy
from tests.postgres.sandbox import Role, Sandbox
from tests.postgres.server import Server
from tests.postgres.waiting import PATIENCE, until

from .command import Life, Reaper
from .policies import FILE, leaked, policy_file
from .service import events, outcomes, sessions_of

_LEASE: Final = 20 + PATIENCE
"""More than the shortest lease, and the time in which a standby asks again."""


@pytest.fixture
def home(sandbox: Sandbox, reaper_role: Role) -> Role:
    """The reaper's way into a database of this test's own: a lead is a database's."""
    return Role(reaper_role.name, make_conninfo(reaper_role.dsn, dbname=sandbox.database))


@pytest.fixture
def replicas(tmp_path: Path, home: Role, clients: Clients) -> Iterator[Reaper]:
    """The command, to be started more than once."""
    assert isinstance(clients, Clients)  # opened before, and so closed after the command has ended
    with Reaper(tmp_path, REAPER_DSN=home.dsn) as reaper:
        yield reaper


def replica(replicas: Reaper, name: str, *options: str, dsn: str | None = None) -> Life:
    """One that keeps a record of its own, and may have a way in of its own."""
    record = ("--audit-log", f"{name}.jsonl", "--listen", "off", "--log-level", "debug")
    way_in = dsn or replicas.environment["REAPER_DSN"]
    return replicas.start("run", *record, *options, REAPER_DSN=way_in)


def leader_and_standby(replicas: Reaper, dsn: str | None = None) -> tuple[Life, Life]:
    leader = replica(replicas, "first", dsn=dsn)
    leader.logged("leader.acquired")
    standby = replica(replicas, "second")
    standby.logged("leader.standby")
    return leader, standby


def done_by(replicas: Reaper, name: str) -> dict[str, str]:
    return outcomes(replicas.record(f"{name}.jsonl"))


def test_exactly_one_acts_and_the_other_names_it_once(
    replicas: Reaper, home: Role, app: Role, clients: Clients, admin: psycopg.Connection
) -> None:
    replicas.write(FILE, policy_file(leaked(app)))
    leader = replica(replicas, "first")
    leader.logged("leader.acquired")
    ((pid, _),) = sessions_of(admin, home)
    standby = replica(replicas, "second")
    standby.logged("leader.standby")

    for number in range(3):
        until(clients.open(role=app, application=f"leak-{number}").left)
        leader.logged("cycle.acted", times=number + 1)

    assert done_by(replicas, "first") == {f"leak-{number}": "terminated" for number in range(3)}
    assert done_by(replicas, "second") == {}
    (told,) = events(standby, "leader.standby")
    assert f"another reaper leads: pid {pid}, role {home.name}" in told["why"]
    assert told["level"] == "info"
    assert standby.end().log[-1]["cycles"] == 0


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_another_takes_over_when_the_leader_ends(
    replicas: Reaper, app: Role, clients: Clients, number: signal.Signals
) -> None:
    replicas.write(FILE, policy_file(leaked(app)))
    leader, standby = leader_and_standby(replicas)
    leader.end(number)

    standby.logged("leader.acquired")
    until(clients.open(role=app, application="leak").left)
    replicas.recorded("session.outcome", name="second.jsonl", application="leak", outcome="terminated")

    assert done_by(replicas, "first") == {}


def test_a_frozen_leader_is_replaced_and_comes_back_as_a_standby_that_has_touched_nobody(
    replicas: Reaper, app: Role, clients: Clients, server: Server
) -> None:
    if server.major < 14:
        pytest.skip("idle_session_timeout, which the lease is made of, came with 14")
    replicas.write(FILE, policy_file(leaked(app, idle_for="1s")))
    leader, standby = leader_and_standby(replicas)
    leader.send(signal.SIGSTOP)

    until(lambda: standby.has_logged("leader.acquired"), within=_LEASE)
    leak = clients.open(role=app, application="leak")
    leader.send(signal.SIGCONT)
    leader.logged("leader.standby")
    until(leak.left)
    replicas.recorded("session.outcome", name="second.jsonl", application="leak", outcome="terminated")

    assert done_by(replicas, "first") == {}
    assert [event["event"] for event in events(leader, "server.unreachable")] == ["server.unreachable"]
    assert len(events(leader, "server.connected")) == 2
    assert len(events(leader, "leader.acquired")) == 1


def test_another_takes_over_when_the_leader_is_cut_off_and_the_old_one_comes_back_as_a_standby(
    replicas: Reaper, home: Role, app: Role, clients: Clients, proxy: Proxy
) -> None:
    replicas.write(FILE, policy_file(leaked(app)))
    leader, standby = leader_and_standby(replicas, proxy.dsn(home.dsn))
    proxy.cut()
    standby.logged("leader.acquired")
    leader.logged("server.unreachable")
    proxy.restore()
    leader.logged("leader.standby")

    until(clients.open(role=app, application="leak").left)
    replicas.recorded("session.outcome", name="second.jsonl", application="leak", outcome="terminated")

    assert done_by(replicas, "first") == {}


def test_a_leader_whose_session_is_terminated_may_lead_again_but_two_never_do(
    replicas: Reaper, home: Role, app: Role, clients: Clients, admin: psycopg.Connection
) -> None:
    replicas.write(FILE, policy_file(leaked(app)))
    leader, standby = leader_and_standby(replicas)
    admin.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = %s",
        (sessions_of(admin, home)[0][0],),
    )
    leader.logged("server.connected", times=2)

    until(clients.open(role=app, application="leak").left)
    until(lambda: len(done_by(replicas, "first")) + len(done_by(replicas, "second")) == 1)

    leads_now = [
        len(events(life, "leader.acquired")) - len(events(life, "server.unreachable"))
        for life in (leader, standby)
    ]
    assert sum(leads_now) == 1


def test_after_a_restart_of_the_server_one_of_two_acts(tmp_path: Path, own_server: EmbeddedServer) -> None:
    with psycopg.connect(own_server.dsn, autocommit=True) as connection:
        connection.execute("CREATE ROLE app LOGIN")
        connection.execute("CREATE ROLE reaper LOGIN IN ROLE pg_read_all_stats, pg_signal_backend")
    app = Role("app", make_conninfo(own_server.dsn, user="app"))
    with Reaper(tmp_path, REAPER_DSN=make_conninfo(own_server.dsn, user="reaper")) as replicas:
        replicas.write(FILE, policy_file(leaked(app)))
        both = leader_and_standby(replicas)
        own_server.restart()
        for life in both:
            life.logged("server.connected", times=2)
        with Clients(own_server.dsn) as clients:
            until(clients.open(role=app, application="leak").left)
        for life in both:
            life.end()
        done = [done_by(replicas, name) for name in ("first", "second")]
        assert sorted(done, key=len) == [{}, {"leak": "terminated"}]


def test_a_rehearsal_and_an_enforcing_reaper_do_not_stand_in_each_others_way(
    replicas: Reaper, app: Role, clients: Clients
) -> None:
    leak = clients.open(role=app, application="leak")
    replicas.write(FILE, policy_file(leaked(app)))
    dry = replica(replicas, "dry", "--dry-run")
    replicas.recorded("session.outcome", name="dry.jsonl", outcome="dry-run")
    assert leak.present()

    real = replica(replicas, "real")
    until(leak.left)
    replicas.recorded("session.outcome", name="real.jsonl", outcome="terminated")

    assert done_by(replicas, "dry") == {"leak": "dry-run"}
    assert not [life for life in (dry, real) if life.has_logged("leader.standby")]


def test_once_says_who_leads_touches_nobody_and_ends_with_1(
    replicas: Reaper, home: Role, app: Role, clients: Clients, admin: psycopg.Connection
) -> None:
    replicas.write(FILE, policy_file(leaked(app, mode="dry-run"), interval="1h"))
    leader = replica(replicas, "first")
    leader.logged("leader.acquired")
    ((pid, _),) = sessions_of(admin, home)
    leak = clients.open(role=app, application="leak")
    enforcing = replicas.write("enforcing.yaml", policy_file(leaked(app)))

    done = replicas("once", "--config", str(enforcing), "--audit-log", "once.jsonl")
    dry_run_before = replicas("once", "--config", str(enforcing), "--audit-log", "dry.jsonl", "--dry-run")

    assert done.code == 1
    (told,) = [line for line in done.log if line["event"] == "leader.standby"]
    assert f"another reaper leads: pid {pid}" in told["why"]
    assert done_by(replicas, "once") == {}
    assert leak.present()
    assert (dry_run_before.code, done_by(replicas, "dry")) == (0, {"leak": "dry-run"})


def test_a_frozen_once_does_not_keep_the_lead_for_ever(
    replicas: Reaper, app: Role, clients: Clients, server: Server, admin: psycopg.Connection, sandbox: Sandbox
) -> None:
    if server.major < 14:
        pytest.skip("idle_session_timeout, which the lease is made of, came with 14")
    replicas.write("patient.yaml", policy_file(leaked(app), interval="5s", min_interval="5s"))
    frozen = replicas.start("once", "--config", "patient.yaml", "--audit-log", "once.jsonl")
    question = """
        SELECT 1 FROM pg_locks l JOIN pg_database d ON d.oid = l.database
         WHERE l.locktype = 'advisory' AND d.datname = %s
    """
    until(lambda: admin.execute(question, (sandbox.database,)).fetchone())
    frozen.send(signal.SIGSTOP)
    replicas.write(FILE, policy_file(leaked(app)))
    life = replica(replicas, "first")
    life.logged("leader.standby")

    until(lambda: life.has_logged("leader.acquired"), within=_LEASE)
    until(clients.open(role=app).left)


def test_through_a_pooler_it_refuses_to_seek_the_lead(
    tmp_path: Path, home: Role, app: Role, server: Server
) -> None:
    with Pooler(server.dsn) as pooler, Reaper(tmp_path, REAPER_DSN=pooler.dsn(home.dsn)) as reaper:
        reaper.write(FILE, policy_file(leaked(app)))
        life = replica(reaper, "first")
        told = life.logged("server.denied", times=2)
        assert "there is a pooler between the reaper and the server" in told["why"]
        assert not life.has_logged("leader.acquired")


@pytest.mark.parametrize("held", ["pg_advisory_lock", "pg_advisory_lock_shared"])
def test_a_stranger_on_the_lock_is_named_with_the_cure_and_lives_until_a_person_ends_it(
    replicas: Reaper, app: Role, clients: Clients, sandbox: Sandbox, held: str
) -> None:
    stranger = clients.open(role=app, application="squatter", database=sandbox.database)
    stranger.connection.execute(SQL("SELECT {}(1919246704, 1)").format(Identifier(held)))
    replicas.write(FILE, policy_file(leaked(app)))
    life = replica(replicas, "first")

    told = life.logged("leader.standby")
    assert told["level"] == "error"
    assert f"pid {stranger.pid}, role {app.name}, application 'squatter'" in told["why"]
    assert told["why"].endswith(f"SELECT pg_terminate_backend({stranger.pid});")
    assert stranger.present()

    stranger.close()
    life.logged("leader.acquired")
    until(clients.open(role=app, application="leak").left)
