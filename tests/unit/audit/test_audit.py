"""`reaper audit`: outcomes filtered and counted, and open intents."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from reaper.audit.reader import GROUPS
from reaper.cli.audit import audit

WIDE = {"COLUMNS": "300"}
NOON, LATER = "2025-06-18T12:00:00.000000Z", "2025-06-18T13:00:00.000000Z"


def line(name: str = "session.outcome", **fields: object) -> str:
    event = {
        "schema": 1,
        "event": name,
        "time": NOON,
        "intent": "run/1",
        "server": "orders",
        "policy": "leaked",
        "mode": "enforce",
        "pid": 1,
        "role": "app_web",
        "database": "shop",
        "application": "web-1",
        "client": "10.2.0.7",
        "reason": "idle 12m31s, limit 10m",
    }
    outcome = {"outcome": "terminated"} if name == "session.outcome" else {}
    return json.dumps({**event, **outcome, **fields}) + "\n"


LOG = (
    line("session.intent")
    + line()
    + line(intent="run/2", pid=2, role="batch", application="cron", outcome="changed", time=LATER)
    + line(intent="run/3", pid=3, policy="dry-run", mode="dry-run", outcome="dry-run", application=None)
    + line("session.intent", intent="run/4", pid=4)
)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "audit.jsonl"
    path.write_text(LOG)
    return path


def run(*arguments: object, env: dict[str, str] | None = None, stdin: str | None = None) -> Result:
    return CliRunner().invoke(
        audit, [str(each) for each in arguments], env={**WIDE, **(env or {})}, input=stdin
    )


def shown(*arguments: object, **how: Any) -> list[dict[str, Any]]:  # noqa: ANN401
    result = run(*arguments, "--output", "json", **how)
    assert result.exit_code == 0, result.output
    rows: list[dict[str, Any]] = json.loads(result.stdout)
    return rows


def test_each_outcome_is_a_row_with_session_reason_and_outcome(log: Path) -> None:
    first, *_ = shown(log)
    hidden = {"schema", "event", "intent", "database"}
    assert first == {name: value for name, value in json.loads(line()).items() if name not in hidden}


@pytest.mark.parametrize(
    ("filters", "pids"),
    [
        (("--policy", "leak*"), [1, 2]),
        (("--policy", "leak"), []),
        (("--application", "web-*"), [1]),
        (("--application", "*"), [1, 2]),
        (("--role", "batch", "--role", "app_*"), [1, 3, 2]),
        (("--role", "batch", "--policy", "dry-run"), []),
        (("--database", "shop"), [1, 3, 2]),
        (("--server", "o?ders"), [1, 3, 2]),
        (("--outcome", "changed"), [2]),
        (("--mode", "dry-run"), [3]),
        (("--pid", "1", "--pid", "3"), [1, 3]),
        (("--since", "2025-06-18T12:30Z"), [2]),
        (("--since", "2025-06-18T14:30+02:00"), [2]),
        (("--until", "2025-06-18 13:00"), [1, 3]),
        (("--since", "2025-06-18T12:00Z", "--until", "2025-06-18T12:00:01Z"), [1, 3]),
        (("--since", "1m"), []),
        (("--until", "1m"), [1, 3, 2]),
    ],
)
def test_every_filter_leaves_out_what_it_does_not_select(
    log: Path, filters: tuple[str, ...], pids: list[int]
) -> None:
    assert [row["pid"] for row in shown(log, *filters)] == pids


def test_the_environment_names_the_audit_log_and_a_dash_there_is_not_standard_input(
    log: Path,
) -> None:
    assert len(shown(env={"REAPER_AUDIT_LOG": f"- {log}"}, stdin=line())) == 3


def test_the_table_groups_outcomes_by_policy_and_application(log: Path) -> None:
    heading, *rows = run(log).stdout.splitlines()
    noon, later = "2025-06-18T12:00:00Z", "2025-06-18T13:00:00Z"
    assert heading.split() == ["policy,", "application", "sessions", "outcome", "last"]
    policies = [row.split() for row in rows if not row.startswith(" ")]
    assert policies == [["leaked", "2", later], ["dry-run", "1", noon]]
    assert {row.split()[2] for row in rows if row.startswith(" ")} == {"terminated", "changed", "dry-run"}
    assert max(map(len, rows)) <= 80
    assert len(run(log, "--sessions").stdout.splitlines()) == 1 + 3


def test_outcomes_are_counted_for_each_policy(log: Path) -> None:
    columns = ("policy", "terminated", "changed", "dry-run", "total", "last")
    assert [tuple(map(row.get, columns)) for row in shown(log, "--by", "policy")] == [
        ("leaked", 1, 1, 0, 2, LATER),
        ("dry-run", 0, 0, 1, 1, NOON),
    ]


@pytest.mark.parametrize("by", GROUPS)
def test_every_group_adds_up_to_all_outcomes(log: Path, by: str) -> None:
    rows = shown(log, "--by", by)
    assert sum(row["total"] for row in rows) == 3
    assert len({row[by] for row in rows}) == len(rows)


def test_open_intents_exit_with_1(log: Path) -> None:
    result = run(log, "--open", "--output", "json")
    assert result.exit_code == 1
    assert [(row["intent"], row["pid"]) for row in json.loads(result.stdout)] == [("run/4", 4)]


def test_no_open_intents_exit_with_0(log: Path) -> None:
    log.write_text(LOG + line(intent="run/4"))
    result = run(log, "--open")
    assert (result.exit_code, result.stdout) == (0, "No open intents.\n")


def test_an_intent_and_its_outcome_may_be_in_different_files(tmp_path: Path, log: Path) -> None:
    rotated = tmp_path / "audit.jsonl.1.gz"
    rotated.write_bytes(gzip.compress(LOG.encode()))
    log.write_text(line(intent="run/4"))
    assert run(log, rotated, "--open").exit_code == 0


def test_a_known_outcome_replaces_an_unknown_one(log: Path) -> None:
    log.write_text(line(outcome="unknown") + line() + line(outcome="unknown"))
    assert [row["outcome"] for row in shown(log)] == ["terminated"]


def test_torn_lines_are_reported_with_their_place_and_the_rest_is_shown(log: Path) -> None:
    log.write_text('{"schema": 1, "ev\n' + LOG + "hello\n" * 20)
    result = run(log)
    assert result.exit_code == 0
    assert result.stderr.splitlines()[0] == f"{log}:1: not JSON, so probably torn"
    assert result.stderr.splitlines()[-1] == f"{log}: 11 more lines that are no events"
    assert "leaked" in result.stdout


NO_TIME = "'{}' is no time; write 2026-01-31T23:59Z, or 2h for two hours ago."


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["nothing"], "The audit log nothing cannot be read: No such file or directory.\n"),
        ([], "No audit log was named. Name its file, or set REAPER_AUDIT_LOG."),
        *(
            (["-", "--since", text], NO_TIME.format(text))
            for text in ("yesterday", "2025-13-01", "10", "999999999d")
        ),
    ],
)
def test_what_cannot_be_read_is_a_sentence(arguments: list[str], why: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert why in result.stderr


@pytest.mark.parametrize("hostile", ["a\nforged", "\x1b[2Jx", "\u202eevil", "[bold]x[/]", "\ud800", "\x9b1m"])
@pytest.mark.parametrize("output", ["table", "json", "yaml"])
def test_a_hostile_name_cannot_forge_a_row(log: Path, hostile: str, output: str) -> None:
    log.write_text(line(application="harmless"))
    harmless = run(log, "--output", output).stdout
    log.write_text(line(application=hostile))
    result = run(log, "--output", output)
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) == len(harmless.splitlines())
    assert all(shown.isprintable() for shown in result.stdout.splitlines())
    if output != "table":
        assert yaml.safe_load(result.stdout)[0]["application"] == hostile


def test_a_hostile_file_name_cannot_forge_an_error(tmp_path: Path) -> None:
    result = run(tmp_path / "a\nb\u202e")
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.strip().isprintable()


def test_yaml_has_the_same_rows_as_json(log: Path) -> None:
    assert yaml.safe_load(run(log, "--output", "yaml").stdout) == shown(log)
