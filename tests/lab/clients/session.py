"""One session, and the account of its client: when it was used, when it ended and why.

It has the few messages of PostgreSQL's protocol that it needs: a driver would cost ten times as much.
"""

import asyncio
import struct
import time
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Self

HEAD: Final = struct.Struct("!cI")
TERMINATED: Final = "57P01"
TIMED_OUT: Final = "57P05"
NOW: Final = "(extract(epoch FROM clock_timestamp()) * 1000000)::int8"
_PROTOCOL: Final = 196_608
_MICROSECONDS: Final = 1_000_000
_PATIENCE: Final = 30.0
_FATAL: Final = {b"FATAL", b"PANIC"}
_BACKEND_START: Final = "(extract(epoch FROM s.backend_start) * 1000000)::int8"
_INTRODUCTION: Final = f"SELECT {NOW}, {_BACKEND_START} FROM pg_stat_get_activity(pg_backend_pid()) s"  # noqa: S608

Address = int | str
"""A port on loopback, or the path of a Unix socket."""


def startup(role: str, database: str, application: str) -> bytes:
    """The message that opens a session."""
    options = {"user": role, "database": database, "application_name": application}
    text = b"".join(f"{key}\0{value}\0".encode() for key, value in options.items()) + b"\0"
    return struct.pack("!II", 8 + len(text), _PROTOCOL) + text


def query(sql: str) -> bytes:
    """The message that runs statements."""
    text = f"{sql}\0".encode()
    return HEAD.pack(b"Q", 4 + len(text)) + text


def _columns(body: bytes) -> list[bytes]:
    """The columns of a row."""
    columns, at = [], 2
    while at < len(body):
        length = max(struct.unpack_from("!i", body, at)[0], 0)
        columns.append(body[at + 4 : at + 4 + length])
        at += 4 + length
    return columns


class NotServed(Exception):
    """No session could be opened, or it has ended; the message is the SQLSTATE if there was one."""


class SessionKey(NamedTuple):
    """A session as the server's log identifies it: the second in which it began, and its pid."""

    began: int
    pid: int


class Use(NamedTuple):
    """One statement: when it was sent and answered, by this host's monotonic clock."""

    sent: float
    answered: float
    server_time: int
    """The server's clock within the statement, in microseconds."""


@dataclass(slots=True, kw_only=True)
class SessionAccount:
    """The account of one session by its client."""

    kind: str
    limit: float | None = None
    """The seconds for which it may be unused; None if it must never be terminated."""
    pid: int = 0
    began: int = 0
    """The server's `backend_start` in microseconds; 0 if the session was never served."""
    uses: list[Use] = field(default_factory=list)
    waiting: bool = False
    """True while a statement is unanswered."""
    closed_at: float | None = None
    """When the client closed it."""
    ended_at: float | None = None
    """When the client noticed that the server had ended it."""
    sqlstate: str = ""

    @property
    def key(self) -> SessionKey:
        return SessionKey(self.began // _MICROSECONDS, self.pid)

    @property
    def open(self) -> bool:
        """Return True if it was served, and the client has not noticed an end."""
        return bool(self.began) and self.ended_at is None and self.closed_at is None

    @property
    def last(self) -> Use:
        return self.uses[-1]

    @property
    def rested(self) -> float:
        """The seconds for which it had been unused before its last use, by the server's clock."""
        times = [use.server_time for use in self.uses[-2:]]
        return (times[-1] - times[0]) / _MICROSECONDS


def wall(monotonic: float) -> float:
    """The wall clock time of a moment of the monotonic clock."""
    return monotonic + time.time() - time.monotonic()


class ClientSession(asyncio.Protocol):
    """A session that notices at once that the server has ended it."""

    def __init__(self, account: SessionAccount) -> None:
        self.account = account
        self.ended = asyncio.Event()
        self.transport: asyncio.Transport
        self._row: list[bytes] = []
        self._unread = b""
        self._ready = asyncio.Event()
        self._error = ""

    @classmethod
    async def open(
        cls,
        at: Address,
        account: SessionAccount,
        *,
        role: str,
        application: str = "",
        database: str = "postgres",
    ) -> Self:
        """Log in, and query the session's identity; NotServed if that fails."""
        session = cls(account)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_PATIENCE):
                if isinstance(at, int):
                    await loop.create_connection(lambda: session, "127.0.0.1", at)
                else:
                    await loop.create_unix_connection(lambda: session, at)
        except (OSError, TimeoutError) as error:
            raise NotServed from error
        try:
            session.transport.write(startup(role, database, application))
            await session._answered()
            await session.use(_INTRODUCTION)
            account.began = int(session._row[1])
        except BaseException:
            session.close()
            raise
        return session

    async def use(self, sql: str = f"SELECT {NOW}") -> None:
        """Run statements and note when; the last row begins with the server's clock."""
        sent = time.monotonic()
        await self.run(sql)
        self.account.uses.append(Use(sent, time.monotonic(), int(self._row[0])))

    async def run(self, sql: str) -> None:
        """Run statements that return no clock: for sessions of any age."""
        if self.ended.is_set():
            raise NotServed(self.account.sqlstate)
        self._ready.clear()
        self._error = ""
        self.account.waiting = True
        self.transport.write(query(sql))
        await self._answered()
        self.account.waiting = False

    def close(self, *, noted: bool = True) -> None:
        """Close it, unless the server has ended it, and note when."""
        if noted and not self.ended.is_set() and self.account.closed_at is None:
            self.account.closed_at = time.monotonic()
        self.transport.close()

    async def _answered(self) -> None:
        await self._ready.wait()
        if self.ended.is_set() or self._error:
            raise NotServed(self._error or self.account.sqlstate)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._unread += data
        while len(self._unread) >= HEAD.size:
            kind, length = HEAD.unpack_from(self._unread)
            if len(self._unread) <= length:
                return
            body, self._unread = self._unread[HEAD.size : length + 1], self._unread[length + 1 :]
            self._message(kind, body)

    def connection_lost(self, _: Exception | None) -> None:
        if self.account.closed_at is None:
            self.account.ended_at = self.account.ended_at or time.monotonic()
        self.ended.set()
        self._ready.set()

    def _message(self, kind: bytes, body: bytes) -> None:
        if kind == b"K":
            (self.account.pid,) = struct.unpack_from("!I", body)
        elif kind == b"D":
            self._row = _columns(body)
        elif kind == b"Z":
            self._ready.set()
        elif kind == b"E":
            fields = {field[:1]: field[1:] for field in body.split(b"\0") if field}
            self._error = fields.get(b"C", b"").decode("ascii")
            if fields.get(b"V") in _FATAL:
                self.account.sqlstate = self._error
                self.account.ended_at = time.monotonic()
                self.ended.set()  # at once: the loop may run its client before connection_lost
                self._ready.set()
                self.transport.close()
