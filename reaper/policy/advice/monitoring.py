"""Tools that watch a server, and take slots for it."""

from collections.abc import Iterator
from typing import Final

from reaper.policy.advice.evidence import Evidence
from reaper.policy.advice.finding import Cure, Finding, Sure, Urgency
from reaper.policy.advice.quoting import identifier
from reaper.policy.advice.tools import is_monitoring
from reaper.policy.advice.wording import many, who

FEWEST: Final = 5
"""A tool keeps one session, or one for each database; more are a mistake in its configuration."""


def monitoring(evidence: Evidence) -> Iterator[Finding]:
    """Each such tool with more sessions than it can need."""
    for crowd in evidence.crowds:
        databases = len(crowd.databases)
        allowed = max(FEWEST, databases + 2)
        if not is_monitoring(crowd.key.application) or crowd.count <= allowed:
            continue
        alone = all(
            is_monitoring(each.key.application) for each in evidence.crowds if each.key.role == crowd.key.role
        )
        yield Finding(
            topic="monitoring",
            urgency=Urgency.WORTH,
            sure=Sure.LIKELY,
            says=f"{who(crowd.key)} watches the server with {many(crowd.count, 'session')}",
            evidence=(
                (
                    f"{many(crowd.count, 'session')} in {many(databases, 'database')}, from "
                    f"{many(len(crowd.instances), 'address', 'addresses')}; {len(crowd.quiet):,} of them "
                    "idle for long"
                ),
            ),
            cures=tuple(_cures(crowd.key.role, allowed, alone=alone and not crowd.superuser)),
            role=crowd.key.role,
            application=crowd.key.application,
            weight=crowd.count,
        )


def _cures(role: str, allowed: int, *, alone: bool) -> Iterator[Cure]:
    yield Cure(
        does="let it keep its connections between two rounds, and take one for each database at the most",
        costs="its rounds take longer when it asks one database after the other",
    )
    if alone and identifier(role):
        yield Cure(
            does="and bound it from the server's side",
            sql=f"ALTER ROLE {identifier(role)} CONNECTION LIMIT {allowed};",
            costs="beyond it the tool is refused (53300), and shows gaps or an alarm",
        )
