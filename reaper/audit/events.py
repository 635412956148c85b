"""The schema of the record: one JSON object a line, flat, the same for rehearsed and real.

`EVENTS` lists every event with every field that it carries. A field is always there, null when the server did
not tell, except those in `OPTIONAL`. Readers must allow for new fields; a field that changes its meaning
changes `SCHEMA`.
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
HELD_BACK: Final = "policy.held_back"

PREV: Final = "prev"
"""The field by which each line holds on to the one before it."""
AT_THE_TOP: Final = "at 0 bytes"
"""How the detail of the line that opens an empty file begins."""
A_STREAM: Final = "a stream"
"""The detail of the line that opens a stream, whose chain is of one life and begins there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened: its name, the moment by this host's clock, and what there is to know."""

    name: str
    time: datetime
    fields: Mapping[str, object]

    def text(self, field: str) -> str | None:
        """A field that is text; None when it is missing or something else."""
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
    Field("seq", "integer", "counts the events of one life in one sink; a gap is a line that did not arrive"),
    Field("run", "text", "one life of the writer"),
    Field("version", "text", "the version of the reaper"),
    Field("host", "text", "the host that the reaper runs on"),
    Field(PREV, "text?", "the SHA-256 of the line before it; null where the chain begins"),
)
_ABOUT_THE_RECORD: Final = (
    Field("file", "text", "the sink that this is about"),
    Field("detail", "text", "what was found"),
)
_CYCLE: Final = (
    Field("cycle", "text", "the cycle in which it happened"),
    Field("server", "text", "the server's name in the policy file"),
    Field("rules", "text", "the digest of the policy file"),
    Field("by", "text", "the role that the reaper logged in as"),
    Field("dry_run", "boolean", "the whole run was a rehearsal, whatever the policy's mode"),
    Field("policy", "text", "the policy that decided"),
    Field("mode", "text", "the policy's mode: enforce or dry-run"),
    Field("action", "text", "what the policy asks for: terminate or cancel"),
    Field("server_time", "instant", "when the session was seen, by the server's clock"),
    Field("reason", "text", "why, in words"),
)
_SESSION: Final = (
    Field("intent", "text", "identifies the intent, and joins its outcome to it"),
    Field("pid", "integer", "with backend_start, the session's identity"),
    Field("backend_start", "instant", "when it connected, by the server's clock"),
    Field("role", "text?", "its role"),
    Field("database", "text?", "its database"),
    Field("application", "text?", "the application name that the client gave"),
    Field("client", "text?", "the client's address; null through the server's own socket"),
    Field("client_port", "integer?", "the client's port"),
    Field("state", "text?", "its state when it was seen"),
    Field("state_change", "instant?", "since when it has been in this state"),
    Field("query_start", "instant?", "when its last query began"),
    Field("xact_start", "instant?", "when its transaction began"),
    Field("idle_s", "number?", "seconds in this state, by the server's clock"),
    Field("transaction_s", "number?", "seconds in this transaction, by the server's clock"),
    Field("connected_s", "number?", "seconds connected, by the server's clock"),
    Field("query", "text?", "its last query; only when query text was asked for"),
)
_OUTCOME: Final = (
    Field("outcome", "text", "what became of it"),
    Field("detail", "text?", "what the server said, or why it was not attempted"),
    Field("outcome_at", "instant?", "when that was seen, by the server's clock"),
    Field("looked_again_at", "instant?", "when the act looked once more; null when nothing was signalled"),
    Field("signalled_at", "instant?", "when it had signalled; in between the session may have woken unseen"),
)
_FATE: Final = (
    Field("fate", "text", "what became of it after its rehearsal: unused so far, left, revived or unknown"),
    Field("detail", "text", "the same in words"),
    Field("fate_at", "instant", "when that was seen, by the server's clock"),
    Field("used_at", "instant?", "when it was used again, by the server's clock"),
    Field("after_s", "number", "seconds from the rehearsal until it was used, was gone, or until now"),
    Field("unseen_s", "number", "seconds before that in which nobody looked"),
)
_BRAKE: Final = (
    Field("condemned", "integer", "how many sessions the policy would have taken"),
    Field("clients", "integer", "of how many client sessions"),
)
_LEFT_ALONE: Final = (
    Field("role", "text?", "the group's role"),
    Field("database", "text?", "the group's database"),
    Field("application", "text?", "the group's application name"),
    Field("client", "text?", "the group's address; null through the server's own socket"),
    Field("acts", "integer", "so many of its sessions were terminated"),
    Field("came_back", "integer", "so many new ones took their places at once"),
    Field("until", "instant", "it is left alone until then, by the server's clock"),
)

_HELD_BACK: Final = (
    Field("restraint", "text", "what held them back: brake, churn, cap, keep or pace"),
    Field("held", "integer", "so many sessions at once, more than ever before by these rules"),
)
_COUNTERS: Final = (
    Field("server", "text", "the server's name in the policy file"),
    Field("by", "text", "the role that the reaper logged in as"),
    Field("server_time", "instant", "when it was counted, by the server's clock"),
    Field("server_started", "instant", "when the server was started"),
    Field("databases", "integer", "how many databases the count is of"),
    Field(
        "terminations", "integer?", "sessions that were terminated, by whomever, as the server counts them"
    ),
    Field("counters_reset", "instant?", "when a count was last set to zero"),
)

EVENTS: Final[Mapping[str, tuple[Field, ...]]] = {
    OPENED: (*_EVERY, *_ABOUT_THE_RECORD),
    TORN: (*_EVERY, *_ABOUT_THE_RECORD),
    TRUNCATED: (*_EVERY, *_ABOUT_THE_RECORD),
    CLOSED: (*_EVERY, *_ABOUT_THE_RECORD),
    INTENT: (*_EVERY, *_CYCLE, *_SESSION),
    OUTCOME: (*_EVERY, *_CYCLE, *_SESSION, *_OUTCOME),
    BRAKED: (*_EVERY, *_CYCLE, *_BRAKE),
    COUNTERS: (*_EVERY, *_COUNTERS),
    LEFT_ALONE: (*_EVERY, *_CYCLE, *_LEFT_ALONE),
    HELD_BACK: (*_EVERY, *_CYCLE, *_HELD_BACK),
    FATE: (*_EVERY, *_CYCLE, *_SESSION, *_FATE),
}
OPTIONAL: Final = frozenset({"query"})
WRITTEN_BY_THE_PEN: Final = frozenset({"schema", "event", "time", "seq", "run", PREV})
