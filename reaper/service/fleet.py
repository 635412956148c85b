"""All servers at once: a named task each, come and gone by reload; if one breaks, all end with its reason."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from reaper.config import Server
from reaper.policy.held import Held
from reaper.service.aftermath import Aftermath
from reaper.service.bulletin import Bulletin
from reaper.service.chronicle import Chronicle
from reaper.service.clock_watch import ClockWatch
from reaper.service.server_loop import ServerLoop, Surroundings
from reaper.service.standing import Standing
from reaper.service.tally import Tally
from reaper.service.trials import Standings, Trials
from reaper.telemetry.log import Log
from reaper.telemetry.metrics import Metrics
from reaper.telemetry.notify import Notifier

_APART_SECONDS: Final = 0.005
"""Between the first connections: a thousand servers, or one with a thousand names, see no storm of logins."""


class Fleet:
    """The loops of all servers that are ours."""

    def __init__(
        self,
        common: Surroundings,
        *,
        log: Log,
        metrics: Metrics,
        notifier: Notifier,
        chronicle: Chronicle | None = None,
    ) -> None:
        self._common = common
        self._log = log
        self._metrics = metrics
        self._notifier = notifier
        self._chronicle = chronicle or Chronicle()
        self._loops: dict[Server, ServerLoop] = {}
        self._all: list[ServerLoop] = []
        self._clocks: dict[str, ClockWatch] = {}
        self._aftermaths: dict[str, Aftermath] = {}
        self._trials = Trials()
        self.tallies: dict[str, Tally] = {}

    @property
    def standings(self) -> Mapping[str, Standing]:
        """Where each loop stands."""
        return {server.name: loop.standing for server, loop in self._loops.items()}

    @property
    def loops(self) -> Iterable[ServerLoop]:
        """The loops themselves."""
        return self._loops.values()

    @property
    def aftermaths(self) -> Mapping[str, Aftermath]:
        """What cycles have led to, at each server."""
        return self._aftermaths

    def trials(self) -> Standings:
        """What rehearsals have shown until now."""
        return self._trials.beside(each.watch.acts() for each in self._aftermaths.values())

    def held(self) -> Iterable[Held]:
        """The most that restraints of rehearsed policies have held back until now."""
        return (one for each in self._aftermaths.values() for one in each.holdings.most)

    def muster(self, servers: Iterable[Server], start: Callable[[ServerLoop], None]) -> None:
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
        bulletin = Bulletin(
            server.name,
            log=self._log,
            metrics=self._metrics,
            notifier=self._notifier,
            chronicle=self._chronicle,
        )
        # One that comes back, or whose connection string has changed, goes on counting.
        bulletin.tally = self.tallies.setdefault(server.name, bulletin.tally)
        # What is known of a server's clock outlives a change of its labels or its connection string.
        clock = self._clocks.setdefault(server.name, ClockWatch())
        keeping = self._common.keeping
        loop = ServerLoop(
            server,
            self._common,
            bulletin,
            Standing(),
            clock=clock,
            aftermath=self._aftermath(server.name),
            annals=keeping.of(server.name, bulletin) if keeping else None,
            begin_after=begin_after,
        )
        self._all = [other for other in self._all if not other.ended.is_set()] + [loop]
        return loop

    def _aftermath(self, server: str) -> Aftermath:
        """What is known of it stays known when the server changes its labels or its connection string."""
        known = self._aftermaths.get(server)
        new = known.next() if known else Aftermath(server, self._common.ledger, self._trials)
        self._aftermaths[server] = new
        return new
