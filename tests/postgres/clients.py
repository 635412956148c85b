"""Clients of a server, each in the state that a test needs."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, Literal, LiteralString, Self

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.pq import ConnStatus, DiagnosticField, TransactionStatus
from psycopg.sql import SQL, Identifier

from .sandbox import Role
from .waiting import until

State = Literal["idle", "idle in transaction", "idle in transaction (aborted)", "active"]

_STATE: Final = "SELECT state FROM pg_stat_activity WHERE pid = %s AND backend_start = %s"
_TERMINATE: Final = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = %s AND backend_start = %s
"""
_OWN_START: Final = "SELECT backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()"


class Client:
    """One session: its own connection, and its row in pg_stat_activity."""

    def __init__(self, clients: "Clients", connection: psycopg.Connection) -> None:
        self.connection = connection
        self.pid = connection.info.backend_pid
        self.backend_start = self.run(_OWN_START)[0][0]
        self._clients = clients

    def run(self, statement: LiteralString, *parameters: object) -> Sequence[tuple[Any, ...]]:
        """Run a statement and return its rows."""
        cursor = self.connection.execute(statement, parameters or None)
        return cursor.fetchall() if cursor.description else []

    def start(self, statement: str) -> None:
        """Send a statement and return as soon as the server executes it."""
        self.connection.pgconn.send_query(statement.encode())
        until(lambda: self.state() == "active")

    def finish(self) -> str | None:
        """Wait for the end of the started statement; return the SQLSTATE if it failed."""
        until(self._answered)
        failure: bytes | None = None
        while (result := self.connection.pgconn.get_result()) is not None:
            failure = result.error_field(DiagnosticField.SQLSTATE) or failure
        return failure.decode() if failure else None

    def enter(self, state: State) -> None:
        """Change from idle to another state."""
        if state == "active":
            self.start("SELECT pg_sleep(3600)")
        elif state != "idle":
            self.run("BEGIN")
            self.run("SELECT 1")
        if state == "idle in transaction (aborted)":
            with suppress(psycopg.errors.DivisionByZero):
                self.run("SELECT 1 / 0")

    def listen(self, channel: str = "news") -> None:
        """Make LISTEN the last query of this session."""
        self.connection.execute(SQL("LISTEN {}").format(Identifier(channel)))

    def hold_advisory_lock(self, key: int) -> None:
        """Take a session-level advisory lock."""
        self.run("SELECT pg_advisory_lock(%s)", key)

    def wake(self) -> None:
        """Run an empty statement, which is allowed in an aborted transaction too."""
        self.connection.execute("")

    def alive(self) -> bool:
        """Return True if its connection still works; the check resets the idle time of an idle session."""
        if self._busy:
            return not self._answered() or self.connection.pgconn.status == ConnStatus.OK
        try:
            self.wake()
        except psycopg.OperationalError:
            return False
        return True

    def state(self) -> str | None:
        """Return its state in pg_stat_activity, without using its connection; None if it is gone."""
        return self._clients.state(self)

    def present(self) -> bool:
        """Return True if pg_stat_activity has this session; its connection is not used."""
        return self.state() is not None

    def left(self) -> bool:
        """Return True if this session is gone from pg_stat_activity."""
        return not self.present()

    def close(self) -> None:
        """Disconnect, without waiting for a statement that still runs."""
        if self._busy:
            self._clients.terminate(self)
        self.connection.close()

    @property
    def _busy(self) -> bool:
        return self.connection.pgconn.transaction_status == TransactionStatus.ACTIVE

    def _answered(self) -> bool:
        try:
            self.connection.pgconn.consume_input()
        except psycopg.OperationalError:
            return True
        return not self.connection.pgconn.is_busy()


class Clients:
    """Opens clients of one server and closes all of them at the end."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self.opened: list[Client] = []
        # Connected before a test fills all slots.
        self._admin = psycopg.connect(dsn, autocommit=True, application_name="client states")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(
        self,
        *,
        application: str = "client",
        role: Role | None = None,
        database: str | None = None,
        state: State = "idle",
        dsn: str | None = None,
    ) -> Client:
        """Open a session and return it in this state; by default one of the superuser in its own database."""
        target = dsn or (role.dsn if role else self._dsn)
        options: Mapping[str, str] = {"dbname": database} if database else {}
        connection = psycopg.connect(
            make_conninfo(target, application_name=application, **options), autocommit=True
        )
        client = Client(self, connection)
        self.opened.append(client)
        client.enter(state)
        return client

    def state(self, client: Client) -> str | None:
        """Return the client's state in pg_stat_activity; None if it is gone."""
        row = self._fetch(_STATE, client)
        return str(row[0]) if row else None

    def terminate(self, client: Client) -> None:
        """Terminate a client's session."""
        self._fetch(_TERMINATE, client)

    def close(self) -> None:
        """Close all clients and wait until their sessions are gone."""
        try:
            # A server that is down has no sessions to wait for.
            with suppress(psycopg.OperationalError):
                for client in self.opened:
                    client.close()
                for client in self.opened:
                    until(client.left)
        finally:
            for client in self.opened:
                client.connection.close()
            self._admin.close()

    def _fetch(self, statement: LiteralString, client: Client) -> tuple[object, ...] | None:
        if self._admin.closed:
            self._admin = psycopg.connect(self._dsn, autocommit=True)
        return self._admin.execute(statement, (client.pid, client.backend_start)).fetchone()
