"""The connection: its settings, its limits, and errors in a sentence without a secret."""

import asyncio
import gc
import warnings
from collections.abc import Callable, Coroutine
from pathlib import Path
from socketserver import BaseRequestHandler, ThreadingTCPServer
from threading import Thread
from typing import Any, Final

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Identifier

from reaper.policy.match import Match
from reaper.policy.plan import Candidate, Result
from reaper.policy.session import IN_TRANSACTION
from reaper.policy.time import SECOND, Duration
from reaper.postgres import connection as link_module
from reaper.postgres.connection import Connection, has_password, name_of
from reaper.postgres.errors import Lost, Unreachable

from .conftest import StartStage
from .proxy import Proxy, frozen
from .reaping import NOW, Reaper, policy
from .stage import Stage
from .waiting import until

IDLE_IN_TRANSACTION: Final = Match(states=(IN_TRANSACTION,), idle_for=NOW, transaction_for=Duration(1_000))
IN_FORCE: Final = {
    "application_name": "pg-reaper",
    "statement_timeout": "5s",
    "lock_timeout": "1s",
    "search_path": "",
    "default_transaction_read_only": "on",
    "default_transaction_isolation": "read committed",
    "default_transaction_deferrable": "off",
    "transaction_read_only": "on",
    "transaction_isolation": "read committed",
    "TimeZone": "UTC",
    "client_min_messages": "error",
    "client_encoding": "UTF8",
    "jit": "off",
    "max_parallel_workers_per_gather": "0",
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "3",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "10000",
}
HOSTILE: Final = {
    "application_name": "somebody else",
    "statement_timeout": "1ms",
    "lock_timeout": "1ms",
    "search_path": "evil, public",
    "default_transaction_read_only": "off",
    "default_transaction_isolation": "serializable",
    "default_transaction_deferrable": "on",
    "timezone": "Asia/Kathmandu",
    "client_min_messages": "debug1",
    "client_encoding": "LATIN1",
    "datestyle": "German, DMY",
    "intervalstyle": "sql_standard",
    "bytea_output": "escape",
    "extra_float_digits": "-15",
    "idle_in_transaction_session_timeout": "1ms",
}
SHADOWS: Final = """
    CREATE SCHEMA evil;
    CREATE FUNCTION evil.now_or_never(timestamptz, timestamptz) RETURNS bool LANGUAGE sql AS 'SELECT true';
    CREATE OPERATOR evil.>= (FUNCTION = evil.now_or_never, LEFTARG = timestamptz, RIGHTARG = timestamptz);
    CREATE OPERATOR evil.= (FUNCTION = evil.now_or_never, LEFTARG = timestamptz, RIGHTARG = timestamptz);
    CREATE FUNCTION evil.age(xid) RETURNS int LANGUAGE sql AS 'SELECT 2000000000';
    CREATE FUNCTION evil.pg_terminate_backend(int) RETURNS bool LANGUAGE sql AS 'SELECT true';
    CREATE VIEW evil.pg_roles AS SELECT 10::oid AS oid, 'nobody'::name AS rolname, true AS rolsuper;
    GRANT ALL ON SCHEMA evil TO PUBLIC;
    GRANT ALL ON ALL TABLES IN SCHEMA evil TO PUBLIC;
"""


def settings(reaper: Reaper) -> dict[str, str]:
    return {name: str(reaper.rows(f"SHOW {name}")[0][0]) for name in IN_FORCE}


def test_its_settings_are_in_force(stage: Stage) -> None:
    assert settings(stage.reaper) == IN_FORCE


def test_its_settings_are_in_force_whatever_its_role_was_given(stage: Stage) -> None:
    for setting, value in HOSTILE.items():
        if setting == "search_path":
            role = Identifier(stage.role.name)
            stage.admin.execute(SQL("ALTER ROLE {} SET search_path = evil, public").format(role))
        else:
            stage.set(stage.role, setting, value)

    reaper = stage.open_reaper()

    assert settings(reaper) == IN_FORCE
    client = stage.open(state="idle in transaction")
    long_enough = policy(stage.application, IDLE_IN_TRANSACTION)
    until(lambda: isinstance(reaper.decision(client, long_enough), Candidate))
    candidate = reaper.chosen(client, long_enough)
    assert reaper.act(candidate).result is Result.TERMINATED


def test_its_settings_are_in_force_whatever_the_environment_and_the_dsn_say(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGOPTIONS", "-c statement_timeout=1ms")
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    monkeypatch.setenv("PGAPPNAME", "somebody else")
    options = "-c statement_timeout=1ms -c search_path=evil -c default_transaction_read_only=off"
    with Reaper(make_conninfo(stage.role.dsn, options=options)) as reaper:
        assert settings(reaper) == IN_FORCE


@pytest.mark.parametrize("wanted", ["any", "read-write", "primary", "prefer-standby"])
def test_a_primary_is_found_whatever_kind_of_server_is_asked_for_and_nothing_is_written_there(
    stage: Stage, wanted: str
) -> None:
    with Reaper(make_conninfo(stage.role.dsn, target_session_attrs=wanted)) as reaper:
        assert reaper.rows("SHOW default_transaction_read_only") == [("on",)]


@pytest.mark.parametrize("wanted", ["read-only", "standby"])
def test_a_primary_is_none_of_the_servers_that_only_read(stage: Stage, wanted: str) -> None:
    with pytest.raises(Unreachable):
        Reaper(make_conninfo(stage.role.dsn, target_session_attrs=wanted))


def test_through_the_servers_own_socket_it_works_as_well(stage: Stage) -> None:
    if stage.server.embedded is None:
        pytest.skip("where a given server's socket lies is not known")
    with Reaper(make_conninfo(stage.server.embedded.socket_dsn, user=stage.role.name)) as reaper:
        assert reaper.look().unreadable == 0


def test_functions_and_operators_that_shadow_the_servers_own_are_not_called(stage: Stage) -> None:
    with stage.clients.open(database=stage.sandbox.database).connection as owner:
        owner.execute(SHADOWS)
    stage.set(stage.role, "search_path", "evil")
    with Reaper(make_conninfo(stage.role.dsn, dbname=stage.sandbox.database)) as reaper:
        client = stage.open(state="idle in transaction")

        session = reaper.see(client)

        assert session.identity.role == stage.app.name
        assert not session.superuser
        assert session.xid_age is None


def test_it_cannot_write(stage: Stage) -> None:
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        stage.reaper.rows("CREATE TABLE public.never ()")


def test_every_statement_is_a_transaction_of_its_own(stage: Stage) -> None:
    first, second = (stage.reaper.rows("SELECT pg_catalog.now()") for _ in range(2))

    assert first < second
    assert stage.reaper.link._connection.info.transaction_status.name == "IDLE"


def test_a_statement_that_fails_leaves_the_connection_in_use(stage: Stage) -> None:
    with pytest.raises(psycopg.errors.DivisionByZero):
        stage.reaper.rows("SELECT 1 / 0")

    assert not stage.reaper.link.lost
    assert stage.reaper.rows("SELECT 1") == [(1,)]


@pytest.mark.parametrize(
    ("lease", "shown"), [(None, "0"), (Duration(30 * SECOND), "30s"), (Duration(10**15), "2147483647ms")]
)
def test_from_14_on_the_lease_is_its_idle_session_timeout_and_nothing_else_is(
    stage: Stage, lease: Duration | None, shown: str
) -> None:
    if stage.server.major >= 14:
        stage.set(stage.role, "idle_session_timeout", "10s")
    with Reaper(stage.role.dsn, lease=lease) as reaper:
        if stage.server.major >= 14:
            assert reaper.rows("SHOW idle_session_timeout") == [(shown,)]
        assert reaper.rows("SELECT 1") == [(1,)]


def test_a_statement_that_takes_too_long_is_cancelled_by_the_server_and_the_connection_stays_usable(
    stage: Stage,
) -> None:
    stage.reaper.rows("SELECT pg_catalog.set_config('statement_timeout', '50ms', false)")

    with pytest.raises(psycopg.errors.QueryCanceled):
        stage.reaper.rows("SELECT pg_catalog.pg_sleep(3600)")
    assert stage.reaper.rows("SELECT 1") == [(1,)]


def test_a_server_without_a_name_is_called_by_its_host_and_port(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PGHOST", "PGPORT"):
        monkeypatch.delenv(name, raising=False)
    assert name_of("") == "localhost:5432"
    assert name_of("postgresql://u@db-1:6000/x") == "db-1:6000"
    monkeypatch.setenv("PGHOST", "db-2")
    monkeypatch.setenv("PGPORT", "6001")
    assert name_of("dbname=x") == "db-2:6001"
    with pytest.raises(ValueError, match="it is neither") as refusal:
        name_of("host=x password=a hunter2")
    assert "hunter2" not in str(refusal.value)


@pytest.mark.parametrize(
    ("dsn", "secret"),
    [
        ("host=x", False),
        ("host=x password=a", True),
        ("postgresql://u:a@x", True),
        ("sslpassword=a", True),
        ("?", False),
    ],
)
def test_a_connection_string_that_carries_a_secret_is_known_as_such(dsn: str, *, secret: bool) -> None:
    assert has_password(dsn) is secret


@pytest.mark.parametrize("host", ["db..example.com", ".example.com", "a" * 64 + ".example.com"])
def test_a_host_that_no_name_can_be_is_unreachable_in_a_sentence(host: str) -> None:
    with pytest.raises(Unreachable, match="the host's name is none that can be looked up"):
        asyncio.run(Connection.open(f"host={host} dbname=postgres"))


def test_a_port_of_the_environment_that_is_no_number_is_reported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PGPORT", "abc")
    with pytest.raises(Unreachable, match="abc"):
        asyncio.run(Connection.open("host=127.0.0.1 dbname=postgres"))


def test_a_port_of_a_service_file_that_is_no_number_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    services = tmp_path / "services.conf"
    services.write_text("[orders]\nhost=127.0.0.1\nport=abc\n", encoding="ascii")
    monkeypatch.setenv("PGSERVICEFILE", str(services))
    with pytest.raises(Unreachable, match="abc"):
        asyncio.run(Connection.open("service=orders"))


def test_a_cancelled_connection_attempt_leaves_no_connection_behind(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrived = asyncio.Event()

    async def never_done(*_: object, **__: object) -> None:
        arrived.set()
        await asyncio.Event().wait()

    async def scene() -> None:
        opening = asyncio.ensure_future(Connection.open(stage.server.dsn))
        await arrived.wait()
        opening.cancel()
        await asyncio.wait((opening,))

    monkeypatch.setattr(Connection, "_apply_settings", never_done)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        asyncio.run(scene())
        gc.collect()
    assert [each for each in warned if each.category is ResourceWarning] == []


def present(stage: Stage, pid: int) -> bool:
    found = stage.admin.execute("SELECT 1 FROM pg_stat_activity WHERE pid = %s", (pid,))
    return found.fetchone() is not None


def while_asked(reaper: Reaper, harm: Callable[[], None]) -> None:
    """Ask something that takes an hour, and do harm as soon as the server is at it."""

    async def ask() -> None:
        asked = asyncio.create_task(reaper.link.rows("SELECT pg_catalog.pg_sleep(3600)"))
        await asyncio.to_thread(harm)
        await asked

    work: Coroutine[Any, Any, None] = ask()
    reaper.do(work)


def at_work(stage: Stage, pid: int) -> bool:
    found = stage.admin.execute("SELECT wait_event FROM pg_stat_activity WHERE pid = %s", (pid,))
    return found.fetchone() == ("PgSleep",)


@pytest.mark.parametrize("harm", [Proxy.cut, Proxy.reset])
def test_a_connection_that_breaks_during_a_statement_is_lost(
    stage: Stage, proxy: Proxy, harm: Callable[[Proxy], None]
) -> None:
    with Reaper(proxy.dsn(stage.role.dsn)) as reaper:

        def when_at_work() -> None:
            until(lambda: at_work(stage, reaper.link.pid))
            harm(proxy)

        with pytest.raises(Lost, match="the connection was lost"):
            while_asked(reaper, when_at_work)
        assert reaper.link.lost


def test_a_network_that_swallows_everything_is_bounded_by_the_watchdog(
    stage: Stage, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Reaper(proxy.dsn(stage.role.dsn)) as reaper:
        monkeypatch.setattr(link_module, "_WATCHDOG_SECONDS", 0.2)
        proxy.stall()

        with pytest.raises(Lost):
            reaper.rows("SELECT 1")
        assert reaper.link.lost


def test_a_frozen_backend_is_bounded_by_the_watchdog(
    start_stage: StartStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = start_stage()
    monkeypatch.setattr(link_module, "_WATCHDOG_SECONDS", 0.2)
    with frozen(stage.reaper.link.pid):
        with pytest.raises(Lost):
            stage.reaper.rows("SELECT 1")
        assert stage.reaper.link.lost


def test_a_server_that_accepts_and_never_answers_is_unreachable(
    stage: Stage, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_module, "_CONNECT_SECONDS", 0.2)
    proxy.stall()

    with pytest.raises(Unreachable, match=r"no answer within 0\.2s"):
        asyncio.run(Connection.open(proxy.dsn(stage.role.dsn)))


def test_a_server_that_is_not_there_is_unreachable_in_a_sentence(stage: Stage, proxy: Proxy) -> None:
    proxy.cut()

    with pytest.raises(Unreachable, match="Connection refused") as refusal:
        asyncio.run(Connection.open(proxy.dsn(stage.role.dsn)))
    assert "\n" not in str(refusal.value)


def test_when_the_slots_are_full_an_open_connection_works_and_a_new_one_is_refused_in_a_sentence(
    start_stage: StartStage,
) -> None:
    stage = start_stage(max_connections="8", superuser_reserved_connections="3")
    slots = stage.reaper.look().slots
    stage.open_many(slots.usable - slots.used)

    slots = stage.reaper.look().slots

    assert slots.used == slots.usable == 5
    with pytest.raises(Unreachable, match="remaining connection slots are reserved") as refusal:
        stage.open_reaper()
    assert "\n" not in str(refusal.value)


def test_a_wrong_password_is_refused_in_a_sentence_without_it(start_stage: StartStage) -> None:
    stage = start_stage()
    embedded = stage.server.embedded
    assert embedded
    role = stage.sandbox.role("secretive")
    stage.admin.execute(f"ALTER ROLE \"{role.name}\" PASSWORD 'right'".encode())
    hba = embedded.data / "pg_hba.conf"
    rule = f"host all {role.name} 127.0.0.1/32 scram-sha-256\n"
    hba.write_text(rule + hba.read_text(encoding="utf-8"), encoding="utf-8")
    stage.admin.execute("SELECT pg_reload_conf()")

    def refusal(password: str) -> str | None:
        try:
            asyncio.run(opened_and_closed(make_conninfo(role.dsn, password=password)))
        except Unreachable as error:
            return str(error)
        return None

    said = until(lambda: refusal("hunter2"))
    assert said
    assert "password authentication failed" in said
    assert "hunter2" not in said


async def opened_and_closed(dsn: str) -> None:
    link = await Connection.open(dsn)
    await link.close()


PIECE: Final = "rest-of-it"


@pytest.mark.parametrize(
    "dsn",
    [
        f"postgresql://reaper:begin@{PIECE}@db.invalid/postgres",
        f"postgresql://reaper:begin/{PIECE}@db.invalid/postgres",
        f"postgresql://reaper:7/{PIECE}@db.invalid/postgres",
        f"postgres://reaper:{PIECE}/7@db.invalid/postgres",
        f"host=db.invalid port={PIECE}",
    ],
)
def test_a_connection_string_that_libpq_would_misread_is_refused_and_no_piece_is_repeated(dsn: str) -> None:
    with pytest.raises(ValueError, match="write @ as %40") as named:
        name_of(dsn)
    with pytest.raises(Unreachable) as opened:
        asyncio.run(Connection.open(dsn))

    assert PIECE not in f"{named.value} {opened.value}"
    assert "cannot be read" in str(opened.value)


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://reaper:a%40b%2Fc@db-1/postgres",
        "postgresql://db-1:5432/postgres?user=me@tenant",
        "postgresql://db-1,db-2:5432,5433/postgres",
        "postgresql://db-1/a%40b",
        "host=db-1,db-2 port=,5433 dbname=a@b user=me@tenant",
        "host=@abstract",
    ],
)
def test_a_connection_string_with_an_at_sign_in_its_place_is_read(dsn: str) -> None:
    assert name_of(dsn)


class Parrot(ThreadingTCPServer):
    """No server: it asks for a password in the clear, and repeats it in its refusal."""

    daemon_threads = True


class Repeating(BaseRequestHandler):
    def handle(self) -> None:
        with self.request.makefile("rwb") as link:
            link.read(int.from_bytes(link.read(4)) - 4)
            link.write(b"R" + (8).to_bytes(4) + (3).to_bytes(4))
            link.flush()
            link.read(1)
            password = link.read(int.from_bytes(link.read(4)) - 4)
            said = b"SFATAL\0C28P01\0Mno " + password + b"\0"
            link.write(b"E" + (len(said) + 4).to_bytes(4) + said)


def test_a_password_that_the_server_repeats_is_not_repeated_by_us(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Parrot(("127.0.0.1", 0), Repeating) as parrot:
        Thread(target=parrot.serve_forever, args=(0.01,), daemon=True).start()
        port = parrot.server_address[1]
        passfile = tmp_path / "pgpass"
        passfile.write_text(f"*:*:*:*:{PIECE}\n", encoding="ascii")
        passfile.chmod(0o600)
        where = f"host=127.0.0.1 port={port} user=reaper dbname=postgres sslmode=disable"
        said = [refusal_by(dsn) for dsn in (f"{where} password={PIECE}", f"{where} passfile={passfile}")]
        monkeypatch.setenv("PGPASSWORD", PIECE)
        said.append(refusal_by(where))
        parrot.shutdown()

    assert ["no ***" in each for each in said] == [True] * 3
    assert PIECE not in str(said)


def refusal_by(dsn: str) -> str:
    with pytest.raises(Unreachable) as refused:
        asyncio.run(Connection.open(dsn))
    return str(refused.value)
