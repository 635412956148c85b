"""Faults of the link from the reaper to the server: cut, reset, half-open, lossy, or through a pooler."""

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Final

from psycopg.conninfo import make_conninfo

from reaper.demo.server import free_ports
from reaper.telemetry import events
from tests.lab.world.isolation import Isolation, drop_packets
from tests.lab.world.observe import wait_until
from tests.lab.world.server import REAPER, LabServer

from .rounds import Fault, fault
from .world import Expectation, FaultWorld

_UNREACHABLE: Final = (events.SERVER_UNREACHABLE, events.CYCLE_FAILED)
_HELD: Final = (0.0, 5.0)
_MAX_PAUSE: Final = 3.0
_LIMITS: Final = 4.0
_PGBOUNCER: Final = """
[databases]
* = host=127.0.0.1 port={server}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = {folder}/users.txt
pool_mode = {mode}
ignore_startup_parameters = {ignored}
"""


@fault("link cut", "link")
async def cut(world: FaultWorld) -> AsyncIterator[None]:
    """The connection is closed, and no other one is accepted."""
    try:
        unreachable = Expectation(world, *_UNREACHABLE)
        world.proxy.cut()
        await unreachable.wait("link cut")
        await asyncio.sleep(world.dice.uniform(*_HELD))
        yield
    finally:
        world.proxy.restore()


@fault("link reset", "link")
async def reset(world: FaultWorld) -> AsyncIterator[None]:
    """The connection is reset at any moment of a cycle, again and again; the next one is accepted."""
    unreachable = Expectation(world, *_UNREACHABLE)
    for _ in range(world.size.repeats):
        world.proxy.reset()
        await asyncio.sleep(world.dice.uniform(0, _MAX_PAUSE))
    await unreachable.wait("link reset")
    yield


@fault("link half-open", "link")
async def half_open(world: FaultWorld) -> AsyncIterator[None]:
    """What the reaper sends is acknowledged and not forwarded; later all of it may arrive at once."""
    try:
        if world.dice.random() < 0.5:
            for _ in range(world.size.repeats):  # short interruptions that it must not notice
                world.proxy.stall()
                await asyncio.sleep(world.dice.uniform(0, 1))
                world.proxy.restore()
                await asyncio.sleep(world.dice.uniform(0, 1))
        unreachable = Expectation(world, *_UNREACHABLE)
        world.proxy.stall()
        await unreachable.wait("link half-open")
        yield
    finally:
        world.proxy.restore()


def _no_network(place: Isolation) -> str:
    return "" if place.own_network else "root, ip and iptables"


@fault("packets dropped", "link", missing=_no_network)
async def dropped_packets(world: FaultWorld) -> AsyncIterator[None]:
    """Every packet is lost, in both directions."""
    port = str(world.proxy.port)
    ends = ("--sport", "--dport")
    unreachable = Expectation(world, *_UNREACHABLE)
    for end in ends:
        drop_packets("--protocol", "tcp", end, port, begin=True)
    try:
        await unreachable.wait("packets dropped")
        yield
    finally:
        for end in ends:
            drop_packets("--protocol", "tcp", end, port, begin=False)


def _no_pgbouncer(_: Isolation) -> str:
    return "" if shutil.which("pgbouncer") else "pgbouncer"


@fault("PgBouncer in between", "link", "server", missing=_no_pgbouncer)
async def pooler(world: FaultWorld) -> AsyncIterator[None]:
    """The reaper is led through PgBouncer, and refuses to work."""
    # One that forwards the options of a connection, and one that refuses them.
    ignored = world.dice.choice(("extra_float_digits,options", "extra_float_digits"))
    mode = world.dice.choice(("session", "transaction"))
    world.notes[f"PgBouncer, {mode} mode, {'lenient' if 'options' in ignored else 'strict'}"] += 1
    port = next(free_ports())
    process = await asyncio.to_thread(_pgbouncer, world.server, port, mode, ignored)
    log = world.server.folder / "pgbouncer.log"
    try:
        await wait_until(lambda: "process up" in log.read_text(encoding="utf-8", errors="replace"))
        refused = Expectation(world, events.SERVER_DENIED, text="pooler")
        world.proxy.point_at(make_conninfo(world.server.dsn, port=port))
        world.proxy.reset()
        if await refused.wait("PgBouncer in between"):
            async with world.quiet("through a pooler"):
                await asyncio.sleep(_LIMITS)
        yield
    finally:
        world.proxy.point_at(world.server.dsn)
        world.proxy.reset()
        process.kill()
        process.wait()


def _pgbouncer(server: LabServer, port: int, mode: str, ignored: str) -> subprocess.Popen[bytes]:
    folder = server.folder
    (folder / "users.txt").write_text(f'"{REAPER}" ""\n', encoding="ascii")
    values = {"folder": folder, "port": port, "server": server.port, "mode": mode, "ignored": ignored}
    configuration = folder / "pgbouncer.ini"
    configuration.write_text(_PGBOUNCER.format(**values), encoding="ascii")
    user, group = server.user_and_group
    with Path(folder / "pgbouncer.log").open("wb") as log:
        # It does not run as root.
        return subprocess.Popen(
            [shutil.which("pgbouncer") or "pgbouncer", configuration],
            stdout=log,
            stderr=log,
            user=user,
            group=group,
            extra_groups=[] if user is not None else None,
        )


FAULTS: Final[Sequence[Fault]] = (cut, reset, half_open, dropped_packets, pooler)
