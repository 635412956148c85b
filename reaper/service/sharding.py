"""Which of many reapers looks after a server: rendezvous hashing, so that resizing moves few servers.

Nothing coordinates the shards. Two that overlap for a while meet at the server's advisory lock.
"""

import re
from dataclasses import dataclass
from hashlib import blake2b

# The name of a pod as Kubernetes writes it, and no more shards than lots can be drawn for in a moment.
_SHARD = re.compile(r"(?:[a-z0-9][a-z0-9.-]*-)?(\d{1,4})/(\d{1,4})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Shard:
    """One of `count` equals."""

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Read `2/8`, or a pod's name with its ordinal: `reaper-2/8`; anything else is a ValueError."""
        found = _SHARD.fullmatch(text)
        if not found:
            message = f"{text!r} is no shard: write INDEX/COUNT such as 0/4, or POD-NAME/COUNT"
            raise ValueError(message)
        index, count = map(int, found.groups())
        if not index < count:
            message = f"shard {index} of {count} does not exist: indexes run from 0 to {count - 1}"
            raise ValueError(message)
        return cls(index, count)

    def owns(self, name: str) -> bool:
        """Whether a server of this name is ours: the shard that draws the highest lot for it has it."""
        return max(range(self.count), key=lambda index: _lot(name, index)) == self.index

    def __str__(self) -> str:
        """`2/8`."""
        return f"{self.index}/{self.count}"


def _lot(name: str, index: int) -> bytes:
    return blake2b(f"{index}\0{name}".encode(), digest_size=8).digest()
