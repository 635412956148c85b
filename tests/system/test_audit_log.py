"""Where the audit log and the log of a run go, and what happens when they cannot be written."""

import json
import os
import pty
import re
import resource
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import pytest

from tests.postgres.clients import Clients
from tests.postgres.sandbox import Role
from tests.postgres.waiting import until

from .command import Fields, Reaper, parsed
from .policies import FILE, leaked, policy_file

RECORD: Final = ("--audit-log", "audit.jsonl")
ESCAPES: Final = re.compile(r"\x1b\[[0-9;]*m")


def test_log_and_audit_log_are_json_without_a_terminal(reaper: Reaper, app: Role, clients: Clients) -> None:
    reaper.write(FILE, policy_file(leaked(app)))
    life = reaper.start("run")
    leak = clients.open(role=app, application="leak")

    recorded = life.recorded("session.outcome")
    done = life.end()

    assert leak.left()
    assert recorded["application"] == "leak"
    assert all(json.loads(line) for line in [*done.out.splitlines(), *done.err.splitlines()])
    assert [event["seq"] for event in done.events] == list(range(1, len(done.events) + 1))
    assert {event["event"] for event in done.events} == {
        "audit.opened",
        "server.counters",
        "session.intent",
        "session.outcome",
        "audit.closed",
    }


def test_the_audit_log_is_written_to_each_given_place_once(
    reaper: Reaper, app: Role, clients: Clients
) -> None:
    reaper.write(FILE, policy_file(leaked(app)))
    named = ("-", "audit.jsonl", "copy.jsonl", "copy.jsonl")
    life = reaper.start("run", *(part for name in named for part in ("--audit-log", name)))
    until(clients.open(role=app).left)
    done = life.end()

    given = [about_sessions(events) for events in (done.events, reaper.record(), reaper.record("copy.jsonl"))]

    assert [name for name, _ in given[0]] == ["session.intent", "session.outcome"]
    assert given == [given[0]] * 3


def about_sessions(events: Sequence[Fields]) -> list[tuple[str, str]]:
    return [(event["event"], event["intent"]) for event in events if "intent" in event]


def test_a_terminal_shows_sentences_in_local_time(reaper: Reaper, app: Role, clients: Clients) -> None:
    reaper.write(FILE, policy_file(leaked(app)))
    leak = clients.open(role=app, application="leak")
    ours, theirs = pty.openpty()
    life = reaper.start(
        "run", "--audit-log", "-", *RECORD, stdout=theirs, stderr=theirs, TZ="<+05>-5", TERM="xterm"
    )
    os.close(theirs)
    until(leak.left)
    utc = reaper.recorded("session.outcome")["time"][11:19]
    life.send(signal.SIGINT)
    shown = ESCAPES.sub("", heard(ours)).splitlines()
    assert life.ended().code == 0

    hours, rest = int(utc[:2]), utc[2:]
    there = f"{(hours + 5) % 24:02}{rest}"
    assert [line for line in shown if line.startswith(f"{there} terminated pid {leak.pid} {app.name}@")]
    logged = [line for line in shown if "reaper.started" in line or "reaper.stopped" in line]
    assert len(logged) == 2
    assert all(line[:2] in {there[:2], f"{(hours + 4) % 24:02}"} for line in logged)
    assert not parsed(shown)


def heard(terminal: int) -> str:
    """Everything that was shown on a terminal until its other end was closed."""
    said = b""
    with suppress(OSError):  # EIO: the last one has hung up
        while some := os.read(terminal, 65_536):
            said += some
    os.close(terminal)
    return said.decode()


@pytest.mark.parametrize("given", [True, False], ids=["with SIGHUP", "by rename alone"])
def test_rotation_loses_no_line(reaper: Reaper, app: Role, clients: Clients, given: bool) -> None:  # noqa: FBT001
    reaper.write(FILE, policy_file(leaked(app)))
    life = reaper.start("run", *RECORD)
    names = ["audit.jsonl.2", "audit.jsonl.1"]
    for name in names:
        until(clients.open(role=app, application=name).left)
        reaper.recorded("session.outcome", application=name)
        (reaper.folder / "audit.jsonl").rename(reaper.folder / name)
        if given:
            life.send(signal.SIGHUP)
    if given:
        life.logged("audit.reopened", times=2)
    until(clients.open(role=app, application="last").left)
    done = life.end()

    files = [reaper.record(name) for name in [*names, "audit.jsonl"]]
    events = [event for file in files for event in file]
    assert done.code == 0
    assert [file[-1]["application"] for file in files[:2]] == names
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert sum(event["event"] == "session.outcome" for event in events) == 3


def test_while_a_file_cannot_grow_nothing_is_terminated_and_the_log_says_so(
    reaper: Reaper, app: Role, clients: Clients
) -> None:
    reaper.write(FILE, policy_file(leaked(app)))
    life = reaper.start("run", *RECORD)
    until(clients.open(role=app, application="before").left)
    reaper.recorded("session.outcome")
    size = (reaper.folder / "audit.jsonl").stat().st_size
    resource.prlimit(life.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    meanwhile = clients.open(role=app, application="meanwhile")

    failed = life.logged("audit.failed", times=2)
    assert meanwhile.present()
    assert (failed["level"], failed["why"]) == (
        "error",
        "the audit log audit.jsonl cannot be written: File too large; nothing is terminated until it can",
    )

    resource.prlimit(life.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    until(meanwhile.left)
    done = life.end()
    assert done.code == 0
    ended = [event for event in reaper.record() if event["event"] == "session.outcome"]
    assert [
        (event["application"], event["outcome"]) for event in ended if event["outcome"] != "withdrawn"
    ] == [
        ("before", "terminated"),
        ("meanwhile", "terminated"),
    ]
    assert done.log[-1]["failed"] >= 2


@pytest.mark.parametrize(
    ("target", "why"),
    [
        ("/dev/full", "it is not a regular file"),
        ("nowhere/audit.jsonl", "its folder nowhere does not exist, create it"),
    ],
)
@pytest.mark.parametrize("command", ["run", "once"])
def test_an_audit_log_that_cannot_be_opened_ends_the_start(
    offline: Reaper, command: str, target: str, why: str
) -> None:
    offline.write(FILE, policy_file(leaked(Role("app", ""))))

    done = offline(command, "--audit-log", target)

    assert (done.code, done.out) == (2, "")
    assert done.err == (
        f"the audit log {target} cannot be written: {why}; nothing is terminated until it can\n"
    )


def test_stdout_on_a_full_disk_ends_the_start(offline: Reaper) -> None:
    offline.write(FILE, policy_file(leaked(Role("app", ""))))
    with Path("/dev/full").open("wb") as full:
        done = offline.start("run", stdout=full.fileno()).ended()

    assert done.code == 2
    assert "the audit log stdout cannot be written: No space left on device" in done.err


def test_after_the_reader_of_stdout_left_nothing_is_terminated_and_the_log_says_so(
    reaper: Reaper, app: Role, clients: Clients
) -> None:
    reaper.write(FILE, policy_file(leaked(app)))
    ours, theirs = os.pipe()
    life = reaper.start("run", stdout=theirs)
    os.close(theirs)
    life.logged("server.connected")
    os.close(ours)
    leak = clients.open(role=app)

    failed = life.logged("audit.failed", times=2)
    done = life.end()

    assert leak.present()
    assert failed["why"].startswith("the audit log stdout cannot be written: Broken pipe")
    assert [line["event"] for line in done.log[-2:]] == ["reaper.stopping", "reaper.stopped"]
    assert done.code == 2
    assert "Traceback" not in done.err


@pytest.mark.parametrize("closed", [">&-", "2>&-"])
@pytest.mark.parametrize("command", ["run", "once", "plan", "check"])
def test_a_closed_output_is_refused_before_a_socket_can_take_its_number(
    offline: Reaper, command: str, closed: str
) -> None:
    offline.write(FILE, policy_file(leaked(Role("app", ""))))
    done = subprocess.run(
        ["/bin/sh", "-c", f'exec "$0" "$1" {closed}', offline.program, command],
        cwd=offline.folder,
        env=offline.environment,
        capture_output=True,
        check=False,
    )

    assert done.returncode == 2
    assert done.stdout + done.stderr == (b"stdout or stderr is closed\nhint: redirect it to /dev/null\n")


def test_audit_shows_what_a_real_run_did(reaper: Reaper, app: Role, clients: Clients) -> None:
    dry_run_before = {**leaked(app, mode="dry-run"), "name": "consoles"}
    dry_run_before["match"] = {**dry_run_before["match"], "state": ["idle in transaction"]}
    reaper.write(FILE, policy_file(leaked(app), dry_run_before))
    console = clients.open(role=app, application="console", state="idle in transaction")
    leaks = [clients.open(role=app, application=name) for name in ("web-1", "web-2")]
    life = reaper.start("run", *RECORD)
    for leak in leaks:
        until(leak.left)
    reaper.recorded("session.outcome", application="console")
    assert reaper("audit", "audit.jsonl", "--open").code == 0
    life.end()

    def asked(*options: str) -> list[Fields]:
        found: list[Fields] = reaper("audit", "audit.jsonl", "-o", "json", *options).document
        return found

    everything = asked()
    assert console.present()
    assert {(row["application"], row["outcome"], row["mode"]) for row in everything} == {
        ("web-1", "terminated", "enforce"),
        ("web-2", "terminated", "enforce"),
        ("console", "dry-run", "dry-run"),
    }
    assert asked("--application", "web-*", "--outcome", "terminated", "--since", "1h") == [
        row for row in everything if row["policy"] == "leaked"
    ]
    assert asked("--pid", str(console.pid)) == [row for row in everything if row["pid"] == console.pid]
    assert asked("--until", "2001-01-01T00:00Z") == []
    by_policy = {row["policy"]: row["total"] for row in asked("--by", "policy")}
    assert by_policy == {"leaked": 2, "consoles": 1}
    table = reaper("audit", "--sessions", REAPER_AUDIT_LOG="audit.jsonl")
    assert table.code == 0
    assert len(table.out.splitlines()) == 1 + len(everything)


def test_intents_that_a_run_left_open_are_shown_and_then_closed_by_the_next(
    reaper: Reaper, app: Role, clients: Clients
) -> None:
    reaper.write(FILE, policy_file(leaked(app)))
    life = reaper.start("run", *RECORD)
    until(clients.open(role=app).left)
    life.end()
    whole = reaper.record()
    intent = next(event for event in whole if event["event"] == "session.intent")
    crashed = [event for event in whole if event.get("intent") != intent["intent"] or event is intent]
    reaper.write("audit.jsonl", "".join(f"{json.dumps(event)}\n" for event in crashed))

    shown = reaper("audit", "audit.jsonl", "--open", "-o", "json")
    assert shown.code == 1
    assert [row["intent"] for row in shown.document] == [intent["intent"]]

    next_life = reaper.start("run", *RECORD)
    assert next_life.logged("audit.recovered")["open_intents"] == 1
    next_life.end()

    assert reaper("audit", "audit.jsonl", "--open").code == 0
    settled = reaper.recorded("session.outcome", intent=intent["intent"])
    assert (settled["outcome"], settled["pid"]) == ("unknown", intent["pid"])
