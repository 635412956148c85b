"""Who lives without any policy being asked: our own sessions, whoever is not known, whom no policy means."""

from reaper.policy.protections import BUILT_IN, SELF
from reaper.policy.seen import Seen
from reaper.policy.session import KINDS, STATES, Session, Snapshot
from reaper.policy.verdict import Spare, Spared


def unknown(session: Session | Seen) -> str | None:
    """Why nothing can be said about a session, or nothing."""
    if session.kind not in KINDS:
        return f"kind {session.kind!r} is none that a policy can name"
    if session.identity.role is None:
        return "its role is not known"  # dropped meanwhile: no allowlist and no protection could name it
    if session.state is None:
        return "state is not known"
    if session.state not in STATES:
        return f"state {session.state!r} is none that a policy can name"
    return "the age of its state is not known" if session.state_change is None else None


def beyond_policies(session: Session, snapshot: Snapshot) -> Spare | None:
    """Spare a session that no policy may judge, whatever it says."""
    if own := BUILT_IN[SELF](session, snapshot):
        return Spare(session=session, by=Spared.PROTECTION, reason=f"protected: {own}", protection=SELF)
    if reason := unknown(session):
        return Spare(session=session, by=Spared.UNKNOWN, reason=f"not known: {reason}")
    return None


def unmatched(session: Session) -> Spare:
    """Spare a session that no policy means."""
    return Spare(session=session, by=Spared.UNMATCHED, reason="no policy matches")
