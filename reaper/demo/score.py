"""What has happened so far: all that is shown while the story runs, and told at its end."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from reaper.demo.clients import Proof
from reaper.policy.plan import Reap, Result, Spare, Spared
from reaper.policy.session import SessionId
from reaper.policy.text import plain
from reaper.service.cycle import Cycle
from reaper.service.reporter import RunTotals

ACT: Final = "act"
HINT: Final = ""
POLICY: Final = "policy"
CLIENT: Final = "client"
SERVER: Final = "server"
REFUSED: Final = "refused"
SERVED: Final = "served"
SPARED: Final = "spared"
PROVED: Final = "lives"
DEAD: Final = "dead"

_POLICIES: Final = "policies:"

TELLING: Final = (Spared.PROTECTION, Spared.ALLOWLIST)
"""What spares whom a policy would otherwise take for good."""


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """Something that happened, in a line."""

    after: float
    kind: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """A part of the story."""

    number: int
    title: str
    hint: str = ""


@dataclass(slots=True)
class Luck:
    """How a customer fares."""

    tries: int = 0
    refused: int = 0

    def count(self, *, refused: bool) -> None:
        """Count one try."""
        self.tries += 1
        self.refused += refused


class Score:
    """Keeps count, and tells each piece of news once."""

    def __init__(self, tell: Callable[[News], None], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._tell = tell
        self._clock = clock
        self._began = clock()
        self.news: list[News] = []
        self.act: Act | None = None
        self.mode = ""
        self.server = ""
        self.policies = ""
        self.cycle: Cycle | None = None
        self.tally = RunTotals()
        self.applications: list[str] = []
        self.spared: dict[str, str] = {}
        self.condemned: frozenset[SessionId] = frozenset()
        """Whom a dry run would have taken, and who is still there."""
        self.before = Luck()
        self.after = Luck()
        self.refusal: str | None = None
        """The server's own words, while the customer is refused."""
        self.last_words = ""
        self.proofs: list[Proof] = []

    @property
    def seconds(self) -> float:
        """How long the story has been running."""
        return self._clock() - self._began

    def count(self, result: Result, policy: str | None = None) -> int:
        """How often this came about, for one policy or for all."""
        return sum(
            n for (name, seen), n in self.tally.results.items() if seen is result and policy in {None, name}
        )

    def tell(self, kind: str, text: str) -> None:
        """Something happened."""
        news = News(after=self.seconds, kind=kind, text=plain(text))
        self.news.append(news)
        self._tell(news)

    def begin(self, act: Act) -> None:
        """The next act."""
        self.act = act
        self.tell(f"{ACT} {act.number}", act.title)
        self.tell(HINT, act.hint)

    def show_policies(self, text: str) -> None:
        """Whoever watches is to know by which policies the reaper goes."""
        self.policies = text[text.index(_POLICIES) :]
        for line in self.policies.splitlines():
            self.tell(POLICY, line)

    def saw(self, cycle: Cycle) -> None:
        """A cycle is over."""
        self.cycle = cycle
        self.tally.add(cycle)
        self._meet(cycle)
        self._condemn(cycle)
        for reap, outcome in cycle.settled:
            self.tell(outcome.result.value, _sentence(reap))
        for trip in cycle.plan.brakes:
            self.tell("braked", f"{trip.policy.name}: {trip.reason}")
        for spare in cycle.plan.spares:
            self._spare(spare)

    def trying(self) -> Callable[[str | None], None]:
        """The customer tries; a try that began before the first termination is not one after it."""
        return partial(self._tried, self.after if self.count(Result.TERMINATED) else self.before)

    def _tried(self, luck: Luck, refusal: str | None) -> None:
        """The customer has tried; told when the luck turns."""
        luck.count(refused=refusal is not None)
        turned = (refusal is None) != (self.refusal is None)
        first = self.before.tries + self.after.tries == 1
        self.refusal = refusal
        self.last_words = refusal or self.last_words
        if refusal is not None and (turned or first):
            self.tell(REFUSED, f"customer: {refusal}")
        elif turned:
            self.tell(SERVED, f"customer gets in, after {self.before.refused + self.after.refused} refusals")
        elif first:
            self.tell(SERVED, "customer gets in")

    def prove(self, proof: Proof) -> None:
        """A client has told how it fares."""
        self.proofs.append(proof)
        self.tell(PROVED if proof.well else DEAD, f"{proof.application}: {proof.words}")

    def _meet(self, cycle: Cycle) -> None:
        for session in cycle.snapshot.sessions:
            application = session.identity.application or ""
            if application not in self.applications:
                self.applications.append(application)

    def _condemn(self, cycle: Cycle) -> None:
        rehearsed = {r.session.id for r, outcome in cycle.settled if outcome.result is Result.REHEARSED}
        present = {session.id for session in cycle.snapshot.sessions}
        self.condemned = (self.condemned & present) | rehearsed

    def _spare(self, spare: Spare) -> None:
        application = spare.session.identity.application or ""
        if spare.policy and spare.by in TELLING and application not in self.spared:
            self.spared[application] = spare.reason
            self.tell(SPARED, f"{application}: {spare.reason}")


def _sentence(reap: Reap) -> str:
    who = f"{reap.session.identity.application} pid {reap.session.id.pid}"
    return f"{who}: {reap.reason} ({reap.policy.name})"
