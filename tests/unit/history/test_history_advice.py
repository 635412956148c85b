"""Advice from a history is that from the very looks that it was written from."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given

from reaper.history.read import HistoryReader
from reaper.insight.advice.evidence import Evidence, Watching
from reaper.policy.session import Snapshot

from .histories import streams, written


def counts(seen: Evidence) -> tuple[object, ...]:
    """All that is counted over several looks."""
    crowds = [
        (each.key, each.count, each.peak, each.opened, each.closed, each.working, each.revived.count)
        for each in seen.crowds
    ]
    return (
        *(seen.looks, seen.began, seen.last.at, seen.peak, seen.peak_at, seen.working),
        *(seen.opened, seen.brief, dict(seen.role_peaks), sorted(crowds)),
    )


@given(streams)
def test_following_a_history_counts_what_the_looks_themselves_show(stream: Sequence[Snapshot]) -> None:
    looked, followed = Watching(), Watching()
    for snapshot in stream:
        looked.add(snapshot)

    with TemporaryDirectory() as folder:
        for reading in HistoryReader(written(Path(folder), stream), print).snapshots():
            followed.follow(reading)

    assert counts(followed.evidence()) == counts(looked.evidence())
