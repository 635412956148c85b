"""`reaper audit reconcile` beside a real server that logs in every format it has, and counts by itself."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from reaper.demo.server import EmbeddedServer
from tests.postgres.clients import Clients
from tests.postgres.conftest import StartServer
from tests.postgres.sandbox import Role
from tests.postgres.waiting import until

from .command import Fields, Reaper
from .policies import FILE, leaked, policy_file

JSON_SINCE = 15
COUNTS_SINCE = 14


class LoggedRun(NamedTuple):
    """A server that logs in every format, and the audit log of a run there."""

    server: EmbeddedServer
    reaper: Reaper
    logs: dict[str, Path]


@pytest.fixture
def logged_run(tmp_path: Path, start_server: StartServer, major: int) -> Iterator[LoggedRun]:
    """The reaper terminated two sessions, an administrator one more; then the reaper stopped."""
    formats = ["csvlog", *(["jsonlog"] if major >= JSON_SINCE else [])]
    server = start_server(
        logging_collector="on",
        log_directory="log",
        log_filename="postgresql.log",
        log_destination=",".join(["stderr", *formats]),
        log_timezone="America/St_Johns",
    )
    with psycopg.connect(server.dsn, autocommit=True) as admin:
        admin.execute("CREATE ROLE app LOGIN")
        admin.execute("CREATE ROLE reaper LOGIN IN ROLE pg_read_all_stats, pg_signal_backend")
    app = Role(name="app", dsn=make_conninfo(server.dsn, user="app"))
    with (
        Reaper(tmp_path, REAPER_DSN=make_conninfo(server.dsn, user="reaper")) as reaper,
        Clients(server.dsn) as clients,
    ):
        policy = leaked(app, safety_limit="none")
        reaper.write(FILE, policy_file(policy, protect={"application": ["kept"]}))
        life = reaper.start("run", "--audit-log", "audit.jsonl", "--listen", "off")
        reaper.recorded("server.counters")
        leaks = [clients.open(role=app, application=f"web-{number}") for number in range(2)]
        skipped = clients.open(role=app, application="kept")
        for leak in leaks:
            until(leak.left)
        with psycopg.connect(server.dsn, autocommit=True) as admin:
            admin.execute("SELECT pg_terminate_backend(%s)", [skipped.pid])
        until(skipped.left)
        if major >= COUNTS_SINCE:
            until(lambda: counted(server) == 3)
        assert life.end().code == 0
        folder = server.data / "log"
        logs = {
            name: folder / f"postgresql.{ending}"
            for name, ending in (("csvlog", "csv"), ("jsonlog", "json"))
            if name in formats
        }
        yield LoggedRun(server, reaper, logs)


def counted(server: EmbeddedServer) -> int:
    with psycopg.connect(server.dsn) as connection:
        row = connection.execute("SELECT sum(sessions_killed) FROM pg_stat_database").fetchone()
    return int(row[0]) if row else 0


def reconciled(logged_run: LoggedRun, log: str, *options: str, code: int = 0) -> Any:  # noqa: ANN401 (a document)
    given = ("--server-log", str(logged_run.logs[log]), *options)
    done = logged_run.reaper("audit", "reconcile", "audit.jsonl", *given, "--output", "json")
    assert done.code == code, done.err
    return done.document


def rewritten(logged_run: LoggedRun, change: Callable[[list[Fields]], list[Fields]]) -> None:
    events = change(logged_run.reaper.record())
    logged_run.reaper.write("audit.jsonl", "".join(f"{json.dumps(event)}\n" for event in events))


def test_audit_log_server_log_and_count_agree_and_the_administrator_s_termination_is_named(
    logged_run: LoggedRun, major: int
) -> None:
    answers = [reconciled(logged_run, log) for log in logged_run.logs]
    for answer in answers:
        assert answer["agrees"] is True
        assert answer["log"]["agreed"] == 2
        assert len(answer["log"]["in_the_log_not_by_us"]) == 1
        assert answer["log"]["terminated_by_us_not_in_the_log"] == []
    (count,) = answers[0]["counts"]
    if major >= COUNTS_SINCE:
        assert (count["server_counts"], count["record_may_have"]) == (3, 2)
        assert (count["others_at_least"], count["others_at_most"]) == (1, 3 - count["record_has"])
    else:
        assert count["not_compared"] == "this server does not count (before 14)"
    said = logged_run.reaper(
        "audit", "reconcile", "audit.jsonl", "--server-log", str(logged_run.logs["csvlog"])
    )
    assert said.code == 0
    assert said.out.splitlines()[-1] == "They agree."
    assert [line for line in said.out.splitlines() if line.startswith("in the log, not by us: ")]


def test_open_intents_of_a_crash_are_resolved_by_the_server_s_log(logged_run: LoggedRun) -> None:
    def crashed(events: list[Fields]) -> list[Fields]:
        """As if it had ended between a signal and its outcome, and before another signal."""
        *_, last = (event for event in events if event["event"] == "session.outcome")
        left = [event for event in events if event is not last]
        intent = next(event for event in events if event.get("intent") == last["intent"])
        return [*left, {**intent, "intent": "never/1", "pid": 1}]

    last = [event for event in logged_run.reaper.record() if event["event"] == "session.outcome"][-1]
    rewritten(logged_run, crashed)
    for log in logged_run.logs:
        answer = reconciled(logged_run, log)["log"]
        assert [act["intent"] for act in answer["resolved_as_terminated"]] == [last["intent"]]
        assert [act["intent"] for act in answer["resolved_as_not_terminated"]] == ["never/1"]
    said = logged_run.reaper(
        "audit", "reconcile", "audit.jsonl", "--server-log", str(logged_run.logs["csvlog"])
    ).out
    assert f"pid {last['pid']}, " in said
    assert "has no outcome in the audit log, by the log it was terminated: " in said
    assert "has no outcome in the audit log, by the log it was not terminated" in said


def test_terminations_that_the_server_does_not_have_exit_with_1(logged_run: LoggedRun) -> None:
    def boasted(events: list[Fields]) -> list[Fields]:
        outcome = next(event for event in events if event["event"] == "session.outcome")
        return [*events, *({**outcome, "intent": f"never/{pid}", "pid": pid} for pid in (1, 2, 3, 4))]

    rewritten(logged_run, boasted)
    for log in logged_run.logs:
        answer = reconciled(logged_run, log, code=1)
        assert [act["pid"] for act in answer["log"]["terminated_by_us_not_in_the_log"]] == [1, 2, 3, 4]
    said = logged_run.reaper(
        "audit", "reconcile", "audit.jsonl", "--server-log", str(logged_run.logs["csvlog"])
    )
    assert said.out.splitlines()[-1] == "They do not agree."
    assert "terminated by us, not in the log: intent never/1, pid 1, seen at " in said.out


def test_the_present_count_of_the_server_can_be_added(logged_run: LoggedRun, major: int) -> None:
    done = logged_run.reaper("audit", "reconcile", "audit.jsonl", "--live", "-o", "json")
    assert done.code == 0, done.err
    assert len(done.document["counts"]) == 2
    assert done.document["counts"][1]["server_counts"] == (0 if major >= COUNTS_SINCE else None)
    logged_run.server.stop()
    away = logged_run.reaper("audit", "reconcile", "audit.jsonl", "--live")
    assert (away.code, "Traceback" in away.err) == (3, False)


def test_a_file_that_is_no_server_log_is_a_sentence(logged_run: LoggedRun) -> None:
    def asked(log: str, *options: str) -> str:
        done = logged_run.reaper("audit", "reconcile", "audit.jsonl", "--server-log", log, *options)
        assert done.code == 2
        assert "Traceback" not in done.err
        return done.err

    logged_run.reaper.write("strange.log", "hello\n")
    stderr = logged_run.logs["csvlog"].with_suffix(".log")
    for log in ("strange.log", str(stderr)):
        first, hint = asked(log).splitlines()
        assert first == f"{log} is neither a csvlog nor a jsonlog"
        assert hint.startswith("hint: set log_destination = 'csvlog'")
    assert "cannot be read: No such file or directory." in asked("nothing.log")


def test_with_nothing_to_compare_nothing_is_said_to_agree(tmp_path: Path) -> None:
    with Reaper(tmp_path) as reaper:
        reaper.write("audit.jsonl", "")
        said = reaper("audit", "reconcile", "audit.jsonl")
        document = reaper("audit", "reconcile", "audit.jsonl", "--output", "json").document
    assert said.code == 0
    assert said.out.splitlines()[-1] == "Nothing could be compared."
    assert document["compared"] is False
