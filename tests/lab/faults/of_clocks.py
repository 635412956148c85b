"""Clocks are set: that of the server, and that of the reaper's host."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from signal import SIGTERM
from typing import Final

from reaper.telemetry import events
from tests.lab.world.isolation import Isolation
from tests.lab.world.observe import wait_until
from tests.lab.world.reaper import CYCLES

from .rounds import Fault, fault
from .supervised import SupervisedReaper
from .world import LIMIT, Expectation, FaultWorld, replace_file

_RIGHT: Final = "+0"
_OFFSETS: Final = {"+2 h": "+2h", "-2 h": "-2h", "+1 day": "+1d"}
_SOON: Final = 30.0
_FAR: Final = 3_600.0
_FOLDERS: Final = ("/usr/lib", "/usr/lib64", "/usr/local/lib")
# A statement that sleeps until some time of the clock sleeps for hours once the clock is set back.
_WAKE_SLEEPERS: Final = (
    "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE state = 'active' AND query ~ 'pg_sleep'"
    " AND pid <> pg_backend_pid()"
)


def _library(name: str) -> Path | None:
    found = (path for folder in _FOLDERS for path in Path(folder).glob(f"**/faketime/{name}"))
    return next(found, None)


def _no_faketime(_: Isolation) -> str:
    return "" if _library("libfaketime.so.1") else "libfaketime"


def _faked(clock: Path, library: str) -> dict[str, str]:
    """Environment variables that let a file set a program's clock; its monotonic clock continues."""
    replace_file(clock, f"{_RIGHT}\n")
    return {
        "LD_PRELOAD": str(_library(library)),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }


def _server_clock(offset: str) -> Fault:
    name = f"server's clock {offset}"

    @fault(name, "clock", "server", "reaper", missing=_no_faketime)
    async def server_clock(world: FaultWorld) -> AsyncIterator[None]:
        """All ages on the server change at once, while the clients behave as before."""
        server, clock = world.server, world.server.folder / "clock"
        # The library for threads takes locks, and PostgreSQL reads the clock in signal handlers as well.
        server.environment.update(_faked(clock, "libfaketime.so.1"))
        try:
            cycled = Expectation(world, *CYCLES)
            await asyncio.to_thread(server.restart)
            await wait_until(lambda: cycled.met)
            for each in (_OFFSETS[offset], _RIGHT):
                await world.hold(LIMIT, 3 * LIMIT)
                stepped = Expectation(world, events.CLOCK_STEPPED)
                replace_file(clock, f"{each}\n")
                await world.execute(_WAKE_SLEEPERS)
                await stepped.wait(name)
            yield
        finally:
            server.environment.clear()
            await asyncio.to_thread(server.restart)

    return server_clock


def _host_clock(offset: str) -> Fault:
    name = f"reaper's clock {offset}"

    @fault(name, "clock", "reaper", missing=_no_faketime)
    async def host_clock(world: FaultWorld) -> AsyncIterator[None]:
        """The clock of the reaper's host dates its logs, and decides nothing."""
        reaper, clock = world.leader, world.leader.folder / "clock"
        variables = _faked(clock, "libfaketimeMT.so.1")
        reaper.environment.update(variables)
        try:
            await _restart(reaper)
            alarm = Expectation(world, events.CLOCK_STEPPED)
            for each in (_OFFSETS[offset], _RIGHT):
                acted = Expectation(world, events.CYCLE_ACTED)
                replace_file(clock, f"{each}\n")
                await acted.wait(name)
                wrong = abs(reaper.log.events[-1].at - time.time()) > _FAR
                world.notes[f"was as wrong as it should be: {name}"] += wrong == (each != _RIGHT)
                await world.hold(0, 2 * LIMIT)
            world.notes[f"alarms without a reason: {name}"] += alarm.met
            yield
        finally:
            for variable in variables:
                reaper.environment.pop(variable, None)
            await _restart(reaper)

    return host_clock


async def _restart(reaper: SupervisedReaper) -> None:
    ends = len(reaper.ends)
    reaper.send(SIGTERM)
    await reaper.restarted(ends, within=_SOON)


FAULTS: Final[Sequence[Fault]] = (*map(_server_clock, _OFFSETS), *map(_host_clock, _OFFSETS))
