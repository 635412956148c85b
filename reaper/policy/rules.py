"""The rules: policies and protections as the policy file states them, immutable."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import tzinfo
from enum import StrEnum
from typing import Final, NamedTuple

from reaper.policy.cutoffs import Cutoffs
from reaper.policy.match import Match
from reaper.policy.refill_guard import DEFAULT_CHURN, Churn
from reaper.policy.selector import NO_KEYS, Hit, Selector
from reaper.policy.session import Identity, Session, Slots, Snapshot
from reaper.policy.text import percent
from reaper.policy.time import Instant, Span, as_datetime


class Mode(StrEnum):
    """How far a policy may go."""

    ENFORCE = "enforce"
    DRY_RUN = "dry-run"
    DISABLED = "disabled"


class Action(StrEnum):
    """What is done with a condemned session."""

    TERMINATE = "terminate"
    CANCEL = "cancel"


@dataclass(frozen=True, slots=True)
class When:
    """Only under pressure: from this share of used slots on."""

    connections_used: float

    def veto(self, slots: Slots) -> str | None:
        """Why the policy rests now, or nothing."""
        if slots.share_used >= self.connections_used:
            return None
        return f"when: {slots.used} of {slots.usable} slots used, acts from {percent(self.connections_used)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A stretch of the week; one that ends before it begins runs past midnight."""

    days: frozenset[int]
    start: int
    """Minutes after midnight, as `end`; equal ends are the whole day."""
    end: int
    zone: tzinfo
    text: str

    def holds(self, now: Instant) -> bool:
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
    """Of the sessions that a policy condemns, the newest of each group stay."""

    newest: int
    per: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cap:
    """The most sessions that a group may hold; those that are idle longest are matched above that."""

    most: int
    per: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Brake:
    """A plan for more than `above` sessions and more than this share of all clients is not carried out."""

    share: float
    above: int

    def trips(self, condemned: int, clients: int) -> bool:
        """Return True if the plan exceeds the safety limit."""
        # Divided, not multiplied: 0.29 * 100 is less than 29.
        return condemned > self.above and (not clients or condemned / clients > self.share)


DEFAULT_PACE: Final = 10
DEFAULT_BRAKE: Final = Brake(share=0.5, above=5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """A named rule."""

    name: str
    match: Match
    description: str = ""
    mode: Mode = Mode.DRY_RUN
    allowlist: Selector = NO_KEYS
    despite: frozenset[str] = frozenset()
    when: When | None = None
    during: tuple[Window, ...] = ()
    keep: Keep | None = None
    cap: Cap | None = None
    action: Action = Action.TERMINATE
    pace: int = DEFAULT_PACE
    brake: Brake | None = DEFAULT_BRAKE
    churn: Churn | None = DEFAULT_CHURN

    def rests(self, snapshot: Snapshot) -> tuple[str, str] | None:
        """Which of `when` and `during` keeps the policy from acting now, and why; or nothing."""
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
    """SHA-256 of the bytes that were read; every record carries it."""
    cutoffs: Cutoffs = field(init=False, repr=False, compare=False)
    """Who has reached none of them is meant by no policy that is not off."""
    _meant: "_MeantBefore" = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Work out once what is asked for in every cycle."""
        object.__setattr__(self, "cutoffs", Cutoffs.of(policy.match for policy in self.awake))
        object.__setattr__(self, "_meant", _MeantBefore(self.awake))

    def meaning(self, session: Session) -> "Meant":
        """The policies that are not off and mean sessions of this identity, in this state."""
        return self._meant[session.identity, session.state]

    def ripe(self, snapshot: Snapshot) -> list[Session]:
        """The sessions that some policy may match by now: no other session can be due.

        A cycle needs this for every session, and therefore reads all of them in one pass.
        """
        meant, now = self._meant, snapshot.at
        return [
            session
            for session in snapshot.sessions
            if (found := meant[session.identity, session.state]).policies
            and session.state_change is not None
            and now - session.state_change >= found.soonest
        ]

    @property
    def enforcing(self) -> tuple[Policy, ...]:
        """The policies that act."""
        return tuple(policy for policy in self.policies if policy.mode is Mode.ENFORCE)

    @property
    def rehearsing(self) -> tuple[Policy, ...]:
        """The policies that only show what they would do."""
        return tuple(policy for policy in self.policies if policy.mode is Mode.DRY_RUN)

    @property
    def awake(self) -> tuple[Policy, ...]:
        """Every policy that is not off."""
        return tuple(policy for policy in self.policies if policy.mode is not Mode.DISABLED)


class Meant(NamedTuple):
    """The policies that mean an identity in a state, in their order."""

    policies: tuple[Policy, ...]
    soonest: Span
    """Who has been in this state for a shorter time is taken by none of them."""
    allowed: Mapping[str, Hit]
    """The allowlist's hit, by the policy's name, where it has one."""


MOST_IDENTITIES: Final = 2_048
"""So many are remembered, in 1.5 MB: a client may call itself by another name each time, and each server
whose policies are its own has a memory of its own."""


class _MeantBefore(dict[tuple[Identity, str | None], Meant]):
    """Memo of the policies that match an identity in a state."""

    def __init__(self, policies: tuple[Policy, ...]) -> None:
        super().__init__()
        self._policies = policies

    def __missing__(self, key: tuple[Identity, str | None]) -> Meant:
        """Ask every selector, the first time that they are met."""
        if len(self) >= MOST_IDENTITIES:
            self.clear()
        identity, state = key
        found = tuple(
            each
            for each in self._policies
            if state in each.match.states and each.match.selector.selects(identity)
        )
        self[key] = meant = Meant(
            policies=found,
            soonest=min((each.match.in_state_for for each in found), default=Span(0)),
            allowed={each.name: hit for each in found if (hit := each.allowlist.first_hit(identity))},
        )
        return meant
