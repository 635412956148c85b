"""From looks to evidence, one look at a time: what the next is compared with is all that is kept."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import Final

from reaper.policy.advice.evidence import DEFAULT_QUIET, IN_A_TRANSACTION, Crowd, Evidence, Key, lately
from reaper.policy.advice.ground import Ground
from reaper.policy.advice.tallies import Tally
from reaper.policy.protections import REAPER_APPLICATION
from reaper.policy.seen import Reading, Seen
from reaper.policy.session import ACTIVE, CLIENT_BACKEND, IDLE, Session, SessionId, Snapshot
from reaper.policy.spans import Instant, Span

MOST_CROWDS: Final = 4_096
"""So many are told apart: a client may call itself by another name each time."""

_WORKING: Final = IN_A_TRANSACTION | {ACTIVE}

_Row = Session | Seen


class Watching:
    """Takes looks, the oldest first, each at everybody."""

    def __init__(self, *, quiet: Span = DEFAULT_QUIET) -> None:
        self._quiet = quiet
        self._lately = lately(quiet)
        self._began: Instant | None = None
        self._latest: Snapshot | Reading | None = None
        self._at: Instant | None = None
        """When that was; a history's reader goes on with the same reading."""
        self._looks = 0
        self._known: dict[SessionId, _Row] = {}
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

    def follow(self, reading: Reading) -> None:
        """One more reading of a history, by what is new in it."""
        self._step(reading, (now for _, now in reading.changed), [seen.id for seen in reading.left])

    def evidence(self, *, before: Ground | None = None, ground: Ground | None = None) -> Evidence:
        """What it comes to."""
        if self._began is None or self._latest is None or self._at is None:
            message = "nobody has looked yet"
            raise ValueError(message)
        crowds = sorted(self._crowds(self._at), key=lambda each: (-each.count, each.key))
        return Evidence(
            began=self._began,
            last=self._latest.snapshot() if isinstance(self._latest, Reading) else self._latest,
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

    def _step(self, look: Snapshot | Reading, now: Iterable[_Row], gone: Iterable[SessionId]) -> None:
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

    def _take(self, past: _Row | None, session: _Row) -> set[Key]:
        """Count a session as it is now, and no longer as it was; whose numbers have changed."""
        self._known[session.id] = session
        self._count(session, 1)
        if past is None:
            return {_key(session)}
        self._count(past, -1)
        return {_key(past), _key(session)}

    def _let_go(self, past: _Row, at: Instant) -> set[Key]:
        """A session is no longer there."""
        self._count(past, -1)
        self._tally(past).closed.add(at)
        self._used.pop(past.id, None)
        self._brief += past.id in self._fresh
        self._fresh.discard(past.id)
        return {_key(past)}

    def _count(self, session: _Row, by: int) -> None:
        works = by * (session.state in _WORKING)
        tally = self._tally(session)
        tally.count += by
        tally.working += works
        self._working += works
        self._roles[_key(session).role] += by

    def _note(self, past: _Row | None, session: _Row, now: Instant) -> None:
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

    def _tally(self, session: _Row) -> Tally:
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
                members[key].append(row.session() if isinstance(row, Seen) else row)
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


def _is_client(session: _Row, look: Snapshot | Reading) -> bool:
    """Whether it is neither a walsender nor a reaper."""
    who = session.identity
    ours = who.application == REAPER_APPLICATION and who.role == look.watcher.role
    return session.kind == CLIENT_BACKEND and not ours and session.id.pid != look.watcher.pid


def _key(session: _Row) -> Key:
    return Key(session.identity.role or "", session.identity.application or "")


def _note_change(tally: Tally, past: _Row, session: _Row, before: Instant, now: Instant) -> None:
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
