"""From looks to evidence, one look at a time: what the next is compared with is all that is kept."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from reaper.policy.advice.ages import Ages
from reaper.policy.advice.evidence import DEFAULT_QUIET, IN_A_TRANSACTION, Crowd, Evidence, Key
from reaper.policy.advice.ground import Ground
from reaper.policy.protections import REAPER_APPLICATION
from reaper.policy.session import ACTIVE, CLIENT_BACKEND, IDLE, Session, SessionId, Snapshot
from reaper.policy.spans import Instant, Span

MOST_CROWDS: Final = 4_096
"""So many are told apart: a client may call itself by another name each time."""

_WORKING: Final = IN_A_TRANSACTION | {ACTIVE}


@dataclass(slots=True, kw_only=True)
class _Tally:
    """What is counted of one crowd while it is looked at."""

    first: int = 0
    peak: int = 0
    opened: int = 0
    closed: int = 0
    working: int = 0
    revived: Ages = field(default_factory=Ages)
    pauses: Ages = field(default_factory=Ages)
    transactions: Ages = field(default_factory=Ages)


class Watching:
    """Takes looks, the oldest first, each at everybody."""

    def __init__(self, *, quiet: Span = DEFAULT_QUIET) -> None:
        self._quiet = quiet
        self._began: Instant | None = None
        self._last: Snapshot | None = None
        self._looks = 0
        self._known: dict[SessionId, Session] = {}
        self._used: set[SessionId] = set()
        self._fresh: set[SessionId] = set()
        self._tallies: dict[Key, _Tally] = {}
        self._peak = 0
        self._role_peaks = Counter[str]()
        self._opened = 0
        self._brief = 0
        self._working = 0

    def add(self, look: Snapshot) -> None:
        """One more look; one from before the last, by a clock that was set, begins anew."""
        if self._last and look.at <= self._last.at:
            self._known, self._last, self._began = {}, None, None
        present = {session.id: session for session in _clients(look)}
        crowds = self._crowds(present.values())
        if self._last:
            self._compare(present, self._last.at, look.at)
        self._count(crowds, look)
        self._known = present
        self._used &= present.keys()
        self._fresh &= present.keys()
        self._used |= {session.id for session in present.values() if session.state == ACTIVE}
        self._began = look.at if self._began is None else self._began
        self._last = look
        self._looks += 1

    def evidence(self, *, before: Ground | None = None, ground: Ground | None = None) -> Evidence:
        """What it comes to."""
        if self._began is None or self._last is None:
            message = "nobody has looked yet"
            raise ValueError(message)
        crowds = self._crowds(self._known.values())
        return Evidence(
            began=self._began,
            last=self._last,
            looks=self._looks,
            quiet=self._quiet,
            crowds=tuple(sorted(self._told(crowds), key=lambda each: (-each.count, each.key))),
            uncounted=len(self._known) - sum(map(len, crowds.values())),
            peak=self._peak,
            role_peaks=dict(self._role_peaks),
            opened=self._opened,
            brief=self._brief,
            working=self._working,
            before=before,
            ground=ground,
        )

    def _crowds(self, sessions: Iterable[Session]) -> Mapping[Key, list[Session]]:
        crowds = defaultdict[Key, list[Session]](list)
        for session in sessions:
            key = _key(session)
            if key in self._tallies or len(self._tallies) < MOST_CROWDS:
                self._tallies.setdefault(key, _Tally())
                crowds[key].append(session)
        return crowds

    def _compare(self, present: Mapping[SessionId, Session], before: Instant, now: Instant) -> None:
        """What has happened to each session since the last look."""
        for id_, session in present.items():
            past = self._known.get(id_)
            tally = self._tallies.get(_key(session))
            if past is None:
                self._opened += 1
                self._fresh.add(id_)
                if tally:
                    tally.opened += 1
            elif past.state_change != session.state_change:
                self._used.add(id_)
                if tally:
                    _note_change(tally, past, session, before, now)
        for id_ in self._known.keys() - present.keys():
            self._brief += id_ in self._fresh
            if tally := self._tallies.get(_key(self._known[id_])):
                tally.closed += 1

    def _count(self, crowds: Mapping[Key, list[Session]], look: Snapshot) -> None:
        """How many there are, of each and in all."""
        roles = Counter[str]()
        at_work = 0
        for key, sessions in crowds.items():
            tally = self._tallies[key]
            working = sum(session.state in _WORKING for session in sessions)
            tally.working = max(tally.working, working)
            tally.peak = max(tally.peak, len(sessions))
            if self._last is None:
                tally.first = len(sessions)
            at_work += working
            roles[key.role] += len(sessions)
        for role, count in roles.items():
            self._role_peaks[role] = max(self._role_peaks[role], count)
        self._working = max(self._working, at_work)
        self._peak = max(self._peak, look.slots.used)

    def _told(self, crowds: Mapping[Key, list[Session]]) -> Iterator[Crowd]:
        for key, sessions in crowds.items():
            tally = self._tallies[key]
            assert self._last is not None  # noqa: S101 (asked for only when there was one)
            yield Crowd(
                key=key,
                at=self._last.at,
                quiet_after=self._quiet,
                sessions=tuple(sessions),
                first=tally.first,
                peak=tally.peak,
                opened=tally.opened,
                closed=tally.closed,
                used=sum(session.id in self._used for session in sessions),
                working=tally.working,
                revived=tally.revived,
                pauses=tally.pauses,
                transactions=tally.transactions,
            )


def _clients(look: Snapshot) -> Iterator[Session]:
    """Everybody but walsenders and reapers."""
    for session in look.sessions:
        who = session.identity
        ours = who.application == REAPER_APPLICATION and who.role == look.watcher.role
        if session.kind == CLIENT_BACKEND and not ours and session.id.pid != look.watcher.pid:
            yield session


def _key(session: Session) -> Key:
    return Key(session.identity.role or "", session.identity.application or "")


def _note_change(tally: _Tally, past: Session, session: Session, before: Instant, now: Instant) -> None:
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
