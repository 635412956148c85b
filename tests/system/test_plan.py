"""`reaper plan`, `snapshot` and `explain`: what would be done, online and off."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest
import yaml

from tests.postgres.clients import Client, Clients
from tests.postgres.sandbox import Role

from .command import Reaper
from .policies import FILE, leaked, policy_file


@pytest.fixture
def cast(reaper: Reaper, app: Role, clients: Clients) -> Mapping[str, Client]:
    """A session for each verdict, and the policies that give it."""
    dry_run_before = {**leaked(app, mode="dry-run"), "name": "consoles"}
    dry_run_before["match"] = {**dry_run_before["match"], "state": ["idle in transaction"]}
    reaper.write(
        FILE,
        policy_file(leaked(app, idle_for="1ms", allowlist={"application": ["metabase"]}), dry_run_before),
    )
    names = ("leak", "metabase", "leader")
    opened = {name: clients.open(role=app, application=name) for name in names}
    opened["leader"].hold_advisory_lock(opened["leader"].pid)
    opened["console"] = clients.open(role=app, application="console", state="idle in transaction")
    opened["bystander"] = clients.open(application="bystander")
    return opened


def decisions(rows: Sequence[Mapping[str, Any]], cast: Mapping[str, Client]) -> dict[str, tuple[str, Any]]:
    """Of each of the cast, what a plan says."""
    pids = {client.pid for client in cast.values()}
    return {row["application"]: (row["decision"], row["policy"]) for row in rows if row["pid"] in pids}


def test_every_candidate_is_shown_with_what_would_be_done_and_nobody_is_touched(
    reaper: Reaper, cast: Mapping[str, Client]
) -> None:
    done = reaper("plan", "-o", "json")

    assert done.code == 0
    assert decisions(done.document["decisions"], cast) == {
        "leak": ("terminate", "leaked"),
        "metabase": ("skip", "leaked"),
        "leader": ("skip", "leaked"),
        "console": ("dry-run", "consoles"),
    }
    reasons = {row["application"]: row["reason"] for row in done.document["decisions"]}
    assert reasons["metabase"] == "allowlist application 'metabase'"
    assert reasons["leader"] == "protected: holds advisory lock"
    assert all(client.present() for client in cast.values())


def test_everybody_is_shown_on_demand(reaper: Reaper, cast: Mapping[str, Client]) -> None:
    done = reaper("plan", "--all", "-o", "json")

    assert decisions(done.document["decisions"], cast)["bystander"] == ("skip", None)
    assert len({row["pid"] for row in done.document["decisions"]}) == len(done.document["decisions"])


def test_the_rows_of_sessions_agree_with_the_documents(reaper: Reaper, cast: Mapping[str, Client]) -> None:
    reaper("snapshot", "seen.json")
    options = ("plan", "--snapshot", "seen.json", "--all", "--sessions")
    table, as_json, as_yaml = (reaper(*options, "-o", form) for form in ("table", "json", "yaml"))

    document = as_json.document
    assert yaml.safe_load(as_yaml.out) == document
    rows = table.out.splitlines()[1 : 1 + len(document["decisions"])]
    for row, decision in zip(rows, document["decisions"], strict=True):
        assert row.startswith(decision["decision"])
        assert f" {decision['pid']} " in row
        assert row.rstrip().endswith(decision["reason"])
        assert decision["age_s"] >= 0
    assert decisions(document["decisions"], cast).keys() == cast.keys()


def test_the_table_has_one_row_for_each_application_and_decision_of_a_policy(
    reaper: Reaper, app: Role, clients: Clients
) -> None:
    reaper.write(FILE, policy_file(leaked(app, idle_for="1ms", max_per_cycle=2, safety_limit="none")))
    for _ in range(5):
        clients.open(role=app, application="web")
    clients.open(role=app, application="jobs")

    table = reaper("plan")
    rows = [line.rstrip().split(maxsplit=3) for line in table.out.split("\n\n")[0].splitlines()[1:]]

    (name, sessions, _, mode), *groups = rows
    assert (name, sessions, mode) == ("leaked", "6", "enforce")
    assert sum(int(sessions) for _, sessions, _, _ in groups) == 6
    assert {what for *_, what in groups} == {"terminate", "later: 2 per cycle"}
    assert {application for application, *_ in groups} == {"web", "jobs"}
    only = reaper("plan", "--application", "jo*", "--role", app.name, "--policy", "leaked", "-o", "json")
    assert [row["application"] for row in only.document["decisions"]] == ["jobs"]
    assert reaper("plan", "--policy", "other").out.startswith("No policy matches any session.")


def test_over_the_safety_limit_the_plan_says_what_to_do(reaper: Reaper, app: Role, clients: Clients) -> None:
    reaper.write(FILE, policy_file(leaked(app, idle_for="1ms", safety_limit={"share": "1%", "above": 1})))
    for _ in range(3):
        clients.open(role=app, application="web")

    table = reaper("plan").out

    name, sessions, _, *decision = table.splitlines()[1].split()
    assert (name, sessions, decision[:5]) == ("leaked", "3", ["nothing,", "safety", "limit:", "3", "of"])
    assert "hint: leaked: match fewer sessions" in table


def test_a_snapshot_is_judged_offline_as_its_server_would_be(
    reaper: Reaper, offline: Reaper, cast: Mapping[str, Client]
) -> None:
    online = reaper("plan", "--all", "-o", "json")
    seen = reaper("snapshot").out

    elsewhere = offline("plan", "--all", "-o", "json", "--snapshot", "-", stdin=seen)

    assert elsewhere.code == 0
    there, here = elsewhere.document["decisions"], online.document["decisions"]
    assert decisions(there, cast) == decisions(here, cast)
    assert decisions(there, cast).keys() == cast.keys()
    assert elsewhere.document["server"] == online.document["server"]


@pytest.fixture
def offline(reaper: Reaper) -> Reaper:
    """The same command in the same folder, with no way to any server."""
    elsewhere = object.__new__(Reaper)
    elsewhere.__dict__.update(reaper.__dict__)
    elsewhere.environment = {
        name: value for name, value in reaper.environment.items() if name != "REAPER_DSN"
    }
    return elsewhere


def test_a_snapshot_goes_to_a_file_or_to_stdout_and_needs_no_policy_file(
    reaper: Reaper, cast: Mapping[str, Client]
) -> None:
    (reaper.folder / FILE).unlink()

    to_stdout = reaper("snapshot")
    to_file = reaper("snapshot", "seen.json")

    assert (to_stdout.code, to_file.code, to_file.out) == (0, 0, "")
    saved = json.loads((reaper.folder / "seen.json").read_text(encoding="ascii"))
    for document in (to_stdout.document, saved):
        assert {client.pid for client in cast.values()} <= {row["pid"] for row in document["sessions"]}
        assert {row["query"] for row in document["sessions"]} == {None}


def test_a_snapshot_that_cannot_be_written_or_read_is_2(reaper: Reaper, app: Role) -> None:
    reaper.write(FILE, policy_file(leaked(app)))
    reaper.write("torn.json", '{"snapshot": 1, ')

    written = reaper("snapshot", "nowhere/seen.json")
    missing = reaper("plan", "--snapshot", "seen.json")
    torn = reaper("plan", "--snapshot", "torn.json")

    assert (written.code, missing.code, torn.code) == (2, 2, 2)
    assert written.err == "nowhere/seen.json: cannot be written: No such file or directory\n"
    assert missing.err == "seen.json: cannot be read: No such file or directory\n"
    assert torn.err.startswith("torn.json:1:")


def test_explain_agrees_with_the_plan_about_every_session(reaper: Reaper, cast: Mapping[str, Client]) -> None:
    reaper("snapshot", "seen.json")
    at_seen = ("--snapshot", "seen.json", "-o", "json")
    planned = {row["pid"]: row for row in reaper("plan", "--all", *at_seen).document["decisions"]}

    for name, client in cast.items():
        answer = reaper("explain", str(client.pid), *at_seen).document
        row = planned[client.pid]
        said = {
            "terminate": f"terminate by leaked: {row['reason']}",
            "dry-run": f"dry run (terminate) by consoles: {row['reason']}",
            "skip": f"skipped: {row['reason']}",
        }
        assert answer["decision"] == said[row["decision"]], name
        assert [policy["policy"] for policy in answer["policies"]] == ["leaked", "consoles"]


def test_explain_says_when_a_session_falls_due(reaper: Reaper, app: Role, clients: Clients) -> None:
    client = clients.open(role=app)
    reaper.write(FILE, policy_file(leaked(app, idle_for="2h")))

    document = reaper("explain", str(client.pid), "-o", "json").document
    table = reaper("explain", str(client.pid))

    (policy,) = document["policies"]
    since, due = (datetime.fromisoformat(text) for text in (document["state_change"], policy["due"]))
    assert due - since == timedelta(hours=2)
    assert policy["due_in"] == "in 1h59m"
    assert [(answer["criterion"], answer["holds"]) for answer in policy["criteria"]] == [
        ("state", True),
        ("role", True),
        ("idle_for", False),
    ]
    assert table.code == 0
    assert "due                 in 1h59m" in table.out


def test_explain_of_nobody_is_a_no(reaper: Reaper, app: Role) -> None:
    reaper.write(FILE, policy_file(leaked(app)))

    done = reaper("explain", "1")

    assert (done.code, done.out) == (1, "")
    assert done.err.rstrip().endswith("no client session has pid 1")
