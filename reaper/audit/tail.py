"""Follows an audit log through rotation: every whole line of its plain files once, in bounded chunks.

It is called in a thread, because it reads files. Compressed copies are not read, but reported if they hold
lines that were not read before.
"""

import hashlib
import json
import os
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from reaper.audit.reader import LONGEST_LINE, UNPACK_ERRORS, is_gzipped, opened, rotated_copies

OFFSETS: Final = ".shipped"
"""Appended to the name of the audit log: the file with the offsets."""

_BLOCK: Final = 128 * 1024
_MOST_LINES: Final = 500
_CHECKED: Final = 256
"""Bytes before an offset whose digest shows that the file still is the same up to there."""
_MISSING_SECONDS: Final = 60.0
"""In the middle of a rotation a file has no name; after this time it was removed."""
_LONGEST_OFFSETS_FILE: Final = 1_000_000


class Offset(NamedTuple):
    """How far one file was read."""

    offset: int = 0
    check: str = ""
    """The digest of the bytes before the offset."""
    size: int = 0
    """The size of the file when it was last seen."""
    torn: int = 0
    """The number of bytes at its end that are no whole line."""

    @property
    def waiting(self) -> int:
        """The number of bytes that can be read."""
        return max(self.size - self.offset - self.torn, 0)

    @property
    def is_read(self) -> bool:
        """Every whole line was read. An offset beyond the end belongs to other content."""
        return self.offset + self.torn == self.size


class _LogFile(NamedTuple):
    path: Path
    identity: str
    """The digest of the first line: unlike the name and the inode, no other file has it later."""
    size: int
    gzipped: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """The next whole lines of a file, without their newlines."""

    identity: str
    lines: tuple[bytes, ...]
    end: Offset


class Tail:
    """Follows one audit log on its way to one target."""

    def __init__(self, path: Path, target: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._target = target
        self._clock = clock
        self.offsets_file = path.with_name(path.name + OFFSETS)
        """The file beside the audit log in which the offsets are kept."""
        self._offsets = _read_offsets(self.offsets_file, target)
        self._saved = dict(self._offsets)
        self._seen = dict.fromkeys(self._offsets, clock())
        self._known: dict[tuple[int, int, int], _LogFile | None] = {}
        self.problems: list[str] = []
        """What was found wrong, as sentences; the caller removes what it has reported."""
        self.missed = 0
        """The number of files that were removed or compressed before they were read."""

    @property
    def waiting(self) -> int:
        """The number of bytes that were not read when `look` was last called."""
        return sum(each.waiting for each in self._offsets.values())

    def look(self) -> list[_LogFile]:
        """The files with lines that were not read, the oldest first."""
        try:
            files = self._files()
        except OSError as error:
            self.problems.append(f"the folder of the audit log cannot be read: {_reason(error)}")
            return []
        now = self._clock()
        for file in files:
            self._seen[file.identity] = now
            known = self._offsets.get(file.identity, Offset())
            # The torn end may have become a whole line.
            if known.size != file.size:
                known = known._replace(size=file.size, torn=0)
            # Reading a compressed file from the middle would unpack it again for each chunk.
            if file.gzipped and not known.is_read:
                why = "compressed before all of it was read; use delaycompress in logrotate"
                self.problems.append(f"{file.path} was {why}")
                self.missed += 1
                known = Offset(offset=file.size, size=file.size)
            self._offsets[file.identity] = known
        for identity in [each for each, seen in self._seen.items() if now - seen > _MISSING_SECONDS]:
            del self._seen[identity]
            self.missed += self._offsets.pop(identity, Offset()).waiting > 0
        return [file for file in files if not self._offsets[file.identity].is_read]

    def next(self) -> Chunk | None:
        """The next chunk after those that were kept; None if all was read."""
        for file in self.look():
            known = self._offsets[file.identity]
            try:
                if chunk := self._chunk(file, known):
                    return chunk
                self._offsets[file.identity] = known._replace(torn=file.size - known.offset)
            except FileNotFoundError:
                continue  # rotated since `look`, and found under its new name by the next call
            except OSError as error:
                self.problems.append(f"{file.path} cannot be read: {_reason(error)}")
        return None

    def keep(self, chunk: Chunk) -> None:
        """The lines of this chunk have arrived, and are not read again."""
        known = self._offsets.get(chunk.identity, chunk.end)
        self._offsets[chunk.identity] = chunk.end._replace(size=max(known.size, chunk.end.offset))

    def save(self) -> None:
        """Write the offsets if they have changed; raises OSError."""
        if self._offsets == self._saved:
            return
        text = json.dumps({"format": 2, "target": self._target, "offsets": self._offsets})
        # Replaced as a whole: after a crash in the middle, the old offsets are still there.
        beside = self.offsets_file.with_name(f"{self.offsets_file.name}.{os.getpid()}")
        try:
            beside.write_text(text, encoding="ascii")
            beside.replace(self.offsets_file)
        except OSError:
            with suppress(OSError):
                beside.unlink()
            raise
        self._saved = dict(self._offsets)

    def _files(self) -> list[_LogFile]:
        """The files of the audit log, the oldest first."""
        known, self._known = self._known, {}
        best = dict[str, _LogFile]()
        for path in (*rotated_copies(self._path), self._path):
            # A file that is renamed at this moment is found by the next call.
            with suppress(FileNotFoundError):
                status = path.stat()
                if not stat.S_ISREG(status.st_mode):
                    continue
                # Without this, the first line of every copy would be read again at each call.
                key = status.st_ino, status.st_size, status.st_mtime_ns
                file = self._known[key] = known[key] if key in known else self._identify(path)
                if file:
                    # Of a copy and its truncated original, the longer one holds every line.
                    file = file._replace(path=path)
                    best[file.identity] = max(best.get(file.identity, file), file, key=lambda each: each.size)
        return list(best.values())

    def _identify(self, path: Path) -> _LogFile | None:
        try:
            with path.open("rb") as file:
                gzipped = is_gzipped(file)
                size = _unpacked_size(file) if gzipped else os.fstat(file.fileno()).st_size
            with opened(path) as stream:
                first = stream.readline(LONGEST_LINE)
        except FileNotFoundError:
            raise
        except (OSError, *UNPACK_ERRORS) as error:
            self.problems.append(f"{path} cannot be read: {_reason(error)}")
            return None
        if not first.isascii():
            self.problems.append(f"{path} cannot be read: it is no audit log, neither plain nor gzipped")
            return None
        return _LogFile(path, _digest(first), size, gzipped) if first.endswith(b"\n") else None

    def _chunk(self, file: _LogFile, known: Offset) -> Chunk | None:
        """The next whole lines of a file; None if there are none yet."""
        with file.path.open("rb") as stream:
            # Rotated between `look` and here: another file is at this path now.
            if _digest(stream.readline(LONGEST_LINE)) != file.identity:
                raise FileNotFoundError
            # After a crash of the host, lines that were read may be missing, and others in their place.
            start = known.offset if _digest(_before(stream, known.offset)) == known.check else 0
            stream.seek(start)
            lines, size = _whole_lines(stream)
            if size == 0:
                return None
            if not lines:
                why = f"a line of more than {LONGEST_LINE} bytes is no entry, and is left out"
                self.problems.append(f"{file.path}: {why}")
            end = Offset(start + size, _digest(_before(stream, start + size)))
        return Chunk(identity=file.identity, lines=tuple(lines), end=end)


def _whole_lines(stream: BinaryIO) -> tuple[list[bytes], int]:
    """The next lines and their size in bytes; size 0 without a whole line, no lines if one is too long."""
    lines, size = list[bytes](), 0
    line = stream.readline(LONGEST_LINE)
    while line.endswith(b"\n"):
        lines.append(line[:-1])
        size += len(line)
        if size >= _BLOCK or len(lines) == _MOST_LINES:
            break
        line = stream.readline(LONGEST_LINE)
    if lines or len(line) < LONGEST_LINE:
        return lines, size
    while line and not line.endswith(b"\n"):
        size += len(line)
        line = stream.readline(LONGEST_LINE)
    return [], size + len(line) if line else 0


def _before(stream: BinaryIO, offset: int) -> bytes:
    """The last bytes before an offset; empty if the file does not reach that far."""
    if not 0 < offset <= os.fstat(stream.fileno()).st_size:
        return b""
    start = stream.seek(max(offset - _CHECKED, 0))
    return stream.read(offset - start)


def _unpacked_size(file: BinaryIO) -> int:
    """The size of the content, from the end of a gzip file; 4 GiB and more are not expected."""
    file.seek(-4, os.SEEK_END)
    return int.from_bytes(file.read(4), "little")


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _reason(error: BaseException) -> str:
    """The message of the system, without the name of the file."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _read_offsets(path: Path, target: str) -> dict[str, Offset]:
    """The offsets that an earlier run saved; empty if the file is damaged, or of another target."""
    with suppress(OSError, ValueError, RecursionError), path.open("rb") as file:
        match json.loads(file.read(_LONGEST_OFFSETS_FILE)):
            case {"format": 2, "target": str(to), "offsets": dict(offsets)} if to == target:
                return {str(identity): _offset(saved) for identity, saved in offsets.items()}
    return {}


def _offset(saved: object) -> Offset:
    match saved:
        case [int(offset), str(check), int(size), int(torn)] if 0 <= offset < 2**63:
            return Offset(offset, check, size, torn)
    message = "no offset"
    raise ValueError(message)
