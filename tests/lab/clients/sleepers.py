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


class Summary(NamedTuple):
    """What the sessions of one process did."""

    statements: int
    ends: dict[str, int]
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

    def finish(self) -> Mapping[str, Summary]:
        """End them; return what the sessions of each process did."""
        for process in self._processes:
            assert process.stdin
            process.stdin.close()
        summaries = dict[str, Summary]()
        for habits, process in zip(self._habits, self._processes, strict=True):
            assert process.stdout
            summaries[habits.name] = Summary(**json.load(process.stdout))
        return summaries


class _Process:
    """The sessions of this process."""

    def __init__(self, habits: Habits) -> None:
        self._habits = habits
        self._random = Random(habits.seed)  # noqa: S311 (the same moments in every run)
        self._statement = f"SELECT pg_sleep({habits.works_for:f})"
        self._numbers = iter(range(10**9))
        self._over = asyncio.Event()
        self.statements = 0
        self.ends = Counter[str]()
        self.unanswered: list[str] = []

    async def run(self) -> None:
        """Run until standard input ends."""
        tasks = [asyncio.create_task(self._keep_one()) for _ in range(self._habits.count)]
        for task in tasks:
            task.add_done_callback(_fail)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        self._over.set()
        await asyncio.sleep(self._habits.works_for + _LAST_ANSWERS)  # statements that run are still answered
        for task in tasks:
            task.cancel()

    async def _keep_one(self) -> None:
        while not self._over.is_set():
            if self._habits.returns_after:
                await asyncio.sleep(self._random.expovariate(1 / self._habits.returns_after))
            name = f"{self._habits.name}.{next(self._numbers)}"
            account = SessionAccount(kind=name)
            try:
                session = await ClientSession.open(
                    self._habits.socket,
                    account,
                    role=self._habits.role,
                    application=name,
                    database=self._habits.database,
                )
            except NotServed:
                await asyncio.sleep(_RETRY)
                continue
            try:
                await self._behave(session)
            except NotServed:
                self._count(name, account)

    async def _behave(self, session: ClientSession) -> None:
        while True:
            if await self._ends_within(session, self._sleep()):
                raise NotServed
            if self._over.is_set():
                session.close()
                return
            # A client that has already received the end of its session sends nothing.
            if not select.select([session.transport.get_extra_info("socket")], (), (), 0)[0]:
                self.statements += 1
                await session.run(self._statement)

    def _sleep(self) -> float | None:
        return self._random.expovariate(1 / self._habits.wakes_after) if self._habits.works_for else None

    async def _ends_within(self, session: ClientSession, seconds: float | None) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await session.ended.wait()
        except TimeoutError:
            pass
        return session.ended.is_set()

    def _count(self, name: str, account: SessionAccount) -> None:
        self.ends[account.sqlstate] += 1
        if account.waiting and account.sqlstate in {TERMINATED, TIMED_OUT}:
            self.unanswered.append(name)


def _fail(task: asyncio.Task[None]) -> None:
    """End the process if a session has failed: a thread waits for standard input."""
    if not task.cancelled() and (error := task.exception()):
        traceback.print_exception(error)
        os._exit(1)


async def _main(habits: Habits) -> Summary:
    process = _Process(habits)
    await process.run()
    return Summary(process.statements, dict(process.ends), process.unanswered)


if __name__ == "__main__":
    json.dump(asyncio.run(_main(Habits(**json.loads(sys.argv[1]))))._asdict(), sys.stdout)
