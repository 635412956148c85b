"""A server of the imagination, whose clients come with names that nobody has used before."""

import itertools
from collections.abc import AsyncIterator, Sequence
from typing import Final

from reaper.policy.plan import Outcome, Reap, Result
from reaper.policy.rules import Rules
from reaper.policy.session import (
    CLIENT_BACKEND,
    IDLE,
    Facts,
    Identity,
    Session,
    SessionId,
    Slots,
    Snapshot,
    Watcher,
)
from reaper.policy.time import SECOND, Instant, Span

_BEGAN: Final = 1_700_000_000 * SECOND
_IDLE_FOR: Final = 3_600 * SECOND
_LIVES: Final = 2
"""In looks: who is seen once is not judged yet."""


class InventedNames:
    """Shows as many new clients in each look, and takes the place of whoever would end them."""

    def __init__(self, *, newcomers: int, every: float) -> None:
        self.names = 0
        self._newcomers = newcomers
        self._every = round(every * SECOND)
        self._looks = 0
        self._crowd: list[tuple[Session, ...]] = []
        self._pids = itertools.cycle(range(1_000, 30_000))

    def seconds(self) -> float:
        """Since it all began."""
        return self._looks * self._every / SECOND

    async def observe(self, rules: Rules, *, ahead: Span | None = None) -> Snapshot:  # noqa: ARG002
        """One look later, in no time."""
        self._looks += 1
        now = Instant(_BEGAN + self._looks * self._every)
        self._crowd = [*self._crowd[1 - _LIVES :], tuple(self._newcomer(now) for _ in range(self._newcomers))]
        sessions = tuple(session for each in self._crowd for session in each)
        return Snapshot(
            server="imagined",
            at=now,
            slots=Slots(total=1_000, reserved=3, used=len(sessions)),
            watcher=Watcher(pid=1, role="reaper", superuser=False),
            sessions=sessions,
            facts=Facts(advisory_lock_holders=frozenset(), waiters={}),
        )

    async def signal(self, reaps: Sequence[Reap], *, heard: Instant) -> Sequence[Outcome]:
        """They are gone at once."""
        return [Outcome(result=Result.TERMINATED, detail="gone", at=heard) for _ in reaps]

    async def confirm(self, reaps: Sequence[Reap]) -> AsyncIterator[Sequence[tuple[Reap, Outcome]]]:
        """Nothing is left to be confirmed."""
        yield [(reap, Outcome(result=Result.TERMINATED)) for reap in reaps]

    def _newcomer(self, now: Instant) -> Session:
        self.names += 1
        since = Instant(now - _IDLE_FOR)
        return Session(
            id=SessionId(next(self._pids), Instant(since - self.names)),
            identity=Identity(
                "shop", f"app_{self.names % 8}", f"job-{self.names}", f"10.0.{self.names % 200}.7"
            ),
            kind=CLIENT_BACKEND,
            role_oid=16_384 + self.names % 8,
            superuser=False,
            client_port=self.names % 50_000,
            state=IDLE,
            state_change=since,
            query_start=since,
            xact_start=None,
            wait_event="ClientRead",
            xid_age=None,
            last_query_listens=False,
            last_query_starts_backup=False,
            query=None,
        )
