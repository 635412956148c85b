"""What the records of all reapers of a campaign say that was done."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from reaper.audit.events import INTENT, OUTCOME, Event
from reaper.audit.reader import Torn, read_events
from reaper.audit.recovery import ENDED

from .server_log import Who


@dataclass(slots=True, kw_only=True)
class Deed:
    """One intent and what became of it."""

    run: str
    cycle: str
    who: Who
    application: str
    since: datetime
    """When its cycle looked, by the server's clock."""
    written: float = 0.0
    """When its intent was written, by the clock of this host."""
    outcome: str | None = None
    orphaned: bool = False
    """Whether its life ended before its outcome was known."""
    until: datetime | None = None
    """When its outcome was seen, by the server's clock; nothing when nobody saw it."""
    inspect_again: datetime | None = None
    """When the act looked once more, by the server's clock; nothing when no signal is known of."""


def deeds(paths: Iterable[Path]) -> list[Deed]:
    """Every intent to act, rehearsals left out, with its best outcome."""
    known = dict[str, Deed]()
    events = [event for event in _events(paths) if _is_act(event)]
    # Intents first: what was cut off a record, or moved away with it, is read in any order.
    for event in sorted(events, key=lambda event: event.name != INTENT):
        intent = str(event.text("intent"))
        if event.name == INTENT:
            known.setdefault(intent, _deed(event))
        elif event.name == OUTCOME and intent in known:
            _settle(known[intent], event)
    return list(known.values())


def _is_act(event: Event) -> bool:
    enforced = event.text("mode") == "enforce" and not event.fields.get("dry_run")
    return event.text("intent") is not None and enforced


def _events(paths: Iterable[Path]) -> list[Event]:
    read = [event for path in paths if path.exists() for event in read_events(path)]
    return [event for event in read if not isinstance(event, Torn)]


def _deed(event: Event) -> Deed:
    began = _instant(event, "backend_start")
    since = _instant(event, "server_time")
    assert began
    assert since
    return Deed(
        run=str(event.text("run")),
        cycle=str(event.text("cycle")),
        who=Who(int(began.timestamp()), int(str(event.fields["pid"]))),
        application=str(event.text("application")),
        since=since,
        written=event.time.timestamp(),
    )


def _settle(deed: Deed, event: Event) -> None:
    if deed.outcome in {None, "unknown"}:  # one that is known counts more
        deed.outcome = event.text("outcome")
        deed.orphaned = event.text("detail") == ENDED
        deed.until = _instant(event, "outcome_at") or deed.until
        deed.inspect_again = _instant(event, "looked_again_at") or deed.inspect_again


def _instant(event: Event, field: str) -> datetime | None:
    text = event.text(field)
    return datetime.fromisoformat(text) if text else None
