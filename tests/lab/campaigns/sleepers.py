"""Sessions that sleep, work a little when they happen to wake up, and come back at once when they are ended.

An operating system process of its own, so that a hundred new sessions a second are not held up by whoever
judges them; it speaks the protocol itself, because a driver costs ten times as much. It goes on until its
standard input ends, and then says what its sessions went through.
"""

import asyncio
import json
import select
import struct
import sys
from collections import Counter
from dataclasses import asdict, dataclass
from random import Random
from typing import Final, NamedTuple

_PROTOCOL: Final = 196_608
_HEAD: Final = struct.Struct("!cI")
_READY: Final = b"Z"
_ERROR: Final = b"E"
_SQLSTATE: Final = b"C"
_REFUSED: Final = 0.02
_POLL: Final = 0.05

TERMINATED: Final = "57P01"
TIMED_OUT: Final = "57P05"


@dataclass(frozen=True, slots=True, kw_only=True)
class Habits:
    """How the sessions of one crowd live; all of them alike, so that crowds can be compared."""

    socket: str
    role: str
    database: str
    name: str
    """The beginning of every application name; the rest is a number that is never used again."""
    count: int
    wakes_after: float
    """The mean; whoever sleeps is as likely to wake up in this moment as in any other."""
    works_for: float
    """Nothing when it is zero: then they never wake up."""
    comes_back_after: float
    seed: int

    @property
    def as_argument(self) -> str:
        """For the command line."""
        return json.dumps(asdict(self))


class Told(NamedTuple):
    """What the sessions of one process went through."""

    statements: int
    ends: dict[str, int]
    """How often a session was ended, by SQLSTATE."""
    in_flight: list[str]
    """The names of sessions that were ended while an answer was awaited."""


class Crowd:
    """All sessions of this process."""

    def __init__(self, habits: Habits) -> None:
        self.habits = habits
        self.random = Random(habits.seed)  # noqa: S311 (it decides when to wake up, nothing else)
        self.loop = asyncio.get_running_loop()
        self.over = False
        self.statements = 0
        self.ends = Counter[str]()
        self.in_flight: list[str] = []
        self._tasks = set[asyncio.Task[None]]()
        self._numbers = iter(range(10**9))
        statement = f"SELECT pg_sleep({habits.works_for:f})\0".encode()
        self.query = _HEAD.pack(b"Q", 4 + len(statement)) + statement

    def greeting(self, application: str) -> bytes:
        """The startup message."""
        said = {"user": self.habits.role, "database": self.habits.database, "application_name": application}
        words = b"".join(f"{key}\0{value}\0".encode() for key, value in said.items()) + b"\0"
        return struct.pack("!II", 8 + len(words), _PROTOCOL) + words

    def arrive(self) -> None:
        """Another session, under a name that is never used again."""
        if not self.over:
            pause = self.random.expovariate(1 / self.habits.comes_back_after) if self._late else 0
            self.loop.call_later(pause, self._connect)

    @property
    def _late(self) -> bool:
        return self.habits.comes_back_after > 0

    def _connect(self) -> None:
        task = self.loop.create_task(self._connected())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connected(self) -> None:
        name = f"{self.habits.name}.{next(self._numbers)}"
        try:
            await self.loop.create_unix_connection(lambda: _Sleeper(self, name), self.habits.socket)
        except OSError:
            await asyncio.sleep(_REFUSED)
            self.arrive()


class _Sleeper(asyncio.Protocol):
    """One session, from its first message to its end."""

    def __init__(self, crowd: Crowd, name: str) -> None:
        self._crowd = crowd
        self._name = name
        self._unread = b""
        self._awaits_answer = False
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(self._crowd.greeting(self._name))

    def data_received(self, data: bytes) -> None:
        self._unread += data
        while len(self._unread) >= _HEAD.size:
            kind, length = _HEAD.unpack_from(self._unread)
            if len(self._unread) <= length:
                return
            body, self._unread = self._unread[_HEAD.size : length + 1], self._unread[length + 1 :]
            if kind == _READY:
                self._sleep()
            elif kind == _ERROR:
                self._ended(_sqlstate(body))

    def connection_lost(self, _: Exception | None) -> None:
        if self._timer:
            self._timer.cancel()
        self._crowd.arrive()

    def _sleep(self) -> None:
        self._awaits_answer = False
        if self._crowd.over:
            self._transport.close()
        elif self._crowd.habits.works_for:
            pause = self._crowd.random.expovariate(1 / self._crowd.habits.wakes_after)
            self._timer = self._crowd.loop.call_later(pause, self._wake)

    def _wake(self) -> None:
        # Who has been told already that the session has ended does not ask it anything.
        if select.select([self._transport.get_extra_info("socket")], (), (), 0)[0]:
            return
        self._awaits_answer = True
        self._crowd.statements += 1
        self._transport.write(self._crowd.query)

    def _ended(self, sqlstate: str) -> None:
        self._crowd.ends[sqlstate] += 1
        if self._awaits_answer and sqlstate in {TERMINATED, TIMED_OUT}:
            self._crowd.in_flight.append(self._name)


def _sqlstate(body: bytes) -> str:
    fields = {field[:1]: field[1:] for field in body.split(b"\0") if field}
    return fields.get(_SQLSTATE, b"").decode("ascii")


async def _live(habits: Habits) -> Told:
    crowd = Crowd(habits)
    for _ in range(habits.count):
        crowd.arrive()
    await crowd.loop.run_in_executor(None, sys.stdin.read)
    crowd.over = True
    await asyncio.sleep(habits.works_for + _POLL)  # what is under way is still answered
    return Told(crowd.statements, dict(crowd.ends), crowd.in_flight)


if __name__ == "__main__":
    json.dump(asyncio.run(_live(Habits(**json.loads(sys.argv[1]))))._asdict(), sys.stdout)
