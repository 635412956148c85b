"""Whether an administrator, or a reaper, still gets in when the slots are gone."""

from collections.abc import Iterator
from typing import Final

from reaper.policy.advice.evidence import Evidence
from reaper.policy.advice.finding import Cure, Finding, Sure, Urgency
from reaper.policy.advice.quoting import identifier
from reaper.policy.advice.slots import SCARCE

_SIXTEEN: Final = 16
_ENOUGH: Final = 2
_USUAL: Final = 3


def kept_for_superusers(evidence: Evidence) -> Iterator[Finding]:
    """Nothing is kept for them."""
    ground = evidence.ground
    if ground is None or ground.number("superuser_reserved_connections") != 0:
        return
    yield Finding(
        topic="reserved",
        urgency=Urgency.SOON,
        sure=Sure.COUNTED,
        says="no slot is kept for superusers: when all are taken, nobody gets in to mend it",
        evidence=("superuser_reserved_connections is 0",),
        cures=(
            Cure(
                does="keep the usual three",
                sql=f"ALTER SYSTEM SET superuser_reserved_connections = {_USUAL};  -- then restart",
                costs="a restart, and three slots less for everybody else",
            ),
        ),
    )


def kept_for_roles(evidence: Evidence) -> Iterator[Finding]:
    """Nothing is kept for whoever looks after a server whose slots are scarce."""
    ground = evidence.ground
    if ground is None or ground.major < _SIXTEEN or evidence.pressure < SCARCE:
        return
    kept = ground.number("reserved_connections")
    if kept is None or kept >= _ENOUGH:
        return
    role = identifier(evidence.last.watcher.role)
    grant = f"GRANT pg_use_reserved_connections TO {role};\n" if role and not ground.uses_reserved else ""
    yield Finding(
        topic="reserved",
        urgency=Urgency.WORTH,
        sure=Sure.COUNTED,
        says="no slot is kept for those who look after the server and are no superusers",
        evidence=(
            f"reserved_connections is {kept}; {evidence.peak:,} of {evidence.usable:,} slots were in use",
        ),
        cures=(
            Cure(
                does="keep a few for roles such as the reaper's",
                sql=f"{grant}ALTER SYSTEM SET reserved_connections = {_ENOUGH};  -- then restart",
                costs=(
                    "a restart, and two slots less for everybody else; a reaper that runs is inside already"
                ),
            ),
        ),
    )
