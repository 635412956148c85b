"""Who acts at a server: one, the holder of the lock, on the very connection that holds it."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Identifier, Literal

from reaper.policy.protections import REAPER_APPLICATION
from reaper.policy.time import SECOND, Duration
from reaper.postgres.connection import Connection
from reaper.postgres.errors import Lost, Refused, ServerError
from reaper.postgres.leadership import LeaderLock, Leadership
from reaper.postgres.preflight import inspect, probe, refuse

from .clients import Clients
from .proxy import Pooler
from .sandbox import Role, Sandbox
from .server import Server
from .waiting import PATIENCE

_SPACE = 0x7265_6170


class Candidate:
    """A reaper that seeks the lead."""

    def __init__(self, link: Connection, office: LeaderLock, role: str) -> None:
        self.link = link
        self.leadership = Leadership(link, lock=office, role=role)

    async def seek(self) -> bool:
        return await self.leadership.seek()

    async def holder(self) -> str:
        return str(await self.leadership.holder())


class Election:
    """Opens candidates on a database of the test's own, and plays scenes with them."""

    def __init__(self, sandbox: Sandbox, role: Role) -> None:
        self.role = Role(role.name, make_conninfo(role.dsn, dbname=sandbox.database))
        self._stack = AsyncExitStack()

    async def candidate(
        self,
        office: LeaderLock = LeaderLock.ENFORCING,
        *,
        role: Role | None = None,
        dbname: str | None = None,
        lease: Duration | None = None,
    ) -> Candidate:
        chosen = role or self.role
        dsn = make_conninfo(chosen.dsn, **({"dbname": dbname} if dbname else {}))
        link = await Connection.open(dsn, lease=lease)
        self._stack.push_async_callback(link.close)
        return Candidate(link, office, chosen.name)

    def hold(self, scene: Callable[[], Awaitable[None]]) -> None:
        async def run() -> None:
            async with self._stack:
                await scene()

        asyncio.run(run())


@pytest.fixture
def election(sandbox: Sandbox, reaper_role: Role) -> Election:
    return Election(sandbox, reaper_role)


@pytest.fixture
def squatters(clients: Clients, sandbox: Sandbox) -> Iterator[Clients]:
    """Clients of ordinary roles, gone before the database goes."""
    assert sandbox.database
    yield clients
    clients.close()


async def leads_in_the_end(candidate: Candidate) -> None:
    """Seek until the server has seen the holder off."""
    async with asyncio.timeout(PATIENCE):
        while not await candidate.seek():  # noqa: ASYNC110 (another process is what we wait for)
            await asyncio.sleep(0)


def test_one_of_two_leads_and_the_other_names_it(election: Election) -> None:
    async def scene() -> None:
        first, second = await election.candidate(), await election.candidate()
        assert await first.seek()
        assert not await second.seek()
        said = f"pid {first.link.pid}, role {election.role.name}, application '{REAPER_APPLICATION}'"
        assert await second.holder() == f"another reaper leads: {said}"

    election.hold(scene)


def test_of_many_that_seek_at_once_exactly_one_leads(election: Election) -> None:
    async def scene() -> None:
        many = [await election.candidate() for _ in range(8)]
        assert sum(await asyncio.gather(*(one.seek() for one in many))) == 1

    election.hold(scene)


def test_the_lead_is_free_when_its_connection_is_closed(election: Election) -> None:
    async def scene() -> None:
        first, second = await election.candidate(), await election.candidate()
        assert await first.seek()
        await first.link.close()
        await leads_in_the_end(second)

    election.hold(scene)


def test_a_reaper_that_loses_the_lead_has_lost_its_connection(
    election: Election, admin: psycopg.Connection
) -> None:
    async def scene() -> None:
        first, second = await election.candidate(), await election.candidate()
        assert await first.seek()
        admin.execute("SELECT pg_terminate_backend(%s)", (first.link.pid,))
        await leads_in_the_end(second)
        with pytest.raises(Lost):
            await first.link.rows("SELECT 1")
        assert first.link.lost

    election.hold(scene)


def test_without_a_leader_there_is_no_holder(election: Election) -> None:
    async def scene() -> None:
        assert await (await election.candidate()).leadership.holder() is None

    election.hold(scene)


def test_a_lead_is_a_databases_own(election: Election, sandbox: Sandbox) -> None:
    other = sandbox.create_database("other")

    async def scene() -> None:
        here, there = await election.candidate(), await election.candidate(dbname=other)
        assert await here.seek()
        assert await there.leadership.holder() is None
        assert await there.seek()

    election.hold(scene)


def test_another_lead_of_the_same_office_is_seen_from_every_database(
    election: Election, sandbox: Sandbox, squatters: Clients
) -> None:
    other = sandbox.create_database("other")
    strange = sandbox.create_database("strange")
    stranger = squatters.open(role=sandbox.role("app"), database=strange)
    stranger.run("SELECT pg_advisory_lock(%s, %s)", _SPACE, int(LeaderLock.ENFORCING))

    async def scene() -> None:
        here, there = await election.candidate(), await election.candidate(dbname=other)
        dry_running = await election.candidate(LeaderLock.DRY_RUN, dbname=other)
        assert await here.seek()
        assert await here.leadership.elsewhere() is None  # another program's lock there does not matter
        assert await dry_running.seek()
        assert await here.leadership.elsewhere() is None
        assert await there.seek()
        seen = await here.leadership.elsewhere()
        assert seen
        assert (seen.pid, seen.database, seen.ours) == (there.link.pid, other, True)
        assert await dry_running.leadership.elsewhere() is None

    election.hold(scene)


def test_an_enforcing_reaper_and_a_dry_run_use_different_locks(election: Election) -> None:
    async def scene() -> None:
        acting, second = await election.candidate(), await election.candidate()
        dry_running = await election.candidate(LeaderLock.DRY_RUN)
        another = await election.candidate(LeaderLock.DRY_RUN)
        assert await acting.seek()
        assert await dry_running.seek()
        assert not await second.seek()
        assert not await another.seek()
        assert f"pid {acting.link.pid}," in await second.holder()
        assert f"pid {dry_running.link.pid}," in await another.holder()

    election.hold(scene)


def test_another_program_that_holds_the_lock_is_named_with_the_fix_and_not_touched(
    election: Election, sandbox: Sandbox, squatters: Clients
) -> None:
    app = sandbox.role("app")
    stranger = squatters.open(role=app, application="web-1", database=sandbox.database)
    stranger.run("SELECT pg_advisory_lock(%s, %s)", _SPACE, int(LeaderLock.ENFORCING))

    async def scene() -> None:
        candidate = await election.candidate()
        assert not await candidate.seek()
        assert await candidate.holder() == (
            f"a session that is no reaper holds the reaper's lock: pid {stranger.pid}, role {app.name}, "
            f"application 'web-1'; until it releases the lock nothing is terminated: "
            f"SELECT pg_terminate_backend({stranger.pid});"
        )
        assert stranger.present()
        stranger.close()
        await leads_in_the_end(candidate)

    election.hold(scene)


@pytest.mark.parametrize("application", [REAPER_APPLICATION, "psql"])
def test_only_a_session_of_our_role_and_our_name_is_taken_for_a_reaper(
    election: Election, sandbox: Sandbox, squatters: Clients, application: str
) -> None:
    is_ours = application != REAPER_APPLICATION
    role = election.role if is_ours else sandbox.role("app")
    holder = squatters.open(role=role, application=application, database=sandbox.database)
    holder.run("SELECT pg_advisory_lock(%s, %s)", _SPACE, int(LeaderLock.ENFORCING))

    async def scene() -> None:
        candidate = await election.candidate()
        assert not await candidate.seek()
        assert (await candidate.holder()).startswith("a session that is no reaper holds")

    election.hold(scene)


def test_other_locks_with_the_same_numbers_are_of_no_concern(
    election: Election, sandbox: Sandbox, squatters: Clients
) -> None:
    stranger = squatters.open(role=sandbox.role("app"), database=sandbox.database)
    stranger.run("SELECT pg_advisory_lock(%s::int8)", _SPACE << 32 | int(LeaderLock.ENFORCING))
    stranger.run("SELECT pg_advisory_lock(%s, %s)", _SPACE, int(LeaderLock.DRY_RUN) + 1)

    async def scene() -> None:
        candidate = await election.candidate()
        assert await candidate.leadership.holder() is None
        assert await candidate.seek()

    election.hold(scene)


def test_an_application_name_cannot_forge_a_second_line(
    election: Election, sandbox: Sandbox, squatters: Clients
) -> None:
    hostile = "x'; DROP\n--"
    stranger = squatters.open(role=sandbox.role("app"), application=hostile, database=sandbox.database)
    stranger.run("SELECT pg_advisory_lock(%s, %s)", _SPACE, int(LeaderLock.ENFORCING))

    async def scene() -> None:
        assert "\n" not in await (await election.candidate()).holder()

    election.hold(scene)


def test_a_session_that_is_silent_for_longer_than_its_lease_loses_the_lead(
    election: Election, server: Server
) -> None:
    if server.major < 14:
        pytest.skip("idle_session_timeout, which the lease is made of, came with 14")

    async def scene() -> None:
        other = await election.candidate()
        silent = await election.candidate(lease=Duration(SECOND))
        assert await silent.seek()
        await leads_in_the_end(other)
        with pytest.raises(Lost):
            await silent.link.rows("SELECT 1")

    election.hold(scene)


def test_a_lease_is_as_long_as_it_was_last_taken_for_whatever_the_role_was_given(
    election: Election, admin: psycopg.Connection, server: Server
) -> None:
    if server.major < 14:
        pytest.skip("idle_session_timeout, which the lease is made of, came with 14")
    role = Identifier(election.role.name)
    admin.execute(SQL("ALTER ROLE {} SET idle_session_timeout = {}").format(role, Literal("1min")))
    question = "SELECT current_setting('idle_session_timeout')"

    async def scene() -> None:
        link = (await election.candidate(lease=Duration(15 * SECOND))).link
        assert await link.rows(question) == [("15s",)]
        await link.lease(Duration(3_600 * SECOND))
        assert await link.rows(question) == [("1h",)]
        assert await (await election.candidate()).link.rows(question) == [("0",)]

    election.hold(scene)


def test_a_lease_that_cannot_be_taken_is_trouble_with_the_server_and_not_a_defect(
    election: Election, admin: psycopg.Connection
) -> None:
    async def scene() -> None:
        candidate = await election.candidate()
        admin.execute("SELECT pg_terminate_backend(%s)", (candidate.link.pid,))
        with pytest.raises(ServerError):
            await candidate.leadership.seek()
        with pytest.raises(ServerError):
            await candidate.leadership.holder()

    election.hold(scene)


def test_a_session_that_a_pooler_lends_is_left_as_it_was(reaper_role: Role, server: Server) -> None:
    async def scene(dsn: str) -> None:
        link = await Connection.open(dsn, lease=Duration(15 * SECOND))
        try:
            seen = await probe(link)
            assert seen.pid != link.pid
            with pytest.raises(Refused, match="there is a pooler between the reaper and the server"):
                refuse(inspect(link, seen, None, dry_run=False))
            assert await link.rows("SELECT count(*) FROM pg_prepared_statements") == [(0,)]
            limit = await link.rows("SELECT current_setting('idle_session_timeout', true)")
            assert limit in ([("0",)], [(None,)])
        finally:
            await link.close()

    with Pooler(server.dsn) as pooler:
        asyncio.run(scene(pooler.dsn(reaper_role.dsn)))
