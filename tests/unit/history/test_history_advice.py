"""Advice from a history is advice from the snapshots that were written into it."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given

from reaper.history.read import HistoryReader
from reaper.insight.advice import EvidenceCollector
from reaper.insight.advice.evidence import Evidence, Period
from reaper.policy.session import Snapshot

from .histories import streams, written


def counts(seen: Evidence) -> tuple[object, ...]:
    """Everything that is counted over several snapshots."""
    applications = [
        (each.id, each.count, each.opened, each.closed, each.most_working, each.ended[Period.IDLE].count)
        for each in seen.applications
    ]
    return (
        *(seen.snapshots, seen.span, seen.last.at, seen.peak, seen.peak_at, seen.most_working),
        *(seen.opened, seen.short_lived, dict(seen.role_peaks), sorted(applications)),
    )


@given(streams)
def test_a_history_gives_the_same_evidence_as_its_snapshots(stream: Sequence[Snapshot]) -> None:
    observed, read = EvidenceCollector(), EvidenceCollector()
    for snapshot in stream:
        observed.add(snapshot)

    with TemporaryDirectory() as folder:
        for recorded in HistoryReader(written(Path(folder), stream), print).snapshots():
            read.add(recorded.snapshot())

    assert counts(read.evidence()) == counts(observed.evidence())
