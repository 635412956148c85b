"""The prefilter: which sessions a snapshot may leave out, because no policy can match them yet, or at all."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Self

from reaper.policy.match import Match
from reaper.policy.session import ABORTED, IN_TRANSACTION, Session, Snapshot
from reaper.policy.time import Duration, Timestamp

_IN_TRANSACTION: Final = frozenset({IN_TRANSACTION, ABORTED})
_MAX_ROLES: Final = 32
"""The statement compares each session with each of these roles."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prefilter:
    """The shortest limit of all policies for each kind of age; None if no policy uses that age.

    No policy can match a session that has reached none of them, whatever its state: a session is in its state
    no longer than since its last query began, and idle in a transaction no longer than since that began.
    """

    quiet: Duration | None = None
    """Since the last query began; since the connection for a session that has run none."""
    aborted: Duration | None = None
    """The same for an aborted transaction: the server no longer shows when that began."""
    transaction: Duration | None = None
    """Since the transaction began."""
    connected: Duration | None = None

    @classmethod
    def of(cls, matches: Iterable[Match]) -> Self:
        """The prefilter of all these criteria together."""
        quiet, aborted, transaction, connected = (list[Duration]() for _ in range(4))
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

    def sooner(self, by: Duration) -> "Prefilter":
        """The prefilter that also returns the sessions that become due within this time."""

        def less(limit: Duration | None) -> Duration | None:
            return None if limit is None else Duration(max(limit - by, 0))

        return Prefilter(
            quiet=less(self.quiet),
            aborted=less(self.aborted),
            transaction=less(self.transaction),
            connected=less(self.connected),
        )

    def reached(self, session: Session, now: Timestamp) -> bool:
        """Return True if a snapshot with this prefilter contains the session."""
        began = session.id.backend_start
        quiet_since = began if session.query_start is None else session.query_start
        return (
            _reached(quiet_since, self.quiet, now)
            or (session.state == ABORTED and _reached(quiet_since, self.aborted, now))
            or _reached(session.xact_start, self.transaction, now)
            or _reached(began, self.connected, now)
        )


def _reached(since: Timestamp | None, limit: Duration | None, now: Timestamp) -> bool:
    return since is not None and limit is not None and now - since >= limit


def _longest(*limits: Duration | None) -> Duration:
    return max((limit for limit in limits if limit is not None and limit > 0), default=Duration(0))


def unmatched_roles(snapshot: Snapshot, matches: Iterable[Match]) -> tuple[int, ...]:
    """The OIDs of roles that no policy matches by name, those with the most sessions first.

    A role whose name is not known is never among them.
    """
    globs = [match.selector.role for match in matches]
    if not all(globs):
        return ()  # a policy without `role` matches every role
    names = {session.role_oid: session.identity.role for session in snapshot.sessions}
    unmatched = {
        oid
        for oid, name in names.items()
        if name is not None and not any(glob.matches(name) for each in globs for glob in each)
    }
    sessions = Counter(session.role_oid for session in snapshot.sessions if session.role_oid in unmatched)
    return tuple(sorted(oid for oid, _ in sessions.most_common(_MAX_ROLES) if oid is not None))
