"""Compares what the record says with what the server says: its log, and its count of terminations."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Final

from reaper.audit.events import COUNTERS, INTENT, OUTCOME, Event
from reaper.audit.server_log import Ended
from reaper.policy.time import parse_time

_SURE: Final = "terminated"
_MAYBE: Final = frozenset({"signalled", "unknown"})
OPEN: Final = "open"
"""What stands for the outcome of an intent that has none."""
_STARTED: Final = timedelta(seconds=1.5)
"""So far apart are two tellings of one session's beginning: a log knows seconds."""
_EARLY: Final = timedelta(seconds=2)
_LATE: Final = timedelta(minutes=1)
_EDGE: Final = timedelta(seconds=2)
"""So late a server may count (before 15): what happens around a count may be in it or not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """A session that we have signalled, or may have."""

    intent: str
    server: str
    outcome: str
    pid: int
    started: datetime
    seen: datetime
    """When it was seen last, by the server's clock."""
    until: datetime
    """When its end was seen, or should have been."""
    event: Event

    @property
    def sure(self) -> bool:
        """Whether the record says that it was terminated."""
        return self.outcome == _SURE


def acts(events: Iterable[Event]) -> list[Act]:
    """The sessions that were terminated, or may have been, says the record; in the order of time."""
    last = dict[str, Event]()
    for event in events:
        intent = event.text("intent")
        known = last.get(intent) if intent else None
        if intent is None or event.name not in {INTENT, OUTCOME}:
            continue
        if known is None or known.name == INTENT or known.text("outcome") == "unknown":
            last[intent] = event if event.name == OUTCOME or known is None else known
    sessions = dict[tuple[str, int, datetime], Act]()
    for act in filter(None, map(_act, last.values())):
        # One that was tried again, maybe by a later life, goes only once.
        known_act = sessions.setdefault((act.server, act.pid, act.started), act)
        if act.sure and not known_act.sure:
            sessions[act.server, act.pid, act.started] = act
    return sorted(sessions.values(), key=lambda act: act.seen)


def _act(event: Event) -> Act | None:
    outcome = event.text("outcome") if event.name == OUTCOME else OPEN
    pid, real = event.fields.get("pid"), event.fields.get("dry_run") is False
    started, seen = parse_time(event.fields.get("backend_start")), parse_time(event.fields.get("server_time"))
    asked = event.text("mode") == "enforce" and event.text("action") == "terminate" and real
    if (
        not asked
        or outcome not in {_SURE, OPEN, *_MAYBE}
        or not isinstance(pid, int)
        or not (started and seen)
    ):
        return None
    return Act(
        intent=event.text("intent") or "",
        server=event.text("server") or "",
        outcome=outcome or OPEN,
        pid=pid,
        started=started,
        seen=seen,
        until=parse_time(event.fields.get("outcome_at")) or seen + _LATE,
        event=event,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """The record beside the log."""

    agreed: tuple[tuple[Act, Ended], ...]
    missing: tuple[Act, ...]
    """Terminated by us, says the record, and the log knows nothing of it."""
    uncovered: tuple[Act, ...]
    """From before the log begins, or after it ends."""
    spared: tuple[Act, ...]
    """Not known to the record what became of them; the log knows of no termination."""
    others: tuple[Ended, ...]
    """Terminated by somebody else."""

    @property
    def resolved(self) -> tuple[tuple[Act, Ended], ...]:
        """Those of which only the log knows that they were terminated."""
        return tuple((act, ended) for act, ended in self.agreed if not act.sure)


def compare(
    ours: Sequence[Act], theirs: Sequence[Ended], *, first: datetime | None, last: datetime | None
) -> Compared:
    """Bring each termination of the log to the act that it belongs to."""
    by_pid = dict[int, list[Ended]]()
    for ended in theirs:
        by_pid.setdefault(ended.pid, []).append(ended)
    agreed, missing, uncovered, spared = list[tuple[Act, Ended]](), list[Act](), list[Act](), list[Act]()
    for act in ours:
        fitting = [ended for ended in by_pid.get(act.pid, []) if _fits(act, ended)]
        if fitting:
            best = min(fitting, key=lambda ended: abs(ended.at - act.seen))
            by_pid[act.pid].remove(best)
            agreed.append((act, best))
        elif first is None or last is None or not first <= act.seen <= last:
            uncovered.append(act)
        else:
            (missing if act.sure else spared).append(act)
    return Compared(
        agreed=tuple(agreed),
        missing=tuple(missing),
        uncovered=tuple(uncovered),
        spared=tuple(spared),
        others=tuple(sorted((each for rest in by_pid.values() for each in rest), key=lambda each: each.at)),
    )


def _fits(act: Act, ended: Ended) -> bool:
    if ended.started is not None and abs(ended.started - act.started) > _STARTED:
        return False
    return act.seen - _EARLY <= ended.at <= act.until + _LATE


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """From one count of the server to the next."""

    server: str
    begin: datetime
    end: datetime
    counted: int | None
    """How many the server has counted meanwhile; nothing when that cannot be told."""
    recorded: int
    """How many the record is sure of."""
    possible: int
    """How many it may have been."""
    why: str = ""
    """Why it cannot be told."""

    @property
    def agrees(self) -> bool:
        """Whether the server has counted at least what we have done."""
        return self.counted is None or self.counted >= self.recorded

    @property
    def others(self) -> tuple[int, int]:
        """At least and at most so many were terminated by others."""
        counted = self.counted or 0
        return max(0, counted - self.possible), max(0, counted - self.recorded)


def stretches(events: Iterable[Event], ours: Sequence[Act]) -> Iterator[Stretch]:
    """Each time between two counts of one server."""
    counts = dict[str, list[tuple[datetime, Event]]]()
    for event in events:
        at = parse_time(event.fields.get("server_time"))
        if event.name == COUNTERS and at is not None:
            counts.setdefault(event.text("server") or "", []).append((at, event))
    for server, counted in counts.items():
        for (begin, before), (end, after) in pairwise(sorted(counted, key=lambda each: each[0])):
            here = [act for act in ours if act.server == server and begin - _EDGE < act.seen < end + _EDGE]
            difference, why = _difference(before.fields, after.fields)
            yield Stretch(
                server=server,
                begin=begin,
                end=end,
                counted=difference,
                recorded=sum(_certain(act, begin, end) for act in here),
                possible=len(here),
                why=why,
            )


def _certain(act: Act, begin: datetime, end: datetime) -> bool:
    return act.sure and begin + _EDGE <= act.seen and act.until <= end - _EDGE


def _difference(before: Mapping[str, object], after: Mapping[str, object]) -> tuple[int | None, str]:
    first, last = before.get("terminations"), after.get("terminations")
    if not isinstance(first, int) or not isinstance(last, int):
        return None, "this server does not count (before 14)"
    if before.get("server_started") != after.get("server_started"):
        return None, "the server was started anew, and may have forgotten its count"
    if before.get("counters_reset") != after.get("counters_reset") or last < first:
        return None, "a count was set to zero"
    if before.get("databases") != after.get("databases"):
        return None, "databases came or went, and their counts with them"
    return last - first, ""
