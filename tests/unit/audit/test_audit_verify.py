"""`reaper audit verify`: sentences for people, a document for programs, and an exit code for cron."""

import gzip
import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from reaper.audit.file import FileSink
from reaper.cli.audit import audit

from .build import AUTHOR, SNAPSHOT, TERMINATED, ledger, reap

WIDE = {"COLUMNS": "300"}


def written(path: Path, *, run: str = "life") -> None:
    book = ledger(FileSink(path), run=run)
    (intent,) = book.intend(AUTHOR, "c1", SNAPSHOT, [reap()])
    book.log_outcomes([(intent, TERMINATED)])
    book.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


@pytest.fixture
def record(path: Path) -> Path:
    """Three files, the oldest compressed."""
    for number in (2, 1, 0):
        written(path, run=f"life-{number}")
        if number:
            path.rename(path.with_name(f"audit.jsonl.{number}"))
    oldest = path.with_name("audit.jsonl.2")
    path.with_name("audit.jsonl.2.gz").write_bytes(gzip.compress(oldest.read_bytes()))
    oldest.unlink()
    return path


def verify(*arguments: object, env: dict[str, str] | None = None, stdin: bytes | None = None) -> Result:
    asked = ["verify", *map(str, arguments)]
    return CliRunner().invoke(audit, asked, env={**WIDE, **(env or {})}, input=stdin)


def head_of(*arguments: object) -> str:
    head: str = json.loads(verify(*arguments, "-o", "json").stdout)["records"][0]["head"]["digest"]
    return head


def test_an_intact_record_is_the_answer_yes_with_its_head(record: Path) -> None:
    done = verify(record)
    assert (done.exit_code, done.stderr) == (0, "")
    counted, head, intact = done.stdout.splitlines()
    assert counted == f"{record}: 12 lines in the chain"
    assert head.startswith(f"  head {head_of(record)} of 2025-06-18T12:00:00.123456Z")
    assert intact == "Intact."


def test_a_changed_line_of_a_rotated_copy_is_the_answer_no_with_its_place(record: Path) -> None:
    copy = record.with_name("audit.jsonl.1")
    copy.write_bytes(copy.read_bytes().replace(b"app_web", b"app_wob", 1))
    done = verify(record)
    assert done.exit_code == 1
    assert done.stdout.splitlines()[0].startswith(f"{copy}:2: changed: {copy}:3 follows this line as it was")
    assert done.stdout.splitlines()[-1] == "Not intact: 1 place without an explanation in the audit log."


def test_a_file_without_a_line_is_not_called_intact(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    path.touch()
    assert verify(path).stdout.splitlines()[-1] == "Nothing to verify: no line is in the chain."


def test_files_named_in_any_order_are_followed_in_theirs(record: Path) -> None:
    names = ("audit.jsonl.1", "audit.jsonl", "audit.jsonl.2.gz")
    assert head_of(*(record.with_name(name) for name in names)) == head_of(record)
    assert verify(record.with_name("audit.jsonl.1")).exit_code == 0
    assert "in a copy that is not here" in verify(record.with_name("audit.jsonl.1")).stdout


def test_each_record_is_a_chain_of_its_own(record: Path, tmp_path: Path) -> None:
    written(tmp_path / "other.jsonl")
    done = verify(record, tmp_path / "other.jsonl", "--head", head_of(tmp_path / "other.jsonl"))
    assert done.exit_code == 0
    assert len([line for line in done.stdout.splitlines() if "in the chain" in line]) == 2


def test_a_removed_end_is_found_by_a_head_that_was_noted(record: Path) -> None:
    head = head_of(record)
    assert verify(record, "--head", head).exit_code == 0
    record.write_bytes(b"".join(record.read_bytes().splitlines(keepends=True)[:-1]))
    assert verify(record).exit_code == 0
    done = verify(record, env={"REAPER_AUDIT_HEAD": head})
    assert done.exit_code == 1
    assert done.stdout.startswith(f"unknown head: {head}, noted elsewhere, is not in the chain: lines were")


def test_standard_input_is_followed(record: Path) -> None:
    assert verify("-", stdin=record.read_bytes()).exit_code == 0
    assert verify("-", stdin=b"\x00" * 1_000).exit_code == 1


def test_a_pipe_that_has_a_path_is_followed_to_its_end(record: Path) -> None:
    reading, writing = os.pipe()
    os.write(writing, record.read_bytes())
    os.close(writing)
    done = verify(f"/dev/fd/{reading}")
    os.close(reading)
    assert "4 lines in the chain" in done.stdout
    assert done.exit_code == 0


def test_intents_without_an_outcome_are_listed_and_no_damage(path: Path) -> None:
    ledger(FileSink(path)).intend(AUTHOR, "c1", SNAPSHOT, [reap()])
    done = verify(path)
    assert done.exit_code == 0
    assert f"  no outcome yet: intent life/1, {path}:2" in done.stdout.splitlines()


def test_a_document_says_it_all(record: Path) -> None:
    with record.open("ab") as file:
        file.write(b"hello\n")
    done = verify(record, "--output", "json")
    assert done.exit_code == 1
    document = json.loads(done.stdout)
    assert document["intact"] is False
    assert [(each["file"], each["line"], each["kind"]) for each in document["damages"]] == [
        (str(record), 5, "foreign")
    ]
    assert document["records"][0]["lines"] == 12


def test_of_many_damages_only_the_first_are_told_and_all_are_counted(path: Path) -> None:
    written(path)
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
def test_what_cannot_be_followed_is_a_sentence(arguments: list[str], why: str) -> None:
    done = verify(*arguments)
    assert done.exit_code == 2
    assert why in done.stderr
    assert "Traceback" not in done.output


@pytest.mark.parametrize("hostile", ["\x1b[2J", "\u202e", "a\nIntact."])
def test_no_name_or_field_can_forge_a_sentence(tmp_path: Path, hostile: str) -> None:
    path = tmp_path / hostile.replace("/", "")
    path.write_text(json.dumps({"schema": 1, "event": "session.intent", "intent": hostile, "time": hostile}))
    with path.open("a") as file:
        file.write("\n" + json.dumps({"schema": 1, "prev": None, "detail": hostile, "time": hostile}) + "\n")
    done = verify(path)
    assert done.exit_code == 1
    assert all(line.isprintable() for line in done.stdout.splitlines())
    assert "Intact." not in done.stdout.splitlines()
