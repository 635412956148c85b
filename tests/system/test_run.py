"""`reaper run`, from its first cycle to its last words."""

import os
import signal
from pathlib import Path
from typing import Final

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from reaper.demo.server import EmbeddedServer, free_ports
from tests.postgres.clients import Client, Clients
from tests.postgres.sandbox import Role
from tests.postgres.server import Server
from tests.postgres.waiting import until

from .command import Fields, Reaper
from .policies import FILE, leaked, policy_file
from .service import is_overdue, outcomes

RECORD: Final = ("--audit-log", "audit.jsonl")


def test_the_first_cycle_runs_at_once(reaper: Reaper, app: Role) -> None:
    reaper.write(FILE, policy_file(leaked(app), interval="1h"))
    life = reaper.start("run", *RECORD, "--log-level", "debug")

    assert life.logged("cycle.quiet")["cycle"] == 1
    assert life.end().code == 0


def test_a_leaked_session_goes_on_its_second_sighting_and_not_before(
    reaper: Reaper, app: Role, clients: Clients, admin: psycopg.Connection
) -> None:
    leak = clients.open(role=app, application="leak")
    until(lambda: is_overdue(admin, leak))
    reaper.write(FILE, policy_file(leaked(app)))
    life = reaper.start("run", *RECORD, "--log-level", "debug")

    acted = life.logged("cycle.acted")
    until(leak.left)

    assert life.logged("cycle.quiet")["cycle"] == 1
    assert (acted["cycle"], acted["terminated"]) == (2, 1)
    assert outcomes(reaper.record()) == {"leak": "terminated"}


def test_a_session_goes_when_it_falls_due_and_not_at_the_end_of_the_interval(
    reaper: Reaper, app: Role, clients: Clients
) -> None:
    leak = clients.open(role=app, application="leak")
    reaper.write(FILE, policy_file(leaked(app, idle_for="2s"), interval="1h"))
    life = reaper.start("run", *RECORD)
    life.logged("server.connected")

    until(leak.left)

    reaper.recorded("session.outcome", application="leak", outcome="terminated")
    assert life.end().code == 0


def test_whoever_is_spared_lives_and_whoever_is_not_goes(reaper: Reaper, app: Role, clients: Clients) -> None:
    leaks = [clients.open(role=app, application=f"web-{number}") for number in range(3)]
    leader = clients.open(role=app, application="web-leader")
    leader.hold_advisory_lock(leader.pid)
    listener = clients.open(role=app, application="web-listener")
    listener.listen()
    skipped = [
        leader,
        listener,
        clients.open(role=app, application="metabase"),
        clients.open(role=app, application="web-open", state="idle in transaction"),
    ]
    reaper.write(FILE, policy_file(leaked(app, allowlist={"application": ["metabase"]})))
    life = reaper.start("run", *RECORD)

    for leak in leaks:
        until(leak.left)
    done = life.end()

    assert all(client.present() for client in skipped)
    assert outcomes(reaper.record()) == {f"web-{number}": "terminated" for number in range(3)}
    assert done.log[-1]["event"] == "reaper.stopped"
    assert done.log[-1]["terminated"] == 3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_a_summary_and_exit_code_0(
    reaper: Reaper, app: Role, number: signal.Signals
) -> None:
    reaper.write(FILE, policy_file(leaked(app), interval="1h"))
    life = reaper.start("run", *RECORD, "--log-level", "debug")
    life.logged("cycle.quiet")

    done = life.end(number)

    assert done.code == 0
    stopping, stopped = [line for line in done.log if line["event"] != "audit.head"][-2:]
    assert (stopping["event"], stopped["event"]) == ("reaper.stopping", "reaper.stopped")
    assert stopping["signal"] == number.name
    assert stopped["cycles"] == 1
    assert "Traceback" not in done.err


def test_signals_one_after_the_other_finish_the_termination_at_hand(
    reaper: Reaper, app: Role, clients: Clients, server: Server, admin: psycopg.Connection
) -> None:
    if server.embedded is None:
        pytest.skip("the server's own processes are out of reach")
    leak = clients.open(role=app, application="leak")
    reaper.write(FILE, policy_file(leaked(app)))
    until(lambda: waits_for_its_client(admin, leak))
    os.kill(leak.pid, signal.SIGSTOP)  # it cannot leave before the test lets it
    try:
        life = reaper.start("run", *RECORD)
        until(lambda: sigterm_waits_for(leak.pid))
        life.send(signal.SIGTERM)
        life.send(signal.SIGINT)
        done = life.end(signal.SIGTERM)
    finally:
        os.kill(leak.pid, signal.SIGCONT)
    until(leak.left)

    assert done.code == 0
    assert done.log[-1]["event"] == "reaper.stopped"
    assert done.log[-1]["signalled"] == 1
    assert outcomes(reaper.record()) == {"leak": "signalled"}
    assert reaper.record()[-1]["event"] == "audit.closed"


def waits_for_its_client(admin: psycopg.Connection, client: Client) -> bool:
    """Whether the server has done everything there is to do for this session."""
    question = "SELECT wait_event = 'ClientRead' FROM pg_stat_activity WHERE pid = %s"
    row = admin.execute(question, (client.pid,)).fetchone()
    return bool(row and row[0])


def sigterm_waits_for(pid: int) -> bool:
    """Whether the signal of a termination has reached this process, which is stopped."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    pending = next(line.split()[1] for line in lines if line.startswith("ShdPnd:"))
    return bool(int(pending, 16) & 1 << signal.SIGTERM - 1)


def test_a_signal_while_the_server_is_away_ends_it_too(offline: Reaper) -> None:
    offline.write(FILE, policy_file(leaked(Role("app", ""))))
    life = offline.start("run", *RECORD)
    life.logged("server.unreachable")

    done = life.end()

    assert done.code == 0
    assert done.log[-1]["cycles"] == 0


def grant_what_it_needs(own_server: EmbeddedServer) -> tuple[str, Role]:
    """The reaper's way in, and the role of its clients."""
    with psycopg.connect(own_server.dsn, autocommit=True) as connection:
        connection.execute("CREATE ROLE app LOGIN")
        connection.execute("CREATE ROLE reaper LOGIN")
        connection.execute("GRANT pg_read_all_stats, pg_signal_backend TO reaper")
    app = Role(name="app", dsn=make_conninfo(own_server.dsn, user="app"))
    return make_conninfo(own_server.dsn, user="reaper"), app


def test_a_server_that_is_away_at_the_start_is_waited_for(tmp_path: Path, own_server: EmbeddedServer) -> None:
    way_in, app = grant_what_it_needs(own_server)
    own_server.shut_down("immediate")
    with Reaper(tmp_path, REAPER_DSN=way_in) as reaper:
        reaper.write(FILE, policy_file(leaked(app)))
        life = reaper.start("run", *RECORD)
        life.logged("server.unreachable")
        own_server.start()
        life.logged("server.connected")
        with Clients(own_server.dsn) as clients:
            until(clients.open(role=app).left)
        assert life.end().code == 0


def test_a_server_that_restarts_is_waited_for_and_served_again(
    tmp_path: Path, own_server: EmbeddedServer
) -> None:
    way_in, app = grant_what_it_needs(own_server)
    with Reaper(tmp_path, REAPER_DSN=way_in) as reaper:
        reaper.write(FILE, policy_file(leaked(app)))
        life = reaper.start("run", *RECORD)
        with Clients(own_server.dsn) as clients:
            until(clients.open(role=app, application="before").left)
        reaper.recorded("session.outcome", application="before")  # confirmed, before the server goes
        own_server.restart()
        life.logged("server.unreachable")
        life.logged("server.connected", times=2)
        with Clients(own_server.dsn) as clients:
            until(clients.open(role=app, application="after").left)
        done = life.end()
        assert done.code == 0
        assert outcomes(reaper.record()) == {"before": "terminated", "after": "terminated"}
        assert done.log[-1]["terminated"] == 2


def test_a_server_that_is_away_is_no_concern_of_another(
    tmp_path: Path, reaper_role: Role, app: Role, clients: Clients
) -> None:
    given = conninfo_to_dict(reaper_role.dsn)
    password = str(given.pop("password", None) or "")
    here = {"name": "here", "dsn": make_conninfo("", **given)}
    away = {"name": "away", "dsn": f"host=127.0.0.1 port={next(free_ports())} user=nobody"}
    with Reaper(tmp_path, PGPASSWORD=password) as reaper:
        reaper.write(FILE, policy_file(leaked(app), servers=[away, here]))
        life = reaper.start("run", *RECORD)
        until(clients.open(role=app, application="leak").left)
        life.logged("server.unreachable", server="away")
        done = life.end()
        stopped = {line["server"]: line for line in done.log if line["event"] == "reaper.stopped"}
        assert done.code == 0
        assert stopped["here"]["terminated"] == 1
        assert stopped["away"]["cycles"] == 0
        assert {event["server"] for event in reaper.record() if "server" in event} == {"here"}


def test_a_dry_run_takes_the_same_decisions_and_touches_nobody(
    reaper: Reaper, app: Role, clients: Clients
) -> None:
    opened = [clients.open(role=app, application=f"web-{number}") for number in range(4)]
    opened[0].hold_advisory_lock(opened[0].pid)
    rehearsal_beside = {**leaked(app, mode="dry-run"), "name": "beside"}
    reaper.write(FILE, policy_file(leaked(app, max_per_cycle=2), rehearsal_beside))
    dry = reaper.start("run", "--dry-run", "--audit-log", "dry.jsonl")
    dry.logged("cycle.acted", cycle=3)
    dry.end()
    assert all(client.present() for client in opened)

    real = reaper.start("run", "--audit-log", "real.jsonl")
    for client in opened[1:]:
        until(client.left)
    real.end()

    assert opened[0].present()
    assert taken(reaper.record("dry.jsonl")) == taken(reaper.record("real.jsonl"))
    assert set(outcomes(reaper.record("dry.jsonl")).values()) == {"dry-run"}


def taken(events: list[Fields]) -> list[tuple[str, ...]]:
    """What a run meant to do, in its order."""
    keys = ("cycle", "policy", "mode", "action", "application", "pid")
    return [tuple(event[key] for key in keys) for event in events if event["event"] == "session.intent"]


def test_a_brake_touches_nobody_and_is_told_everywhere(reaper: Reaper, app: Role, clients: Clients) -> None:
    opened = [clients.open(role=app) for _ in range(3)]
    reaper.write(FILE, policy_file(leaked(app, safety_limit={"share": "1%", "above": 1})))
    life = reaper.start("run", *RECORD, "--log-level", "debug")

    life.logged("policy.safety_limit")
    life.logged("cycle.quiet", times=3)
    done = life.end()

    assert all(client.present() for client in opened)
    assert done.log[-1]["trips"] >= 2
    (tripped,) = [event for event in reaper.record() if event["event"] == "policy.safety_limit"]
    assert (tripped["policy"], tripped["matched"]) == ("leaked", 3)
    assert [line["event"] for line in done.log].count("policy.safety_limit") == 1
    assert outcomes(reaper.record()) == {}


def test_a_role_that_is_blind_is_refused_and_served_as_soon_as_it_sees(
    reaper: Reaper, app: Role, reaper_role: Role, clients: Clients, admin: psycopg.Connection
) -> None:
    role = psycopg.sql.Identifier(reaper_role.name)
    admin.execute(psycopg.sql.SQL("REVOKE pg_read_all_stats FROM {}").format(role))
    leak = clients.open(role=app)
    reaper.write(FILE, policy_file(leaked(app)))
    life = reaper.start("run", *RECORD)

    refused = life.logged("server.denied")
    admin.execute(psycopg.sql.SQL("GRANT pg_read_all_stats TO {}").format(role))
    until(leak.left)

    assert "GRANT pg_read_all_stats TO" in refused["why"]
    assert life.end().code == 0
