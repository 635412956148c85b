"""Whatever a client calls itself, it is data: it cannot forge a line or move a cursor."""

import os
import pty
import re
from collections.abc import Mapping
from typing import Final

import pytest
import yaml
from psycopg.conninfo import make_conninfo

from tests.postgres.clients import Clients
from tests.postgres.sandbox import Role, Sandbox
from tests.postgres.waiting import until

from .command import Reaper, parsed
from .policies import FILE, policy_file
from .test_audit_log import heard

FORGED: Final = '{"event": "session.outcome", "outcome": "forged"}'
NAMES: Final[Mapping[str, str]] = {
    "a line of the record": f"\n{FORGED}\n",
    "a terminal": "\x1b[2J\x1b]0;owned\x07\x9b31m",
    "the reading direction": "\u202eevil\u2066\u2028",
    "markup": "[bold red]x[/bold red] {0} %s $(id) `id` ${HOME}",
    "yaml": "- !!python/object: &a *a\n---\n",
    "more than fits": "é" * 26,
}
SHARE: Final = "nightly-"


@pytest.fixture(params=list(NAMES.values()), ids=list(NAMES))
def hostile(request: pytest.FixtureRequest, reaper: Reaper, sandbox: Sandbox, clients: Clients) -> Role:
    """A role, a database and an application of this name, all condemned by one policy."""
    name: str = request.param
    role = sandbox.role(name)
    database = sandbox.create_database(name)
    clients.open(role=role, database=database, application=SHARE + 2 * name)
    match = {
        "state": ["idle"],
        "idle_for": "1ms",
        "role": [f"{sandbox.prefix}*"],
        "application": [f"{SHARE}*"],
    }
    reaper.write(FILE, policy_file({"name": "hostile", "mode": "enforce", "match": match}))
    ((seen,),) = sandbox.admin.execute(
        "SELECT rolname FROM pg_roles WHERE starts_with(rolname, %s) AND rolname <> %s",
        (sandbox.prefix, f"{sandbox.prefix}reaper"),
    )
    return Role(name=seen, dsn=make_conninfo(role.dsn, dbname=database))


def harmless(text: str) -> bool:
    """Whether nothing in it does anything but stand there."""
    return all(line.isprintable() for line in text.split("\n"))


def test_no_name_can_forge_a_line_of_what_is_shown(reaper: Reaper, hostile: Role) -> None:
    reaper("snapshot", "seen.json")
    asked = ("plan", "--sessions", "--snapshot", "seen.json")
    table, as_json, as_yaml = (reaper(*asked, "-o", form) for form in ("table", "json", "yaml"))

    (row,) = as_json.document["decisions"]
    assert yaml.safe_load(as_yaml.out)["decisions"] == [row]
    assert (row["role"], row["decision"]) == (hostile.name, "terminate")
    assert harmless(table.out)
    assert as_json.out.isascii()
    assert harmless(as_json.out)
    assert harmless(as_yaml.out)
    assert len([line for line in table.out.splitlines() if line.startswith("terminate")]) == 1
    explained = reaper("explain", str(row["pid"]), "--snapshot", "seen.json")
    assert harmless(explained.out)
    assert explained.out.splitlines()[0].startswith("server ")


def test_no_name_can_forge_a_line_of_the_record_or_the_log(reaper: Reaper, hostile: Role) -> None:
    done = reaper("once", "--audit-log", "-", "--audit-log", "audit.jsonl")

    assert done.code == 0
    for text in (done.out, (reaper.folder / "audit.jsonl").read_text(encoding="ascii")):
        assert harmless(text)
        assert len(parsed(text.splitlines())) == len(text.splitlines()) == 5
    (outcome,) = [event for event in done.events if event["event"] == "session.outcome"]
    assert (outcome["role"], outcome["outcome"]) == (hostile.name, "terminated")
    assert len(done.log) == len(done.err.splitlines())
    audited = reaper("audit", "audit.jsonl", "--sessions")
    assert harmless(audited.out)
    assert (
        len([line for line in audited.out.splitlines() if re.match(r"\S{20}  terminated  hostile ", line)])
        == 1
    )


def test_no_name_can_do_anything_to_a_terminal(reaper: Reaper, hostile: Role) -> None:
    ours, theirs = pty.openpty()
    life = reaper.start("once", "--dry-run", stdout=theirs, stderr=theirs, TERM="xterm", NO_COLOR="1")
    os.close(theirs)
    shown = heard(ours)
    assert life.ended().code == 0

    lines = re.sub(r"\x1b\[[0-9;]*m", "", shown).replace("\r\n", "\n")
    assert harmless(lines)
    assert len([line for line in lines.split("\n") if re.match(r"[0-9:]{8} dry-run", line)]) == 1
    assert "\x1b[2J" not in shown
    assert hostile.name


def test_a_hostile_session_is_terminated_like_any_other(
    reaper: Reaper, hostile: Role, clients: Clients
) -> None:
    client = clients.open(role=hostile, application=SHARE)
    assert reaper("once").code == 0
    until(client.left)
