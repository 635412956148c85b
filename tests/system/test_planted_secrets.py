"""Markers stand wherever secrets come in, and nothing that comes out of an eventful life holds one."""

import resource
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple
from urllib.error import HTTPError
from urllib.request import urlopen

import psycopg
import pytest
import yaml

from reaper.demo.server import EmbeddedServer
from tests.postgres.clients import Clients
from tests.postgres.sandbox import Role
from tests.postgres.waiting import until
from tests.unit.telemetry.webhook import Webhook, webhook

from .command import Life, Reaper
from .policies import FILE, leaked, policy_file
from .service import ANYWHERE, RECORD
from .test_service_manager import Manager, manager

__all__ = ["manager"]

PASSWORD: Final = "zx81-horse"  # noqa: S105 (of a server that lives as long as its test)
TOKEN: Final = "verysecrettoken"  # noqa: S105 (the end of the URL of `webhook`)
MARKERS: Final = ("zx81", TOKEN)
NEXT: Final = "zx81-battery"


class Way(NamedTuple):
    """How the password is handed over."""

    environment: Mapping[str, str]
    files: Mapping[str, str]


WAYS: Final = {
    "keywords": Way({"REAPER_DSN": "{where} password={password}"}, {}),
    "a URI": Way({"REAPER_DSN": "postgresql://reaper:{password}@127.0.0.1:{port}/postgres"}, {}),
    "the environment": Way({"REAPER_DSN": "{where}", "PGPASSWORD": "{password}"}, {}),
    "a passfile": Way(
        {"REAPER_DSN": "{where}", "PGPASSFILE": "{folder}/secret"}, {"secret": "*:*:*:*:{password}\n"}
    ),
    "a service file": Way(
        {"REAPER_DSN": "service=s", "PGSERVICEFILE": "{folder}/secret"},
        {
            "secret": "[s]\nhost=127.0.0.1\nport={port}\ndbname=postgres\nuser=reaper\n"
            "password={password}\nsslpassword=zx81-key\n"
        },
    ),
}


@pytest.fixture(scope="module")
def locked() -> Iterator[EmbeddedServer]:
    """A server that asks the reaper's role for its password."""
    with EmbeddedServer() as server:
        with psycopg.connect(server.dsn, autocommit=True) as admin:
            admin.execute("CREATE ROLE app LOGIN; CREATE ROLE reaper LOGIN")
            admin.execute("GRANT pg_read_all_stats, pg_signal_backend TO reaper")
        hba = server.data / "pg_hba.conf"
        hba.write_text(
            f"host all reaper 127.0.0.1/32 scram-sha-256\n{hba.read_text('utf-8')}", encoding="utf-8"
        )
        server.restart()
        yield server


@pytest.fixture
def admin(locked: EmbeddedServer) -> Iterator[psycopg.Connection]:
    with psycopg.connect(locked.dsn, autocommit=True) as admin:
        admin.execute(f"ALTER ROLE reaper PASSWORD '{PASSWORD}'")
        yield admin


@pytest.fixture
def chat() -> Iterator[Webhook]:
    with webhook() as hook:
        yield hook


@pytest.fixture
def reaper(tmp_path: Path, chat: Webhook) -> Iterator[Reaper]:
    """The command, with webhooks that are secrets, one of them gone."""
    with Reaper(tmp_path, HOOK=chat.url, GONE=f"http://127.0.0.1:1/{TOKEN}") as reaper:
        policies = yaml.safe_load(policy_file(leaked(Role("app", ""))))
        on = {"on": ["failures", "terminations"], "every": "1s"}
        hooks = [{"name": "chat", "webhook_env": "HOOK", **on}, {"name": "gone", "webhook_env": "GONE", **on}]
        reaper.write(FILE, yaml.safe_dump({**policies, "notify": hooks}))
        yield reaper


def plant(reaper: Reaper, way: Way, server: EmbeddedServer) -> None:
    """Hand the password over in this way."""
    where = f"host=127.0.0.1 port={server.port} dbname=postgres user=reaper"
    told = {"where": where, "port": server.port, "folder": reaper.folder, "password": PASSWORD}
    reaper.environment.update({name: text.format(**told) for name, text in way.environment.items()})
    for name, text in way.files.items():
        reaper.write(name, text.format(**told)).chmod(0o600)


def has_a_marker(text: str) -> bool:
    return any(marker in text for marker in MARKERS)


def of_proc(pid: int) -> str:
    """What every user of the host may read of a process."""
    read = (
        Path(f"/proc/{pid}/{name}").read_text(errors="replace")
        for name in ("cmdline", "comm", "maps", "status")
    )
    return "\n".join(read)


@pytest.mark.parametrize(
    ("way", "log_format"), [(name, ("human", "json")[number % 2]) for number, name in enumerate(WAYS)]
)
def test_no_planted_secret_comes_out_of_an_eventful_life(
    reaper: Reaper,
    locked: EmbeddedServer,
    admin: psycopg.Connection,
    chat: Webhook,
    manager: Manager,
    way: str,
    log_format: str,
) -> None:
    plant(reaper, WAYS[way], locked)
    life = reaper.start(
        "run",
        *ANYWHERE,
        *RECORD,
        "--log-level",
        "debug",
        "--log-format",
        log_format,
        NOTIFY_SOCKET=str(manager.path),
    )
    app = Role(name="app", dsn=f"host=127.0.0.1 port={locked.port} dbname=postgres user=app")
    with Clients(locked.dsn) as clients:
        until(clients.open(role=app).left)
    pages = [asked(life, name) for name in ("metrics", "readyz", "livez")]
    proc = of_proc(life.pid)
    shown = [
        reaper(*command) for command in (("snapshot", "now.json"), ("plan", "--output", "json"), ("check",))
    ]
    assert [done.code for done in shown] == [0, 0, 0]

    # The password is changed, its session ended, the policy file broken: now everything goes wrong.
    admin.execute(f"ALTER ROLE reaper PASSWORD '{NEXT}'")
    admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'reaper'")
    until(lambda: "password authentication failed" in "".join(life.err))
    until(lambda: any("password authentication failed" in text for text in chat.texts))
    until(lambda: "notify.failed" in "".join(life.err))
    pages.append(asked(life, "readyz"))
    reaper.write("policies.yaml", "version: 2\n")
    life.send(signal.SIGHUP)
    until(lambda: "policy.refused" in "".join(life.err))
    done = life.end()

    files = [reaper.folder / name for name in ("audit.jsonl", "now.json")]
    said = [done.out, done.err, proc, *pages, *chat.texts, *manager.said]
    said += [text for each in shown for text in (each.out, each.err)]
    said += [path.read_text(encoding="utf-8") for path in files]
    assert chat.texts
    assert manager.said
    assert [text for text in said if has_a_marker(text)] == []


def asked(life: Life, page: str) -> str:
    """A page, wherever a log of any format says that pages are."""
    line = until(lambda: next((line for line in list(life.err) if "http.listening" in line), None)) or ""
    port = line.rpartition("127.0.0.1:")[2].strip('"}\n ')
    try:
        with urlopen(f"http://127.0.0.1:{port}/{page}", timeout=10) as answer:
            return str(answer.read())
    except HTTPError as error:
        with error:
            return str(error.read())


def no_limit() -> None:
    """As on a host where dumps are wanted."""
    resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def test_a_crash_leaves_no_dump_of_its_memory(
    reaper: Reaper, locked: EmbeddedServer, admin: psycopg.Connection
) -> None:
    assert admin.info.dbname == "postgres"  # whose fixture has set the password
    plant(reaper, WAYS["the environment"], locked)
    life = reaper.start("run", *RECORD, "--listen", "off", "--log-level", "debug", before=no_limit)
    life.logged("cycle.quiet")
    limits = Path(f"/proc/{life.pid}/limits").read_text(encoding="ascii")

    (core,) = [line.split() for line in limits.splitlines() if line.startswith("Max core file size")]
    assert core[4:6] == ["0", "0"]
    assert life.end(signal.SIGABRT).code == -signal.SIGABRT
    assert not [path for path in reaper.folder.iterdir() if path.name.startswith("core")]
