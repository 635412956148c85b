"""Many servers: shared out among processes, begun at one after the other, and none of them twice."""

import signal
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from reaper.service.fleet import Shard
from tests.postgres.clients import Clients
from tests.postgres.conftest import StartServer
from tests.postgres.sandbox import Role, Sandbox
from tests.postgres.waiting import until

from .command import Reaper
from .policies import FILE, Keys, leaked, policy_file
from .service import as_server, events, password_of, sessions_of, started

_BREAKS = """
import reaper.service.server_loop as loop

async def breaks(*_: object) -> None:
    raise ZeroDivisionError("as a defect would")

loop.ServerLoop._run_cycles = breaks
"""


@pytest.fixture
def fleet(tmp_path: Path, reaper_role: Role, clients: Clients) -> Iterator[Reaper]:
    """The command, whose policy file is to name the servers."""
    assert isinstance(clients, Clients)  # opened before, and so closed after the command has ended
    with Reaper(tmp_path, PGPASSWORD=password_of(reaper_role)) as reaper:
        yield reaper


def test_two_shards_look_after_each_server_exactly_once(
    fleet: Reaper, app: Role, reaper_role: Role, sandbox: Sandbox
) -> None:
    names = [f"shop-{number}" for number in range(6)]
    servers: list[Keys] = [
        as_server(name, reaper_role, dbname=sandbox.create_database(name)) for name in names
    ]
    fleet.write(FILE, policy_file(leaked(app), servers=servers))
    lives = {
        Shard(index, 2): fleet.start(
            "run", "--audit-log", f"{index}.jsonl", "--listen", "off", "--shard", f"reaper-{index}/2"
        )
        for index in range(2)
    }

    leads = {}
    for shard, life in lives.items():
        ours = [name for name in names if shard.owns(name)]
        assert 0 < len(ours) < len(names)
        leads[shard] = sorted({life.logged("leader.acquired", server=name)["server"] for name in ours})
        assert leads[shard] == sorted(ours)
        assert life.logged("reaper.started")["servers"] == list(ours)
        assert not life.has_logged("leader.standby")
    assert sorted(name for ours in leads.values() for name in ours) == names


def test_shards_that_overlap_meet_at_the_lock(
    fleet: Reaper, app: Role, reaper_role: Role, sandbox: Sandbox
) -> None:
    server = as_server("shop", reaper_role, dbname=sandbox.database)
    fleet.write(FILE, policy_file(leaked(app), servers=[server]))
    all_of_it = fleet.start("run", "--audit-log", "all.jsonl", "--listen", "off", "--shard", "0/1")
    all_of_it.logged("leader.acquired")
    (index,) = (index for index in range(2) if Shard(index, 2).owns("shop"))
    share = fleet.start("run", "--audit-log", "share.jsonl", "--listen", "off", "--shard", f"{index}/2")

    share.logged("leader.standby")
    all_of_it.send(signal.SIGTERM)
    share.logged("leader.acquired")


@pytest.mark.parametrize("shard", ["2/2", "-1/2", "1.5/2", "0/2/4", "half", "1/"])
def test_what_is_no_shard_is_refused_before_anything_begins(reaper: Reaper, app: Role, shard: str) -> None:
    reaper.write(FILE, policy_file(leaked(app)))
    done = reaper("run", "--listen", "off", "--shard", shard)
    assert done.code == 2
    assert done.err.startswith("--shard: ")


def test_many_servers_are_begun_at_without_a_failure(tmp_path: Path, start_server: StartServer) -> None:
    own = start_server(max_connections="150")
    # Names of one database: a lead is a database's, so one of them acts and the others stand by.
    servers: list[Keys] = [as_server(f"shop-{number}", Role("", own.dsn)) for number in range(100)]
    with Reaper(tmp_path) as reaper:
        reaper.write(FILE, policy_file(leaked(Role("app", "")), servers=servers, interval="10s"))
        service = started(reaper)

        until(lambda: service.ask("readyz").status == 200)
        assert len(events(service.life, "server.connected")) == 100
        assert len(events(service.life, "leader.acquired")) == 1
        assert not events(service.life, "server.unreachable")
        assert service.life.end().code == 0


def test_a_part_that_breaks_ends_the_process_with_a_reason_and_frees_the_lead(
    reaper: Reaper, app: Role, reaper_role: Role, clients: Clients, admin: psycopg.Connection
) -> None:
    leak = clients.open(role=app)
    reaper.write(FILE, policy_file(leaked(app)))
    reaper.write("sitecustomize.py", _BREAKS)
    done = reaper("run", "--audit-log", "audit.jsonl", "--listen", "off", PYTHONPATH=str(reaper.folder))

    assert done.code == 70
    (told,) = [line for line in done.log if line["event"] == "reaper.broken"]
    assert told["why"] == "ZeroDivisionError: as a defect would"
    assert "Traceback" in told["exception"]
    assert done.err.splitlines()[-1] == (
        "a part of the service has ended unexpectedly: this is a defect of the reaper"
    )
    assert not sessions_of(admin, reaper_role)
    assert leak.present()
