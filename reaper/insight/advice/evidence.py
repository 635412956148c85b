"""Evidence: what a series of snapshots shows of each application."""

import math
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Final, NamedTuple

from reaper.insight.advice.finding import about
from reaper.insight.advice.known_tools import is_tool
from reaper.insight.advice.server_facts import ServerFacts
from reaper.policy.protections import is_managed
from reaper.policy.session import ABORTED, IN_TRANSACTION, Session, Snapshot
from reaper.policy.time import Duration, Timestamp, since

DEFAULT_IDLE_LIMIT: Final = Duration(600_000_000)
WAITING_STATES: Final = (IN_TRANSACTION, ABORTED)
_SCARCE: Final = 0.8
_FULL: Final = 0.95
_FILLING_SHARE: Final = 60
"""A pool that fills itself opens several sessions while the first are already idle."""
_STEP: Final = math.log(1.05)


class Period(StrEnum):
    """A time that one of the server's timeouts can limit."""

    IDLE = "idle period"
    IN_TRANSACTION = "in-transaction idle period"
    TRANSACTION = "transaction"


class DurationHistogram:
    """A histogram of durations; its percentiles are at most 5 % too long."""

    def __init__(self) -> None:
        self.count = 0
        self.longest = Duration(0)
        self._buckets = Counter[int]()

    def add(self, span: Duration) -> None:
        """Count one duration."""
        span = Duration(max(span, 0))
        self.count += 1
        self.longest = max(self.longest, span)
        self._buckets[math.ceil(math.log(span) / _STEP) if span else 0] += 1

    def percentile(self, share: float) -> Duration:
        """Return a duration that this share of them did not exceed."""
        left = self.count * share
        for bucket in sorted(self._buckets):
            left -= self._buckets[bucket]
            if left <= 0:
                return Duration(min(math.ceil(math.exp(bucket * _STEP)), self.longest))
        return self.longest

    @classmethod
    def merged(cls, several: Iterable["DurationHistogram"]) -> "DurationHistogram":
        """Return one histogram of all of them."""
        merged = cls()
        for each in several:
            merged.count += each.count
            merged.longest = max(merged.longest, each.longest)
            merged._buckets.update(each._buckets)  # noqa: SLF001 (the same class)
        return merged


class ApplicationId(NamedTuple):
    """The sessions of one role and application name are counted together."""

    role: str
    name: str

    @property
    def title(self) -> str:
        """The application at the beginning of a sentence."""
        named = f"application {self.name!r}" if self.name else "the application without a name"
        return f"{named} (role {self.role!r})"

    @property
    def short(self) -> str:
        """The application in a list."""
        return f"{self.name!r} of {self.role!r}" if self.name else f"unnamed of {self.role!r}"


@dataclass(frozen=True, kw_only=True)
class ApplicationSessions:
    """The sessions of one application in the last snapshot, and its counters over all snapshots."""

    id: ApplicationId
    idle_limit: Duration
    sessions: tuple[Session, ...]
    long_idle: tuple[Session, ...]
    """Sessions that have been idle, outside a transaction, for the idle limit or longer."""
    forgotten: tuple[Session, ...]
    """Sessions that have been idle in a transaction for the transaction limit or longer."""
    superuser: bool
    databases: frozenset[str | None]
    opened: int
    """In the recent window, like `closed`; a session opened and closed between two snapshots is missed."""
    closed: int
    used: int
    """Sessions of the last snapshot that were used in the recent window."""
    most_working: int
    """The most sessions that were active or in a transaction in one snapshot."""
    ended: Mapping[Period, DurationHistogram]
    """Periods that ended because the session was used again, and transactions that ended."""

    @property
    def count(self) -> int:
        """The sessions of the last snapshot."""
        return len(self.sessions)

    @cached_property
    def needless(self) -> int:
        """Sessions opened although two others of the same client were idle, and have been idle ever since.

        A pool reuses its idle sessions first; only an application that lost them opens another one.
        """
        filling = self.idle_limit // _FILLING_SHARE
        idle_since = defaultdict[str | None, list[Timestamp]](list)
        for session in self.long_idle:
            if session.state_change is not None:
                idle_since[session.identity.client].append(session.state_change)
        for moments in idle_since.values():
            moments.sort()
        return sum(
            bisect_right(idle_since.get(s.identity.client, ()), s.id.backend_start - filling) > 1
            for s in self.sessions
        )

    @cached_property
    def clients(self) -> Mapping[str | None, int]:
        """The number of sessions of each client address, the largest first."""
        return dict(Counter(session.identity.client for session in self.sessions).most_common())


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """The numbers that all findings are based on."""

    span: Duration
    """The time from the first to the last snapshot."""
    last: Snapshot
    snapshots: int
    idle_limit: Duration
    window: Duration
    """The time before the last snapshot in which opened, closed and used sessions are counted."""
    transaction_limit: Duration
    """The time in a transaction from which on an idle session counts as forgotten."""
    applications: tuple[ApplicationSessions, ...]
    """The largest first."""
    untracked: int
    """Sessions of applications beyond the number that is counted separately."""
    peak: int
    """The most slots in use at once."""
    peak_at: Timestamp
    role_peaks: Mapping[str, int]
    opened: int
    short_lived: int
    """Sessions that were opened and closed between the first and the last snapshot."""
    most_working: int
    """The most sessions that were active or in a transaction in one snapshot."""
    facts_before: ServerFacts | None
    facts: ServerFacts | None

    @property
    def is_long(self) -> bool:
        """Return True if the time is long enough to judge how many sessions are needed at once."""
        return self.span >= self.window

    @property
    def observed(self) -> str:
        """The number of snapshots and their time, in words: `in 11 snapshots over 10s`."""
        several = f"in {self.snapshots:,} snapshots over {about(self.span)}"
        return several if self.snapshots > 1 else "in one snapshot"

    @property
    def recently(self) -> str:
        """The window in words."""
        return f"in the last {about(self.window)}" if self.is_long else self.observed

    @property
    def usable(self) -> int:
        """Slots that ordinary roles can use."""
        return self.last.slots.usable

    @property
    def peak_share(self) -> float:
        """The peak as a share of those."""
        return self.peak / self.usable

    @property
    def is_scarce(self) -> bool:
        """Return True if so few slots were free that a small peak would fill them."""
        return self.peak_share >= _SCARCE

    @property
    def is_full(self) -> bool:
        """Return True if nearly no slot is free now."""
        return self.last.slots.share_used >= _FULL

    @cached_property
    def ordinary(self) -> tuple[ApplicationSessions, ...]:
        """Applications: no poolers, backups, consoles, monitoring tools and managed services."""
        return tuple(
            each for each in self.applications if not (is_tool(each.id.name) or is_managed(each.id.role))
        )

    def of_role(self, role: str) -> Iterator[ApplicationSessions]:
        """The applications of a role."""
        return (each for each in self.applications if each.id.role == role)

    def age(self, then: Timestamp | None) -> Duration | None:
        """Return the time from a moment to the last snapshot; None if it is unknown."""
        return since(then, self.last.at)

    def longest(self, sessions: Iterable[Session]) -> Duration:
        """Return the longest time for which one of the sessions has been in its state."""
        return max((self.age(each.state_change) or Duration(0) for each in sessions), default=Duration(0))


def lasting(limit: Duration, sessions: Iterable[Session], now: Timestamp) -> list[Session]:
    """Return the sessions that have been in their state for this limit or longer."""
    return [each for each in sessions if each.state_change is not None and now - each.state_change >= limit]
