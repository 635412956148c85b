"""Every campaign in short form."""

import subprocess
import sys

import pytest

from .backtest import backtest
from .crash import crash
from .crowds import ROOT
from .disk import disk, small_disk
from .race import race
from .rehearsal import rehearsal
from .reuse import why_not
from .rotation import rotation

SEED = 5


def test_no_session_that_wakes_up_is_taken_but_in_the_microseconds_between_look_and_signal(
    major: int,
) -> None:
    report = race(acts=100, seed=SEED, major=major)

    print(report.text)  # noqa: T201 (shown when it fails)
    assert not report.broken
    assert report.counted["acts"] >= 100


def test_a_newcomer_on_the_pid_of_somebody_who_was_about_to_be_terminated_lives(major: int) -> None:
    if objection := why_not():
        pytest.skip(f"there can be no pid namespace of our own here: {objection}")
    command = (sys.executable, "-m", "tests.lab", "reuse", "--pids", "20", "--major", str(major))

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "20 gone" in done.stdout


def test_after_sigkills_at_random_instants_the_record_and_the_server_agree(major: int) -> None:
    report = crash(crashes=5, seed=SEED, major=major)

    print(report.text)  # noqa: T201 (shown when it fails)
    assert not report.broken
    assert report.counted["sessions terminated, by the server's log"] > 0


def test_no_line_is_lost_when_the_record_is_moved_aside_under_load(major: int) -> None:
    report = rotation(rotations=6, seed=SEED, major=major)

    print(report.text)  # noqa: T201 (shown when it fails)
    assert not report.broken
    assert report.counted["files"] == 7


def test_what_a_rehearsal_says_of_each_session_is_what_its_client_knows(major: int) -> None:
    report = rehearsal(seconds=8, several=4, seed=SEED, major=major)

    print(report.text)  # noqa: T201 (shown when it fails)
    assert not report.broken
    assert report.counted["of them seen by the reaper"] > 10
    assert report.counted["acts"] > report.counted["used again, by the clients' own account"]


def test_a_backtest_takes_the_sessions_that_the_live_dry_run_took_and_no_other(major: int) -> None:
    report = backtest(acts=40, seed=SEED, major=major, every="3s")

    print(report.text)  # noqa: T201 (shown when it fails)
    assert not report.broken
    assert report.counted["the same session, state and policy"] >= 40


def test_nobody_is_terminated_while_the_disk_is_full(major: int) -> None:
    try:
        with small_disk():
            pass
    except OSError as error:
        pytest.skip(f"a file system cannot be mounted here: {error}")

    report = disk(fillings=1, seed=SEED, major=major)

    print(report.text)  # noqa: T201 (shown when it fails)
    assert not report.broken
    assert report.counted["sessions terminated, by the server's log"] > 0
