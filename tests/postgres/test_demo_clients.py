"""The demo's clients tell of themselves, and not of what others do to the slots."""

import asyncio

import psycopg
from psycopg import sql

from reaper.demo.clients import Connection, Door, Listener, Proof

from .sandbox import Role, Sandbox
from .server import Server


class NarrowDoor(Door):
    """Has room for one at first, and for everybody once somebody was refused."""

    def __init__(self, dsn: str, role: Role, admin: psycopg.Connection) -> None:
        super().__init__(dsn)
        self.refused = 0
        self._role = sql.Identifier(role.name)
        self._user = role.name
        self._admin = admin
        self._let_in(1)

    async def enter(self, application: str, role: str) -> Connection:  # noqa: ARG002 - everybody is the one role that has the limit
        try:
            return await super().enter(application, self._user)
        except psycopg.OperationalError:
            self.refused += 1
            self._let_in(-1)
            raise

    def _let_in(self, limit: int) -> None:
        self._admin.execute(sql.SQL("ALTER ROLE {} CONNECTION LIMIT {}").format(self._role, limit))


def test_a_listener_that_is_well_says_so_when_the_slots_were_full_for_a_moment(
    server: Server, sandbox: Sandbox, admin: psycopg.Connection
) -> None:
    door = NarrowDoor(server.dsn, sandbox.role("shop"), admin)

    async def told() -> Proof:
        listener = Listener(door)
        try:
            await listener.arrive()
            return await listener.prove()
        finally:
            await listener.leave()

    assert asyncio.run(told()) == Proof("notifier", well=True, words="hears notifications")
    assert door.refused == 1
