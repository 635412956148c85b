"""The options that choose the servers to test on."""

import os
import subprocess
import sys

import pytest


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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--majors=12"], "'12': write all, or some of 13,14,15,16,17,18"),
        (["--majors=16,"], "'16,': write all, or some of 13,14,15,16,17,18"),
        (["--majors=²"], "'²': write all, or some of 13,14,15,16,17,18"),
        (["--majors=all", "--server=x"], "--majors or --server (REAPER_TEST_DSN), not both"),
        (["-n2", "--server=x"], "--server (REAPER_TEST_DSN) or -n, not both"),
    ],
)
def test_options_that_cannot_be_used_are_refused(options: list[str], message: str) -> None:
    done = collect(*options)

    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert message in done.stderr
