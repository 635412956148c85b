"""The copy of the audit log in a table on another server: it may lag, delays nothing and loses nothing."""

import gzip
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final, LiteralString

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from reaper.audit.events import CLOSED, OPENED, OUTCOME
from reaper.demo.server import EmbeddedServer
from tests.postgres import majors
from tests.postgres.clients import Clients
from tests.postgres.conftest import StartServer
from tests.postgres.proxy import Proxy
from tests.postgres.sandbox import Role, Sandbox
from tests.postgres.waiting import until

from .command import Reaper
from .policies import FILE, leaked, policy_file
from .service import ANYWHERE, RECORD, Service, events

TABLE: Final = (Path(__file__).parents[2] / "deploy/sql/record_table.sql").read_bytes()
RUNS: Final = 4
_IN_ORDER: Final = " FROM reaper.record ORDER BY number"


class Archive:
    """The other server, and the lines that have arrived there."""

    def __init__(self, server: EmbeddedServer, *, table: bool = True) -> None:
        self.server = server
        self.dsn = make_conninfo(server.dsn, user="reaper_record")
        with self.admin() as admin:
            admin.execute("DROP SCHEMA IF EXISTS reaper CASCADE")
            admin.execute(TABLE)
            if not table:
                admin.execute("DROP TABLE reaper.record")

    def admin(self) -> psycopg.Connection:
        return psycopg.connect(self.server.dsn, autocommit=True)

    def run(self, statement: LiteralString) -> None:
        with self.admin() as admin:
            admin.execute(statement)

    def rows(self, columns: LiteralString = "line") -> list[tuple[object, ...]]:
        with self.admin() as admin:
            return admin.execute("SELECT " + columns + _IN_ORDER).fetchall()

    def lines(self) -> list[str]:
        return [str(line) for (line,) in self.rows()]


@pytest.fixture(scope="module")
def other_server(major: int) -> Iterator[EmbeddedServer]:
    """The server that has the table of each test, one after the other."""
    with EmbeddedServer(binaries=majors.installation(major)) as server:
        yield server


@pytest.fixture
def archive(other_server: EmbeddedServer) -> Archive:
    other_server.start()  # the test before may have ended it
    return Archive(other_server)


def shipping(reaper: Reaper, archive: Archive, *, dsn: str | None = None) -> Service:
    """`reaper run` with an audit log in a file, and the table that takes a copy."""
    arguments = ("run", *ANYWHERE, *RECORD, "--log-level", "debug")
    return Service(reaper.start(*arguments, REAPER_AUDIT_TABLE=dsn or archive.dsn))


def lines_of(reaper: Reaper, *names: str) -> list[str]:
    """The whole lines of the audit log, file by file."""
    found = list[str]()
    for name in names or ("audit.jsonl",):
        path = reaper.folder / name
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        found += data.decode("ascii").splitlines()
    return found


def reaped(reaper: Reaper, clients: Clients, app: Role, application: str) -> None:
    """A session that is terminated, and that is in the audit log."""
    until(clients.open(role=app, application=application).left)
    reaper.recorded(OUTCOME, application=application)


def test_every_line_arrives_in_the_order_of_the_file_up_to_the_last(
    reaper: Reaper, archive: Archive, clients: Clients, app: Role
) -> None:
    reaper.write(FILE, policy_file(leaked(app)))
    service = shipping(reaper, archive)
    for number in range(3):
        reaped(reaper, clients, app, f"web-{number}")
    until(lambda: archive.lines() == lines_of(reaper))
    assert service.ask("readyz").body == '{"ok":true,"reasons":{}}'
    service.shows(0, "pg_reaper_audit_table_lag_bytes")
    done = service.life.end()

    assert done.code == 0
    assert archive.lines() == lines_of(reaper)
    dump = "".join(f"{line}\n" for line in archive.lines())
    assert reaper("audit", "verify", "-", stdin=dump).code == 0, "the copy proves what the file does"
    assert reaper("audit", "verify", "-", stdin=dump.replace("web-1", "web-9")).code == 1
    (opened, *_, closed) = archive.rows("event, application, outcome, role")
    assert (opened[0], closed[0]) == (OPENED, CLOSED)
    assert (OUTCOME, "web-2", "terminated", app.name) in archive.rows("event, application, outcome, role")
    assert {source for (source,) in archive.rows("source")} == {
        (f"{reaper.record()[0]['host']}:{reaper.folder / 'audit.jsonl'}")
    }
    assert not [line for line in done.log if line["level"] in {"warning", "error"}]


def test_an_unreachable_table_delays_nothing_and_gets_every_line_later(
    reaper: Reaper, archive: Archive, clients: Clients, app: Role
) -> None:
    archive.server.shut_down("immediate")
    reaper.write(FILE, policy_file(leaked(app)))
    service = shipping(reaper, archive)
    service.life.logged("audit_table.unreachable")
    reaped(reaper, clients, app, "while-away")
    until(lambda: (service.number("pg_reaper_audit_table_failures_total", kind="unreachable") or 0) >= 2)

    assert service.ask("readyz").status == 200
    assert service.ask("readyz").reasons["record table"].startswith("unreachable: ")
    assert service.number("pg_reaper_audit_table_connected") == 0
    assert (service.number("pg_reaper_audit_table_lag_seconds") or 0) > 0
    assert (service.number("pg_reaper_audit_table_lag_bytes") or 0) > 0
    archive.server.start()
    service.life.logged("audit_table.reached")
    until(lambda: archive.lines() == lines_of(reaper))
    service.shows(0, "pg_reaper_audit_table_lag_seconds")
    archive.server.restart("immediate")
    reaped(reaper, clients, app, "after-a-restart")
    until(lambda: archive.lines() == lines_of(reaper))
    assert len(events(service.life, "audit_table.unreachable")) == 2, "reported once each time"


def test_after_several_crashes_the_table_has_each_line_of_the_file_once(
    reaper: Reaper, archive: Archive, clients: Clients, app: Role
) -> None:
    reaper.write(FILE, policy_file(leaked(app)))
    for run in range(RUNS):
        service = shipping(reaper, archive)
        reaped(reaper, clients, app, f"run-{run}")
        if run % 2:
            until(lambda: f'"run-{run}"' in "".join(archive.lines()))  # noqa: B023 (called at once)
        service.life.end(signal.SIGKILL)
    service = shipping(reaper, archive)
    service.life.logged("cycle.quiet")
    service.life.end()

    assert archive.lines() == lines_of(reaper)


def test_an_audit_log_that_is_rotated_while_the_table_is_unreachable_arrives_whole(
    reaper: Reaper, archive: Archive, clients: Clients, app: Role
) -> None:
    archive.server.shut_down("immediate")
    reaper.write(FILE, policy_file(leaked(app)))
    service = shipping(reaper, archive)
    service.life.logged("audit_table.unreachable")
    current = reaper.folder / "audit.jsonl"
    for day in range(3):
        reaped(reaper, clients, app, f"day-{day}")
        current.rename(current.with_name(f"audit.jsonl.{3 - day}"))
    reaped(reaper, clients, app, "today")
    archive.server.start()
    until(lambda: '"today"' in "".join(archive.lines()))
    service.life.end()

    volumes = ("audit.jsonl.3", "audit.jsonl.2", "audit.jsonl.1", "audit.jsonl")
    assert sorted(archive.lines()) == sorted(lines_of(reaper, *volumes))


@pytest.mark.parametrize("lacks", ["the table", "the right"])
def test_a_missing_table_or_right_is_a_sentence_and_every_line_arrives_when_it_is_fixed(
    reaper: Reaper, other_server: EmbeddedServer, clients: Clients, app: Role, lacks: str
) -> None:
    archive = Archive(other_server, table=lacks == "the right")
    if lacks == "the right":
        archive.run("REVOKE INSERT ON reaper.record FROM reaper_record")
    reaper.write(FILE, policy_file(leaked(app)))
    service = shipping(reaper, archive)
    reported = service.life.logged("audit_table.denied")
    reaped(reaper, clients, app, "meanwhile")

    assert "deploy/sql/record_table.sql" in reported["why"]
    assert service.ask("readyz").status == 200
    assert service.ask("readyz").reasons["record table"] == f"denied: {reported['why']}"
    with archive.admin() as admin:
        admin.execute(TABLE)
    until(lambda: archive.lines() == lines_of(reaper))
    assert service.ask("readyz").reasons == {}


def test_a_line_that_the_table_rejects_is_reported_and_arrives_when_the_table_is_fixed(
    reaper: Reaper, archive: Archive, clients: Clients, app: Role
) -> None:
    archive.run("ALTER TABLE reaper.record ADD CONSTRAINT changed CHECK (application <> 'rejected')")
    reaper.write(FILE, policy_file(leaked(app)))
    service = shipping(reaper, archive)
    for application in ("before", "rejected", "behind"):
        reaped(reaper, clients, app, application)
    reported = service.life.logged("audit_table.denied")

    assert "violates check constraint" in reported["why"]
    assert "record_table.sql" in reported["why"]
    archive.run("ALTER TABLE reaper.record DROP CONSTRAINT changed")
    until(lambda: archive.lines() == lines_of(reaper))
    assert service.ask("readyz").reasons == {}


def test_a_table_that_is_locked_or_takes_few_lines_at_a_time_gets_them_all(
    reaper: Reaper, archive: Archive, clients: Clients, app: Role
) -> None:
    archive.run("""
        CREATE FUNCTION reaper.slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF (SELECT count(*) FROM fresh) > 4 THEN RAISE 'too slow' USING ERRCODE = '57014'; END IF;
            RETURN NULL;
        END $$;
        CREATE TRIGGER slow AFTER INSERT ON reaper.record REFERENCING NEW TABLE AS fresh
            FOR EACH STATEMENT EXECUTE FUNCTION reaper.slow();
    """)
    reaper.write(FILE, policy_file(leaked(app)))
    with archive.admin() as admin, admin.transaction():
        admin.execute("LOCK reaper.record")
        service = shipping(reaper, archive)
        assert "SQLSTATE 55P03" in service.life.logged("audit_table.unreachable")["why"]
        for number in range(3):
            reaped(reaper, clients, app, f"web-{number}")
    until(lambda: archive.lines() == lines_of(reaper))


def test_a_server_without_a_free_slot_is_retried(
    reaper: Reaper, start_server: StartServer, clients: Clients, app: Role
) -> None:
    archive = Archive(start_server(max_connections="6", superuser_reserved_connections="2"))
    reaper.write(FILE, policy_file(leaked(app)))
    with ExitStack() as slots:
        for _ in range(4):
            slots.enter_context(psycopg.connect(archive.dsn))
        service = shipping(reaper, archive)
        assert "connection" in service.life.logged("audit_table.unreachable")["why"]
        reaped(reaper, clients, app, "while-full")
    until(lambda: archive.lines() == lines_of(reaper))


@pytest.fixture
def proxy(archive: Archive) -> Iterator[Proxy]:
    with Proxy(archive.server.dsn) as proxy:
        yield proxy


def test_a_server_that_stops_answering_delays_neither_a_termination_nor_the_stop(
    reaper: Reaper, archive: Archive, proxy: Proxy, clients: Clients, app: Role
) -> None:
    reaper.write(FILE, policy_file(leaked(app)))
    service = shipping(reaper, archive, dsn=proxy.dsn(archive.dsn))
    service.life.logged("audit_table.reached")
    until(lambda: archive.lines() == lines_of(reaper))
    proxy.stall()
    reaped(reaper, clients, app, "while-stalled")
    done = service.life.end()

    assert done.code == 0
    (behind,) = (line for line in done.log if line["event"] == "audit_table.behind")
    assert behind["bytes_waiting"] > 0
    proxy.restore()
    again = shipping(reaper, archive)
    again.life.logged("cycle.quiet")
    again.life.end()
    assert archive.lines() == lines_of(reaper)


def test_without_its_offsets_everything_is_sent_again_and_no_line_is_there_twice(
    reaper: Reaper, archive: Archive, clients: Clients, app: Role
) -> None:
    reaper.write(FILE, policy_file(leaked(app)))
    for _ in range(2):
        service = shipping(reaper, archive)
        reaped(reaper, clients, app, "web")
        service.life.end()
        (reaper.folder / "audit.jsonl.shipped").unlink()

    assert archive.lines() == lines_of(reaper)


def test_two_reapers_fill_one_table(reaper: Reaper, archive: Archive, clients: Clients, app: Role) -> None:
    reaper.write(FILE, policy_file(leaked(app)))
    one = shipping(reaper, archive)
    one.life.logged("leader.acquired")
    two = reaper.start(
        "run", "--listen", "off", "--audit-log", "two.jsonl", "--dry-run", REAPER_AUDIT_TABLE=archive.dsn
    )
    two.logged("leader.acquired")
    reaped(reaper, clients, app, "web")
    one.life.end()
    two.end()

    assert sorted(archive.lines()) == sorted(lines_of(reaper, "audit.jsonl", "two.jsonl"))
    assert len(set(archive.rows("source"))) == 2


HOSTILE: Final = "\u65e5\u00fc \\ \"{,}'"


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [("UTF8", HOSTILE), ("LATIN1", HOSTILE.encode("ascii", "backslashreplace").decode())],
)
def test_hostile_names_arrive_and_characters_that_cannot_be_stored_are_escaped(
    reaper: Reaper, start_server: StartServer, clients: Clients, sandbox: Sandbox, encoding: str, shown: str
) -> None:
    archive = Archive(start_server(encoding=encoding))
    hostile = sandbox.role(name=sandbox.name(HOSTILE))
    reaper.write(FILE, policy_file(leaked(hostile)))
    service = shipping(reaper, archive)
    reaped(reaper, clients, hostile, "NULL")
    service.life.end()

    assert archive.lines() == lines_of(reaper)
    assert (sandbox.name(shown), "NULL") in archive.rows("role, application")


def test_a_role_that_could_change_the_copy_is_reported(reaper: Reaper, archive: Archive, app: Role) -> None:
    reaper.write(FILE, policy_file(leaked(app)))
    life = shipping(reaper, archive, dsn=archive.server.dsn).life

    assert "may change" in life.logged("audit_table.trouble")["why"]
    until(archive.lines)


@pytest.mark.parametrize(
    ("dsn", "options", "reported"),
    [
        (
            "host=db-2",
            (),
            "--audit-table copies a file of the audit log\nhint: name one with --audit-log FILE",
        ),
        ("host=db-2 password=a-secret", RECORD, "--audit-table carries a password"),
        ("postgresql://u:a-secret@db-2/x", RECORD, "REAPER_AUDIT_TABLE"),
        ("hots=a-secret", RECORD, "the connection string cannot be read"),
    ],
)
def test_a_wrong_audit_table_option_ends_the_start_with_2(
    offline: Reaper, app: Role, dsn: str, options: tuple[str, ...], reported: str
) -> None:
    offline.write(FILE, policy_file(leaked(app)))
    done = offline("run", "--audit-table", dsn, *options)

    assert done.code == 2
    assert reported in done.err
    assert "a-secret" not in done.err
    assert not (offline.folder / "audit.jsonl").exists()
