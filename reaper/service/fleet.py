"""All servers at once: a named task each, come and gone by reload; if one breaks, all end with its reason."""

import asyncio
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

from reaper.config import Server, Settings
from reaper.insight.dryrun.assessment import Held
from reaper.postgres.link import name_of
from reaper.service.clock import ClockWatch
from reaper.service.follow_up import FollowUp, OutcomeStore, Standings
from reaper.service.reporter import RecentEvents, Reporter, RunTotals
from reaper.service.server_loop import LoopContext, ServerLoop
from reaper.service.status import ServerStatus
from reaper.telemetry.log import Log
from reaper.telemetry.metrics.collect import Metrics
from reaper.telemetry.notify import Notifier

# The name of a pod as Kubernetes writes it, and no more shards than lots can be drawn for in a moment.
_SHARD = re.compile(r"(?:[a-z0-9][a-z0-9.-]*-)?(\d{1,4})/(\d{1,4})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Shard:
    """One of `count` equals."""

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Read `2/8`, or a pod's name with its ordinal: `reaper-2/8`; anything else is a ValueError."""
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
        """Whether a server of this name is ours: the shard that draws the highest lot for it has it."""
        return max(range(self.count), key=lambda index: _lot(name, index)) == self.index

    def __str__(self) -> str:
        """`2/8`."""
        return f"{self.index}/{self.count}"


def _lot(name: str, index: int) -> bytes:
    return blake2b(f"{index}\0{name}".encode(), digest_size=8).digest()


def choose_servers(
    settings: Settings, *, dsn: str | None, name: str | None, shard: Shard | None = None
) -> Sequence[Server]:
    """Those of the policy file that are meant, or the one of the connection string or libpq's variables."""
    servers = settings.servers if settings.names_servers else (from_dsn(dsn),)
    return [
        server
        for server in servers
        if name in {None, server.name} and (shard is None or shard.owns(server.name))
    ]


def from_dsn(dsn: str | None) -> Server:
    """A server that the policy file does not name; ValueError when the connection string is unreadable."""
    return Server(name=name_of(dsn or ""), dsn=dsn or "")


_APART_SECONDS: Final = 0.005
"""Between the first connections: a thousand servers, or one with a thousand names, see no storm of logins."""


class Fleet:
    """The loops of all servers that are ours."""

    def __init__(
        self,
        common: LoopContext,
        *,
        log: Log,
        metrics: Metrics,
        notifier: Notifier,
        recent_events: RecentEvents | None = None,
    ) -> None:
        self._common = common
        self._log = log
        self._metrics = metrics
        self._notifier = notifier
        self._recent_events = recent_events or RecentEvents()
        self._loops: dict[Server, ServerLoop] = {}
        self._all: list[ServerLoop] = []
        self._clocks: dict[str, ClockWatch] = {}
        self._follow_ups: dict[str, FollowUp] = {}
        self._trials = OutcomeStore()
        self.totals: dict[str, RunTotals] = {}

    @property
    def statuses(self) -> Mapping[str, ServerStatus]:
        """Where each loop stands."""
        return {server.name: loop.status for server, loop in self._loops.items()}

    @property
    def loops(self) -> Iterable[ServerLoop]:
        """The loops themselves."""
        return self._loops.values()

    @property
    def follow_ups(self) -> Mapping[str, FollowUp]:
        """What cycles have led to, at each server."""
        return self._follow_ups

    def trials(self) -> Standings:
        """What rehearsals have shown until now."""
        return self._trials.beside(each.watch.acts() for each in self._follow_ups.values())

    def held(self) -> Iterable[Held]:
        """The most that restraints of rehearsed policies have held back until now."""
        return (one for each in self._follow_ups.values() for one in each.holdings.most)

    def update_servers(self, servers: Iterable[Server], start: Callable[[ServerLoop], None]) -> None:
        """Begin at servers that are new, end at those that are gone; one that has changed is both.

        Those that stay are woken: what they wait for may have changed.
        """
        wanted = dict.fromkeys(servers)
        names = {server.name for server in wanted}
        for server in [server for server in self._loops if server not in wanted]:
            self._loops.pop(server).stop.set()
            if server.name not in names:
                self._metrics.forget(server.name)
        for loop in self._loops.values():
            loop.wake.set()
        for number, server in enumerate([server for server in wanted if server not in self._loops]):
            self._loops[server] = loop = self._loop(server, begin_after=number * _APART_SECONDS)
            start(loop)

    def stop(self) -> None:
        """Ask every loop to finish what is at hand and end."""
        for loop in self._loops.values():
            loop.stop.set()

    async def ended(self) -> None:
        """Wait until every loop, dismissed ones too, has finished what was at hand."""
        await asyncio.gather(*(loop.ended.wait() for loop in self._all))

    def _loop(self, server: Server, *, begin_after: float) -> ServerLoop:
        reporter = Reporter(
            server.name,
            log=self._log,
            metrics=self._metrics,
            notifier=self._notifier,
            recent_events=self._recent_events,
        )
        # One that comes back, or whose connection string has changed, goes on counting.
        reporter.totals = self.totals.setdefault(server.name, reporter.totals)
        # What is known of a server's clock outlives a change of its labels or its connection string.
        clock = self._clocks.setdefault(server.name, ClockWatch())
        keeping = self._common.keeping
        loop = ServerLoop(
            server,
            self._common,
            reporter,
            ServerStatus(),
            clock=clock,
            follow_up=self._follow_up(server.name),
            annals=keeping.of(server.name, reporter) if keeping else None,
            begin_after=begin_after,
        )
        self._all = [other for other in self._all if not other.ended.is_set()] + [loop]
        return loop

    def _follow_up(self, server: str) -> FollowUp:
        """What is known of it stays known when the server changes its labels or its connection string."""
        known = self._follow_ups.get(server)
        new = known.next() if known else FollowUp(server, self._common.ledger, self._trials)
        self._follow_ups[server] = new
        return new
