"""An output that nobody reads any more, as behind `| head`: what the command says, and how it ends."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.postgres.sandbox import Role

from .command import Reaper
from .policies import FILE, leaked, policy_file

OFFLINE = ("check", "--offline")
UNREAD = 141


@contextmanager
def unread() -> Iterator[int]:
    """A pipe whose other end is closed."""
    ours, theirs = os.pipe()
    os.close(ours)
    try:
        yield theirs
    finally:
        os.close(theirs)


@pytest.fixture
def reaper(offline: Reaper) -> Reaper:
    offline.write(FILE, policy_file(leaked(Role("app", ""))))
    offline.write("audit.jsonl", "")
    return offline


@pytest.mark.parametrize(
    "arguments",
    [
        *(("--help",), ("plan", "--help"), ("schema",), OFFLINE, (*OFFLINE, "-o", "json")),
        *(("audit", "audit.jsonl"), ("audit", "audit.jsonl", "-o", "json")),
    ],
    ids=" ".join,
)
def test_a_command_whose_output_is_not_read_ends_quietly_as_if_the_pipe_had_ended_it(
    reaper: Reaper, arguments: tuple[str, ...]
) -> None:
    with unread() as pipe:
        done = reaper.start(*arguments, stdout=pipe).ended()

    assert (done.code, done.err) == (UNREAD, "")


def test_the_script_for_a_shell_may_go_unread_as_well(reaper: Reaper) -> None:
    with unread() as pipe:
        done = reaper.start(stdout=pipe, _REAPER_COMPLETE="bash_source").ended()

    assert (done.code, done.err) == (UNREAD, "")


def test_both_outputs_may_go_unread_at_once(reaper: Reaper) -> None:
    with unread() as pipe:
        done = reaper.start(*OFFLINE, stdout=pipe, stderr=pipe).ended()

    assert done.code == UNREAD


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ((*OFFLINE, "--config", "nowhere"), 2),
        (("nonsense",), 2),
        (("once", "--audit-log", "audit.jsonl"), 3),
        (OFFLINE, 0),
    ],
    ids=str,
)
def test_the_exit_code_counts_even_if_nobody_reads_why(
    reaper: Reaper, arguments: tuple[str, ...], code: int
) -> None:
    with unread() as pipe:
        done = reaper.start(*arguments, stderr=pipe).ended()

    assert done.code == code


def test_a_record_that_nobody_reads_is_a_record_that_cannot_be_written(reaper: Reaper) -> None:
    with unread() as pipe:
        done = reaper.start("once", stdout=pipe).ended()

    assert done.code == 2
    assert "the audit log stdout cannot be written: Broken pipe" in done.err


FULL = "/dev/full"


@pytest.mark.parametrize(
    "arguments",
    [("--help",), ("schema",), OFFLINE, (*OFFLINE, "-o", "json"), ("audit", "audit.jsonl", "-o", "json")],
    ids=" ".join,
)
def test_an_output_that_there_is_no_room_for_is_told_in_a_sentence(
    reaper: Reaper, arguments: tuple[str, ...]
) -> None:
    with Path(FULL).open("w") as full:
        done = reaper.start(*arguments, stdout=full.fileno()).ended()

    assert done.err == "the output cannot be written: No space left on device\n"
    assert done.code == 2


@pytest.mark.parametrize(("arguments", "code"), [(OFFLINE, 0), (("nonsense",), 2)], ids=str)
def test_the_exit_code_counts_even_if_there_is_no_room_to_say_why(
    reaper: Reaper, arguments: tuple[str, ...], code: int
) -> None:
    with Path(FULL).open("w") as full:
        done = reaper.start(*arguments, stderr=full.fileno()).ended()

    assert done.code == code
