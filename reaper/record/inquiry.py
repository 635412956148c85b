"""Questions to a record that was read: which events, one outcome an intent, and how many of each kind."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Final

from reaper.policy.selector import Glob
from reaper.policy.spans import from_datetime, isoformat
from reaper.policy.verdict import Result
from reaper.record.events import OUTCOME, Event

GROUPS: Final = ("policy", "application", "role", "outcome", "server", "database")


@dataclass(frozen=True, slots=True, kw_only=True)
class Inquiry:
    """Which events are asked for; what was not given asks for all."""

    globs: Mapping[str, Sequence[Glob]] = field(default_factory=lambda: MappingProxyType({}))
    pids: frozenset[int] = frozenset()
    since: datetime | None = None
    until: datetime | None = None

    def wants(self, event: Event) -> bool:
        """Whether every question is answered yes; a field that is not known answers none."""
        pid = event.fields.get("pid")
        return (
            (self.since is None or event.time >= self.since)
            and (self.until is None or event.time < self.until)
            and (not self.pids or (isinstance(pid, int) and pid in self.pids))
            and all(
                any(glob.matches(event.text(key)) for glob in globs)
                for key, globs in self.globs.items()
                if globs
            )
        )


def outcomes(events: Iterable[Event]) -> list[Event]:
    """One outcome for each intent, in order of time."""
    found = dict[str, Event]()
    for event in events:
        if event.name != OUTCOME:
            continue
        intent = event.text("intent") or f"none/{len(found)}"
        # A repeated line says the same; an outcome that is known counts more than one that is not.
        if intent not in found or found[intent].text("outcome") == Result.UNKNOWN:
            found[intent] = event
    return sorted(found.values(), key=lambda event: event.time)


def summary(found: Iterable[Event], by: str) -> list[dict[str, object]]:
    """A row for each value of a field: how many of each outcome, how many in all, and when the last was."""
    groups = dict[str | None, list[Event]]()
    for event in found:
        groups.setdefault(event.text(by), []).append(event)
    columns = _columns(groups.values()) if by != "outcome" else []
    rows: list[dict[str, object]] = [
        {
            by: group,
            **{column: sum(event.text("outcome") == column for event in events) for column in columns},
            "total": len(events),
            "last": moment(max(event.time for event in events)),
        }
        for group, events in groups.items()
    ]
    return sorted(rows, key=_largest_first(by))


def moment(time: datetime) -> str | None:
    """A moment as the record spells it."""
    return isoformat(from_datetime(time))


def _columns(groups: Iterable[Iterable[Event]]) -> list[str]:
    """The outcomes that occur, in the order in which they are defined."""
    occur = {event.text("outcome") for events in groups for event in events}
    return [result for result in Result if result in occur]


def _largest_first(by: str) -> Callable[[Mapping[str, object]], tuple[int, str]]:
    return lambda row: (-int(str(row["total"])), str(row[by]))
