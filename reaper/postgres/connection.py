"""One persistent connection to one server.

It is opened early and kept, because a new connection may be refused when the slots are full. Autocommit:
inside a transaction `pg_stat_activity` does not change, and a guard would check the past.
"""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, Self

import psycopg
from psycopg import AsyncConnection, errors
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception_type,
    stop_after_delay,
    wait_exponential_jitter,
    wait_random,
)

from reaper.policy.protections import REAPER_APPLICATION
from reaper.policy.time import Duration
from reaper.postgres.errors import Lost, ServerError, Unreachable, explained, is_lost, read, sentence
from reaper.postgres.rows import load_raw, register_loaders, tolerant
from reaper.postgres.tls import NetworkPath

# As startup options they override ALTER ROLE and ALTER DATABASE. The tcp_* ones are for the server's side:
# with them it frees our lock and slot some 10 s after our host has vanished, not after two hours.
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
# For rows that must not be lost after the server has confirmed them.
_WRITING: Final = {"default_transaction_read_only": "off", "synchronous_commit": "on"}
_NETWORK: Final[Mapping[str, str | int]] = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 3,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
# Longer than every limit above. A frozen backend still acknowledges TCP, and its own timeouts are frozen too.
_WATCHDOG_SECONDS: Final = 12.0
_CONNECT_SECONDS: Final = 20.0
# No conversion, whatever PGCLIENTENCODING or ALTER ROLE says: a name that cannot be converted fails a fetch.
# Read only is set after the login: as a startup option it would make libpq take a primary for a standby and
# refuse it if `target_session_attrs` requires one that writes.
_AFTER_LOGIN: Final = """
    SELECT pg_catalog.set_config('client_encoding', pg_catalog.current_setting('server_encoding'), false),
           pg_catalog.set_config('default_transaction_read_only', %s, false)
"""
_STATEMENT_TIMEOUT: Final = "SELECT pg_catalog.set_config('statement_timeout', %s, false)"
_OWN_PID: Final = "SELECT pg_catalog.pg_backend_pid()"
_MAX_LIMIT_PAUSE: Final = 0.01
_MAX_BACKOFF_SECONDS: Final = 60.0
_PREPARE_AT_ONCE: Final = 0
_LEASE: Final = "SELECT pg_catalog.set_config('idle_session_timeout', %s, false)"
_LEASE_SINCE: Final = 14_00_00
_LONGEST_LEASE_MS: Final = 2**31 - 1
_DEFAULT_DATABASE: Final = "postgres"


_Params = Mapping[str, object] | tuple[object, ...]


class Connection:
    """A connection on which each statement ends within its limits, or the connection is lost."""

    def __init__(self, connection: AsyncConnection[tuple[Any, ...]]) -> None:
        self._connection = connection

    @classmethod
    async def open(
        cls, dsn: str, *, lease: Duration | None = None, writes: bool = False, tuned: bool = True
    ) -> Self:
        """Connect; with a lease the server ends our session after that time without a statement (from 14 on).

        Without `writes` the session is read-only. Without `tuned` the server's side of the socket keeps its
        defaults, so that they can be read.
        """
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                # A pooler lends this session to others: nothing is prepared before it is ruled out.
                connection = await AsyncConnection.connect(
                    _conninfo(dsn, writes=writes, tuned=tuned), autocommit=True, prepare_threshold=None
                )
        except TimeoutError:
            message = f"no answer within {_CONNECT_SECONDS:g}s"
            raise Unreachable(message) from None
        except (psycopg.Error, OSError, ValueError) as error:  # ValueError: not a host name
            raise await explained(error) from None
        opened = cls(connection)
        try:
            await opened._apply_settings(lease or Duration(0), writes=writes)
        except psycopg.Error as error:
            await opened.close()
            raise await explained(error) from None
        except BaseException:  # cancelled while connecting
            await opened.close()
            raise
        register_loaders(connection)
        return opened

    @property
    def pid(self) -> int:
        """The pid in the server's greeting; a pooler invents one."""
        return self._connection.info.backend_pid

    @property
    def where(self) -> str:
        """Host and port, for people."""
        return f"{self._connection.info.host}:{self._connection.info.port}"

    @property
    def takes_unicode(self) -> bool:
        """Return True if every character can be stored there."""
        info = self._connection.info
        return info.parameter_status("server_encoding") == "UTF8" and info.encoding == "utf-8"

    @property
    def path(self) -> NetworkPath:
        """The network path to the server."""
        return NetworkPath.of(self._connection.pgconn)

    @property
    def lost(self) -> bool:
        """Return True if the connection is closed."""
        return self._connection.closed

    @property
    def encoding(self) -> str:
        """The encoding by which to decode raw text."""
        return tolerant(self._connection.info.encoding)

    async def rows(self, sql: str, params: _Params = (), *, raw: bool = False) -> list[tuple[Any, ...]]:
        """Run one statement by itself and fetch all of its rows; Lost when the connection breaks.

        A statement that fails raises psycopg's own error with its SQLSTATE. With `raw` text comes as bytes
        and a timestamp as microseconds since 2000.
        """
        watchdog = asyncio.get_running_loop().call_later(_WATCHDOG_SECONDS, self.cut)
        try:
            async with self._connection.cursor(binary=True) as cursor:
                if raw:
                    load_raw(cursor)
                await cursor.execute(sql, params)
                return await cursor.fetchall() if cursor.description else []
        except psycopg.Error as error:
            if not is_lost(error, closed=self._connection.closed):
                raise
            await self.close()
            message = f"the connection was lost: {sentence(error)}"
            raise Lost(message) from None
        finally:
            watchdog.cancel()

    @asynccontextmanager
    async def hurrying(self, seconds: float) -> AsyncIterator[None]:
        """Limit every statement in this block; Lost if the former limit could not be restored."""
        await self._limit(f"{max(int(seconds * 1_000), 1)}ms")
        try:
            yield
        finally:
            if not self.lost:
                # A limit that stayed would cut off the next termination.
                await self._limit(_SETTINGS["statement_timeout"])

    async def lease(self, lease: Duration) -> None:
        """Set the time without a statement after which the server ends our session (14 and later)."""
        if self._connection.info.server_version < _LEASE_SINCE:
            return
        milliseconds = str(min(lease // 1_000, _LONGEST_LEASE_MS))
        try:
            await self.rows(_LEASE, (milliseconds,))
        except psycopg.Error as error:
            message = f"could not take the lease: {sentence(error)}"
            raise ServerError(message) from None

    async def close(self) -> None:
        """Close the connection and free its slot."""
        await self._connection.close()

    def cut(self) -> None:
        """Shut the socket down at once."""
        # Cancelling the task instead would wait for the frozen server to answer the cancel request.
        if self._connection.closed:
            return
        with socket.socket(fileno=os.dup(self._connection.fileno())) as ours, suppress(OSError):
            ours.shutdown(socket.SHUT_RDWR)

    async def _apply_settings(self, lease: Duration, *, writes: bool) -> None:
        ((pid,),) = await self.rows(_OWN_PID)
        if pid != self.pid:
            # A pooler, which the preflight refuses: its sessions are lent to others and must stay unchanged.
            return
        self._connection.prepare_threshold = _PREPARE_AT_ONCE
        await self.rows(_AFTER_LOGIN, ("off" if writes else "on",))
        # 0 without a lease: ALTER ROLE may have given the role a limit.
        await self.lease(lease)

    async def _limit(self, statement_timeout: str) -> None:
        # On a slow server the limit of the block cancels this statement too, many times in a row: only time
        # bounds the attempts. If the slots are full, a connection that is given up cannot be replaced.
        attempts = AsyncRetrying(
            retry=retry_if_exception_type(errors.QueryCanceled),
            wait=wait_random(0, _MAX_LIMIT_PAUSE),
            stop=stop_after_delay(_WATCHDOG_SECONDS),
            reraise=True,
        )
        try:
            await attempts(self.rows, _STATEMENT_TIMEOUT, (statement_timeout,))
        except psycopg.Error as error:
            await self.close()
            message = f"the connection was closed: its limits could not be restored: {sentence(error)}"
            raise Lost(message) from None


async def reconnecting(
    serve: Callable[[], Awaitable[None]],
    *,
    sleep: Callable[[float], Awaitable[None]],
    report: Callable[[BaseException | None, float], None],
    stopped: Callable[[], bool],
) -> None:
    """Run `serve` until `stopped`; after a ServerError report it, back off and run it again."""

    def report_retry(attempt: RetryCallState) -> None:
        report(attempt.outcome.exception() if attempt.outcome else None, attempt.upcoming_sleep)

    attempts = AsyncRetrying(
        retry=retry_if_exception_type(ServerError),
        # Jitter, so that the reapers of many servers behind one failed network do not return all at once.
        wait=wait_exponential_jitter(initial=1, max=_MAX_BACKOFF_SECONDS, jitter=1),
        sleep=sleep,
        before_sleep=report_retry,
        stop=lambda _: stopped(),
        retry_error_callback=lambda _: None,
    )
    while not stopped():
        # `serve` returned after a connection that worked: the backoff starts small again.
        await attempts(serve)


def name_of(dsn: str) -> str:
    """The name of a server without one in the policy file: its host and port."""
    given = read(dsn)
    host = given.get("host") or given.get("hostaddr") or os.environ.get("PGHOST") or "localhost"
    return f"{host}:{given.get('port') or os.environ.get('PGPORT') or 5432}"


def has_password(dsn: str) -> bool:
    """Return True if a connection string contains a secret."""
    try:
        given = conninfo_to_dict(dsn)
    except psycopg.Error:
        return False
    return bool(given.get("password") or given.get("sslpassword"))


def _conninfo(dsn: str, *, writes: bool = False, tuned: bool = True) -> str:
    given = read(dsn)
    if not (given.keys() & {"dbname", "service"} or os.environ.keys() & {"PGDATABASE", "PGSERVICE"}):
        # libpq would take the role's name. An advisory lock belongs to one database: replicas must share it.
        dsn = make_conninfo(dsn, dbname=_DEFAULT_DATABASE)
    chosen = {**_SETTINGS, **(_SOCKET if tuned else {}), **(_WRITING if writes else {})}
    ours = "".join(f" -c {name}={value}" for name, value in chosen.items())
    settings = {name: value for name, value in _NETWORK.items() if name not in given}
    options = f"{given.get('options') or ''}{ours}".strip()
    return make_conninfo(dsn, **settings, options=options, application_name=REAPER_APPLICATION)
