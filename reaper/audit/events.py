"""The schema of the audit log: one flat JSON object a line, the same for a dry run and for real.

`EVENTS` lists every event with every field that it carries. A field is always present, and null if its
value is unknown, except those in `OPTIONAL`. Readers must accept new fields; if the sense of a field changes,
`SCHEMA` does too.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple

SCHEMA: Final = 1

OPENED: Final = "record.opened"
TORN: Final = "record.torn"
TRUNCATED: Final = "record.truncated"
CLOSED: Final = "record.closed"
INTENT: Final = "session.intent"
OUTCOME: Final = "session.outcome"
BRAKED: Final = "policy.braked"
COUNTERS: Final = "server.counters"
FATE: Final = "session.fate"
LEFT_ALONE: Final = "policy.left_alone"

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


class Field(NamedTuple):
    """A field of the schema; a kind that ends in `?` may be null."""

    name: str
    kind: str
    meaning: str


_EVERY: Final = (
    Field("schema", "integer", "the version of this schema"),
    Field("event", "text", "the event's name"),
    Field("time", "instant", "when, by the clock of the reaper's host"),
    Field("seq", "integer", "counts the events of one run in one sink; a gap is a line that is missing"),
    Field("run", "text", "the id of one run of the writer"),
    Field("version", "text", "the version of the reaper"),
    Field("host", "text", "the host that the reaper runs on"),
    Field(PREV, "text?", "the SHA-256 of the line before it; null where the chain begins"),
)
_SINK: Final = (
    Field("file", "text", "the file or stream"),
    Field("detail", "text", "what was found"),
)
_CYCLE: Final = (
    Field("cycle", "text", "the cycle"),
    Field("server", "text", "the server's name in the policy file"),
    Field("rules", "text", "the digest of the policy file"),
    Field("by", "text", "the role of the reaper's connection"),
    Field("dry_run", "boolean", "every policy was a dry run, whatever its mode"),
    Field("policy", "text", "the policy"),
    Field("mode", "text", "the policy's mode: enforce or dry-run"),
    Field("action", "text", "the policy's action: terminate or cancel"),
    Field("server_time", "instant", "when the session was observed, by the server's clock"),
    Field("reason", "text", "the reason, as a sentence"),
)
_SESSION: Final = (
    Field("intent", "text", "identifies the intent and its outcome"),
    Field("pid", "integer", "with backend_start, the session's identity"),
    Field("backend_start", "instant", "when it connected, by the server's clock"),
    Field("role", "text?", "its role"),
    Field("database", "text?", "its database"),
    Field("application", "text?", "the application name that the client gave"),
    Field("client", "text?", "the client's address; null through the server's own socket"),
    Field("client_port", "integer?", "the client's port"),
    Field("state", "text?", "its state"),
    Field("state_change", "instant?", "since when it has been in this state"),
    Field("query_start", "instant?", "when its last query began"),
    Field("xact_start", "instant?", "when its transaction began"),
    Field("idle_s", "number?", "seconds in this state, by the server's clock"),
    Field("transaction_s", "number?", "seconds in this transaction, by the server's clock"),
    Field("connected_s", "number?", "seconds connected, by the server's clock"),
    Field("query", "text?", "its last query; only with --with-query-text"),
)
_OUTCOME: Final = (
    Field("outcome", "text", "what happened"),
    Field("detail", "text?", "the server's message, or why it was not attempted"),
    Field("outcome_at", "instant?", "when that was observed, by the server's clock"),
    Field("looked_again_at", "instant?", "when the session was checked again; null if no signal was sent"),
    Field(
        "signalled_at",
        "instant?",
        "when the signal was sent; between the two the session may have become active",
    ),
)
_FATE: Final = (
    Field("fate", "text", "what happened after the dry run: unused so far, left, revived or unknown"),
    Field("detail", "text", "the same in words"),
    Field("fate_at", "instant", "when that was observed, by the server's clock"),
    Field("used_at", "instant?", "when it was used again, by the server's clock"),
    Field("after_s", "number", "seconds from the dry run until it was used, was gone, or until now"),
    Field("unseen_s", "number", "seconds before that without an observation"),
)
_BRAKE: Final = (
    Field("condemned", "integer", "the number of sessions that the policy matches"),
    Field("clients", "integer", "the number of client sessions"),
)
_LEFT_ALONE: Final = (
    Field("role", "text?", "the group's role"),
    Field("database", "text?", "the group's database"),
    Field("application", "text?", "the group's application name"),
    Field("client", "text?", "the group's address; null through the server's own socket"),
    Field("acts", "integer", "the number of its sessions that were terminated"),
    Field("came_back", "integer", "the number of new sessions that replaced them at once"),
    Field("until", "instant", "the group is left alone until then, by the server's clock"),
)

_COUNTERS: Final = (
    Field("server", "text", "the server's name in the policy file"),
    Field("by", "text", "the role of the reaper's connection"),
    Field("server_time", "instant", "when it was counted, by the server's clock"),
    Field("server_started", "instant", "when the server started"),
    Field("databases", "integer", "the number of databases that are counted"),
    Field("terminations", "integer?", "sessions terminated, by any role, as the server counts them"),
    Field("counters_reset", "instant?", "when a counter was last reset"),
)

EVENTS: Final[Mapping[str, tuple[Field, ...]]] = {
    OPENED: (*_EVERY, *_SINK),
    TORN: (*_EVERY, *_SINK),
    TRUNCATED: (*_EVERY, *_SINK),
    CLOSED: (*_EVERY, *_SINK),
    INTENT: (*_EVERY, *_CYCLE, *_SESSION),
    OUTCOME: (*_EVERY, *_CYCLE, *_SESSION, *_OUTCOME),
    BRAKED: (*_EVERY, *_CYCLE, *_BRAKE),
    COUNTERS: (*_EVERY, *_COUNTERS),
    LEFT_ALONE: (*_EVERY, *_CYCLE, *_LEFT_ALONE),
    FATE: (*_EVERY, *_CYCLE, *_SESSION, *_FATE),
}
OPTIONAL: Final = frozenset({"query"})
STAMPED: Final = frozenset({"schema", "event", "time", "seq", "run", PREV})
"""The fields that are added to every event when it is written."""
