"""The rules: policies and protections as the policy file states them, immutable."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import tzinfo
from enum import StrEnum
from typing import Final, NamedTuple

from reaper.policy.match import Match
from reaper.policy.prefilter import Prefilter
from reaper.policy.refill_guard import DEFAULT_REFILL_GUARD, RefillGuard
from reaper.policy.selector import NO_KEYS, Hit, Selector
from reaper.policy.session import Identity, Session, Slots, Snapshot
from reaper.policy.text import percent
from reaper.policy.time import Duration, Timestamp, as_datetime


class Mode(StrEnum):
    """How far a policy may go."""

    ENFORCE = "enforce"
    DRY_RUN = "dry-run"
    DISABLED = "disabled"


class Action(StrEnum):
    """What is done with a candidate."""

    TERMINATE = "terminate"
    CANCEL = "cancel"


@dataclass(frozen=True, slots=True)
class When:
    """A policy acts only if at least this share of the slots is used."""

    slots_used: float

    def veto(self, slots: Slots) -> str | None:
        """Why the policy does not act now, or None."""
        if slots.share_used >= self.slots_used:
            return None
        return f"when: {slots.used} of {slots.usable} slots used, acts from {percent(self.slots_used)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A time window of the week; one that ends before it begins continues after midnight."""

    days: frozenset[int]
    start: int
    """Minutes after midnight, as `end`; equal ends are the whole day."""
    end: int
    zone: tzinfo
    text: str

    def holds(self, now: Timestamp) -> bool:
        """Whether this moment lies inside."""
        try:
            local = as_datetime(now).astimezone(self.zone)
        except OverflowError:
            return False  # a moment outside the calendar is inside no window
        minute = local.hour * 60 + local.minute
        today = local.weekday() in self.days
        if self.start < self.end:
            return today and self.start <= minute < self.end
        yesterday = (local.weekday() - 1) % 7 in self.days
        return (today and minute >= self.start) or (yesterday and minute < self.end)


GROUP_KEYS: Final = ("role", "database", "application", "client")


@dataclass(frozen=True, slots=True, kw_only=True)
class Keep:
    """Of the matched sessions, the newest of each group are skipped."""

    newest: int
    per: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MaxSessions:
    """The number of sessions that a group may have; above it the longest idle ones remain candidates."""

    most: int
    per: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SafetyLimit:
    """The policy does not act if it matches more than `above` sessions and this share of all clients."""

    share: float
    above: int

    def trips(self, matched: int, clients: int) -> bool:
        """Return True if the plan exceeds the safety limit."""
        # Divided, not multiplied: 0.29 * 100 is less than 29.
        return matched > self.above and (not clients or matched / clients > self.share)


DEFAULT_MAX_PER_CYCLE: Final = 10
DEFAULT_SAFETY_LIMIT: Final = SafetyLimit(share=0.5, above=5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """One policy of the policy file."""

    name: str
    match: Match
    description: str = ""
    mode: Mode = Mode.DRY_RUN
    allowlist: Selector = NO_KEYS
    overrides: frozenset[str] = frozenset()
    when: When | None = None
    during: tuple[Window, ...] = ()
    keep: Keep | None = None
    max_sessions: MaxSessions | None = None
    action: Action = Action.TERMINATE
    max_per_cycle: int = DEFAULT_MAX_PER_CYCLE
    safety_limit: SafetyLimit | None = DEFAULT_SAFETY_LIMIT
    refill_guard: RefillGuard | None = DEFAULT_REFILL_GUARD

    def rests(self, snapshot: Snapshot) -> tuple[str, str] | None:
        """The key (`when` or `during`) for which the policy does not act now, and the reason; or None."""
        if self.when and (veto := self.when.veto(snapshot.slots)):
            return "when", veto
        if self.during and not any(window.holds(snapshot.at) for window in self.during):
            return "during", f"during: acts {' and '.join(window.text for window in self.during)}"
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """All policies and protections of one policy file."""

    policies: tuple[Policy, ...]
    protect: Selector = NO_KEYS
    digest: str = ""
    """SHA-256 of the bytes that were read; every entry of the audit log contains it."""
    prefilter: Prefilter = field(init=False, repr=False, compare=False)
    """Of all enabled policies."""
    _matching: "_MatchingMemo" = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Compute once what every cycle needs."""
        object.__setattr__(self, "prefilter", Prefilter.of(self.matches))
        object.__setattr__(self, "_matching", _MatchingMemo(self.enabled))

    def matching(self, session: Session) -> "MatchingPolicies":
        """The enabled policies that match sessions of this identity in this state."""
        return self._matching[session.identity, session.state]

    def possible(self, snapshot: Snapshot) -> list[Session]:
        """The sessions that a policy may match by now: no other session can be due.

        A cycle needs this for every session, and therefore reads all of them in one pass.
        """
        matching, now = self._matching, snapshot.at
        return [
            session
            for session in snapshot.sessions
            if (found := matching[session.identity, session.state]).policies
            and session.state_change is not None
            and now - session.state_change >= found.soonest
        ]

    @property
    def enforcing(self) -> tuple[Policy, ...]:
        """The policies that terminate sessions."""
        return tuple(policy for policy in self.policies if policy.mode is Mode.ENFORCE)

    @property
    def dry_running(self) -> tuple[Policy, ...]:
        """The policies that only show what they would do."""
        return tuple(policy for policy in self.policies if policy.mode is Mode.DRY_RUN)

    @property
    def enabled(self) -> tuple[Policy, ...]:
        """Every policy that is not disabled."""
        return tuple(policy for policy in self.policies if policy.mode is not Mode.DISABLED)

    @property
    def matches(self) -> tuple[Match, ...]:
        """The criteria of every enabled policy."""
        return tuple(policy.match for policy in self.enabled)


class MatchingPolicies(NamedTuple):
    """The policies that match an identity in a state, in their order."""

    policies: tuple[Policy, ...]
    soonest: Duration
    """No policy matches a session that has been in this state for a shorter time."""
    allowed: Mapping[str, Hit]
    """The hit in the allowlist by the name of its policy, if there is one."""


MAX_IDENTITIES: Final = 2_048
"""The size of the memo, 1.5 MB for each server: a client may use another application name each time."""


class _MatchingMemo(dict[tuple[Identity, str | None], MatchingPolicies]):
    """The policies that match an identity in a state, by both; computed at the first request."""

    def __init__(self, policies: tuple[Policy, ...]) -> None:
        super().__init__()
        self._policies = policies

    def __missing__(self, key: tuple[Identity, str | None]) -> MatchingPolicies:
        """Compare the identity with every selector."""
        if len(self) >= MAX_IDENTITIES:
            self.clear()
        identity, state = key
        found = tuple(
            each
            for each in self._policies
            if state in each.match.states and each.match.selector.selects(identity)
        )
        self[key] = matching = MatchingPolicies(
            policies=found,
            soonest=min((each.match.in_state_for for each in found), default=Duration(0)),
            allowed={each.name: hit for each in found if (hit := each.allowlist.first_hit(identity))},
        )
        return matching
