"""A server with clients and a reaper, for one test."""

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
    """Opens clients and reapers on one server and closes all of them at the end."""

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
        """Every opened client that still has its session."""
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
        """Open a client of an ordinary role with the application name that the test's policies match."""
        return self.clients.open(
            application=application or self.application,
            role=role or self.app,
            database=database,
            state=state,
            dsn=dsn,
        )

    def open_superuser(self) -> Client:
        """Open a client of the superuser with the same application name."""
        return self.clients.open(application=self.application)

    def open_many(self, count: int) -> list[Client]:
        """Open several clients and return them, the longest idle one first."""
        return [self.open() for _ in range(count)]

    def open_reaper(self, role: Role | None = None, *, query_text: QueryText = QueryText.NONE) -> Reaper:
        """Open another connection of the reaper, by default with the reaper's own role."""
        return self._reapers.enter_context(Reaper((role or self.role).dsn, query_text=query_text))

    def set(self, role: Role, setting: str, value: str) -> None:
        """Change a setting of a role for its next sessions."""
        statement = SQL("ALTER ROLE {} SET {} = {}")
        self.admin.execute(statement.format(Identifier(role.name), Identifier(setting), Literal(value)))
