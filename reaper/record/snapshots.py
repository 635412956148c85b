"""Reading a saved snapshot back: the same one, or everything that is wrong with the file."""

import json
from collections.abc import Mapping
from typing import Final

from reaper.policy.session import SessionId, Snapshot
from reaper.record.snapshot_file import BadSnapshot, read_document

MOST_BYTES: Final = 32 * 1024 * 1024
"""The longest file that is read: tens of thousands of sessions, many times what most servers ever show."""

_MOST_DIGITS: Final = 40


def parse_snapshot(data: bytes, *, file: str) -> Snapshot:
    """Read a snapshot back, whole or not at all; BadSnapshot says everything that is wrong with it."""
    if len(data) > MOST_BYTES:
        told = f"it has more than {MOST_BYTES} bytes, and no snapshot is so large; name another file"
        raise BadSnapshot([f"{file}: {told}"])
    snapshot = read_document(_json(data, file), file)
    seen = set[SessionId]()
    for number, session in enumerate(snapshot.sessions):
        if session.id in seen:
            told = f"pid {session.id.pid} with this backend_start stands here twice; remove one of them"
            raise BadSnapshot([f"{file}: sessions[{number}]: {told}"])
        seen.add(session.id)
    return snapshot


def _json(data: bytes, file: str) -> object:
    try:
        return json.loads(data.decode("utf-8-sig"), object_pairs_hook=_once, parse_int=_whole)
    except json.JSONDecodeError as error:
        told = f"{file}:{error.lineno}:{error.colno}: not JSON: {error.msg}"
    except UnicodeDecodeError as error:
        told = f"{file}: not UTF-8 at byte {error.start}; write what `reaper snapshot` wrote"
    except RecursionError:
        told = f"{file}: nested too deeply; a snapshot has three levels"
    except ValueError as error:
        told = f"{file}: {error}"
    raise BadSnapshot([told])


def _whole(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        message = f"the number {digits[:_MOST_DIGITS]}... has {len(digits)} digits; write a whole number"
        raise ValueError(message)
    return int(digits)


def _once(pairs: list[tuple[str, object]]) -> Mapping[str, object]:
    values = dict[str, object]()
    for key, value in pairs:
        if key in values:
            message = f"the key {key!r:.60} stands twice in one object; remove one of them"
            raise ValueError(message)
        values[key] = value
    return values
