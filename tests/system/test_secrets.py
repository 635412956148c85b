"""No password leaves the reaper, whichever way it came in."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from reaper.demo.server import EmbeddedServer
from tests.postgres.clients import Clients
from tests.postgres.sandbox import Role
from tests.postgres.waiting import until

from .command import Reaper
from .policies import FILE, leaked, policy_file

PASSWORD: Final = "correct-horse-battery"  # noqa: S105 (of a server that lives as long as its test)
WRONG: Final = "wrong-horse-battery"
APP: Final = Role(name="app", dsn="")


@pytest.fixture
def locked_server(own_server: EmbeddedServer) -> EmbeddedServer:
    """A server that asks the reaper's role for its password."""
    with psycopg.connect(own_server.dsn, autocommit=True) as admin:
        admin.execute(f"CREATE ROLE reaper LOGIN PASSWORD '{PASSWORD}'")
        admin.execute("GRANT pg_read_all_stats, pg_signal_backend TO reaper")
        admin.execute("CREATE ROLE app LOGIN")
        hba = own_server.data / "pg_hba.conf"
        rules = hba.read_text(encoding="utf-8")
        hba.write_text(f"host all reaper 127.0.0.1/32 md5\n{rules}", encoding="utf-8")
        admin.execute("SELECT pg_reload_conf()")
        until(lambda: not lets_in(own_server, WRONG))
    return own_server


def lets_in(server: EmbeddedServer, password: str) -> bool:
    try:
        psycopg.connect(server.dsn, user="reaper", password=password).close()
    except psycopg.OperationalError:
        return False
    return True


def ways_in(server: EmbeddedServer, password: str) -> dict[str, dict[str, str]]:
    """Every way in which a password may be handed over."""
    where = f"host=127.0.0.1 port={server.port} dbname=postgres user=reaper"
    return {
        "keywords": {"REAPER_DSN": f"{where} password={password}"},
        "a URI": {"REAPER_DSN": f"postgresql://reaper:{password}@127.0.0.1:{server.port}/postgres"},
        "the environment": {"REAPER_DSN": where, "PGPASSWORD": password},
    }


WAYS: Final = ("keywords", "a URI", "the environment")


@pytest.fixture
def reaper(tmp_path: Path) -> Iterator[Reaper]:
    with Reaper(tmp_path) as reaper:
        reaper.write(FILE, policy_file(leaked(APP)))
        yield reaper


@pytest.mark.parametrize("way", WAYS)
def test_a_password_from_the_environment_opens_the_server_and_is_shown_nowhere(
    reaper: Reaper, locked_server: EmbeddedServer, way: str
) -> None:
    environment = ways_in(locked_server, PASSWORD)[way]
    reaper.environment.update(environment)
    life = reaper.start("run", "--audit-log", "-", "--audit-log", "audit.jsonl", "--log-level", "debug")
    app = Role(name="app", dsn=f"host=127.0.0.1 port={locked_server.port} dbname=postgres user=app")
    with Clients(locked_server.dsn) as clients:
        until(clients.open(role=app).left)
    command_line = Path(f"/proc/{life.pid}/cmdline").read_bytes().decode()
    locked_server.shut_down("immediate")
    life.logged("server.unreachable")
    done = life.end()
    shown = [reaper(command) for command in ("plan", "check", "snapshot")]

    said = [done.out, done.err, command_line, *(text for each in shown for text in (each.out, each.err))]
    said.append((reaper.folder / "audit.jsonl").read_text(encoding="ascii"))
    assert [each.code for each in shown] == [3, 3, 3]
    assert not [text for text in said if PASSWORD in text]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("command", ["once", "plan", "check", "snapshot"])
def test_a_wrong_password_is_3_and_is_shown_nowhere(
    reaper: Reaper, locked_server: EmbeddedServer, command: str, way: str
) -> None:
    done = reaper(command, **ways_in(locked_server, WRONG)[way])

    assert done.code == 3
    assert "password authentication failed" in done.out + done.err
    assert WRONG not in done.out + done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize("command", ["run", "once", "plan", "check", "snapshot"])
@pytest.mark.parametrize(
    "dsn",
    [
        f"host=db-1 user=reaper password={WRONG}",
        f"postgresql://reaper:{WRONG}@db-1/postgres",
        f"postgresql://db-1/postgres?user=reaper&password={WRONG}",
        f"host=db-1 sslkey=key sslpassword={WRONG}",
    ],
)
def test_a_password_on_the_command_line_is_refused_and_not_repeated(
    reaper: Reaper, command: str, dsn: str
) -> None:
    done = reaper(command, "--dsn", dsn)

    assert (done.code, done.out) == (2, "")
    assert "passfile" in done.err
    assert WRONG not in done.err


@pytest.mark.parametrize(
    "dsn",
    [
        f"host=db-1 pasword={WRONG}",
        f"postgresql://reaper:{WRONG}@[db-1/",
        f"postgresql://reaper:begin@{WRONG}@db-1/",
        f"postgresql://reaper:7/{WRONG}@db-1/",
        WRONG,
    ],
)
def test_a_connection_string_that_cannot_be_read_is_not_repeated(reaper: Reaper, dsn: str) -> None:
    for environment, options in (({"REAPER_DSN": dsn}, ()), ({}, ("--dsn", dsn))):
        done = reaper("plan", *options, **environment)

        assert (done.code, done.out) == (2, "")
        assert any(
            said in done.err for said in ("connection string cannot be read", "--dsn carries a password")
        )
        assert WRONG not in done.err


def test_query_text_stays_on_the_server_unless_it_is_asked_for(
    tmp_path: Path, own_server: EmbeddedServer
) -> None:
    with psycopg.connect(own_server.dsn, autocommit=True) as admin:
        admin.execute("CREATE ROLE app LOGIN")
    assert conninfo_to_dict(own_server.dsn)["user"] == "postgres"
    app = Role(name="app", dsn=own_server.dsn.replace("user=postgres", "user=app"))
    said = dict[str, str]()
    with Reaper(tmp_path, REAPER_DSN=own_server.dsn) as reaper, Clients(own_server.dsn) as clients:
        reaper.write(FILE, policy_file(leaked(app, idle_for="1ms")))
        for option in ("--log-level=debug", "--with-query-text", "--with-query-literals"):
            client = clients.open(role=app)
            client.run("SELECT 'a-secret' AS told")
            done = reaper("once", option)
            until(client.left)
            said[option] = done.out + done.err

    assert "told" not in said["--log-level=debug"]
    assert "a-secret" not in said["--with-query-text"]
    assert "SELECT ? AS told" in said["--with-query-text"]
    assert "SELECT 'a-secret' AS told" in said["--with-query-literals"]
