"""The pages of the running service: whether it lives, whether it is of use, and what it counts."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import psycopg
from prometheus_client.parser import text_string_to_metric_families
from psycopg.sql import SQL, Identifier

from reaper.demo.server import EmbeddedServer
from tests.postgres.clients import Clients
from tests.postgres.sandbox import Role, Sandbox
from tests.postgres.waiting import PATIENCE, until

from .command import Reaper
from .policies import FILE, leaked, policy_file
from .service import ANYWHERE, RECORD, started

_DEFAULT = ("127.0.0.1", 9432)


def test_a_server_that_is_served_is_ready_and_live(reaper: Reaper, app: Role) -> None:
    reaper.write(FILE, policy_file(leaked(app)))
    service = started(reaper)
    service.life.logged("cycle.quiet")

    assert service.ask("readyz") == (200, '{"ok":true,"reasons":{}}')
    assert service.ask("livez") == (200, '{"ok":true,"reasons":{}}')
    assert service.number("pg_reaper_connected") == service.number("pg_reaper_leader") == 1


def test_a_server_that_is_away_is_not_ready_but_live_until_it_is_back(
    tmp_path: Path, own_server: EmbeddedServer
) -> None:
    with Reaper(tmp_path, REAPER_DSN=own_server.dsn) as reaper:
        reaper.write(FILE, policy_file(leaked(Role("app", ""))))
        service = started(reaper)
        service.life.logged("cycle.quiet")
        own_server.shut_down("immediate")
        service.life.logged("server.unreachable")

        until(lambda: service.ask("readyz").status == 503)
        (reason,) = service.ask("readyz").reasons.values()
        assert reason.startswith("unreachable: ")
        assert service.ask("livez").status == 200
        assert service.number("pg_reaper_connected") == 0
        assert service.number("pg_reaper_slots_used") is None
        assert (service.number("pg_reaper_failures_total", kind="unreachable") or 0) >= 1

        own_server.start()
        until(lambda: service.ask("readyz").status == 200)
        assert service.number("pg_reaper_connected") == 1


def test_a_right_that_is_revoked_meanwhile_is_told_with_its_cure_and_who_was_denied_goes_when_it_is_back(
    reaper: Reaper, app: Role, reaper_role: Role, admin: psycopg.Connection, clients: Clients
) -> None:
    role = Identifier(reaper_role.name)
    reaper.write(FILE, policy_file(leaked(app, safety_limit={"share": "100%"})))
    service = started(reaper)
    service.life.logged("cycle.quiet")
    admin.execute(SQL("REVOKE pg_signal_backend FROM {}").format(role))
    leaks = [clients.open(role=app, application="leak") for _ in range(2)]

    told = service.life.logged("server.denied", times=2)
    assert "GRANT pg_signal_backend TO" in told["why"]
    assert service.ask("readyz").status == 503
    assert all(leak.present() for leak in leaks)

    admin.execute(SQL("GRANT pg_signal_backend TO {}").format(role))
    for leak in leaks:
        until(leak.left)
    until(lambda: service.ask("readyz").status == 200)


def test_a_reaper_that_loses_superuser_meanwhile_tries_a_superuser_once_and_then_knows(
    reaper: Reaper,
    app: Role,
    reaper_role: Role,
    admin: psycopg.Connection,
    sandbox: Sandbox,
    clients: Clients,
) -> None:
    root, role = sandbox.role("root", options="SUPERUSER"), Identifier(reaper_role.name)
    admin.execute(SQL("ALTER ROLE {} SUPERUSER").format(role))
    reaper.write(FILE, policy_file(leaked(app), {**leaked(root), "name": "roots"}))
    service = started(reaper)
    service.life.logged("cycle.quiet")
    admin.execute(SQL("ALTER ROLE {} NOSUPERUSER").format(role))

    superuser = clients.open(role=root)
    reaper.recorded("session.outcome", outcome="denied")
    for _ in range(3):
        leak = clients.open(role=app)
        until(leak.left)

    assert superuser.present()
    assert [each["pid"] for each in reaper.record() if each.get("outcome") == "denied"] == [superuser.pid]


def test_a_server_that_refuses_is_not_ready_and_says_what_to_mend(
    reaper: Reaper, app: Role, reaper_role: Role, admin: psycopg.Connection
) -> None:
    admin.execute(SQL("REVOKE pg_read_all_stats FROM {}").format(Identifier(reaper_role.name)))
    reaper.write(FILE, policy_file(leaked(app)))
    service = started(reaper)
    service.life.logged("server.denied")

    ready = service.ask("readyz")
    assert ready.status == 503
    assert "GRANT pg_read_all_stats TO" in next(iter(ready.reasons.values()))
    assert service.ask("livez").status == 200
    assert service.number("pg_reaper_denied") == 1


def test_a_standby_is_ready(reaper: Reaper, app: Role) -> None:
    reaper.write(FILE, policy_file(leaked(app)))
    leader = reaper.start("run", "--audit-log", "leader.jsonl", "--listen", "off")
    leader.logged("leader.acquired")
    service = started(reaper)
    service.life.logged("leader.standby")

    assert service.ask("readyz").status == service.ask("livez").status == 200
    assert service.number("pg_reaper_connected") == 1
    assert service.number("pg_reaper_leader") == 0


def test_a_server_at_which_every_cycle_fails_is_not_ready(
    reaper: Reaper, app: Role, admin: psycopg.Connection
) -> None:
    reaper.write(FILE, policy_file(leaked(app)))
    service = started(reaper)
    service.life.logged("cycle.quiet")
    with admin.transaction():
        admin.execute("LOCK pg_authid")  # every look at the names of roles waits, until it gives up
        service.life.logged("cycle.failed")
        until(lambda: service.ask("readyz").status == 503)
        assert next(iter(service.ask("readyz").reasons.values())).startswith("failing: ")
    until(lambda: service.ask("readyz").status == 200)


def test_every_page_is_whole_while_sessions_are_terminated(
    reaper: Reaper, app: Role, clients: Clients
) -> None:
    reaper.write(FILE, policy_file(leaked(app, max_per_cycle=4, safety_limit="none")))
    service = started(reaper)
    service.life.logged("cycle.quiet")
    leaks = [clients.open(role=app, application=f"leak-{number}") for number in range(12)]

    asked = 0
    while any(leak.present() for leak in leaks):
        assert list(text_string_to_metric_families(service.ask("metrics").body))
        asked += 1

    assert asked > 1
    service.shows(12, "pg_reaper_outcomes_total", policy="leaked", mode="enforce", outcome="terminated")


def listening_sockets(pid: int) -> set[str]:
    """The inodes of the TCP sockets on which this program listens."""
    lines = Path(f"/proc/{pid}/net/tcp").read_text(encoding="ascii").splitlines()[1:]
    listen = {fields[9] for fields in map(str.split, lines) if fields[3] == "0A"}
    ours = set[str]()
    for file in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):  # closed meanwhile
            ours.add(str(file.readlink()).removeprefix("socket:[").removesuffix("]"))
    return listen & ours


def test_off_listens_nowhere(reaper: Reaper, app: Role) -> None:
    reaper.write(FILE, policy_file(leaked(app)))
    off = reaper.start("run", *RECORD, "--listen", "off", "--log-level", "debug")
    off.logged("cycle.quiet")
    on = reaper.start("run", "--audit-log", "on.jsonl", *ANYWHERE)
    on.logged("leader.standby")

    assert len(listening_sockets(on.pid)) == 1
    assert not listening_sockets(off.pid)
    assert not off.has_logged("http.listening")


def _bound(listening: socket.socket, place: tuple[str, int]) -> bool:
    with suppress(OSError):
        listening.bind(place)
        listening.listen()
        return True
    return False


@contextmanager
def taken(place: tuple[str, int]) -> Iterator[int]:
    """A port that somebody listens on, be it somebody else."""
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Another test's reaper may hold it for a moment, and would be gone too early.
        with suppress(TimeoutError):
            until(lambda: _bound(listening, place), within=5)
        yield listening.getsockname()[1] or place[1]


def test_on_loopback_it_answers_to_no_name_but_those_that_it_was_given(reaper: Reaper, app: Role) -> None:
    reaper.write(FILE, policy_file(leaked(app)))
    life = reaper.start("run", *RECORD, *ANYWHERE, "--listen-name", "db-1.internal")
    at = life.logged("http.listening")["at"]

    def status(host: str) -> int:
        try:
            with urlopen(Request(f"http://{at}/usage", headers={"Host": host}), timeout=PATIENCE) as answer:
                return int(answer.status)
        except HTTPError as error:
            with error:
                return error.code

    assert [status(host) for host in (at, "localhost", "db-1.internal:9432")] == [200] * 3
    assert status("evil.example") == 421
    assert life.end().code == 0


def test_the_usual_port_in_use_is_a_warning(reaper: Reaper, app: Role) -> None:
    reaper.write(FILE, policy_file(leaked(app)))
    with taken(_DEFAULT):
        life = reaper.start("run", *RECORD, "--log-level", "debug")
        told = life.logged("http.unavailable")
        life.logged("cycle.quiet")

    assert told["level"] == "warning"
    assert "--listen 127.0.0.1:9432: " in told["why"]


def test_a_port_that_was_asked_for_and_is_in_use_ends_it_with_2(reaper: Reaper, app: Role) -> None:
    reaper.write(FILE, policy_file(leaked(app)))
    with taken(("127.0.0.1", 0)) as port:
        by_option = reaper("run", *RECORD, "--listen", f"127.0.0.1:{port}")
        by_environment = reaper("run", *RECORD, REAPER_LISTEN=f"127.0.0.1:{port}")

    assert by_option.code == by_environment.code == 2
    assert f"--listen 127.0.0.1:{port}: " in by_option.err
    assert "write HOST:PORT with a free port, or off" in by_environment.err
