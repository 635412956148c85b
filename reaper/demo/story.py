"""The story in three steps. Each ends when its effect has happened and was visible for a while."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import psycopg

from reaper.demo.clients import load_clients, server_message
from reaper.demo.state import DemoState
from reaper.policy.plan import Result

USUAL_SECONDS: Final = 30
"""The length of the story at which a beat is a second."""

_STUCK_SECONDS: Final = 60.0
# Not in beats, because in a slow story this client would be idle for long enough to match.
_WORK_SECONDS: Final = 0.25
_ENOUGH_ATTEMPTS: Final = 4
_ENOUGH_DRY_RUNS: Final = {"leaked-sessions": 6, "forgotten-transactions": 1}


class StoryStuck(Exception):
    """An expected event of the story does not happen."""


class Story:
    """Runs the steps; the reaper's cycles run beside them and read the policy file that the story changes."""

    def __init__(self, dsn: str, policies: Path, state: DemoState, beat: float) -> None:
        self._clients = load_clients(dsn)
        self._healthy = [client for client in self._clients.values() if client.report]
        self._policies = policies
        self._state = state
        self._beat = beat
        self._leak_beats = 0.8

    async def run(self, group: asyncio.TaskGroup) -> None:
        """Run all steps; what the clients do all the time runs in the group."""
        try:
            await self._arrive()
            tasks = [group.create_task(work) for work in (self._work(), self._leak(), self._order())]
            await self._fill_up()
            await self._enforce()
            await self._check()
            for task in tasks:
                task.cancel()
        finally:
            for client in self._clients.values():
                await client.close()

    async def _arrive(self) -> None:
        hint = "A dry run decides as enforcement does, and terminates nothing."
        self._state.begin(1, "The slots fill up, and the policies are in dry-run mode", hint)
        for client in (*self._healthy, self._clients["psql"]):
            await client.arrive()
            self._state.add("client", f"{client.application}: {client.habit}")
            await self._rest(0.3)
        for client in (self._clients["customer"], self._clients["checkout-web"]):
            self._state.add("client", f"{client.application}: {client.habit}")

    async def _fill_up(self) -> None:
        """Wait until customers are refused and the dry run has matched sessions of every policy."""
        state = self._state
        await self._until("a refusal of the customer", lambda: state.refusals[False] >= _ENOUGH_ATTEMPTS)
        for policy, enough in _ENOUGH_DRY_RUNS.items():
            awaited = f"a dry run of {policy}"
            await self._until(awaited, lambda: state.count(Result.DRY_RUN, policy) >= enough)  # noqa: B023 (awaited at once)
        await self._rest(4)

    async def _enforce(self) -> None:
        """Wait until every session of the dry run is gone and customers connect."""
        state, before = self._state, self._policies.read_text(encoding="utf-8")
        changed = [str(n) for n, line in enumerate(before.splitlines(), 1) if "    mode: dry-run" in line]
        hint = f"{self._policies.name}, lines {' and '.join(changed)}: mode: dry-run -> mode: enforce"
        state.begin(2, "The same policies, enforced", hint)
        await self._rest(2.5)
        self._leak_beats = 2.5
        state.mode = "enforce"
        self._policies.write_text(before.replace("    mode: dry-run", "    mode: enforce"), encoding="utf-8")
        await self._until("the end of the leaked sessions", lambda: not state.due)
        await self._until(
            "a customer that connects",
            lambda: state.attempts[True] >= _ENOUGH_ATTEMPTS and state.refusal is None,
        )
        await self._rest(4)

    async def _check(self) -> None:
        self._state.begin(3, "The other clients check their connections", "Each client uses them again.")
        for client in self._healthy:
            self._state.checked(client.application, *await client.check())
            await self._rest(0.5)
        try:
            await self._clients["psql"].run("COMMIT")
        except psycopg.Error as error:
            self._state.commit_answer = server_message(error)
        self._state.add("client", f"psql: COMMIT, after lunch: {self._state.commit_answer}")
        await self._rest(2)

    async def _work(self) -> None:
        with suppress(psycopg.Error):  # the check meets the same error and reports it
            while True:
                await self._clients["billing-api"].run("INSERT INTO orders DEFAULT VALUES")
                await asyncio.sleep(_WORK_SECONDS)

    async def _leak(self) -> None:
        while True:
            with suppress(psycopg.Error):
                await self._clients["checkout-web"].add_connection()
            await self._rest(self._leak_beats)

    async def _order(self) -> None:
        while True:
            # An attempt that begins before the first termination does not count as one after it.
            after = self._state.count(Result.TERMINATED) > 0
            self._state.attempted(await self._clients["customer"].visit(), after=after)
            await self._rest(0.5)

    async def _rest(self, beats: float) -> None:
        await asyncio.sleep(beats * self._beat)

    async def _until(self, awaited: str, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _STUCK_SECONDS + 2 * USUAL_SECONDS * self._beat
        while not holds():
            if time.monotonic() > deadline:
                message = f"the demo timed out while it waited for {awaited}"
                raise StoryStuck(message)
            await asyncio.sleep(0.05)
