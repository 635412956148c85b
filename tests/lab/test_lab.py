"""Every command of the lab in short form."""

import subprocess
import sys
from typing import Final

import pytest

from tests.lab.campaigns.crash import crash
from tests.lab.campaigns.dry_run import dry_run, replay
from tests.lab.campaigns.race import race
from tests.lab.clients.sleepers import ROOT
from tests.lab.faults.report import VerifiedChain, chain_in
from tests.lab.report import Report
from tests.lab.world.isolation import no_own_pids

SEED = 5


def lab(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = (sys.executable, "-m", "tests.lab", *arguments)
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)


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
    done = lab("pid-reuse", "--pids", "20", "--major", str(major))

    assert done.returncode == 0, done.stdout + done.stderr
    assert "gone  20" in done.stdout


def test_after_sigkills_at_random_moments_the_audit_log_and_the_server_agree(major: int) -> None:
    report = crash(crashes=5, seed=SEED, major=major)

    hold(report)
    assert report.counted["sessions terminated, by the server's log"] > 0


def test_a_dry_run_reports_of_each_session_what_its_client_knows(major: int) -> None:
    report = dry_run(minutes=8 / 60, several=4, seed=SEED, major=major)

    hold(report)
    assert report.counted["of them seen by the reaper"] > 5
    assert report.counted["would-be terminations"] > report.counted["used again, by the clients' accounts"]


def test_a_backtest_chooses_the_sessions_that_the_live_dry_run_chose(major: int) -> None:
    report = replay(acts=40, seed=SEED, major=major, every="3s")

    hold(report)
    assert report.counted["the same session, state and policy"] >= 40


@pytest.mark.parametrize(
    ("command", "title"),
    [
        ("cycle --sessions 5 --windows 2 --seconds 1 --limit 1", "Cycle: 5"),
        ("terminations --counts 2 --bystanders 2 --rounds 1 --idle-for 2", "Terminations beside 2"),
        ("lateness --sessions 3 --begin-within 0.5 --interval 1 --limit 1.5", "Lateness: 3"),
        ("fleet --servers 2 --interval 1 --window 1 --on-each 3", "Fleet: one process"),
        ("start --runs 1", "Start: "),
        ("memory --seconds 1 --renamed 5", "Memory: "),
        ("backtest --hours 0.05 --hours 0.1 --members 3", "Backtest: "),
    ],
)
def test_a_benchmark_runs_at_the_smallest_scale(command: str, title: str) -> None:
    done = lab(*command.split())

    assert done.returncode == 0, done.stderr
    assert title in done.stdout


FAULTS: Final = "SIGKILL,of leaks,pg_authid,link cut,audit disk full,audit rotated"


def test_no_fault_leads_to_a_wrong_termination_and_everything_continues_by_itself() -> None:
    done = lab("faults", "--scale", "smoke", "--rounds", "5", "--only", FAULTS)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "Every invariant held." in done.stdout


def chain(*explained: str | None, more: int = 0, cuts: int = 0) -> VerifiedChain:
    damage = {"file": "a", "line": 7, "kind": "missing", "sentence": "2 lines"}
    damages = [{**damage, "explained": why} for why in explained]
    document = {"records": [{"lines": 4}, {"lines": 3}], "damages": damages, "more_damages": more}
    return chain_in(document, name="first", cuts=cuts)


def test_damage_that_the_audit_log_explains_is_what_a_fault_leaves() -> None:
    explained = chain("a:8 explains it")
    assert (explained.lines, explained.explained, explained.wrong) == (7, 1, [])


def test_damage_without_an_explanation_is_wrong_unless_a_fault_has_done_it() -> None:
    assert chain(None).wrong == ["a:7: missing: 2 lines"]
    assert chain(None, cuts=1).wrong == []
    assert len(chain(None, None, None, cuts=1).wrong) == 2
    assert len(chain(more=2, cuts=1).wrong) == 1


def test_a_cut_that_was_missed_is_wrong_and_two_that_were_found_as_one_are_not() -> None:
    assert len(chain(cuts=1).wrong) == 1
    assert chain(None, cuts=2).wrong == []
