"""Sessions that give no name: nobody can tell them apart, and no policy can."""

from collections import Counter
from collections.abc import Iterator
from typing import Final

from reaper.policy.advice.evidence import Evidence
from reaper.policy.advice.finding import Cure, Finding, Sure, Urgency
from reaper.policy.advice.quoting import identifier, literal
from reaper.policy.advice.tools import is_nameless
from reaper.policy.advice.wording import listed, many, percent
from reaper.policy.protections import is_managed

_FEWEST: Final = 5
_SHARE: Final = 0.2
_MOST: Final = 3


def names(evidence: Evidence) -> Iterator[Finding]:
    """A large share of sessions without a name, or with that of their driver."""
    nameless = [c for c in evidence.crowds if is_nameless(c.key.application) and not is_managed(c.key.role)]
    every = sum(crowd.count for crowd in evidence.crowds)
    count = sum(crowd.count for crowd in nameless)
    if count < _FEWEST or count < every * _SHARE:
        return
    roles = Counter[str]()
    for crowd in nameless:
        roles[crowd.key.role] += crowd.count
    largest = roles.most_common(_MOST)
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
