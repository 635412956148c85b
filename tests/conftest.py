"""What every ring of tests can be started with."""

import os

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("postgres", "the servers that tests/postgres runs on")
    group.addoption(
        "--majors",
        metavar="LIST",
        help="majors of PostgreSQL to run on, such as 13,16,18 or all (default: 16, from the extra demo)",
    )
    group.addoption(
        "--server",
        metavar="DSN",
        default=os.environ.get("REAPER_TEST_DSN"),
        help="run on this server, as its superuser (default: REAPER_TEST_DSN, or a server of our own)",
    )
