"""Limits of connections for single roles: so that a leak of one is not an outage of all."""

from collections.abc import Iterator, Mapping
from typing import Final

from reaper.policy.advice.evidence import Evidence
from reaper.policy.advice.finding import Cure, Finding, Sure, Urgency
from reaper.policy.advice.ground import Role
from reaper.policy.advice.leaks import is_suspect
from reaper.policy.advice.ordinary import ordinary, poolers
from reaper.policy.advice.quoting import identifier
from reaper.policy.advice.round import headroom
from reaper.policy.advice.slots import SCARCE
from reaper.policy.advice.wording import many, percent, watched

_MANY: Final = 0.5
"""Of the slots: a role that takes so many can soon take all."""
_NEAR: Final = 0.9
_ROOM: Final = 0.1
"""Of the slots: what a limit has to leave to the others."""
_MOST: Final = 5


def connection_limits(evidence: Evidence) -> Iterator[Finding]:
    """Each role that could take every slot, and one day may."""
    suspected = {crowd.key.role for crowd in ordinary(evidence) if is_suspect(crowd)}
    largest = sorted(_limited_by_nothing(evidence).items(), key=lambda item: (-item[1], item[0]))
    said = 0
    for role, peak in largest:
        limit = min(headroom(peak), int(evidence.usable * (1 - _ROOM)))
        risky = role in suspected or peak >= evidence.usable * _MANY
        if not risky or limit < 1 or said == _MOST:
            continue
        said += 1
        over = peak >= limit
        yield Finding(
            topic="connection limit",
            urgency=Urgency.SOON if evidence.pressure >= SCARCE else Urgency.WORTH,
            sure=Sure.LIKELY if evidence.is_long else Sure.POSSIBLE,
            says=f"nothing keeps role {role!r} from taking every slot",
            evidence=(
                f"it had {peak:,} of {many(evidence.usable, 'slot')} at the most {watched(evidence)}"
                + (", and an application of it seems to leak" if role in suspected else ""),
                "it has no connection limit: should it run wild, every other role is refused with it",
            ),
            cures=(
                Cure(
                    does=f"leave the others at least {percent(_ROOM)} of the slots"
                    if over
                    else "a limit with room above the most that was seen",
                    sql=f"ALTER ROLE {identifier(role)} CONNECTION LIMIT {limit};",
                    costs=f"beyond it that role alone is refused (53300); {_already(peak, limit)}",
                ),
            ),
            role=role,
            weight=peak,
        )


def _already(peak: int, limit: int) -> str:
    if peak >= limit:
        return (
            f"it holds {peak:,} now, none of which is ended, and gets no new one before it is below {limit:,}"
        )
    return "look for longer, over a peak of the day, before you believe the number"


def _limited_by_nothing(evidence: Evidence) -> Mapping[str, int]:
    """Ordinary roles without a limit, and the most sessions that each had; the server limits no superuser."""
    if evidence.ground is None:
        return {}
    apart = {crowd.key.role for crowd in poolers(evidence)}
    names = {crowd.key.role for crowd in ordinary(evidence)} - apart
    return {
        name: peak
        for name, peak in evidence.role_peaks.items()
        if name in names and _is_unlimited(evidence.ground.roles.get(name)) and identifier(name)
    }


def _is_unlimited(role: Role | None) -> bool:
    return role is not None and role.limit < 0 and not role.superuser


def near_limits(evidence: Evidence) -> Iterator[Finding]:
    """Each role that is about to be refused by a limit of its own."""
    roles = evidence.ground.roles if evidence.ground else {}
    for name, peak in evidence.role_peaks.items():
        role = roles.get(name)
        if role is None or role.superuser or role.limit < 1 or peak < role.limit * _NEAR:
            continue
        full = peak >= role.limit
        quiet = sum(len(crowd.quiet) for crowd in evidence.crowds if crowd.key.role == name)
        yield Finding(
            topic="connection limit",
            urgency=Urgency.NOW if full else Urgency.SOON,
            sure=Sure.COUNTED,
            says=(
                f"role {name!r} {'has reached' if full else 'is near'} its own limit of {role.limit:,} "
                "connections"
            ),
            evidence=(
                (
                    f"{peak:,} at the most {watched(evidence)}, "
                    f"{many(quiet, 'of them idle', 'of them idle')} for long"
                ),
            ),
            cures=tuple(_wider(name, role.limit, evidence)),
            role=name,
            weight=peak,
        )


def _wider(name: str, limit: int, evidence: Evidence) -> Iterator[Cure]:
    wider = headroom(limit)
    if identifier(name) and wider < evidence.usable * (1 - _ROOM):
        yield Cure(
            does="if it needs more than that, and is no leak, a wider limit",
            sql=f"ALTER ROLE {identifier(name)} CONNECTION LIMIT {wider};",
            costs="the slots are taken from all others",
        )
