"""The server that a test runs on: an embedded one, or the one of --server."""

from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from reaper.demo.server import EmbeddedServer

from . import majors


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A running server that all tests share, so that no test may stop it."""

    dsn: str
    """The superuser's connection string."""
    major: int
    embedded: EmbeddedServer | None = None

    def binary(self, name: str) -> Path | None:
        """Return a client program that works with this server, None if there is none."""
        return majors.tool(name, major=self.major)

    def log_text(self) -> str:
        """Return the server's log; skip the test on a given server, because its log cannot be read."""
        if self.embedded is None:
            pytest.skip("the log of a given server cannot be read")
        return self.embedded.log_text()


def ours(embedded: EmbeddedServer) -> Server:
    return Server(dsn=embedded.dsn, major=embedded.major, embedded=embedded)


def given(dsn: str) -> Server:
    with psycopg.connect(dsn, connect_timeout=10) as connection:
        return Server(dsn=dsn, major=connection.info.server_version // 10_000)
