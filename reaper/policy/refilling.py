"""A group of sessions that refills at once, as it is told."""

from dataclasses import dataclass

from reaper.policy.churn import BackOff, Evidence
from reaper.policy.rules import Policy
from reaper.policy.session import Identity
from reaper.policy.spans import Instant


@dataclass(frozen=True, slots=True, kw_only=True)
class Refilling:
    """A group that a policy leaves alone from now on."""

    policy: Policy
    identity: Identity
    at: Instant
    evidence: Evidence
    left_alone: BackOff
