"""The chain: every line carries the digest of the one before it, so that none can change or go unseen.

The digest is SHA-256 over the bytes of the last whole line, without its end; what was torn behind that line
belongs to it, with the line ends between. A line is whole when it is a JSON object that has a `schema`.
"""

from collections.abc import Iterable
from hashlib import sha256
from typing import Final, Protocol, Self

from reaper.record.events import PREV

_END: Final = b"}\n"


class _Digest(Protocol):
    def update(self, data: bytes, /) -> None: ...
    def hexdigest(self) -> str: ...
    def copy(self) -> Self: ...


class Chain:
    """Follows the lines in their order, and knows the digest that the next one has to carry."""

    def __init__(self, digest: _Digest | None = None, *, loose: bool = False) -> None:
        self._digest = digest
        self.ends_loose = loose
        """Whether something stands behind the last whole line."""

    @property
    def head(self) -> str | None:
        """The digest for the next line; nothing where nothing stands before it."""
        return self._digest.hexdigest() if self._digest else None

    def whole(self, line: bytes) -> None:
        """A whole line, without its end: from here on nothing before it is needed."""
        self._digest = sha256(line)
        self.ends_loose = False

    def loose(self, line: bytes) -> None:
        """What is no whole line, without its end; it may be several, with the ends between."""
        self.more(b"\n" + line if self._digest else line)

    def more(self, piece: bytes) -> None:
        """The next piece of what is too long to be held at once."""
        self._digest = self._digest or sha256()
        self._digest.update(piece)
        self.ends_loose = True

    def copy(self) -> "Chain":
        """Another that goes on from here."""
        return Chain(self._digest.copy() if self._digest else None, loose=self.ends_loose)

    def carry_on(self, lines: Iterable[bytes]) -> list[bytes]:
        """These lines of the pen, each with the digest of the one before it."""
        linked = []
        for line in lines:
            linked.append(linked_to(self.head, line))
            self.whole(linked[-1].removesuffix(b"\n"))
        return linked


def linked_to(head: str | None, line: bytes) -> bytes:
    """A line of the pen, with the digest of the one before it as its last field."""
    digest = "null" if head is None else f'"{head}"'
    return line.removesuffix(_END) + f', "{PREV}": {digest}'.encode() + _END
