"""`reaper advise` on a real server: staged problems are found, and each proposed fix works."""

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Protocol

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from reaper.demo.server import EmbeddedServer
from reaper.history.aliases import SECRET_BYTES, Aliases
from reaper.history.write import HistoryFolder, HistoryOptions, HistoryWriter
from reaper.policy.time import Timestamp, parse_duration
from tests.postgres import server as servers
from tests.postgres.clients import Client, Clients
from tests.postgres.conftest import StartServer
from tests.postgres.sandbox import Role, Sandbox
from tests.postgres.waiting import until
from tests.unit.history.histories import ROOMY
from tests.unit.insight.advice.scenes import leak, look
from tests.unit.policy.build import NOW

from .command import Done, Reaper
from .policies import FILE, leaked, policy_file
from .service import ANYWHERE, RECORD
from .test_hostile_names import harmless

LOOK: Final = ("--for", "1s", "--idle-for", "300ms")
LOOKED: Final = "SELECT FROM pg_stat_activity WHERE usename = %s AND query LIKE '%%pg_blocking_pids%%'"
IDLE: Final = (
    "SELECT FROM pg_stat_activity"
    " WHERE pid = %s AND state = 'idle' AND state_change < clock_timestamp() - interval '20 ms'"
)
Row = Mapping[str, Any]


class Scene:
    """A server of the test's own, with the least role and clients on it."""

    def __init__(self, server: EmbeddedServer, stack: ExitStack, folder: Path) -> None:
        self.server = server
        self.sandbox = stack.enter_context(Sandbox(servers.ours(server)))
        self.clients = stack.enter_context(Clients(server.dsn))
        self.role = self.sandbox.role("reaper", member_of=["pg_read_all_stats"])
        self.reaper = stack.enter_context(Reaper(folder, REAPER_DSN=self.role.dsn))

    @property
    def admin(self) -> psycopg.Connection:
        """The superuser's autocommit connection."""
        return self.sandbox.admin

    def open(self, role: Role, application: str, **fields: Any) -> Client:  # noqa: ANN401 (whatever a client takes)
        """A session that is ready."""
        return self.clients.open(role=role, application=application, **fields)

    def leak(self, role: Role, count: int) -> None:
        """Open one connection after the other, each when the one before is idle."""
        for _ in range(count):
            client = self.open(role, "leaky")
            until(lambda: self.admin.execute(IDLE, (client.pid,)).rowcount)  # noqa: B023 (used at once)

    def fill_pool(self, role: Role, count: int, application: str) -> None:
        """Open sessions from two addresses, and then use each of them once."""
        ways = (role.dsn, make_conninfo(self.server.socket_dsn, user=role.name))
        for client in [self.open(role, application, dsn=ways[rank % 2]) for rank in range(count)]:
            client.wake()

    def advise(self, *options: str) -> tuple[Done, list[Row]]:
        """The findings."""
        done = self.reaper("advise", *LOOK, "--json", *options)
        return done, done.document["findings"]

    def apply(self, found: Row) -> None:
        """Run the statements that it proposes."""
        for fix in found["fixes"]:
            for statement in filter(None, fix["sql"].split("\n")):
                self.admin.execute(statement.encode())


class StartScene(Protocol):
    """Starts a server of the test's own."""

    def __call__(self, **settings: str) -> Scene: ...


@pytest.fixture
def start_scene(start_server: StartServer, tmp_path: Path) -> Iterator[StartScene]:
    with ExitStack() as stack:
        yield lambda **settings: Scene(start_server(**settings), stack, tmp_path)


def about(found: list[Row], topic: str, **wanted: object) -> Row:
    """The finding of this topic."""
    (one,) = [
        row
        for row in found
        if {"topic": topic, **wanted}.items() <= {**row, "evidence": 0, "fixes": 0}.items()
    ]
    return one


def sql(found: Row) -> list[str]:
    return [fix["sql"] for fix in found["fixes"] if fix["sql"]]


def refused_with(dsn: str, clients: ExitStack, *, after: int) -> str | None:
    """The error with which a new connection is refused, after this number of further ones."""
    for _ in range(after + 1):
        try:
            clients.enter_context(psycopg.connect(dsn))
        except psycopg.OperationalError as error:
            return str(error)
    return None


def test_a_healthy_server_gets_no_advice_and_0(start_scene: StartScene) -> None:
    scene = start_scene()
    app = scene.sandbox.role("app")
    for _ in range(3):
        scene.open(app, "web")

    done = scene.reaper("advise", "--for", "1s")

    assert done.code == 0
    assert "Nothing to advise" in done.out
    assert done.err == ""


def test_every_staged_problem_is_found_and_each_fix_works(start_scene: StartScene) -> None:
    scene = start_scene(max_connections="100")
    hostile = scene.sandbox.role('le"ak; --')
    waits, watch, plain = (scene.sandbox.role(name) for name in ("waits", "watch", "plain"))
    scene.leak(hostile, 8)
    forgotten = scene.open(waits, "jobs", state="idle in transaction")
    for _ in range(6):
        scene.open(watch, "postgres_exporter")
    scene.fill_pool(plain, 8, application="")

    scene.fill_pool(scene.sandbox.role("pool"), 12, application="pool")

    done, found = scene.advise()

    assert done.code == 1
    assert {row["topic"] for row in found} == {
        *("leak", "connection limit", "idle in transaction", "monitoring", "names", "large pool"),
    }
    assert about(found, "large pool")["fixes"][0]["setting"].endswith("for each of 2 instances (now up to 6)")
    limit = about(found, "connection limit")
    monitoring = about(found, "monitoring")
    (named,) = sql(about(found, "names"))
    waiting = about(found, "idle in transaction", role=waits.name)
    leak = about(found, "leak")
    assert leak["role"] == hostile.name
    assert leak["confidence"] == "possible"
    assert forgotten.present()  # nothing is applied by us

    scene.apply(waiting)
    until(scene.open(waits, "jobs", state="idle in transaction").left)
    assert forgotten.present()  # it holds for sessions that begin later
    scene.apply(monitoring)
    with ExitStack() as more:
        assert "too many connections for role" in str(refused_with(watch.dsn, more, after=0))
    scene.apply(limit)
    with ExitStack() as more:
        assert "too many connections for role" in str(refused_with(hostile.dsn, more, after=15 - 8))
    assert f'ALTER ROLE "{plain.name}" SET application_name' in named
    scene.admin.execute(f"ALTER ROLE \"{plain.name}\" SET application_name = '{plain.name}'".encode())
    with psycopg.connect(plain.dsn) as fresh:
        assert fresh.execute("SHOW application_name").fetchone() == (plain.name,)
    if scene.server.major >= 14:
        scene.admin.execute(b"ALTER ROLE %s CONNECTION LIMIT -1" % quoted(hostile))
        scene.apply(leak)
        until(scene.open(hostile, "leaky").left)
    else:
        assert sql(leak) == []


def quoted(role: Role) -> bytes:
    return b'"' + role.name.replace('"', '""').encode() + b'"'


def test_growth_while_observing_makes_a_leak_likely(start_scene: StartScene) -> None:
    scene = start_scene()
    app = scene.sandbox.role("app")
    scene.leak(app, 8)
    life = scene.reaper.start("advise", *LOOK, "--for", "4s", "-o", "json")
    until(lambda: scene.admin.execute(LOOKED, (scene.role.name,)).rowcount)
    scene.leak(app, 3)
    ended = life.ended()

    leak = about(json.loads(ended.out)["findings"], "leak")
    assert leak["confidence"] == "likely"
    assert leak["fixes"][1]["setting"] == "reaper advise --policy starting.yaml"


def test_a_blocking_session_is_urgent_and_the_statement_terminates_it_alone(
    start_scene: StartScene,
) -> None:
    scene = start_scene()
    app = scene.sandbox.role("app")
    scene.admin.execute(
        "CREATE TABLE stock (n int); GRANT ALL ON stock TO PUBLIC; INSERT INTO stock VALUES (1)"
    )
    holder, waiter = scene.open(app, "holder"), scene.open(app, "waiter")
    holder.run("BEGIN")
    holder.run("UPDATE stock SET n = 2")
    waiter.start("UPDATE stock SET n = 3")

    _, found = scene.advise()

    blocking = about(found, "blocking")
    assert (blocking["urgency"], blocking["application"]) == ("now", "holder")
    scene.apply(blocking)
    until(holder.left)
    assert waiter.finish() is None


@pytest.fixture
def leaking(start_scene: StartScene) -> Scene:
    scene = start_scene()
    scene.leak(scene.sandbox.role("app[x]*"), 8)
    return scene


def test_the_drafted_file_is_valid_and_matches_the_leaked_sessions(leaking: Scene) -> None:
    written = leaking.reaper("advise", *LOOK, "--policy", "policies.yaml")
    strict = leaking.reaper("check", "--offline", "--strict")
    plan = leaking.reaper("plan", "-o", "json").document

    assert (written.code, strict.code) == (1, 0)
    assert "every policy in it is a dry run" in written.err
    assert "leak connections" in written.out
    matched = [row for row in plan["decisions"] if row["policy"] == "leak-leaky"]
    assert len(matched) == 8
    assert {row["application"] for row in matched} == {"leaky"}
    assert "terminate" not in {row["decision"] for row in plan["decisions"]}


def test_only_stdout_gets_the_draft_without_a_file_and_only_overwrite_replaces_one(leaking: Scene) -> None:
    path = leaking.reaper.write("policies.yaml", "mine")
    look = ("advise", *LOOK, "-c", "none.yaml", "--policy")

    refused = leaking.reaper(*look, "policies.yaml")
    kept = path.read_text(encoding="utf-8")
    printed = leaking.reaper(*look)
    replaced = leaking.reaper(*look, "policies.yaml", "--overwrite")

    assert (refused.code, kept) == (2, "mine")
    assert refused.err == "policies.yaml: already exists\nhint: choose another file, or use --overwrite\n"
    assert (printed.code, printed.err, replaced.code) == (0, "", 1)
    for draft in (printed.out, path.read_text(encoding="utf-8")):
        leaking.reaper.write("draft.yaml", draft)
        assert leaking.reaper("check", "-c", "draft.yaml", "--offline", "--strict").code == 0


def test_a_saved_snapshot_is_advised_about_with_no_server(leaking: Scene) -> None:
    until(lambda: leaking.advise("--once")[1])
    leaking.reaper("snapshot", "seen.json")

    done = leaking.reaper(
        "advise", *LOOK, "--snapshot", "seen.json", "-o", "json", REAPER_DSN="host=nowhere.invalid"
    )

    assert done.code == 1
    leak = about(done.document["findings"], "leak")
    assert sql(leak) == []
    assert any("settings, role limits, replication slots" in said for said in done.document["not_observed"])


def test_when_the_slots_are_full_a_running_service_can_be_used(start_scene: StartScene) -> None:
    scene = start_scene(max_connections="20")
    app = scene.sandbox.role("app")
    scene.leak(app, 8)
    scene.reaper.write(FILE, policy_file(leaked(app, mode="dry-run", idle_for="1h")))
    life = scene.reaper.start("run", "--dry-run", *RECORD, *ANYWHERE, REAPER_DSN=scene.role.dsn)
    at = life.logged("http.listening")["at"]
    until(lambda: scene.reaper("usage", "--url", at).code == 0)
    with ExitStack() as crowd:
        assert refused_with(app.dsn, crowd, after=20)

        refused = scene.reaper("advise", *LOOK)
        inside = scene.reaper("advise", "--once", REAPER_DSN=scene.server.dsn)
        done = scene.reaper("advise", "--idle-for", "300ms", "--for", "3s", "--url", at, "-o", "json")

    assert refused.code == 3
    assert "reaper advise --url" in refused.err
    assert (inside.code, "ACT NOW" in inside.out) == (1, True)
    assert (done.code, done.err) == (1, "")
    assert done.document["snapshots"] >= 2
    leaks = [row for row in done.document["findings"] if row["topic"] == "leak"]
    assert leaks
    assert [sql(row) for row in leaks] == [[]] * len(leaks)
    assert any("settings, role limits" in said for said in done.document["not_observed"])
    assert life.end().code == 0


def history(folder: Path, *, aliases: bool = False) -> Path:
    """Three hours of an application that opens a connection every ten minutes and forgets it."""
    every = leak(20)
    options = HistoryOptions(
        folder=HistoryFolder(folder, ROOMY),
        every=parse_duration("1m"),
        aliases=Aliases(b"x" * SECRET_BYTES) if aliases else None,
    )
    writer = HistoryWriter(options, "orders")
    for minute in range(-180, 1):
        at = Timestamp(NOW + minute * 60_000_000)
        there = [one for one in every if one.id.backend_start <= at and (one.state_change or 0) <= at]
        writer.write(replace(look(there), at=at))
    writer.close()
    return folder


def test_a_history_is_advised_about_with_no_server(offline: Reaper) -> None:
    history(offline.folder / "history")

    done = offline("advise", "--history", "history", "--json")
    table = offline("advise", "--history", "history", "--policy", "starting.yaml")

    assert (done.code, table.code) == (1, 1)
    found = about(done.document["findings"], "leak")
    assert found["confidence"] == "likely"
    assert "in the last 1h it opened 5, closed 0 and used 0" in found["evidence"]
    assert "until 2025-06-18T12:00:00 UTC" in table.out
    assert offline("check", "-c", "starting.yaml", "--offline", "--strict").code == 0


def test_a_history_with_aliases_gives_neither_statements_nor_a_policy_file(offline: Reaper) -> None:
    history(offline.folder / "history", aliases=True)

    document = offline("advise", "--history", "history", "--json").document
    refused = offline("advise", "--history", "history", "--policy", "starting.yaml")

    assert any("aliases" in said for said in document["not_observed"])
    assert [fix["sql"] for found in document["findings"] for fix in found["fixes"] if fix["sql"]] == []
    assert refused.code == 2
    assert not (offline.folder / "starting.yaml").exists()


@pytest.mark.parametrize("given", ["soon", "99ms"])
def test_a_malformed_or_too_short_duration_is_refused(offline: Reaper, given: str) -> None:
    done = offline("advise", "--idle-for", given)

    assert done.code == 2
    assert harmless(done.err)
