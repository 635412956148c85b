"""The options that choose the servers to test on."""

import os
import subprocess
import sys

import pytest

from .majors import tool


def collect(*options: str) -> subprocess.CompletedProcess[str]:
    """Let pytest say which tests it would run."""
    environment = {name: value for name, value in os.environ.items() if name != "REAPER_TEST_DSN"}
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "--collect-only",
            "-q",
            "-p",
            "no:randomly",
            f"{__file__}::test_it_runs_on",
            *options,
        ],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )


def test_it_runs_on(major: int) -> None:
    assert major >= 13


@pytest.mark.parametrize(
    ("options", "chosen"),
    [
        ([], ["pg16"]),
        (["--majors", "13, 18,13"], ["pg13", "pg18"]),
        (["--majors", "all"], ["pg13", "pg14", "pg15", "pg16", "pg17", "pg18"]),
        (["--server", "host=db-1"], ["given"]),
    ],
)
def test_majors_are_chosen_by_number_or_all_at_once(options: list[str], chosen: list[str]) -> None:
    found = collect(*options).stdout

    assert [line.split("[")[1].rstrip("]") for line in found.splitlines() if "[" in line] == chosen


@pytest.mark.parametrize("text", ["12", "16,", "²"])
def test_an_unknown_major_is_refused(text: str) -> None:
    done = collect(f"--majors={text}")

    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert f"{text!r}: write all, or some of 13,14,15,16,17,18" in done.stderr


def test_majors_of_a_given_server_are_refused() -> None:
    assert "--majors or --server (REAPER_TEST_DSN), not both" in collect("--majors=all", "--server=x").stderr


def test_several_workers_do_not_share_a_given_server() -> None:
    assert "--server (REAPER_TEST_DSN) or -n, not both" in collect("-n2", "--server=x").stderr


@pytest.mark.parametrize(("of", "theirs"), [(13, "pginstall"), (16, "pginstall"), (17, "pginstall18")])
def test_a_client_program_is_never_older_than_its_server(of: int, theirs: str) -> None:
    program = tool("pg_dump", major=of)

    assert program
    assert program.parent.parent.name == theirs
    assert tool("no_such_program", major=of) is None
