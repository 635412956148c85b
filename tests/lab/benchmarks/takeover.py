"""How long a server is without a leader: from the loss of the one to the first cycle of the other.

Pairs of reapers, each pair at a database of its own that stands for a server, lose their leaders at random
moments of a cycle. Who was lost comes back, when all pairs have had their loss, as the standby of the next.
"""

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from signal import SIGCONT, SIGKILL, SIGSTOP
from typing import Final, Protocol, Self

from reaper.telemetry import events
from tests.lab.report import Scale
from tests.postgres.sandbox import Role
from tests.system.policies import leaked, policy_file

from .ground import CYCLED, Daemon, Ground
from .network import Line, OpenLine, lines, move_to_own_network
from .table import figure, spread, table


@dataclass(frozen=True, slots=True, kw_only=True)
class _Size:
    pairs: int
    """As many losses of each kind."""
    intervals: Sequence[int]
    """The shortest lease, and the default one."""
    ways: Sequence[str]


_KILL, _FREEZE, _CUT = "kill -9", "SIGSTOP", "network cut"
_WAYS: Final = (_KILL, _FREEZE, _CUT)
_SIZES: Final[Mapping[Scale, _Size]] = {
    Scale.FULL: _Size(pairs=20, intervals=(5, 10), ways=_WAYS),
    Scale.QUICK: _Size(pairs=4, intervals=(5,), ways=_WAYS),
    Scale.SMOKE: _Size(pairs=1, intervals=(1,), ways=(_KILL,)),
}
_LEASE_INTERVALS: Final = 3
_SHORTEST_LEASE: Final = 15
_STANDBY_SHARE: Final = 5
_STANDBY_SECONDS: Final = 2.0
_GRACE: Final = 30.0
_SEED: Final = 20


class _Strike(Protocol):
    def __call__(self, replica: "_Replica") -> None: ...


def run(scale: Scale, major: int) -> Iterator[str]:
    """Losses of each kind, at each interval."""
    size = _SIZES[scale]
    dropping = scale is not Scale.SMOKE and move_to_own_network()
    cut = "packets dropped both ways" if dropping else "a proxy that falls silent: no drop without root"
    rows = [row for interval in size.intervals for row in _at(interval, size, major, dropping=dropping)]
    title = f"Take-over: from the loss to the first cycle of the other; network cut: {cut}"
    head = ("", "interval", "losses", "min", "median", "max", "bound", "cycles of the lost one")
    yield table(title, head, rows)


def _at(interval: int, size: _Size, major: int, *, dropping: bool) -> Iterator[Sequence[str]]:
    with (
        Ground(major, listen_addresses="*" if dropping else "127.0.0.1") as ground,
        lines(ground.server.dsn, dropping=dropping) as open_line,
        ExitStack() as stack,
        ThreadPoolExecutor(size.pairs) as crew,
    ):
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        places = [(ground.database(f"server {number}"), folder / str(number)) for number in range(size.pairs)]
        pairs = [_Pair(dsn, where, interval, open_line) for dsn, where in places]
        for pair in pairs:
            stack.enter_context(pair)
        list(crew.map(_Pair.settle, pairs))
        for way in size.ways:
            gaps = list(crew.map(partial(_Pair.lose, way=way), pairs))
            afterwards = sum(crew.map(partial(_Pair.recover, way=way), pairs))
            yield _row(way, interval, gaps, afterwards)


def _row(way: str, interval: int, gaps: Sequence[float], afterwards: int) -> Sequence[str]:
    asks = min(interval / _STANDBY_SHARE, _STANDBY_SECONDS)
    lease = max(_LEASE_INTERVALS * interval, _SHORTEST_LEASE)
    return (
        way,
        f"{interval} s",
        str(len(gaps)),
        *spread(gaps, "s"),
        figure(asks if way == _KILL else lease + asks, "s"),
        str(afterwards),
    )


class _Replica:
    """One reaper and its line to the server."""

    def __init__(self, dsn: str, folder: Path, interval: int, line: Line) -> None:
        server = {"name": "server", "dsn": line.through(dsn)}
        policies = policy_file(
            leaked(Role("app", ""), idle_for="1h"), interval=f"{interval}s", servers=[server]
        )
        self.daemon = Daemon(folder, policies, "--listen", "off", level="debug")
        self.line = line

    def stop_and_go(self) -> None:
        """Let it run on where it was stopped."""
        assert self.daemon.life
        self.daemon.life.send(SIGCONT)


class _Pair:
    """Two reapers at one server."""

    def __init__(self, dsn: str, folder: Path, interval: int, open_line: OpenLine) -> None:
        folder.mkdir()
        self._leader, self._standby = (
            _Replica(dsn, folder / name, interval, open_line()) for name in ("one", "other")
        )
        self._interval = interval
        self._dice = Random(f"{_SEED} {folder.name}")  # noqa: S311 (the same moments in every run)
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def settle(self) -> None:
        """Start both, one after the other."""
        for replica, event in ((self._leader, events.LEADS), (self._standby, events.STANDS_BY)):
            self._stack.enter_context(replica.daemon)
            replica.daemon.wait(event)

    def lose(self, way: str) -> float:
        """Lose the leader; how long it takes until the other has run a cycle, and the two change places."""
        time.sleep(self._dice.uniform(0, self._interval))
        lost, heir = self._leader, self._standby
        since = time.time()
        _STRIKES[way](lost)
        patience = max(_LEASE_INTERVALS * self._interval, _SHORTEST_LEASE) + _GRACE
        leads = heir.daemon.wait(events.LEADS, since=since, within=patience)
        first = heir.daemon.wait(*CYCLED, since=leads.at)
        self._leader, self._standby = heir, lost
        return first.at - since

    def recover(self, way: str) -> int:
        """Bring the lost one back; how many cycles it has run since, before it stood by."""
        back = time.time()
        _MENDS[way](self._standby)
        stands_by = self._standby.daemon.wait(events.STANDS_BY, since=back)
        return len(self._standby.daemon.journal.named(*CYCLED, since=back, until=stands_by.at))


def _kill(replica: _Replica) -> None:
    assert replica.daemon.life
    replica.daemon.life.send(SIGKILL)


def _freeze(replica: _Replica) -> None:
    assert replica.daemon.life
    replica.daemon.life.send(SIGSTOP)


_STRIKES: Final[Mapping[str, _Strike]] = {
    _KILL: _kill,
    _FREEZE: _freeze,
    _CUT: lambda replica: replica.line.cut(),
}
_MENDS: Final[Mapping[str, _Strike]] = {
    _KILL: lambda replica: replica.daemon.start(),
    _FREEZE: lambda replica: replica.stop_and_go(),
    _CUT: lambda replica: replica.line.mend(),
}
