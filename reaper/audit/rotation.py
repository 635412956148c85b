"""The copies that rotation leaves beside an audit log: `audit.jsonl.1`, `audit.jsonl-20250618.gz` etc."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

_STAMP: Final = r"[.-](?P<stamp>[0-9][0-9T_:.-]*?)(?:\.gz)?"
_SUFFIX: Final = re.compile(_STAMP)
# Dots alone are no name: a folder that Kubernetes has mounted holds a `..1`.
_COPY: Final = re.compile(f"(?P<log>.*?[^.].*?){_STAMP}")
_LONGEST_NUMBER: Final = 5
"""A stamp with more digits is a date."""


def rotated_copies(path: Path) -> list[Path]:
    """The copies beside this audit log, the oldest first; raises OSError if the folder cannot be read."""
    beside = {file.name: file for file in path.parent.iterdir() if _stamp(path, file)}
    # During compression both files exist, and the compressed one is not complete yet.
    incomplete = {f"{name}.gz" for name in beside}
    complete = [file for name, file in beside.items() if name not in incomplete and file.is_file()]
    return _in_order(path, complete)


def files_of_audit_logs(files: Iterable[Path]) -> list[Sequence[Path]]:
    """The files of each audit log, the oldest first, with the copies beside a file that is no copy itself."""
    logs = dict[Path, dict[Path, None]]()
    for file in files:
        found = _COPY.fullmatch(file.name)
        path = file.with_name(found["log"]) if found else file
        copies = [] if found else rotated_copies(file)
        # Right after a rotation there is no file at the path: the next event creates it.
        given = [] if copies and not file.exists() else [file]
        logs.setdefault(path, {}).update(dict.fromkeys([*copies, *given]))
    return [_in_order(path, copies) for path, copies in logs.items()]


def _in_order(path: Path, copies: Iterable[Path]) -> list[Path]:
    stamps = {file: _stamp(path, file) for file in copies}
    numbered = [stamp.isdigit() and len(stamp) <= _LONGEST_NUMBER for stamp in stamps.values() if stamp]
    if all(numbered):
        return sorted(stamps, key=lambda file: -int(stamps[file] or 0))
    if not any(numbered):
        # The audit log itself has no stamp, and comes last.
        return sorted(stamps, key=lambda file: (stamps[file] == "", stamps[file]))
    # The scheme was changed. Neither a rename nor compression changes the time of the last write.
    return sorted(stamps, key=lambda file: (stamps[file] == "", file.stat().st_mtime_ns))


def _stamp(path: Path, file: Path) -> str:
    """What rotation appended to the name of the audit log; empty if the file is no copy of it."""
    if not file.name.startswith(path.name):
        return ""
    found = _SUFFIX.fullmatch(file.name.removeprefix(path.name))
    return found["stamp"] if found else ""
