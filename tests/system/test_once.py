"""`reaper once`, for cron and CI: one cycle and an exit code."""

import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from tests.postgres.clients import Clients
from tests.postgres.sandbox import Role, Sandbox
from tests.postgres.waiting import until

from .command import Done, Reaper
from .policies import FILE, leaked, policy_file
from .service import is_overdue, outcomes


def became(done: Done) -> list[str]:
    return [event["outcome"] for event in done.events if event["event"] == "session.outcome"]


def test_it_takes_what_both_of_its_looks_condemn_and_ends_with_0(
    reaper: Reaper, app: Role, clients: Clients
) -> None:
    leak = clients.open(role=app)
    reaper.write(FILE, policy_file(leaked(app)))

    done = reaper("once")

    until(leak.left)
    assert done.code == 0
    assert became(done) == ["terminated"]
    assert [line["event"] for line in done.log] == [
        "audit.head",
        "reaper.started",
        "session.outcome",
        "cycle.acted",
        "audit.head",
    ]


def test_a_session_that_comes_between_its_looks_is_left_alone(
    reaper: Reaper, reaper_role: Role, app: Role, clients: Clients, admin: psycopg.Connection
) -> None:
    early = clients.open(role=app, application="early")
    until(lambda: is_overdue(admin, early))
    reaper.write(FILE, policy_file(leaked(app), min_interval="2s", interval="2s"))
    life = reaper.start("once")
    until(lambda: looked(admin, reaper_role))
    late = clients.open(role=app, application="late")

    done = life.ended()

    assert done.code == 0
    assert outcomes(done.events) == {"early": "terminated"}
    assert late.present()


def looked(admin: psycopg.Connection, role: Role) -> bool:
    """Whether the reaper of this role has taken its first look, and asks what it needs to know beside it."""
    question = """
        SELECT 1 FROM pg_stat_activity WHERE usename = %s AND query LIKE '%%A prepared transaction holds%%'
    """
    return admin.execute(question, (role.name,)).fetchone() is not None


def test_nothing_to_do_is_fine(reaper: Reaper, app: Role) -> None:
    reaper.write(FILE, policy_file(leaked(app)))

    done = reaper("once")

    assert (done.code, became(done)) == (0, [])


def test_a_dry_run_touches_nobody(reaper: Reaper, app: Role, clients: Clients) -> None:
    leak = clients.open(role=app)
    reaper.write(FILE, policy_file(leaked(app)))

    done = reaper("once", "--dry-run")

    assert (done.code, became(done)) == (0, ["dry-run"])
    assert leak.present()


def test_a_brake_is_a_no(reaper: Reaper, app: Role, clients: Clients) -> None:
    opened = [clients.open(role=app) for _ in range(3)]
    reaper.write(FILE, policy_file(leaked(app, safety_limit={"share": "1%", "above": 1})))

    done = reaper("once")

    assert (done.code, became(done)) == (1, [])
    assert all(client.present() for client in opened)
    assert [event["matched"] for event in done.events if event["event"] == "policy.safety_limit"] == [3]


def test_a_session_that_the_server_will_not_let_go_of_is_a_no(
    reaper: Reaper, sandbox: Sandbox, clients: Clients
) -> None:
    root = sandbox.role("root", options="SUPERUSER")
    admin = clients.open(role=root)
    reaper.write(FILE, policy_file(leaked(root, override_protections=["superusers"])))

    done = reaper("once")

    assert (done.code, became(done)) == (1, ["denied"])
    assert admin.present()


def test_a_mistake_in_the_policy_file_is_2_before_anything_is_opened(offline: Reaper) -> None:
    offline.write(FILE, "version: 1\npolicies: []\n")

    done = offline("once", "--audit-log", "audit.jsonl")

    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("policies.yaml:2:11: ")
    assert not (offline.folder / "audit.jsonl").exists()


def test_a_server_that_is_away_is_3(offline: Reaper) -> None:
    offline.write(FILE, policy_file(leaked(Role("app", ""))))

    done = offline("once")

    assert done.code == 3
    assert "Traceback" not in done.err


def test_a_server_that_is_away_does_not_keep_another_from_being_served(
    reaper: Reaper, app: Role, reaper_role: Role, clients: Clients
) -> None:
    if "password" in reaper_role.dsn:
        pytest.skip("this server's way in cannot be written in a policy file")
    leak = clients.open(role=app)
    servers = [{"name": "away", "dsn": "host=127.0.0.1 port=1"}, {"name": "here", "dsn": reaper_role.dsn}]
    reaper.write(FILE, policy_file(leaked(app), servers=servers))
    del reaper.environment["REAPER_DSN"]

    done = reaper("once")

    until(leak.left)
    assert done.code == 3
    assert done.err.splitlines()[-1].startswith("away: ")


@pytest.mark.parametrize("command", ["once", "plan", "explain", "snapshot"])
def test_a_blind_role_is_3_and_told_the_grant_that_gives_it_sight(
    reaper: Reaper, app: Role, reaper_role: Role, admin: psycopg.Connection, command: str
) -> None:
    role = Identifier(reaper_role.name)
    admin.execute(SQL("REVOKE pg_read_all_stats FROM {}").format(role))
    reaper.write(FILE, policy_file(leaked(app)))

    done = reaper(command, *(["1"] if command == "explain" else []))

    assert done.code == 3
    assert "hide their state" in done.err
    grant = next(line for line in done.err.splitlines() if "GRANT" in line)
    admin.execute(grant[grant.index("GRANT") : grant.index(";") + 1].encode())
    assert reaper("plan").code == 0
