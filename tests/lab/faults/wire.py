"""A client's session that notes what its client knows of it: when it was last used, and how it ended."""

import asyncio
import struct
import time
from asyncio import StreamReader, StreamWriter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, Self

_PROTOCOL: Final = 196_608
_HEAD: Final = struct.Struct("!cI")
_FATAL: Final = {b"FATAL", b"PANIC"}
_MICROSECONDS: Final = 1_000_000
_PATIENCE: Final = 30.0

NOW: Final = "(extract(epoch FROM clock_timestamp()) * 1000000)::int8"
_BEGAN: Final = "floor(extract(epoch FROM s.backend_start))::int8"
_INTRODUCTION: Final = f"SELECT {NOW}, {_BEGAN} FROM pg_stat_get_activity(pg_backend_pid()) s"  # noqa: S608


class NotServed(Exception):
    """No session could be had, or it has ended; the message is the SQLSTATE, when there was one."""


@dataclass(slots=True, kw_only=True)
class Deposition:
    """What a client says of one session of its own."""

    kind: str
    limit: float | None
    """For how many seconds it may be left unused; nothing when it must never be terminated."""
    opened: float = field(default_factory=time.monotonic)
    pid: int = 0
    began: int = 0
    """The second in which the session began, by the server's clock; 0 when it was never told."""
    told: int = 0
    """The server's clock, in microseconds, within the last statement that was answered."""
    rested: float = 0.0
    """For how many seconds the session had been unused when that statement came."""
    told_at: float = 0.0
    """When that answer came, by the monotonic clock of this host."""
    sent_at: float = 0.0
    """When the last statement was sent."""
    at_work: bool = False
    """Whether a statement is unanswered."""
    left: bool = False
    """Whether the client has hung up itself."""
    ended_at: float | None = None
    sqlstate: str = ""


class Line:
    """One session; a task of its own hears at once when the server ends it."""

    def __init__(self, reader: StreamReader, writer: StreamWriter, deposition: Deposition) -> None:
        self.deposition = deposition
        self.ended = asyncio.Event()
        self._reader = reader
        self._writer = writer
        self._ready = asyncio.Event()
        self._row: list[bytes] = []
        self._failure = ""
        self._ear = asyncio.create_task(self._hear(), name=f"ear of {deposition.kind}")

    @classmethod
    async def open(cls, port: int, deposition: Deposition, *, role: str, application: str) -> Self:
        """Log in, and ask for the session's identity."""
        try:
            async with asyncio.timeout(_PATIENCE):
                line = cls(*await asyncio.open_connection("127.0.0.1", port), deposition)
        except (OSError, TimeoutError) as error:
            raise NotServed from error
        try:
            said = {"user": role, "database": "postgres", "application_name": application}
            words = b"".join(f"{key}\0{value}\0".encode() for key, value in said.items()) + b"\0"
            line._writer.write(struct.pack("!II", 8 + len(words), _PROTOCOL) + words)
            await line._answered()
            await line.ask(_INTRODUCTION)
            deposition.began = int(line._row[1])
        except BaseException:
            await line.close()
            raise
        return line

    async def ask(self, sql: str) -> None:
        """Run statements; the last one must begin its row with the server's clock."""
        await self.tell(sql)
        before, self.deposition.told = self.deposition.told, int(self._row[0])
        self.deposition.rested = (self.deposition.told - before) / _MICROSECONDS if before else 0.0
        self.deposition.told_at = time.monotonic()

    async def tell(self, sql: str) -> None:
        """Run a statement that tells no time: only for sessions whose age does not matter."""
        if self.ended.is_set():
            raise NotServed(self.deposition.sqlstate)
        body = sql.encode() + b"\0"
        self._ready.clear()
        self._failure = ""
        self.deposition.sent_at = time.monotonic()
        self.deposition.at_work = True
        self._writer.write(_HEAD.pack(b"Q", 4 + len(body)) + body)
        await self._answered()
        self.deposition.at_work = False

    async def close(self) -> None:
        """Hang up, if the server has not."""
        self.deposition.left = not self.ended.is_set()
        self._ear.cancel()
        with suppress(asyncio.CancelledError):
            await self._ear
        self._writer.close()
        with suppress(OSError):
            await self._writer.wait_closed()

    async def _answered(self) -> None:
        await self._ready.wait()
        if self.ended.is_set() or self._failure:
            raise NotServed(self._failure or self.deposition.sqlstate)

    async def _hear(self) -> None:
        with suppress(asyncio.IncompleteReadError, OSError):
            while await self._heard(*await self._message()):
                pass
        self.deposition.ended_at = self.deposition.ended_at or time.monotonic()
        self.ended.set()
        self._ready.set()

    async def _heard(self, kind: bytes, body: bytes) -> bool:
        """Whether there is more to be heard."""
        if kind == b"K":
            (self.deposition.pid,) = struct.unpack_from("!I", body)
        elif kind == b"D":
            self._row = _columns(body)
        elif kind == b"Z":
            self._ready.set()
        elif kind == b"E":
            said = {part[:1]: part[1:] for part in body.split(b"\0") if part}
            self._failure = said.get(b"C", b"").decode("ascii")
            if said.get(b"V") in _FATAL:
                self.deposition.sqlstate = self._failure
                self.deposition.ended_at = time.monotonic()
                return False
        return True

    async def _message(self) -> tuple[bytes, bytes]:
        kind, length = _HEAD.unpack(await self._reader.readexactly(_HEAD.size))
        return kind, await self._reader.readexactly(length - 4)


def _columns(body: bytes) -> list[bytes]:
    (count,) = struct.unpack_from("!H", body)
    columns, at = [], 2
    for _ in range(count):
        (length,) = struct.unpack_from("!i", body, at)
        at += 4
        columns.append(body[at : at + max(length, 0)])
        at += max(length, 0)
    return columns
