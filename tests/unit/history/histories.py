"""Histories: streams of snapshots as a server could show them, written and read back."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hypothesis import strategies as st

from reaper.history.read import HistoryFile, HistoryReader
from reaper.history.write import HistoryFolder, HistoryLimits, HistoryOptions, HistoryWriter, history_files
from reaper.policy.session import Facts, Identity, Session, SessionId, Slots, Snapshot, Watcher
from reaper.policy.time import SECOND, Duration, Timestamp

EVERY = Duration(10 * SECOND)
ROOMY = HistoryLimits(max_bytes=64 * 1024 * 1024, keep_for=Duration(36_500 * 86_400 * SECOND))

texts = st.text(alphabet=st.characters(codec=None) | st.sampled_from('\n\x1b\u202e\ud800\x00"\\'), max_size=5)
instants = st.builds(Timestamp, st.integers(-(2**63), 2**63 - 1))
counts = st.integers(0, 2**31 - 1)
sessions = st.builds(
    Session,
    id=st.builds(
        SessionId, st.integers(1, 5), st.sampled_from([Timestamp(0), Timestamp(7), Timestamp(-(2**63))])
    ),
    identity=st.builds(Identity, *[st.none() | texts] * 4),
    kind=st.sampled_from(["client backend", "walsender", ""]),
    role_oid=st.none() | st.integers(0, 3),
    superuser=st.booleans(),
    client_port=st.none() | st.integers(-1, 1),
    state=st.none() | st.sampled_from(["idle", "active", "\n"]),
    state_change=st.none() | instants,
    query_start=st.none() | instants,
    xact_start=st.none() | instants,
    wait_event=st.none() | texts,
    xid_age=st.none() | st.integers(-(2**31), 2**31),
    last_query_listens=st.booleans(),
    last_query_starts_backup=st.booleans(),
)
moments = st.builds(Timestamp, st.integers(0, 2**55))
snapshots = st.builds(
    Snapshot,
    server=st.just("orders"),
    at=moments,
    slots=st.builds(Slots, total=counts, reserved=counts, used=counts),
    watcher=st.builds(Watcher, pid=counts, role=texts, superuser=st.booleans()),
    sessions=st.lists(sessions, max_size=5, unique_by=lambda session: session.id).map(tuple),
    unreadable=counts,
    facts=st.builds(
        Facts,
        advisory_lock_holders=st.none() | st.frozensets(counts),
        waiters=st.none() | st.dictionaries(counts, counts),
    ),
)
streams = st.lists(snapshots, min_size=1, max_size=6, unique_by=lambda snapshot: snapshot.at).map(
    lambda found: sorted(found, key=lambda snapshot: snapshot.at)
)


def writer(folder: Path, *, limits: HistoryLimits = ROOMY, every: Duration = EVERY) -> HistoryWriter:
    return HistoryWriter(HistoryOptions(folder=HistoryFolder(folder, limits), every=every), "orders")


def written(folder: Path, stream: Sequence[Snapshot]) -> list[Path]:
    """The files of these readings."""
    keeper = writer(folder)
    for snapshot in stream:
        keeper.write(snapshot)
    keeper.close()
    return history_files(folder)


def whole(snapshot: Snapshot) -> Snapshot:
    """A snapshot with its sessions in an order that does not depend on the history."""
    return replace(snapshot, sessions=tuple(sorted(snapshot.sessions, key=lambda session: session.id)))


def read_back(files: Sequence[Path]) -> list[Snapshot]:
    return [whole(reading.snapshot()) for reading in HistoryReader(files, print).snapshots()]


def read_file(path: Path) -> tuple[list[Snapshot], list[str]]:
    """What a file holds, and what is told of it."""
    told: list[str] = []
    return [whole(reading.snapshot()) for reading in HistoryFile(path, told.append).snapshots()], told
