"""What looks like a pooler: by its name, or by how much comes from one address. Never more than probable."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from reaper.policy.selector import Glob
from reaper.policy.session import Session

NAMES: Final[Mapping[str, tuple[Glob, ...]]] = {
    "PgBouncer": (Glob("[pP]g[bB]ouncer*"),),
    "Odyssey": (Glob("[oO]dyssey*"),),
    "PgCat": (Glob("[pP]g[cC]at*"),),
    "Pgpool-II": (Glob("[pP]g[pP]ool*"),),
    "Supavisor": (Glob("[sS]upavisor*"),),
    "pgagroal": (Glob("pgagroal*"),),
    "PgDog": (Glob("pgdog*"),),
}
_MOST_NAMES: Final = 2_048
"""So many answers are remembered: a client may call itself by another name each time."""

CROWD: Final = 20
_CROWD_SHARE: Final = 1 / 3
"""From one address so many sessions, and such a share of all, look like a pooler or like one large pool."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pooler:
    """Sessions behind which a pooler probably stands."""

    kind: str | None
    """What it is called; nothing when only the crowd tells."""
    client: str | None
    count: int
    applications: int
    """Under how many application names."""


@lru_cache(maxsize=_MOST_NAMES)
def pooler(application: str | None) -> str | None:
    """The kind of pooler that calls itself so, or nothing."""
    return next((kind for kind, globs in NAMES.items() if any(g.matches(application) for g in globs)), None)


def probable_poolers(sessions: Sequence[Session], *, top: int) -> tuple[Pooler, ...]:
    """By name first, for a name is a hint and a crowd is less; the largest of each."""
    named = Counter((kind, s.identity.client) for s in sessions if (kind := pooler(s.identity.application)))
    crowds = defaultdict[str, list[Session]](list)
    for session in sessions:
        if session.identity.client and not pooler(session.identity.application):
            crowds[session.identity.client].append(session)
    found = [
        Pooler(kind=kind, client=client, count=count, applications=1)
        for (kind, client), count in named.items()
    ]
    found += [
        Pooler(kind=None, client=client, count=len(them), applications=_names(them))
        for client, them in crowds.items()
        if len(them) >= max(CROWD, _CROWD_SHARE * len(sessions))
    ]
    return tuple(
        sorted(found, key=lambda each: (each.kind is None, -each.count, each.kind or "", each.client or ""))
    )[:top]


def _names(sessions: Sequence[Session]) -> int:
    return len({session.identity.application for session in sessions})
