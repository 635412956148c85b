"""Memory of a real reaper with everything on, while clients come with new names all the time."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import yaml

from tests.lab.clients.crowd import IdleCrowd
from tests.lab.clients.sleepers import ROOT
from tests.lab.report import NOTHING, Scale, figure, table
from tests.lab.world.observe import HttpPort, memory
from tests.lab.world.reaper import CYCLES, NO_LIMITS, ReaperProcess, policy, rules
from tests.lab.world.server import REAPER, LabServer
from tests.system.policies import Keys


@dataclass(frozen=True, slots=True, kw_only=True)
class _MemorySize:
    seconds: float
    renamed: int
    """Sessions that change their application name every second."""


_SIZES: Final[Mapping[Scale, _MemorySize]] = {
    # More than a million names.
    Scale.FULL: _MemorySize(seconds=1_200, renamed=850),
    Scale.SMOKE: _MemorySize(seconds=1, renamed=5),
}
_POLICIES: Final = 20
_AT_ONCE: Final = 10
_KEPT: Final = 50
_PARTS: Final = 4
_PAUSE: Final = 0.05


def run(scale: Scale, major: int) -> Iterator[str]:
    """One table: a reaper with little to do, and one with everything on."""
    size = _SIZES[scale]
    with (
        LabServer(major, max_connections=str(size.renamed + 200)) as server,
        LabServer(major) as beside,
        TemporaryDirectory() as scratch,
    ):
        beside.run((ROOT / "deploy" / "sql" / "record_table.sql").read_bytes())
        rows = [_little(server, Path(scratch), size), *_everything(server, beside, Path(scratch), size)]
    yield table(
        "Memory: one server; everything is 20 policies that terminate, one dry run, the audit log in a file\n"
        "and in a table, a history every second, HTTP scraped all the time, a webhook, the whole log; and\n"
        "clients with new names: some are terminated, others change their names",
        ("", "cycles", "names", "terminations", "RSS", "PSS"),
        rows,
    )


def _little(server: LabServer, folder: Path, size: _MemorySize) -> Sequence[str]:
    text = rules(server.dsn_of(REAPER), *_policies(1), interval=1)
    with ReaperProcess(folder / "little", text, "--listen", "off", log_level="debug") as reaper:
        reaper.wait(*CYCLES)
        time.sleep(min(size.seconds / _PARTS, 15))
        cycles = len(reaper.log.named(*CYCLES))
        return ("1 policy, no HTTP", str(cycles), *[NOTHING] * 2, *_held(reaper))


def _everything(
    server: LabServer, beside: LabServer, folder: Path, size: _MemorySize
) -> Iterator[Sequence[str]]:
    port = HttpPort()
    dry_run = policy("dry-run", 0.05, mode="dry-run", role=["app"], keys=NO_LIMITS)
    # Its candidates are decided in every cycle, and skipped.
    renamed = policy("renamed", 0.05, role=["other"], keys={"when": {"slots_used": "100%"}})
    text = rules(
        server.dsn_of(REAPER), *_policies(_POLICIES), dry_run, renamed, interval=1, min_interval=0.01
    )
    hook = {"name": "unused", "webhook": f"http://{HttpPort().at}/", "every": "1s"}
    history = ("--history", "history", "--history-every", "1s")
    options = ("--listen", port.at, "--audit-table", beside.dsn, *history)
    reaper = ReaperProcess(
        folder / "all", text + yaml.safe_dump({"notify": [hook]}), *options, log_level="debug"
    )
    with reaper, IdleCrowd(server.port) as visitors, IdleCrowd(server.port) as renamed_sessions:
        renamed_sessions.open(size.renamed, ["other"])
        names = _Names(visitors, renamed_sessions, size)
        reaper.wait(*CYCLES)
        yield ("everything, at the start", *_counted(reaper, names), *_held(reaper))
        for part in range(1, _PARTS + 1):
            end = time.monotonic() + size.seconds / _PARTS
            while time.monotonic() < end:
                names.more()
                port.get("/metrics")
                time.sleep(_PAUSE)
            yield (f"everything, after {part}/{_PARTS}", *_counted(reaper, names), *_held(reaper))
        for page in ("/", "/usage", "/rehearsal", "/snapshot?server=server"):
            port.get(page)
        yield ("and after its pages were opened", *_counted(reaper, names), *_held(reaper))


class _Names:
    """Clients with new names: visitors all the time, and once a second all renamed sessions."""

    def __init__(self, visitors: IdleCrowd, renamed: IdleCrowd, size: _MemorySize) -> None:
        self._visitors = visitors
        self._renamed = renamed
        self._size = size
        self._last = 0.0
        self.count = 0
        """How many names there were."""

    def more(self) -> None:
        """Let visitors come, who stay idle until they are terminated, and rename the others."""
        self._visitors.open(_AT_ONCE, ["app"], new=self.count)
        self.count += _AT_ONCE
        self._visitors.close(max(0, len(self._visitors) - _KEPT))
        if time.monotonic() - self._last >= 1:
            self._last = time.monotonic()
            numbers = range(self.count, self.count + self._size.renamed)
            self._renamed.run(*(f"SET application_name = 'job-{number}'" for number in numbers))
            self.count += self._size.renamed


def _counted(reaper: ReaperProcess, names: _Names) -> Sequence[str]:
    cycles = reaper.log.named(*CYCLES)
    ended = sum(cycle.fields.get("terminated", 0) for cycle in cycles)
    return f"{len(cycles):,}", f"{names.count:,}", f"{ended:,}"


def _held(reaper: ReaperProcess) -> tuple[str, str]:
    held = memory(reaper.pid)
    return figure(held.rss, "MiB", 1), figure(held.pss, "MiB", 1)


def _policies(number: int) -> list[Keys]:
    """Policies of which only the last one is ever due; the others wait for a day."""
    waiting = [policy(f"waits-{each}", 86_400, role=["app"]) for each in range(number - 1)]
    return [*waiting, policy("leaked", 0.1, role=["app"], keys=NO_LIMITS)]
