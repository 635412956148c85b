"""A week at a server, made up: pools at work by day, leaks, forgotten transactions, visitors by the clock."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from random import Random
from typing import Final

from reaper.policy.session import (
    ACTIVE,
    IDLE,
    IN_TRANSACTION,
    Facts,
    Identity,
    Session,
    SessionId,
    Slots,
    Snapshot,
    Watcher,
)
from reaper.policy.time import SECOND, Instant

EVERY: Final = 10
_BEGAN: Final = 1_749_600_000 * SECOND
_DAY: Final = 86_400
_WATCHER: Final = Watcher(pid=1, role="reaper", superuser=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What the traffic is like."""

    pools: int = 6
    members: int = 40
    busy: float = 0.3
    """The share of a pool's members that have done something since the reading before."""
    leaks_a_day: int = 150
    slots: int = 500
    seed: int = 7


class Traffic:
    """The sessions of one server, reading after reading."""

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        self._dice = Random(shape.seed)  # noqa: S311 (the same week each time)
        self._at = Instant(_BEGAN)
        self._pids = 100
        self._sessions: dict[SessionId, Session] = {}
        self._ends: dict[SessionId, Instant] = {}
        self._pool = [
            self._open(f"web-{n % shape.pools}", f"app_{n % shape.pools}")
            for n in range(shape.members * shape.pools)
        ]

    def snapshots(self, count: int) -> Iterator[Snapshot]:
        """So many readings."""
        for _ in range(count):
            self._at = Instant(self._at + EVERY * SECOND)
            self._work()
            self._come_and_go()
            yield Snapshot(
                server="orders",
                at=self._at,
                slots=Slots(total=self._shape.slots, reserved=3, used=len(self._sessions)),
                watcher=_WATCHER,
                sessions=tuple(self._sessions.values()),
                facts=Facts(advisory_lock_holders=frozenset(), waiters={}),
            )

    def _work(self) -> None:
        hour = (self._at // SECOND % _DAY) / _DAY
        daylight = 0.35 + 0.65 * max(math.sin(math.pi * (hour * 24 - 5) / 16), 0)
        for who in self._dice.sample(self._pool, round(len(self._pool) * self._shape.busy * daylight)):
            self._use(who)

    def _use(self, who: SessionId) -> None:
        ago = self._dice.randrange(EVERY * SECOND)
        moment = Instant(self._at - ago)
        state = ACTIVE if self._dice.random() < 0.1 else IDLE
        one = self._sessions[who]
        self._sessions[who] = replace(
            one, state=state, state_change=moment, query_start=Instant(moment - self._dice.randrange(9_000))
        )

    def _come_and_go(self) -> None:
        dice, shape = self._dice, self._shape
        for who in [who for who, end in self._ends.items() if end <= self._at]:
            del self._ends[who], self._sessions[who]
        if dice.random() < shape.leaks_a_day * EVERY / _DAY:
            name = dice.choice(["checkout", "checkout", "report-job", "console"])
            who = self._open(name, f"app_{name[:5]}", IN_TRANSACTION if name == "console" else IDLE)
            self._ends[who] = Instant(self._at + round(dice.expovariate(1 / 14_400)) * SECOND)
        for who in list(self._ends):
            if dice.random() < EVERY / 90_000:
                self._use(who)
        if self._at // SECOND % 900 < EVERY:
            for number in range(8):
                who = self._open(f"cron-{number}", "batch")
                self._ends[who] = Instant(self._at + dice.randrange(30, 300) * SECOND)

    def _open(self, application: str, role: str, state: str = IDLE) -> SessionId:
        self._pids += 1
        who = SessionId(self._pids, Instant(self._at - 5_000))
        client = f"10.2.{self._pids % 3}.{self._pids % 200 + 1}"
        self._sessions[who] = Session(
            id=who,
            identity=Identity("shop", role, application, client),
            role_oid=16_400,
            client_port=40_000 + self._pids % 20_000,
            state=state,
            state_change=self._at,
            query_start=Instant(self._at - 2_000),
            xact_start=Instant(self._at - 2_000) if state == IN_TRANSACTION else None,
            wait_event="ClientRead",
        )
        return who
