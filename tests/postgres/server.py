"""The server that a test runs on: one of ours, or one that was given."""

from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from reaper.demo.server import EmbeddedServer

from . import majors


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A running server that all tests share; none of them may stop it."""

    dsn: str
    """The superuser's way in."""
    major: int
    embedded: EmbeddedServer | None = None

    def binary(self, name: str) -> Path | None:
        """A client program that speaks to this server, when there is one."""
        return majors.tool(name, major=self.major)

    def log_text(self) -> str:
        """What the server has logged; a given server's log is out of reach, and the test is skipped."""
        if self.embedded is None:
            pytest.skip("the log of a given server cannot be read")
        return self.embedded.log_text()


def ours(embedded: EmbeddedServer) -> Server:
    return Server(dsn=embedded.dsn, major=embedded.major, embedded=embedded)


def given(dsn: str) -> Server:
    with psycopg.connect(dsn, connect_timeout=10) as connection:
        return Server(dsn=dsn, major=connection.info.server_version // 10_000)
