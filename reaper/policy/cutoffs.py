"""How long it must have lasted before any policy can mean a session: what a look may leave out."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from reaper.policy.match import Match
from reaper.policy.session import ABORTED, IN_TRANSACTION, Session
from reaper.policy.time import Instant, Span

_IN_TRANSACTION = frozenset({IN_TRANSACTION, ABORTED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Cutoffs:
    """The shortest limit of all policies for each kind of age; None if no policy uses that age.

    No policy can match a session that has reached none of them, whatever its state: a session is in its state
    no longer than since its last query began, and idle in a transaction no longer than since that began.
    """

    quiet: Span | None = None
    """Since the last query began; for a session that has run none, since it connected."""
    aborted: Span | None = None
    """The same, if its transaction is aborted: the server says no longer when that began."""
    transaction: Span | None = None
    """Since the transaction began."""
    connected: Span | None = None

    @classmethod
    def of(cls, matches: Iterable[Match]) -> Self:
        """The cutoffs of all these criteria together."""
        quiet, aborted, transaction, connected = (list[Span]() for _ in range(4))
        for match in matches:
            if match.transaction_for is not None or _IN_TRANSACTION.issuperset(match.states):
                limit = _longest(match.transaction_for, match.idle_for)
                transaction.append(limit)
                if ABORTED in match.states and match.transaction_for is None:
                    aborted.append(limit)
            elif match.idle_for is not None or match.running_for is not None:
                quiet.append(_longest(match.idle_for, match.running_for))
            elif match.connected_for is not None:
                connected.append(_longest(match.connected_for))
        return cls(
            quiet=min(quiet, default=None),
            aborted=min(aborted, default=None),
            transaction=min(transaction, default=None),
            connected=min(connected, default=None),
        )

    def sooner(self, by: Span) -> "Cutoffs":
        """What must have lasted by now, for a session to fall due within this time."""

        def less(limit: Span | None) -> Span | None:
            return None if limit is None else Span(max(limit - by, 0))

        return Cutoffs(
            quiet=less(self.quiet),
            aborted=less(self.aborted),
            transaction=less(self.transaction),
            connected=less(self.connected),
        )

    def reached(self, session: Session, now: Instant) -> bool:
        """Return True if a snapshot with this prefilter contains the session."""
        began = session.id.backend_start
        quiet_since = began if session.query_start is None else session.query_start
        return (
            _lasted(quiet_since, self.quiet, now)
            or (session.state == ABORTED and _lasted(quiet_since, self.aborted, now))
            or _lasted(session.xact_start, self.transaction, now)
            or _lasted(began, self.connected, now)
        )


def _lasted(since: Instant | None, limit: Span | None, now: Instant) -> bool:
    return since is not None and limit is not None and now - since >= limit


def _longest(*limits: Span | None) -> Span:
    return max((limit for limit in limits if limit is not None and limit > 0), default=Span(0))
