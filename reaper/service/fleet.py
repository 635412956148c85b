"""The loops of all servers: started and stopped by a reload. If one breaks, the service ends."""

import asyncio
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

from reaper.config import Server, Settings
from reaper.postgres.connection import name_of
from reaper.service.clock import ClockWatch
from reaper.service.follow_up import FollowUp, KnownDryRuns, OutcomeStore
from reaper.service.history import HistoryRecorder
from reaper.service.reporter import RecentEvents, Reporter, RunTotals
from reaper.service.server_loop import LoopContext, ServerLoop
from reaper.service.status import ServerStatus
from reaper.telemetry.log import Log
from reaper.telemetry.metrics.collect import Metrics
from reaper.telemetry.notify import Notifier

# The name of a pod as Kubernetes writes it; at most 9,999 shards, so that hashing for each stays fast.
_SHARD: Final = re.compile(r"(?:[a-z0-9][a-z0-9.-]*-)?(\d{1,4})/(\d{1,4})", re.ASCII)
_SECONDS_BETWEEN_FIRST_CONNECTIONS: Final = 0.005
"""So that a thousand servers behind one network, or one server under many names, get no storm of logins."""


@dataclass(frozen=True, slots=True)
class Shard:
    """One of `count` services that share the servers of one policy file."""

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Read `2/8`, or a pod's name with its ordinal (`reaper-2/8`); anything else is a ValueError."""
        found = _SHARD.fullmatch(text)
        if not found:
            message = f"{text!r} is no shard: write INDEX/COUNT such as 0/4, or POD-NAME/COUNT"
            raise ValueError(message)
        index, count = map(int, found.groups())
        if not index < count:
            message = f"shard {index} of {count} does not exist: indexes run from 0 to {count - 1}"
            raise ValueError(message)
        return cls(index, count)

    def owns(self, name: str) -> bool:
        """Return True if the server of this name belongs to this shard (rendezvous hashing)."""
        # With a modulo instead, one more shard would move nearly every server to another owner.
        return max(range(self.count), key=lambda index: _weight(name, index)) == self.index

    def __str__(self) -> str:
        """`2/8`."""
        return f"{self.index}/{self.count}"


def _weight(name: str, index: int) -> bytes:
    return blake2b(f"{index}\0{name}".encode(), digest_size=8).digest()


def choose_servers(
    settings: Settings, *, dsn: str | None, name: str | None, shard: Shard | None = None
) -> Sequence[Server]:
    """The servers of the policy file, or the one of the connection string, limited to `name` and `shard`."""
    servers = settings.servers if settings.names_servers else (from_dsn(dsn),)
    return [
        server
        for server in servers
        if name in {None, server.name} and (shard is None or shard.owns(server.name))
    ]


def from_dsn(dsn: str | None) -> Server:
    """A server that the policy file does not name; ValueError if the connection string is unreadable."""
    return Server(name=name_of(dsn or ""), dsn=dsn or "")


class Fleet:
    """The loops of all servers of this service."""

    def __init__(
        self,
        context: LoopContext,
        *,
        log: Log,
        metrics: Metrics,
        notifier: Notifier,
        recent_events: RecentEvents | None = None,
    ) -> None:
        self._context = context
        self._log = log
        self._metrics = metrics
        self._notifier = notifier
        self._recent_events = recent_events or RecentEvents()
        self._loops: dict[Server, ServerLoop] = {}
        self._all: list[ServerLoop] = []
        self._clocks: dict[str, ClockWatch] = {}
        self._follow_ups: dict[str, FollowUp] = {}
        self._outcomes = OutcomeStore()
        self.totals: dict[str, RunTotals] = {}

    @property
    def statuses(self) -> Mapping[str, ServerStatus]:
        """The status of each loop, by its server's name."""
        return {server.name: loop.status for server, loop in self._loops.items()}

    @property
    def loops(self) -> Iterable[ServerLoop]:
        """The loops that run now."""
        return self._loops.values()

    @property
    def follow_ups(self) -> Mapping[str, FollowUp]:
        """The follow-up of earlier cycles, by server."""
        return self._follow_ups

    def outcomes(self) -> KnownDryRuns:
        """The outcomes of dry runs until now, including sessions that are still watched."""
        return self._outcomes.beside(each.watch.dry_runs() for each in self._follow_ups.values())

    def update_servers(self, servers: Iterable[Server], start: Callable[[ServerLoop], None]) -> None:
        """Start loops of new servers and stop those of removed ones; a changed server is both.

        Loops that stay are woken: the interval that they wait for may have changed.
        """
        wanted = dict.fromkeys(servers)
        names = {server.name for server in wanted}
        # Stopped loops stay in `_all`: they finish their terminations, and the end of the service waits.
        for server in [server for server in self._loops if server not in wanted]:
            self._loops.pop(server).stop.set()
            if server.name not in names:
                self._metrics.forget(server.name)
        for loop in self._loops.values():
            loop.wake.set()
        for number, server in enumerate([server for server in wanted if server not in self._loops]):
            delay = number * _SECONDS_BETWEEN_FIRST_CONNECTIONS
            self._loops[server] = loop = self._new_loop(server, delay=delay)
            start(loop)

    def stop(self) -> None:
        """Let every loop finish its current work and end."""
        for loop in self._loops.values():
            loop.stop.set()

    async def ended(self) -> None:
        """Wait until every loop has ended, those of removed servers too."""
        await asyncio.gather(*(loop.ended.wait() for loop in self._all))

    def _new_loop(self, server: Server, *, delay: float) -> ServerLoop:
        reporter = Reporter(
            server.name,
            log=self._log,
            metrics=self._metrics,
            notifier=self._notifier,
            recent_events=self._recent_events,
        )
        # Totals, clock and follow-up belong to the server's name: they outlive a change of labels or DSN.
        reporter.totals = self.totals.setdefault(server.name, reporter.totals)
        clock = self._clocks.setdefault(server.name, ClockWatch())
        history = self._context.history
        loop = ServerLoop(
            server,
            self._context,
            reporter,
            ServerStatus(),
            clock=clock,
            follow_up=self._follow_up(server.name),
            recorder=HistoryRecorder(history, server.name, reporter) if history else None,
            delay=delay,
        )
        self._all = [other for other in self._all if not other.ended.is_set()] + [loop]
        return loop

    def _follow_up(self, server: str) -> FollowUp:
        # The old loop may still be ending when the new one starts: each follows up its own sessions.
        known = self._follow_ups.get(server)
        new = known.next() if known else FollowUp(server, self._context.ledger, self._outcomes)
        self._follow_ups[server] = new
        return new
