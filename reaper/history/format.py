"""The format of a history file: gzipped lines of JSON, the first a head, each other one look.

`zcat` shows it. A look holds only what is new since the look before, so the first look of every file holds
everybody, and no file needs another. All numbers are whole; instants are microseconds since 1970, and those
of a session are told as how long ago that was.
"""

from typing import Final

from reaper.policy.time import SECOND

FORMAT: Final = 1
SUFFIX: Final = ".jsonl.gz"
GZIP: Final = 31
"""What zlib calls this framing."""

MOST_BACKENDS: Final = 262_143
"""No server has more."""
MANY_NAMES: Final = 32_768
"""A file that knows so many names is followed by the next one: a client may invent a name a connection."""
MANY_OLD_NAMES: Final = 8_192
"""And so is one that knows so many beside four for each session that is there: they stay in memory too."""
MOST_NAMES: Final = MANY_NAMES + 4 * MOST_BACKENDS
"""As many as a last line may have added."""
MOST_TEXT: Final = 32 * 1024 * 1024
"""Characters of all names of a file together."""
LONGEST_EVERY: Final = 3_600 * SECOND
"""Readings that are farther apart say nothing of what lies between."""
LONGEST_TEXT: Final = 1_000
"""Characters; names of a server have at most 63 bytes."""
LONGEST_LINE: Final = 64 * 1024 * 1024
MOST_BYTES: Final = 2 * 1024 * 1024 * 1024
"""Of one file, unpacked; ours end long before."""
FARTHEST: Final = 2**66
"""Beyond every instant and every age that a server can tell."""

NO_STATE_CHANGE: Final = 1
NO_QUERY_START: Final = 2
NO_XACT_START: Final = 4
NO_XID_AGE: Final = 8
LISTENS: Final = 16
STARTS_BACKUP: Final = 32
NO_ROLE_OID: Final = 64
NO_PORT: Final = 128
SUPERUSER: Final = 256


class BadHistory(Exception):
    """A file is no history, or not one that can be believed; a sentence that says where and what."""

    def __init__(self, *, file: str, line: int, what: str) -> None:
        super().__init__(f"{file}:{line}: {what}")
