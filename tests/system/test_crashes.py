"""`reaper run` under SIGKILL, two at once: every termination that the server counts has an intent."""

import random
import re
import signal
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from threading import Event as Flag
from threading import Thread
from typing import Final

import psycopg
from psycopg.conninfo import make_conninfo

from reaper.audit.events import INTENT, OUTCOME, TORN, Event
from reaper.audit.reader import BadLine, open_intents, read_events
from reaper.demo.server import EmbeddedServer
from tests.postgres.sandbox import Role
from tests.postgres.waiting import until

from .command import Life, Reaper
from .policies import FILE, leaked, policy_file

LIVES: Final = 12
FILES: Final = ("one.jsonl", "two.jsonl")
"""Two reapers at once, each with an audit log of its own."""
TERMINATED: Final = re.compile(
    r"\[\d+\] (leak-\d+) FATAL:  terminating connection due to administrator command"
)
RESTLESS: Final = 0.01
AT_MOST: Final = 20


@contextmanager
def restless_clients(way_in: str) -> Iterator[None]:
    """Clients that come and go under names that are never used again; many of them are idle too long."""
    done = Flag()

    def come_and_go() -> None:
        opened = deque[psycopg.Connection]()
        for number in count():
            if done.wait(RESTLESS):
                break
            opened.append(psycopg.connect(way_in, application_name=f"leak-{number}"))
            if len(opened) > AT_MOST:
                opened.popleft().close()
        for connection in opened:
            connection.close()

    clients = Thread(target=come_and_go)
    clients.start()
    try:
        yield
    finally:
        done.set()
        clients.join()


def lines(folder: Path) -> int:
    paths = [folder / name for name in FILES]
    return sum(path.read_bytes().count(b"\n") for path in paths if path.exists())


def crash(life: Life, folder: Path, after: int) -> None:
    """End it when both audit logs together have grown by that many lines: one of the two is the standby."""
    life.logged("server.connected")
    goal = lines(folder) + after
    until(lambda: lines(folder) >= goal)
    assert life.end(signal.SIGKILL).code == -signal.SIGKILL


def applications(events: list[Event], name: str, *outcomes: str) -> set[str]:
    return {
        str(event.text("application"))
        for event in events
        if event.name == name and (not outcomes or event.text("outcome") in outcomes)
    }


def test_after_any_number_of_crashes_nobody_was_terminated_without_an_intent(
    tmp_path: Path, own_server: EmbeddedServer
) -> None:
    with psycopg.connect(own_server.dsn, autocommit=True) as admin:
        admin.execute("CREATE ROLE app LOGIN")
        admin.execute("CREATE DATABASE shop")
        admin.execute("CREATE ROLE reaper LOGIN IN ROLE pg_read_all_stats, pg_signal_backend")
    app = Role(name="app", dsn=make_conninfo(own_server.dsn, user="app", dbname="shop"))
    chosen = random.Random(20261120)  # noqa: S311 (a repeatable choice of instants)
    with Reaper(tmp_path, REAPER_DSN=make_conninfo(own_server.dsn, user="reaper")) as reaper:
        policy = leaked(app, idle_for="20ms", safety_limit={"share": "100%"})
        reaper.write(FILE, policy_file(policy, min_interval="10ms"))

        with restless_clients(app.dsn):
            lives = deque((name, reaper.start("run", "--audit-log", name)) for name in FILES)
            for _ in range(LIVES * len(FILES)):
                name, life = lives.popleft()
                crash(life, tmp_path, after=chosen.randrange(1, 40))
                lives.append((name, reaper.start("run", "--audit-log", name)))
            for _, life in lives:
                life.logged("server.connected")
                assert life.end().code == 0

    read = [event for name in FILES for event in read_events(tmp_path / name)]
    events = [event for event in read if isinstance(event, Event)]
    intended = applications(events, INTENT)
    gone = TERMINATED.findall(own_server.log_text())
    assert len(gone) == len(set(gone)), "nobody can be terminated twice"
    assert set(gone) <= intended
    assert applications(events, OUTCOME, "terminated") <= set(gone)
    assert set(gone) - applications(events, OUTCOME, "terminated") <= applications(
        events, OUTCOME, "unknown", "signalled"
    )
    assert open_intents(events) == []
    assert sum(isinstance(each, BadLine) for each in read) <= sum(event.name == TORN for event in events)
    verified = reaper("audit", "verify", *FILES)
    assert verified.code == 0, verified.out
    assert own_server.major < 14 or until(lambda: sessions_killed(own_server) == len(gone))
    assert len(gone) > LIVES


def sessions_killed(server: EmbeddedServer) -> int:
    """How many sessions the server counts as terminated by somebody."""
    with psycopg.connect(server.dsn) as connection:
        row = connection.execute(
            "SELECT sessions_killed FROM pg_stat_database WHERE datname = 'shop'"
        ).fetchone()
    return int(row[0]) if row else 0
