"""The guard: one statement that looks at one session again and signals it if all is as it was."""

from typing import Final

from reaper.policy.plan import Reap
from reaper.policy.protections import SYNC_REPLICATION
from reaper.policy.rules import Action
from reaper.policy.time import Instant
from reaper.postgres.encoding import flag, instant, int4, interval, oid, text
from reaper.postgres.flight import Ask, Prepared
from reaper.postgres.sql import statement

_GUARD: Final = statement("guard")
SIGNALS: Final = {
    Action.TERMINATE: Prepared.of(_GUARD.replace("{signal}", "pg_terminate_backend")),
    Action.CANCEL: Prepared.of(_GUARD.replace("{signal}", "pg_cancel_backend")),
}


def guarded(reap: Reap, *, not_after: Instant) -> Ask:
    """The guard, with everything that the decision relied on, to be found unchanged, and in time."""
    session, match = reap.session, reap.policy.match
    return SIGNALS[reap.action].asked(
        pid=int4(session.id.pid),
        kind=text(session.kind),
        backend_start=instant(session.id.backend_start),
        role_oid=oid(session.role_oid),
        state=text(session.state),
        state_change=instant(session.state_change),
        query_start=instant(session.query_start),
        xact_start=instant(session.xact_start),
        idle_for=interval(match.idle_for),
        transaction_for=interval(match.transaction_for),
        connected_for=interval(match.connected_for),
        running_for=interval(match.running_for),
        holds_back_vacuum=int4(match.holds_back_vacuum),
        sync_aside=flag(is_set=SYNC_REPLICATION in reap.policy.despite),
        not_after=instant(not_after),
    )
