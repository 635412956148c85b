"""Snapshots in files."""

import sys
from pathlib import Path

from reaper.cli.exits import Misconfigured
from reaper.policy.session import Snapshot
from reaper.record.snapshot_file import BadSnapshot
from reaper.record.snapshots import MOST_BYTES, parse_snapshot


def read_snapshot(path: Path) -> Snapshot:
    """A saved snapshot; `-` is stdin."""
    try:
        return parse_snapshot(_read(path), file=str(path))
    except OSError as error:
        message = f"{path}: cannot be read: {error.strerror or error}"
        raise Misconfigured(message) from None
    except BadSnapshot as bad:
        raise Misconfigured(str(bad)) from None


def _read(path: Path) -> bytes:
    # One byte more than is taken: a file without end is refused, and not read to its end.
    if str(path) == "-":
        return sys.stdin.buffer.read(MOST_BYTES + 1)
    with path.open("rb") as file:
        return file.read(MOST_BYTES + 1)
