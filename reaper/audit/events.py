"""The schema of the audit log: one flat JSON object a line, the same for a dry run and for real.

`EVENTS` lists every event with its fields; help/audit-log.md says what each field is. A field is always
present, and null if its value is unknown, except those in `OPTIONAL`. Readers must accept new fields; if the
sense of a field changes, `SCHEMA` does too.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

SCHEMA: Final = 1

OPENED: Final = "audit.opened"
TORN: Final = "audit.torn"
TRUNCATED: Final = "audit.truncated"
CLOSED: Final = "audit.closed"
INTENT: Final = "session.intent"
OUTCOME: Final = "session.outcome"
SAFETY_LIMIT: Final = "policy.safety_limit"
COUNTERS: Final = "server.counters"
DRY_RUN_OUTCOME: Final = "session.dry_run_outcome"
GROUP_PAUSED: Final = "policy.paused"

PREV: Final = "prev"
"""The field with the digest of the line before."""
AT_THE_TOP: Final = "at 0 bytes"
"""The first words of the detail of the event that opens an empty file."""
A_STREAM: Final = "a stream"
"""The detail of the event that opens a stream: its chain covers one run, and begins there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """An entry: its name, its time by the clock of this host, and its fields."""

    name: str
    time: datetime
    fields: Mapping[str, object]

    def text(self, field: str) -> str | None:
        """The value of a field, or None if it is missing or no text."""
        value = self.fields.get(field)
        return value if isinstance(value, str) else None


_EVERY: Final = ("schema", "event", "time", "seq", "run", "version", "host", PREV)
_SINK: Final = ("file", "detail")
_CYCLE: Final = (
    *("cycle", "server", "rules", "by", "dry_run"),
    *("policy", "mode", "action", "server_time", "reason"),
)
_SESSION: Final = (
    *("intent", "pid", "backend_start", "role", "database", "application", "client"),
    *("client_port", "state", "state_change", "query_start", "xact_start"),
    *("idle_s", "transaction_s", "connected_s", "query"),
)
_OUTCOME: Final = ("outcome", "detail", "outcome_at", "looked_again_at", "signalled_at")
_DRY_RUN_OUTCOME: Final = (
    "dry_run_outcome",
    "detail",
    "dry_run_outcome_at",
    "used_at",
    "after_s",
    "unseen_s",
)
_SAFETY_LIMIT: Final = ("matched", "clients")
_REFILL_GUARD: Final = ("role", "database", "application", "client", "terminated", "refilled", "until")
_COUNTERS: Final = (
    *("server", "by", "server_time", "server_started"),
    *("databases", "terminations", "counters_reset"),
)

EVENTS: Final[Mapping[str, tuple[str, ...]]] = {
    OPENED: (*_EVERY, *_SINK),
    TORN: (*_EVERY, *_SINK),
    TRUNCATED: (*_EVERY, *_SINK),
    CLOSED: (*_EVERY, *_SINK),
    INTENT: (*_EVERY, *_CYCLE, *_SESSION),
    OUTCOME: (*_EVERY, *_CYCLE, *_SESSION, *_OUTCOME),
    SAFETY_LIMIT: (*_EVERY, *_CYCLE, *_SAFETY_LIMIT),
    COUNTERS: (*_EVERY, *_COUNTERS),
    GROUP_PAUSED: (*_EVERY, *_CYCLE, *_REFILL_GUARD),
    DRY_RUN_OUTCOME: (*_EVERY, *_CYCLE, *_SESSION, *_DRY_RUN_OUTCOME),
}
OPTIONAL: Final = frozenset({"query"})
STAMPED: Final = frozenset({"schema", "event", "time", "seq", "run", PREV})
"""The fields that are added to every event when it is written."""
