"""What a running service answers, and the server that it runs at, for the tests of the daemon."""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.error import HTTPError
from urllib.request import urlopen

import psycopg
from prometheus_client.parser import text_string_to_metric_families
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tests.postgres.clients import Client
from tests.postgres.sandbox import Role
from tests.postgres.waiting import PATIENCE, until

from .command import Fields, Life, Reaper, parsed
from .policies import Keys

ANYWHERE = ("--listen", "127.0.0.1:0")
"""A port that is free, which the log then names."""

RECORD = ("--audit-log", "audit.jsonl")


class Answer(NamedTuple):
    """What one page said."""

    status: int
    body: str

    @property
    def reasons(self) -> Mapping[str, str]:
        """Why it is not well, by server."""
        reasons: Mapping[str, str] = json.loads(self.body)["reasons"]
        return reasons


class Service:
    """A life of `reaper run` whose pages can be asked for."""

    def __init__(self, life: Life) -> None:
        self.life = life

    def ask(self, page: str) -> Answer:
        """Get a page, whatever its status."""
        url = f"http://{self.life.logged('http.listening')['at']}/{page}"
        try:
            with urlopen(url, timeout=PATIENCE) as answer:
                return Answer(answer.status, answer.read().decode())
        except HTTPError as error:
            with error:
                return Answer(error.code, error.read().decode())

    def number(self, name: str, **labels: str) -> float | None:
        """A metric, when it is shown."""
        for family in text_string_to_metric_families(self.ask("metrics").body):
            for sample in family.samples:
                if sample.name == name and labels.items() <= sample.labels.items():
                    return float(sample.value)
        return None

    def shows(self, value: float | None, name: str, **labels: str) -> None:
        """Wait until a metric has this value."""
        until(lambda: self.number(name, **labels) == value)


def events(life: Life, name: str) -> list[Fields]:
    """Every such line that it has logged by now."""
    return [line for line in parsed(list(life.err)) if line["event"] == name]


def outcomes(events: list[Fields]) -> dict[str, str]:
    """What became of each application's session."""
    return {event["application"]: event["outcome"] for event in events if event["event"] == "session.outcome"}


def is_overdue(admin: psycopg.Connection, client: Client) -> bool:
    """Whether the policies of these tests already condemn it, by the server's clock."""
    question = """
        SELECT clock_timestamp() - state_change > interval '100 ms' FROM pg_stat_activity WHERE pid = %s
    """
    row = admin.execute(question, (client.pid,)).fetchone()
    return bool(row and row[0])


def as_server(name: str, role: Role, **keys: Any) -> Keys:  # noqa: ANN401 (whatever a policy file may say)
    """A server of a policy file: this role's way in without its password, to a database of one's choice."""
    given = conninfo_to_dict(role.dsn)
    given.pop("password", None)
    given.update({"dbname": keys.pop("dbname")} if "dbname" in keys else {})
    return {"name": name, "dsn": make_conninfo("", **given), **keys}


def password_of(role: Role) -> str:
    """What goes into PGPASSWORD."""
    return str(conninfo_to_dict(role.dsn).get("password") or "")


def sessions_of(admin: psycopg.Connection, role: Role) -> list[tuple[int, str]]:
    """The pid and the database of each session that this role has."""
    question = "SELECT pid, datname FROM pg_stat_activity WHERE usename = %s ORDER BY pid"
    return admin.execute(question, (role.name,)).fetchall()


def started(reaper: Reaper, *arguments: str) -> Service:
    """`reaper run` with a record in a file and pages at a free port, telling everything."""
    return Service(reaper.start("run", *ANYWHERE, *RECORD, "--log-level", "debug", *arguments))
