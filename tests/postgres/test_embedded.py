"""The embedded server: starts quickly, leaves nothing behind, also under root and for an ordinary user."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psycopg
import pytest

import reaper
from reaper.demo import server as module
from reaper.demo.server import (
    EmbeddedServer,
    EmbeddedServerError,
    StopMode,
    can_run,
    find_binaries,
    free_ports,
    server_user,
)

from .conftest import StartServer
from .waiting import until

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can change to another user")
NOBODY: Mapping[str, Any] = {"user": 65_534, "group": 65_534, "extra_groups": []}
CODE = Path(reaper.__file__).parent.parent

HOLD_A_SERVER = """
import sys
from reaper.demo.server import EmbeddedServer
with EmbeddedServer() as server:
    print(server.folder, server.dsn, sep="\\n", flush=True)
    sys.stdin.read()
"""


def answers(dsn: str) -> bool:
    try:
        with psycopg.connect(dsn) as connection:
            return connection.execute("SELECT 1").fetchone() == (1,)
    except psycopg.OperationalError:
        return False


def python_for_all() -> str | None:
    """A Python that an ordinary user can run: this one, or the system's if this one is in root's home."""
    check = "import sys; sys.exit(sys.version_info < (3, 11))"
    for python in (sys.executable, shutil.which("python3", path="/usr/local/bin:/usr/bin")):
        if python and can_run(NOBODY, Path(python), "-c", check):
            return python
    return None


def test_it_answers_over_tcp_on_loopback_only_and_through_its_socket(
    own_server: EmbeddedServer, major: int
) -> None:
    assert answers(own_server.socket_dsn)
    assert own_server.major == major
    with psycopg.connect(own_server.dsn) as connection:
        assert connection.execute("SHOW listen_addresses").fetchone() == ("127.0.0.1",)


def test_nothing_is_left_of_it_after_stop(own_server: EmbeddedServer) -> None:
    folder, dsn = own_server.folder, own_server.dsn

    own_server.stop()
    own_server.stop()

    assert not folder.exists()
    assert not own_server.running
    assert not answers(dsn)
    with pytest.raises(EmbeddedServerError, match="not started"):
        _ = own_server.folder


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_nothing_is_left_of_it_after_an_exception(error: type[BaseException]) -> None:
    folders = []

    def work() -> None:
        with EmbeddedServer() as server:
            folders.append(server.folder)
            raise error

    with pytest.raises(error):
        work()
    assert [folder.exists() for folder in folders] == [False]


@pytest.mark.parametrize("mode", ["smart", "fast", "immediate"])
def test_it_restarts_on_the_same_port_with_the_same_data(own_server: EmbeddedServer, mode: StopMode) -> None:
    before = own_server.dsn
    with psycopg.connect(before, autocommit=True) as connection:
        connection.execute("CREATE TABLE kept ()")

    own_server.restart(mode)

    assert own_server.dsn == before
    with psycopg.connect(before) as connection:
        assert connection.execute("SELECT count(*) FROM kept").fetchone() == (0,)


def test_it_recovers_after_a_crash(own_server: EmbeddedServer) -> None:
    own_server.shut_down("immediate")
    assert not answers(own_server.dsn)

    own_server.start()

    assert answers(own_server.dsn)
    assert "was not properly shut down" in own_server.log_text()


def test_a_frozen_server_is_stopped_too(own_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_STOP_SECONDS", 0.1)
    folder = own_server.folder
    pid = int((own_server.data / "postmaster.pid").read_text(encoding="ascii").splitlines()[0])
    os.kill(pid, signal.SIGSTOP)

    own_server.stop()

    assert not folder.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_settings_and_encoding_are_the_callers(start_server: StartServer) -> None:
    server = start_server(encoding="SQL_ASCII", max_connections="17", application_name="it's")

    with psycopg.connect(server.dsn, application_name=None) as connection:
        settings = connection.execute(
            "SELECT current_setting(name) FROM unnest(%s::text[]) AS name",
            (["server_encoding", "max_connections", "application_name"],),
        ).fetchall()
    assert [str(value, "ascii") if isinstance(value, bytes) else value for (value,) in settings] == [
        "SQL_ASCII",
        "17",
        "it's",
    ]


def test_a_server_that_cannot_start_reports_the_reason_and_leaves_nothing(start_server: StartServer) -> None:
    with pytest.raises(EmbeddedServerError, match='invalid value for parameter "max_connections": "many"'):
        start_server(max_connections="many")


def test_another_port_is_tried_if_a_program_takes_the_first_one_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other_program:
        taken = int(other_program.getsockname()[1])
        free = next(free_ports())
        monkeypatch.setattr(module, "free_ports", lambda: iter([taken, free]))

        with EmbeddedServer() as server:
            assert server.port == free
            assert answers(server.dsn)


def test_the_environment_of_the_caller_does_not_reach_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"HOME": "", "LC_ALL": "xx_XX", "PGPORT": "1", "PGOPTIONS": "-c no.way"}.items():
        monkeypatch.setenv(name, value)
    with EmbeddedServer() as server:
        monkeypatch.undo()
        assert answers(server.dsn)


def test_a_temporary_folder_too_deep_for_a_socket_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))

    with EmbeddedServer() as server:
        assert not server.folder.is_relative_to(deep)
        assert answers(server.socket_dsn)
    assert list(deep.iterdir()) == []


def test_after_sigkill_of_the_program_server_and_folder_go_too() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD_A_SERVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(CODE)},
    ) as program:
        assert program.stdout
        folder, dsn = (program.stdout.readline().strip() for _ in range(2))
        assert answers(dsn)
        program.kill()

    until(lambda: not Path(folder).exists())
    assert not answers(dsn)


@AS_ROOT
def test_under_root_the_server_runs_as_another_user(own_server: EmbeddedServer) -> None:
    assert own_server.data.stat().st_uid == server_user()["user"] != 0
    assert own_server.folder.stat().st_uid == 0


@AS_ROOT
def test_it_starts_from_an_installation_in_a_private_home(tmp_path: Path) -> None:
    wheel = find_binaries().parent
    for part in (wheel, wheel.with_name(f"{wheel.name}.libs")):
        shutil.copytree(part, tmp_path / part.name, ignore=shutil.ignore_patterns("*18", "*.a"))
    tmp_path.chmod(0o700)
    private = tmp_path / wheel.name / find_binaries().name
    assert not can_run(NOBODY, private / "bin" / "postgres", "--version")

    with EmbeddedServer(binaries=private) as server:
        assert answers(server.dsn)


@pytest.fixture
def readable_code() -> Iterator[Path]:
    """A copy of the module and of the binaries that every user can read, wherever the environment lies."""
    with tempfile.TemporaryDirectory() as name:
        folder, wheel = Path(name), find_binaries().parent
        folder.chmod(0o755)
        shutil.copy(module.__file__, folder / "embedded.py")
        for part in (wheel, wheel.with_name(f"{wheel.name}.libs")):
            shutil.copytree(part, folder / part.name, ignore=shutil.ignore_patterns("*18", "*.a"))
        yield folder


@AS_ROOT
def test_an_ordinary_user_can_start_one_too(readable_code: Path) -> None:
    python = python_for_all()
    assert python, "an ordinary user can run no Python 3.11"
    done = subprocess.run(
        [python, "-c", HOLD_A_SERVER.replace("reaper.demo.server", "embedded")],
        input="",
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(readable_code)},
        cwd="/",
        **NOBODY,
    )

    assert done.returncode == 0, done.stderr
    assert not Path(done.stdout.splitlines()[0]).exists()


def test_a_major_that_is_not_packaged_is_refused_with_the_packaged_ones() -> None:
    with pytest.raises(
        EmbeddedServerError, match="no PostgreSQL 12 is packaged for the demo: it has 16 and 18"
    ):
        find_binaries(12)
