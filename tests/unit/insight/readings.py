"""A recorded history made of snapshots, without a file in between."""

from collections.abc import Sequence
from dataclasses import replace

from reaper.insight.recorded import CycleMark, PartialSnapshot, RecordedSnapshot, SessionChange
from reaper.policy.session import Session, SessionId, Snapshot


def recorded(
    stream: Sequence[Snapshot],
    *,
    every: int = 0,
    partial: Sequence[PartialSnapshot] = (),
    cycles: Sequence[CycleMark] = (),
) -> list[RecordedSnapshot]:
    """Each snapshot with its changes; the last one comes with partial snapshots and cycles."""
    found = []
    before: dict[SessionId, Session] = {}
    for snapshot in stream:
        now = {session.id: session for session in snapshot.sessions}
        last = snapshot is stream[-1]
        found.append(
            RecordedSnapshot(
                about=replace(snapshot, sessions=()),
                sessions=now,
                changed=[
                    SessionChange(before.get(key), one) for key, one in now.items() if before.get(key) != one
                ],
                left=[one for key, one in before.items() if key not in now],
                every=every,
                counted_from=next((session.counted_from for session in snapshot.sessions), None),
                partial=partial if last else (),
                cycles=cycles if last else (),
            )
        )
        before = now
    return found
