"""What was seen over several looks, counted: by application and role, by role, and in all."""

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final, NamedTuple

from reaper.policy.advice.ages import Ages
from reaper.policy.advice.ground import Ground
from reaper.policy.advice.tools import is_console, is_monitoring
from reaper.policy.poolers import pooler
from reaper.policy.protections import is_backup_tool, is_managed
from reaper.policy.session import ABORTED, IDLE, IN_TRANSACTION, Session, Snapshot
from reaper.policy.spans import Instant, Span, since

IN_A_TRANSACTION: Final = frozenset({IN_TRANSACTION, ABORTED})
DEFAULT_QUIET: Final = Span(600_000_000)
_LATELY: Final = 6
"""Times what is quiet: an hour, as it is by default."""
_PATIENCE_SHARE: Final = 10
"""In a transaction a tenth of what is quiet outside of one is already long: it holds locks."""
_STARTING_SHARE: Final = 60
"""A pool that fills itself opens several at once while the first are idle already."""


def lately(quiet: Span) -> Span:
    """The stretch before now that comings and goings are told of, where such a time is quiet."""
    return max(Span(quiet * _LATELY), DEFAULT_QUIET)


class Key(NamedTuple):
    """Whose sessions are counted together."""

    role: str
    application: str


@dataclass(frozen=True, kw_only=True)
class Crowd:
    """The sessions of one application under one role."""

    key: Key
    at: Instant
    quiet_after: Span
    sessions: tuple[Session, ...]
    """Those of the last look."""
    peak: int
    opened: int = 0
    """Lately; one that was gone again before the next look was not seen."""
    closed: int = 0
    used: int = 0
    """Of those of the last look, how many did something lately."""
    working: int = 0
    """The most that were at work, or in a transaction, at one look."""
    revived: Ages
    """How long those were idle that were used again."""
    pauses: Ages
    """How long those waited inside a transaction that went on with it."""
    transactions: Ages
    """How long transactions were that have ended."""

    @property
    def count(self) -> int:
        """How many the last look saw."""
        return len(self.sessions)

    @cached_property
    def quiet(self) -> tuple[Session, ...]:
        """Those that have been idle, outside of a transaction, for longer than what is quiet."""
        return tuple(s for s in self.sessions if s.state == IDLE and self._lasts(s, self.quiet_after))

    @cached_property
    def forgotten(self) -> tuple[Session, ...]:
        """Those that do nothing inside a transaction, and have done so for long."""
        return tuple(
            s for s in self.sessions if s.state in IN_A_TRANSACTION and self._lasts(s, self.patience)
        )

    @property
    def patience(self) -> Span:
        """How long nobody minds that a transaction waits for its client."""
        return Span(self.quiet_after // _PATIENCE_SHARE)

    @cached_property
    def in_vain(self) -> int:
        """How many were opened although two others of the same client lay idle, and do so to this day.

        A pool takes the idle ones first; only who has forgotten them opens another.
        """
        starting = self.quiet_after // _STARTING_SHARE
        idle_since = defaultdict[str | None, list[Instant]](list)
        for session in self.quiet:
            if session.state_change is not None:
                idle_since[session.identity.client].append(session.state_change)
        for moments in idle_since.values():
            moments.sort()
        return sum(
            bisect_right(idle_since.get(s.identity.client, ()), s.id.backend_start - starting) > 1
            for s in self.sessions
        )

    @cached_property
    def instances(self) -> Mapping[str | None, int]:
        """How many sessions each client address has, the largest first."""
        return dict(Counter(session.identity.client for session in self.sessions).most_common())

    @property
    def databases(self) -> frozenset[str | None]:
        """The databases that they are in."""
        return frozenset(session.identity.database for session in self.sessions)

    @cached_property
    def is_ordinary(self) -> bool:
        """Whether it is an application: no pooler, backup, console, monitoring or managed service."""
        name = self.key.application
        tool = pooler(name) or is_backup_tool(name) or is_console(name) or is_monitoring(name)
        return not (tool or is_managed(self.key.role))

    @cached_property
    def is_pooler(self) -> bool:
        """Whether it calls itself a pooler."""
        return pooler(self.key.application) is not None

    @property
    def superuser(self) -> bool:
        """Whether the role is one."""
        return any(session.superuser for session in self.sessions)

    def _lasts(self, session: Session, limit: Span) -> bool:
        age = since(session.state_change, self.at)
        return age is not None and age >= limit


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """All that advice is drawn from."""

    began: Instant
    last: Snapshot
    looks: int
    quiet: Span
    crowds: tuple[Crowd, ...]
    """The largest first."""
    uncounted: int = 0
    """Sessions of applications beyond the number that is told apart."""
    peak: int
    """The most slots that were used at once."""
    peak_at: Instant
    role_peaks: Mapping[str, int]
    opened: int = 0
    brief: int = 0
    """Sessions that came and went while we looked."""
    working: int = 0
    """The most sessions that were at work, or in a transaction, at one look."""
    before: Ground | None = None
    ground: Ground | None = None

    @property
    def span(self) -> Span:
        """For how long it was looked at."""
        return Span(self.last.at - self.began)

    @property
    def is_long(self) -> bool:
        """Whether it is long enough to say something of how much is needed at a time."""
        return self.span >= lately(self.quiet)

    @property
    def lately(self) -> Span:
        """The stretch that comings and goings are told of."""
        return Span(min(self.span, lately(self.quiet)))

    @property
    def usable(self) -> int:
        """Slots that ordinary roles can use."""
        return self.last.slots.usable

    @property
    def pressure(self) -> float:
        """The largest share of those that was used."""
        return self.peak / self.usable

    @property
    def major(self) -> int | None:
        """The server's major version, where it was asked."""
        return self.ground.major if self.ground else None
