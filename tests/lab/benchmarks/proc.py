"""What the kernel says of a process: its CPU, its memory, its threads."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

_MIB: Final = 1024.0
_NANOSECONDS: Final = 1e9


class Memory(NamedTuple):
    """In MiB: what is resident, and of shared pages only the part that is its own."""

    rss: float
    pss: float


def cpu_seconds(pid: int) -> float:
    """The time on a CPU of all its threads, user and system.

    From schedstat, for the ticks of `stat` are as long as ten cycles. A thread that has ended is missing.
    """
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):
            total += int((task / "schedstat").read_text(encoding="ascii").split()[0])
    return total / _NANOSECONDS


def cpu_seconds_of_children(pid: int) -> float:
    """The time on a CPU of all its children that have ended, in ticks: for many of them together."""
    *_, user, system = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[:15]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def memory(pid: int) -> Memory:
    """How much it holds now."""
    rss = _kib(Path(f"/proc/{pid}/status"), "VmRSS:")
    return Memory(rss=rss / _MIB, pss=_kib(Path(f"/proc/{pid}/smaps_rollup"), "Pss:") / _MIB)


def free_mib() -> float:
    """How much memory this machine can still give."""
    return _kib(Path("/proc/meminfo"), "MemAvailable:") / _MIB


def _kib(path: Path, name: str) -> int:
    lines = path.read_text(encoding="ascii", errors="replace").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))
