"""The volumes of one record: the file that is written now, and its rotated copies, plain or gzipped.

Rotation renames a file, compresses it, moves it on. What stays is how it begins: the first line of a volume
carries the life and the number of its writer, so that no two volumes begin alike.
"""

import gzip
import hashlib
import os
import stat
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple, cast

from reaper.record.reader import LONGEST_LINE

POSITIONS: Final = ".shipped"
"""What is added to the record's name for the file that tells how far it has been read."""

UNPACKING: Final = (EOFError, zlib.error, gzip.BadGzipFile)

_GZIP: Final = b"\x1f\x8b"


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
        """Oldest first; each once, even while a copy is being compressed; OSError without its folder."""
        found = sorted(self._files(), key=lambda each: (each[1].changed_ns, each[0] == self._path))
        self._known = dict(self._looks(found))
        best = dict[str, Volume]()
        for path, signature in found:
            if about := self._known.get(signature):
                volume = Volume(path=path, identity=about[0], signature=signature, packed=about[1])
                best[volume.identity] = min(best.get(volume.identity, volume), volume, key=_completest)
        return list(best.values())

    def _files(self) -> Iterator[tuple[Path, Signature]]:
        name = self._path.name
        with os.scandir(self._path.parent) as entries:
            for entry in entries:
                is_copy = entry.name.startswith((f"{name}.", f"{name}-"))
                if entry.name == name or (is_copy and not entry.name.startswith(name + POSITIONS)):
                    yield from _regular(Path(entry.path))

    def _looks(self, found: Iterable[tuple[Path, Signature]]) -> Iterator[tuple[Signature, _About]]:
        for path, signature in found:
            if signature in self._known:
                yield signature, self._known[signature]
                continue
            # One that was moved on meanwhile is found by the next look.
            with suppress(FileNotFoundError):
                yield signature, self._look(path)

    def _look(self, path: Path) -> _About:
        try:
            with opened(path) as (stream, packed):
                first = stream.readline(LONGEST_LINE)
        except FileNotFoundError:
            raise
        except (OSError, *UNPACKING) as error:
            self.troubles.append(f"{path} cannot be read: {reason(error)}")
            return None
        if not first.isascii():
            self.troubles.append(f"{path} cannot be read: it is no record, neither plain nor gzipped")
            return None
        return (hashlib.sha256(first).hexdigest(), packed) if first.endswith(b"\n") else None


@contextmanager
def opened(path: Path) -> Iterator[tuple[BinaryIO, bool]]:
    """The content of a volume, and whether it had to be unpacked for that."""
    # A pipe that somebody has put there would keep us waiting for a writer.
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        packed = file.peek(len(_GZIP)).startswith(_GZIP)
        yield (cast("BinaryIO", gzip.GzipFile(fileobj=file)) if packed else file), packed


def signature_of(status: os.stat_result) -> Signature:
    """The signature of a file with this status."""
    return Signature(status.st_ino, status.st_size, status.st_mtime_ns)


def reason(error: BaseException) -> str:
    """What the system says, without the name of the file."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _regular(path: Path) -> Iterable[tuple[Path, Signature]]:
    try:
        status = path.stat()
    except OSError:
        return ()  # gone, or a link to nowhere
    return ((path, signature_of(status)),) if stat.S_ISREG(status.st_mode) else ()


def _completest(volume: Volume) -> tuple[bool, int]:
    """A plain one before the packed one that is being made of it, the longest of several copies."""
    return volume.packed, -volume.signature.size
