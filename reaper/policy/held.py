"""How many the restraints of a rehearsed policy held back, beside those whom it would have taken."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from reaper.policy.plan import Plan
from reaper.policy.rules import Mode, Policy
from reaper.policy.spans import Instant
from reaper.policy.verdict import Spared

RESTRAINTS: Final[Mapping[str, str]] = {
    Spared.BRAKE: "by the brake",
    Spared.CHURN: "as pools that refill",
    Spared.CAP: "below the cap",
    Spared.KEEP: "to keep the newest",
    Spared.PACE: "by the pace, for a later cycle",
}
"""What holds a policy back, and how people are told."""


class Restrained(NamedTuple):
    """So many sessions that a restraint held back from a policy at one moment."""

    policy: Policy
    by: Spared
    many: int


class Held(NamedTuple):
    """The most that a restraint held back at one moment from a policy that was rehearsed."""

    server: str
    policy: str
    rules: str
    """The digest of the policy file."""
    by: str
    most: int
    at: Instant


def restrained(plan: Plan, *, dry_run: bool) -> list[Restrained]:
    """Whom the restraints of rehearsed policies hold back in this plan; under a dry run all are rehearsed."""
    counts = Counter[tuple[str, Spared]]()
    policies = dict[str, Policy]()
    for spare in plan.matched_spares:
        if spare.policy and spare.by in RESTRAINTS and (dry_run or spare.policy.mode is Mode.DRY_RUN):
            policies[spare.policy.name] = spare.policy
            counts[spare.policy.name, spare.by] += 1
    return [Restrained(policies[name], by, many) for (name, by), many in counts.items()]


def most_held(held: Iterable[Held]) -> dict[str, int]:
    """For each restraint how many at once, over all servers, in the order in which people are told."""
    most = Counter[str]()
    for one in held:
        most[one.by] += one.most
    return {by: most[by] for by in RESTRAINTS if most[by]}


def held_words(most: Mapping[str, int]) -> str:
    """`300 by the brake, 5 to keep the newest`."""
    return ", ".join(f"{most[by]} {words}" for by, words in RESTRAINTS.items() if most.get(by))
