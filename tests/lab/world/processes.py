"""What the kernel knows of a process: its CPU time and its memory."""

import os
from contextlib import suppress
from pathlib import Path
from signal import Signals
from typing import Final, NamedTuple

_MIB: Final = 1024.0
_NANOSECONDS: Final = 1e9


class Memory(NamedTuple):
    """In MiB: resident memory, and the same with shared pages counted in part."""

    rss: float
    pss: float


def cpu_seconds(pid: int) -> float:
    """The CPU time of all its threads, user and system.

    From schedstat, because the ticks of `stat` are as long as ten cycles. Ended threads are missing.
    """
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):
            total += int((task / "schedstat").read_text(encoding="ascii").split()[0])
    return total / _NANOSECONDS


def cpu_seconds_of_children(pid: int) -> float:
    """The CPU time of all its children that have ended, in ticks: only for many of them together."""
    *_, user, system = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[:15]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def memory(pid: int) -> Memory:
    """Its memory now."""
    rss = _kib(Path(f"/proc/{pid}/status"), "VmRSS:")
    return Memory(rss=rss / _MIB, pss=_kib(Path(f"/proc/{pid}/smaps_rollup"), "Pss:") / _MIB)


def free_mib() -> float:
    """The memory that this machine can still give."""
    return _kib(Path("/proc/meminfo"), "MemAvailable:") / _MIB


def signal(pid: int, number: Signals) -> None:
    """Send a signal to a process, if it exists."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _kib(path: Path, name: str) -> int:
    lines = path.read_text(encoding="ascii", errors="replace").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))
