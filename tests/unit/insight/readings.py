"""Readings of a history, made of snapshots without a file in between."""

from collections.abc import Sequence

from reaper.policy.seen import Change, Mark, Reading, Seen, Sighting
from reaper.policy.session import SessionId, Snapshot


def readings(
    stream: Sequence[Snapshot],
    *,
    every: int = 0,
    sightings: Sequence[Sighting] = (),
    looks: Sequence[Mark] = (),
) -> list[Reading]:
    """Each snapshot told as what is new since the one before; the last comes with sightings and looks."""
    found = []
    before: dict[SessionId, Seen] = {}
    for snapshot in stream:
        now = {session.id: Seen.of(session) for session in snapshot.sessions}
        last = snapshot is stream[-1]
        found.append(
            Reading(
                server=snapshot.server,
                at=snapshot.at,
                slots=snapshot.slots,
                watcher=snapshot.watcher,
                unreadable=snapshot.unreadable,
                facts=snapshot.facts,
                sessions=now,
                changed=[
                    Change(before.get(who), seen) for who, seen in now.items() if before.get(who) != seen
                ],
                left=[seen for who, seen in before.items() if who not in now],
                every=every,
                counted_from=next((session.counted_from for session in snapshot.sessions), None),
                sightings=sightings if last else (),
                looks=looks if last else (),
            )
        )
        before = dict(now)
    return found
