"""The whole demo: server, reaper, story and summary; everything is cleaned up at the end."""

import asyncio
import os
import shutil
import tempfile
import uuid
from collections.abc import Coroutine
from contextlib import closing, nullcontext
from datetime import UTC, datetime
from importlib.resources import files
from itertools import count
from pathlib import Path
from signal import SIGHUP, SIGINT, SIGTERM, Signals
from typing import Final

import psycopg
from psycopg import AsyncConnection
from psycopg.conninfo import make_conninfo
from rich.console import Console
from rich.live import Live
from rich.text import Text

from reaper.audit.file import FileSink
from reaper.audit.ledger import Ledger
from reaper.config import Server, load
from reaper.demo.clients import server_message
from reaper.demo.screen import AUDIT_LOG, DemoView, entry_line, summary
from reaper.demo.server import EmbeddedServer
from reaper.demo.state import DemoState
from reaper.demo.story import USUAL_SECONDS, Story
from reaper.policy.deadline import rest_after
from reaper.policy.memory import Memory
from reaper.policy.time import seconds
from reaper.postgres.errors import Lost
from reaper.service.clock import ClockWatch
from reaper.service.connection import OpenConnection, RunOptions, cycle_context, opened
from reaper.service.cycle import run_cycle
from reaper.service.pause import Flag, pause

_SLOTS: Final = 20
_SETTINGS: Final = {
    "max_connections": str(_SLOTS),
    # No slot is reserved, so that a full server answers "too many clients already" to every role.
    "superuser_reserved_connections": "0",
}
_POLICY_FILE: Final = "policies.yaml"


class Interrupted(Exception):
    """A signal has ended the demo."""

    def __init__(self, *, by: Signals) -> None:
        super().__init__(f"ended by {by.name}")
        self.by = by


async def play(binaries: Path, console: Console, *, live: bool, duration: float, keep: bool) -> bool:
    """Run the demo in a live view, or with a line for each event; return True if every check passed.

    A signal raises Interrupted after everything is cleaned up.
    """
    received: list[Signals] = []
    task = asyncio.current_task()

    def interrupt(number: Signals) -> None:
        received.append(number)
        if task and len(received) == 1:  # a second signal must not interrupt the clean-up
            task.cancel()

    for number in (SIGINT, SIGTERM, SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, interrupt, number)
    try:
        return await _play(binaries, console, live=live, beat=duration / USUAL_SECONDS, keep=keep)
    except asyncio.CancelledError:
        raise Interrupted(by=received[0]) from None


async def _play(binaries: Path, console: Console, *, live: bool, beat: float, keep: bool) -> bool:
    # PGHOSTADDR, PGSSLMODE and the like are for the user's servers and would apply to this one too.
    for name in [name for name in os.environ if name.startswith("PG")]:
        del os.environ[name]
    state = DemoState(lambda entry: None if live else console.print(entry_line(entry), soft_wrap=True))
    policies = files("reaper.demo").joinpath(_POLICY_FILE).read_text(encoding="utf-8")
    view = DemoView(state, policies[policies.index("policies:") :])
    server = EmbeddedServer(binaries=binaries, settings=_SETTINGS)
    try:
        # The view is drawn from another thread, also while the event loop is busy.
        with Live(view, console=console, screen=True, refresh_per_second=8) if live else nullcontext():
            if not live:
                console.print(Text(view.policies), soft_wrap=True)
            # Blocks the event loop, which has nothing else to do: no signal interrupts a start halfway.
            server.start()
            await asyncio.sleep(3 * beat)  # time for reading the policies
            await _run(server, policies, state, beat)
        kept = _keep(server) if keep else None
        for line in summary(state, server.folder / AUDIT_LOG, kept):
            console.print(line, soft_wrap=True)
    except psycopg.Error as error:
        raise Lost(server_message(error)) from None
    finally:
        server.stop()
    return all(passed for passed, _ in state.checks.values())


async def _run(server: EmbeddedServer, policies: str, state: DemoState, beat: float) -> None:
    state.server, state.mode = f"PostgreSQL {server.major}", "dry-run"
    state.add("server", f"{state.server}, {_SLOTS} slots, in {server.folder} until the end")
    dsn = make_conninfo(server.dsn, sslmode="disable", gssencmode="disable")
    async with await AsyncConnection.connect(dsn, autocommit=True) as admin:
        await admin.execute(files("reaper.demo").joinpath("roles.sql").read_bytes())
    path = server.folder / _POLICY_FILE
    path.write_text(policies, encoding="utf-8")
    target = Server(name="demo", dsn=make_conninfo(dsn, user="reaper"))
    sinks = [FileSink(server.folder / AUDIT_LOG)]
    ledger = Ledger(sinks, clock=lambda: datetime.now(UTC), run=uuid.uuid4().hex)
    # Connected before the clients, which take all slots.
    async with opened(target, load(path).rules, RunOptions()) as at:
        ledger.open()
        with closing(ledger):
            stop = Flag()
            cycles = _run_cycles(target, at, path, ledger, state, stop)
            await _side_by_side(Story(dsn, path, state, beat), cycles, stop)


async def _side_by_side(story: Story, cycles: Coroutine[None, None, None], stop: Flag) -> None:
    """Run the story and the cycles until the story ends; if one of them fails, raise its error."""
    try:
        async with asyncio.TaskGroup() as group:
            reaper = group.create_task(cycles)
            try:
                await story.run(group)
            finally:
                # The group would cancel the cycle in progress and leave intents without an outcome.
                stop.set()
                await asyncio.wait([reaper])
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None


async def _run_cycles(
    target: Server, at: OpenConnection, path: Path, ledger: Ledger, state: DemoState, stop: Flag
) -> None:
    """Run the service's own cycle at every deadline, by the policy file as it is at that moment."""
    settings, memory, clock, numbers = load(path), Memory(), ClockWatch(), count(1)
    while not stop.is_set():
        loaded = load(path)
        if loaded.rules.digest != settings.rules.digest:
            settings, memory = loaded, Memory()  # as after a restart
        rules = settings.rules
        context = cycle_context(target, at, rules, RunOptions(), ledger, clock=clock)
        name = str(next(numbers))
        cycle = await run_cycle(context, name, rules=rules, memory=memory, stopping=stop.is_set)
        if cycle.audit_log_failed:
            raise cycle.audit_log_failed
        state.finished_cycle(cycle)
        memory = cycle.remembered
        rest = rest_after(cycle.snapshot, rules, interval=settings.interval, precision=settings.min_interval)
        await pause(seconds(rest), stop)


def _keep(server: EmbeddedServer) -> Path:
    kept = Path(tempfile.mkdtemp(prefix="reaper-demo-"))
    for path in (server.folder / AUDIT_LOG, server.folder / _POLICY_FILE, server.log_path):
        shutil.copyfile(path, kept / path.name)
    return kept
