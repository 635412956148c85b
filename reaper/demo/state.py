"""The state of a running demo: everything that the screen shows and that the summary counts."""

import time
from collections import Counter
from collections.abc import Callable
from typing import Final, NamedTuple

from reaper.policy.plan import Result, SkipReason
from reaper.policy.session import Session, SessionId
from reaper.policy.text import printable
from reaper.service.cycle import Cycle

PERMANENT: Final = (SkipReason.PROTECTION, SkipReason.ALLOWLIST)
"""Reasons for which a session is skipped in every cycle."""


class DemoEntry(NamedTuple):
    """One event of the demo, in a line."""

    after: float
    kind: str
    text: str


class DemoState:
    """Counts what happens; each new entry is passed to `on_entry`."""

    def __init__(self, on_entry: Callable[[DemoEntry], None]) -> None:
        self._on_entry = on_entry
        self._began = time.monotonic()
        self.entries: list[DemoEntry] = []
        self.step = self.title = self.hint = self.mode = self.server = ""
        self.cycle: Cycle | None = None
        self.results = Counter[tuple[str, Result]]()
        self.applications: dict[str, None] = {}
        self.skipped: dict[str, str] = {}
        """The reason by application, if it holds in every cycle."""
        self.due: frozenset[SessionId] = frozenset()
        """Sessions that a dry run would have terminated and that are still connected."""
        self.attempts = Counter[bool]()
        """The customer's attempts to connect: before (False) and after (True) the first termination."""
        self.refusals = Counter[bool]()
        self.refusal: str | None = None
        """The server's message to the customer's last attempt, if it was refused."""
        self.last_refusal = ""
        self.checks: dict[str, tuple[bool, str]] = {}
        self.commit_answer = "COMMIT"

    @property
    def seconds(self) -> float:
        """Seconds since the start of the demo."""
        return time.monotonic() - self._began

    def count(self, result: Result, policy: str | None = None) -> int:
        """Return the number of outcomes with this result, of one policy or of all."""
        return sum(n for key, n in self.results.items() if key[1] is result and policy in {None, key[0]})

    def add(self, kind: str, text: str) -> None:
        """Add an entry."""
        self.entries.append(DemoEntry(self.seconds, kind, printable(text)))
        self._on_entry(self.entries[-1])

    def begin(self, number: int, title: str, hint: str) -> None:
        """Begin a step."""
        self.step, self.title, self.hint = f"Step {number} of 3", title, hint
        self.add(f"step {number}", title)
        self.add("", hint)

    def finished_cycle(self, cycle: Cycle) -> None:
        """Count a cycle and add entries for its outcomes, exceeded limits and skipped sessions."""
        self.cycle = cycle
        self.results.update((candidate.policy.name, outcome.result) for candidate, outcome in cycle.settled)
        self.applications |= dict.fromkeys(application_of(session) for session in cycle.snapshot.sessions)
        dry_run = {
            candidate.session.id for candidate, outcome in cycle.settled if outcome.result is Result.DRY_RUN
        }
        self.due = (self.due & {session.id for session in cycle.snapshot.sessions}) | dry_run
        for candidate, outcome in cycle.settled:
            kind = "dry run" if outcome.result is Result.DRY_RUN else outcome.result.value
            session = f"{application_of(candidate.session)} pid {candidate.session.id.pid}"
            self.add(kind, f"{session}: {candidate.reason} ({candidate.policy.name})")
        for trip in cycle.plan.trips:
            self.add("limit", f"{trip.policy.name}: {trip.reason}")
        for skip in cycle.plan.skips:
            application = application_of(skip.session)
            if skip.policy and skip.by in PERMANENT and application not in self.skipped:
                self.skipped[application] = skip.reason
                self.add("skipped", f"{application}: {skip.reason}")

    def attempted(self, refusal: str | None, *, after: bool) -> None:
        """Count an attempt of the customer, and add an entry if its result differs from the one before."""
        changed = not self.attempts or (refusal is None) != (self.refusal is None)
        self.attempts[after] += 1
        self.refusals[after] += refusal is not None
        self.refusal = refusal
        self.last_refusal = refusal or self.last_refusal
        if changed and refusal is not None:
            self.add("refused", f"customer: {refusal}")
        elif changed:
            refused = self.refusals.total()
            self.add("connected", f"customer, after {refused} refusals" if refused else "customer")

    def refused(self, *, after: bool) -> str:
        """Return the share of refused attempts in words."""
        return f"{self.refusals[after]} of {self.attempts[after]}"

    def checked(self, application: str, passed: bool, report: str) -> None:  # noqa: FBT001
        """Add the result of a client's check."""
        self.checks[application] = passed, report
        self.add("passed" if passed else "failed", f"{application}: {report}")


def application_of(session: Session) -> str:
    """Return the session's application name, empty if it has none."""
    return session.identity.application or ""
