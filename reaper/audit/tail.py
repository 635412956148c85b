"""Reads a record while it is written, rotated and compressed: every whole line once, in bounded pieces.

It is called in a thread: to unpack a volume as far as reading goes on takes a while.
"""

import gzip
import hashlib
import json
import os
import stat
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from reaper.audit.reader import LONGEST_LINE, opened
from reaper.audit.rotation import rotated_copies
from reaper.policy.time import parse_time

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


_LONGEST: Final = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A place in a volume, after a whole line."""

    offset: int = 0
    check: str = ""
    """The digest of what stands right before it: what was put in its place is read from the beginning."""
    done: Signature | None = None
    """How the file looked when there was nothing more to read in it."""


class Marks:
    """The marks of one record on its way to one target."""

    def __init__(self, record: Path, target: str) -> None:
        self._path = record.with_name(record.name + POSITIONS)
        self._target = target
        self.by_identity: dict[str, Mark] = {}
        with suppress(OSError, ValueError, RecursionError):
            self.by_identity = dict(_read(self._path, target))
        self._saved = dict(self.by_identity)

    @property
    def path(self) -> Path:
        """Where they are kept."""
        return self._path

    def save(self) -> None:
        """Write them down if they have changed; OSError when that cannot be done."""
        if self.by_identity == self._saved:
            return
        marks = {
            name: [mark.offset, mark.check, mark.done and [*mark.done]]
            for name, mark in self.by_identity.items()
        }
        text = json.dumps({"format": 1, "target": self._target, "marks": marks})
        beside = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        try:
            beside.write_text(text, encoding="ascii")
            beside.replace(self._path)
        except OSError:
            with suppress(OSError):
                beside.unlink()
            raise
        self._saved = dict(self.by_identity)


def _read(path: Path, target: str) -> Mapping[str, Mark]:
    """What an earlier life has left; nothing when any of it is strange."""
    with path.open("rb") as file:
        document = json.loads(file.read(_LONGEST))
    match document:
        case {"format": 1, "target": str(to), "marks": dict(marks)} if to == target:
            return {str(name): _mark(mark) for name, mark in marks.items()}
    return {}


def _mark(written: object) -> Mark:
    match written:
        case [int(offset), str(check), None] if offset >= 0:
            return Mark(offset=offset, check=check)
        case [int(offset), str(check), [int(inode), int(size), int(changed_ns)]] if offset >= 0:
            return Mark(offset=offset, check=check, done=Signature(inode, size, changed_ns))
    message = "no mark"
    raise ValueError(message)


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

_COLUMNS_LONGEST: Final = 1_000
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
    cut = value[:_COLUMNS_LONGEST].encode("utf-8", "backslashreplace").decode()
    return cut.replace("\0", "\\x00")


def _number(value: object, below: int) -> int | None:
    if not isinstance(value, int) or isinstance(value, bool):
        return None
    return value if -below <= value < below else None


_BLOCK: Final = 128 * 1024
_BLOCKS_TO_SKIP: Final = 64
"""So many blocks are unpacked in vain before whoever reads may do something else."""

_MOST_LINES: Final = 500
_CHECKED: Final = 256
"""Bytes before a mark by which the place is known again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """The next whole lines, without their ends; none while the place to go on from is still looked for."""

    identity: str
    lines: tuple[bytes, ...] = ()
    mark: Mark | None = None
    """The place after these lines."""
    size: int = 0
    passed_over: bool = False
    """Whether a line in it was too long to be one of ours."""


class Reading:
    """Reads one volume, as far as it has whole lines."""

    def __init__(self, volume: Volume, mark: Mark) -> None:
        """Open it; FileNotFoundError also when another file has taken its place by now."""
        self.volume = volume
        # What is kept beside the record may be strange: behind the end there is no place to go on from.
        beyond = not volume.packed and mark.offset > volume.signature.size
        self._mark: Mark | None = Mark() if beyond else mark
        self._at = 0
        self._before = b""
        self._rest = b""
        self._passing_over = False
        with ExitStack() as stack:
            self._stream = _same(stack.enter_context(opened(volume.path)), volume)
            self._open = stack.pop_all()

    def piece(self) -> Piece | None:
        """The next piece; nothing at the end."""
        if self._mark:
            self._go_to(self._mark)
            return Piece(identity=self.volume.identity)
        while b"\n" not in self._rest:
            block = self._stream.read(_BLOCK)
            if not block:
                return None
            self._rest += block
            if len(self._rest) > LONGEST_LINE and b"\n" not in block:
                self._passing_over = True
                self._advance(self._rest)
                self._rest = b""
        return self._whole_lines()

    def close(self) -> None:
        """Let go of the file."""
        self._open.close()

    def _whole_lines(self) -> Piece:
        whole, _, torn = self._rest.rpartition(b"\n")
        lines = whole.split(b"\n", _MOST_LINES)
        more = lines.pop() + b"\n" if len(lines) > _MOST_LINES else b""
        taken = self._rest[: len(whole) + 1 - len(more)]
        self._rest = more + torn
        self._advance(taken)
        passed_over, self._passing_over = self._passing_over, False
        return Piece(
            identity=self.volume.identity,
            lines=tuple(lines[passed_over:]),
            mark=Mark(offset=self._at, check=_digest(self._before)),
            size=len(taken),
            passed_over=passed_over,
        )

    def _go_to(self, mark: Mark) -> None:
        """Skip what was read in an earlier life, a bounded part of it, or begin anew if it is not there."""
        if not self.volume.packed and not self._at:
            self._at = self._stream.seek(max(mark.offset - _CHECKED, 0))
        for _ in range(_BLOCKS_TO_SKIP):
            block = self._stream.read(min(_BLOCK, mark.offset - self._at))
            self._advance(block)
            if not block:
                break
        else:
            return
        self._mark = None
        if self._at != mark.offset or (mark.offset and _digest(self._before) != mark.check):
            self._at = self._stream.seek(0)
            self._before = b""

    def _advance(self, block: bytes) -> None:
        self._at += len(block)
        self._before = (self._before + block[-_CHECKED:])[-_CHECKED:]


def _same(stream: BinaryIO, volume: Volume) -> BinaryIO:
    # A number that was given back is soon another file's: only how it begins tells for sure.
    first = stream.readline(LONGEST_LINE)
    if os.fstat(stream.fileno()).st_ino != volume.signature.inode or identity_of(first) != volume.identity:
        raise FileNotFoundError
    stream.seek(0)
    return stream


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


_MISSING_SECONDS: Final = 60.0
"""A volume is gone when it was not seen for so long: in the middle of a rotation nothing is in its place."""


class Tail:
    """Follows one record."""

    def __init__(self, path: Path, marks: Marks, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._shelf = Shelf(path)
        self._marks = marks.by_identity
        self._clock = clock
        self._queue = deque[Volume]()
        self._reading: Reading | None = None
        self._seen = dict.fromkeys(self._marks, clock())
        self._owed: dict[str, int] = {}
        self._troubles: list[str] = []
        self._missed = 0

    @property
    def waiting(self) -> int:
        """Bytes that were not read when this was last looked at; of packed volumes, as they are."""
        return sum(self._owed.values())

    def troubles(self) -> list[str]:
        """What was found wrong since this was last asked, in sentences."""
        found = [*self._shelf.troubles, *self._troubles]
        self._shelf.troubles, self._troubles = [], []
        return found

    def missed(self) -> int:
        """How many volumes have gone, since this was last asked, before they were read to the end."""
        missed, self._missed = self._missed, 0
        return missed

    def next(self) -> Piece | None:
        """The next piece, once the last one is kept; nothing when everything was read."""
        if piece := self._of_those_found():
            return piece
        self._queue.extend(self.look())
        return self._of_those_found()

    def keep(self, piece: Piece) -> None:
        """The lines of this piece have arrived where they go, and are not read again."""
        if piece.mark:
            self._marks[piece.identity] = piece.mark
            self._owed[piece.identity] = max(self._owed.get(piece.identity, 0) - piece.size, 0)

    def look(self) -> list[Volume]:
        """The volumes in which there is something that was not read yet, oldest first."""
        try:
            volumes = self._shelf.volumes()
        except OSError as error:
            self._troubles.append(f"the record's folder cannot be read: {reason(error)}")
            return []
        now = self._clock()
        self._owed = {}
        for volume in volumes:
            self._seen[volume.identity] = now
            mark = self._marks.setdefault(volume.identity, Mark())
            if mark.done != volume.signature:
                self._marks[volume.identity] = replace(mark, done=None)
                read = 0 if volume.packed else mark.offset
                self._owed[volume.identity] = max(volume.signature.size - read, 0)
        self._forget(now)
        return [volume for volume in volumes if volume.identity in self._owed]

    def close(self) -> None:
        """Let go of the volume that is being read."""
        reading, self._reading = self._reading, None
        if reading:
            reading.close()

    def _of_those_found(self) -> Piece | None:
        while self._reading or self._queue:
            self._reading = self._reading or self._begin(self._queue.popleft())
            if self._reading:
                if piece := self._piece(self._reading):
                    return piece
                self._done(self._reading.volume)
                self.close()
        return None

    def _forget(self, now: float) -> None:
        gone = [identity for identity, seen in self._seen.items() if now - seen > _MISSING_SECONDS]
        for identity in gone:
            if self._reading and identity == self._reading.volume.identity:
                continue  # removed, and still in our hands
            del self._seen[identity]
            self._missed += self._marks.pop(identity, Mark()).done is None

    def _begin(self, volume: Volume) -> Reading | None:
        try:
            return Reading(volume, self._marks.get(volume.identity, Mark()))
        except FileNotFoundError:
            return None  # rotated meanwhile: the next look finds it under its new name
        except (OSError, *UNPACKING) as error:
            self._give_up(volume, error)
            return None

    def _piece(self, reading: Reading) -> Piece | None:
        try:
            piece = reading.piece()
        except (OSError, *UNPACKING) as error:
            self._give_up(reading.volume, error)
            return None
        if piece and piece.passed_over:
            told = f"a line of more than {LONGEST_LINE} bytes is none of ours, and is passed over"
            self._troubles.append(f"{reading.volume.path}: {told}")
        return piece

    def _give_up(self, volume: Volume, error: BaseException) -> None:
        """Go on with the others; it is looked at again when it has changed."""
        self._troubles.append(f"{volume.path} cannot be read to its end: {reason(error)}")
        self._done(volume)

    def _done(self, volume: Volume) -> None:
        mark = self._marks.get(volume.identity, Mark())
        self._marks[volume.identity] = replace(mark, done=volume.signature)
        self._owed.pop(volume.identity, None)
