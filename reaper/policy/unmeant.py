"""Roles that no policy means, however old their sessions grow: what a look may leave out beside the young."""

from collections import Counter
from typing import Final

from reaper.policy.rules import Rules
from reaper.policy.session import Snapshot

_MOST: Final = 32
"""So many at most: each is one more comparison for every session."""


def unmeant_roles(snapshot: Snapshot, rules: Rules) -> tuple[int, ...]:
    """OIDs of the unmatched roles with the most sessions; a role with an unknown name is never among them."""
    names = {session.role_oid: session.identity.role for session in snapshot.sessions}
    left_out = {number for number, name in names.items() if name is not None and not _is_meant(name, rules)}
    sessions = Counter(session.role_oid for session in snapshot.sessions if session.role_oid in left_out)
    return tuple(sorted(number for number, _ in sessions.most_common(_MOST) if number is not None))


def _is_meant(role: str, rules: Rules) -> bool:
    selectors = (policy.match.selector for policy in rules.awake)
    return any(not each.role or any(glob.matches(role) for glob in each.role) for each in selectors)
