"""Applications that log in as a superuser."""

from collections.abc import Iterator
from typing import Final

from reaper.policy.advice.evidence import Evidence
from reaper.policy.advice.finding import Cure, Finding, Sure, Urgency
from reaper.policy.advice.ordinary import ordinary
from reaper.policy.advice.wording import listed, many, short

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
