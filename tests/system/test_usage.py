"""`reaper usage`: the clients that hold the slots, from the server, a running service or a file."""

import json
import os
import pty
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import psycopg
import pytest

from tests.postgres.clients import Client, Clients
from tests.postgres.conftest import StartServer
from tests.postgres.sandbox import Role, Sandbox
from tests.postgres.server import Server, ours
from tests.postgres.waiting import until

from .command import Done, Reaper
from .policies import FILE, leaked, policy_file
from .service import ANYWHERE, Service, started
from .test_audit_log import heard

SLOTS: Final = 12
MANY: Final = ("--top", "1000")


def group(done: Done, ranking: str, name: str | None) -> dict[str, Any]:
    """A group of a ranking in the JSON output."""
    groups: Sequence[dict[str, Any]] = done.document["usage"]["census"][ranking]["groups"]
    (found,) = [each for each in groups if each["name"] == name]
    return found


def test_it_counts_sessions_by_state_and_by_application_and_role(
    reaper: Reaper, app: Role, clients: Clients
) -> None:
    clients.open(role=app, application="web-7")
    clients.open(role=app, application="web-7", state="idle in transaction")
    clients.open(role=app, application="web-7", state="active")

    done = reaper("usage", "--json", *MANY)

    assert (done.code, done.err) == (0, "")
    web = group(done, "applications", "web-7")
    assert (web["count"], web["states"]) == (3, {"active": 1, "idle": 1, "idle in transaction": 1})
    assert web["oldest_idle_s"] > 0
    assert group(done, "roles", app.name)["count"] == 3
    assert done.document["service"] is None


def test_an_open_transaction_comes_with_the_sessions_it_blocks(reaper: Reaper, clients: Clients) -> None:
    holder = clients.open(application="forgotten")
    holder.run("BEGIN")
    holder.run("SELECT pg_advisory_xact_lock(%s)", holder.pid)
    waiter = clients.open(application="waiting")
    waiter.start(f"SELECT pg_advisory_lock({holder.pid})")
    blocking = until(lambda: blocks(reaper, holder), every=0.1)

    shown = reaper("usage", *MANY)

    assert blocking
    assert (blocking["waiting"], blocking["state"]) == (1, "idle in transaction")
    assert blocking["waiters"][0]["pid"] == waiter.pid
    assert f"1 session waits for it: waiting (pid {waiter.pid})" in " ".join(shown.out.split())


def blocks(reaper: Reaper, holder: Client) -> dict[str, Any] | None:
    """The row of a session that others wait for."""
    seen = reaper("usage", "--json", *MANY).document["usage"]["census"]["transactions"]
    return next((each for each in seen if each["pid"] == holder.pid and each["waiting"]), None)


def test_people_read_it_in_eighty_columns_without_colours_and_in_ascii(
    reaper: Reaper, app: Role, clients: Clients
) -> None:
    clients.open(role=app, application="web-7")
    reaper.environment |= {"COLUMNS": "80", "LC_ALL": "POSIX", "PYTHONIOENCODING": "ascii", "NO_COLOR": "1"}
    ours, theirs = pty.openpty()
    life = reaper.start("usage", stdout=theirs)
    os.close(theirs)
    on_a_terminal = heard(ours)
    assert life.ended().code == 0

    piped = reaper("usage").out

    assert on_a_terminal.isascii()
    assert piped.isascii()
    assert "\x1b" not in piped
    lines = re.sub(r"\x1b\[[0-9;]*m", "", on_a_terminal).splitlines()
    assert [line for line in lines if len(line) > 80] == []
    for text in (piped, "\n".join(lines)):
        assert re.search(r"\d+ of \d+ usable slots used \([\d.]+%\): \d+ free, \d+ more reserved\.", text)
        assert re.search(r"^web-7 +1 ", text, re.MULTILINE)


def test_a_saved_snapshot_is_shown_with_no_server(
    reaper: Reaper, app: Role, clients: Clients, tmp_path: Path
) -> None:
    clients.open(role=app, application="web-7")
    reaper("snapshot", "seen.json")

    done = reaper("usage", "--snapshot", "seen.json", "--json", *MANY, REAPER_DSN=f"host={tmp_path}")

    assert done.code == 0
    assert group(done, "applications", "web-7")["count"] == 1
    assert done.document["usage"]["census"]["openings"]["superuser_reserved"] == 3


def test_watching_refreshes_over_one_connection_and_shows_changes(
    reaper: Reaper, app: Role, clients: Clients, reaper_role: Role, admin: psycopg.Connection
) -> None:
    life = reaper.start("usage", "--watch", "--every", "0.5", "--json", *MANY)
    looks: Callable[[], list[Any]] = lambda: [json.loads(line) for line in list(life.out)]  # noqa: E731
    until(looks)
    clients.open(role=app, application="newcomer")

    def seen() -> bool:
        found = [each["usage"]["census"]["applications"]["groups"] for each in looks()]
        return any(one["name"] == "newcomer" for one in found[-1])

    until(seen)
    ((connections,),) = admin.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE usename = %s", (reaper_role.name,)
    ).fetchall()
    assert connections == 1
    assert looks()[-1]["usage"]["used"][-1] is not None


def fill(clients: Clients, role: Role) -> int:
    """Take every slot that the role can use, and return their number."""
    taken = list[Client]()
    with suppress(psycopg.OperationalError):
        while True:
            taken.append(clients.open(role=role, application="leaky"))
    return len(taken)


@pytest.fixture
def reserved(major: int) -> int:
    """The number of slots for roles with pg_use_reserved_connections, which exist from 16 on."""
    return 2 if major >= 16 else 0


@pytest.fixture
def place(start_server: StartServer, reserved: int) -> Iterator[tuple[Server, Sandbox, Clients]]:
    """A small server of the test's own."""
    settings = {"max_connections": str(SLOTS), "superuser_reserved_connections": "3"}
    settings |= {"reserved_connections": str(reserved)} if reserved else {}
    server = ours(start_server(**settings))
    with Sandbox(server) as sandbox, Clients(server.dsn) as clients:
        yield server, sandbox, clients


def test_when_the_slots_are_full_an_ordinary_role_gets_the_cause_and_the_other_ways(
    offline: Reaper, place: tuple[Server, Sandbox, Clients]
) -> None:
    _, sandbox, clients = place
    role = sandbox.role("reaper", member_of=["pg_read_all_stats", "pg_signal_backend"])
    fill(clients, sandbox.role("app"))

    done = offline("usage", REAPER_DSN=role.dsn, REAPER_LISTEN="127.0.0.1:1")

    assert (done.code, done.out) == (3, "")
    assert "connection slots are reserved" in done.err
    assert "no reaper answers at http://127.0.0.1:1" in done.err
    assert "reaper usage --url" in done.err
    assert "pg_use_reserved_connections" in done.err


def test_a_role_without_rights_gets_the_grant_and_no_hint_about_slots(
    offline: Reaper, sandbox: Sandbox
) -> None:
    done = offline("usage", REAPER_DSN=sandbox.role("blind").dsn, REAPER_LISTEN="off")

    assert (done.code, done.out) == (3, "")
    assert "GRANT pg_read_all_stats TO" in done.err
    assert "slots" not in done.err


def test_when_the_slots_are_full_superusers_and_from_16_on_reserved_roles_still_see_the_usage(
    offline: Reaper, place: tuple[Server, Sandbox, Clients], reserved: int
) -> None:
    server, sandbox, clients = place
    member_of = ["pg_read_all_stats", *(["pg_use_reserved_connections"] if reserved else [])]
    on_call = sandbox.role("oncall", member_of=member_of)
    taken = fill(clients, sandbox.role("app"))

    done = offline("usage", "--json", *MANY, REAPER_DSN=server.dsn)
    shown = offline("usage", REAPER_DSN=server.dsn)
    by_role = offline("usage", REAPER_DSN=on_call.dsn, REAPER_LISTEN="off")

    openings = done.document["usage"]["census"]["openings"]
    assert group(done, "applications", "leaky")["count"] == taken
    assert (openings["total"], openings["reserved"]) == (SLOTS, 3 + reserved)
    assert (openings["superuser_reserved"], openings["for_anybody"]) == (3, 0)
    assert openings["for_superusers"] == SLOTS - openings["used"]
    assert openings["for_reserved"] == max(SLOTS - 3 - openings["used"], 0)
    assert "Ordinary roles are refused. " in shown.out
    assert by_role.code == (0 if reserved else 3)


def test_when_the_slots_are_full_a_running_service_shows_which_clients_hold_them(
    offline: Reaper, place: tuple[Server, Sandbox, Clients]
) -> None:
    _, sandbox, clients = place
    role = sandbox.role("reaper", member_of=["pg_read_all_stats", "pg_signal_backend"])
    app = sandbox.role("app")
    offline.environment["REAPER_DSN"] = role.dsn
    offline.write(FILE, policy_file(leaked(app, idle_for="1h", mode="dry-run")))
    service = started(offline)
    service.life.logged("cycle.quiet")
    where = service.life.logged("http.listening")["at"]
    taken = fill(clients, app)

    named = offline("usage", "--json", "--url", where)
    found = offline("usage", "--json", REAPER_LISTEN=where)
    shown = offline("usage", "--top", "1", REAPER_LISTEN=where)

    for done in (named, found):
        assert done.code == 0
        assert group(done, "applications", "leaky")["count"] == taken
    assert named.document["service"]["because"] is None
    assert "connection slots are reserved" in found.document["service"]["because"]
    assert "The server was not reached: " in shown.out
    assert f"at http://{where}" in shown.out


def test_when_the_slots_are_full_plan_and_explain_ask_the_running_service(
    offline: Reaper, place: tuple[Server, Sandbox, Clients]
) -> None:
    _, sandbox, clients = place
    offline.environment["REAPER_DSN"] = sandbox.role(
        "reaper", member_of=["pg_read_all_stats", "pg_signal_backend"]
    ).dsn
    app = sandbox.role("app")
    offline.write(FILE, policy_file(leaked(app, idle_for="1ms", mode="dry-run", max_per_cycle=1000)))
    service = started(offline, "--dry-run")
    service.life.logged("cycle.quiet")  # it is connected before the slots are full
    where = service.life.logged("http.listening")["at"]
    client = clients.open(role=app, application="known")
    taken = 1 + fill(clients, app)

    for way in (("--url", where), ()):
        plan = offline("plan", "--json", *way, REAPER_LISTEN=where)
        explained = offline("explain", str(client.pid), *way, REAPER_LISTEN=where)

        assert (plan.code, explained.code) == (0, 0)
        assert len([row for row in plan.document["decisions"] if row["role"] == app.name]) == taken
        assert f"Observed by the service at http://{where}; it is a dry run" in plan.document["note"]
        assert "it is a dry run and terminates nothing" in explained.out
        assert ("connection slots are reserved" in plan.document["note"]) == (not way)
    refused = offline("plan", REAPER_LISTEN="off")
    assert (refused.code, refused.out) == (3, "")
    assert "reaper plan --url" in refused.err


def test_a_service_of_other_servers_is_not_used_for_this_one(
    reaper: Reaper, app: Role, tmp_path: Path
) -> None:
    reaper.write(FILE, policy_file(leaked(app, idle_for="1h")))
    service = started(reaper)
    service.life.logged("cycle.quiet")
    where = service.life.logged("http.listening")["at"]

    done = reaper("usage", REAPER_DSN=f"host={tmp_path} port=1", REAPER_LISTEN=where)

    assert (done.code, done.out) == (3, "")
    assert re.search(r"the reaper at http://\S+ serves \S+, and not ", done.err)


def test_above_a_share_of_the_usable_slots_it_exits_with_1(reaper: Reaper) -> None:
    much, little = reaper("usage", "--fail-above", "100%"), reaper("usage", "--fail-above", "1%", "--json")
    wrong = reaper("usage", "--fail-above", "eighty")

    assert (much.code, much.err) == (0, "")
    assert little.code == 1
    assert little.document["usage"]
    assert re.fullmatch(r"[\d.]+% of the usable slots are used, more than 1%\n", little.err)
    assert wrong.code == 2
    assert "write for example 80%" in wrong.err


def test_a_standby_shows_the_usage_too(reaper: Reaper, app: Role, clients: Clients) -> None:
    reaper.write(FILE, policy_file(leaked(app, idle_for="1h", mode="dry-run")))
    started(reaper).life.logged("cycle.quiet")
    second = Service(reaper.start("run", *ANYWHERE, "--audit-log", "second.jsonl", "--log-level", "debug"))
    second.life.logged("leader.standby")
    clients.open(role=app, application="web-7")

    done = reaper("usage", "--json", "--url", second.life.logged("http.listening")["at"], *MANY)

    assert group(done, "applications", "web-7")["count"] == 1
    (line,) = done.document["reaper"]["servers"]
    assert line["state"] == "standby"


@pytest.mark.parametrize("url", ["ftp://host", "http://", "http://user@host:1", "http://host:port"])
def test_a_malformed_address_is_refused_with_the_form_to_write(offline: Reaper, url: str) -> None:
    done = offline("usage", "--url", url)

    assert (done.code, done.out) == (2, "")
    assert "write http://HOST:PORT" in done.err


def test_several_servers_are_shown_in_short_and_one_of_them_in_full(
    reaper: Reaper, app: Role, reaper_role: Role, clients: Clients
) -> None:
    clients.open(role=app, application="web-7")
    servers = [{"name": name, "dsn": reaper_role.dsn} for name in ("orders", "billing")]
    reaper.environment.pop("REAPER_DSN")
    reaper.write(FILE, policy_file(leaked(app, idle_for="1h", mode="dry-run"), servers=servers))
    service = started(reaper)
    service.life.logged("cycle.quiet")
    where = service.life.logged("http.listening")["at"]

    fleet = reaper("usage", "--url", where)
    unclear = reaper("usage", "--url", where, "--fail-above", "80%")
    one = reaper("usage", "--url", where, "--server", "orders", "--json")
    unknown = reaper("usage", "--url", where, "--server", "payroll")

    assert (fleet.code, one.code, unknown.code) == (0, 0, 3)
    assert "orders" in fleet.out
    assert "billing" in fleet.out
    assert group(one, "applications", "web-7")["count"] == 1
    assert "and not payroll" in unknown.err
    assert (unclear.code, "--server NAME" in unclear.err) == (2, True)
