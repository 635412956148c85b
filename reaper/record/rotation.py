"""The copies that rotation leaves beside a record: `audit.jsonl.1`, `audit.jsonl-20250618.gz`, and so on."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

_COPY: Final = re.compile(r"(?P<record>.+?)[.-](?P<stamp>[0-9][0-9T_:.-]*?)(?:\.gz)?")
_LONGEST_NUMBER: Final = 5
"""Digits; a stamp of more is a date."""


def rotated_copies(path: Path) -> list[Path]:
    """The copies beside this record, the oldest first; raises OSError when the folder cannot be read."""
    beside = {file.name: file for file in path.parent.iterdir() if record_of(file) == path and file != path}
    # While one is being compressed both are there, and the compressed one is not whole yet.
    packing = {f"{name}.gz" for name in beside}
    return in_order(file for name, file in beside.items() if name not in packing and file.is_file())


def record_of(file: Path) -> Path:
    """The path that a copy was written at, by its name; the file itself when it is no copy."""
    found = _COPY.fullmatch(file.name)
    return file.with_name(found["record"]) if found else file


def in_order(copies: Iterable[Path]) -> list[Path]:
    """Copies of one record, and itself, the oldest first."""
    stamps = {file: _stamp(file) for file in copies}
    numbered = [_is_number(stamp) for stamp in stamps.values() if stamp]
    if all(numbered):
        return sorted(stamps, key=lambda file: -int(stamps[file] or 0))
    if not any(numbered):
        # The record itself has no stamp, and comes last.
        return sorted(stamps, key=lambda file: (stamps[file] == "", stamps[file]))
    # Somebody has changed the scheme: neither a rename nor compression changes when it was last written.
    return sorted(stamps, key=lambda file: (stamps[file] == "", file.stat().st_mtime_ns))


def _stamp(file: Path) -> str:
    found = _COPY.fullmatch(file.name)
    return found["stamp"] if found else ""


def _is_number(stamp: str) -> bool:
    return stamp.isdigit() and len(stamp) <= _LONGEST_NUMBER
