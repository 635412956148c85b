"""How full a server is, and who could still get in."""

from collections.abc import Sequence
from dataclasses import dataclass

from reaper.policy.session import Session, Slots


@dataclass(frozen=True, slots=True, kw_only=True)
class Openings:
    """The slots of a server, and how many are left to whom."""

    total: int
    used: int
    by_superusers: int
    """Of those used, as far as it is known."""
    for_anybody: int
    """Free for ordinary roles."""
    for_reserved: int | None
    """Free for roles with pg_use_reserved_connections, from 16 on; None where it is not known."""
    for_superusers: int
    """Free for superusers."""
    reserved: int
    """Slots that ordinary roles cannot use."""
    superuser_reserved: int | None
    """Of these, for superusers alone; None where it is not known."""

    @property
    def usable(self) -> int:
        """Slots that ordinary roles can use."""
        return max(self.total - self.reserved, 0)

    @property
    def full(self) -> bool:
        """Whether ordinary roles are refused."""
        return self.for_anybody == 0


def openings(slots: Slots, sessions: Sequence[Session]) -> Openings:
    """Count them."""
    kept = slots.superuser_reserved
    return Openings(
        total=slots.total,
        used=slots.used,
        by_superusers=sum(session.superuser for session in sessions),
        for_anybody=max(slots.total - slots.reserved - slots.used, 0),
        for_reserved=None if kept is None else max(slots.total - kept - slots.used, 0),
        for_superusers=max(slots.total - slots.used, 0),
        reserved=slots.reserved,
        superuser_reserved=kept,
    )
