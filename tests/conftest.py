"""What every ring of tests can be started with."""

import os

import pytest

from tests.postgres import majors


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


def pytest_configure(config: pytest.Config) -> None:
    text: str | None = config.getoption("--majors")
    if text is not None and config.getoption("--server"):
        message = "--majors or --server (REAPER_TEST_DSN), not both"
        raise pytest.UsageError(message)
    try:
        majors.wanted(text)
    except ValueError as error:
        raise pytest.UsageError(str(error)) from None
