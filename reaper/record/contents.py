"""What the events about a session tell of it."""

from collections.abc import Mapping, Sequence

from reaper.policy.fates import Fated
from reaper.policy.held import RESTRAINTS, Restrained
from reaper.policy.refilling import Refilling
from reaper.policy.session import Session
from reaper.policy.spans import Instant, isoformat, seconds, since
from reaper.policy.verdict import Reap
from reaper.record.events import OPTIONAL


def reaped(reap: Reap, at: Instant) -> dict[str, object]:
    """A session that a policy condemns, as it was seen at this moment."""
    return {
        "policy": reap.policy.name,
        "mode": reap.mode,
        "action": reap.action,
        **_seen(reap.session, at),
        "reason": reap.reason,
    }


def fate(became: Fated) -> dict[str, object]:
    """What became of a session after its rehearsal, beside all that its intent has told."""
    one = became.watched
    return {
        "intent": one.intent,
        "rules": one.rules,
        **reaped(one.reap, one.at),
        "fate": became.fate,
        "detail": became.reason,
        "fate_at": isoformat(became.seen),
        "used_at": isoformat(became.used_at),
        "after_s": seconds(became.after),
        "unseen_s": seconds(became.unseen),
    }


def refilling(pool: Refilling) -> dict[str, object]:
    """A group that is left alone, and why."""
    came_back, acts = pool.evidence.because
    return {
        "policy": pool.policy.name,
        "mode": pool.policy.mode,
        "action": pool.policy.action,
        "server_time": isoformat(pool.at),
        "reason": pool.left_alone.reason,
        **pool.identity._asdict(),
        "acts": acts,
        "came_back": came_back,
        "until": isoformat(pool.left_alone.until),
    }


def held_back(one: Restrained, at: Instant) -> dict[str, object]:
    """How many a restraint of a rehearsed policy holds back at this moment."""
    return {
        "policy": one.policy.name,
        "mode": one.policy.mode,
        "action": one.policy.action,
        "server_time": isoformat(at),
        "reason": f"a rehearsal would have met {one.many} more, held back {RESTRAINTS[one.by]}",
        "restraint": one.by,
        "held": one.many,
    }


def only(names: Sequence[str], fields: Mapping[str, object]) -> dict[str, object]:
    """These fields of an event that was read back, and none that is no plain value."""
    # They come from a file that anybody may have written to: nothing but plain values is repeated.
    plain = {name: value for name, value in fields.items() if isinstance(value, str | int | float)}
    return {name: plain.get(name) for name in names if name in fields or name not in OPTIONAL}


def _seen(session: Session, now: Instant) -> dict[str, object]:
    def age(then: Instant | None) -> float | None:
        span = since(then, now)
        return None if span is None else seconds(span)

    return {
        "pid": session.id.pid,
        "backend_start": isoformat(session.id.backend_start),
        **session.identity._asdict(),
        "client_port": session.client_port,
        "state": session.state,
        "state_change": isoformat(session.state_change),
        "query_start": isoformat(session.query_start),
        "xact_start": isoformat(session.xact_start),
        "idle_s": age(session.state_change),
        "transaction_s": age(session.xact_start),
        "connected_s": age(session.id.backend_start),
        "server_time": isoformat(now),
        **({} if session.query is None else {"query": session.query}),
    }
