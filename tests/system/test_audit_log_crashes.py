"""The audit log under SIGKILL and rotation: real interpreters, real files."""

import gzip
import random
import signal
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from reaper.audit.events import INTENT, OUTCOME, Event
from reaper.audit.file import FileSink
from reaper.audit.ledger import Ledger
from reaper.audit.reader import WrittenFile, files_of_audit_logs, open_intents, opened, read_events
from reaper.audit.recovery import ENDED, close_open_intents
from reaper.audit.verify import Problem, Verification
from tests.postgres.waiting import until

WRITER: Final = """
import os, sys, uuid
from datetime import UTC, datetime
from pathlib import Path
from reaper.policy.match import Match
from reaper.policy.rules import Mode, Policy
from reaper.policy.session import Identity, Session, SessionId, Slots, Snapshot, Watcher
from reaper.policy.plan import Candidate, Outcome, Result
from reaper.audit.file import FileSink
from reaper.audit.ledger import Author, Ledger

path, cycles, each = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
ledger = Ledger([FileSink(path)], clock=lambda: datetime.now(UTC), run=uuid.uuid4().hex)
author = Author(version="1", host="h", by="reaper", server="s", rules="r", dry_run=False)
policy = Policy(name="p", mode=Mode.ENFORCE, match=Match(states=("idle",)))
snapshot = Snapshot(server="s", at=0, slots=Slots(total=1, reserved=0, used=1),
                    watcher=Watcher(pid=1, role="reaper", superuser=False), sessions=())

def candidate(pid):
    who = Identity("shop", "app", "web-" + "x" * 200, None)
    session = Session(id=SessionId(pid, 0), identity=who, state="idle")
    return Candidate(session=session, policy=policy, reason="idle")

os.write(1, b"ready\\n")
sys.stdin.readline()
for cycle in range(cycles):
    for intent in ledger.intend(author, str(cycle), snapshot, [candidate(pid) for pid in range(each)]):
        os.write(1, intent.id.encode() + b"\\n")
        ledger.log_outcomes([(intent, Outcome(result=Result.TERMINATED))])
    ledger.flush()
ledger.close()
"""
RUNS: Final = 12
ENDLESS: Final = 1_000_000


def started(path: Path, *, cycles: int, each: int, errors: int | None = None) -> subprocess.Popen[bytes]:
    """A writer that is ready, and waits for its first line."""
    command = [sys.executable, "-c", WRITER, str(path), str(cycles), str(each)]
    writer = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors)
    assert writer.stdout is not None
    assert writer.stdout.readline() == b"ready\n"
    return writer


def go(writer: subprocess.Popen[bytes]) -> None:
    assert writer.stdin is not None
    writer.stdin.write(b"\n")
    writer.stdin.flush()


def killed_after(writer: subprocess.Popen[bytes], acts: int) -> list[str]:
    """Kill a writer after a number of acts; return the intents that it had acted upon."""
    assert writer.stdout is not None
    acted = [writer.stdout.readline() for _ in range(acts)]
    writer.send_signal(signal.SIGKILL)
    acted += writer.communicate()[0].splitlines(keepends=True)
    return [line.decode().strip() for line in acted if line.endswith(b"\n")]


def later_run(path: Path, run: str) -> int:
    sink = FileSink(path)
    try:
        return close_open_intents(path, Ledger([sink], clock=lambda: datetime.now(UTC), run=run))
    finally:
        sink.close()


def intents_of(events: list[Event], name: str) -> list[str | None]:
    return [event.text("intent") for event in events if event.name == name]


def test_after_a_sigkill_at_any_instant_every_act_was_intended_and_open_intents_are_unknown(
    tmp_path: Path,
) -> None:
    path = tmp_path / "audit.jsonl"
    chosen = random.Random(20250618)  # noqa: S311 (a repeatable choice of instants)
    acted, left_open = list[str](), 0
    for number in range(RUNS):
        before = path.stat().st_size if path.exists() else 0
        writer = started(path, cycles=ENDLESS, each=3)
        go(writer)
        acted += killed_after(writer, chosen.randrange(1, 60))
        *whole, last = path.read_bytes()[before:].split(b"\n")
        assert all(line.endswith(b"}") for line in whole), "only the last line may be torn"
        assert not last.endswith(b"}")
        waiting = len(open_intents(read_events(path)))
        assert later_run(path, f"after-{number}") == waiting
        assert later_run(path, f"long-after-{number}") == 0
        left_open += waiting
    events = [event for event in read_events(path) if isinstance(event, Event)]
    intended, settled = intents_of(events, INTENT), intents_of(events, OUTCOME)
    assert set(acted) <= set(intended)
    assert Counter(settled) == Counter(intended), "every intent has exactly one outcome"
    assert sum(event.text("detail") == ENDED for event in events) == left_open
    assert not [problem for problem in problems_of(path) if not problem.explained]


def test_a_second_writer_is_refused_and_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    first, second = (
        started(path, cycles=ENDLESS, each=3),
        started(path, cycles=1, each=3, errors=subprocess.PIPE),
    )
    go(first)
    until(lambda: has_lines(path))
    go(second)
    _, said = second.communicate()
    first.kill()
    first.communicate()
    assert second.returncode == 1
    assert f"process {first.pid} writes to it already" in said.decode()
    events = [event for event in read_events(path) if isinstance(event, Event)]
    assert len({event.text("run") for event in events}) == 1


def test_a_file_that_is_rotated_and_compressed_during_a_run_is_one_chain(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    writer = started(path, cycles=120, each=2)
    go(writer)
    rotated = 0
    while writer.poll() is None:
        until(lambda: has_lines(path) or writer.poll() is not None)
        if not path.exists():
            break
        rotated += 1
        copy = path.rename(tmp_path / f"audit.jsonl-{10_000_000 + rotated}")
        before = tmp_path / f"audit.jsonl-{10_000_000 + rotated - 1}"
        if before.exists():  # as delaycompress does it
            before.with_name(f"{before.name}.gz").write_bytes(gzip.compress(before.read_bytes()))
            before.unlink()
        assert copy.exists()
    acted = writer.communicate()[0].splitlines()
    assert writer.returncode == 0
    assert len(acted) == 240
    assert rotated > 3
    assert problems_of(path) == []
    events = [event for file in copies_of(path) for event in read_events(file)]
    assert len([event for event in events if isinstance(event, Event) and event.name == OUTCOME]) == 240


def has_lines(path: Path) -> bool:
    return path.exists() and path.read_bytes().count(b"\n") > 3


def copies_of(path: Path) -> list[Path]:
    (files,) = files_of_audit_logs([path])
    return list(files)


def problems_of(path: Path) -> list[Problem]:
    verification = Verification(heads=set())
    found = list[Problem]()
    for file in copies_of(path):
        with opened(file) as stream:
            found.extend(verification.read(str(file), WrittenFile(stream)))
    found.extend(verification.finish())
    assert verification.follows is None
    return found
