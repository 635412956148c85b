"""Sessions that give no name: nobody can tell them apart, and no policy can."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Final

from reaper.insight.advice.evidence import Evidence, is_nameless
from reaper.insight.advice.finding import (
    Cure,
    Finding,
    Sure,
    Urgency,
    headroom,
    identifier,
    listed,
    literal,
    many,
    percent,
    short,
    watched,
)
from reaper.insight.advice.known_tools import ordinary, poolers
from reaper.insight.advice.leaks import is_suspect
from reaper.insight.advice.server_facts import RoleFacts
from reaper.insight.advice.slots import SCARCE
from reaper.policy.protections import is_managed

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


def _is_unlimited(role: RoleFacts | None) -> bool:
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


_FEWEST: Final = 3
"""As many as the slots that are usually kept for administrators."""


def superusers(evidence: Evidence) -> Iterator[Finding]:
    """No limit holds for them, and they take the last slots."""
    found = [crowd for crowd in ordinary(evidence) if crowd.superuser]
    count = sum(crowd.count for crowd in found)
    if count < _FEWEST:
        return
    yield Finding(
        topic="superusers",
        urgency=Urgency.WORTH,
        sure=Sure.COUNTED,
        says=f"{many(count, 'application session')} logged in as a superuser",
        evidence=(
            listed([f"{short(crowd.key)} {crowd.count:,}" for crowd in found]),
            (
                "they may take the slots that are kept for an administrator; no connection limit holds for "
                "them, and no reaper with the least rights ends them"
            ),
        ),
        cures=(
            Cure(
                does="let them log in as a role with the rights that they need",
                costs="whatever they could do as a superuser has to be granted",
            ),
        ),
        weight=count,
    )


_NAMES_FEWEST: Final = 5
_SHARE: Final = 0.2
_NAMES_MOST: Final = 3


def names(evidence: Evidence) -> Iterator[Finding]:
    """A large share of sessions without a name, or with that of their driver."""
    nameless = [c for c in evidence.crowds if is_nameless(c.key.application) and not is_managed(c.key.role)]
    every = sum(crowd.count for crowd in evidence.crowds)
    count = sum(crowd.count for crowd in nameless)
    if count < _NAMES_FEWEST or count < every * _SHARE:
        return
    roles = Counter[str]()
    for crowd in nameless:
        roles[crowd.key.role] += crowd.count
    largest = roles.most_common(_NAMES_MOST)
    drivers = sorted({crowd.key.application for crowd in nameless} - {""})
    yield Finding(
        topic="names",
        urgency=Urgency.WORTH,
        sure=Sure.COUNTED,
        says=f"{count:,} of {many(every, 'session')} ({percent(count / every)}) do not say whose they are",
        evidence=(
            f"roles: {listed([f'{role!r} {of:,}' for role, of in roles.most_common()])}",
            *((f"named after their driver: {', '.join(map(repr, drivers[:_MOST]))}",) if drivers else ()),
            "a policy can tell them apart by role, database and address alone",
        ),
        cures=(
            Cure(
                does="in the connection string of each application",
                setting=(
                    "application_name=orders-api (libpq, psycopg, pgx), ApplicationName=orders-api (JDBC)"
                ),
                costs="nothing",
            ),
            *_by_role([role for role, _ in largest] if evidence.ground else [], drivers=bool(drivers)),
        ),
        weight=count,
    )


def _by_role(roles: list[str], *, drivers: bool) -> Iterator[Cure]:
    statements = [
        f"ALTER ROLE {quoted} SET application_name = {literal(role)};"
        for role in roles
        if (quoted := identifier(role))
    ]
    if statements:
        yield Cure(
            does="where a role belongs to one application, by role, in sessions that begin from then on",
            sql=" ".join(statements),
            costs="nothing"
            + ("; a client that gives a name of its own, as drivers do, keeps that" if drivers else ""),
        )
