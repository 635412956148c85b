"""Signals that come before the service heeds them: asked to end it ends well, and nothing else ends it."""

import os
from contextlib import suppress
from pathlib import Path
from signal import SIGHUP, SIGINT, SIGTERM, Signals
from typing import Final, Self

import pytest

from tests.postgres.sandbox import Role
from tests.postgres.waiting import until

from .command import Done, Life, Reaper, parsed
from .policies import FILE, leaked, policy_file
from .service import ANYWHERE, RECORD

LOADED: Final = ("_asyncio", "_yaml", "psycopg_binary")
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


@pytest.mark.parametrize("library", LOADED)
def test_a_reload_that_comes_too_early_ends_nothing(policies: Reaper, library: str) -> None:
    life = begun(policies)
    until(lambda: has_loaded(life, library))

    life.send(SIGHUP)

    life.logged("cycle.quiet")
    assert life.end().code == 0


def test_what_is_asked_for_before_there_is_a_loop_is_done_as_soon_as_there_is_one(policies: Reaper) -> None:
    with Held(policies) as held:
        held.life.send(SIGHUP)
        held.life.send(SIGTERM)
        said = held.let_go()
        done = held.life.ended()

    assert done.code == 0
    assert [line["event"] for line in parsed(said)][:2] == ["audit.head", "reaper.started"]
    assert "reaper.stopping" in {line["event"] for line in parsed(said)}


def test_a_reload_that_is_asked_for_before_there_is_a_loop_is_made_up_for(policies: Reaper) -> None:
    with Held(policies) as held:
        held.life.send(SIGHUP)
        held.let_go(until_it_says="audit.reopened")
        held.life.send(SIGTERM)
        assert held.life.ended().code == 0


class Held:
    """A service that has opened its record and waits with its first words: nobody reads them."""

    def __init__(self, reaper: Reaper) -> None:
        self._reaper = reaper
        self._ours, self._theirs = os.pipe()

    def __enter__(self) -> Self:
        _fill(self._theirs)
        self.life = self._reaper.start("run", *ANYWHERE, *RECORD, stderr=self._theirs)
        os.close(self._theirs)
        until(self._reaper.record)
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._ours)

    def let_go(self, *, until_it_says: str = "reaper.stopped") -> list[str]:
        """Read what it says, up to this event."""
        os.set_blocking(self._ours, False)
        said = bytearray()

        def has_said() -> bool:
            with suppress(BlockingIOError):
                said.extend(os.read(self._ours, 65_536))
            return f'"{until_it_says}"'.encode() in said

        until(has_said)
        return said.decode().splitlines()


def _fill(pipe: int) -> None:
    """To the last byte, so that whoever writes to it has to wait."""
    os.set_blocking(pipe, False)
    for size in (4096, 1):
        with suppress(BlockingIOError):
            while os.write(pipe, b"\n" * size):
                pass
    os.set_blocking(pipe, True)
