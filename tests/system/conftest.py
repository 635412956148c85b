"""The command, and the servers, roles and clients of the other ring that it meets."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.postgres.clients import Clients
from tests.postgres.conftest import (
    admin,
    clients,
    major,
    own_server,
    proxy,
    pytest_generate_tests,
    reaper_role,
    running_server,
    sandbox,
    server,
    start_server,
)
from tests.postgres.sandbox import Role, Sandbox

from .command import Reaper

__all__ = [
    "admin",
    "clients",
    "major",
    "own_server",
    "proxy",
    "pytest_generate_tests",
    "reaper_role",
    "running_server",
    "sandbox",
    "server",
    "start_server",
]


@pytest.fixture
def offline(tmp_path: Path) -> Iterator[Reaper]:
    """The command, with no server anywhere."""
    with Reaper(tmp_path, PGHOST=str(tmp_path / "nowhere")) as reaper:
        yield reaper


@pytest.fixture
def app(sandbox: Sandbox) -> Role:
    """The role of the clients that policies are about."""
    return sandbox.role("app")


@pytest.fixture
def reaper(tmp_path: Path, reaper_role: Role, clients: Clients) -> Iterator[Reaper]:
    """The command, with exactly the rights that it needs on the shared server."""
    assert isinstance(clients, Clients)  # opened before, and so closed after the command has ended
    with Reaper(tmp_path, REAPER_DSN=reaper_role.dsn) as reaper:
        yield reaper
