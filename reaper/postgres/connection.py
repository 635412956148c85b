"""One persistent connection to one server.

It is opened before the trouble starts and kept, with its own limits: when the slots are full it is already
inside. Autocommit: in a transaction `pg_stat_activity` would stand still, and a guard would see the past.
"""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, Final, Self

import psycopg
from psycopg import AsyncConnection, errors
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from reaper.policy.protections import REAPER_APPLICATION
from reaper.policy.time import Span
from reaper.postgres.errors import Lost, ServerError, Unreachable, explained, is_lost, read, sentence
from reaper.postgres.rows import register_loaders
from reaper.postgres.tls import Way

# As startup options they beat whatever ALTER ROLE or ALTER DATABASE says. The tcp_* ones are for the server's
# side: with them it frees our lock and slot some 10 s after our host has vanished, not after two hours.
_SETTINGS: Final = {
    "statement_timeout": "5s",
    "lock_timeout": "1s",
    "search_path": "",
    "default_transaction_isolation": r"read\ committed",
    "default_transaction_deferrable": "off",
    "timezone": "UTC",
    "client_min_messages": "error",
    "jit": "off",
    "max_parallel_workers_per_gather": "0",
}
_SOCKET: Final = {
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "3",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "10000",
}
# For what must not be lost once the server has said that it is there.
_WRITING: Final = {"default_transaction_read_only": "off", "synchronous_commit": "on"}
_NETWORK: Final[Mapping[str, str | int]] = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 3,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
# Beyond every limit above: a frozen backend acknowledges TCP, and its statement_timeout sleeps with it.
_WATCHDOG_SECONDS: Final = 12.0
_CONNECT_SECONDS: Final = 20.0
# Whatever PGCLIENTENCODING or ALTER ROLE says: nothing is converted, so that no name can fail a fetch.
# And nothing is written, unless a link is there to write: said at the login, libpq would take a primary for a
# server that only reads, and refuse it where `target_session_attrs` asks for one that writes.
_HABITS: Final = """
    SELECT pg_catalog.set_config('client_encoding', pg_catalog.current_setting('server_encoding'), false),
           pg_catalog.set_config('default_transaction_read_only', %s, false)
"""
_STATEMENT_TIMEOUT: Final = "SELECT pg_catalog.set_config('statement_timeout', %s, false)"
_OWN_PID: Final = "SELECT pg_catalog.pg_backend_pid()"
_TRIES: Final = 20
_PREPARE_AT_ONCE: Final = 0
_LEASE: Final = "SELECT pg_catalog.set_config('idle_session_timeout', %s, false)"
_LEASE_SINCE: Final = 14_00_00
_LONGEST_LEASE_MS: Final = 2**31 - 1
_MEETING_PLACE: Final = "postgres"


_Params = Mapping[str, object] | tuple[object, ...]


class Link:
    """A connection that either answers within its limits or is lost."""

    def __init__(self, connection: AsyncConnection[tuple[Any, ...]]) -> None:
        self._connection = connection

    @classmethod
    async def open(
        cls, dsn: str, *, lease: Span | None = None, writes: bool = False, tuned: bool = True
    ) -> Self:
        """Connect; with a lease, the server ends our session when we are silent for so long (from 14 on).

        A session that does not say that it writes cannot. One that is not tuned leaves the server's side of
        the socket as it is for others, so that it can be read.
        """
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                # Nothing is prepared before it is known whose session this is.
                connection = await AsyncConnection.connect(
                    _conninfo(dsn, writes=writes, tuned=tuned), autocommit=True, prepare_threshold=None
                )
        except TimeoutError:
            message = f"no answer within {_CONNECT_SECONDS:g}s"
            raise Unreachable(message) from None
        except (psycopg.Error, OSError, ValueError) as error:  # ValueError: a host that no name can be
            raise await explained(error) from None
        link = cls(connection)
        try:
            await link._settle_in(lease or Span(0), writes=writes)
        except psycopg.Error as error:
            await link.close()
            raise await explained(error) from None
        except BaseException:  # asked to stop amid it
            await link.close()
            raise
        register_loaders(connection)
        return link

    @property
    def pid(self) -> int:
        """The pid that the server named when we logged in; behind a pooler it is the pooler's invention."""
        return self._connection.info.backend_pid

    @property
    def where(self) -> str:
        """Host and port, for people."""
        return f"{self._connection.info.host}:{self._connection.info.port}"

    @property
    def takes_unicode(self) -> bool:
        """Whether every character can be stored there."""
        info = self._connection.info
        return info.parameter_status("server_encoding") == "UTF8" and info.encoding == "utf-8"

    @property
    def way(self) -> Way:
        """How it reaches the server."""
        return Way.of(self._connection.pgconn)

    @property
    def lost(self) -> bool:
        """Whether this connection is of no more use."""
        return self._connection.closed

    async def rows(self, sql: str, params: _Params = ()) -> list[tuple[Any, ...]]:
        """Run one statement by itself and fetch all of its rows; Lost when the connection breaks.

        A statement that fails raises the driver's own error, whose SQLSTATE tells what it was.
        """
        with self._watched():
            try:
                async with self._connection.cursor(binary=True) as cursor:
                    await cursor.execute(sql, params)
                    return await cursor.fetchall() if cursor.description else []
            except psycopg.Error as error:
                raise await self._read(error) from None

    @asynccontextmanager
    async def hurrying(self, seconds: float) -> AsyncIterator[None]:
        """In this block no statement may take longer; Lost when it could not be left as it was entered."""
        await self._limit(f"{max(int(seconds * 1_000), 1)}ms")
        try:
            yield
        finally:
            if not self.lost:
                # The limit of the block holds for this one too, and must not stay on for an act.
                await self._limit(_SETTINGS["statement_timeout"])

    async def lease(self, lease: Span) -> None:
        """From now on, let the server end our session when we are silent for so long (from 14 on)."""
        try:
            await self._take_lease(lease)
        except psycopg.Error as error:
            message = f"could not take the lease: {sentence(error)}"
            raise ServerError(message) from None

    async def close(self) -> None:
        """Give the slot back."""
        await self._connection.close()

    def cut(self) -> None:
        """Shut the socket down: a cancelled task would first wait for the frozen server to answer it."""
        if self._connection.closed:
            return
        with socket.socket(fileno=os.dup(self._connection.fileno())) as ours, suppress(OSError):
            ours.shutdown(socket.SHUT_RDWR)

    @contextmanager
    def _watched(self) -> Iterator[None]:
        bite = asyncio.get_running_loop().call_later(_WATCHDOG_SECONDS, self.cut)
        try:
            yield
        finally:
            bite.cancel()

    async def _read(self, error: psycopg.Error) -> psycopg.Error | Lost:
        """What an error means: that the connection is lost, which is closed then, or just what it says."""
        if not is_lost(error, closed=self._connection.closed):
            return error
        await self.close()
        message = f"the connection was lost: {sentence(error)}"
        return Lost(message)

    async def _settle_in(self, lease: Span, *, writes: bool) -> None:
        ((pid,),) = await self.rows(_OWN_PID)
        if pid != self.pid:
            # A pooler, which the preflight refuses: its sessions are lent to others, and stay as they were.
            return
        self._connection.prepare_threshold = _PREPARE_AT_ONCE
        await self.rows(_HABITS, ("off" if writes else "on",))
        await self._take_lease(lease)

    async def _limit(self, statement_timeout: str) -> None:
        trouble = psycopg.Error()
        for _ in range(_TRIES):
            try:
                await self.rows(_STATEMENT_TIMEOUT, (statement_timeout,))
            except errors.QueryCanceled as cancelled:
                # By the limit that is to be lifted, on a server that is short of breath. Where the slots are
                # full a connection given up for that would be the last one.
                trouble = cancelled
            except psycopg.Error as error:
                trouble = error
                break
            else:
                return
        await self.close()
        message = f"the connection was given up, for its limits could not be set: {sentence(trouble)}"
        raise Lost(message) from None

    async def _take_lease(self, lease: Span) -> None:
        if self._connection.info.server_version >= _LEASE_SINCE:
            # Without a lease it is 0, for the role may have been given a limit by ALTER ROLE.
            await self.rows(_LEASE, (str(min(lease // 1_000, _LONGEST_LEASE_MS)),))


def name_of(dsn: str) -> str:
    """What to call a server that the policy file does not name: its host and port."""
    given = read(dsn)
    host = given.get("host") or given.get("hostaddr") or os.environ.get("PGHOST") or "localhost"
    return f"{host}:{given.get('port') or os.environ.get('PGPORT') or 5432}"


def has_password(dsn: str) -> bool:
    """Whether a connection string carries a secret."""
    try:
        given = conninfo_to_dict(dsn)
    except psycopg.Error:
        return False
    return bool(given.get("password") or given.get("sslpassword"))


def _conninfo(dsn: str, *, writes: bool = False, tuned: bool = True) -> str:
    given = read(dsn)
    if not (given.keys() & {"dbname", "service"} or os.environ.keys() & {"PGDATABASE", "PGSERVICE"}):
        # libpq would take the role's name; this one is there, and is where replicas meet at the same lock.
        dsn = make_conninfo(dsn, dbname=_MEETING_PLACE)
    chosen = {**_SETTINGS, **(_SOCKET if tuned else {}), **(_WRITING if writes else {})}
    ours = "".join(f" -c {name}={value}" for name, value in chosen.items())
    settings = {name: value for name, value in _NETWORK.items() if name not in given}
    options = f"{given.get('options') or ''}{ours}".strip()
    return make_conninfo(dsn, **settings, options=options, application_name=REAPER_APPLICATION)
