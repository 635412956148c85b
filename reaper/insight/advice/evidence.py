"""From looks to evidence, one look at a time: what the next is compared with is all that is kept."""

import math
from bisect import bisect_right
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Final, NamedTuple

from reaper.insight.advice.server_facts import ServerFacts
from reaper.insight.recorded import RecordedSnapshot
from reaper.policy.poolers import pooler
from reaper.policy.protections import REAPER_APPLICATION, is_backup_tool, is_managed
from reaper.policy.selector import Glob
from reaper.policy.session import (
    ABORTED,
    ACTIVE,
    CLIENT_BACKEND,
    IDLE,
    IN_TRANSACTION,
    Session,
    SessionId,
    Snapshot,
)
from reaper.policy.time import Instant, Span, since


def _globs(*texts: str) -> tuple[Glob, ...]:
    return tuple(map(Glob, texts))


_MONITORING: Final = _globs(
    *(
        "*postgres_exporter*",
        "*postgres-exporter*",
        "*pgwatch*",
        "[pP]rometheus*",
        "[dD]atadog*",
        "dd-agent*",
    ),
    *("[zZ]abbix*", "telegraf*", "[nN]etdata*", "pganalyze*", "[nN]ewrelic*", "check_postgres*", "check_pg*"),
    *("[pP][mM][mM]*", "pgmonitor*", "temboard*", "[gG]rafana*", "pg_activity*", "pgcluu*", "[nN]agios*"),
    *("collectd*", "[dD]ynatrace*", "otelcol*", "opentelemetry*", "pgexporter*", "[mM]unin*", "icinga*"),
)
_CONSOLES: Final = _globs(
    *("psql", "psql *", "pgcli*", "pgAdmin*", "DBeaver*", "DataGrip*", "IntelliJ*", "TablePlus*"),
    *("Navicat*", "Postico*", "HeidiSQL*", "Beekeeper*", "pspg*", "Azure Data Studio*", "SQL Workbench*"),
)
_DRIVERS: Final = _globs(
    "PostgreSQL JDBC Driver",
    "npgsql",
    "Npgsql",
    "psycopg*",
    "node-postgres",
    "asyncpg",
    "pq",
    "pgx",
)
"""Names that a driver gives when the application gives none."""
_MOST_NAMES: Final = 2_048


def _fits(globs: Iterable[Glob], name: str) -> bool:
    return any(glob.matches(name) for glob in globs)


@lru_cache(maxsize=_MOST_NAMES)
def is_monitoring(application: str) -> bool:
    """Whether an application calls itself like a tool that watches servers."""
    return _fits(_MONITORING, application)


@lru_cache(maxsize=_MOST_NAMES)
def is_console(application: str) -> bool:
    """Whether an application calls itself like a console that a person sits at."""
    return _fits(_CONSOLES, application)


@lru_cache(maxsize=_MOST_NAMES)
def is_nameless(application: str) -> bool:
    """Whether the name says nothing of the application."""
    return not application.strip() or _fits(_DRIVERS, application)


_STEP: Final = math.log(1.05)
"""A percentile is at most five in a hundred too long."""


class Ages:
    """Counts lengths of time by their magnitude."""

    def __init__(self) -> None:
        self.count = 0
        self.longest = Span(0)
        self._buckets: dict[int, int] = {}

    def add(self, span: Span) -> None:
        """One more."""
        span = Span(max(span, 0))
        self.count += 1
        self.longest = max(self.longest, span)
        bucket = math.ceil(math.log(span) / _STEP) if span else 0
        self._buckets[bucket] = self._buckets.get(bucket, 0) + 1

    def percentile(self, share: float) -> Span:
        """Such a share of them was no longer than this."""
        left = self.count * share
        for bucket in sorted(self._buckets):
            left -= self._buckets[bucket]
            if left <= 0:
                return Span(min(math.ceil(math.exp(bucket * _STEP)), self.longest))
        return self.longest

    def join(self, others: "Ages") -> None:
        """Count those too."""
        self.count += others.count
        self.longest = max(self.longest, others.longest)
        for bucket, count in others._buckets.items():  # noqa: SLF001 (it is one of us)
            self._buckets[bucket] = self._buckets.get(bucket, 0) + count


_BUCKETS: Final = 12


class Lately:
    """Counts what happens within a stretch of time that moves on; in little memory, so a little roughly."""

    def __init__(self, stretch: Span) -> None:
        self._width = max(stretch // _BUCKETS, 1)
        self._buckets: deque[tuple[int, int]] = deque(maxlen=_BUCKETS + 1)

    def add(self, at: Instant) -> None:
        """It has happened once more."""
        bucket, count = at // self._width, 1
        if self._buckets and self._buckets[-1][0] == bucket:
            count += self._buckets.pop()[1]
        self._buckets.append((bucket, count))

    def count(self, now: Instant) -> int:
        """How often it has happened in the stretch before this moment."""
        return sum(count for bucket, count in self._buckets if bucket >= now // self._width - _BUCKETS)


@dataclass(slots=True, kw_only=True)
class Tally:
    """The counts of one crowd."""

    opened: Lately
    closed: Lately
    count: int = 0
    """Sessions that are there."""
    working: int = 0
    """Of these, how many are at work or in a transaction."""
    most: int = 0
    most_working: int = 0
    revived: Ages = field(default_factory=Ages)
    pauses: Ages = field(default_factory=Ages)
    transactions: Ages = field(default_factory=Ages)

    @classmethod
    def over(cls, stretch: Span) -> "Tally":
        """One that remembers comings and goings for so long."""
        return cls(opened=Lately(stretch), closed=Lately(stretch))


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
    before: ServerFacts | None = None
    ground: ServerFacts | None = None

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


MOST_CROWDS: Final = 4_096
"""So many are told apart: a client may call itself by another name each time."""

_WORKING: Final = IN_A_TRANSACTION | {ACTIVE}


class Watching:
    """Takes looks, the oldest first, each at everybody."""

    def __init__(self, *, quiet: Span = DEFAULT_QUIET) -> None:
        self._quiet = quiet
        self._lately = lately(quiet)
        self._began: Instant | None = None
        self._latest: Snapshot | RecordedSnapshot | None = None
        self._at: Instant | None = None
        """When that was; a history's reader goes on with the same reading."""
        self._looks = 0
        self._known: dict[SessionId, Session] = {}
        self._used: dict[SessionId, Instant] = {}
        self._fresh: set[SessionId] = set()
        self._tallies: dict[Key, Tally] = {}
        self._others = Tally.over(self._lately)
        """Of whom there are too many to be told apart."""
        self._roles = Counter[str]()
        self._role_peaks = Counter[str]()
        self._working = 0
        self._most_working = 0
        self._peak = 0
        self._peak_at = Instant(0)
        self._opened = 0
        self._brief = 0

    def add(self, look: Snapshot) -> None:
        """One more look; one from before the last, by a clock that was set, is left out."""
        present = {session.id: session for session in look.sessions}
        self._step(look, present.values(), self._known.keys() - present.keys())

    def follow(self, reading: RecordedSnapshot) -> None:
        """One more reading of a history, by what is new in it."""
        self._step(reading, (now for _, now in reading.changed), [seen.id for seen in reading.left])

    def evidence(self, *, before: ServerFacts | None = None, ground: ServerFacts | None = None) -> Evidence:
        """What it comes to."""
        if self._began is None or self._latest is None or self._at is None:
            message = "nobody has looked yet"
            raise ValueError(message)
        crowds = sorted(self._crowds(self._at), key=lambda each: (-each.count, each.key))
        return Evidence(
            began=self._began,
            last=self._latest.snapshot() if isinstance(self._latest, RecordedSnapshot) else self._latest,
            looks=self._looks,
            quiet=self._quiet,
            crowds=tuple(crowds),
            uncounted=len(self._known) - sum(crowd.count for crowd in crowds),
            peak=self._peak,
            peak_at=self._peak_at,
            role_peaks=dict(self._role_peaks),
            opened=self._opened,
            brief=self._brief,
            working=self._most_working,
            before=before,
            ground=ground,
        )

    def _step(
        self, look: Snapshot | RecordedSnapshot, now: Iterable[Session], gone: Iterable[SessionId]
    ) -> None:
        if self._at is not None and look.at <= self._at:
            return
        touched = set[Key]()
        for session in now:
            past = self._known.get(session.id)
            if session != past and _is_client(session, look):
                touched |= self._take(past, session)
                self._note(past, session, look.at)
        for id_ in gone:
            if past := self._known.pop(id_, None):
                touched |= self._let_go(past, look.at)
        self._settle(touched)
        if look.slots.used > self._peak:
            self._peak, self._peak_at = look.slots.used, look.at
        self._began = look.at if self._began is None else self._began
        self._latest, self._at = look, look.at
        self._looks += 1

    def _take(self, past: Session | None, session: Session) -> set[Key]:
        """Count a session as it is now, and no longer as it was; whose numbers have changed."""
        self._known[session.id] = session
        self._count(session, 1)
        if past is None:
            return {_key(session)}
        self._count(past, -1)
        return {_key(past), _key(session)}

    def _let_go(self, past: Session, at: Instant) -> set[Key]:
        """A session is no longer there."""
        self._count(past, -1)
        self._tally(past).closed.add(at)
        self._used.pop(past.id, None)
        self._brief += past.id in self._fresh
        self._fresh.discard(past.id)
        return {_key(past)}

    def _count(self, session: Session, by: int) -> None:
        works = by * (session.state in _WORKING)
        tally = self._tally(session)
        tally.count += by
        tally.working += works
        self._working += works
        self._roles[_key(session).role] += by

    def _note(self, past: Session | None, session: Session, now: Instant) -> None:
        """What a session has done since the last look."""
        tally = self._tally(session)
        if past is None and self._at is not None:
            self._opened += 1
            self._fresh.add(session.id)
            tally.opened.add(now)
        if past is not None and past.state_change != session.state_change and self._at:
            self._used[session.id] = now
            _note_change(tally, past, session, self._at, now)
        if session.state == ACTIVE:
            self._used[session.id] = now

    def _settle(self, touched: Iterable[Key]) -> None:
        """A look is over: remember the most of everything."""
        for key in touched:
            tally = self._tallies.get(key, self._others)
            tally.most = max(tally.most, tally.count)
            tally.most_working = max(tally.most_working, tally.working)
            self._role_peaks[key.role] = max(self._role_peaks[key.role], self._roles[key.role])
        self._most_working = max(self._most_working, self._working)

    def _tally(self, session: Session) -> Tally:
        key = _key(session)
        if key not in self._tallies:
            if len(self._tallies) >= MOST_CROWDS:
                return self._others
            self._tallies[key] = Tally.over(self._lately)
        return self._tallies[key]

    def _crowds(self, now: Instant) -> Iterator[Crowd]:
        members = defaultdict[Key, list[Session]](list)
        for row in self._known.values():
            if (key := _key(row)) in self._tallies:
                members[key].append(row)
        recently = now - self._lately
        for key, sessions in members.items():
            tally = self._tallies[key]
            used = (s.state == ACTIVE or self._used.get(s.id, recently) > recently for s in sessions)
            yield Crowd(
                key=key,
                at=now,
                quiet_after=self._quiet,
                sessions=tuple(sessions),
                peak=tally.most,
                opened=tally.opened.count(now),
                closed=tally.closed.count(now),
                used=sum(used),
                working=tally.most_working,
                revived=tally.revived,
                pauses=tally.pauses,
                transactions=tally.transactions,
            )


def _is_client(session: Session, look: Snapshot | RecordedSnapshot) -> bool:
    """Whether it is neither a walsender nor a reaper."""
    who = session.identity
    ours = who.application == REAPER_APPLICATION and who.role == look.watcher.role
    return session.kind == CLIENT_BACKEND and not ours and session.id.pid != look.watcher.pid


def _key(session: Session) -> Key:
    return Key(session.identity.role or "", session.identity.application or "")


def _note_change(tally: Tally, past: Session, session: Session, before: Instant, now: Instant) -> None:
    """A session that went on: for how long it had waited, and how long its transaction was."""
    if past.state_change is None:
        return
    woke = now if session.query_start is None else min(max(session.query_start, before), now)
    waited = Span(woke - past.state_change)
    if past.state == IDLE:
        tally.revived.add(waited)
    elif past.state in IN_A_TRANSACTION:
        tally.pauses.add(waited)
    if past.xact_start is not None and past.xact_start != session.xact_start:
        tally.transactions.add(Span(before - past.xact_start))
