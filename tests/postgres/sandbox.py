"""Roles and databases of one test, with names that no other test uses."""

import secrets
from collections.abc import Sequence
from functools import cached_property
from typing import LiteralString, NamedTuple, Self

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Identifier, Literal

from .server import Server


class Role(NamedTuple):
    """A role that can log in."""

    name: str
    dsn: str


class Sandbox:
    """Creates roles and databases on the server and drops them at the end."""

    def __init__(self, server: Server) -> None:
        self.prefix = f"t{secrets.token_hex(4)}_"
        self.admin = psycopg.connect(server.dsn, autocommit=True, application_name="sandbox")
        self._server = server
        self._databases: list[str] = []
        self._roles: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def name(self, label: str) -> str:
        """Return the label with this test's own prefix."""
        return self.prefix + label

    @cached_property
    def database(self) -> str:
        """A database of this test, created at the first use."""
        return self.create_database("db")

    def create_database(self, label: str, *, encoding: str = "UTF8") -> str:
        """Create another database and return its name."""
        name = self.name(label)
        statement = SQL("CREATE DATABASE {} TEMPLATE template0 ENCODING {} LC_COLLATE 'C' LC_CTYPE 'C'")
        self.admin.execute(statement.format(Identifier(name), Literal(encoding)))
        self._databases.append(name)
        return name

    def role(
        self,
        label: str = "app",
        *,
        member_of: Sequence[str] = (),
        options: LiteralString = "",
        name: str | None = None,
    ) -> Role:
        """Create a role that can log in, with these memberships and options (`SUPERUSER`, `NOINHERIT`).

        A `name` has to be one that no other test uses.
        """
        name = name or self.name(label)
        # The embedded server trusts every role; a given server may require a password.
        password = "" if self._server.embedded else secrets.token_hex(16)
        statement = SQL("CREATE ROLE {} LOGIN PASSWORD {} " + options)
        self.admin.execute(statement.format(Identifier(name), Literal(password or None)))
        self._roles.append(name)
        for group in member_of:
            self.admin.execute(SQL("GRANT {} TO {}").format(Identifier(group), Identifier(name)))
        secret = {"password": password} if password else {}
        return Role(name=name, dsn=make_conninfo(self._server.dsn, user=name, **secret))

    def close(self) -> None:
        """Drop everything that was created; sessions in the databases are terminated."""
        with self.admin:
            for name in self._databases:
                self.admin.execute(SQL("DROP DATABASE {} WITH (FORCE)").format(Identifier(name)))
            for name in self._roles:
                self.admin.execute(SQL("DROP OWNED BY {}").format(Identifier(name)))
                self.admin.execute(SQL("DROP ROLE {}").format(Identifier(name)))
