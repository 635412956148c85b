"""The audit log on a full disk: nothing is acted upon, and nothing is lost."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from reaper.audit.events import INTENT, OUTCOME, Event
from reaper.audit.reader import BadLine, open_intents, read_events

WRITER: Final = """
import resource, sys
from datetime import UTC, datetime
from pathlib import Path
from reaper.policy.match import Match
from reaper.policy.rules import Mode, Policy
from reaper.policy.session import Identity, Session, SessionId, Slots, Snapshot, Watcher
from reaper.policy.plan import Candidate, Outcome, Result
from reaper.audit.file import FileSink
from reaper.audit.ledger import Author, Ledger
from reaper.audit.sinks import AuditLogFailed

path, limit = Path(sys.argv[1]), int(sys.argv[2])
ballast = path.with_name("ballast")
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))

def make_room():
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    else:
        ballast.unlink()

ledger = Ledger([FileSink(path)], clock=lambda: datetime.now(UTC), run="run")
author = Author(version="1", host="h", by="reaper", server="s", rules="r", dry_run=False)
policy = Policy(name="p", mode=Mode.ENFORCE, match=Match(states=("idle",)))
snapshot = Snapshot(server="s", at=0, slots=Slots(total=1, reserved=0, used=1),
                    watcher=Watcher(pid=1, role="reaper", superuser=False), sessions=())
who = Identity("shop", "app", "web", None)
sessions = [Session(id=SessionId(pid, 0), identity=who, state="idle") for pid in range(3)]
candidates = [Candidate(session=session, policy=policy, reason="idle") for session in sessions]
failure = None

def carry_out(intents):
    global failure
    for intent in intents:
        if failure is None:
            print(intent.id)
        try:
            result = Result.WITHDRAWN if failure else Result.TERMINATED
            ledger.log_outcomes([(intent, Outcome(result=result))])
        except AuditLogFailed as failed:
            failure = failed

for cycle in range(1_000):
    try:
        carry_out(ledger.intend(author, str(cycle), snapshot, candidates))
    except AuditLogFailed as failed:
        failure = failed
    if failure:
        print(failure, file=sys.stderr)
        break
for attempt in range(3):
    try:
        ledger.intend(author, "full", snapshot, candidates)
        print("intended on a full disk")
    except AuditLogFailed:
        pass
make_room()
failure = None
carry_out(ledger.intend(author, "again", snapshot, candidates))
ledger.close()
"""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 128 KiB, most of it taken by a file that can be removed."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount, umount = shutil.which("mount"), shutil.which("umount")
    if not mount or not umount:
        pytest.skip("there is no mount here")
    command = [mount, "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(disk)]
    mounted = subprocess.run(command, check=False, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"a file system cannot be mounted here: {mounted.stderr.strip()}")
    try:
        (disk / "ballast").write_bytes(b"\0" * 100 * 1024)
        yield disk
    finally:
        subprocess.run([umount, str(disk)], check=True)


def written(path: Path, *, limit: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WRITER, str(path), str(limit)]
    return subprocess.run(command, check=True, capture_output=True, text=True)


def holds_its_promises(path: Path, writer: subprocess.CompletedProcess[str], why: str) -> None:
    acted = writer.stdout.splitlines()
    assert re.search(f"the audit log {path} cannot be written: {why}", writer.stderr)
    read = list(read_events(path))
    torn = [line for line in read if isinstance(line, BadLine)]
    events = [event for event in read if isinstance(event, Event)]
    assert {line.why for line in torn} <= {"not JSON, so probably torn"}
    assert open_intents(events) == []
    intended = {event.text("intent") for event in events if event.name == INTENT}
    became = {event.text("intent"): event.text("outcome") for event in events if event.name == OUTCOME}
    assert set(acted) <= intended, "nothing was done on a full disk"
    assert {became[intent] for intent in acted} == {"terminated"}, "no outcome was lost"
    assert {became[intent] for intent in intended.difference(acted)} <= {"withdrawn"}


def test_on_a_full_disk_nothing_is_acted_upon_and_no_outcome_is_lost(small_disk: Path) -> None:
    path = small_disk / "audit.jsonl"
    holds_its_promises(path, written(path), "No space left|[0-9]+ of [0-9]+ bytes were taken")


# A batch of intents and its outcomes take about 4,000 bytes: these limits are met at every point of a cycle.
@pytest.mark.parametrize("limit", range(20_000, 24_000, 500))
def test_at_a_limit_of_file_size_nothing_is_acted_upon_and_no_outcome_is_lost(
    tmp_path: Path, limit: int
) -> None:
    path = tmp_path / "audit.jsonl"
    holds_its_promises(path, written(path, limit=limit), "File too large|[0-9]+ of [0-9]+ bytes were taken")
