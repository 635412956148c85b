"""From the lines of one history file back to looks, whatever stands in them.

A day of a busy server has millions of rows: what is done for each of them is done once, in as few steps as
there can be, and a wrong type shows as the exception that it causes.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Final, NamedTuple, NoReturn

from reaper.history.format import (
    FARTHEST,
    FORMAT,
    LISTENS,
    LONGEST_EVERY,
    LONGEST_TEXT,
    MOST_BACKENDS,
    MOST_NAMES,
    MOST_TEXT,
    NO_PORT,
    NO_QUERY_START,
    NO_ROLE_OID,
    NO_STATE_CHANGE,
    NO_XACT_START,
    NO_XID_AGE,
    STARTS_BACKUP,
    SUPERUSER,
    BadHistory,
)
from reaper.policy.seen import Change, Mark, Reading, Seen, Sighting
from reaper.policy.session import Facts, Identity, SessionId, Slots, Watcher
from reaper.policy.time import Instant

_WRONG: Final = (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RecursionError)
_MOST_NUMBER: Final = 2**31
_TAIL: Final = 7


class Head(NamedTuple):
    """What the first line of a file says of all others."""

    server: str
    at: Instant
    every: int
    anonymous: bool


class Decoder:
    """Reads one file, line by line."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._line = 0
        self.head: Head | None = None
        self._names: list[str | None] = [None]
        self._text = 0
        self._who: list[Identity] = []
        self._numbered: dict[int, Seen] = {}
        self._count = 0
        self._sessions: dict[SessionId, Seen] = {}
        self._said: dict[str, Any] = {}
        self._facts = Facts()
        self._sightings: list[Sighting] = []
        self._sighted = 0

    def read(self, line: bytes) -> Reading | None:
        """The reading that a line holds; a head and a sighting are none. Raises BadHistory."""
        self._line += 1
        try:
            fields = json.loads(line.decode("ascii"), parse_float=_no_float, parse_constant=_no_float)
            if not isinstance(fields, dict):
                self._refuse("it is no object")
            if self.head is None:
                self.head = self._head(fields)
                return None
            self._learn(fields)
            if "seen" in fields:
                self._sight(fields)
                return None
            return self._reading(fields, self.head)
        except json.JSONDecodeError as error:
            self._refuse(f"not JSON: {error.msg} at column {error.colno}")
        except _WRONG as error:
            self._refuse(f"no line of a history: {type(error).__name__}: {error!s:.80}")

    def _refuse(self, what: str) -> NoReturn:
        told = f"{what}; give what `reaper record-history` wrote"
        raise BadHistory(file=self._file, line=self._line, what=told) from None

    def _head(self, fields: Mapping[str, Any]) -> Head:
        if fields.get("history") != FORMAT:
            self._refuse("it is no history that this version reads")
        server = fields["server"]
        if not isinstance(server, str) or len(server) > LONGEST_TEXT:
            self._refuse("its server has no name")
        at, every = _whole(fields["at"]), _whole(fields["every"])
        return Head(server, Instant(at), min(max(every, 0), LONGEST_EVERY), fields.get("anonymous") is True)

    def _learn(self, fields: Mapping[str, Any]) -> None:
        """Names and identities that stand here for the first time."""
        names = fields.get("names", ())
        self._text += sum(map(len, names))
        if not all(isinstance(name, str) and len(name) <= LONGEST_TEXT for name in names):
            self._refuse("a name is no text, or a very long one")
        self._names += names
        if len(self._names) > MOST_NAMES or self._text > MOST_TEXT:
            self._refuse("it knows more names than any server has")
        for who in fields.get("who", ()):
            database, role, application, client = who
            self._who.append(
                Identity(*[self._names[number] for number in (database, role, application, client)])
            )
        if len(self._who) > MOST_NAMES:
            self._refuse("it knows more clients than any server has")

    def _sight(self, fields: Mapping[str, Any]) -> None:
        at = Instant(_whole(fields["seen"]))
        rows = [self._row(row, at) for row in fields["rows"]]
        self._sighted += len(rows) + 1
        if self._sighted > MOST_BACKENDS:
            self._refuse("it holds more sightings than any server has sessions")
        self._sightings.append(Sighting(at, rows, _waiters(fields.get("waiters", ()))))

    def _reading(self, fields: Mapping[str, Any], head: Head) -> Reading:
        at = Instant(_whole(fields["at"]))
        left = [self._leave(number) for number in fields.get("left", ())]
        came = [self._come(row, at) for row in fields.get("came", ())]
        moved = self._move(fields.get("moved", ()), at)
        moved += self._age(fields.get("xids", ()))
        if len(self._sessions) > MOST_BACKENDS:
            self._refuse("it has more sessions than any server has")
        self._said.update((key, fields[key]) for key in _ABOUT if key in fields)
        said = self._said
        if "locks" in fields or "waiters" in fields:
            self._facts = _facts(said.get("locks"), said.get("waiters"))
        total, reserved = said["slots"]
        pid, role, superuser = said["watcher"]
        counted_from = said.get("counted_from")
        sightings, self._sightings, self._sighted = self._sightings, [], 0
        return Reading(
            server=head.server,
            at=at,
            slots=Slots(total=_count(total), reserved=_count(reserved), used=_count(said["used"])),
            watcher=Watcher(pid=_count(pid), role=_text(role), superuser=superuser is True),
            unreadable=_count(said["unreadable"]),
            facts=self._facts,
            sessions=self._sessions,
            changed=came + moved,
            left=[seen for seen in left if seen.id not in self._sessions],
            every=head.every,
            counted_from=None if counted_from is None else Instant(_whole(counted_from)),
            sightings=sightings,
            looks=self._looks(fields.get("looks", ()), at),
        )

    def _looks(self, pairs: Sequence[Any], at: Instant) -> list[Mark]:
        """Each as how long before the reading it was; in their order, or none of them."""
        looks = [
            Mark(Instant(at - _whole(ago)), _count(used))
            for ago, used in zip(pairs[::2], pairs[1::2], strict=True)
        ]
        if any(one.at > other.at for one, other in pairwise(looks)):
            self._refuse("its looks are not in their order")
        return looks

    def _leave(self, number: int) -> Seen:
        seen = self._numbered.pop(number)
        del self._sessions[seen.id]
        return seen

    def _come(self, row: Sequence[Any], at: Instant) -> Change:
        seen = self._row(row, at)
        if seen.id in self._sessions:
            self._refuse(f"pid {seen.id.pid} with this backend_start comes twice")
        self._sessions[seen.id] = self._numbered[self._count] = seen
        self._count += 1
        return Change(None, seen)

    def _row(self, row: Sequence[Any], at: Instant) -> Seen:
        pid, age, who, kind, oid, port, flags, *tail = map(_whole, row)
        names = self._names
        state, state_age, query_age, xact_age, wait, xid, more = tail
        return Seen(
            id=SessionId(_count(pid), Instant(at - age)),
            identity=self._who[_index(who)],
            kind=_text(names[kind]),
            role_oid=None if flags & NO_ROLE_OID else oid,
            superuser=bool(flags & SUPERUSER),
            client_port=None if flags & NO_PORT else port,
            state=names[_index(state)],
            state_change=None if more & NO_STATE_CHANGE else Instant(at - state_age),
            query_start=None if more & NO_QUERY_START else Instant(at - query_age),
            xact_start=None if more & NO_XACT_START else Instant(at - xact_age),
            wait_event=names[_index(wait)],
            xid_age=None if more & NO_XID_AGE else xid,
            last_query_listens=bool(more & LISTENS),
            last_query_starts_backup=bool(more & STARTS_BACKUP),
        )

    def _move(self, rows: Iterable[Sequence[Any]], at: Instant) -> list[Change]:
        """The rows of whom only state, moments or name are new: nearly all rows of a file."""
        names, numbered, sessions, found = self._names, self._numbered, self._sessions, []
        make, change = Seen._make, Change
        for row in rows:
            number, state, state_age, query_age, xact_age, wait, xid, flags = row[:8]
            if abs(state_age) + abs(query_age) + abs(xact_age) + abs(xid) > FARTHEST:
                self._refuse("an age is beyond all time")
            was = numbered[number]
            same = was[:6]
            if len(row) > _TAIL + 1:
                same = was._replace(identity=self._who[_index(row[8])])[:6]
            seen = make(
                (
                    *same,
                    names[state],
                    None if flags & NO_STATE_CHANGE else at - state_age,
                    None if flags & NO_QUERY_START else at - query_age,
                    None if flags & NO_XACT_START else at - xact_age,
                    names[wait],
                    None if flags & NO_XID_AGE else +xid,
                    flags & LISTENS != 0,
                    flags & STARTS_BACKUP != 0,
                )
            )
            sessions[was.id] = numbered[number] = seen
            found.append(change(was, seen))
        return found

    def _age(self, pairs: Sequence[Any]) -> list[Change]:
        """Who only keeps more from vacuum than before."""
        found = []
        for number, xid in zip(pairs[::2], pairs[1::2], strict=True):
            was = self._numbered[number]
            seen = was._replace(xid_age=_whole(xid))
            self._sessions[seen.id] = self._numbered[number] = seen
            found.append(Change(was, seen))
        return found


_ABOUT: Final = ("slots", "used", "unreadable", "watcher", "counted_from", "locks", "waiters")


def _no_float(text: str) -> NoReturn:
    message = f"{text:.20} is no whole number"
    raise ValueError(message)


def _whole(value: object) -> int:
    if type(value) is not int or not -FARTHEST < value < FARTHEST:
        message = f"{value!r:.40} is no number that could be true"
        raise ValueError(message)
    return value


def _count(value: object) -> int:
    number = _whole(value)
    if not 0 <= number < _MOST_NUMBER:
        message = f"{number} is no count"
        raise ValueError(message)
    return number


def _index(value: int) -> int:
    if value < 0:
        message = f"{value} is no place in a list"
        raise IndexError(message)
    return value


def _text(value: object) -> str:
    if not isinstance(value, str) or len(value) > LONGEST_TEXT:
        message = f"{value!r:.40} is no name"
        raise ValueError(message)
    return value


def _facts(locks: Sequence[Any] | None, waiters: Sequence[Any] | None) -> Facts:
    return Facts(
        advisory_lock_holders=None if locks is None else frozenset(map(_count, locks)),
        waiters=None if waiters is None else _waiters(waiters),
    )


def _waiters(pairs: Sequence[Any]) -> Mapping[int, int]:
    return {_count(pid): _count(count) for pid, count in zip(pairs[::2], pairs[1::2], strict=True)}
