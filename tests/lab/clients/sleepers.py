"""Sessions that sleep, sometimes wake up for a short statement, and are replaced at once when they end.

They run in processes of their own, so that a hundred new sessions a second do not slow down the campaign.
Each process works until its standard input ends, and then prints what its sessions did.
"""

import asyncio
import json
import os
import select
import subprocess
import sys
import traceback
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Final, NamedTuple, Self

from .session import TERMINATED, TIMED_OUT, ClientSession, NotServed, SessionAccount

ROOT: Final = Path(__file__).parents[3]
_RETRY: Final = 0.02
_LAST_ANSWERS: Final = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Habits:
    """The behaviour of the sessions of one process."""

    socket: str
    name: str
    """The beginning of each application name; a number follows that is never used again."""
    count: int
    seed: int
    role: str = "app"
    database: str = "postgres"
    wakes_after: float = 0.2
    """The mean; a sleeping session is as likely to wake up at this moment as at any other."""
    works_for: float = 0.01
    """0: it never wakes up."""
    returns_after: float = 0.2


class SleepersSummary(NamedTuple):
    """What the sessions of one process did."""

    statements: int
    ends: Mapping[str, int]
    """The number of sessions that were ended, by SQLSTATE."""
    unanswered: list[str]
    """The names of sessions that were ended while a statement was unanswered."""


class Sleepers:
    """A process for each of these habits."""

    def __init__(self, *habits: Habits) -> None:
        self._habits = habits
        self._processes: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Self:
        for habits in self._habits:
            command = [sys.executable, "-m", "tests.lab.clients.sleepers", json.dumps(asdict(habits))]
            self._processes.append(
                subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
            )
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                assert stream
                stream.close()

    def check(self) -> None:
        """Fail if one of them has ended by itself."""
        assert all(process.poll() is None for process in self._processes), "clients have ended by themselves"

    def finish(self) -> Mapping[str, SleepersSummary]:
        """End them; return what the sessions of each process did."""
        for process in self._processes:
            assert process.stdin
            process.stdin.close()
        summaries = dict[str, SleepersSummary]()
        for habits, process in zip(self._habits, self._processes, strict=True):
            assert process.stdout
            summaries[habits.name] = SleepersSummary(**json.load(process.stdout))
        return summaries


class _SleepersProcess:
    """The sessions of this process."""

    def __init__(self, habits: Habits) -> None:
        self._habits = habits
        self._random = Random(habits.seed)  # noqa: S311 (the same moments in every run)
        self._statement = f"SELECT pg_sleep({habits.works_for:f})"
        self._numbers = iter(range(10**9))
        self._over = asyncio.Event()
        self._statements = 0
        self._ends = Counter[str]()
        self._unanswered: list[str] = []

    async def run(self) -> SleepersSummary:
        """Run until standard input ends."""
        tasks = [asyncio.create_task(self._keep_one()) for _ in range(self._habits.count)]
        for task in tasks:
            task.add_done_callback(_fail)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        self._over.set()
        await asyncio.sleep(self._habits.works_for + _LAST_ANSWERS)  # statements that run are still answered
        for task in tasks:
            task.cancel()
        return SleepersSummary(self._statements, self._ends, self._unanswered)

    async def _keep_one(self) -> None:
        habits = self._habits
        while not self._over.is_set():
            if habits.returns_after:
                await asyncio.sleep(self._random.expovariate(1 / habits.returns_after))
            account = SessionAccount(kind=f"{habits.name}.{next(self._numbers)}")
            try:
                session = await ClientSession.open(
                    *(habits.socket, account),
                    role=habits.role,
                    application=account.kind,
                    database=habits.database,
                )
            except NotServed:
                await asyncio.sleep(_RETRY)
                continue
            with suppress(NotServed):
                await self._sleep_and_work(session)
            if session.ended.is_set():
                self._ends[account.sqlstate] += 1
            if account.waiting and account.sqlstate in {TERMINATED, TIMED_OUT}:
                self._unanswered.append(account.kind)

    async def _sleep_and_work(self, session: ClientSession) -> None:
        """Sleep and work until the session or the campaign ends."""
        while not session.ended.is_set():
            mean = self._habits.wakes_after
            with suppress(TimeoutError):
                async with asyncio.timeout(
                    self._random.expovariate(1 / mean) if self._habits.works_for else None
                ):
                    await session.ended.wait()
            if self._over.is_set():
                session.close()
                return
            # A client that has already received the end of its session sends nothing.
            if not select.select([session.transport.get_extra_info("socket")], (), (), 0)[0]:
                self._statements += 1
                await session.run(self._statement)


def _fail(task: asyncio.Task[None]) -> None:
    """End the process if a session has failed: a thread waits for standard input."""
    if not task.cancelled() and (error := task.exception()):
        traceback.print_exception(error)
        os._exit(1)


if __name__ == "__main__":
    json.dump(asyncio.run(_SleepersProcess(Habits(**json.loads(sys.argv[1]))).run())._asdict(), sys.stdout)
