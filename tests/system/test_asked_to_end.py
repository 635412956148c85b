"""Signals that come before the service heeds them: asked to end it ends well, and nothing else ends it."""

from pathlib import Path
from signal import SIGHUP, SIGINT, SIGTERM, Signals
from typing import Final

import pytest

from tests.postgres.sandbox import Role
from tests.postgres.waiting import until

from .command import Done, Life, Reaper, parsed
from .policies import FILE, leaked, policy_file
from .service import ANYWHERE, RECORD

LOADED: Final = ("_asyncio", "psycopg_binary", "_pydantic_core")
"""Libraries in the order in which they are loaded, after the command is known and before it does anything."""


@pytest.fixture
def policies(reaper: Reaper, app: Role) -> Reaper:
    reaper.write(FILE, policy_file(leaked(app), interval="1h"))
    return reaper


def begun(reaper: Reaper) -> Life:
    return reaper.start("run", *ANYWHERE, *RECORD, "--log-level", "debug")


def has_loaded(life: Life, library: str) -> bool:
    return library in Path(f"/proc/{life.pid}/maps").read_text(encoding="utf-8", errors="replace")


def is_log(done: Done) -> bool:
    """Whether all that was said are lines of the log."""
    return len(parsed(done.err.splitlines())) == len(done.err.splitlines())


@pytest.mark.parametrize("number", [SIGTERM, SIGINT], ids=lambda number: number.name)
@pytest.mark.parametrize("library", LOADED)
def test_asked_to_end_while_it_is_loaded_it_ends_as_asked(
    policies: Reaper, library: str, number: Signals
) -> None:
    life = begun(policies)
    until(lambda: has_loaded(life, library))

    done = life.end(number)

    assert (done.code, done.out) == (0, "")
    assert is_log(done)


def test_asked_to_end_before_it_has_met_a_server_it_says_so_and_closes_its_record(policies: Reaper) -> None:
    life = begun(policies)
    life.logged("record.head")

    done = life.end()

    assert done.code == 0
    assert {"reaper.stopping"} <= {line["event"] for line in done.log}
    assert is_log(done)


@pytest.mark.parametrize("library", LOADED)
def test_a_reload_that_comes_too_early_ends_nothing(policies: Reaper, library: str) -> None:
    life = begun(policies)
    until(lambda: has_loaded(life, library))

    life.send(SIGHUP)

    life.logged("cycle.quiet")
    assert life.end().code == 0


def test_a_reload_that_comes_before_the_service_heeds_signals_is_made_up_for(policies: Reaper) -> None:
    life = begun(policies)
    life.logged("record.head")

    life.send(SIGHUP)

    life.logged("record.reopened")
    assert life.end().code == 0
