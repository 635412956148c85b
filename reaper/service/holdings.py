"""How many the restraints of rehearsed policies hold back at one server, at most, by the rules in force."""

from collections.abc import Iterable

from reaper.policy.held import Held, Restrained, restrained
from reaper.policy.plan import Plan
from reaper.policy.spans import Instant
from reaper.policy.verdict import Spared


class Holdings:
    """Remembers the most of each restraint of each policy."""

    def __init__(self, server: str) -> None:
        self._server = server
        self._rules = ""
        self._most: dict[tuple[str, Spared], Held] = {}

    def cycled(self, plan: Plan, *, rules: str, dry_run: bool) -> list[Restrained]:
        """Those of which there are more now than there ever were under these rules."""
        if rules != self._rules:
            self._rules = rules
            self._most.clear()
        more = [
            one
            for one in restrained(plan, dry_run=dry_run)
            if (known := self._most.get((one.policy.name, one.by))) is None or known.most < one.many
        ]
        for one in more:
            self._most[one.policy.name, one.by] = self._held(one, plan.at)
        return more

    @property
    def most(self) -> Iterable[Held]:
        """The most so far."""
        return tuple(self._most.values())

    def _held(self, one: Restrained, at: Instant) -> Held:
        return Held(self._server, one.policy.name, self._rules, one.by, one.many, at)
