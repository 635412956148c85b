"""Saved snapshots: JSON that people can read, a session a line, and that gives back the same snapshot."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Final

from reaper.policy.session import Facts, Session, SessionId, Snapshot
from reaper.policy.spans import isoformat
from reaper.record.snapshot_file import FORMAT, BadSnapshot, read_document

MOST_BYTES: Final = 32 * 1024 * 1024
"""The longest file that is read: tens of thousands of sessions, many times what most servers ever show."""

_MOST_DIGITS: Final = 40


def dump_snapshot(snapshot: Snapshot) -> bytes:
    """The snapshot as a file: ASCII, whatever a client put into its name."""
    head = {
        "snapshot": FORMAT,
        "server": snapshot.server,
        "at": isoformat(snapshot.at),
        "slots": asdict(snapshot.slots),
        "watcher": asdict(snapshot.watcher),
        "unreadable": snapshot.unreadable,
        "facts": _facts(snapshot.facts),
    }
    # The head without its closing brace, so that each session can stand on a line of its own.
    opening = json.dumps(head, indent=2).removesuffix("\n}")
    sessions = ",\n".join(f"    {json.dumps(_session(session))}" for session in snapshot.sessions)
    return f'{opening},\n  "sessions": [\n{sessions}\n  ]\n}}\n'.encode("ascii")


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


_NOT_FIELDS: Final = {"id", "identity", "counted_from"}
"""Shown in another form; and what only the run that noticed a jump of the clock can know."""


def _facts(facts: Facts) -> dict[str, object]:
    holders, waiters, blockers = facts.advisory_lock_holders, facts.waiters, facts.blockers
    return {
        "advisory_lock_holders": None if holders is None else sorted(holders),
        "waiters": None if waiters is None else {str(pid): count for pid, count in waiters.items()},
        "blockers": None if blockers is None else {str(pid): sorted(them) for pid, them in blockers.items()},
    }


def _session(session: Session) -> dict[str, object]:
    fields = {name: getattr(session, name) for name in session.__slots__ if name not in _NOT_FIELDS}
    for name in ("state_change", "query_start", "xact_start"):
        fields[name] = isoformat(fields[name])
    return {
        "pid": session.id.pid,
        "backend_start": isoformat(session.id.backend_start),
        **session.identity._asdict(),
        **fields,
    }


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
