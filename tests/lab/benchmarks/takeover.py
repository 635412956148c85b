"""How long a server is without a leader: from the loss of one leader to the first cycle of the next.

Pairs of reapers, each pair with a database that stands for a server, lose their leaders at random moments of
a cycle. When all pairs have lost theirs, the lost ones come back and stand by.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from signal import SIGCONT, SIGKILL, SIGSTOP
from tempfile import TemporaryDirectory
from typing import Final, Self

from reaper.telemetry import events
from tests.lab.report import Scale, figure, spread, table
from tests.lab.world.reaper import CYCLES, ReaperProcess, policy, rules
from tests.lab.world.server import LabServer
from tests.postgres.proxy import Proxy


@dataclass(frozen=True, slots=True, kw_only=True)
class _TakeoverSize:
    pairs: int
    """As many losses of each kind."""
    intervals: Sequence[int]
    """With the shortest lease, and with the default one."""
    ways: Sequence[str]


_KILL, _FREEZE, _CUT = "kill -9", "SIGSTOP", "network cut"
_SIZES: Final[Mapping[Scale, _TakeoverSize]] = {
    Scale.FULL: _TakeoverSize(pairs=20, intervals=(5, 10), ways=(_KILL, _FREEZE, _CUT)),
    Scale.SMOKE: _TakeoverSize(pairs=1, intervals=(1,), ways=(_KILL,)),
}
_LEASE_INTERVALS: Final = 3
_SHORTEST_LEASE: Final = 15
_STANDBY_SHARE: Final = 5
_STANDBY_SECONDS: Final = 2.0
_GRACE: Final = 30.0
_SEED: Final = 20


def run(scale: Scale, major: int) -> Iterator[str]:
    """Losses of each kind, at each interval."""
    size = _SIZES[scale]
    rows = [row for interval in size.intervals for row in _rows(interval, size, major)]
    title = "Take-over: from the loss to the first cycle of the next leader; a cut network forwards nothing"
    head = ("", "interval", "losses", "min", "median", "max", "bound", "cycles of the lost one")
    yield table(title, head, rows)


def _rows(interval: int, size: _TakeoverSize, major: int) -> Iterator[Sequence[str]]:
    with LabServer(major) as server, ExitStack() as stack, ThreadPoolExecutor(size.pairs) as threads:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        names = [str(number) for number in range(size.pairs)]
        pairs = [_Pair(server.database(name), folder / name, interval) for name in names]
        for pair in pairs:
            stack.enter_context(pair)
        list(threads.map(_Pair.settle, pairs))
        for way in size.ways:
            gaps = list(threads.map(partial(_Pair.lose, way=way), pairs))
            afterwards = sum(threads.map(partial(_Pair.recover, way=way), pairs))
            yield _row(way, interval, gaps, afterwards)


def _row(way: str, interval: int, gaps: Sequence[float], afterwards: int) -> Sequence[str]:
    retry = min(interval / _STANDBY_SHARE, _STANDBY_SECONDS)
    lease = max(_LEASE_INTERVALS * interval, _SHORTEST_LEASE)
    bound = retry if way == _KILL else lease + retry
    return (way, f"{interval} s", str(len(gaps)), *spread(gaps, "s"), figure(bound, "s"), str(afterwards))


class _Replica(ReaperProcess):
    """One reaper and the proxy that it connects through."""

    def __init__(self, dsn: str, folder: Path, interval: int, proxy: Proxy) -> None:
        text = rules(proxy.dsn(dsn), policy("leaked", 3_600, role=["app"]), interval=interval)
        super().__init__(folder, text, "--listen", "off", log_level="debug")
        self.proxy = proxy


class _Pair:
    """Two reapers for one server."""

    def __init__(self, dsn: str, folder: Path, interval: int) -> None:
        folder.mkdir()
        self._stack = ExitStack()
        self._leader, self._standby = (
            _Replica(dsn, folder / name, interval, self._stack.enter_context(Proxy(dsn)))
            for name in ("one", "other")
        )
        self._interval = interval
        self._dice = Random(f"{_SEED} {folder.name}")  # noqa: S311 (the same moments in every run)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def settle(self) -> None:
        """Start both, one after the other."""
        for replica, event in ((self._leader, events.LEADS), (self._standby, events.STANDS_BY)):
            self._stack.enter_context(replica)
            replica.wait(event)

    def lose(self, way: str) -> float:
        """Lose the leader; return the time until the other one has run a cycle. The two change places."""
        time.sleep(self._dice.uniform(0, self._interval))
        lost, next_one = self._leader, self._standby
        since = time.time()
        _LOSE[way](lost)
        patience = max(_LEASE_INTERVALS * self._interval, _SHORTEST_LEASE) + _GRACE
        leads = next_one.wait(events.LEADS, since=since, within=patience)
        first = next_one.wait(*CYCLES, since=leads.at)
        self._leader, self._standby = next_one, lost
        return first.at - since

    def recover(self, way: str) -> int:
        """Bring the lost one back; return how many cycles it has run since, before it stood by."""
        back = time.time()
        _RECOVER[way](self._standby)
        stands_by = self._standby.wait(events.STANDS_BY, since=back)
        return len(self._standby.log.named(*CYCLES, since=back, until=stands_by.at))


_LOSE: Final[Mapping[str, Callable[[_Replica], None]]] = {
    _KILL: lambda replica: replica.send(SIGKILL),
    _FREEZE: lambda replica: replica.send(SIGSTOP),
    _CUT: lambda replica: replica.proxy.stall(),
}
_RECOVER: Final[Mapping[str, Callable[[_Replica], None]]] = {
    _KILL: lambda replica: replica.start(),
    _FREEZE: lambda replica: replica.send(SIGCONT),
    _CUT: lambda replica: replica.proxy.restore(),
}
