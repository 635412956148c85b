"""What every ring of tests can be started with."""

import os
from argparse import ArgumentTypeError
from collections.abc import Iterator
from typing import Final

import pytest
from hypothesis import HealthCheck, settings

from reaper.demo import server

# How long an example takes says how busy the machine is, and nothing of the code.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

MAJORS: Final = (13, 14, 15, 16, 17, 18)


def majors(text: str) -> tuple[int, ...]:
    """`all`, or the majors of a list such as `13,16`, each once."""
    if text == "all":
        return MAJORS
    known = {str(major): major for major in MAJORS}
    words = [word.strip() for word in text.split(",")]
    if not known.keys() >= set(words):
        message = f"{text!r}: write all, or some of {','.join(known)}"
        raise ArgumentTypeError(message)
    return tuple(dict.fromkeys(known[word] for word in words))


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("postgres", "the servers that tests/postgres runs on")
    group.addoption(
        "--majors",
        metavar="LIST",
        type=majors,
        help="majors of PostgreSQL to run on, such as 13,16,18 or all (default: 16, from the extra demo)",
    )
    group.addoption(
        "--server",
        metavar="DSN",
        default=os.environ.get("REAPER_TEST_DSN"),
        help="run on this server, as its superuser (default: REAPER_TEST_DSN, or a server of our own)",
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--majors") and config.getoption("--server"):
        message = "--majors or --server (REAPER_TEST_DSN), not both"
        raise pytest.UsageError(message)
    if config.getoption("--server") and config.getoption("numprocesses", default=None):
        message = "--server (REAPER_TEST_DSN) or -n, not both: tests on one server would meet each other"
        raise pytest.UsageError(message)


@pytest.fixture(scope="session", autouse=True)
def ports_of_its_own() -> Iterator[None]:
    """Of several workers of pytest-xdist, none looks for a free port where another may be about to listen."""
    count, worker = (os.environ.get(f"PYTEST_XDIST_WORKER{of}", "") for of in ("_COUNT", ""))
    with pytest.MonkeyPatch.context() as patch:
        if worker:
            patch.setattr(server, "_PORTS", server._PORTS[int(worker.removeprefix("gw")) :: int(count)])
        yield
