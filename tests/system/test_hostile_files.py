"""Files made to hurt, through the real command, with little memory: a sentence, its exit code, and an end."""

import gzip
import resource
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import pytest

from .command import Done, Reaper
from .policies import FILE

_MEMORY: Final = 768 * 1024 * 1024
_SECONDS: Final = 120
LEAST: Final = "version: 1\npolicies: [{name: a, match: {state: [idle], idle_for: 1m}}]\n"
HEAD: Final = (
    '{"snapshot": 1, "server": "\\u001b[2Ja\\n[red]", "at": "2025-06-18T12:00:00Z", '
    '"slots": {"total": 1, "reserved": 0, "used": 1}, '
    '"watcher": {"pid": 1, "role": "r", "superuser": false}, "sessions": ['
)

Make = Callable[[Path], object]


def limited() -> None:
    """What the command may use of this machine."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (_SECONDS, _SECONDS))


def told(reaper: Reaper, *arguments: str, code: int = 2) -> str:
    """What it said on standard error, which is lines that do nothing."""
    done: Done = reaper.start(*arguments, before=limited).ended()
    assert done.code == code, done
    assert "Traceback" not in done.err
    assert all(line.isprintable() for line in (done.out + done.err).split("\n"))
    return done.err


def text(written: str | bytes) -> Make:
    """A file in which this stands."""
    data = written if isinstance(written, bytes) else written.encode("utf-8", "surrogatepass")
    return lambda path: path.write_bytes(data)


def link(to: str) -> Make:
    """A link to something that is no file."""
    return lambda path: path.symlink_to(to)


POLICIES: Final[Mapping[str, tuple[Make, str]]] = {
    "a device": (link("/dev/zero"), ":1:1: file: the file cannot be read: Not a regular file"),
    "a dangling link": (link("nowhere"), ":1:1: file: the file cannot be read: No such file"),
    "a huge file": (text("#" * 20_000_000), ":1:1: file: the file is larger than 10 MiB"),
    "a huge value": (text(f'{LEAST}interval: "{"a " * 100_000}"'), ":3:11: interval: 'a a a a a"),
    "depth": (text("[{a: " * 100_000), ":1:101: file: nested deeper than 40"),
    "a bomb of aliases": (
        text("\n".join(["a0: &a0 [x]", *(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 40))])),
        "more than 100,000 values, each use of an alias counted",
    ),
    "an object of Python": (
        text(f"{LEAST}interval: !!python/object/apply:os.system [id]\n"),
        ":3:11: interval: the tag '!!python/object/apply:os.system' is not supported",
    ),
    "another encoding": (text(LEAST.encode("utf-16")), ":1:1: file: the byte 0xff is not UTF-8"),
    "another encoding without a mark": (
        text(LEAST.encode("utf-16-be")),
        ":1:1: file: the character '\\x00' is not allowed in YAML; delete it, or save the file as UTF-8",
    ),
    "an escape sequence": (text(f"{LEAST}\x1b[2J: 1"), "the character '\\x1b' is not allowed in YAML"),
    "a number without end": (text(f"{LEAST}interval: {'9' * 1_000_000}s\n"), ":3:11: interval: '99999999"),
    "a way out of the zones": (
        text(LEAST.replace("1m}", '1m}, during: "20:00-21:00 ../../../etc/passwd"')),
        "policies[0].during: '20:00-21:00 ../../../etc/passwd' is not a time window",
    ),
}
SNAPSHOTS: Final[Mapping[str, tuple[Make, str]]] = {
    "a device": (link("/dev/zero"), "it has more than 33554432 bytes, too many for a snapshot"),
    "a crowd": (text(f"{HEAD}{'1,' * 3_000_000}1]}}"), "sessions: more than 262143 entries"),
    "a crowd of mistakes": (
        text(f"{HEAD}{'1,' * 200_000}1]}}"),
        "sessions[0]: Input should be an object (it is 1)",
    ),
    "depth": (text("[" * 1_000_000), "nested too deeply; a snapshot has three levels"),
    "a number without end": (
        text(f'{HEAD}{{"pid": {"9" * 1_000_000}}}]}}'),
        "sessions[0].pid: Input should be less than",
    ),
    "a torn file": (text(HEAD), ": not JSON: Expecting"),
}
RECORDS: Final[Mapping[str, tuple[Make, str, int]]] = {
    "a device": (
        link("/dev/zero"),
        "The audit log file cannot be read: It is a device, and may have no end.",
        2,
    ),
    "a bomb": (lambda path: path.write_bytes(gzip.compress(bytes(60_000_000), 1)), "file:1: longer than", 0),
    "depth": (text("[" * 1_000_000), "file:1: no line of an audit log", 0),
    "thousands of torn lines": (text("\x1b[2J\n" * 20_000), "file: 19990 more lines that are no events", 0),
    "a folder": (lambda path: path.mkdir(), "The audit log file cannot be read: Is a directory.", 2),
}


@pytest.mark.parametrize("what", list(POLICIES))
def test_a_policy_file_that_was_made_to_hurt_is_refused_in_a_sentence(offline: Reaper, what: str) -> None:
    make, sentence = POLICIES[what]
    make(offline.folder / FILE)
    assert sentence in told(offline, "check", "--offline")


@pytest.mark.parametrize("what", list(SNAPSHOTS))
def test_a_snapshot_that_was_made_to_hurt_is_refused_in_a_sentence(offline: Reaper, what: str) -> None:
    make, sentence = SNAPSHOTS[what]
    offline.write(FILE, LEAST)
    make(offline.folder / "file")
    assert sentence in told(offline, "plan", "--snapshot", "file")


@pytest.mark.parametrize("what", list(RECORDS))
def test_a_record_that_was_made_to_hurt_is_read_as_far_as_it_is_one(offline: Reaper, what: str) -> None:
    make, sentence, code = RECORDS[what]
    make(offline.folder / "file")
    assert sentence in told(offline, "audit", "file", code=code)


@pytest.mark.parametrize("command", [("plan",), ("explain", "1"), ("once",), ("run",)])
def test_no_command_begins_with_a_file_that_was_made_to_hurt(
    offline: Reaper, command: tuple[str, ...]
) -> None:
    offline.write(FILE, f"{LEAST}interval: !!python/name:os.system\n")
    assert f"{FILE}:3:11: interval: the tag" in told(offline, *command)


def test_the_server_of_a_snapshot_moves_no_cursor(offline: Reaper) -> None:
    offline.write(FILE, LEAST)
    offline.write("seen.json", f"{HEAD}]}}")
    said = told(offline, "explain", "7", "--snapshot", "seen.json", code=1)
    assert said == "\\x1b[2Ja\n[red]: no client session has pid 7\n"


def test_a_name_that_the_terminal_cannot_write_is_shown_all_the_same(offline: Reaper) -> None:
    offline.write(FILE, LEAST)
    session = (
        '{"pid": 7, "backend_start": "2025-06-18T11:00:00Z", "role": "caf\\u00e9", "state": "idle", '
        '"application": "[red]\\ud83d\\ude00", "state_change": "2025-06-18T11:00:00Z"}'
    )
    offline.write("seen.json", f"{HEAD}{session}]}}")
    offline.environment["PYTHONIOENCODING"] = "ascii"
    for command in (("plan", "--sessions"), ("explain", "7")):
        done = offline(*command, "--snapshot", "seen.json")
        assert (done.code, done.err) == (0, "")
        assert r"caf\xe9" in done.out
        assert r"[red]\U0001f600" in done.out
