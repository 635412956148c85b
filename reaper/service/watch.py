"""What becomes of the sessions of one server that a rehearsal took: watched with every cycle, and recorded.

Who stays as it was is seen by the cycle's own look; only whom that left out is asked for. As long as nobody
is watched, nothing is done.
"""

from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Protocol

from reaper.policy.fates import (
    Fate,
    Fated,
    Key,
    Look,
    Standing,
    Watched,
    fates,
    shown,
    tells_by_now,
    unknown,
    unused,
)
from reaper.policy.regret import Trial
from reaper.policy.session import SessionId
from reaper.policy.spans import SECOND, Instant, Span
from reaper.policy.verdict import Result
from reaper.postgres.onlooker import Seen
from reaper.record.ledger import Author, Ledger
from reaper.record.writer import RecordFailed
from reaper.service.cycle import Cycle
from reaper.service.trials import Acts, Trials

MOST_WATCHED: Final = 500
"""At one server; each costs less than what is known of a session anyway."""

_LONGEST: Final = Span(7 * 86_400 * SECOND)
_BLIND_AFTER: Final = Span(60 * SECOND)
_BLIND_INTERVALS: Final = 3
_ENDED_BY_US: Final = {Result.TERMINATED, Result.SIGNALLED, Result.CANCELLED, Result.UNKNOWN}


class Looking(Protocol):
    """Looks at single sessions."""

    async def look(self, ids: Collection[SessionId]) -> Seen | None:
        """How these stand."""


@dataclass(slots=True)
class _Case:
    """One that is watched, and up to when it was told that it is unused."""

    watched: Watched
    told: Span = Span(0)  # noqa: RUF009 (a number)


class Watch:
    """The open cases of one server; of longer life than a connection."""

    def __init__(self, server: str, ledger: Ledger, trials: Trials, *, most: int = MOST_WATCHED) -> None:
        self._server = server
        self._ledger = ledger
        self._trials = trials
        self._most = most
        self._open: dict[Key, _Case] = {}
        self._author: Author | None = None
        self._looked = Instant(0)
        self._interrupted = False

    def __len__(self) -> int:
        """How many are watched."""
        return len(self._open)

    def interrupted(self) -> None:
        """The connection was lost: who is gone at the next look may have gone with the server."""
        self._interrupted = True

    async def cycled(self, cycle: Cycle, onlooker: Looking, author: Author, *, interval: Span) -> list[Fated]:
        """See what became of them by this cycle, and begin to watch those that it took; raises Lost.

        That one is still unused is recorded again from time to time, and is news only once.
        """
        self._author = author
        became: list[Fated] = []
        old = self._told_before
        if self._open:
            became += self._set_aside(cycle, author)
            became += await self._looked_at(cycle, onlooker, interval)
            became += self._grown_old(cycle.snapshot.at)
        else:
            self._looked = cycle.snapshot.at
        became += self._begin(cycle, author)
        self._note(became)
        return _news(became, old)

    def end(self) -> list[Fated]:
        """Nobody will look any more: who was not used until the last look was not used until then."""
        became = [unused(case.watched, self._looked) for case in self._open.values()]
        old = self._told_before
        self._open.clear()
        self._note(became)
        return _news(became, old)

    def acts(self) -> Acts:
        """Those that are watched, as they stood at the last look."""
        return {
            (self._server, key): Trial.of(unused(case.watched, self._looked), self._server)
            for key, case in self._open.items()
        }

    @property
    def _told_before(self) -> set[Key]:
        return {key for key, case in self._open.items() if case.told}

    def _set_aside(self, cycle: Cycle, author: Author) -> list[Fated]:
        """Those of whom nothing can be learnt any more: what new rules take is rehearsed anew."""
        now = cycle.snapshot.at
        earlier = [case for case in self._open.values() if case.watched.rules != author.rules]
        ended = self._closed(unused(case.watched, self._looked) for case in earlier)
        if cycle.clock_step is not None:
            why = "the server's clock was set"
            return ended + self._closed(unknown(case.watched, now, why) for case in self._open.values())
        ours = {reap.session.id for reap, outcome in cycle.settled if outcome.result in _ENDED_BY_US}
        why = "a policy that enforces has acted on it"
        acted_on = [case.watched for case in self._open.values() if case.watched.id in ours]
        return ended + self._closed(unknown(one, now, why) for one in acted_on)

    async def _looked_at(self, cycle: Cycle, onlooker: Looking, interval: Span) -> list[Fated]:
        snapshot = cycle.snapshot
        watched = [case.watched for case in self._open.values()]
        seen = shown(watched, snapshot)
        became = self._fates(watched, seen, snapshot.at, interval)
        left_out = {one.id for one in watched} - seen.keys()
        asked = await onlooker.look(left_out) if left_out else None
        if asked:
            became += self._fates(watched, asked.sessions, asked.at, interval)
        if asked or not left_out:
            self._looked, self._interrupted = snapshot.at, False
        return self._closed(became)

    def _fates(
        self,
        watched: Iterable[Watched],
        seen: dict[SessionId, Standing | None],
        at: Instant,
        interval: Span,
    ) -> list[Fated]:
        blind_after = Span(-1) if self._interrupted else Span(max(_BLIND_INTERVALS * interval, _BLIND_AFTER))
        return fates(watched, seen, Look(at=at, before=self._looked, blind_after=blind_after))

    def _grown_old(self, now: Instant) -> list[Fated]:
        """Those of whom it is time to tell that they are unused; after a week they are watched no longer."""
        due = [case for case in self._open.values() if tells_by_now(case.watched, now, case.told)]
        became = [unused(case.watched, now) for case in due]
        for case, one in zip(due, became, strict=True):
            case.told = one.after
            if one.after >= _LONGEST:
                del self._open[case.watched.key]
        return became

    def _begin(self, cycle: Cycle, author: Author) -> list[Fated]:
        unwatched = []
        for intent, reap in cycle.rehearsed:
            one = Watched(
                intent=intent, reap=reap, at=cycle.snapshot.at, cycle=cycle.name, rules=author.rules
            )
            if one.key in self._open:
                continue  # rehearsed again after a lost connection: still the same act
            if len(self._open) < self._most:
                self._open[one.key] = _Case(one)
            else:
                why = f"not watched: {self._most} are watched already"
                unwatched.append(unknown(one, one.at, why))
        return unwatched

    def _closed(self, became: Iterable[Fated]) -> list[Fated]:
        became = list(became)
        for one in became:
            self._open.pop(one.watched.key, None)
        return became

    def _note(self, became: list[Fated]) -> None:
        for one in became:
            self._trials.note(self._server, one)
        if self._author and became:
            # The cycle that wants to act finds out as well, and tells.
            with suppress(RecordFailed):
                self._ledger.fated(self._author, became)


def _news(became: Iterable[Fated], old: set[Key]) -> list[Fated]:
    return [one for one in became if one.fate is not Fate.UNUSED or one.watched.key not in old]
