"""The copies that rotation leaves beside a record: `audit.jsonl.1`, `audit.jsonl-20250618.gz`, and so on."""

import errno
import fcntl
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_PATIENCE: Final = 1_000
"""Milliseconds, many thousand times as long as a write takes."""


@contextmanager
def locked(fd: int) -> Iterator[None]:
    """Keep other reapers from writing; raises BlockingIOError.

    One append never tears another, but it is seen growing: without the lock a line in the making looks torn.
    Whoever holds the lock too long must not hang us: that is a record that cannot be written.
    """
    for _ in range(_PATIENCE):
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            time.sleep(0.001)
    else:
        raise BlockingIOError(errno.EAGAIN, "another process keeps it locked")
    try:
        yield
    finally:
        fcntl.flock(fd, fcntl.LOCK_UN)


_STAMP: Final = r"[.-](?P<stamp>[0-9][0-9T_:.-]*?)(?:\.gz)?"
_ENDING: Final = re.compile(_STAMP)
_COPY: Final = re.compile(f"(?P<record>.*?[^.].*?){_STAMP}")
"""Dots alone are no name: a folder holds a `..1` where Kubernetes has mounted it."""
_LONGEST_NUMBER: Final = 5
"""Digits; a stamp of more is a date."""


def rotated_copies(path: Path) -> list[Path]:
    """The copies beside this record, the oldest first; raises OSError when the folder cannot be read."""
    beside = {file.name: file for file in path.parent.iterdir() if _stamp(path, file)}
    # While one is being compressed both are there, and the compressed one is not whole yet.
    packing = {f"{name}.gz" for name in beside}
    whole = [file for name, file in beside.items() if name not in packing and file.is_file()]
    return _in_order(path, whole)


def records_of(files: Iterable[Path]) -> list[Sequence[Path]]:
    """The files of each record, the oldest first, with the copies beside a file that is none itself."""
    records = dict[Path, dict[Path, None]]()
    for file in files:
        found = _COPY.fullmatch(file.name)
        path = file.with_name(found["record"]) if found else file
        copies = [] if found else rotated_copies(file)
        # Renamed a moment ago, it is made anew by the next event.
        given = [] if copies and not file.exists() else [file]
        records.setdefault(path, {}).update(dict.fromkeys([*copies, *given]))
    return [_in_order(path, copies) for path, copies in records.items()]


def _in_order(path: Path, copies: Iterable[Path]) -> list[Path]:
    stamps = {file: _stamp(path, file) for file in copies}
    numbered = [_is_number(stamp) for stamp in stamps.values() if stamp]
    if all(numbered):
        return sorted(stamps, key=lambda file: -int(stamps[file] or 0))
    if not any(numbered):
        # The record itself has no stamp, and comes last.
        return sorted(stamps, key=lambda file: (stamps[file] == "", stamps[file]))
    # Somebody has changed the scheme: neither a rename nor compression changes when it was last written.
    return sorted(stamps, key=lambda file: (stamps[file] == "", file.stat().st_mtime_ns))


def _stamp(path: Path, file: Path) -> str:
    """What rotation put behind the name of the record; nothing when the file is no copy of it."""
    if not file.name.startswith(path.name):
        return ""
    found = _ENDING.fullmatch(file.name.removeprefix(path.name))
    return found["stamp"] if found else ""


def _is_number(stamp: str) -> bool:
    return stamp.isdigit() and len(stamp) <= _LONGEST_NUMBER
