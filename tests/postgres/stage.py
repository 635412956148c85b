"""A server with the reaper at it, and the clients that it is to find there."""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Self

import psycopg
from psycopg.sql import SQL, Identifier, Literal

from reaper.postgres.query_text import QueryText

from .clients import Client, Clients, State
from .reaping import Reaper
from .sandbox import Role, Sandbox
from .server import Server


class Stage:
    """Opens clients and reapers on one server, and takes all of them away at the end."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.sandbox = stack.enter_context(Sandbox(self.server))
            self.admin: psycopg.Connection = self.sandbox.admin
            self.clients = stack.enter_context(Clients(self.server.dsn))
            self.role = self.sandbox.role("reaper", member_of=["pg_read_all_stats", "pg_signal_backend"])
            self.app = self.sandbox.role("app")
            self.application = self.sandbox.name("web")
            self._reapers = stack.enter_context(ExitStack())
            self.reaper = self.open_reaper()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def sessions(self) -> Sequence[Client]:
        """Every client that was opened and is still there."""
        return [client for client in self.clients.opened if client.present()]

    def open(
        self,
        *,
        application: str | None = None,
        role: Role | None = None,
        database: str | None = None,
        state: State = "idle",
        dsn: str | None = None,
    ) -> Client:
        """A client of an ordinary role, under the application name that the test's policies are about."""
        return self.clients.open(
            application=application or self.application,
            role=role or self.app,
            database=database,
            state=state,
            dsn=dsn,
        )

    def open_superuser(self) -> Client:
        """A client that is a superuser, under the same application name."""
        return self.clients.open(application=self.application)

    def open_many(self, count: int) -> list[Client]:
        """So many clients, the one that has been idle for the longest first."""
        return [self.open() for _ in range(count)]

    def open_reaper(self, role: Role | None = None, *, query_text: QueryText = QueryText.NONE) -> Reaper:
        """Another connection of the reaper, of its own role by default."""
        return self._reapers.enter_context(Reaper((role or self.role).dsn, query_text=query_text))

    def set(self, role: Role, setting: str, value: str) -> None:
        """Give a role a setting that its next sessions begin with."""
        statement = SQL("ALTER ROLE {} SET {} = {}")
        self.admin.execute(statement.format(Identifier(role.name), Identifier(setting), Literal(value)))
