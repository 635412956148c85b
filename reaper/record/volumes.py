"""The volumes of one record: the file that is written now, and its rotated copies, plain or gzipped.

Rotation renames a file, compresses it, moves it on. What stays is how it begins: the first line of a volume
carries the life and the number of its writer, so that no two volumes begin alike.
"""

import gzip
import hashlib
import stat
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from reaper.record.reader import LONGEST_LINE, opened
from reaper.record.rotation import rotated_copies

POSITIONS: Final = ".shipped"
"""What is added to the record's name for the file that tells how far it has been read."""

UNPACKING: Final = (EOFError, zlib.error, gzip.BadGzipFile)


class Signature(NamedTuple):
    """What changes with the content of a file, and not with its name."""

    inode: int
    size: int
    changed_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """One file of a record."""

    path: Path
    identity: str
    """The digest of its first line."""
    signature: Signature
    packed: bool


_About = tuple[str, bool] | None
"""A volume's identity, and whether it is packed; nothing when there is no whole line in it."""


class Shelf:
    """All volumes of one record, as they stand there now."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[Signature, _About] = {}
        self.troubles: list[str] = []
        """What is new and wrong, in sentences."""

    def volumes(self) -> list[Volume]:
        """Oldest first, each once though somebody has copied it; OSError without its folder."""
        found = list(self._files())
        self._known = dict(self._looks(found))
        best = dict[str, Volume]()
        for path, signature in found:
            if about := self._known.get(signature):
                volume = Volume(path=path, identity=about[0], signature=signature, packed=about[1])
                best[volume.identity] = max(best.get(volume.identity, volume), volume, key=_size)
        return list(best.values())

    def _files(self) -> Iterator[tuple[Path, Signature]]:
        for path in (*rotated_copies(self._path), self._path):
            # One that was moved on meanwhile is found by the next look.
            with suppress(FileNotFoundError):
                status = path.stat()
                if stat.S_ISREG(status.st_mode):
                    yield path, Signature(status.st_ino, status.st_size, status.st_mtime_ns)

    def _looks(self, found: Iterable[tuple[Path, Signature]]) -> Iterator[tuple[Signature, _About]]:
        for path, signature in found:
            if signature in self._known:
                yield signature, self._known[signature]
                continue
            with suppress(FileNotFoundError):  # as above
                yield signature, self._look(path)

    def _look(self, path: Path) -> _About:
        try:
            with opened(path) as stream:
                first, packed = stream.readline(LONGEST_LINE), isinstance(stream, gzip.GzipFile)
        except FileNotFoundError:
            raise
        except (OSError, *UNPACKING) as error:
            self.troubles.append(f"{path} cannot be read: {reason(error)}")
            return None
        if not first.isascii():
            self.troubles.append(f"{path} cannot be read: it is no record, neither plain nor gzipped")
            return None
        return (identity_of(first), packed) if first.endswith(b"\n") else None


def identity_of(first: bytes) -> str:
    """The identity of a volume that begins with this line."""
    return hashlib.sha256(first).hexdigest()


def reason(error: BaseException) -> str:
    """What the system says, without the name of the file."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _size(volume: Volume) -> int:
    return volume.signature.size
