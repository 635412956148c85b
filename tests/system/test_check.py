"""`reaper check`: the policy file, and whether a server lets the reaper work."""

import re
from pathlib import Path
from typing import Final

import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from tests.postgres.sandbox import Role, Sandbox
from tests.postgres.server import Server

from .command import Fields, Reaper
from .policies import FILE, leaked, policy_file

SHIPPED: Final = Path(__file__).parents[2] / "policies.yaml"
MISTAKES: Final = """\
version: 1
interval: 0s
policies:
  - name: Leaked
    mode: enforced
    match:
      state: [idle]
      idle: 10m
  - name: ageless
    match: {state: [idle]}
"""


def findings(reaper: Reaper, *options: str) -> tuple[int, list[Fields]]:
    done = reaper("check", "-o", "json", *options)
    found: list[Fields] = done.document["findings"]
    return done.code, found


def test_every_mistake_is_told_with_its_place_and_nothing_else_happens(offline: Reaper) -> None:
    offline.write(FILE, MISTAKES)

    for command in ("check", "run", "once", "plan"):
        done = offline(command)
        told = done.err.splitlines()
        assert (done.code, done.out) == (2, ""), command
        assert all(re.match(r"policies\.yaml:\d+:\d+: [^:]+: .+; .+", line) for line in told), told
        assert [int(line.split(":")[1]) for line in told] == sorted([2, 4, 5, 8, 10])


def test_the_shipped_file_is_in_order_and_harmless(offline: Reaper) -> None:
    offline.write(FILE, SHIPPED.read_text(encoding="utf-8"))

    done = offline("check", "--offline", "--strict")

    assert done.code == 0
    assert "0 enforcing, " in done.out


def test_mistakes_are_a_document_if_json_is_wanted(offline: Reaper) -> None:
    offline.write(FILE, MISTAKES)

    code, found = findings(offline)

    assert code == 2
    assert {(row["check"], row["level"]) for row in found} == {("policies", "refusal")}
    assert [row["finding"] for row in found] == offline("check").err.splitlines()


def test_without_a_policy_file_the_rights_are_checked(reaper: Reaper) -> None:
    code, found = findings(reaper)

    assert code == 0
    assert found[0]["finding"] == "there is no policies.yaml"
    assert {"visibility", "rights"} <= {row["check"] for row in found}
    named = reaper("check", "-c", "policies.yaml")
    assert (named.code, named.out) == (2, "")


def test_it_ends_with_one_line_and_lists_protections_on_demand(reaper: Reaper, app: Role) -> None:
    reaper.write(FILE, policy_file(leaked(app)))

    short, long = reaper("check"), reaper("check", "--verbose")
    refused = reaper("check", "--dsn", "host=127.0.0.1 port=1")

    assert short.out.splitlines()[-1] == long.out.splitlines()[-1] == "OK"
    assert "protections" not in short.out
    assert "walsenders, idle ones too" in long.out
    assert refused.out.splitlines()[-1] == "1 problem"


def test_without_a_server_only_the_file_is_checked(offline: Reaper, app: Role) -> None:
    offline.write(FILE, policy_file(leaked(app)))

    code, found = findings(offline, "--offline")

    assert code == 0
    assert [row["check"] for row in found] == ["policies"]


def test_a_warning_is_a_no_only_when_asked_to_be_strict(offline: Reaper, app: Role) -> None:
    offline.write(FILE, policy_file(leaked(app), {**leaked(app), "name": "never-asked"}))

    assert findings(offline, "--offline")[0] == 0
    code, found = findings(offline, "--offline", "--strict")

    assert code == 1
    assert [row["level"] for row in found] == ["warning"]
    assert re.match(r"policies\.yaml:\d+:\d+: ", found[0]["finding"])


def test_a_server_that_lets_it_work_is_fine(reaper: Reaper, app: Role, server: Server) -> None:
    reaper.write(FILE, policy_file(leaked(app)))

    code, found = findings(reaper, "--strict")

    assert code == 0
    assert {row["level"] for row in found} <= {"fine", "note"}
    assert f"PostgreSQL {server.major}" in [row["finding"] for row in found]
    assert {row["check"] for row in found} >= {"visibility", "rights", "pooler", "clock", "protections"}
    table = reaper("check", "--verbose")
    assert table.code == 0
    assert all(row["finding"] in table.out for row in found)


@pytest.mark.parametrize(
    ("missing", "check"), [("pg_read_all_stats", "visibility"), ("pg_signal_backend", "rights")]
)
def test_each_missing_right_is_a_no_and_its_sql_mends_it(
    reaper: Reaper, app: Role, reaper_role: Role, admin: psycopg.Connection, missing: str, check: str
) -> None:
    admin.execute(SQL("REVOKE {} FROM {}").format(Identifier(missing), Identifier(reaper_role.name)))
    reaper.write(FILE, policy_file(leaked(app)))

    code, found = findings(reaper)
    (refusal,) = [row for row in found if row["level"] == "refusal"]

    assert (code, refusal["check"]) == (1, check)
    admin.execute(refusal["fix"].encode())
    assert findings(reaper)[0] == 0


def test_a_right_that_is_not_inherited_is_missing(reaper: Reaper, app: Role, sandbox: Sandbox) -> None:
    role = sandbox.role("heirless", member_of=["pg_read_all_stats", "pg_signal_backend"], options="NOINHERIT")
    reaper.write(FILE, policy_file(leaked(app)))
    reaper.environment["REAPER_DSN"] = role.dsn

    code, found = findings(reaper)
    refusals = {row["check"]: row["fix"] for row in found if row["level"] == "refusal"}

    assert (code, set(refusals)) == (1, {"visibility", "rights"})
    for mend in refusals.values():
        sandbox.admin.execute(mend.encode())
    assert findings(reaper)[0] == 0


def test_rights_to_terminate_are_not_missed_where_nothing_is_enforced(
    reaper: Reaper, app: Role, reaper_role: Role, admin: psycopg.Connection
) -> None:
    admin.execute(SQL("REVOKE pg_signal_backend FROM {}").format(Identifier(reaper_role.name)))
    reaper.write(FILE, policy_file(leaked(app, mode="dry-run")))

    assert findings(reaper)[0] == 0
    assert findings(reaper, "--strict")[0] == 1


def test_a_server_that_is_away_is_3(offline: Reaper, app: Role) -> None:
    offline.write(FILE, policy_file(leaked(app)))

    done = offline("check", "-o", "json")

    assert done.code == 3
    assert [row["level"] for row in done.document["findings"]] == ["fine", "refusal"]


def test_set_aside_protections_are_told(reaper: Reaper, app: Role) -> None:
    reaper.write(FILE, policy_file(leaked(app, override_protections=["listeners"])))

    _, found = findings(reaper)

    notes = [row["finding"] for row in found if row["check"] == "protections" and row["level"] == "note"]
    assert notes == ["listeners: overridden by leaked"]
