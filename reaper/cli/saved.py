"""Snapshots in files."""

import sys
from pathlib import Path

from reaper.cli.exits import Misconfigured
from reaper.policy.session import Snapshot
from reaper.record.snapshot_file import BadSnapshot
from reaper.record.snapshots import parse_snapshot


def read_snapshot(path: Path) -> Snapshot:
    """A saved snapshot; `-` is stdin."""
    try:
        data = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
        return parse_snapshot(data, file=str(path))
    except OSError as error:
        message = f"{path}: cannot be read: {error.strerror or error}"
        raise Misconfigured(message) from None
    except BadSnapshot as bad:
        raise Misconfigured(str(bad)) from None
