"""Every campaign in short form."""

import subprocess
import sys

import pytest

from tests.lab.clients.sleepers import ROOT
from tests.lab.report import Report
from tests.lab.world.isolation import no_own_pids, small_disk

from .crash import crash
from .disk import SIZE, disk
from .dry_run import dry_run
from .race import race
from .replay import replay
from .rotation import rotation

SEED = 5


def hold(report: Report) -> None:
    print(report.text)  # noqa: T201 (shown when the test fails)
    assert not report.broken


def test_a_session_that_wakes_up_is_hit_only_in_the_microseconds_between_check_and_signal(major: int) -> None:
    report = race(acts=100, seed=SEED, major=major)

    hold(report)
    assert report.counted["acts"] >= 100


def test_a_new_session_with_the_pid_of_an_observed_one_is_not_touched(major: int) -> None:
    if objection := no_own_pids():
        pytest.skip(f"no pid namespace is possible here: {objection}")
    command = (sys.executable, "-m", "tests.lab", "pid-reuse", "--pids", "20", "--major", str(major))

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "gone  20" in done.stdout


def test_after_sigkills_at_random_moments_the_audit_log_and_the_server_agree(major: int) -> None:
    report = crash(crashes=5, seed=SEED, major=major)

    hold(report)
    assert report.counted["sessions terminated, by the server's log"] > 0


def test_no_line_is_lost_when_the_audit_log_is_renamed_under_load(major: int) -> None:
    report = rotation(rotations=6, seed=SEED, major=major)

    hold(report)
    assert report.counted["files"] == 7


def test_a_dry_run_reports_of_each_session_what_its_client_knows(major: int) -> None:
    report = dry_run(seconds=8, several=4, seed=SEED, major=major)

    hold(report)
    assert report.counted["of them seen by the reaper"] > 5
    assert report.counted["would-be terminations"] > report.counted["used again, by the clients' accounts"]


def test_a_backtest_chooses_the_sessions_that_the_live_dry_run_chose(major: int) -> None:
    report = replay(acts=40, seed=SEED, major=major, every="3s")

    hold(report)
    assert report.counted["the same session, state and policy"] >= 40


def test_nothing_is_terminated_while_the_disk_is_full(major: int) -> None:
    try:
        with small_disk(SIZE):
            pass
    except OSError as error:
        pytest.skip(str(error))

    report = disk(fillings=1, seed=SEED, major=major)

    hold(report)
    assert report.counted["sessions terminated, by the server's log"] > 0
