"""How far each volume of a record has been read by whoever carries it elsewhere, kept beside the record.

Nothing here has to be durable, nor true: whoever finds it gone, stale or strange begins anew, and what is
carried twice arrives once.
"""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from reaper.record.volumes import POSITIONS, Signature

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
