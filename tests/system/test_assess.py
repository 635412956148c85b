"""`reaper assess`, of a running service and of audit logs."""

import json
import signal
from typing import Any

import psycopg
import pytest

from tests.postgres.clients import Client, Clients
from tests.postgres.sandbox import Role
from tests.postgres.waiting import until

from .command import Life, Reaper
from .policies import FILE, leaked, policy_file
from .service import ANYWHERE, RECORD, Service

HOSTILE = "\u202e\x1b[2Jweb"


def dry_running(reaper: Reaper, app: Role) -> Life:
    """A service with a policy in dry run, and an HTTP port."""
    reaper.write(FILE, policy_file(leaked(app, mode="dry-run")))
    return reaper.start("run", *RECORD, *ANYWHERE)


def opened(clients: Clients, app: Role, *names: str) -> list[Client]:
    return [clients.open(role=app, application=name) for name in names]


def assessment(reaper: Reaper, *arguments: str) -> dict[str, Any]:
    """The assessment of the only policy."""
    document = reaper("assess", *arguments, "--output", "json").document
    (policy,) = document["policies"]
    return dict(policy)


def test_outcomes_are_logged_counted_and_assessed(reaper: Reaper, app: Role, clients: Clients) -> None:
    stays, used, closed = opened(clients, app, "stays", "used", "closed")
    life = dry_running(reaper, app)
    for name in ("stays", "used", "closed"):
        reaper.recorded("session.outcome", application=name, outcome="dry-run")

    used.wake()
    closed.close()

    revived = reaper.recorded("session.dry_run_outcome", application="used", dry_run_outcome="used-again")
    reaper.recorded("session.dry_run_outcome", application="closed", dry_run_outcome="left")
    reaper.recorded("session.dry_run_outcome", application="stays", dry_run_outcome="unused")
    assert revived["pid"] == used.pid
    assert revived["detail"].startswith("used again after ")
    assert life.logged("dry_run.outcome", outcome="used-again")["policy"] == "leaked"
    Service(life).shows(1, "pg_reaper_dry_run_outcomes_total", policy="leaked", outcome="used-again")
    assert stays.present()
    assert life.end().code == 0

    done = reaper("assess", "audit.jsonl")
    assert done.code == 1
    assert done.out.startswith("leaked  no\nnot yet: 1 of ")
    assert (assessment(reaper, "audit.jsonl")["used_again"], assessment(reaper, "audit.jsonl")["left"]) == (
        1,
        1,
    )


def test_a_running_service_assesses_as_its_audit_log(reaper: Reaper, app: Role, clients: Clients) -> None:
    _, used = opened(clients, app, "stays", "used")
    life = dry_running(reaper, app)
    at = life.logged("http.listening")["at"]
    reaper.recorded("session.outcome", application="used", outcome="dry-run")
    used.wake()
    reaper.recorded("session.dry_run_outcome", application="used", dry_run_outcome="used-again")
    reaper.recorded("session.dry_run_outcome", application="stays", dry_run_outcome="unused")

    live, recorded = assessment(reaper, "--url", at), assessment(reaper, "audit.jsonl")

    keys = ("policy", "advice", "used_again", "left", "unknown", "rules")
    assert {key: live[key] for key in keys} == {key: recorded[key] for key in keys}
    page = json.loads(Service(life).ask("assess").body)
    assert page["watched"] == 2


def test_an_unchanged_session_after_a_restart_counts_once(
    reaper: Reaper, app: Role, clients: Clients
) -> None:
    opened(clients, app, "stays")
    for _ in range(2):
        life = dry_running(reaper, app)
        life.logged("cycle.acted", **{"dry-run": 1})
        assert life.end().code == 0

    seen = assessment(reaper, "audit.jsonl")

    assert (seen["dry_runs"], seen["unknown"]) == (1, 0)
    dry_run_before = [line for line in reaper.record() if line.get("outcome") == "dry-run"]
    assert len(dry_run_before) == 2


def test_a_changed_policy_file_is_assessed_by_its_own_dry_runs(
    reaper: Reaper, app: Role, clients: Clients
) -> None:
    opened(clients, app, "stays")
    life = dry_running(reaper, app)
    before = reaper.recorded("session.outcome", application="stays", outcome="dry-run")["rules"]

    reaper.write(FILE, policy_file(leaked(app, mode="dry-run", idle_for="120ms")))
    life.send(signal.SIGHUP)
    after = life.logged("policy.reloaded")["rules"]
    until(lambda: after[:12] in {line["rules"][:12] for line in reaper.record() if "outcome" in line})
    assert life.end().code == 0

    assert not after.startswith(before[:12])
    seen = assessment(reaper, "audit.jsonl")
    assert (seen["dry_runs"], seen["earlier_dry_runs"]) == (1, 1)
    assert assessment(reaper, "audit.jsonl", "--any-rules")["dry_runs"] == 2


def line(number: int, outcome: str, **fields: object) -> str:
    """An outcome in an audit log."""
    told = {
        "schema": 1,
        "event": "session.dry_run_outcome",
        "time": "2026-01-31T12:00:00Z",
        "run": "life",
        "server": "orders",
        "policy": "leaked",
        "rules": "digest",
        "pid": number,
        "backend_start": "2026-01-31T08:00:00Z",
        "state_change": "2026-01-31T09:00:00Z",
        "server_time": "2026-01-31T09:10:00Z",
        "idle_s": 600.0,
        "state": "idle",
        "application": "web-1",
        "role": "app",
        "database": "shop",
        "client": None,
        "dry_run_outcome": outcome,
        "dry_run_outcome_at": "2026-01-31T11:00:00Z",
        "used_at": None,
        **fields,
    }
    return json.dumps(told) + "\n"


def test_many_unused_sessions_are_a_yes(offline: Reaper) -> None:
    offline.write("a.jsonl", "".join(line(number, "unused") for number in range(50)))

    done = offline("assess", "a.jsonl")

    assert done.code == 0
    assert done.out.startswith("leaked  yes\nsafe to enforce by what was seen: none of 50 used again")


@pytest.mark.parametrize("text", ["", line(1, "unknown"), "".join(line(each, "unused") for each in range(9))])
def test_nothing_and_too_little_are_a_no(offline: Reaper, text: str) -> None:
    offline.write("a.jsonl", text)

    assert offline("assess", "a.jsonl").code == 1


def test_only_the_given_policy_and_server_are_assessed(offline: Reaper) -> None:
    lines = [line(number, "unused") for number in range(50)]
    lines += [line(1, "used-again", policy="other"), line(2, "used-again", server="billing")]
    offline.write("a.jsonl", "".join(lines))

    assert offline("assess", "a.jsonl").code == 1
    assert offline("assess", "a.jsonl", "--policy", "leaked", "--server", "ord*").code == 0


def test_a_better_limit_is_shown(offline: Reaper) -> None:
    back = line(99, "used-again", used_at="2026-01-31T09:24:10Z", application="checkout-3")
    offline.write("a.jsonl", "".join([*(line(number, "unused") for number in range(50)), back]))

    said = assessment(offline, "a.jsonl")["summary"]

    assert said == (
        "not yet: 1 of 51 used again, all of checkout-*; at idle_for: 25m it would have been none of 50"
    )
    assert "at idle_for: 25m, 0 of the 50 that it would have matched" in offline("assess", "a.jsonl").out


def test_a_hostile_name_is_printed_harmlessly(offline: Reaper) -> None:
    lines = [line(number, "used-again", application=f"{HOSTILE}{number}") for number in range(12)]
    offline.write("a.jsonl", "".join(lines))

    for output in ("table", "json", "yaml"):
        done = offline("assess", "a.jsonl", "--output", output)
        assert done.code == 1
        assert "\x1b" not in done.out
        assert "\u202e" not in done.out


def test_files_on_the_command_line_win_over_an_address_in_the_environment(offline: Reaper) -> None:
    offline.write("a.jsonl", "".join(line(number, "unused") for number in range(50)))

    assert offline("assess", "a.jsonl", REAPER_URL="127.0.0.1:1").code == 0
    assert offline("assess", "--url", "127.0.0.1:1", REAPER_AUDIT_LOG="a.jsonl").code == 3
    assert offline("assess", REAPER_AUDIT_LOG="a.jsonl").code == 0


def test_options_of_audit_logs_are_refused_with_a_url(offline: Reaper) -> None:
    done = offline("assess", "--url", "127.0.0.1:1", "--since", "1h")

    assert done.code == 2
    assert "--since" in done.err


@pytest.mark.parametrize(("url", "code"), [("127.0.0.1:1", 3), ("ftp://x", 2), ("http://u@x", 2)])
def test_an_address_without_a_reaper_is_an_error(offline: Reaper, url: str, code: int) -> None:
    done = offline("assess", "--url", url)

    assert done.code == code
    first, *hints = done.err.splitlines()
    assert url in first
    assert all(line.startswith("hint: ") for line in hints)


def reason(reaper: Reaper, *arguments: str) -> set[str]:
    """What `reaper plan` says of the pool."""
    decisions = reaper("plan", "--output", "json", *arguments).document["decisions"]
    return {decision["reason"] for decision in decisions if decision["application"] == "pool"}


def has_been_there(admin: psycopg.Connection, client: Client) -> bool:
    question = (
        "SELECT clock_timestamp() - backend_start > interval '5 s' FROM pg_stat_activity WHERE pid = %s"
    )
    row = admin.execute(question, (client.pid,)).fetchone()
    return bool(row and row[0])


def test_a_pool_that_refills_at_once_is_paused_and_a_leak_is_not(
    reaper: Reaper, app: Role, clients: Clients, admin: psycopg.Connection
) -> None:
    # Long enough for a busy machine, where the pool below needs seconds to notice an end and to reconnect.
    guard = {"within": "4s", "after": 4, "pause": "1h"}
    reaper.write(
        FILE, policy_file(leaked(app, safety_limit="none", when={"slots_used": "1%"}, refill_guard=guard))
    )
    leaks = opened(clients, app, *["leak"] * 4)
    pool = opened(clients, app, *["pool"] * 2)
    until(lambda: has_been_there(admin, pool[-1]))  # longer than a newcomer, before anybody is ended
    life = reaper.start("run", *RECORD, *ANYWHERE)

    def refilled() -> bool:
        for place, member in enumerate(pool):
            if member.left():
                pool[place] = clients.open(role=app, application="pool")
        return life.has_logged("policy.paused")

    until(refilled)
    paused = reaper.recorded("policy.paused")

    assert paused["application"] == "pool"
    assert paused["reason"].endswith(": make this pool smaller")
    Service(life).shows(1, "pg_reaper_refill_guard_pauses_total", policy="leaked")
    (member, other) = pool
    Service(life).shows(2, "pg_reaper_skipped", reason="refill_guard")
    assert member.present()
    assert other.present()
    assert all(leak.left() for leak in leaks)
    at = life.logged("http.listening")["at"]
    assert reason(reaper, "--url", at) == {paused["reason"]}
    assert reason(reaper) != reason(reaper, "--url", at)
    explained = reaper("explain", str(member.pid), "--url", at)
    assert f"skipped: {paused['reason']}" in explained.out
    lines = [line for line in reaper.record() if line["event"] == "policy.paused"]
    assert len(lines) == 1
    assert life.end().code == 0
    done = reaper("assess", "audit.jsonl")
    assert "Pools that refill at once\npool " in done.out


def test_a_policy_that_its_safety_limit_always_stopped_is_listed(offline: Reaper) -> None:
    reason = "safety limit: 9 of 10 sessions matched"
    fields = {"event": "policy.safety_limit", "mode": "dry-run", "reason": reason}
    offline.write("a.jsonl", "".join(line(number, "unused") for number in range(50)))
    offline.write("b.jsonl", line(1, "", policy="wide", **fields))
    offline.write("c.jsonl", line(1, "", policy="wide", **{**fields, "mode": "enforce"}))
    offline.write("d.jsonl", "".join(line(number, "unused", policy="wide") for number in range(50)))

    done = offline("assess", "a.jsonl", "b.jsonl")

    assert done.code == 1
    assert f"wide at orders: {reason}, last at 2026-01-31T09:10:00Z" in done.out
    assert offline("assess", "a.jsonl", "b.jsonl", "--policy", "leaked").code == 0
    assert offline("assess", "a.jsonl", "c.jsonl").code == 0
    assert offline("assess", "b.jsonl", "d.jsonl").code == 0
