"""What a record says of rehearsals: each act once, with what became of it.

Who is rehearsed again without having changed, after a restart or by every `reaper once`, is still the same
act. Without a word about it, it is watched as long as the life that rehearsed it last is the server's newest;
after that nobody knows.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from math import isfinite
from typing import Final, NamedTuple

from reaper.audit.events import BRAKED, FATE, HELD_BACK, LEFT_ALONE, OUTCOME, Event
from reaper.insight.dryrun.assessment import RESTRAINTS, Held
from reaper.insight.dryrun.outcomes import Fate
from reaper.insight.dryrun.regret import Trial
from reaper.policy.plan import Result, Spared
from reaper.policy.rules import Mode
from reaper.policy.session import ACTIVE, Identity
from reaper.policy.time import Instant, Span, from_datetime, parse_time

_FATES: Final[Mapping[str | None, Fate]] = {fate.value: fate for fate in Fate}

_HOLDS: Final = {BRAKED: "condemned", HELD_BACK: "held"}
"""Events that tell how many a restraint held back, and where they do."""
_POOL: Final = ("server", "policy", *Identity._fields)


class _Key(NamedTuple):
    server: str
    policy: str
    rules: str
    pid: object
    backend_start: str | None
    state_change: str | None


@dataclass(slots=True)
class _Act:
    """One act, as far as it was told."""

    identity: Identity
    at: Instant
    idle: Span
    at_work: bool
    life: str | None
    fate: Fate | None = None
    until: Instant = Instant(0)  # noqa: RUF009 (a number)


class Rehearsals:
    """Collects the acts of a record, whatever the order of its files."""

    def __init__(self, *, since: datetime | None = None) -> None:
        self._since = since
        self._acts: dict[_Key, _Act] = {}
        self._newest: dict[str, tuple[datetime, str | None]] = {}
        self._pools: dict[tuple[str | None, ...], Event] = {}
        self._held: dict[tuple[str, str, str, str], Held] = {}

    def note(self, event: Event) -> None:
        """Take what an event says of a rehearsal; most say nothing."""
        server, life = event.text("server"), event.text("run")
        if server and (server not in self._newest or self._newest[server][0] <= event.time):
            self._newest[server] = event.time, life
        if self._since and event.time < self._since:
            return
        if event.name == LEFT_ALONE:
            self._pools[tuple(map(event.text, _POOL))] = event
        if server and event.name in _HOLDS:
            self._hold(server, event)
        rehearsed = event.name == OUTCOME and event.text("outcome") == Result.REHEARSED
        told = _FATES.get(event.text("fate")) if event.name == FATE else None
        if not server or not (rehearsed or told):
            return
        act = self._act(server, event)
        if act is None:
            return
        seen = _instant(event.fields.get("used_at")) or _instant(
            event.fields.get("fate_at" if told else "server_time")
        )
        if seen is not None and seen >= act.until:
            act.until, act.life = seen, life
            act.fate = told or act.fate

    def trials(self) -> Iterable[Trial]:
        """Every act, and what has become of it."""
        for key, act in self._acts.items():
            forgotten = act.fate is None and self._newest[key.server][1] != act.life
            fate = Fate.UNKNOWN if forgotten else act.fate
            after = Span(max(act.until - act.at, 0))
            yield Trial(
                key.server, key.policy, act.identity, fate, act.at, act.idle, after, act.at_work, key.rules
            )

    def held(self) -> Iterable[Held]:
        """The most that each restraint of a rehearsed policy held back at one moment."""
        return self._held.values()

    def left_alone(self) -> list[dict[str, str | None]]:
        """The groups that refilled at once, with what was said of each the last time."""
        return [
            {key: event.text(key) for key in (*_POOL, "until", "reason")} for event in self._pools.values()
        ]

    def _hold(self, server: str, event: Event) -> None:
        by = Spared.BRAKE.value if event.name == BRAKED else event.text("restraint") or ""
        many = event.fields.get(_HOLDS[event.name])
        rehearsed = event.fields.get("dry_run") is True or event.text("mode") == Mode.DRY_RUN
        at = _instant(event.fields.get("server_time"))
        if by not in RESTRAINTS or not isinstance(many, int) or many < 1 or at is None or not rehearsed:
            return
        key = server, event.text("policy") or "", event.text("rules") or "", by
        known = self._held.get(key)
        if known is None or known.most < many:
            self._held[key] = Held(*key, many, at)

    def _act(self, server: str, event: Event) -> _Act | None:
        """The act that an event is about; its beginning is the earliest that was told."""
        at, idle = _instant(event.fields.get("server_time")), event.fields.get("idle_s")
        if at is None or not isinstance(idle, int | float) or not isfinite(idle):
            return None
        key = _Key(
            server,
            event.text("policy") or "",
            event.text("rules") or "",
            event.fields.get("pid") if isinstance(event.fields.get("pid"), int) else None,
            event.text("backend_start"),
            event.text("state_change"),
        )
        act = self._acts.get(key)
        if act is None or at < act.at:
            known = act
            act = self._acts[key] = _Act(
                identity=Identity(*map(event.text, Identity._fields)),
                at=at,
                idle=Span(round(idle * 1_000_000)),
                at_work=event.text("state") == ACTIVE,
                life=known.life if known else None,
                fate=known.fate if known else None,
                until=known.until if known else Instant(0),
            )
        return act


def _instant(text: object) -> Instant | None:
    time = parse_time(text)
    return from_datetime(time) if time else None
