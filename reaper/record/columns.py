"""What of a line can be asked for in a table: a few of its fields beside the line itself.

The line may hold anything. Nothing in it raises, and everything that comes out can be stored as text: a table
knows no NUL and no half of a surrogate pair.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Final

from reaper.record.reader import parse_time

TEXTS: Final = (
    "event",
    "run",
    "host",
    "server",
    "policy",
    "mode",
    "action",
    "intent",
    "role",
    "database",
    "application",
    "client",
    "state",
    "reason",
    "outcome",
    "detail",
)
NUMBERS: Final = {"seq": 2**63, "pid": 2**31}
"""With the first number that is too large for the column."""

_LONGEST: Final = 1_000
"""Characters, more than any name or reason of ours has; in the line it stands whole."""


def columns(line: bytes) -> dict[str, object]:
    """A row for a line; what is missing, or is not what it should be, is null."""
    text = line.decode("ascii", "backslashreplace").replace("\0", "\\x00")
    fields = _fields(text)
    return {
        "digest": hashlib.sha256(text.encode("ascii")).digest(),
        "line": text,
        "time": parse_time(fields.get("time")),
        **{name: _text(fields.get(name)) for name in TEXTS},
        **{name: _number(fields.get(name), below) for name, below in NUMBERS.items()},
    }


def _fields(text: str) -> Mapping[str, object]:
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return fields if isinstance(fields, dict) else {}


def _text(value: object) -> str | None:
    if not isinstance(value, str):
        return None
    cut = value[:_LONGEST].encode("utf-8", "backslashreplace").decode()
    return cut.replace("\0", "\\x00")


def _number(value: object, below: int) -> int | None:
    if not isinstance(value, int) or isinstance(value, bool):
        return None
    return value if -below <= value < below else None
