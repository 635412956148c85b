"""Memory: a real reaper with everything on, and a day of cycles in which clients invent a million names."""

import asyncio
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import psycopg
import yaml
from psycopg.conninfo import make_conninfo

from reaper.demo.server import free_ports
from tests.lab.report import Scale
from tests.postgres.sandbox import Role
from tests.system.policies import Keys, leaked, policy_file

from .day import day
from .ground import CYCLED, Daemon, Ground
from .pages import Pages
from .proc import Memory, memory
from .table import NOTHING, figure, table


@dataclass(frozen=True, slots=True, kw_only=True)
class _Size:
    seconds: float
    """How long each reaper runs."""
    cycles: int
    newcomers: int
    """In each cycle of the day."""


_SIZES: Final[Mapping[Scale, _Size]] = {
    Scale.FULL: _Size(seconds=60, cycles=8_640, newcomers=116),
    Scale.QUICK: _Size(seconds=12, cycles=1_000, newcomers=116),
    Scale.SMOKE: _Size(seconds=1, cycles=40, newcomers=5),
}
_POLICIES: Final = 20
_REHEARSED: Final = leaked(
    Role("app", ""), idle_for="50ms", mode="dry-run", name="rehearsed", safety_limit={"share": "100%"}
)
_AT_ONCE: Final = 10
_KEPT: Final = 5
_QUARTERS: Final = 4
_TABLE: Final = Path(__file__).parents[3] / "deploy" / "sql" / "record_table.sql"


def run(scale: Scale, major: int) -> Iterator[str]:
    """A table of real reapers, and one of the day."""
    size = _SIZES[scale]
    with (
        Ground(major, max_connections="200") as ground,
        Ground(major) as beside,
        tempfile.TemporaryDirectory() as scratch,
    ):
        ground.role("app")
        beside.admin.execute(_TABLE.read_bytes())
        rows = [_little(ground, Path(scratch), size), *_everything(ground, beside, Path(scratch), size)]
    yield table(
        "Memory: one server; everything is 20 policies that terminate, one that rehearses, the record in a\n"
        "file and in a table, a history every second, HTTP scraped all the time, a webhook, the whole log;\n"
        "and clients that come with new names",
        ("", "cycles", "names", "terminations", "RSS", "PSS"),
        rows,
    )
    yield asyncio.run(day(cycles=size.cycles, newcomers=size.newcomers))


def _little(ground: Ground, folder: Path, size: _Size) -> Sequence[str]:
    policies = policy_file(*_policies(1), servers=_servers(ground))
    with Daemon(folder / "little", policies, "--listen", "off", level="debug") as daemon:
        daemon.wait(*CYCLED)
        time.sleep(size.seconds / _QUARTERS)
        cycles = len(daemon.journal.named(*CYCLED))
        return ("1 policy, no HTTP", str(cycles), *[NOTHING] * 2, *_figures(memory(daemon.pid)))


def _everything(ground: Ground, beside: Ground, folder: Path, size: _Size) -> Iterator[Sequence[str]]:
    port = next(free_ports())
    hook = {"name": "nobody", "webhook": f"http://127.0.0.1:{port}/", "every": "1s"}
    policies = policy_file(
        *_policies(_POLICIES), _REHEARSED, interval="1s", min_interval="10ms", servers=_servers(ground)
    ) + yaml.safe_dump({"notify": [hook]})
    history = ("--history", "history", "--history-every", "1s")
    options = ("--listen", f"127.0.0.1:{port}", "--audit-table", beside.server.dsn, *history)
    with Daemon(folder / "all", policies, *options, level="debug") as daemon, _Visitors(ground) as visitors:
        pages = Pages(port, running=lambda: daemon.running)
        daemon.wait(*CYCLED)
        yield ("everything, at the start", *_counted(daemon, visitors), *_figures(memory(daemon.pid)))
        for quarter in range(1, _QUARTERS + 1):
            end = time.monotonic() + size.seconds / _QUARTERS
            while time.monotonic() < end:
                visitors.come()
                pages.cycles()
            held = _figures(memory(daemon.pid))
            yield (f"everything, after {quarter}/{_QUARTERS}", *_counted(daemon, visitors), *held)
        for page in ("/", "/usage", "/rehearsal", "/snapshot?server=server"):
            pages.get(page)
        held = _figures(memory(daemon.pid))
        yield ("and once somebody has opened its pages", *_counted(daemon, visitors), *held)


class _Visitors:
    """Clients that come, each with a name of its own, and are left to be idle."""

    def __init__(self, ground: Ground) -> None:
        self.came = 0
        self._dsn = make_conninfo(ground.server.dsn, user="app")
        self._here: deque[ExitStack] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        while self._here:
            self._here.popleft().close()

    def come(self) -> None:
        """Some come, and those who came long ago hang up, if they have not been ended."""
        with ExitStack() as stack:
            for _ in range(_AT_ONCE):
                self.came += 1
                name = f"job-{self.came}"
                stack.enter_context(psycopg.connect(self._dsn, application_name=name, autocommit=True))
            self._here.append(stack.pop_all())
        if len(self._here) > _KEPT:
            self._here.popleft().close()


def _counted(daemon: Daemon, visitors: _Visitors) -> Sequence[str]:
    cycles = daemon.journal.named(*CYCLED)
    ended = sum(cycle.fields.get("terminated", 0) for cycle in cycles)
    return f"{len(cycles):,}", f"{visitors.came:,}", f"{ended:,}"


def _figures(held: Memory) -> tuple[str, str]:
    return figure(held.rss, "MiB", 1), figure(held.pss, "MiB", 1)


def _servers(ground: Ground) -> list[Keys]:
    return [{"name": "server", "dsn": make_conninfo(ground.server.dsn, user="reaper")}]


def _policies(count: int) -> list[Keys]:
    """Policies of which the last one alone is ever due, soon; the others wait for a day."""
    far = leaked(Role("app", ""), idle_for="1d")
    waiting = [{**far, "name": f"waits-{number}"} for number in range(count - 1)]
    return [*waiting, {**leaked(Role("app", ""), idle_for="100ms"), "safety_limit": {"share": "100%"}}]
