"""A connection that breaks, freezes or cannot be made: told in a sentence, within its limits."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from psycopg.conninfo import make_conninfo

from reaper.policy.time import SECOND, Span
from reaper.postgres import connection as link_module
from reaper.postgres.connection import Connection
from reaper.postgres.errors import Lost, Unreachable

from .conftest import StartStage
from .freezing import frozen
from .proxy import Proxy
from .reaping import Reaper
from .stage import Stage
from .waiting import until


def test_a_session_whose_lease_has_run_out_is_lost(stage: Stage) -> None:
    if stage.server.major < 14:
        pytest.skip("idle_session_timeout came with 14")
    with Reaper(stage.role.dsn, lease=Span(SECOND)) as reaper:
        until(lambda: not present(stage, reaper.link.pid))

        with pytest.raises(Lost, match=r"57P05|closed the connection|terminating connection"):
            reaper.rows("SELECT 1")
        assert reaper.link.lost


def test_a_session_that_was_terminated_is_lost(stage: Stage) -> None:
    stage.admin.execute("SELECT pg_terminate_backend(%s)", (stage.reaper.link.pid,))
    until(lambda: not present(stage, stage.reaper.link.pid))

    with pytest.raises(Lost):
        stage.reaper.rows("SELECT 1")
    assert stage.reaper.link.lost


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


@pytest.mark.parametrize("dsn", ["host=localhost password=hunter2 hunter3", "postgresql://u:hunter2@[::1"])
def test_a_connection_string_that_cannot_be_read_is_not_repeated(dsn: str) -> None:
    with pytest.raises(Unreachable, match="the connection string cannot be read") as refusal:
        asyncio.run(Connection.open(dsn))
    assert "hunter" not in str(refusal.value)
