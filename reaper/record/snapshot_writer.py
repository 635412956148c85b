"""Writing a snapshot down: JSON that people can read, a session a line.

Apart from reading it back, which takes 8 MiB of a library that a service does without.
"""

import json
from dataclasses import asdict
from typing import Final

from reaper.policy.session import Facts, Session, Snapshot
from reaper.policy.spans import isoformat

FORMAT: Final = 1

_NOT_FIELDS: Final = {"id", "identity", "counted_from"}
"""Shown in another form; and what only the run that noticed a jump of the clock can know."""


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
