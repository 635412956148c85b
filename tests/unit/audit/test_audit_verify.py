"""`reaper audit verify`: sentences for people, a document for programs, and an exit code for cron."""

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from reaper.audit.file import FileSink
from reaper.cli.audit import audit

from .build import AUTHOR, SNAPSHOT, candidate, compressed, ledger, write_run


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


@pytest.fixture
def log(path: Path) -> Path:
    """An audit log of three files, the oldest compressed."""
    for number in (2, 1, 0):
        write_run(path, run=f"run-{number}")
        if number:
            path.rename(path.with_name(f"audit.jsonl.{number}"))
    compressed(path.with_name("audit.jsonl.2"))
    return path


def verify(*arguments: object, env: dict[str, str] | None = None, stdin: bytes | None = None) -> Result:
    words = ["verify", *map(str, arguments)]
    return CliRunner().invoke(audit, words, env={"COLUMNS": "300", **(env or {})}, input=stdin)


def head_of(*arguments: object) -> str:
    head: str = json.loads(verify(*arguments, "-o", "json").stdout)["records"][0]["head"]["digest"]
    return head


def test_an_intact_audit_log_exits_with_0_and_its_head(log: Path) -> None:
    done = verify(log)
    assert (done.exit_code, done.stderr) == (0, "")
    lines, head, intact = done.stdout.splitlines()
    assert lines == f"{log}: 12 lines in the chain"
    assert head.startswith(f"  head {head_of(log)} of 2025-06-18T12:00:00.123456Z")
    assert intact == "Intact."


def test_a_changed_line_of_a_copy_exits_with_1_and_its_place(log: Path) -> None:
    copy = log.with_name("audit.jsonl.1")
    copy.write_bytes(copy.read_bytes().replace(b"app_web", b"app_wob", 1))
    done = verify(log)
    assert done.exit_code == 1
    assert done.stdout.splitlines()[0].startswith(f"{copy}:2: changed: {copy}:3 follows this line as it was")
    assert done.stdout.splitlines()[-1] == "Not intact: 1 place without an explanation in the audit log."


def test_an_empty_file_is_not_called_intact(path: Path) -> None:
    path.touch()
    assert verify(path).stdout.splitlines()[-1] == "Nothing to verify: no line is in the chain."


def test_files_given_in_any_order_are_followed_in_theirs(log: Path) -> None:
    names = ("audit.jsonl.1", "audit.jsonl", "audit.jsonl.2.gz")
    assert head_of(*(log.with_name(name) for name in names)) == head_of(log)
    assert verify(log.with_name("audit.jsonl.1")).exit_code == 0
    assert "in a copy that is not here" in verify(log.with_name("audit.jsonl.1")).stdout


def test_each_audit_log_is_a_chain_of_its_own(log: Path, tmp_path: Path) -> None:
    write_run(tmp_path / "other.jsonl")
    done = verify(log, tmp_path / "other.jsonl", "--head", head_of(tmp_path / "other.jsonl"))
    assert done.exit_code == 0
    assert len([line for line in done.stdout.splitlines() if "in the chain" in line]) == 2


def test_a_removed_end_is_found_by_a_head_that_was_noted(log: Path) -> None:
    head = head_of(log)
    assert verify(log, "--head", head).exit_code == 0
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:-1]))
    assert verify(log).exit_code == 0
    done = verify(log, "--head", head)
    assert done.exit_code == 1
    assert done.stdout.startswith(f"unknown head: {head}, noted elsewhere, is not in the chain: lines were")


def test_standard_input_and_a_pipe_with_a_path_are_followed(log: Path) -> None:
    assert verify("-", stdin=log.read_bytes()).exit_code == 0
    assert verify("-", stdin=b"\x00" * 1_000).exit_code == 1
    reading, writing = os.pipe()
    os.write(writing, log.read_bytes())
    os.close(writing)
    done = verify(f"/dev/fd/{reading}")
    os.close(reading)
    assert "4 lines in the chain" in done.stdout


def test_intents_without_an_outcome_are_listed_and_no_problem(path: Path) -> None:
    ledger(FileSink(path)).intend(AUTHOR, "c1", SNAPSHOT, [candidate()])
    done = verify(path)
    assert done.exit_code == 0
    assert f"  no outcome yet: intent run/1, {path}:2" in done.stdout.splitlines()


def test_the_document_has_every_problem_and_every_audit_log(log: Path) -> None:
    with log.open("ab") as file:
        file.write(b"hello\n")
    done = verify(log, "--output", "json")
    assert done.exit_code == 1
    document = json.loads(done.stdout)
    assert document["intact"] is False
    (problem,) = document["damages"]
    assert (problem["file"], problem["line"], problem["kind"]) == (str(log), 5, "foreign")
    assert document["records"][0]["lines"] == 12


def test_of_many_problems_only_the_first_are_printed_and_all_are_counted(path: Path) -> None:
    write_run(path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + lines[2] * 500)
    done = verify(path)
    assert "... and 400 more" in done.stdout.splitlines()
    assert done.stdout.splitlines()[-1] == "Not intact: 500 places without an explanation in the audit log."


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["nothing"], "The audit log nothing cannot be read: No such file or directory."),
        (["/"], "The audit log / cannot be read: Is a directory."),
        (["nowhere/nothing"], "The folder of the audit log cannot be read: No such file or directory."),
        (["-", "--head", "abc"], "abc is no digest: copy all 64 digits of it."),
        ([], "No audit log was named. Name its file, or set REAPER_AUDIT_LOG."),
    ],
)
def test_an_audit_log_that_cannot_be_read_is_a_sentence(arguments: list[str], why: str) -> None:
    done = verify(*arguments)
    assert done.exit_code == 2
    assert why in done.stderr
    assert "Traceback" not in done.output


@pytest.mark.parametrize("hostile", ["\x1b[2J", "\u202e", "a\nIntact."])
def test_no_name_or_field_can_forge_a_sentence(tmp_path: Path, hostile: str) -> None:
    path = tmp_path / hostile.replace("/", "")
    first = {"schema": 1, "event": "session.intent", "intent": hostile, "time": hostile}
    second = {"schema": 1, "prev": None, "detail": hostile, "time": hostile}
    path.write_text(f"{json.dumps(first)}\n{json.dumps(second)}\n")
    done = verify(path)
    assert done.exit_code == 1
    assert all(line.isprintable() for line in done.stdout.splitlines())
    assert "Intact." not in done.stdout.splitlines()
