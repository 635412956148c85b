"""The servers, roles and clients that tests on a real PostgreSQL ask for."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from typing import Protocol

import psycopg
import pytest

from reaper.demo.server import DEFAULT_MAJOR, EmbeddedServer

from . import majors
from . import server as servers
from .clients import Clients
from .proxy import Proxy
from .sandbox import Role, Sandbox
from .server import Server
from .stage import Stage


class StartServer(Protocol):
    """Starts a server of the test's own."""

    def __call__(self, *, encoding: str = "UTF8", **settings: str) -> EmbeddedServer: ...


class StartStage(Protocol):
    """Starts a server of the test's own, with the reaper and its clients on it."""

    def __call__(self, *, encoding: str = "UTF8", **settings: str) -> Stage: ...


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "major" not in metafunc.fixturenames:
        return
    given = metafunc.config.getoption("--server")
    chosen = metafunc.config.getoption("--majors") or (DEFAULT_MAJOR,)
    ids = ["given"] if given else [f"pg{major}" for major in chosen]
    metafunc.parametrize("major", chosen, ids=ids, indirect=True, scope="session")


@pytest.fixture(scope="session")
def major(request: pytest.FixtureRequest) -> int:
    """The major of the servers that we start for this test."""
    chosen: int = request.param
    return chosen


@pytest.fixture(scope="session")
def running_server() -> Iterator[Callable[[int], EmbeddedServer]]:
    """Our shared server of a major, started at its first use and kept to the end."""
    with ExitStack() as stack:

        @cache
        def running(major: int) -> EmbeddedServer:
            return stack.enter_context(EmbeddedServer(binaries=majors.installation(major)))

        yield running


@pytest.fixture(scope="session")
def server(
    request: pytest.FixtureRequest, major: int, running_server: Callable[[int], EmbeddedServer]
) -> Server:
    """The server that all tests share: the given one, or ours of this major."""
    dsn: str | None = request.config.getoption("--server")
    return servers.given(dsn) if dsn else servers.ours(running_server(major))


@pytest.fixture
def start_server(major: int) -> Iterator[StartServer]:
    """Starts servers that the test may stop, restart and fill up; always ours."""
    with ExitStack() as stack:

        def start(*, encoding: str = "UTF8", **settings: str) -> EmbeddedServer:
            binaries = majors.installation(major)
            return stack.enter_context(
                EmbeddedServer(binaries=binaries, settings=settings, encoding=encoding)
            )

        yield start


@pytest.fixture
def own_server(start_server: StartServer) -> EmbeddedServer:
    """A server of the test's own, with the usual settings."""
    return start_server()


@pytest.fixture
def sandbox(server: Server) -> Iterator[Sandbox]:
    """Roles and databases of this test's own, dropped at its end."""
    with Sandbox(server) as sandbox:
        yield sandbox


@pytest.fixture
def admin(sandbox: Sandbox) -> psycopg.Connection:
    """The superuser's autocommit connection."""
    return sandbox.admin


@pytest.fixture
def reaper_role(sandbox: Sandbox) -> Role:
    """A role with exactly the rights that the reaper needs."""
    return sandbox.role("reaper", member_of=["pg_read_all_stats", "pg_signal_backend"])


@pytest.fixture
def clients(server: Server, sandbox: Sandbox) -> Iterator[Clients]:
    """Opens client sessions, and closes them before the sandbox goes."""
    assert sandbox.prefix
    with Clients(server.dsn) as clients:
        yield clients


@pytest.fixture
def stage(server: Server) -> Iterator[Stage]:
    """The reaper, its clients and what they need, on the shared server."""
    with Stage(server) as stage:
        yield stage


@pytest.fixture
def start_stage(start_server: StartServer) -> Iterator[StartStage]:
    """The same on a server of the test's own, with settings of its choice."""
    with ExitStack() as stack:

        def start(*, encoding: str = "UTF8", **settings: str) -> Stage:
            own = start_server(encoding=encoding, **settings)
            return stack.enter_context(Stage(servers.ours(own)))

        yield start


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    """A way to the shared server that can be cut."""
    with Proxy(server.dsn) as proxy:
        yield proxy
