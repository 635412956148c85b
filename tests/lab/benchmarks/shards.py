"""The same fleet over several processes: what they cost together, beside one."""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final, Self

from reaper.demo.server import free_ports

from .ground import Daemon
from .pages import Pages
from .park import Park
from .proc import cpu_seconds, memory
from .table import NOTHING, figure, table

_PATIENCE: Final = 120.0


def sharded(
    park: Park, folder: Path, *, servers: int, processes: Sequence[int], policies: str, window: float
) -> str:
    """A table with a row for each number of processes; `policies` names all of the servers."""
    with ExitStack() as sessions:
        park.some(servers, sessions)
        rows = [_row(folder, count, policies, window) for count in processes]
    title = f"Sharded: {servers} servers over some processes; all of them together, and what one has to do"
    head = (
        "processes",
        "all cycled after",
        "CPU/cycle",
        "of a core",
        "of it, the busiest",
        "RSS",
        "PSS",
        "cycles of each",
    )
    return table(title, head, rows)


def _row(folder: Path, count: int, policies: str, window: float) -> Sequence[str]:
    with ExitStack() as stack:
        began = time.monotonic()
        shards = [stack.enter_context(_Shard(folder, number, count, policies)) for number in range(count)]
        for shard in shards:
            shard.pages.wait("/readyz", within=_PATIENCE)
        ready = time.monotonic() - began
        time.sleep(window / 2)  # the second look, sooner than the others, is behind us
        for shard in shards:
            shard.begin()
        time.sleep(window)
        taken = [shard.taken() for shard in shards]
        held = [memory(shard.daemon.pid) for shard in shards]
    spent, cycles = (sum(each) for each in zip(*taken, strict=True))
    busiest = max(cpu for cpu, _ in taken)
    return (
        str(count),
        figure(ready, "s"),
        figure(1000 * spent / cycles, "ms", 2) if cycles else NOTHING,
        figure(100 * spent / window, "%", 1),
        figure(100 * busiest / window, "%", 1),
        figure(sum(each.rss for each in held), "MiB", 0),
        figure(sum(each.pss for each in held), "MiB", 0),
        " ".join(str(done) for _, done in taken),
    )


class _Shard:
    """One of the processes."""

    def __init__(self, folder: Path, number: int, count: int, policies: str) -> None:
        port = next(free_ports())
        options = ("--listen", f"127.0.0.1:{port}", "--shard", f"{number}/{count}")
        self.daemon = Daemon(folder / f"shard {number} of {count}", policies, *options)
        self.pages = Pages(port, running=lambda: self.daemon.running)
        self._since = 0.0, 0

    def __enter__(self) -> Self:
        self.daemon.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.daemon.__exit__()

    def begin(self) -> None:
        """Measure from now on."""
        self._since = cpu_seconds(self.daemon.pid), self.pages.cycles()

    def taken(self) -> tuple[float, int]:
        """CPU seconds and cycles since."""
        cpu, cycles = self._since
        return cpu_seconds(self.daemon.pid) - cpu, self.pages.cycles() - cycles
